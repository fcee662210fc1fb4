//! Who is told how a run goes, and the counters that it is told from.
//!
//! Owns no number that a report shows: those are [`crate::metrics`]'.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{mpsc, watch};

use super::Snapshot;
use crate::metrics::Interval;

/// Who is told how a run goes.
#[derive(Debug)]
pub struct Audience {
    /// Where the run stands, a few times a second as far as anyone looks.
    pub progress: watch::Sender<Snapshot>,
    /// What happened in each second, each once and in order, the empty ones too. A run waits for a reader that is more
    /// than the channel's capacity behind: no second is left out.
    pub intervals: Option<mpsc::Sender<Interval>>,
}

impl From<watch::Sender<Snapshot>> for Audience {
    fn from(progress: watch::Sender<Snapshot>) -> Self {
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

    /// Exchanges whose request was sent and whose end has not come.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_gone(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts an exchange as under way until the guard is dropped, as it is by a task that is cut off.
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
