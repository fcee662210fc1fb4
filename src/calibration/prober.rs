//! Asks the service one thing at a time, each on a connection of its own, so that no answer can be another's.
//!
//! Owns the budget of certificates and things, the ledger of what was made, and the notes that every exchange leaves:
//! durations and the order of packets. What is asked is in [`probes`](super::probes).

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

use super::facts::Fact;
use super::findings::{Findings, Rejection, Timed};
use super::subject::Subject;
use super::{Settings, Stopped};
use crate::call::Call;
use crate::certificate::{CertificateId, IssuedCertificate, Secret};
use crate::event::{Change, DeviceId};
use crate::failure::Cause;
use crate::identity::Identity;
use crate::ledger::{Ledger, Receipt};
use crate::provisioning::{CallTopics, Topics, parse_rejected};
use crate::transport::wss::WssConnector;
use crate::transport::{RawConnection, RawEvent, Signing};

/// The most certificates of a calibration.
pub const MOST_CERTIFICATES: usize = 25;
/// The most things of a calibration.
pub const MOST_THINGS: usize = 5;

/// How often a connection is tried, and a request whose answer was lost or may pass.
pub(super) const TRIES: usize = 5;
/// The first pause before another try; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The shortest wait for an answer that may not come.
const SILENCE: Duration = Duration::from_secs(3);
/// How long to wait for a PUBACK behind the answer.
const PUBACK_BEHIND: Duration = Duration::from_secs(1);

pub(super) type Raw = RawConnection<TlsStream<TcpStream>>;

/// Whether the answers' topics are subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    Subscribed,
    NotSubscribed,
}

/// What became of a request. Has no `Debug`: an answer may hold a private key.
pub(super) enum Answer {
    Accepted(Bytes),
    Rejected(Rejection),
    /// No answer to a request that was acknowledged; the connection was still there.
    Silence,
    /// No answer that can be read: the request or the connection was lost, or the answer was garbled.
    Lost,
}

/// What came on the connection of a request. Has no `Debug`: an answer may hold a private key.
struct Heard {
    answered: Option<(Instant, Answer)>,
    acknowledged: Option<Instant>,
    has_ended: bool,
}

impl Heard {
    /// Until when there is something to wait for: the answer until `until`, the PUBACK also for a while behind it.
    fn until(&self, until: Instant) -> Instant {
        self.answered.as_ref().map_or(until, |(came, _)| *came + PUBACK_BEHIND)
    }

    fn is_all(&self) -> bool {
        self.has_ended || self.answered.is_some() && self.acknowledged.is_some()
    }
}

/// A certificate that may be registered.
pub(super) struct Held {
    pub(super) device: usize,
    pub(super) id: CertificateId,
    pub(super) token: Secret<String>,
    pub(super) since: Instant,
}

pub(super) struct Prober<'a> {
    pub(super) connector: &'a WssConnector,
    pub(super) subject: &'a Subject,
    pub(super) settings: &'a Settings,
    pub(super) topics: Topics,
    pub(super) findings: Findings,
    ledger: &'a mut Ledger,
    /// Devices that have had no certificate yet: places in the subject's list, the next one last.
    unused: Vec<usize>,
    certificates_left: usize,
    pub(super) things_left: usize,
    /// Digests of the private keys, to notice one that comes again.
    keys: HashSet<u64>,
    /// A certificate that is kept until its token has expired.
    pub(super) aging: Option<Held>,
    /// Whether a registration with all parameters was accepted: without one, a refusal of any other may have any cause.
    pub(super) can_register: bool,
    /// Whether such a registration made the thing that the template makes of them: a hook may make another.
    pub(super) names_tell: bool,
    /// Whether the topics of CreateCertificateFromCsr may be subscribed to: a policy need not allow what is not used.
    pub(super) may_certify: bool,
}

impl<'a> Prober<'a> {
    pub(super) fn new(
        connector: &'a WssConnector,
        subject: &'a Subject,
        settings: &'a Settings,
        ledger: &'a mut Ledger,
    ) -> Self {
        Self {
            connector,
            subject,
            settings,
            topics: subject.topics(),
            findings: Findings::default(),
            ledger,
            unused: (0..subject.devices.len()).rev().filter(|place| *place != subject.left_out.1).collect(),
            certificates_left: MOST_CERTIFICATES,
            things_left: MOST_THINGS - kept_for_expiry(settings),
            keys: HashSet::new(),
            aging: None,
            can_register: false,
            names_tell: false,
            may_certify: true,
        }
    }

