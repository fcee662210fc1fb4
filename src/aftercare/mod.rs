//! After a run: checks a ledger's devices in the account ([`verify`]), or removes them again ([`cleanup`]).
//!
//! Both go through the ledger's devices, ask the control plane at the rates that its throttles allow, and record their
//! findings in the ledger, so that an interrupted run resumes where it stopped. [`inspection`] owns the judgement, and
//! the order in which something is undone.

pub mod cleanup;
pub mod connect;
mod expectation;
pub mod inspection;
mod look;
mod round;
pub mod verify;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use crate::control_plane::{AskError, ControlPlane};
use crate::ledger::{Ledger, LedgerError};

pub use expectation::{Expectation, NotRead};

/// What both verbs need.
#[derive(Clone)]
pub struct Setting {
    /// The account.
    pub control_plane: Arc<ControlPlane>,
    /// What devices should be like.
    pub expectation: Arc<Expectation>,
    /// The clock.
    pub clock: fn() -> SystemTime,
    /// The progress so far.
    pub progress: Arc<Progress>,
    /// How to end the run.
    pub halt: Halt,
}

/// How to ask a run to end.
#[derive(Debug, Clone, Default)]
pub struct Halt {
    /// Finish the devices in progress, and begin no others.
    pub drain: CancellationToken,
    /// Drop everything now. What is in the ledger stays true.
    pub abort: CancellationToken,
}

/// The progress of a run.
#[derive(Debug, Default)]
pub struct Progress {
    /// Devices that are done.
    pub done: AtomicU64,
    /// Devices among those done that need someone's attention.
    pub wanting: AtomicU64,
    /// Devices in progress.
    pub under_way: AtomicU64,
}

impl Progress {
    fn note_done(&self, is_wanting: bool) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.wanting.fetch_add(u64::from(is_wanting), Ordering::Relaxed);
    }
}

/// Why a run ended.
#[derive(Debug)]
pub enum Ended {
    /// Every device was handled.
    Complete,
    /// A halt was requested.
    Stopped,
    /// The account did not answer for some devices.
    Unanswered {
        /// How many devices are left for another run.
        devices: u64,
        /// The last error.
        error: AskError,
    },
    /// The service denies these credentials an operation that the run needs.
    Refused(AskError),
    /// The ledger cannot be written.
    Ledger(LedgerError),
}

impl Ended {
    /// The stable name of this ending in the ledger.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "drained",
            Self::Unanswered { .. } => "unanswered",
            Self::Refused(_) => "stopped",
            Self::Ledger(_) => "ledger",
        }
    }
}

/// A ledger shared by several tasks.
#[derive(Clone)]
struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Runs `work` on the ledger in a blocking thread, not on those that serve connections.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Ledger) -> T + Send + 'static) -> T {
        let shared = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&shared))).await;
        done.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
    }

    /// Hands the ledger back once nothing else holds it.
    async fn into_ledger(self) -> Ledger {
        let mut shared = self.0;
        loop {
            match Arc::try_unwrap(shared) {
                Ok(ledger) => return ledger.into_inner().unwrap_or_else(PoisonError::into_inner),
                // A commit that an aborted task had started still finishes.
                Err(still) => shared = still,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn lock(shared: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
