//! Goes through a ledger's devices: many at once, each once, with every finding made durable.
//!
//! Owns when a device is begun, and which trouble ends the run.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::{Ended, Setting, Shared};
use crate::control_plane::AskError;
use crate::ledger::{Ledger, LedgerError, MadeDevice, MadeDevices, MadeScope, Undone};

/// How many devices are in progress at once: enough to use a quota while each waits for a permit or a detachment.
const UNDER_WAY: usize = 128;
/// How many devices are read from the ledger at once.
const PAGE: usize = 500;
/// The most findings written in one commit.
const BATCH: usize = 256;
/// The account counts as unreachable after this many devices in a row without an answer.
const IN_A_ROW: u32 = 20;

/// Why a device is not done.
pub(super) enum Trouble {
    /// The account did not answer.
    Ask(AskError),
    /// The ledger cannot be written.
    Ledger,
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

/// Records findings, those of many devices in one commit.
#[derive(Clone)]
pub(super) struct Books {
    notes: mpsc::Sender<(Undone, oneshot::Sender<()>)>,
}

/// The task behind [`Books`], and the ledger's error if it failed.
pub(super) struct Keeper {
    task: JoinHandle<()>,
    problem: Arc<Mutex<Option<LedgerError>>>,
}

impl Books {
    /// Opens the books for `verb`.
    pub(super) fn open(shared: &Shared, verb: &'static str, clock: fn() -> SystemTime) -> (Self, Keeper) {
        let (notes, queue) = mpsc::channel(BATCH);
        let problem = Arc::new(Mutex::new(None));
        let task = tokio::spawn(keep(shared.clone(), verb, clock, queue, problem.clone()));
        (Self { notes }, Keeper { task, problem })
    }

    /// Returns once `undone` is durable.
    pub(super) async fn note(&self, undone: Undone) -> Result<(), Trouble> {
        let (done, is_durable) = oneshot::channel();
        self.notes.send((undone, done)).await.map_err(|_| Trouble::Ledger)?;
        is_durable.await.map_err(|_| Trouble::Ledger)
    }
}

impl Keeper {
    /// Waits until everything is written, once all books are closed. Returns the ledger's error, if there was one.
    pub(super) async fn close(self) -> Option<LedgerError> {
        if let Err(ended) = self.task.await {
            std::panic::resume_unwind(ended.into_panic());
        }
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn keep(
    shared: Shared,
    verb: &'static str,
    clock: fn() -> SystemTime,
    mut queue: mpsc::Receiver<(Undone, oneshot::Sender<()>)>,
    problem: Arc<Mutex<Option<LedgerError>>>,
) {
    let mut notes = Vec::new();
    while queue.recv_many(&mut notes, BATCH).await > 0 {
        let (undone, waiting): (Vec<_>, Vec<_>) = notes.drain(..).unzip();
        let write = move |ledger: &mut Ledger| ledger.record_undone(verb, &undone, clock());
        match shared.with(write).await {
            // The receiver may have been aborted meanwhile.
            Ok(()) => {
                for done in waiting {
                    let _ = done.send(());
                }
            }
            Err(error) => {
                problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    }
}

/// Runs `act` on every device of `scope`; it returns whether the device needs someone's attention.
pub(super) async fn go_through<F>(
    shared: &Shared,
    scope: MadeScope,
    setting: &Setting,
    act: impl Fn(MadeDevice) -> F,
) -> Ended
where
    F: Future<Output = Result<bool, Trouble>> + Send + 'static,
{
    let devices = match shared.with(move |ledger| ledger.view().made_devices(scope)).await {
        Ok(devices) => devices,
        Err(error) => return Ended::Ledger(error),
    };
    let mut round = Round {
        source: Some(devices),
        queue: VecDeque::new(),
        tasks: JoinSet::new(),
        unanswered: 0,
        in_a_row: 0,
        last_error: None,
        refused: None,
    };
    let halt = &setting.halt;
    loop {
        if let Err(error) = round.fill(shared).await {
            return Ended::Ledger(error);
        }
        while round.tasks.len() < UNDER_WAY
            && let Some(device) = round.queue.pop_front()
        {
            round.tasks.spawn(act(device));
        }
        setting.progress.under_way.store(round.tasks.len() as u64, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = halt.abort.cancelled() => return Ended::Stopped,
            () = halt.drain.cancelled(), if round.source.is_some() => round.wind_down(),
            joined = round.tasks.join_next() => match joined {
                None => return round.end(halt.drain.is_cancelled()),
                Some(Ok(Ok(is_wanting))) => {
                    round.in_a_row = 0;
                    setting.progress.note_done(is_wanting);
                }
                Some(Ok(Err(trouble))) => if let Some(ended) = round.bear(trouble) { return ended },
                Some(Err(ended)) => std::panic::resume_unwind(ended.into_panic()),
            },
        }
    }
}

struct Round {
    /// Where more devices come from; `None` once no more are to be begun.
    source: Option<MadeDevices>,
    queue: VecDeque<MadeDevice>,
    tasks: JoinSet<Result<bool, Trouble>>,
    unanswered: u64,
    in_a_row: u32,
    last_error: Option<AskError>,
    /// What these credentials may not do.
    refused: Option<AskError>,
}

impl Round {
    /// Reads the next page of devices if the queue is empty.
    async fn fill(&mut self, shared: &Shared) -> Result<(), LedgerError> {
        if !self.queue.is_empty() {
            return Ok(());
        }
        let Some(mut source) = self.source.take() else { return Ok(()) };
        let read = move |ledger: &mut Ledger| {
            let page = ledger.view().next_made(&mut source, PAGE);
            page.map(|page| (page, source))
        };
        let (page, source) = shared.with(read).await?;
        if !page.is_empty() {
            self.queue.extend(page);
            self.source = Some(source);
        }
        Ok(())
    }

    fn wind_down(&mut self) {
        self.source = None;
        self.queue.clear();
    }

    /// How the run ends because of `trouble`; `None` if it goes on.
    fn bear(&mut self, trouble: Trouble) -> Option<Ended> {
        let error = match trouble {
            // The keeper has the error.
            Trouble::Ledger => return Some(Ended::Stopped),
            // Those under way have their answers soon, and note what was done.
            Trouble::Ask(error @ (AskError::NotPermitted { .. } | AskError::Refused { .. })) => {
                self.refused.get_or_insert(error);
                self.wind_down();
                return None;
            }
            Trouble::Ask(error) => error,
        };
        tracing::warn!(%error, "the account did not answer for a device");
        self.unanswered += 1;
        self.in_a_row += 1;
        self.last_error = Some(error);
        if self.in_a_row >= IN_A_ROW {
            self.wind_down();
        }
        None
    }

    fn end(&mut self, is_stopped: bool) -> Ended {
        if let Some(error) = self.refused.take() {
            return Ended::Refused(error);
        }
        match self.last_error.take() {
            Some(error) => Ended::Unanswered { devices: self.unanswered, error },
            None if is_stopped => Ended::Stopped,
            None => Ended::Complete,
        }
    }
}
