//! The second half of a device's way: the registration of a certificate that is durable.
//!
//! Owns what is known of a registration whose answer was lost, and who is asked about it.

use std::time::{Duration, SystemTime};

use super::{Issued, Next, Origin, Step};
use crate::call::Call;
use crate::certificate::{IssuedCertificate, RegisteredThing};
use crate::control_plane::Settlement;
use crate::engine::worker::{Attempt, Halt, Worker};
use crate::event::{Change, Counter, DeviceId, Note, Registration, Timing};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::{Identity, ParameterPlan};
use crate::ledger::{Receipt, Recorded};
use crate::provisioning::{self, Request};
use crate::transport::Connector;

/// The waits before each question to the control plane.
const SETTLE_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

impl<C: Connector> Worker<C> {
    /// RegisterThing until the service has confirmed or refused it, or the device has to be left.
    pub(super) async fn register(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<Step, Halt> {
        if issued.origin == Origin::EarlierRun && issued.registration == Registration::NotSent {
            // The ledger says that nothing was sent, and would say so still after a crash.
            let registration = Registration::MaySent;
            self.commit(Change::Left { device, registration, failure: None }).await?;
        }
        let request = register_request(&self.shared.plan.parameters, identity, &issued.certificate);
        let mut attempts = 0;
        // The last failure after which the service may have acted: it outlives later refusals.
        let mut lost: Option<Failure> = None;
        loop {
            let tried = match self.try_registering(device, &mut issued, &request).await {
                Ok(Some(tried)) => tried,
                Ok(None) => return self.token_expired(device, &issued, lost).await,
                Err(halt) => return self.leave(device, issued.registration, halt).await,
            };
            attempts += 1;
            let (timing, registered) = tried;
            self.conclude(Call::RegisterThing, timing, registered.clone()).await;
            let Err(failure) = registered else { return Ok(self.registered()) };
            if failure.may_have_acted() {
                lost = Some(failure.clone());
            }
            match self.recover(&failure, attempts).await {
                Ok(Next::TryAgain) => {}
                Ok(Next::GiveUp) => return self.give_up_registering(device, &issued, failure, lost).await,
                Err(halt) => return self.leave(device, issued.registration, halt).await,
            }
        }
    }

    /// One RegisterThing; none if the token was too old before it could be sent. `issued` says from then on what is known of
    /// the registration.
    pub(super) async fn try_registering(
        &mut self,
        device: DeviceId,
        issued: &mut Issued,
        request: &Request<RegisteredThing>,
    ) -> Result<Option<(Timing, Result<(), Failure>)>, Halt> {
        let permitted = self.permit_registration(self.fresh_for(issued.issued_at)).await?;
        let Some(permitted) = permitted else { return Ok(None) };
        let before = issued.registration;
        // Once the request is on its way it cannot be called back, so this comes first.
        issued.registration = Registration::MaySent;
        let Attempt { timing, answer } = self.attempt(permitted, request).await;
        let registered = match answer {
            Ok(thing) => self.record_registered(device, thing).await?,
            Err(failure) => Err(failure),
        };
        if registered.as_ref().is_err_and(|failure| !failure.may_have_acted()) {
            issued.registration = before;
        }
        Ok(Some((timing, registered)))
    }

    /// The run stops here: says what is known, so that the next run need not assume the worst.
    pub(super) async fn leave(
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

    async fn record_registered(
        &mut self,
        device: DeviceId,
        thing: RegisteredThing,
    ) -> Result<Result<(), Failure>, Halt> {
        match self.commit(Change::Registered { device, thing }).await? {
            Receipt::Conflict(conflict) => {
                Ok(Err(self.anomaly(Call::RegisterThing, conflict.to_string()).await))
            }
            Receipt::Done | Receipt::Issued(_) | Receipt::KeyPrepared(_) => Ok(Ok(())),
        }
    }

    /// The device cannot be registered with this request. What that means depends on whether the service has acted.
    pub(super) async fn give_up_registering(
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
            // The refusal may only mean that the token was used by the registration whose answer was lost. Who could tell
            // may tell the next run.
            (Settlement::Unsettled { .. }, true) => {
                let failure = lost.unwrap_or_else(|| failure.clone());
                match self.shared.settler {
                    Some(_) => {
                        let registration = issued.registration;
                        Change::Left { device, registration, failure: Some(failure) }
                    }
                    None => Change::Unknown { device, failure },
                }
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
        let expired = || Failure::new(Stage::Call(Call::RegisterThing), Cause::TokenExpired);
        let failure = lost.clone().unwrap_or_else(expired);
        let is_void = issued.registration == Registration::NotSent
            || self.token_age(issued.issued_at) >= self.shared.plan.certificate_lifetime;
        let change = match self.settle(issued).await? {
            Settlement::Registered(thing) => return self.record_settled(device, thing).await,
            Settlement::NotRegistered if is_void => {
                return self.start_over(device).await;
            }
            // A registration that is under way could still succeed; once the token is void it cannot.
            Settlement::NotRegistered => {
                Change::Left { device, registration: issued.registration, failure: Some(failure) }
            }
            Settlement::Unsettled { .. } => Change::Unknown { device, failure },
        };
        self.commit(change).await?;
        // What an earlier run left in doubt says nothing about how the next device will fare.
        lost.map_or(Ok(Step::Done), |lost| self.charge_budget(lost))
    }

    /// Whether the certificate is registered, as the account sees it. Asks a few times before it believes a no, for
    /// a registration whose answer was lost may still be under way, and before it gives up on an answer.
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
            if matches!(settlement, Settlement::Registered(_)) {
                break;
            }
        }
        Ok(settlement)
    }

    async fn record_settled(&mut self, device: DeviceId, thing: RegisteredThing) -> Result<Step, Halt> {
        match self.record_registered(device, thing).await? {
            Ok(()) => {
                self.shared.recorder.note(Note::Counted(Counter::Settled, 1)).await;
                Ok(self.registered())
            }
            Err(anomaly) => {
                self.commit(Change::Unknown { device, failure: anomaly.clone() }).await?;
                self.charge_budget(anomaly)
            }
        }
    }

    /// How old a token is. A clock that was set back makes it brand new: the service then has the last word.
    fn token_age(&self, issued_at: SystemTime) -> Duration {
        (self.shared.clock)().duration_since(issued_at).unwrap_or_default()
    }

    /// How long a token can still be used.
    fn fresh_for(&self, issued_at: SystemTime) -> Duration {
        self.shared.plan.token_lifetime.saturating_sub(self.token_age(issued_at))
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
pub(super) fn register_request(
    parameters: &ParameterPlan,
    identity: &Identity,
    certificate: &Recorded<IssuedCertificate>,
) -> Request<RegisteredThing> {
    let parameters = parameters.expand(identity, certificate.certificate_id.as_str());
    let parameters: Vec<_> = parameters.into_iter().collect();
    let pairs = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
    provisioning::register_request(&certificate.ownership_token, pairs)
}
