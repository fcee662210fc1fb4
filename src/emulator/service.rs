//! What all connections of an emulator share: the account behind its lock, the mint, the clients, the counters.
//!
//! Owns the path of a request to the account and back: it is admitted and processed at once and answered after the
//! scenario's latency; its key is made outside the lock. Knows no packets and no sockets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::{
    Account, Action, Answer, Certified, Minted, Operation, ParameterOverrides, Principal, Registrant, Route,
    Verdict, route,
};
use super::clients::Clients;
use super::counts::Counts;
use super::fault::{Dice, Fate, spoil};
use super::format::Format;
use super::hook;
use super::mint::{Authority, CertifyError, Mint, MintError};
use super::scenario::{Fault, FaultTarget, Refusal, Scenario};
use super::session::Ending;
use super::session::Rules;
use super::store::{Journal, NotKept, StateDir};
use super::timer::Timer;
use super::verify::{Realm, SignedRequest, claimed_access_key};

/// The services that an upgrade's signature may name. Version 1 of AWS's SDKs for Python and Java signs for the second.
const SERVICES: &[&str] = &["iotdevicegateway", "iotdata"];

/// What all connections share.
pub(super) struct Service {
    pub(super) scenario: Scenario,
    /// The port that the emulator listens on.
    pub(super) port: u16,
    /// The host that clients are told to dial.
    pub(super) host: String,
    /// What each connection may do.
    pub(super) rules: Arc<Rules>,
    pub(super) timer: Timer,
    pub(super) dice: Dice,
    pub(super) account: Mutex<Account>,
    /// Makes the account survive crashes; `None` if it is kept in memory.
    pub(super) journal: Option<Journal>,
    /// Keeps the directory locked while the journal may write to it: dropped after the journal.
    pub(super) _state_dir: Option<StateDir>,
    pub(super) authority: Arc<Authority>,
    pub(super) mint: Mint,
    /// Limits how many certificates are signed at once: more would only compete for a core.
    pub(super) signers: Semaphore,
    pub(super) clients: Clients,
    pub(super) counts: Counts,
    pub(super) stop: CancellationToken,
    /// When the emulator started; stalls and quota changes count from here.
    pub(super) started: Instant,
}

/// The sender of a request.
#[derive(Debug)]
pub(super) struct Requester {
    /// The number of its connection.
    pub(super) number: u64,
    /// Its client id.
    pub(super) client_id: String,
    /// The id of the certificate that opened its connection; `None` for a signed connection.
    pub(super) certificate_id: Option<String>,
    /// Lets one request per connection at a time have a certificate signed or call a hook, so that a connection with
    /// hundreds of requests does not delay others.
    pub(super) turn: Arc<Semaphore>,
}

/// A request's answer, and its topic.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

/// The account is kept in a directory, which outlives the emulator: a reset would have to delete what was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an emulator whose state is kept in a directory cannot be reset; stop it and delete the directory")]
pub struct CannotReset;

