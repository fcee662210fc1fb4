//! What the workers of any kind of run share.
//!
//! Owns the two ways out of the run for a device's step: to the ledger, and to a core that makes keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, instrument};

use super::clock::Clock;
use super::keys::KeyPolicy;
use super::line::{Line, Trunk};
use super::plan::Rates;
use super::rate::{Limit, Waits};
use super::recorder::{RecorderGone, RecorderHandle};
use super::store::CommitMode;
use crate::event::Change;
use crate::failure::Failure;
use crate::identity::ParameterPlan;
use crate::ledger::Receipt;
use crate::rate::RateLimit;
use crate::transport::Connector;

/// The limits of a run, one for each kind of request.
pub(super) struct Limits {
    pub(super) connect: Limit,
    pub(super) create: Limit,
    pub(super) register: Limit,
    pub(super) publish: Limit,
    /// How long requests have waited at any of them.
    pub(super) waits: Arc<Waits>,
}

impl Limits {
    /// Limits that do not wait for the service, but for `connect`: for requests that something else paces.
    pub(super) fn of_connects(connect: RateLimit) -> Self {
        let waits = Arc::default();
        let connect = Limit::sharing(&waits, connect);
        Self { connect, create: Limit::none(), register: Limit::none(), publish: Limit::none(), waits }
    }

    /// Limits of provisioning.
    pub(super) fn of_provisioning(rates: &Rates) -> Self {
        let waits = Arc::default();
        let limit = |rate| Limit::sharing(&waits, rate);
        Self {
            connect: limit(rates.connect),
            create: limit(rates.create),
            register: limit(rates.register),
            publish: Limit::none(),
            waits,
        }
    }
}

/// What the workers of a run share.
pub(super) struct Context<C> {
    pub(super) trunk: Arc<Trunk<C>>,
    pub(super) limits: Arc<Limits>,
    pub(super) recorder: RecorderHandle,
    pub(super) clock: Clock,
    pub(super) device: DeviceRules,
    /// One permit for each key pair being made: at most one per core, since the ledger needs threads too.
    key_makers: Semaphore,
}

/// The rules for a device's row, key and token.
pub(super) struct DeviceRules {
    pub(super) parameters: ParameterPlan,
    pub(super) keys: KeyPolicy,
    pub(super) token_lifetime: Duration,
    pub(super) commit_mode: CommitMode,
}

/// Why a worker stops early.
#[derive(Debug)]
pub(super) enum Halt {
    /// The run drains.
    Drain,
    /// The run must stop because of this failure.
    Stop(Failure),
    /// The recorder is gone, which reports its own error.
    Recorder,
}

impl From<RecorderGone> for Halt {
    fn from(RecorderGone: RecorderGone) -> Self {
        Halt::Recorder
    }
}

impl Halt {
    /// The failure that the run must stop for; `None` for another kind of halt.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            Halt::Stop(failure) => Some(failure.clone()),
            Halt::Drain | Halt::Recorder => None,
        }
    }
}

impl<C: Connector> Context<C> {
    pub(super) fn new(
        trunk: Arc<Trunk<C>>,
        limits: Arc<Limits>,
        recorder: RecorderHandle,
        clock: Clock,
        device: DeviceRules,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { trunk, limits, recorder, clock, device, key_makers: Semaphore::new(cores) }
    }

    /// Makes a change durable while keeping the line alive.
    #[instrument(
        name = "commit",
        level = "debug",
        skip_all,
        fields(
            change = change.name(),
            certificate_id = change.certificate_id().map(display),
            thing_name = change.thing_name(),
            failure = change.failure().map(display),
        )
    )]
    pub(super) async fn commit(&self, line: &mut Line<C>, change: Change) -> Result<Receipt, Halt> {
        let began = Instant::now();
        let receipt = line.while_idle(self.recorder.commit(change)).await;
        let took = began.elapsed();
        self.trunk.crew.was_busy(took);
        let receipt = receipt?;
        let took_us = took.as_micros() as u64;
        match &receipt {
            Receipt::Conflict(conflict) => debug!(took_us, %conflict, "refused by the ledger"),
            Receipt::Done | Receipt::Issued(_) | Receipt::KeyPrepared(_) => debug!(took_us, "durable"),
        }
        Ok(receipt)
    }

    /// Runs `work`, which keeps a core busy, off the threads that serve connections, while keeping the line alive. A
    /// panic in `work` resumes here.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        line: &mut Line<C>,
        work: impl FnOnce(&KeyPolicy) -> T + Send + 'static,
    ) -> T {
        if !matches!(self.device.commit_mode, CommitMode::Blocking) {
            return work(&self.device.keys);
        }
        let policy = self.device.keys.clone();
        let done = line.while_idle(async {
            let _permit = self.key_makers.acquire().await.expect("nothing closes the semaphore");
            tokio::task::spawn_blocking(move || work(&policy)).await
        });
        match done.await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// How old a token is. If the clock was set back, it counts as brand new: the service then has the last word.
    pub(super) fn token_age(&self, issued_at: SystemTime) -> Duration {
        self.clock.now().duration_since(issued_at).unwrap_or_default()
    }

    /// How long a token can still be used.
    pub(super) fn fresh_for(&self, issued_at: SystemTime) -> Duration {
        self.device.token_lifetime.saturating_sub(self.token_age(issued_at))
    }
}
