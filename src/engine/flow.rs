//! One device's way: a certificate, a durable checkpoint, a registration.
//!
//! Owns the order of the steps and what each failure means for the device. How a request reaches the service is
//! [`super::worker`]'s; what is retried is [`crate::failure::remedy`]'s.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::worker::{self, Attempt, Halt, Worker};
use crate::certificate::{IssuedCertificate, RegisteredThing};
use crate::event::{Change, DeviceId, Registration};
use crate::failure::{Cause, Failure, Remedy, Stage};
use crate::identity::{Identity, ParameterPlan};
use crate::ledger::{OpenDevice, Receipt, Recorded, Work};
use crate::provisioning::{self, Lane};
use crate::transport::Connector;

/// A certificate that is durable, and what is known of its registration.
struct Issued {
    certificate: Recorded<IssuedCertificate>,
    issued_at: SystemTime,
    registration: Registration,
    /// An earlier run left it behind, and the ledger has it as surely not sent.
    is_left_unsent: bool,
}

/// How a step of the flow left the device.
enum Step {
    /// On to the registration.
    Register(Issued),
    /// Back to the start: the certificate is of no use any more.
    Create,
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
            Work::Register { certificate, issued_at, registration } => {
                let is_left_unsent = registration == Registration::NotSent;
                Step::Register(Issued { certificate, issued_at, registration, is_left_unsent })
            }
        };
        loop {
            step = match step {
                Step::Create => self.create(id).await?,
                Step::Register(issued) => self.register(id, &identity, issued).await?,
                Step::Done => return Ok(()),
            }
        }
    }

    /// CreateKeysAndCertificate until a certificate is durable, or the device has to be left.
    async fn create(&mut self, device: DeviceId) -> Result<Step, Halt> {
        let mut attempts = 0;
        loop {
            if self.shared.stop.drain.is_cancelled() {
                return Err(Halt::Drain);
            }
            attempts += 1;
            let permitted = self.permit_creation().await?;
            let Attempt { timing, answer } = self
                .attempt(permitted, Lane::Create, provisioning::create_request(), provisioning::parse_issued)
                .await;
            let recorded = match answer {
                Ok(certificate) => self.record_issued(device, certificate).await?,
                Err(failure) => Err(failure),
            };
            let outcome = recorded.as_ref().map(|_| ()).map_err(Failure::clone);
            self.conclude(Lane::Create, timing, outcome).await;
            let failure = match recorded {
                Ok(issued) => return Ok(Step::Register(issued)),
                Err(failure) => failure,
            };
            match self.recover(Lane::Create, &failure, attempts).await? {
                Next::TryAgain => {}
                Next::GiveUp => return self.give_up_creating(device, failure).await,
            }
        }
    }

    /// The checkpoint: from here on the key cannot be lost.
    async fn record_issued(
        &mut self,
        device: DeviceId,
        certificate: IssuedCertificate,
    ) -> Result<Result<Issued, Failure>, Halt> {
        let issued_at = (self.shared.clock)();
        match self.commit(Change::Issued { device, certificate }).await? {
            Receipt::Issued(certificate) => {
                let registration = Registration::NotSent;
                Ok(Ok(Issued { certificate, issued_at, registration, is_left_unsent: false }))
            }
            Receipt::Conflict(conflict) => Ok(Err(self.anomaly(Lane::Create, conflict.to_string()).await)),
            Receipt::Done => unreachable!("the ledger answers Issued with a certificate or a conflict"),
        }
    }

    async fn record_registered(
        &mut self,
        device: DeviceId,
        thing: RegisteredThing,
    ) -> Result<Result<(), Failure>, Halt> {
        match self.commit(Change::Registered { device, thing }).await? {
            Receipt::Conflict(conflict) => Ok(Err(self.anomaly(Lane::Register, conflict.to_string()).await)),
            Receipt::Done | Receipt::Issued(_) => Ok(Ok(())),
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

    /// The run stops here: says what is known, so that the next run need not assume the worst.
    async fn leave(
        &mut self,
        device: DeviceId,
        registration: Registration,
        halt: Halt,
    ) -> Result<Step, Halt> {
        if !matches!(halt, Halt::Recorder) {
            self.commit(Change::Left { device, registration, failure: halt.failure() }).await?;
        }
        Err(halt)
    }

    /// RegisterThing until the service has confirmed or refused it, or the device has to be left.
    async fn register(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<Step, Halt> {
        if issued.is_left_unsent {
            // The ledger says that nothing was sent, and would say so still after a crash.
            let registration = Registration::MaySent;
            self.commit(Change::Left { device, registration, failure: None }).await?;
        }
        let payload = register_payload(&self.shared.plan.parameters, identity, &issued.certificate);
        let mut attempts = 0;
        // The last failure after which the service may have acted: it outlives later refusals.
        let mut lost: Option<Failure> = None;
        loop {
            let permitted = match self.permit_registration(self.fresh_for(issued.issued_at)).await {
                Ok(Some(permitted)) => permitted,
                Ok(None) => return self.token_expired(device, &issued, lost).await,
                Err(halt) => return self.leave(device, issued.registration, halt).await,
            };
            attempts += 1;
            let before = issued.registration;
            // Once the request is on its way it cannot be called back, so this comes first.
            issued.registration = Registration::MaySent;
            let Attempt { timing, answer } = self
                .attempt(permitted, Lane::Register, payload.clone(), provisioning::parse_registered)
                .await;
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
            match self.recover(Lane::Register, &failure, attempts).await {
                Ok(Next::TryAgain) => {}
                Ok(Next::GiveUp) => return self.give_up_registering(device, &issued, failure, lost).await,
                Err(halt) => return self.leave(device, issued.registration, halt).await,
            }
        }
    }

    /// The device cannot be registered in this run. What that means depends on whether the service may have acted.
    async fn give_up_registering(
        &mut self,
        device: DeviceId,
        issued: &Issued,
        failure: Failure,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        let refused =
            matches!(failure.cause, Cause::Rejected { status_code: 400..=499, .. }) && !failure.is_throttle();
        let change = match (refused, issued.registration) {
            (true, Registration::NotSent) => Change::Rejected { device, failure: failure.clone() },
            // The refusal may only mean that the token was used by the registration whose answer was lost.
            (true, Registration::MaySent) => {
                Change::Unknown { device, failure: lost.unwrap_or_else(|| failure.clone()) }
            }
            (false, registration) => Change::Left { device, registration, failure: Some(failure.clone()) },
        };
        self.commit(change).await?;
        self.charge_budget(failure)
    }

    async fn token_expired(
        &mut self,
        device: DeviceId,
        issued: &Issued,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        match issued.registration {
            Registration::NotSent => {
                self.commit(Change::TokenLapsed { device }).await?;
                Ok(Step::Create)
            }
            Registration::MaySent => {
                let expired = Failure::new(Stage::RegisterThing, Cause::TokenExpired);
                let failure = lost.clone().unwrap_or(expired);
                self.commit(Change::Unknown { device, failure }).await?;
                // What an earlier run left in doubt says nothing about how the next device will fare.
                lost.map_or(Ok(Step::Done), |lost| self.charge_budget(lost))
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

    /// How long a token can still be used. A clock that was set back makes it brand new: the service then has the last word.
    fn fresh_for(&self, issued_at: SystemTime) -> Duration {
        let age = (self.shared.clock)().duration_since(issued_at).unwrap_or_default();
        self.shared.plan.token_lifetime.saturating_sub(age)
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
