//! The second half of a device's way: the registration of a certificate that is durable.
//!
//! Owns what is known of a registration whose answer was lost, and how to settle it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::debug;

use super::step::{self, Issued, Origin};
use super::{Journey, Step};
use crate::call::Call;
use crate::certificate::RegisteredThing;
use crate::control_plane::Settlement;
use crate::engine::context::Halt;
use crate::engine::line::{Line, Next};
use crate::event::{Change, Counter, DeviceId, Note, Registration};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::Identity;
use crate::transport::Connector;

/// The waits before each question to the control plane.
const SETTLE_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// An account that could not tell so many devices' things, one after the other, is not asked again.
const UNTOLD: u32 = 3;

impl<C: Connector> Journey<C> {
    /// Sends RegisterThing until the service confirms or refuses it, or the device has to be left.
    pub(super) async fn register(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<Step, Halt> {
        if issued.origin == Origin::EarlierRun && issued.registration == Registration::NotSent {
            // The ledger still says that nothing was sent, and would say so after a crash.
            let registration = Registration::MaySent;
            self.run.commit(line, Change::Left { device, registration, failure: None }).await?;
        }
        let request = step::register_request(&self.run.device.parameters, identity, &issued.certificate);
        let mut attempts = 0;
        // The last failure after which the service may have acted; kept through later refusals.
        let mut lost: Option<Failure> = None;
        loop {
            let (timing, answer) = match step::ask_to_register(&self.run, line, &mut issued, &request).await {
                Ok(Some(tried)) => tried,
                Ok(None) => return self.token_expired(line, device, &issued, lost).await,
                Err(halt) => return Err(self.leave(line, device, issued.registration, halt).await?),
            };
            let registered = match answer {
                Ok(thing) => {
                    let thing = self.named(line, &issued, thing).await;
                    step::record_registered(&self.run, line, device, thing).await?
                }
                Err(failure) => Err(failure),
            };
            attempts += 1;
            self.conclude(Call::RegisterThing, timing, registered.clone()).await;
            let Err(failure) = registered else { return Ok(self.registered()) };
            if failure.may_have_acted() {
                lost = Some(failure.clone());
            }
            match self.recover(line, &failure, attempts).await {
                Ok(Next::TryAgain) => {}
                Ok(Next::GiveUp) => return self.give_up(line, device, &issued, failure, lost).await,
                Err(halt) => return Err(self.leave(line, device, issued.registration, halt).await?),
            }
        }
    }

    /// Completes an accepted reply with its thing's name. A reply has no name if the template has no thing, or if the
    /// reply lost it: the account knows which. Once the account has shown that there is no thing, or that it cannot
    /// tell, it is not asked again in this run.
    async fn named(&self, line: &mut Line<C>, issued: &Issued, thing: RegisteredThing) -> RegisteredThing {
        if !thing.thing_name.is_empty()
            || self.has_no_things.load(Ordering::Relaxed)
            || self.untold.load(Ordering::Relaxed) >= UNTOLD
        {
            return thing;
        }
        let Some(settler) = &self.settler else { return thing };
        match line.while_idle(settler.settle(&issued.certificate.certificate_id)).await {
            Settlement::Registered(settled) => {
                self.has_no_things.fetch_or(settled.thing_name.is_empty(), Ordering::Relaxed);
                self.untold.store(0, Ordering::Relaxed);
                RegisteredThing { thing_name: settled.thing_name, ..thing }
            }
            Settlement::NotRegistered => thing,
            Settlement::Unsettled { .. } => {
                self.untold.fetch_add(1, Ordering::Relaxed);
                thing
            }
        }
    }

    /// Records what is known when the run stops here, so that the next run need not assume the worst. Returns the
    /// halt.
    async fn leave(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        registration: Registration,
        halt: Halt,
    ) -> Result<Halt, Halt> {
        if !matches!(halt, Halt::Recorder) {
            let failure = halt.failure();
            self.run.commit(line, Change::Left { device, registration, failure }).await?;
        }
        Ok(halt)
    }

    /// Gives up a device that cannot be registered with this request. The outcome depends on whether the service has
    /// acted.
    async fn give_up(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        issued: &Issued,
        failure: Failure,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        let is_refused = step::is_refused(&failure);
        let left = |failure: Failure| Change::Left {
            device,
            registration: issued.registration,
            failure: Some(failure),
        };
        let change = match self.settle(line, issued).await? {
            Settlement::Registered(thing) => return self.record_settled(line, device, thing).await,
            // The token is from an earlier run, and the clock may have been changed since: a new token decides.
            Settlement::NotRegistered if is_refused && issued.origin == Origin::EarlierRun => {
                return self.start_over(line, device).await;
            }
            Settlement::NotRegistered if is_refused => Change::Rejected { device, failure: failure.clone() },
            // The refusal may only mean that the token was used by the registration whose answer was lost. The
            // control plane may be able to tell on the next run.
            Settlement::Unsettled { .. } if is_refused => {
                let failure = lost.unwrap_or_else(|| failure.clone());
                if self.settler.is_some() { left(failure) } else { Change::Unknown { device, failure } }
            }
            Settlement::NotRegistered | Settlement::Unsettled { .. } => left(failure.clone()),
        };
        self.run.commit(line, change).await?;
        self.charge_budget(failure)
    }

    /// Handles a token that is too old. A device gets a new certificate only if surely none of its is registered.
    async fn token_expired(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        issued: &Issued,
        lost: Option<Failure>,
    ) -> Result<Step, Halt> {
        let expired = || Failure::new(Stage::Call(Call::RegisterThing), Cause::TokenExpired);
        let failure = lost.clone().unwrap_or_else(expired);
        let is_void = issued.registration == Registration::NotSent
            || self.run.token_age(issued.issued_at) >= self.certificate_lifetime;
        let change = match self.settle(line, issued).await? {
            Settlement::Registered(thing) => return self.record_settled(line, device, thing).await,
            Settlement::NotRegistered if is_void => return self.start_over(line, device).await,
            // A registration under way could still succeed, until the token is void.
            Settlement::NotRegistered => {
                Change::Left { device, registration: issued.registration, failure: Some(failure) }
            }
            Settlement::Unsettled { .. } => Change::Unknown { device, failure },
        };
        self.run.commit(line, change).await?;
        // What an earlier run left in doubt says nothing about how the next device will fare.
        lost.map_or(Ok(Step::Done), |lost| self.charge_budget(lost))
    }

    /// Whether the certificate is registered, as the account sees it. Asks several times before it accepts a no,
    /// since a registration whose answer was lost may still be under way, and before it gives up on an answer.
    async fn settle(&self, line: &mut Line<C>, issued: &Issued) -> Result<Settlement, Halt> {
        if issued.registration == Registration::NotSent {
            return Ok(Settlement::NotRegistered);
        }
        let Some(settler) = &self.settler else {
            return Ok(Settlement::Unsettled { detail: String::from("there is no control plane to ask") });
        };
        let mut settlement = Settlement::NotRegistered;
        for pause in SETTLE_PAUSES {
            line.pause(pause).await?;
            settlement = line.while_idle(settler.settle(&issued.certificate.certificate_id)).await;
            let answer = match &settlement {
                Settlement::Registered(_) => "registered",
                Settlement::NotRegistered => "not registered",
                Settlement::Unsettled { detail } => detail,
            };
            debug!(answer, "asked the control plane whether the certificate is registered");
            if matches!(settlement, Settlement::Registered(_)) {
                break;
            }
        }
        Ok(settlement)
    }

    async fn record_settled(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        thing: RegisteredThing,
    ) -> Result<Step, Halt> {
        match step::record_registered(&self.run, line, device, thing).await? {
            Ok(()) => {
                self.run.recorder.note(Note::Counted(Counter::Settled, 1)).await;
                Ok(self.registered())
            }
            Err(anomaly) => {
                self.run.commit(line, Change::Unknown { device, failure: anomaly.clone() }).await?;
                self.charge_budget(anomaly)
            }
        }
    }
}
