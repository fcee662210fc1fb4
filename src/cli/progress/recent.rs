//! The last seconds of a run, from the difference between two snapshots.
//!
//! A run's figures only grow; recent activity is the difference between the newest and those of a few seconds ago.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Snapshot;
use crate::event::Operation;
use crate::metrics::{Latency, LatencyFigures};

/// How far back the last seconds reach.
const WINDOW: Duration = Duration::from_secs(5);
/// How often a snapshot is kept for comparison.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The parts of the last seconds' snapshots that are needed.
#[derive(Debug, Default)]
pub(in crate::cli) struct Recent {
    kept: VecDeque<Sample>,
    newest: Option<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    done: u64,
    service: Vec<Latency>,
}

/// The recent accepted attempts of an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lately {
    /// Accepted per second.
    pub(super) per_second: f64,
    /// Their service time; `None` if no attempt was accepted.
    pub(super) service: Option<LatencyFigures>,
}

impl Recent {
    /// Records the snapshot of this instant.
    pub(in crate::cli) fn see(&mut self, at: Instant, snapshot: &Snapshot) {
        let service = Operation::ALL.map(|operation| snapshot.metrics.operation(operation).service.clone());
        let newest = Sample { at, done: done(snapshot), service: service.into() };
        if let Some(before) = self.newest.replace(newest)
            && self.kept.back().is_none_or(|kept| before.at >= kept.at + KEEP_EVERY)
        {
            self.kept.push_back(before);
        }
        // One that is old enough is kept: without it, the window would be too short.
        while self.kept.get(1).is_some_and(|next| at >= next.at + WINDOW) {
            self.kept.pop_front();
        }
    }

    /// Devices finished per second.
    pub(super) fn done_per_second(&self) -> f64 {
        self.compare(|old, new| new.done.saturating_sub(old.done) as f64).unwrap_or(0.0)
    }

    /// The recent accepted attempts of `operation`.
    pub(super) fn operation(&self, operation: Operation) -> Lately {
        let at = Operation::ALL.iter().position(|each| *each == operation).expect("ALL has every operation");
        let (Some(old), Some(new)) = (self.kept.front(), &self.newest) else {
            return Lately { per_second: 0.0, service: None };
        };
        let service = new.service[at].since(&old.service[at]);
        let per_second = self.compare(|_, _| service.count() as f64).unwrap_or(0.0);
        Lately { per_second, service: (service.count() > 0).then(|| service.figures()) }
    }

    fn compare(&self, more: impl Fn(&Sample, &Sample) -> f64) -> Option<f64> {
        let (old, new) = (self.kept.front()?, self.newest.as_ref()?);
        let seconds = (new.at - old.at).as_secs_f64();
        (seconds > 0.0).then(|| more(old, new) / seconds)
    }
}

/// Devices that need nothing more in this run.
pub(super) fn done(snapshot: &Snapshot) -> u64 {
    snapshot.devices.total() - snapshot.devices.open()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Note, Timing};

    fn exchange(snapshot: &mut Snapshot, ms: u64) {
        snapshot.devices.registered += 1;
        snapshot.metrics.record(&Note::Exchanged {
            operation: Operation::RegisterThing,
            timing: Timing { wait: Duration::ZERO, service: Duration::from_millis(ms) },
            outcome: Ok(()),
        });
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (mut recent, mut snapshot) = (Recent::default(), Snapshot::default());
        let start = Instant::now();
        // Ten seconds of 10/s at 100 ms, then ten of 2/s at 5 ms.
        for tick in 0..100 {
            if tick < 50 || tick % 5 < 2 {
                exchange(&mut snapshot, if tick < 50 { 100 } else { 5 });
                if tick < 50 {
                    exchange(&mut snapshot, 100);
                }
            }
            recent.see(start + Duration::from_millis(200) * tick, &snapshot);
            let lately = recent.operation(Operation::RegisterThing);
            let p50_ms = lately.service.map(|figures| figures.p50 / 1_000);
            match tick {
                30..50 => {
                    assert!((9.0..11.0).contains(&recent.done_per_second()), "{}", recent.done_per_second());
                    assert_eq!(p50_ms, Some(100));
                }
                85.. => {
                    assert!((1.5..2.5).contains(&lately.per_second), "{lately:?}");
                    assert_eq!(p50_ms, Some(5));
                }
                _ => {}
            }
        }
        assert!(recent.kept.len() <= 8, "{} samples are kept", recent.kept.len());
    }

    #[test]
    fn nothing_is_known_of_a_run_that_has_just_begun() {
        let mut recent = Recent::default();
        recent.see(Instant::now(), &Snapshot::default());
        assert_eq!(recent.done_per_second(), 0.0);
        assert_eq!(recent.operation(Operation::Connect), Lately { per_second: 0.0, service: None });
    }
}
