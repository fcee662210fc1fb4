//! One device's way: a certificate, a durable checkpoint, a registration.
//!
//! Owns the order of the steps and what each failure means for the device. How a request reaches the service is
//! [`super::worker`]'s; what is retried is [`crate::failure::remedy`]'s.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::KeySource;
use super::worker::{self, Attempt, Halt, Worker};
use crate::certificate::{IssuedCertificate, RegisteredThing, SigningRequest, StoredKey};
use crate::control_plane::Settlement;
use crate::event::{Change, DeviceId, Note, Registration, Timing};
use crate::failure::{Cause, Failure, Remedy, Stage};
use crate::identity::{Identity, ParameterPlan};
use crate::keys::{self, KeyType};
use crate::ledger::{OpenDevice, Receipt, Recorded, Work};
use crate::provisioning::{self, Lane};
use crate::transport::Connector;

/// A certificate that is durable, and what is known of its registration.
struct Issued {
    certificate: Recorded<IssuedCertificate>,
    issued_at: SystemTime,
    registration: Registration,
    origin: Origin,
}

/// Which run a certificate was issued in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    ThisRun,
    EarlierRun,
}

/// The waits before each question to the control plane.
const SETTLE_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// How a step of the flow left the device.
enum Step {
    /// On to the registration.
    Register(Issued),
    /// At the start, or back there: the certificate is of no use any more.
    Create,
    /// The same, with a key of its own.
    Certify(Recorded<SigningRequest>),
    /// This device is done with, for now or for good.
    Done,
}

/// What to do after a failed attempt, once the waiting that the remedy asks for is over.
enum Next {
    TryAgain,
    GiveUp,
}

impl<C: Connector> Worker<C> {
    /// Takes one device as far as it goes. An error leaves the device explained by the ledger.
    pub(super) async fn provision(&mut self, device: OpenDevice) -> Result<(), Halt> {
        let OpenDevice { id, identity, work } = device;
        let mut step = match work {
            Work::Create => Step::Create,
            Work::Certify { request } => Step::Certify(request),
            Work::Register { certificate, issued_at, registration } => {
                let origin = Origin::EarlierRun;
                Step::Register(Issued { certificate, issued_at, registration, origin })
            }
        };
        loop {
            step = match step {
                Step::Create => self.create(id).await?,
                Step::Certify(request) => self.obtain(id, Some(request)).await?,
                Step::Register(issued) => self.register(id, &identity, issued).await?,
                Step::Done => return Ok(()),
            }
        }
    }

    /// A certificate for a device without a key.
    async fn create(&mut self, device: DeviceId) -> Result<Step, Halt> {
        match self.shared.plan.keys.source {
            KeySource::Service => self.obtain(device, None).await,
            KeySource::Local(key_type) => self.prepare(device, key_type).await,
        }
    }

