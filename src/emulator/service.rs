//! What all connections of an emulator share: the account behind its lock, the mint, the clients, the counters.
//!
//! Owns how a request reaches the account and comes back: admitted and done at once, answered after the scenario's
//! latency, with its key minted outside the lock. Knows no packets and no sockets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Answer, Operation, Route, Verdict, route};
use super::clients::Clients;
use super::counts::Counts;
use super::fault::{Dice, Fate};
use super::mint::{Authority, CertifyError, Mint};
use super::scenario::{Refusal, Scenario};
use super::session::Rules;
use super::store::{Journal, NotKept, StateDir};
use super::timer::Timer;
use super::verify::{Realm, SignedRequest, claimed_access_key};

/// The services that a signature of an upgrade may name.
const SERVICES: &[&str] = &["iotdevicegateway"];
/// The services that a signature of a control plane request may name: older SDKs name the second.
const CONTROL_SERVICES: &[&str] = &["iot", "execute-api"];
/// The services that a signature of a request to Service Quotas may name.
const QUOTA_SERVICES: &[&str] = &["servicequotas"];

/// What all connections share.
pub(super) struct Service {
    pub(super) scenario: Scenario,
    /// The port it listens on.
    pub(super) port: u16,
    /// What each connection may do.
    pub(super) rules: Arc<Rules>,
    pub(super) timer: Timer,
    pub(super) dice: Dice,
    pub(super) account: Mutex<Account>,
    /// Keeps the account over crashes, where it is to be kept.
    pub(super) journal: Option<Journal>,
    /// Ours for as long as the journal could write to it: dropped behind it.
    pub(super) _state_dir: Option<StateDir>,
    pub(super) authority: Arc<Authority>,
    pub(super) mint: Mint,
    pub(super) clients: Clients,
    pub(super) counts: Counts,
    pub(super) stop: CancellationToken,
    /// When it started; stalls and changes of quotas count from there.
    pub(super) started: Instant,
}

/// A request's answer, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

impl Service {
    /// Whose signature an upgrade must carry.
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

