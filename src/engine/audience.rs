//! Who receives a run's progress, and the gauges it is read from.
//!
//! Does not own the numbers that a report shows: those are [`crate::metrics`]'.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{mpsc, watch};

use crate::ledger::Counts;
use crate::metrics::{Interval, Metrics};
use crate::usage::Usage;

/// The state of a run.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Devices by state.
    pub devices: Counts,
    /// What was measured so far.
    pub metrics: Metrics,
    /// Workers with an open connection.
    pub connections: u32,
    /// Exchanges whose request was sent and that have not ended.
    pub in_flight: u32,
    /// Where the time went in the last seconds, which shows what limits the run now.
    pub usage: Usage,
}

/// Who receives a run's progress.
#[derive(Debug, Default)]
pub struct Audience<S = Snapshot> {
    /// The state of the run, a few times a second while there is a subscriber.
    pub progress: watch::Sender<S>,
    /// What happened in each second, once and in order, including empty seconds. No second is left out: a run waits
    /// for a reader that lags by more than the channel's capacity.
    pub intervals: Option<mpsc::Sender<Interval>>,
}

impl<S: Default> From<()> for Audience<S> {
    /// An audience of nobody.
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<S> From<watch::Sender<S>> for Audience<S> {
    fn from(progress: watch::Sender<S>) -> Self {
        Self { progress, intervals: None }
    }
}

/// What is open or under way at this instant.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    connections: AtomicU32,
    in_flight: AtomicU32,
}

impl Gauges {
    /// Open connections.
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Exchanges whose request was sent and that have not ended.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_gone(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts an exchange as under way until the guard is dropped, which also happens when its task is aborted.
    pub(super) fn exchange(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }
}

/// An exchange under way.
pub(super) struct InFlight<'a>(&'a Gauges);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