impl Service {
    /// The credentials and scope that an upgrade's signature must match.
    pub(super) fn realm(&self, request: &SignedRequest<'_>) -> Realm<'_> {
        let scenario = &self.scenario;
        let first = Realm {
            access_key_id: &scenario.access_key_id,
            secret_access_key: &scenario.secret_access_key,
            session_token: scenario.session_token.as_deref(),
            has_expired: false,
            region: &scenario.region,
            services: SERVICES,
        };
        let claimed = claimed_access_key(request);
        let key = scenario.credentials.iter().find(|key| Some(&key.access_key_id) == claimed.as_ref());
        key.map_or(first, |key| Realm {
            access_key_id: &key.access_key_id,
            secret_access_key: &key.secret_access_key,
            session_token: key.session_token.as_deref(),
            has_expired: key.valid_for.is_some_and(|valid_for| self.age() >= valid_for),
            ..first
        })
    }

    /// The credentials and scope that a control plane request's signature must match; `services` are the names that it
    /// may use.
    pub(super) fn control_realm<'r>(
        &'r self,
        request: &SignedRequest<'_>,
        services: &'r [&'r str],
    ) -> Realm<'r> {
        Realm { services, ..self.realm(request) }
    }

    /// Runs `look` on the account, which it may change. Everything else waits meanwhile, so `look` must not block.
    pub(super) fn account<R>(&self, look: impl FnOnce(&mut Account) -> R) -> R {
        // The account's calls should not panic. If one does, other requests continue.
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&mut account);
        for certificate in account.take_deactivated() {
            self.clients.hang_up_certificate(&certificate, &Ending::Deactivated);
        }
        // Done under the lock, so that the journal gets the changes in order.
        if let (Some(journal), Some(changes)) = (&self.journal, account.take_changes()) {
            journal.append(changes);
        }
        seen
    }

    /// Waits until all changes made to the account so far would survive a crash. Nothing about the account may be
    /// disclosed before that: neither that a request was accepted nor what others have changed.
    ///
    /// # Errors
    /// [`NotKept`] if the changes cannot be made durable: then nothing may be disclosed at all.
    pub(super) async fn settled(&self) -> Result<(), NotKept> {
        match &self.journal {
            Some(journal) => journal.settled().await,
            None => Ok(()),
        }
    }

    /// Issues a claim certificate: active, with a policy that allows only fleet provisioning.
    pub(super) async fn issue_claim(&self) -> Minted {
        let minted = self.mint.take(self.clients.number()).await;
        let Minted { certificate_pem, certificate_id, .. } = minted.clone();
        let certified = Certified { certificate_pem, certificate_id };
        self.account(|account| account.register_claim(SystemTime::now(), certified));
        minted
    }

    /// Resets everything to the initial state.
    ///
    /// # Errors
    /// [`CannotReset`] if the account is kept in a directory.
    pub(super) fn reset(&self) -> Result<(), CannotReset> {
        if self.journal.is_some() {
            return Err(CannotReset);
        }
        self.account(|account| account.reset(&self.scenario));
        self.clients.hang_up_all(&Ending::Stopped);
        self.dice.load(self.scenario.faults.clone());
        self.counts.reset();
        Ok(())
    }

    /// How long the emulator has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether a CONNECT with this client id is admitted. An empty client id counts as a new one.
    ///
    /// # Errors
    /// When to ask again, if it is not admitted.
    pub(super) fn admit_connect(&self, client_id: &str) -> Result<(), Instant> {
        const SOON: Duration = Duration::from_millis(100);
        if self.clients.connected() >= self.scenario.limits.connections as usize {
            return Err(Instant::now() + SOON);
        }
        let quotas = &self.scenario.quotas;
        if quotas.connect.is_none() && quotas.connect_per_client_id.is_none() {
            return Ok(());
        }
        let client_id = Some(client_id).filter(|id| !id.is_empty());
        let admitted = self.account(|account| account.admit_connect(self.age(), client_id));
        admitted.map_err(|age| self.started + age)
    }

    /// Whether the account's quota admits a message from a client.
    pub(super) fn admit_publish(&self) -> bool {
        self.scenario.quotas.publish.is_none() || self.account(|account| account.admit_publish(self.age()))
    }

    /// Whether the account's quota admits a message to a client.
    pub(super) fn admit_delivery(&self) -> bool {
        self.scenario.quotas.deliver.is_none() || self.account(|account| account.admit_delivery(self.age()))
    }

    /// Whether the account's quota admits a SUBSCRIBE with this many filters.
    pub(super) fn admit_subscribe(&self, filters: usize) -> bool {
        self.scenario.quotas.subscribe.is_none()
            || self.account(|account| account.admit_subscribe(self.age(), filters))
    }

    /// How long the next operation of this kind takes.
    pub(super) fn draw_latency(&self, operation: Operation) -> Duration {
        if operation.law(&self.scenario.latency).is_zero() {
            return Duration::ZERO;
        }
        self.account(|account| account.draw_latency(operation))
    }

    /// The fate of the next request at `target`.
    pub(super) fn fate(&self, target: FaultTarget) -> Fate {
        let fate = self.dice.throw(target);
        if fate != Fate::default() {
            self.counts.faults.add();
        }
        fate
    }

    /// Whether `principal`, connected as `client_id`, may do `action` with `name`.
    pub(super) fn permits(&self, principal: &Principal, client_id: &str, action: Action, name: &str) -> bool {
        // Most scenarios deny signers nothing, and then a message need not wait for the account's lock.
        let Scenario { deny, credentials, .. } = &self.scenario;
        let all_may_all = deny.is_empty() && credentials.iter().all(|key| key.document.is_none());
        let is_free = matches!(principal, Principal::Signer(_)) && all_may_all;
        is_free || self.account(|account| account.allows(principal, client_id, action, name))
    }

    /// A rejection that a fault of the scenario calls for.
    pub(super) fn reject(&self, status: u16, code: Option<&str>) -> Answer {
        self.counts.requests_rejected.add();
        match (status, code) {
            (429, None) => self.account(|account| account.refuse(Refusal::Throttled)),
            (503, None) => self.account(|account| account.refuse(Refusal::Unavailable)),
            (status, code) => {
                let reply = serde_json::json!({
                    "statusCode": status,
                    "errorCode": code.unwrap_or("InjectedFault"),
                    "errorMessage": "A fault of the scenario.",
                });
                Answer { verdict: Verdict::Rejected, payload: reply.to_string().into() }
            }
        }
    }

    /// An answer as it goes on the wire: in its topic's format, within the limit on messages, and changed by `fault`.
    pub(super) fn reply(&self, topic: &str, answer: Answer, fault: Option<&Fault>) -> Reply {
        let format = Format::of(topic);
        let most = self.scenario.limits.payload_bytes as usize;
        let Answer { mut verdict, payload } = answer;
        let mut payload = fault.map_or(payload.clone(), |fault| spoil(fault, &payload));
        if *fault.unwrap_or(&Fault::Duplicate) != Fault::Garble {
            payload = format.encode(payload);
        }
        if payload.len() > most {
            let detail = format!("The answer has {} bytes; a message may have {most}.", payload.len());
            let refused = self.account(|account| account.refuse_for(Refusal::Internal, &detail));
            verdict = refused.verdict;
            payload = format.encode(refused.payload);
        }
        Reply { topic: format!("{topic}/{}", verdict.name()), payload }
    }

    /// Answers the request `payload` that `requester` published on `topic`.
    ///
    /// # Errors
    /// [`NotKept`] if the account cannot be made durable: then no answer may be given.
    pub(super) async fn answer(
        &self,
        requester: &Requester,
        topic: &str,
        payload: &[u8],
    ) -> Result<Answer, NotKept> {
        let route = route(topic);
        let taken_up = std::time::Instant::now();
        let answer = match self.account(|account| account.admit(self.age(), &route)) {
            Err(throttled) => {
                self.counts.requests_throttled.add();
                throttled
            }
            Ok(()) => {
                let latency = self.draw_latency(Operation::of(&route));
                let payload = Format::of(topic).decode(payload);
                let answer = self.perform(requester, &route, &payload).await;
                // The changes are visible to others before the request is answered, as in any service that works in
                // steps.
                self.settled().await?;
                self.timer.wait_until(taken_up + latency).await;
                answer
            }
        };
        self.settled().await?;
        match answer.verdict {
            Verdict::Accepted => self.counts.requests_accepted.add(),
            Verdict::Rejected => self.counts.requests_rejected.add(),
        }
        Ok(answer)
    }

    async fn perform(&self, requester: &Requester, route: &Route<'_>, payload: &[u8]) -> Answer {
        match route {
            Route::CreateKeys => {
                let minted = self.mint.take(requester.number).await;
                self.account(|account| account.create_keys(SystemTime::now(), payload, minted))
            }
            Route::Register { template } => self.register(requester, template, payload).await,
            Route::CreateFromCsr => self.create_from_csr(requester, payload).await,
            // The session passes on only requests.
            _ => self.account(|account| account.refuse(Refusal::NotEmulated)),
        }
    }

    /// Registers. If the template has a hook, the hook is called first, while other requests continue.
    async fn register(&self, requester: &Requester, template: &str, payload: &[u8]) -> Answer {
        let Requester { client_id, certificate_id, .. } = requester;
        let registrant = Registrant { client_id, certificate_id: certificate_id.as_deref() };
        let call =
            self.account(|account| account.hook_call(SystemTime::now(), registrant, template, payload));
        let overrides = match call {
            None => Ok(ParameterOverrides::new()),
            Some(call) => match self.scenario.hooks.get(&call.target_arn) {
                Some(command) => {
                    let _turn = requester.turn.acquire().await;
                    hook::ask(command, call.input).await
                }
                None => Err("is not one that the scenario has"),
            },
        };
        self.account(|account| match overrides {
            Ok(overrides) => account.register_with(SystemTime::now(), template, payload, &overrides),
            Err(denial) => account.refuse_for(Refusal::HookDenied, denial),
        })
    }

    /// Signs a certificate for a request's key. That takes a millisecond of a core, so it does not run on the runtime's
    /// threads.
    async fn create_from_csr(&self, requester: &Requester, payload: &[u8]) -> Answer {
        let csr = match self.account(|account| account.signing_request(payload)) {
            Ok(csr) => csr,
            Err(answer) => return answer,
        };
        let _turn = requester.turn.acquire().await;
        let certified = self.certify(csr).await;
        self.account(|account| match certified {
            Ok(certified) => account.create_from_csr(SystemTime::now(), certified),
            Err(CertifyError::Csr(error)) => account.refuse_for(Refusal::InvalidCsr, &error.to_string()),
            Err(CertifyError::Mint(error)) => account.refuse_for(Refusal::Internal, &error.to_string()),
        })
    }

    /// Makes a certificate for a signing request, PEM.
    pub(super) async fn certify(&self, csr: String) -> Result<Certified, CertifyError> {
        let _permit = self.signers.acquire().await;
        let authority = Arc::clone(&self.authority);
        let certified = spawn_blocking(move || authority.certify_request(&csr, SystemTime::now())).await;
        let interrupted = |_| MintError { step: "signing", detail: String::from("it was interrupted") };
        certified.map_err(|error| CertifyError::Mint(interrupted(error)))?
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::emulator::scenario::Keys;

    fn requester() -> Requester {
        let turn = Arc::new(Semaphore::new(1));
        Requester { number: 0, client_id: String::new(), certificate_id: None, turn }
    }

    const CREATE: &str = "$aws/certificates/create/json";

    fn service(journal: Option<Journal>) -> Service {
        let scenario = Scenario { keys: Keys::P256, ..Scenario::default() };
        let mut account = Account::new(&scenario).unwrap();
        account.watch_changes();
        let authority = Arc::new(Authority::generate().unwrap());
        Service {
            mint: Mint::new(Arc::clone(&authority), scenario.keys).unwrap(),
            timer: Timer::start().unwrap(),
            dice: Dice::new(scenario.faults.clone()),
            rules: Arc::new(Rules::of(&scenario)),
            scenario,
            port: 0,
            host: String::from("localhost"),
            signers: Semaphore::new(1),
            account: Mutex::new(account),
            journal,
            _state_dir: None,
            authority,
            clients: Clients::default(),
            counts: Counts::default(),
            stop: CancellationToken::new(),
            started: Instant::now(),
        }
    }

    #[tokio::test]
    async fn what_the_disk_did_not_take_is_not_answered() {
        // A file that is open for reading only takes no write, as a full disk does.
        let unwritable = tempfile::NamedTempFile::new().unwrap();
        let journal = Journal::start(std::fs::File::open(unwritable.path()).unwrap()).unwrap();
        let service = service(Some(journal));
        let requester = requester();
        assert!(service.answer(&requester, CREATE, b"[]").await.is_ok(), "a rejection needs nothing kept");
        let failure = service.answer(&requester, CREATE, b"{}").await.unwrap_err();
        assert_eq!(service.settled().await, Err(failure));
        assert_eq!(service.account(|account| account.state().certificates.len()), 1, "done, and never told");
        assert!(service.answer(&requester, CREATE, b"[]").await.is_err(), "nothing is told any more");
    }

    #[tokio::test]
    async fn what_is_answered_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let service = service(Some(Journal::start(file).unwrap()));
        for count in 1..=20 {
            let reply = service.answer(&requester(), CREATE, b"{}").await.unwrap();
            let kept = std::fs::read_to_string(&path).unwrap();
            let reply: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
            assert_eq!(kept.lines().count(), count);
            assert!(kept.contains(reply["certificateId"].as_str().unwrap()));
        }
    }
}
