//! One device's way: a certificate, a durable checkpoint, a registration.
//!
//! Owns the order of the steps, and what of a device's failures counts for the run. The steps themselves are [`obtain`]'s
//! and [`register`]'s; how a request reaches the service is [`super::worker`]'s; what is retried is
//! [`crate::failure::remedy`]'s.

mod obtain;
mod once;
mod register;

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::worker::{Halt, Worker};
use crate::call::Call;
use crate::certificate::{IssuedCertificate, SigningRequest};
use crate::event::{Change, DeviceId, Registration};
use crate::failure::{Cause, Failure, Remedy, Stage};
use crate::ledger::{OpenDevice, Receipt, Recorded, Work};
use crate::transport::Connector;

/// A certificate that is durable, and what is known of its registration.
pub(super) struct Issued {
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

    /// Back to the start, with another certificate; a key that was made here is kept.
    async fn start_over(&mut self, device: DeviceId) -> Result<Step, Halt> {
        match self.commit(Change::TokenLapsed { device }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request)),
            _ => Ok(Step::Create),
        }
    }

    /// Asks the one retry policy and does the waiting that it says.
    async fn recover(&mut self, failure: &Failure, attempts: u32) -> Result<Next, Halt> {
        match self.remedy(failure, attempts) {
            Remedy::Again { after } | Remedy::Redial { after } | Remedy::Slower { after } => {
                self.pause(after).await?;
            }
            Remedy::GiveUp | Remedy::Reissue => return Ok(Next::GiveUp),
            Remedy::StopRun => return Err(Halt::Stop(failure.clone())),
        }
        Ok(Next::TryAgain)
    }

    /// A reply that cannot be this device's. Its connection is not to be trusted with another exchange.
    async fn anomaly(&mut self, call: Call, detail: String) -> Failure {
        self.disconnect().await;
        Failure::new(Stage::Call(call), Cause::Anomaly { detail })
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
}
