//! The recorder: the only writer of the ledger during a run, and the fold of everything that happens.
//!
//! Group commit: while one transaction waits for the disk, the next batch gathers. With many exchanges under way, it
//! gathers for a little longer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audience::{Gauges, Snapshot};
use super::clock::Clock;
use super::coalescing::{Allowance, Coalescing};
use super::context::Limits;
use super::crew::Crew;
use super::intervals::Intervals;
use super::store::Store;
use crate::call::Call;
use crate::event::{Change, Note};
use crate::failure::Stage;
use crate::ledger::{Counts, LedgerError, Receipt};
use crate::metrics::{Interval, Metrics};
use crate::usage::Usage;

/// How many messages may wait; beyond that, senders wait.
const BACKLOG: usize = 4096;
/// The most messages in one transaction.
const BATCH: usize = 512;
/// The shortest time between two progress snapshots.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// The time that recent usage covers.
const RECENT: Duration = Duration::from_secs(10);

enum Message {
    /// A note, with the instant that it counts for.
    Note(Instant, Note),
    Commit(Change, oneshot::Sender<Receipt>),
    /// The instant that seconds are counted from.
    Begin(Instant),
}

/// How workers speak to the recorder.
#[derive(Clone)]
pub(super) struct RecorderHandle(mpsc::Sender<Message>);

/// The recorder is gone: the ledger failed, and the run is over.
#[derive(Debug)]
pub(super) struct RecorderGone;

impl RecorderHandle {
    /// Sends a note, which only the metrics use.
    pub(super) async fn note(&self, note: Note) {
        self.note_at(Instant::now(), note).await;
    }

    /// Sends a note that counts for the instant `at`.
    pub(super) async fn note_at(&self, at: Instant, note: Note) {
        // A lost note needs no error: the next commit reports that the recorder is gone.
        let _ = self.0.send(Message::Note(at, note)).await;
    }

    /// Starts counting seconds from `epoch`. Notes sent before this call, or for an instant before `epoch`, fall into
    /// no second.
    pub(super) async fn begin(&self, epoch: Instant) {
        let _ = self.0.send(Message::Begin(epoch)).await;
    }

    /// Makes `change` durable. Once this returns `Ok`, it is on disk.
    pub(super) async fn commit(&self, change: Change) -> Result<Receipt, RecorderGone> {
        let (sender, receipt) = oneshot::channel();
        self.0.send(Message::Commit(change, sender)).await.map_err(|_| RecorderGone)?;
        receipt.await.map_err(|_| RecorderGone)
    }

    /// Waits until the recorder is gone.
    pub(super) async fn gone(&self) -> RecorderGone {
        self.0.closed().await;
        RecorderGone
    }
}

pub(super) struct Recorder {
    /// `None` in a run that commits nothing.
    store: Option<Store>,
    messages: mpsc::Receiver<Message>,
    /// `None` in a run whose progress is reported by the second.
    progress: Option<watch::Sender<Snapshot>>,
    intervals: Option<Intervals>,
    gauges: Arc<Gauges>,
    drain: CancellationToken,
    clock: Clock,
    devices: Counts,
    metrics: Metrics,
    usage: Option<RecentUsage>,
    patience: Patience,
    allowance: Allowance,
}

/// Where the time goes, with the snapshots of the last seconds, oldest first.
struct RecentUsage {
    crew: Arc<Crew>,
    limits: Arc<Limits>,
    recent: VecDeque<Usage>,
}

impl Recorder {
    pub(super) fn new(
        store: impl Into<Option<Store>>,
        progress: Option<watch::Sender<Snapshot>>,
        intervals: Option<mpsc::Sender<Interval>>,
        epoch: Option<Instant>,
        gauges: Arc<Gauges>,
        drain: CancellationToken,
        clock: Clock,
    ) -> (Self, RecorderHandle) {
        let (sender, messages) = mpsc::channel(BACKLOG);
        let intervals = intervals.map(|reader| Intervals::new(epoch, reader, gauges.clone()));
        let devices = progress.as_ref().map_or_else(Counts::default, |progress| progress.borrow().devices);
        let (store, metrics) = (store.into(), Metrics::default());
        let recorder = Self {
            store,
            messages,
            progress,
            intervals,
            gauges,
            drain,
            clock,
            devices,
            metrics,
            usage: None,
            patience: Patience::default(),
            allowance: Allowance::default(),
        };
        (recorder, RecorderHandle(sender))
    }

    /// Adds where the time goes to each snapshot.
    pub(super) fn telling_usage(self, crew: Arc<Crew>, limits: Arc<Limits>) -> Self {
        Self { usage: Some(RecentUsage { crew, limits, recent: VecDeque::new() }), ..self }
    }