    /// Opens a connection that subscribes to `filters`, which may be none.
    pub(super) async fn open(&mut self, filters: &[&str]) -> Result<Raw, Stopped> {
        let mut last = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE * attempt as u32).await;
            }
            let dial = self.connector.dial_raw(Signing::default()).await;
            let mut raw = match dial.outcome {
                Ok(raw) => raw,
                Err(failure) => {
                    last = Some(failure);
                    continue;
                }
            };
            last = None;
            if let Some(took) = dial.phases.connack {
                self.findings.time(Timed::Connect, took);
            }
            if filters.is_empty() || self.subscribe(&mut raw, filters).await {
                return Ok(raw);
            }
        }
        Err(last.map_or(Stopped::NoSubscription, Stopped::Unreachable))
    }

    /// Subscribes; whether everything was granted.
    async fn subscribe(&mut self, raw: &mut Raw, filters: &[&str]) -> bool {
        let sent = Instant::now();
        if raw.subscribe(filters).await.is_err() {
            return false;
        }
        match raw.next(sent + self.settings.timeout).await {
            Some((came, RawEvent::Subscribed(granted))) if granted.iter().all(|granted| *granted) => {
                self.findings.time(Timed::Subscribe, came - sent);
                true
            }
            _ => false,
        }
    }

    /// Sends one request on a connection of its own, and waits for what becomes of it.
    pub(super) async fn ask(
        &mut self,
        call: Call,
        payload: Bytes,
        hearing: Hearing,
    ) -> Result<Answer, Stopped> {
        let topics = self.topics.call(call).clone();
        self.ask_on(call, &topics, payload, hearing).await
    }

    pub(super) async fn ask_on(
        &mut self,
        call: Call,
        topics: &CallTopics,
        payload: Bytes,
        hearing: Hearing,
    ) -> Result<Answer, Stopped> {
        let filters = [topics.accepted.as_str(), topics.rejected.as_str()];
        let filters = if hearing == Hearing::Subscribed { &filters[..] } else { &[] };
        let is_csr = call == Call::CreateCertificateFromCsr;
        if is_csr && !self.may_certify {
            return Ok(Answer::Lost);
        }
        let mut raw = match self.open(filters).await {
            Err(Stopped::NoSubscription) if is_csr => {
                self.may_certify = false;
                return Ok(Answer::Lost);
            }
            opened => opened?,
        };
        let sent = Instant::now();
        let until = sent + self.patience(call, hearing);
        let Ok(id) = raw.publish(&topics.request, payload).await else { return Ok(Answer::Lost) };
        let mut heard = Heard { answered: None, acknowledged: None, has_ended: false };
        while let Some((came, event)) = raw.next(heard.until(until)).await {
            match event {
                RawEvent::Acknowledged(acked) if acked == id => heard.acknowledged = Some(came),
                RawEvent::Message { topic, payload } if topic == topics.accepted => {
                    heard.answered.get_or_insert((came, Answer::Accepted(payload)));
                }
                RawEvent::Message { topic, payload } if topic == topics.rejected => {
                    heard.answered.get_or_insert((came, rejected(&payload)));
                }
                RawEvent::Ended(_) => heard.has_ended = true,
                RawEvent::Acknowledged(_) | RawEvent::Message { .. } | RawEvent::Subscribed(_) => {}
            }
            if heard.is_all() {
                break;
            }
        }
        raw.close().await;
        Ok(self.note_heard(call, sent, heard))
    }

    /// Notes how long an answer took, and whether it came before the PUBACK.
    fn note_heard(&mut self, call: Call, sent: Instant, heard: Heard) -> Answer {
        let Heard { answered, acknowledged, has_ended } = heard;
        let Some((came, answer)) = answered else {
            // A request without a PUBACK may have been lost.
            return if acknowledged.is_some() && !has_ended { Answer::Silence } else { Answer::Lost };
        };
        match &answer {
            Answer::Accepted(_) => self.findings.time(timed(call), came - sent),
            Answer::Rejected(rejection) if !rejection.may_pass() => {
                self.findings.time_refusal(timed(call), came - sent);
            }
            Answer::Rejected(_) | Answer::Silence | Answer::Lost => {}
        }
        if let (Some(acknowledged), Answer::Accepted(_) | Answer::Rejected(_)) = (acknowledged, &answer) {
            let first = if acknowledged < came { "the PUBACK" } else { "the answer" };
            self.findings.note(Fact::PubackOrder, first);
        }
        answer
    }

    /// Sends a request that makes nothing until its answer is clear: what may pass, such as a throttle, is asked again after
    /// a pause, and is no answer in the end. Silence is one if it comes twice. Gives up when no answer has come in the time of
    /// two.
    pub(super) async fn ask_until_clear(
        &mut self,
        call: Call,
        topics: &CallTopics,
        payload: Bytes,
    ) -> Result<Answer, Stopped> {
        let (mut silences, mut waited) = (0, Duration::ZERO);
        for attempt in 1..=TRIES {
            let began = Instant::now();
            match self.ask_on(call, topics, payload.clone(), Hearing::Subscribed).await? {
                Answer::Rejected(rejection) if rejection.may_pass() => pause_after(attempt).await,
                answer @ (Answer::Silence | Answer::Lost) => {
                    silences += u32::from(matches!(answer, Answer::Silence));
                    waited += began.elapsed();
                    if silences == 2 {
                        return Ok(answer);
                    }
                    if waited >= 2 * self.settings.timeout {
                        break;
                    }
                }
                answer => return Ok(answer),
            }
        }
        Ok(Answer::Lost)
    }

    /// How long to wait for an answer. One that may never come is waited for much longer than any took.
    fn patience(&self, call: Call, hearing: Hearing) -> Duration {
        match hearing {
            Hearing::Subscribed => self.settings.timeout,
            Hearing::NotSubscribed => {
                (self.findings.longest(timed(call)) * 4).max(SILENCE).min(self.settings.timeout)
            }
        }
    }

    /// Gets a certificate with a key of the service, and makes it durable; `None` if none was got.
    pub(super) async fn certificate(&mut self) -> Result<Option<Held>, Stopped> {
        for attempt in 1..=TRIES {
            let Some(device) = self.spend_certificate() else { return Ok(None) };
            let payload = crate::provisioning::create_request().payload;
            let answer = self.ask(Call::CreateKeysAndCertificate, payload, Hearing::Subscribed).await?;
            if let Some(held) = self.keep(device, &answer)? {
                return Ok(Some(held));
            }
            if matches!(&answer, Answer::Rejected(rejection) if rejection.status < 500) {
                // Nothing was made.
                self.certificates_left += 1;
                pause_after(attempt).await;
            }
        }
        Ok(None)
    }

    /// The device of the next certificate, which counts as made from here on; `None` if none may be made any more.
    pub(super) fn spend_certificate(&mut self) -> Option<usize> {
        self.certificates_left = self.certificates_left.checked_sub(1)?;
        self.unused.last().copied()
    }

    /// How many certificates may still be made.
    pub(super) fn certificates_left(&self) -> usize {
        self.certificates_left
    }

    /// Makes a certificate durable that was issued for `device`; `None` if the answer has none.
    pub(super) fn keep(&mut self, device: usize, answer: &Answer) -> Result<Option<Held>, Stopped> {
        let Answer::Accepted(payload) = answer else { return Ok(None) };
        let Ok(issued) = crate::provisioning::parse_issued(payload) else { return Ok(None) };
        self.findings.note(Fact::Keys, kind_of(&issued.private_key, &mut self.keys));
        let issued = issued.map_key(Into::into);
        self.record(device, |device| Change::Issued { device, certificate: issued })
    }

    /// Makes a certificate durable; the device is used from here on.
    pub(super) fn record(
        &mut self,
        device: usize,
        change: impl FnOnce(DeviceId) -> Change,
    ) -> Result<Option<Held>, Stopped> {
        let receipts = self.commit(change(self.device_id(device)))?;
        self.unused.retain(|unused| *unused != device);
        let Some(Receipt::Issued(issued)) = receipts.into_iter().next() else { return Ok(None) };
        let IssuedCertificate { certificate_id, ownership_token, .. } = issued.into_inner();
        Ok(Some(Held { device, id: certificate_id, token: ownership_token, since: Instant::now() }))
    }

    /// A device that cannot have the next certificate.
    pub(super) fn pass_over(&mut self, device: usize) {
        self.unused.retain(|unused| *unused != device);
    }

    /// A device that gets another certificate next.
    pub(super) fn reuse(&mut self, device: usize) {
        self.unused.push(device);
    }

    pub(super) fn commit(&mut self, change: Change) -> Result<Vec<Receipt>, Stopped> {
        self.ledger.commit(vec![change], SystemTime::now()).map_err(Stopped::Ledger)
    }

    pub(super) fn device_id(&self, device: usize) -> DeviceId {
        DeviceId(self.subject.devices[device].0)
    }

    pub(super) fn identity(&self, device: usize) -> &'a Identity {
        &self.subject.devices[device].1
    }

    /// A rejection without names. `detail` is what was to blame.
    pub(super) fn anonymous(&self, rejection: Rejection, detail: &str) -> Rejection {
        let Rejection { status, code, message } = rejection;
        let anonymous = |text: &str| self.subject.anonymous(text, detail);
        Rejection { status, code: anonymous(&code), message: anonymous(&message) }
    }

    /// Notes an answer that should be a refusal.
    pub(super) fn note_refusal(&mut self, fact: Fact, answer: Answer, detail: &str) {
        match answer {
            Answer::Rejected(rejection) => {
                let rejection = self.anonymous(rejection, detail);
                self.findings.note(fact, rejection);
            }
            Answer::Accepted(_) => self.findings.note(fact, super::facts::TAKEN),
            Answer::Silence => self.findings.note(fact, "no answer"),
            Answer::Lost => {}
        }
    }
}