    /// Makes a key pair. From here on the device has that one and no other.
    async fn prepare(&mut self, device: DeviceId, key_type: KeyType) -> Result<Step, Halt> {
        if self.shared.stop.drain.is_cancelled() {
            return Err(Halt::Drain);
        }
        let key = self.compute(move |policy| policy.prepare(key_type)).await;
        match self.commit(Change::KeyPrepared { device, key }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request)),
            other => unreachable!("the ledger answers KeyPrepared with the request, not {other:?}"),
        }
    }

    /// CreateCertificateFromCsr if there is a request, else CreateKeysAndCertificate, until a certificate is durable or
    /// the device has to be left.
    async fn obtain(
        &mut self,
        device: DeviceId,
        request: Option<Recorded<SigningRequest>>,
    ) -> Result<Step, Halt> {
        let lane = if request.is_some() { Lane::CreateFromCsr } else { Lane::Create };
        let mut attempts = 0;
        loop {
            if self.shared.stop.drain.is_cancelled() {
                return Err(Halt::Drain);
            }
            attempts += 1;
            let (timing, recorded) = match &request {
                Some(request) => self.try_certifying(device, request).await?,
                None => self.try_creating(device).await?,
            };
            let outcome = recorded.as_ref().map(|_| ()).map_err(Failure::clone);
            self.conclude(lane, timing, outcome).await;
            let failure = match recorded {
                Ok(issued) => return Ok(Step::Register(issued)),
                Err(failure) => failure,
            };
            match self.recover(lane, &failure, attempts).await? {
                Next::TryAgain => {}
                Next::GiveUp => return self.give_up_creating(device, failure).await,
            }
        }
    }

    /// One CreateKeysAndCertificate. The key is sealed before anything else gets it.
    async fn try_creating(&mut self, device: DeviceId) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        let Attempt { timing, answer } =
            self.attempt(Lane::Create, provisioning::create_request(), provisioning::parse_issued).await?;
        let issued_at = (self.shared.clock)();
        let recorded = match answer {
            Ok(certificate) => {
                let certificate = match self.shared.plan.keys.seal_to {
                    None => certificate.map_key(StoredKey::Plain),
                    Some(_) => self.compute(move |policy| certificate.map_key(|key| policy.keep(key))).await,
                };
                self.record_issued(Lane::Create, Change::Issued { device, certificate }, issued_at).await?
            }
            Err(failure) => Err(failure),
        };
        Ok((timing, recorded))
    }

    /// One CreateCertificateFromCsr. A certificate for another key is not this device's.
    async fn try_certifying(
        &mut self,
        device: DeviceId,
        request: &Recorded<SigningRequest>,
    ) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        let lane = Lane::CreateFromCsr;
        let Attempt { timing, answer } =
            self.attempt(lane, csr_payload(request), provisioning::parse_certified).await?;
        let issued_at = (self.shared.clock)();
        let recorded = match answer {
            Ok(certificate) => match keys::check_certificate(request, &certificate.certificate_pem) {
                Ok(()) => {
                    self.record_issued(lane, Change::Certified { device, certificate }, issued_at).await?
                }
                Err(mismatch) => Err(self.anomaly(lane, mismatch.to_string()).await),
            },
            Err(failure) => Err(failure),
        };
        Ok((timing, recorded))
    }

    /// The checkpoint: from here on the key cannot be lost.
    async fn record_issued(
        &mut self,
        lane: Lane,
        change: Change,
        issued_at: SystemTime,
    ) -> Result<Result<Issued, Failure>, Halt> {
        match self.commit(change).await? {
            Receipt::Issued(certificate) => {
                let (registration, origin) = (Registration::NotSent, Origin::ThisRun);
                Ok(Ok(Issued { certificate, issued_at, registration, origin }))
            }
            Receipt::Conflict(conflict) => Ok(Err(self.anomaly(lane, conflict.to_string()).await)),
            Receipt::Done | Receipt::KeyPrepared(_) => {
                unreachable!("the ledger answers a certificate with itself or a conflict")
            }
        }
    }

    async fn record_registered(
        &mut self,
        device: DeviceId,
        thing: RegisteredThing,
    ) -> Result<Result<(), Failure>, Halt> {
        match self.commit(Change::Registered { device, thing }).await? {
            Receipt::Conflict(conflict) => Ok(Err(self.anomaly(Lane::Register, conflict.to_string()).await)),
            Receipt::Done | Receipt::Issued(_) | Receipt::KeyPrepared(_) => Ok(Ok(())),
        }
    }

    async fn give_up_creating(&mut self, device: DeviceId, failure: Failure) -> Result<Step, Halt> {
        let change = match failure.cause {
            Cause::Rejected { .. } if !failure.may_have_acted() && !failure.is_throttle() => {
                Change::Rejected { device, failure: failure.clone() }
            }
            _ => Change::Left { device, registration: Registration::NotSent, failure: Some(failure.clone()) },
        };
        self.commit(change).await?;
        self.charge_budget(failure)
    }

    /// RegisterThing until the service has confirmed or refused it, or the device has to be left.
    async fn register(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<Step, Halt> {
        match self.try_registering(device, identity, &mut issued).await {
            Err(halt) => {
                // The run stops here: say what is known, so that the next run need not assume the worst.
                let change =
                    Change::Left { device, registration: issued.registration, failure: halt.failure() };
                if !matches!(halt, Halt::Recorder) {
                    self.commit(change).await?;
                }
                Err(halt)
            }
            step => step,
        }
    }

    async fn try_registering(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        issued: &mut Issued,
    ) -> Result<Step, Halt> {
        let payload = register_payload(&self.shared.plan.parameters, identity, &issued.certificate);
        let mut attempts = 0;
        // The last failure after which the service may have acted: it outlives later refusals.
        let mut lost: Option<Failure> = None;
        loop {
            if self.token_age(issued.issued_at) >= self.shared.plan.token_lifetime {
                return self.token_expired(device, issued, lost).await;
            }
            attempts += 1;
            let before = issued.registration;
            // Once the request is on its way it cannot be called back, so this comes first.
            issued.registration = Registration::MaySent;
            let attempt = self.attempt(Lane::Register, payload.clone(), provisioning::parse_registered).await;
            let Attempt { timing, answer } = attempt.inspect_err(|_| issued.registration = before)?;
            let registered = match answer {
                Ok(thing) => self.record_registered(device, thing).await?,
                Err(failure) => Err(failure),
            };
            self.conclude(Lane::Register, timing, registered.clone()).await;
            let Err(failure) = registered else { return Ok(self.registered()) };
            match failure.may_have_acted() {
                true => lost = Some(failure.clone()),
                false => issued.registration = before,
            }
            match self.recover(Lane::Register, &failure, attempts).await? {
                Next::TryAgain => {}
                Next::GiveUp => return self.give_up_registering(device, issued, failure, lost).await,
            }
        }
    }

    /// The device cannot be registered with this request. What that means depends on whether the service has acted.
    async fn give_up_registering(
        &mut self,
        device: DeviceId,
        issued: &Issued,
        failure: Failure,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        let refused =
            matches!(failure.cause, Cause::Rejected { status_code: 400..=499, .. }) && !failure.is_throttle();
        let change = match (self.settle(issued).await?, refused) {
            (Settlement::Registered(thing), _) => return self.record_settled(device, thing).await,
            // The token is of an earlier run, and by a clock that may have been changed since: a new one decides.
            (Settlement::NotRegistered, true) if issued.origin == Origin::EarlierRun => {
                return self.start_over(device).await;
            }
            (Settlement::NotRegistered, true) => Change::Rejected { device, failure: failure.clone() },
            // The refusal may only mean that the token was used by the registration whose answer was lost.
            (Settlement::Unsettled { .. }, true) => {
                Change::Unknown { device, failure: lost.unwrap_or_else(|| failure.clone()) }
            }
            (_, false) => {
                Change::Left { device, registration: issued.registration, failure: Some(failure.clone()) }
            }
        };
        self.commit(change).await?;
        self.charge_budget(failure)
    }

    /// The token is too old. A new certificate is only for a device of which surely none is registered.
    async fn token_expired(
        &mut self,
        device: DeviceId,
        issued: &Issued,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        let failure = lost.unwrap_or_else(|| Failure::new(Stage::RegisterThing, Cause::TokenExpired));
        let is_void = issued.registration == Registration::NotSent
            || self.token_age(issued.issued_at) >= self.shared.plan.certificate_lifetime;
        let change = match self.settle(issued).await? {
            Settlement::Registered(thing) => return self.record_settled(device, thing).await,
            Settlement::NotRegistered if is_void => {
                return self.start_over(device).await;
            }
            // A registration that is under way could still succeed; once the token is void it cannot.
            Settlement::NotRegistered => {
                Change::Left { device, registration: issued.registration, failure: Some(failure.clone()) }
            }
            Settlement::Unsettled { .. } => Change::Unknown { device, failure: failure.clone() },
        };
        self.commit(change).await?;
        self.charge_budget(failure)
    }

    /// Back to the start, with another certificate; a key that was made here is kept.
    async fn start_over(&mut self, device: DeviceId) -> Result<Step, Halt> {
        match self.commit(Change::TokenLapsed { device }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request)),
            _ => Ok(Step::Create),
        }
    }

    /// Whether the certificate is registered, as the account sees it. Asks a few times before it believes a no: a
    /// registration whose answer was lost may still be under way.
    async fn settle(&mut self, issued: &Issued) -> Result<Settlement, Halt> {
        if issued.registration == Registration::NotSent {
            return Ok(Settlement::NotRegistered);
        }
        let Some(settler) = self.shared.settler.clone() else {
            return Ok(Settlement::Unsettled { detail: String::from("there is no control plane to ask") });
        };
        let mut settlement = Settlement::NotRegistered;
        for pause in SETTLE_PAUSES {
            self.pause(pause).await?;
            settlement = self.while_idle(settler.settle(&issued.certificate.certificate_id)).await;
            if settlement != Settlement::NotRegistered {
                break;
            }
        }
        Ok(settlement)
    }

    async fn record_settled(&mut self, device: DeviceId, thing: RegisteredThing) -> Result<Step, Halt> {
        match self.record_registered(device, thing).await? {
            Ok(()) => {
                self.shared.recorder.note(Note::Settled).await;
                Ok(self.registered())
            }
            Err(anomaly) => {
                self.commit(Change::Unknown { device, failure: anomaly.clone() }).await?;
                self.charge_budget(anomaly)
            }
        }
    }

    /// Asks the one retry policy and does the waiting that it says.
    async fn recover(&mut self, lane: Lane, failure: &Failure, attempts: u32) -> Result<Next, Halt> {
        match self.remedy(failure, attempts) {
            Remedy::Again { after } | Remedy::Redial { after } => self.pause(after).await?,
            Remedy::Slower { after } => {
                let shared = self.shared.clone();
                shared.limits.lane(lane).hold(after);
                self.pause(after).await?;
            }
            Remedy::GiveUp | Remedy::Reissue => return Ok(Next::GiveUp),
            Remedy::StopRun => return Err(Halt::Stop(failure.clone())),
        }
        Ok(Next::TryAgain)
    }

    /// A reply that cannot be this device's. Its connection is not to be trusted with another exchange.
    async fn anomaly(&mut self, lane: Lane, detail: String) -> Failure {
        self.disconnect().await;
        Failure::new(worker::stage(lane), Cause::Anomaly { detail })
    }

    fn registered(&self) -> Step {
        self.shared.health.failed_in_a_row.store(0, Ordering::Relaxed);
        Step::Done
    }

    /// Counts a device that was not registered; stops the run when too many in a row were not.
    fn charge_budget(&self, failure: Failure) -> Result<Step, Halt> {
        let failed = self.shared.health.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        match failed < self.shared.plan.failure_budget {
            true => Ok(Step::Done),
            false => Err(Halt::Stop(failure)),
        }
    }

    /// How old a token is. A clock that was set back makes it brand new: the service then has the last word.
    fn token_age(&self, issued_at: SystemTime) -> Duration {
        (self.shared.clock)().duration_since(issued_at).unwrap_or_default()
    }
}

impl Halt {
    fn failure(&self) -> Option<Failure> {
        match self {
            Halt::Stop(failure) => Some(failure.clone()),
            Halt::Drain | Halt::Recorder => None,
        }
    }
}

/// The CreateCertificateFromCsr request. Takes the proof that the key is durable: asking for a certificate for a key that
/// could be lost does not compile.
fn csr_payload(request: &Recorded<SigningRequest>) -> Bytes {
    provisioning::csr_request(request)
}

/// The RegisterThing request. Takes the proof that the key is durable: registering a certificate whose key could be
/// lost does not compile.
fn register_payload(
    parameters: &ParameterPlan,
    identity: &Identity,
    certificate: &Recorded<IssuedCertificate>,
) -> Bytes {
    let parameters = parameters.expand(identity, certificate.certificate_id.as_str());
    let parameters: Vec<_> = parameters.into_iter().collect();
    let pairs = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
    provisioning::register_request(&certificate.ownership_token, pairs)
}