    /// Sets `coalescing` while it records.
    pub(super) fn coalescing(self, coalescing: Coalescing) -> Self {
        Self { allowance: Allowance::of(coalescing), ..self }
    }

    /// Records until every handle is gone, or the ledger fails.
    pub(super) async fn run(mut self) -> (Metrics, Result<(), LedgerError>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut published: Option<Instant> = None;
        while self.receive(&mut batch).await > 0 {
            self.gather(&mut batch).await;
            if let Err(error) = self.record(&mut batch).await {
                // Nothing more may be published whose answer the ledger could not take. The channel is closed first:
                // a worker told to drain would still register the device it has in hand.
                self.messages.close();
                self.drain.cancel();
                return (self.metrics, Err(error));
            }
            self.allowance.set(self.gauges.in_flight(), self.patience.latency);
            if published.is_none_or(|at| at.elapsed() >= PUBLISH_EVERY) {
                published = Some(Instant::now());
                self.publish();
            }
        }
        self.publish();
        if let Some(intervals) = self.intervals {
            intervals.finish().await;
        }
        (self.metrics, Ok(()))
    }

    /// Receives the next messages; returns 0 when every handle is gone. Seconds that end meanwhile are sent on.
    async fn receive(&mut self, batch: &mut Vec<Message>) -> usize {
        loop {
            let Some(intervals) = &mut self.intervals else {
                return self.messages.recv_many(batch, BATCH).await;
            };
            // Also checked with every batch: while messages never cease, the timer never gets its turn.
            intervals.cut_ripe().await;
            tokio::select! {
                biased;
                received = self.messages.recv_many(batch, BATCH) => return received,
                () = intervals.ripe() => {}
            }
        }
    }

    /// Waits for changes that are about to come, so that one flush of the disk covers more of them.
    async fn gather(&mut self, batch: &mut Vec<Message>) {
        let is_commit = |message: &Message| matches!(message, Message::Commit(..));
        if !batch.iter().any(is_commit) {
            return;
        }
        let Some(patience) = self.patience.given(self.gauges.in_flight()) else { return };
        let until = tokio::time::sleep(patience);
        tokio::pin!(until);
        while batch.len() < BATCH && self.gauges.in_flight() > 0 {
            tokio::select! {
                biased;
                received = self.messages.recv_many(batch, BATCH) => if received == 0 { return },
                () = &mut until => return,
            }
        }
    }

