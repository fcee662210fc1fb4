//! The ledger as tasks of a run reach it: one at a time, off the async threads.
//!
//! Owns the lock around the ledger. Decides nothing about what is written.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::ledger::Ledger;

/// How the ledger is reached from async code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// On tokio's blocking threads: a commit waits for the disk.
    Blocking,
    /// In place: for a ledger in memory, in a simulation that must not depend on threads.
    Inline,
}

/// A shared ledger.
#[derive(Clone)]
pub(super) struct Store {
    ledger: Arc<Mutex<Ledger>>,
    mode: CommitMode,
}

impl Store {
    pub(super) fn new(ledger: Ledger, mode: CommitMode) -> Self {
        Self { ledger: Arc::new(Mutex::new(ledger)), mode }
    }

    /// Runs `work` on the ledger. A panic in `work` resumes here.
    pub(super) async fn with<T, F>(&self, work: F) -> T
    where
        F: FnOnce(&mut Ledger) -> T + Send + 'static,
        T: Send + 'static,
    {
        let ledger = self.ledger.clone();
        let locked = move || {
            // A ledger whose writer panicked half-way has rolled back; it is as usable as after a crash.
            let mut ledger = ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            work(&mut ledger)
        };
        match self.mode {
            CommitMode::Inline => locked(),
            CommitMode::Blocking => match tokio::task::spawn_blocking(locked).await {
                Ok(value) => value,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }

    /// Gives the ledger back, once every other holder is done: an aborted task leaves its work on a blocking thread,
    /// which ends by itself.
    pub(super) async fn into_ledger(self) -> Ledger {
        let mut shared = self.ledger;
        loop {
            match Arc::try_unwrap(shared) {
                Ok(ledger) => return ledger.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner),
                Err(held) => shared = held,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
