//! One device's way: a certificate, a durable checkpoint, a registration.
//!
//! Owns the order of the steps, and which of a device's failures count against the run. [`step`] makes a single step,
//! [`super::line`] carries a request to the service, and [`crate::failure::remedy`] decides what is retried.

mod obtain;
mod register;
pub(super) mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tracing::{debug, instrument};

use self::step::{Holder, Issued, Origin};
use super::context::{Context, Halt};
use super::keys::KeySource;
use super::line::{Line, Next};
use super::refusals::Refusals;
use crate::call::Call;
use crate::certificate::SigningRequest;
use crate::control_plane::Settler;
use crate::event::{Change, DeviceId, Note, Operation, Timing};
use crate::failure::Failure;
use crate::ledger::{OpenDevice, Receipt, Recorded, Work};
use crate::transport::Connector;

/// The way that every device of a run goes.
pub(super) struct Journey<C> {
    run: Arc<Context<C>>,
    /// Tells whether a registration whose answer was lost has happened; `None` if nothing can tell.
    settler: Option<Arc<dyn Settler>>,
    /// How old a token must be for its certificate to be void.
    certificate_lifetime: Duration,
    /// How many devices in a row may fail to register before the run stops.
    failure_budget: u32,
    failed_in_a_row: AtomicU32,
    refusals: Arc<Refusals>,
    /// Set once the account shows that a device registered without a thing name has no thing.
    has_no_things: AtomicBool,
    /// How often in a row the account could not tell a device's thing.
    untold: AtomicU32,
}

/// Where a device stands after a step.
enum Step {
    /// It has a certificate to register.
    Register(Issued),
    /// It is at the start, or back there with a certificate that is of no further use.
    Create,
    /// It is at the start, with a key of its own.
    Certify(Recorded<SigningRequest>, Holder),
    /// It is done, for now or for good.
    Done,
}

/// The log's name for the point at which a device is taken up.
fn began(work: &Work) -> &'static str {
    match work {
        Work::Create => "the start",
        Work::Certify { .. } => "a key made here",
        Work::Register { .. } => "a certificate of an earlier run",
    }
}

impl<C: Connector> Journey<C> {
    pub(super) fn new(
        run: Arc<Context<C>>,
        settler: Option<Arc<dyn Settler>>,
        certificate_lifetime: Duration,
        failure_budget: u32,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            run,
            settler,
            certificate_lifetime,
            failure_budget,
            failed_in_a_row: AtomicU32::new(0),
            refusals,
            has_no_things: AtomicBool::new(false),
            untold: AtomicU32::new(0),
        }
    }

    /// Takes one device as far as it goes. Even after an error the ledger explains the device's state.
    #[instrument(name = "device", level = "debug", skip_all, fields(row = device.id.0, key = device.identity.key.as_str()))]
    pub(super) async fn take(&self, line: &mut Line<C>, device: OpenDevice) -> Result<(), Halt> {
        let own = (self.run.device.keys.source == KeySource::Device)
            .then(|| device.own_request(&self.run.device.parameters));
        let OpenDevice { id, identity, work } = device;
        debug!(from = began(&work), "taken up");
        let mut step = match work {
            Work::Create => Step::Create,
            Work::Certify { request } => Step::Certify(request, Holder::Ledger),
            Work::Register { certificate, issued_at, registration } => {
                let origin = Origin::EarlierRun;
                Step::Register(Issued { certificate, issued_at, registration, origin })
            }
        };
        loop {
            step = match step {
                Step::Create => self.create(line, id, own.as_ref()).await?,
                Step::Certify(request, holder) => self.obtain(line, id, Some((request, holder))).await?,
                Step::Register(issued) => self.register(line, id, &identity, issued).await?,
                Step::Done => return Ok(()),
            }
        }
    }

    /// Counts an attempt, once it is known what its answer is worth.
    async fn conclude(&self, call: Call, timing: Timing, outcome: Result<(), Failure>) {
        self.refusals.attempted(call, &outcome);
        self.run.recorder.note(Note::Exchanged { operation: Operation::of(call), timing, outcome }).await;
    }

    /// What to do about a device's n-th failure of a call in a row, once any wait for it is over.
    async fn recover(&self, line: &mut Line<C>, failure: &Failure, attempts: u32) -> Result<Next, Halt> {
        if self.refusals.is_barred(failure, attempts) {
            return Err(Halt::Stop(failure.clone()));
        }
        line.recover(failure, attempts).await
    }

    /// Sends the device back to the start, for another certificate; a key that was made here is kept.
    async fn start_over(&self, line: &mut Line<C>, device: DeviceId) -> Result<Step, Halt> {
        match self.run.commit(line, Change::TokenLapsed { device }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request, Holder::Ledger)),
            _ => Ok(Step::Create),
        }
    }

    fn registered(&self) -> Step {
        self.failed_in_a_row.store(0, Ordering::Relaxed);
        Step::Done
    }

    /// Counts a device that was not registered. Stops the run after too many in a row, or too many for the same
    /// reason.
    fn charge_budget(&self, failure: Failure) -> Result<Step, Halt> {
        let failed = self.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let is_enough = self.refusals.gave_up(&failure, self.run.trunk.crew.workers());
        if failed < self.failure_budget && !is_enough { Ok(Step::Done) } else { Err(Halt::Stop(failure)) }
    }
}