    async fn record(&mut self, batch: &mut Vec<Message>) -> Result<(), LedgerError> {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for message in batch.drain(..) {
            match message {
                Message::Note(at, note) => {
                    self.metrics.record(&note);
                    self.patience.hear(&note);
                    if let Some(intervals) = &mut self.intervals {
                        intervals.record(at, &note).await;
                    }
                }
                Message::Begin(epoch) => {
                    if let Some(intervals) = &mut self.intervals {
                        intervals.begin(epoch);
                    }
                }
                Message::Commit(change, receipt) => {
                    changes.push(change);
                    waiting.push(receipt);
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let moves: Vec<Move> = changes.iter().map(Move::of).collect();
        let now = self.clock.now();
        let store = self.store.as_ref().expect("only a run with a ledger has anything to commit");
        let receipts = store.commit(changes, now).await?;
        for ((waiting, receipt), moved) in waiting.into_iter().zip(receipts).zip(moves) {
            if !matches!(receipt, Receipt::Conflict(_)) {
                moved.apply(&mut self.devices);
            }
            // A worker that was aborted meanwhile does not collect its receipt; the change is still durable.
            let _ = waiting.send(receipt);
        }
        Ok(())
    }

    /// Publishes the state of the run.
    fn publish(&mut self) {
        let Some(progress) = self.progress.as_ref().filter(|progress| progress.receiver_count() > 0) else {
            return;
        };
        let (connections, in_flight) = (self.gauges.connections(), self.gauges.in_flight());
        let (devices, metrics) = (self.devices, self.metrics.clone());
        let usage = self.usage.as_mut().map(RecentUsage::look).unwrap_or_default();
        progress.send_replace(Snapshot { devices, metrics, connections, in_flight, usage });
    }
}

impl RecentUsage {
    /// The usage of the last seconds.
    fn look(&mut self) -> Usage {
        let usage = self.crew.usage(&self.limits);
        // Snapshots are rare while little happens.
        let is_old = |snapshot: &Usage| usage.elapsed.saturating_sub(snapshot.elapsed) > RECENT;
        while self.recent.len() > 1 && self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        let recent = usage.since(self.recent.front().unwrap_or(&Usage::default()));
        self.recent.push_back(usage);
        recent
    }
}

/// How long a commit may wait for others: while that costs little, and another is likely to come.
#[derive(Debug, Default)]
struct Patience {
    /// How long the service takes for an exchange, smoothed; zero until one has succeeded.
    latency: Duration,
}

impl Patience {
    /// The longest wait, whatever the latency.
    const MOST: Duration = Duration::from_millis(3);
    /// The longest wait, as a divisor of the latency.
    const PART: u32 = 10;
    /// The timer's resolution.
    const GRAIN: Duration = Duration::from_millis(1);

    fn hear(&mut self, note: &Note) {
        let Note::Exchanged { timing, outcome: Ok(()), .. } = note else { return };
        self.latency =
            if self.latency.is_zero() { timing.service } else { (self.latency * 15 + timing.service) / 16 };
    }

    /// How long a commit may wait while `under_way` exchanges await their reply; `None` if no other is likely to come
    /// in time.
    fn given(&self, under_way: u32) -> Option<Duration> {
        let most = Self::MOST.min(self.latency / Self::PART);
        // A timer is late by up to its resolution.
        let given = most.checked_sub(Self::GRAIN)?;
        (most * under_way >= self.latency).then_some(given)
    }
}

/// The counters that a change moves a device between, for the progress: asking the ledger would cost more with every
/// device. The final report does ask the ledger.
enum Move {
    Issued,
    Registered,
    Rejected { was_issued: bool },
    Unknown,
    Lapsed,
    Stayed,
}

impl Move {
    fn of(change: &Change) -> Self {
        match change {
            Change::Issued { .. } | Change::Certified { .. } => Move::Issued,
            Change::Registered { .. } => Move::Registered,
            Change::Rejected { failure, .. } => {
                Move::Rejected { was_issued: failure.stage == Stage::Call(Call::RegisterThing) }
            }
            Change::Unknown { .. } => Move::Unknown,
            Change::TokenLapsed { .. } => Move::Lapsed,
            Change::KeyPrepared { .. } | Change::Left { .. } => Move::Stayed,
        }
    }

    fn apply(self, counts: &mut Counts) {
        let (from_issued, to) = match self {
            Move::Issued => (false, &mut counts.issued_may_sent),
            Move::Registered => (true, &mut counts.registered),
            Move::Rejected { was_issued } => (was_issued, &mut counts.rejected),
            Move::Unknown => (true, &mut counts.unknown),
            Move::Lapsed => (true, &mut counts.pending),
            Move::Stayed => return,
        };
        *to += 1;
        let from = match (from_issued, counts.issued_may_sent) {
            (false, _) => &mut counts.pending,
            (true, 0) => &mut counts.issued_not_sent,
            (true, _) => &mut counts.issued_may_sent,
        };
        *from = from.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Operation, Timing};

    fn patience(latency: Duration) -> Patience {
        let timing = Timing { wait: Duration::from_secs(9), service: latency };
        let mut patience = Patience::default();
        patience.hear(&Note::Exchanged { operation: Operation::RegisterThing, timing, outcome: Ok(()) });
        patience
    }

    #[test]
    fn nobody_is_waited_for_who_is_not_about_to_come() {
        let ms = Duration::from_millis;
        assert_eq!(Patience::default().given(1_000), None, "nothing is known yet");
        assert_eq!(patience(ms(50)).given(0), None);
        assert_eq!(patience(ms(50)).given(1), None);
        assert_eq!(patience(ms(50)).given(50), Some(ms(2)));
        assert_eq!(patience(ms(5)).given(50), None, "the timer is too coarse for half a millisecond");
        assert_eq!(patience(ms(1_000)).given(100), None);
    }

    #[test]
    fn a_commit_waits_for_a_tenth_of_the_latency_at_most() {
        for latency in (0..500).map(Duration::from_millis) {
            if let Some(given) = patience(latency).given(1_000) {
                assert!(given + Patience::GRAIN <= latency / 10, "{given:?} of {latency:?}");
                assert!(given + Patience::GRAIN <= Patience::MOST, "{given:?}");
            }
        }
    }

    #[test]
    fn the_latency_follows_what_is_measured() {
        let mut patience = patience(Duration::from_millis(100));
        let timing = Timing { wait: Duration::ZERO, service: Duration::from_millis(20) };
        for _ in 0..100 {
            patience.hear(&Note::Exchanged { operation: Operation::Publish, timing, outcome: Ok(()) });
        }
        assert!(patience.latency < Duration::from_millis(21), "{:?}", patience.latency);
    }
}
