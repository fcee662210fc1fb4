//! The recorder: the only writer of the ledger during a run, and the fold of everything that happens.
//!
//! Owns group commit: while one transaction waits for the disk, the next batch gathers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audience::{Audience, Gauges};
use super::crew::Crew;
use super::intervals::Intervals;
use super::store::Store;
use super::{Clock, Limits, Snapshot};
use crate::call::Call;
use crate::event::{Change, Note};
use crate::failure::Stage;
use crate::ledger::{Counts, LedgerError, Receipt};
use crate::metrics::Metrics;
use crate::usage::Usage;

/// How many messages may wait; a sender then waits with them.
const BACKLOG: usize = 4096;
/// How many messages one transaction takes at most.
const BATCH: usize = 512;
/// How often the progress is published at most.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// How many snapshots back recent usage begins: ten seconds.
const RECENT: usize = 50;

enum Message {
    /// With the instant of what it tells of.
    Note(Instant, Note),
    Commit(Change, oneshot::Sender<Receipt>),
    /// Seconds are counted from here on.
    Begin(Instant),
}

/// How workers speak to the recorder.
#[derive(Clone)]
pub(super) struct RecorderHandle(mpsc::Sender<Message>);

/// The recorder is gone: the ledger failed, and the run is over.
#[derive(Debug)]
pub(super) struct RecorderGone;

impl RecorderHandle {
    /// Tells of something that only the metrics want to hear.
    pub(super) async fn note(&self, note: Note) {
        self.note_at(Instant::now(), note).await;
    }

    /// The same, of something that counts as of another instant.
    pub(super) async fn note_at(&self, at: Instant, note: Note) {
        // If the recorder is gone, the next commit says so; a note has nobody to disappoint.
        let _ = self.0.send(Message::Note(at, note)).await;
    }

    /// Has seconds counted from `epoch`. Nothing is in one that was told before this, or happens before `epoch`.
    pub(super) async fn begin(&self, epoch: Instant) {
        let _ = self.0.send(Message::Begin(epoch)).await;
    }

    /// Makes `change` durable. Once this returns `Ok`, it is on the disk.
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
    /// None in a run that commits nothing.
    store: Option<Store>,
    messages: mpsc::Receiver<Message>,
    progress: watch::Sender<Snapshot>,
    intervals: Option<Intervals>,
    gauges: Arc<Gauges>,
    drain: CancellationToken,
    clock: Clock,
    devices: Counts,
    metrics: Metrics,
    usage: Option<RecentUsage>,
}

/// Where the time goes, and went in the last seconds, oldest first.
struct RecentUsage {
    crew: Arc<Crew>,
    limits: Arc<Limits>,
    recent: VecDeque<Usage>,
}

impl Recorder {
    pub(super) fn new(
        store: impl Into<Option<Store>>,
        audience: Audience,
        epoch: Option<Instant>,
        gauges: Arc<Gauges>,
        drain: CancellationToken,
        clock: Clock,
    ) -> (Self, RecorderHandle) {
        let (sender, messages) = mpsc::channel(BACKLOG);
        let Audience { progress, intervals } = audience;
        let intervals = intervals.map(|reader| Intervals::new(epoch, reader, gauges.clone()));
        let devices = progress.borrow().devices;
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
        };
        (recorder, RecorderHandle(sender))
    }

    /// Says in each snapshot where the time goes, too.
    pub(super) fn telling_usage(self, crew: Arc<Crew>, limits: Arc<Limits>) -> Self {
        Self { usage: Some(RecentUsage { crew, limits, recent: VecDeque::new() }), ..self }
    }

    /// Records until every handle is gone, or the ledger fails.
    pub(super) async fn run(mut self) -> (Metrics, Result<(), LedgerError>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut published: Option<Instant> = None;
        while self.receive(&mut batch).await > 0 {
            if let Err(error) = self.record(&mut batch).await {
                // Nothing more may be published whose answer the ledger could not take. Closed first: whoever is told to
                // drain would still register what it has in hand.
                self.messages.close();
                self.drain.cancel();
                return (self.metrics, Err(error));
            }
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

    /// The next messages; none when every handle is gone. Seconds that end meanwhile are sent on their way.
    async fn receive(&mut self, batch: &mut Vec<Message>) -> usize {
        loop {
            let Some(intervals) = &mut self.intervals else {
                return self.messages.recv_many(batch, BATCH).await;
            };
            // Looked at with every batch, too: where messages never cease, the timer is never served.
            intervals.cut_ripe().await;
            tokio::select! {
                biased;
                received = self.messages.recv_many(batch, BATCH) => return received,
                () = intervals.ripe() => {}
            }
        }
    }

    async fn record(&mut self, batch: &mut Vec<Message>) -> Result<(), LedgerError> {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for message in batch.drain(..) {
            match message {
                Message::Note(at, note) => {
                    self.metrics.record(&note);
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
        let now = (self.clock)();
        let store = self.store.as_ref().expect("only a run with a ledger has anything to commit");
        let receipts = store.commit(changes, now).await?;
        for ((waiting, receipt), moved) in waiting.into_iter().zip(receipts).zip(moves) {
            if !matches!(receipt, Receipt::Conflict(_)) {
                moved.apply(&mut self.devices);
            }
            // A worker that was aborted meanwhile does not collect its receipt; the change is durable all the same.
            let _ = waiting.send(receipt);
        }
        Ok(())
    }

    /// Publishes where the run stands.
    fn publish(&mut self) {
        if self.progress.receiver_count() == 0 {
            return;
        }
        let (connections, in_flight) = (self.gauges.connections(), self.gauges.in_flight());
        let (devices, metrics) = (self.devices, self.metrics.clone());
        let usage = self.usage.as_mut().map(RecentUsage::look).unwrap_or_default();
        self.progress.send_replace(Snapshot { devices, metrics, connections, in_flight, usage });
    }
}

impl RecentUsage {
    /// The usage of the last seconds.
    fn look(&mut self) -> Usage {
        let usage = self.crew.usage(&self.limits);
        let recent = usage.since(self.recent.front().unwrap_or(&Usage::default()));
        self.recent.push_back(usage);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        recent
    }
}

/// Which counter a change moves a device between, for the progress: asking the ledger would cost more with every
/// device. What is reported in the end is asked of the ledger.
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
