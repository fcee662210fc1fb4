//! The ledger as tasks of a run reach it: one at a time, off the async threads.
//!
//! Owns the lock around the ledger. Decides nothing about what is written.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;

use crate::event::Change;
use crate::ledger::{Ledger, LedgerError, Receipt};

/// How the ledger is reached from async code.
#[derive(Debug, Clone)]
pub enum CommitMode {
    /// On tokio's blocking threads: a commit waits for the disk.
    Blocking,
    /// In place: for a ledger in memory, in a simulation that must not depend on threads.
    Inline,
    /// In place, on a disk that a simulation plays: slow, full, or the end of everything.
    Simulated(Arc<dyn Disk>),
}

/// What a simulation does around every commit.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Waited for before anything is written. An error leaves the changes unwritten and ends the run.
    fn before_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Waited for once the changes are durable, before anyone hears of it. An error ends the run all the same: whoever
    /// asked for the commit does not learn that it is there.
    fn after_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>>;
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
        match &self.mode {
            CommitMode::Inline | CommitMode::Simulated(_) => locked(),
            CommitMode::Blocking => match tokio::task::spawn_blocking(locked).await {
                Ok(value) => value,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }

    /// Makes `changes` durable together.
    pub(super) async fn commit(
        &self,
        changes: Vec<Change>,
        now: SystemTime,
    ) -> Result<Vec<Receipt>, LedgerError> {
        let commit = self.with(move |ledger| ledger.commit(changes, now));
        let CommitMode::Simulated(disk) = &self.mode else { return commit.await };
        disk.before_commit().await?;
        let receipts = commit.await?;
        disk.after_commit().await?;
        Ok(receipts)
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
