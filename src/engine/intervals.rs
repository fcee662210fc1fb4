//! A run cut into seconds.
//!
//! Owns which second something belongs to: the one in which it ended. Keeps two seconds at most, however long the run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::audience::Gauges;
use crate::event::Note;
use crate::metrics::{Interval, Metrics};

/// How long a second stays open after its end, for notes that are still on their way to the recorder.
const GRACE: Duration = Duration::from_millis(100);

/// The seconds of one run.
pub(super) struct Intervals {
    /// The instant that seconds are counted from. A note for an instant before it, or sent before it is set, is in no
    /// second.
    epoch: Option<Instant>,
    reader: mpsc::Sender<Interval>,
    gauges: Arc<Gauges>,
    /// The oldest second that is still open.
    second: u64,
    /// Its metrics, and the next one's.
    open: [Metrics; 2],
}

impl Intervals {
    pub(super) fn new(epoch: Option<Instant>, reader: mpsc::Sender<Interval>, gauges: Arc<Gauges>) -> Self {
        Self { epoch, reader, gauges, second: 0, open: Default::default() }
    }

    /// Starts counting seconds from `epoch`.
    pub(super) fn begin(&mut self, epoch: Instant) {
        self.epoch.get_or_insert(epoch);
    }

    /// Adds `note`, which ended `at`, to its second. If it comes later than the grace, it goes into the oldest open
    /// second: it is always counted.
    pub(super) async fn record(&mut self, at: Instant, note: &Note) {
        let Some(second) = self.second_of(at) else { return };
        // A note from a later second closes all earlier ones: the timer may not have fired yet.
        while second > self.second + 1 {
            self.cut().await;
        }
        self.open[second.saturating_sub(self.second) as usize].record(note);
    }

    /// Waits until the oldest open second and its grace are over.
    pub(super) async fn ripe(&self) {
        match self.epoch {
            Some(epoch) => {
                tokio::time::sleep_until(epoch + Duration::from_secs(self.second + 1) + GRACE).await
            }
            None => std::future::pending().await,
        }
    }

    /// Sends every second that is over, with its grace.
    pub(super) async fn cut_ripe(&mut self) {
        while self.second_of(Instant::now() - GRACE).is_some_and(|second| second > self.second) {
            self.cut().await;
        }
    }

    /// Sends all remaining seconds; the last may be incomplete.
    pub(super) async fn finish(mut self) {
        let Some(last) = self.second_of(Instant::now()) else { return };
        while self.second <= last {
            self.cut().await;
        }
    }

    fn second_of(&self, at: Instant) -> Option<u64> {
        Some(at.checked_duration_since(self.epoch?)?.as_secs())
    }

    async fn cut(&mut self) {
        let [oldest, next] = std::mem::take(&mut self.open);
        self.open[0] = next;
        let interval = Interval {
            second: self.second,
            metrics: oldest,
            connections: self.gauges.connections(),
            in_flight: self.gauges.in_flight(),
        };
        self.second += 1;
        // A reader that is gone wants no more.
        let _ = self.reader.send(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Operation, Timing};

    fn exchanged() -> Note {
        let timing = Timing { wait: Duration::ZERO, service: Duration::from_millis(1) };
        Note::Exchanged { operation: Operation::Publish, timing, outcome: Ok(()) }
    }

    fn started() -> (Intervals, mpsc::Receiver<Interval>, Instant) {
        let (sender, receiver) = mpsc::channel(64);
        let now = Instant::now();
        (Intervals::new(Some(now), sender, Arc::default()), receiver, now)
    }

    fn attempts(receiver: &mut mpsc::Receiver<Interval>) -> Vec<(u64, u64)> {
        let attempts = |interval: Interval| {
            (interval.second, interval.metrics.operation(Operation::Publish).counts.attempts)
        };
        std::iter::from_fn(|| receiver.try_recv().ok()).map(attempts).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_is_in_the_second_in_which_it_ended_and_empty_seconds_are_there() {
        let (mut intervals, mut receiver, start) = started();
        for ms in [0, 999, 1_000, 999, 3_500, 3_999, 4_000] {
            intervals.record(start + Duration::from_millis(ms), &exchanged()).await;
        }
        tokio::time::sleep_until(start + Duration::from_millis(5_500)).await;
        intervals.finish().await;
        assert_eq!(attempts(&mut receiver), [(0, 3), (1, 1), (2, 0), (3, 2), (4, 1), (5, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stays_open_for_what_is_on_its_way() {
        let (mut intervals, mut receiver, start) = started();
        tokio::time::sleep_until(start + Duration::from_millis(1_050)).await;
        intervals.cut_ripe().await;
        intervals.record(start + Duration::from_millis(999), &exchanged()).await;
        intervals.ripe().await;
        intervals.cut_ripe().await;
        assert_eq!(attempts(&mut receiver), [(0, 1)]);
        intervals.record(start + Duration::from_millis(500), &exchanged()).await;
        intervals.finish().await;
        assert_eq!(attempts(&mut receiver), [(1, 1)], "too late for its second, counted all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_before_the_epoch_is_in_no_second() {
        let (sender, mut receiver) = mpsc::channel(64);
        let mut intervals = Intervals::new(None, sender, Arc::default());
        let before = Instant::now();
        intervals.record(before, &exchanged()).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        intervals.record(Instant::now(), &exchanged()).await;
        intervals.begin(Instant::now());
        intervals.record(before, &exchanged()).await;
        intervals.record(Instant::now(), &exchanged()).await;
        intervals.finish().await;
        assert_eq!(attempts(&mut receiver), [(0, 1)]);
    }
}