/// How many things are kept for the token that has expired, which may be taken after all: the wait for it must not be in
/// vain.
pub(super) fn kept_for_expiry(settings: &Settings) -> usize {
    usize::from(settings.expired_after.is_some())
}

/// Waits before a request is sent again that was throttled; not after the last try.
pub(super) async fn pause_after(attempt: usize) {
    if attempt < TRIES {
        sleep(PAUSE * 2_u32.pow(attempt as u32)).await;
    }
}

pub(super) fn rejected(payload: &[u8]) -> Answer {
    match parse_rejected(payload) {
        Cause::Rejected { status_code, error_code, error_message } => {
            Answer::Rejected(Rejection { status: status_code, code: error_code, message: error_message })
        }
        _ => Answer::Lost,
    }
}

fn timed(call: Call) -> Timed {
    match call {
        Call::CreateKeysAndCertificate => Timed::CreateKeys,
        Call::CreateCertificateFromCsr => Timed::CreateFromCsr,
        Call::RegisterThing => Timed::Register,
        Call::Publish => Timed::Publish,
    }
}

/// The kind of a private key; or that it has come before.
fn kind_of(key: &Secret<String>, known: &mut HashSet<u64>) -> &'static str {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.expose().hash(&mut hasher);
    if !known.insert(hasher.finish()) {
        return "one key for all";
    }
    let Ok(pem) = pem::parse(key.expose()) else { return "another kind" };
    let is_pkcs1 = pem.tag() == "RSA PRIVATE KEY";
    let der = zeroize::Zeroizing::new(pem.into_contents());
    let has = |oid: &[u8]| der.windows(oid.len()).any(|bytes| bytes == oid);
    if has(&P256_OID) {
        "P-256"
    } else if (is_pkcs1 || has(&RSA_OID)) && (1100..=1300).contains(&der.len()) {
        "RSA 2048"
    } else {
        "another kind"
    }
}

/// The curve prime256v1 (RFC 5480 section 2.1.1.1), in DER.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// rsaEncryption (RFC 8017 appendix A.1), in DER.
const RSA_OID: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_by_its_algorithm() {
        let mut known = HashSet::new();
        let mut kind = |der: &[u8]| {
            let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der));
            kind_of(&Secret::new(pem), &mut known)
        };
        // PKCS#8 of an Ed25519 key (RFC 8410 section 7): 48 bytes.
        let mut ed25519 =
            vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22];
        ed25519.extend([0x04, 0x20]);
        ed25519.extend([7; 32]);
        assert_eq!(kind(&ed25519), "another kind");
        assert_eq!(kind(&ed25519), "one key for all");
        assert_eq!(kind(&[&P256_OID[..], &[1; 100]].concat()), "P-256");
        assert_eq!(kind(&[&RSA_OID[..], &[1; 1200]].concat()), "RSA 2048");
        assert_eq!(kind(&[&RSA_OID[..], &[1; 2400]].concat()), "another kind");
    }
}
