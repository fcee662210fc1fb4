//! The ledger as a run's tasks reach it: one at a time, off the async threads.
//!
//! Decides nothing about what is written.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::event::Change;
use crate::ledger::{Ledger, LedgerError, Receipt};

/// How async code reaches the ledger.
#[derive(Debug, Clone, Default)]
pub enum CommitMode {
    /// On a thread of its own: a commit waits for the disk.
    #[default]
    Blocking,
    /// In place: for a ledger in memory, in a simulation that must not depend on threads.
    Inline,
    /// In place, with a disk that a simulation controls: it may be slow, full, or fail the run.
    Simulated(Arc<dyn Disk>),
}

/// A simulation's hooks around every commit.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Awaited before anything is written. An error leaves the changes unwritten and ends the run.
    fn before_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Awaited once the changes are durable, before anything is told so. An error still ends the run: the task that
    /// asked for the commit does not learn that it succeeded.
    fn after_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>>;
}

/// A shared ledger.
#[derive(Clone)]
pub(super) struct Store(Reach);

#[derive(Clone)]
enum Reach {
    /// On the caller's thread.
    InPlace { ledger: Arc<Mutex<Ledger>>, disk: Option<Arc<dyn Disk>> },
    /// On a dedicated thread. The sender of a job waits for its answer, so there are never more jobs than tasks that
    /// hold the store.
    OnThread { jobs: mpsc::Sender<Job>, thread: Arc<JoinHandle<Ledger>> },
}

type Job = Box<dyn FnOnce(&mut Ledger) + Send>;

/// How long the thread is idle before it tidies up the ledger.
const REST_AFTER: Duration = Duration::from_millis(500);

impl Store {
    pub(super) fn new(ledger: Ledger, mode: CommitMode) -> Self {
        let disk = match mode {
            CommitMode::Blocking => return Self::on_thread(ledger),
            CommitMode::Inline => None,
            CommitMode::Simulated(disk) => Some(disk),
        };
        Self(Reach::InPlace { ledger: Arc::new(Mutex::new(ledger)), disk })
    }

    fn on_thread(ledger: Ledger) -> Self {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name(String::from("ledger"));
        let thread = thread.spawn(move || work_off(&queue, ledger)).expect("a thread can be started");
        Self(Reach::OnThread { jobs, thread: Arc::new(thread) })
    }

    /// Runs `work` on the ledger. A panic in `work` resumes here.
    pub(super) async fn with<T, F>(&self, work: F) -> T
    where
        F: FnOnce(&mut Ledger) -> T + Send + 'static,
        T: Send + 'static,
    {
        match &self.0 {
            // A ledger whose writer panicked midway has rolled back; it is as usable as after a crash.
            Reach::InPlace { ledger, .. } => work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner)),
            Reach::OnThread { jobs, .. } => {
                let (sender, answer) = oneshot::channel();
                let job: Job = Box::new(move |ledger| {
                    // A caller that was aborted meanwhile gets no answer; the work is still done.
                    let _ = sender.send(catch_unwind(AssertUnwindSafe(|| work(ledger))));
                });
                jobs.send(job).expect("the thread works for as long as there is a store");
                let outcome = answer.await.expect("the thread answers every job");
                outcome.unwrap_or_else(|panic| resume_unwind(panic))
            }
        }
    }

    /// Makes `changes` durable together.
    pub(super) async fn commit(
        &self,
        changes: Vec<Change>,
        now: SystemTime,
    ) -> Result<Vec<Receipt>, LedgerError> {
        let commit = self.with(move |ledger| ledger.commit(changes, now));
        let Reach::InPlace { disk: Some(disk), .. } = &self.0 else { return commit.await };
        disk.before_commit().await?;
        let receipts = commit.await?;
        disk.after_commit().await?;
        Ok(receipts)
    }

    /// Gives the ledger back once there are no other holders: work requested by an aborted task is still done.
    pub(super) async fn into_ledger(self) -> Ledger {
        match self.0 {
            Reach::InPlace { ledger, .. } => {
                let ledger = when_alone(ledger).await;
                ledger.into_inner().unwrap_or_else(PoisonError::into_inner)
            }
            Reach::OnThread { jobs, thread } => {
                drop(jobs);
                let thread = when_alone(thread).await;
                // Without a store there are no more jobs.
                while !thread.is_finished() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
        }
    }
}

/// Runs jobs on the thread until no store is left.
fn work_off(queue: &mpsc::Receiver<Job>, mut ledger: Ledger) -> Ledger {
    loop {
        match queue.recv_timeout(REST_AFTER) {
            Ok(job) => job(&mut ledger),
            Err(RecvTimeoutError::Timeout) => {
                ledger.rest();
                // Sleep until the next job, however long that takes.
                match queue.recv() {
                    Ok(job) => job(&mut ledger),
                    Err(mpsc::RecvError) => return ledger,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return ledger,
        }
    }
}

/// Returns what is in `shared`, once nothing else holds it.
async fn when_alone<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(alone) => return alone,
            Err(held) => shared = held,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, LotShape};
    use crate::ledger::{Binding, LotRows};

    fn store(mode: CommitMode) -> Store {
        let shape = LotShape { columns: vec![String::from("SerialNumber")], key_column: 0 };
        let rows = [Ok(Identity { line: 2, key: String::from("a"), values: vec![String::from("a")] })];
        let rows = LotRows { source: "lot.csv", shape, rows: rows.into_iter() };
        let now = SystemTime::UNIX_EPOCH;
        Store::new(Ledger::in_memory(&Binding::default(), rows, |_| Ok(()), now).unwrap(), mode)
    }

    #[tokio::test]
    async fn a_panic_resumes_where_it_was_waited_for_and_the_ledger_comes_back() {
        for mode in [CommitMode::Blocking, CommitMode::Inline] {
            let store = store(mode);
            let other = store.clone();
            let task = tokio::spawn(async move { other.with(|_| panic!("a defect")).await });
            assert!(task.await.unwrap_err().is_panic());
            assert_eq!(store.with(|ledger| ledger.view().counts().unwrap().pending).await, 1);
            assert_eq!(store.into_ledger().await.view().counts().unwrap().pending, 1);
        }
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_last_store() {
        let store = store(CommitMode::Blocking);
        let name = store.with(|_| std::thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.as_deref(), Some("ledger"));
        let aborted = tokio::spawn({
            let store = store.clone();
            async move { store.with(|_| std::thread::sleep(Duration::from_millis(50))).await }
        });
        tokio::task::yield_now().await;
        aborted.abort();
        let _ = aborted.await;
        store.into_ledger().await.close().unwrap();
    }
}
