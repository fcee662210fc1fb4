//! After a run: what became of a ledger's devices in the account, looked at ([`verify`]) or taken out again ([`cleanup`]).
//!
//! Both go through the ledger's devices, ask the control plane at the rates that its throttles allow, and write into the ledger what
//! they found, so that a run that was cut off is taken up where it stopped. What is judged, and in which order something is
//! undone, is [`inspection`]'s.

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

/// What both kinds of run need.
#[derive(Clone)]
pub struct Setting {
    /// The account.
    pub control_plane: Arc<ControlPlane>,
    /// What devices should be like.
    pub expectation: Arc<Expectation>,
    /// What time it is.
    pub clock: fn() -> SystemTime,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Ends it.
    pub halt: Halt,
}

/// How a run is asked to end.
#[derive(Debug, Clone, Default)]
pub struct Halt {
    /// Finish the devices under way, begin no other.
    pub drain: CancellationToken,
    /// Drop everything now. What is in the ledger stays true.
    pub abort: CancellationToken,
}

/// How far a run is, while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Devices that are done.
    pub done: AtomicU64,
    /// Of those, the ones that somebody should look at.
    pub wanting: AtomicU64,
    /// Devices under way.
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
    /// Every device was looked at.
    Complete,
    /// It was asked to.
    Stopped,
    /// The account did not answer for so many devices; the last error.
    Unanswered {
        /// How many devices are left for another run.
        devices: u64,
        /// For one of them.
        error: AskError,
    },
    /// The service does not let these credentials do what is needed.
    Refused(AskError),
    /// The ledger cannot be written.
    Ledger(LedgerError),
}

impl Ended {
    /// The name of it in the ledger: stable.
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

/// A ledger that several tasks reach.
#[derive(Clone)]
struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Runs `work` on the ledger, off the threads that serve connections.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Ledger) -> T + Send + 'static) -> T {
        let shared = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&shared))).await;
        done.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
    }

    /// Gives the ledger back, once nobody else has it.
    async fn into_ledger(self) -> Ledger {
        let mut shared = self.0;
        loop {
            match Arc::try_unwrap(shared) {
                Ok(ledger) => return ledger.into_inner().unwrap_or_else(PoisonError::into_inner),
                // A commit that an aborted task has asked for is still done.
                Err(still) => shared = still,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn lock(shared: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
