//! Where arrivals meet connections: due arrivals wait here in order, and so do free workers.
//!
//! Owns which worker gets which arrival, how long an arrival waits, how many connections are wanted, and when the
//! last arrival has ended. It measures nothing: the worker that takes an arrival counts it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most arrivals that wait for a connection: any further ones are missed at once.
const MOST_WAITING: usize = 100_000;

/// An arrival whose instant has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// Its number in the schedule, from 0.
    pub(super) number: u64,
    /// When it was due.
    pub(super) at: Instant,
}

/// Where arrivals meet connections.
pub(super) struct Desk {
    max_wait: Duration,
    max_workers: usize,
    state: Mutex<State>,
    /// Notified when more workers are wanted.
    wanted: Notify,
    /// Notified when no arrival waits any more.
    emptied: Notify,
    /// How many workers have become ready for the first time.
    ready: watch::Sender<usize>,
    /// Cancelled when no more arrivals are handed out.
    closed: CancellationToken,
    /// Cancelled when the desk is closed and the last arrival has ended.
    over: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Due>,
    /// Free workers. A closed receiver's worker has lost its connection, or has left.
    free: VecDeque<oneshot::Sender<Due>>,
    workers: usize,
    /// Workers that have not been ready yet.
    opening: usize,
    /// Arrivals that were handed out and have not ended.
    busy: usize,
    started_at: Option<Instant>,
    ended_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(max_wait: Duration, max_workers: usize) -> Self {
        Self {
            max_wait,
            max_workers,
            state: Mutex::default(),
            wanted: Notify::new(),
            emptied: Notify::new(),
            ready: watch::Sender::new(0),
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// Cancelled when no arrival is handed out any more.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Cancelled when the desk is closed and the last arrival has ended.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// When the last arrival ended; `None` until one has.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.state().ended_at
    }

    /// When the profile begins; `None` until connections are open.
    pub(super) fn started_at(&self) -> Option<Instant> {
        self.state().started_at
    }

    /// How many arrivals wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Sets the start of the profile.
    pub(super) fn starts_at(&self, start: Instant) {
        self.state().started_at = Some(start);
    }

    /// Notes that another worker was hired.
    pub(super) fn hired(&self) {
        let mut state = self.state();
        state.workers += 1;
        state.opening += 1;
    }

    /// Notes that a worker is ready for the first time.
    pub(super) fn worker_ready(&self) {
        self.state().opening -= 1;
        self.ready.send_modify(|ready| *ready += 1);
    }

    /// Waits until `workers` have been ready; `false` if the desk is closed first.
    pub(super) async fn opened(&self, workers: usize) -> bool {
        let mut ready = self.ready.subscribe();
        tokio::select! {
            biased;
            () = self.closed.cancelled() => false,
            waited = ready.wait_for(|ready| *ready >= workers) => waited.is_ok(),
        }
    }

    /// Hands a due arrival to the worker that has been free for longest, or lets it wait for one. `false` if too many
    /// wait already, or the desk is closed.
    pub(super) fn arrive(&self, due: Due) -> bool {
        let mut state = self.state();
        if self.closed.is_cancelled() || state.waiting.len() >= MOST_WAITING {
            return false;
        }
        state.waiting.push_back(due);
        self.hand_out(&mut state);
        true
    }

    /// Gives up arrivals that have waited too long. Returns them, and when to look again.
    pub(super) fn expire(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut state = self.state();
        let fresh = state.waiting.partition_point(|due| due.at + self.max_wait <= now);
        let missed = state.waiting.drain(..fresh).collect();
        (missed, state.waiting.front().map(|due| due.at + self.max_wait))
    }

    /// Waits until no arrival waits.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.state().waiting.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until more workers are wanted than exist: one for each waiting arrival without a worker on its way.
    /// Returns how many.
    pub(super) async fn more_wanted(&self) -> usize {
        loop {
            let wanted = self.wanted.notified();
            let more = self.state().more_wanted(self.max_workers);
            if more > 0 {
                return more;
            }
            wanted.await;
        }
    }

    /// Takes a seat as a free worker.
    pub(super) fn sit(self: &Arc<Self>) -> Seat {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        // Seats of workers that have left would pile up here while nothing arrives.
        if state.free.len() >= 2 * state.workers {
            state.free.retain(|seat| !seat.is_closed());
        }
        if !self.closed.is_cancelled() {
            state.free.push_back(sender);
            self.hand_out(&mut state);
        }
        Seat { desk: self.clone(), receiver }
    }

    /// Closes the desk: no more arrivals are handed out, and those that wait are dropped.
    pub(super) fn close(&self) {
        let mut state = self.state();
        self.closed.cancel();
        state.waiting.clear();
        state.free.clear();
        self.emptied.notify_waiters();
        self.look_for_the_end(&mut state);
    }

    fn hand_out(&self, state: &mut State) {
        while let Some(due) = state.waiting.front().copied() {
            let Some(seat) = state.free.pop_front() else {
                if state.more_wanted(self.max_workers) > 0 {
                    self.wanted.notify_one();
                }
                return;
            };
            if seat.send(due).is_ok() {
                state.waiting.pop_front();
                state.busy += 1;
            }
        }
        self.emptied.notify_waiters();
    }

    fn give_back(&self, due: Due) {
        let mut state = self.state();
        state.busy -= 1;
        if !self.closed.is_cancelled() {
            state.waiting.push_front(due);
            self.hand_out(&mut state);
        }
        self.look_for_the_end(&mut state);
    }

    fn ended(&self) {
        let mut state = self.state();
        state.busy -= 1;
        self.look_for_the_end(&mut state);
    }

    fn look_for_the_end(&self, state: &mut State) {
        if self.closed.is_cancelled() && state.busy == 0 && state.ended_at.is_none() {
            state.ended_at = Some(Instant::now());
            self.over.cancel();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    fn more_wanted(&self, max_workers: usize) -> usize {
        let short = self.waiting.len().saturating_sub(self.opening);
        short.min(max_workers.saturating_sub(self.workers))
    }
}

/// A free worker's place. If it is dropped with an arrival in it, another worker gets the arrival.
pub(super) struct Seat {
    desk: Arc<Desk>,
    receiver: oneshot::Receiver<Due>,
}

impl Seat {
    /// The next arrival; `None` when there will be no more. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        let due = (&mut self.receiver).await.ok()?;
        Some(Turn { desk: self.desk.clone(), due })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(due) = self.receiver.try_recv() {
            self.desk.give_back(due);
        }
    }
}

/// An arrival in a worker's hands. It ends when this is dropped.
pub(super) struct Turn {
    desk: Arc<Desk>,
    pub(super) due: Due,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.desk.ended();
    }
}

/// A worker at the desk, until it is dropped.
pub(super) struct Hand {
    desk: Arc<Desk>,
    has_been_ready: bool,
}

impl Hand {
    /// Creates the guard for a worker that was [`hired`](Desk::hired).
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, has_been_ready: false }
    }

    /// Notes that the worker is ready for arrivals.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.has_been_ready, true) {
            self.desk.worker_ready();
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.workers -= 1;
        if !self.has_been_ready {
            state.opening -= 1;
        }
    }
}