    /// Whose signature a control plane request must carry.
    pub(super) fn control_realm(&self, request: &SignedRequest<'_>) -> Realm<'_> {
        Realm { services: CONTROL_SERVICES, ..self.realm(request) }
    }

    /// Whose signature a request to Service Quotas must carry.
    pub(super) fn quotas_realm(&self, request: &SignedRequest<'_>) -> Realm<'_> {
        Realm { services: QUOTA_SERVICES, ..self.realm(request) }
    }

    /// Looks at the account, or changes it, for as long as `look` takes: nothing that waits belongs there.
    pub(super) fn account<R>(&self, look: impl FnOnce(&mut Account) -> R) -> R {
        // The account's calls are pure and total; if one panics after all, its test finds it, and others go on.
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&mut account);
        // Still under the lock, so that the journal has the changes in their order.
        if let (Some(journal), Some(changes)) = (&self.journal, account.take_changes()) {
            journal.append(changes);
        }
        seen
    }

    /// Waits until all that was done to the account so far would survive a crash. Nothing may be told of the account before:
    /// not that a request was accepted, and not what others have changed either.
    ///
    /// # Errors
    /// [`NotKept`] if it cannot be made to: then nothing may be told at all.
    pub(super) async fn settled(&self) -> Result<(), NotKept> {
        match &self.journal {
            Some(journal) => journal.settled().await,
            None => Ok(()),
        }
    }

    /// How long it has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether a CONNECT with this client id is let in. An empty one becomes one that nobody had before.
    ///
    /// # Errors
    /// If it is not: when to ask again.
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

    /// Whether the account takes a message from a client.
    pub(super) fn admit_publish(&self) -> bool {
        self.scenario.quotas.publish.is_none() || self.account(|account| account.admit_publish(self.age()))
    }

    /// Whether the account lets a message go to a client.
    pub(super) fn admit_delivery(&self) -> bool {
        self.scenario.quotas.deliver.is_none() || self.account(|account| account.admit_delivery(self.age()))
    }

    /// Whether the account takes a SUBSCRIBE of so many filters.
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

    /// What becomes of the next request on this topic.
    pub(super) fn fate(&self, topic: &str) -> Fate {
        let fate = self.dice.throw(&self.scenario.faults, &route(topic));
        if fate != Fate::default() {
            self.counts.faults.add();
        }
        fate
    }

    /// The answer to a request on `topic` that the scenario has fail.
    pub(super) fn unavailable(&self, topic: &str) -> Reply {
        let answer = self.account(|account| account.refuse(Refusal::Unavailable));
        self.counts.requests_rejected.add();
        reply(topic, answer)
    }

    /// Answers the request `payload` that was published on `topic`.
    ///
    /// # Errors
    /// [`NotKept`]: the answer must not be given.
    pub(super) async fn answer(&self, topic: &str, payload: &[u8]) -> Result<Reply, NotKept> {
        let route = route(topic);
        let taken_up = std::time::Instant::now();
        let answer = match self.account(|account| account.admit(self.age(), &route)) {
            Err(throttled) => {
                self.counts.requests_throttled.add();
                throttled
            }
            Ok(()) => {
                let latency = self.draw_latency(Operation::of(&route));
                let answer = self.perform(&route, payload).await;
                // What has been done is there for all to see before it is answered, as on any service that works in steps.
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
        Ok(reply(topic, answer))
    }

    async fn perform(&self, route: &Route<'_>, payload: &[u8]) -> Answer {
        match route {
            Route::CreateKeys => {
                let minted = self.mint.take().await;
                self.account(|account| account.create_keys(SystemTime::now(), payload, minted))
            }
            Route::Register { template } => {
                self.account(|account| account.register(SystemTime::now(), template, payload))
            }
            Route::CreateFromCsr => self.create_from_csr(payload).await,
            // The session asks for nothing but requests.
            _ => self.account(|account| account.refuse(Refusal::NotEmulated)),
        }
    }

    /// Signing takes a millisecond of a core: not on the runtime's threads.
    async fn create_from_csr(&self, payload: &[u8]) -> Answer {
        let csr = match self.account(|account| account.signing_request(payload)) {
            Ok(csr) => csr,
            Err(answer) => return answer,
        };
        let authority = Arc::clone(&self.authority);
        let certified =
            tokio::task::spawn_blocking(move || authority.certify_request(&csr, SystemTime::now())).await;
        self.account(|account| match certified {
            Ok(Ok(certified)) => account.create_from_csr(SystemTime::now(), certified),
            Ok(Err(CertifyError::Csr(error))) => account.refuse_for(Refusal::InvalidCsr, &error.to_string()),
            Ok(Err(CertifyError::Mint(error))) => account.refuse_for(Refusal::Internal, &error.to_string()),
            Err(_) => account.refuse_for(Refusal::Internal, "the signing was interrupted"),
        })
    }
}

fn reply(topic: &str, answer: Answer) -> Reply {
    Reply { topic: format!("{topic}/{}", answer.verdict.name()), payload: answer.payload }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::emulator::scenario::Keys;

    const CREATE: &str = "$aws/certificates/create/json";

    fn service(journal: Option<Journal>) -> Service {
        let scenario = Scenario { keys: Keys::P256, ..Scenario::default() };
        let mut account = Account::new(&scenario).unwrap();
        account.watch_changes();
        let authority = Arc::new(Authority::generate().unwrap());
        Service {
            mint: Mint::new(Arc::clone(&authority), scenario.keys).unwrap(),
            timer: Timer::start().unwrap(),
            dice: Dice::new(0),
            rules: Arc::new(Rules::of(&scenario)),
            scenario,
            port: 0,
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
        assert!(service.answer(CREATE, b"[]").await.is_ok(), "a rejection needs nothing kept");
        let failure = service.answer(CREATE, b"{}").await.unwrap_err();
        assert_eq!(service.settled().await, Err(failure));
        assert_eq!(service.account(|account| account.state().certificates.len()), 1, "done, and never told");
        assert!(service.answer(CREATE, b"[]").await.is_err(), "nothing is told any more");
    }

    #[tokio::test]
    async fn what_is_answered_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let service = service(Some(Journal::start(file).unwrap()));
        for count in 1..=20 {
            let reply = service.answer(CREATE, b"{}").await.unwrap();
            let kept = std::fs::read_to_string(&path).unwrap();
            let reply: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
            assert_eq!(kept.lines().count(), count);
            assert!(kept.contains(reply["certificateId"].as_str().unwrap()));
        }
    }
}
