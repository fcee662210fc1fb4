//! Counters and HDR histograms: what a run has measured.
//!
//! Every number of a report is from here or from the ledger's device table. Numbers are only added: what was recorded is never
//! changed. Merging two runs adds their histograms and counters.

mod counters;
mod latency;
mod operation;
mod slowest;
pub mod threshold;

use std::collections::BTreeMap;

use crate::event::{Counter, Note, Operation, Timing};
use crate::failure::Failure;

pub use counters::Counters;
pub use latency::{Latency, LatencyFigures, MAX_LATENCY_US, NotALatency};
pub use operation::{DialPhaseLatencies, OperationCounts, OperationMetrics};
pub use slowest::{Slow, Slowest};

/// A kind of failure: how often it happened, and for which reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// How often it happened.
    pub count: u64,
    /// The first of its kind.
    pub example: Failure,
    /// By [reason](Failure::reason), in the order of their first: at most [`REASONS`]. What is counted and not in here has
    /// further ones.
    pub reasons: Vec<ReasonCount>,
}

/// Failures of a kind that have the same reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReasonCount {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub example: Failure,
}

/// How many reasons of a kind are told apart. They come from the other side, which may have one for every device.
pub const REASONS: usize = 16;

impl FailureCount {
    /// None yet of the kind of `example`.
    pub fn none(example: &Failure) -> Self {
        Self { count: 0, example: example.clone(), reasons: Vec::new() }
    }

    /// Adds `count` failures for the reason of `example`.
    pub fn add(&mut self, count: u64, example: &Failure) {
        self.count = self.count.saturating_add(count);
        let same = self.reasons.iter().position(|reason| reason.example == *example);
        let same = same.or_else(|| {
            let reason = example.reason();
            self.reasons.iter().position(|other| other.example.reason() == reason)
        });
        match same {
            Some(place) => self.reasons[place].count = self.reasons[place].count.saturating_add(count),
            None if self.reasons.len() < REASONS => {
                self.reasons.push(ReasonCount { count, example: example.clone() });
            }
            None => {}
        }
    }

    /// How many have a reason that is not among [`reasons`](Self::reasons).
    pub fn others(&self) -> u64 {
        let told = self.reasons.iter().fold(0_u64, |sum, reason| sum.saturating_add(reason.count));
        self.count.saturating_sub(told)
    }

    fn merge(&mut self, other: &Self) {
        other.reasons.iter().for_each(|reason| self.add(reason.count, &reason.example));
        self.count = self.count.saturating_add(other.others());
    }
}

/// The arrivals of an open-loop schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Arrivals {
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Arrivals that a connection took up.
    pub started: u64,
    /// Arrivals that were given up because no connection became free in time. Their latencies are unknown, and in no percentile.
    pub missed: u64,
}

impl Arrivals {
    fn merge(&mut self, other: Self) {
        self.scheduled = self.scheduled.saturating_add(other.scheduled);
        self.started = self.started.saturating_add(other.started);
        self.missed = self.missed.saturating_add(other.missed);
    }
}

/// What happened in one second of a run, by the instant at which it ended.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    /// Its number: whole seconds since the run's start.
    pub second: u64,
    /// What was measured in it, and nothing before.
    pub metrics: Metrics,
    /// Open connections at its end.
    pub connections: u32,
    /// Attempts under way at its end.
    pub in_flight: u32,
}

/// All that was measured.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    operations: [OperationMetrics; Operation::ALL.len()],
    /// The latencies of the steps of opening a connection, of the dials that completed the step.
    pub dial_phases: DialPhaseLatencies,
    /// Failures by stage and cause.
    pub failures: BTreeMap<(&'static str, &'static str), FailureCount>,
    /// What else was counted.
    pub counters: Counters,
    /// The arrivals of a schedule; all zero without one.
    pub arrivals: Arrivals,
    /// How late arrivals were handed out, from their due instant to the search for a free connection: the generator's own
    /// inaccuracy.
    pub lateness: Latency,
}

impl Metrics {
    /// Adds one note.
    pub fn record(&mut self, note: &Note) {
        match note {
            Note::Dialled { timing, phases, outcome } => {
                self.dial_phases.record(phases);
                self.end(Operation::Connect, *timing, outcome);
            }
            Note::Exchanged { operation, timing, outcome } => self.end(*operation, *timing, outcome),
            Note::Scheduled { lateness } => {
                self.arrivals.scheduled += 1;
                self.lateness.record(*lateness);
            }
            Note::Started => self.arrivals.started += 1,
            Note::Missed => self.arrivals.missed += 1,
            Note::Finished { operation, timing, outcome } => {
                self.operation_mut(*operation).record(*timing, outcome.as_ref().copied());
            }
            Note::ConnectionLost { failure } => {
                self.counters.add(Counter::ConnectionsLost, 1);
                self.count_failure(failure);
            }
            Note::Counted(counter, count) => self.counters.add(*counter, *count),
        }
    }

    /// One operation's numbers.
    pub fn operation(&self, operation: Operation) -> &OperationMetrics {
        &self.operations[operation as usize]
    }

    /// One operation's numbers, mutable.
    pub fn operation_mut(&mut self, operation: Operation) -> &mut OperationMetrics {
        &mut self.operations[operation as usize]
    }

    /// Adds all of `other`: exactly what recording its notes here would have given.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.operations.iter_mut().zip(&other.operations) {
            ours.merge(theirs);
        }
        self.dial_phases.merge(&other.dial_phases);
        for (kind, theirs) in &other.failures {
            self.failures.entry(*kind).or_insert_with(|| FailureCount::none(&theirs.example)).merge(theirs);
        }
        self.counters.merge(&other.counters);
        self.arrivals.merge(other.arrivals);
        self.lateness.merge(&other.lateness);
    }

    fn end(&mut self, operation: Operation, timing: Timing, outcome: &Result<(), Failure>) {
        let outcome = outcome.as_ref().copied();
        self.operation_mut(operation).record(timing, outcome);
        if let Err(failure) = outcome {
            self.count_failure(failure);
        }
    }

    fn count_failure(&mut self, failure: &Failure) {
        let kind = (failure.stage.name(), failure.cause.name());
        self.failures.entry(kind).or_insert_with(|| FailureCount::none(failure)).add(1, failure);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Call;
    use crate::failure::{Cause, Stage};

    fn exchanged(service_ms: u64, wait_ms: u64, cause: Option<Cause>) -> Note {
        Note::Exchanged {
            operation: Operation::RegisterThing,
            timing: Timing {
                wait: Duration::from_millis(wait_ms),
                service: Duration::from_millis(service_ms),
            },
            outcome: cause.map_or(Ok(()), |cause| Err(Failure::new(Stage::Call(Call::RegisterThing), cause))),
        }
    }

    fn rejected(status_code: u16) -> Option<Cause> {
        Some(Cause::Rejected { status_code, error_code: String::new(), error_message: String::new() })
    }

    #[test]
    fn every_attempt_has_one_end() {
        let second = Duration::from_secs(1);
        let ends = [
            None,
            rejected(400),
            rejected(429),
            Some(Cause::NoPuback { after: second }),
            Some(Cause::NoReply { after: second }),
            Some(Cause::Closed { detail: String::new() }),
            Some(Cause::Garbled { detail: String::new() }),
        ];
        let mut metrics = Metrics::default();
        for end in ends {
            metrics.record(&exchanged(1, 0, end));
        }
        let counts = metrics.operation(Operation::RegisterThing).counts;
        let wanted =
            OperationCounts { attempts: 7, accepted: 1, rejected: 1, throttled: 1, timed_out: 2, dropped: 2 };
        assert_eq!(counts, wanted);
        assert_eq!(metrics.failures[&("register_thing", "throttled")].count, 1);
    }

    #[test]
    fn response_time_contains_the_wait_and_service_time_does_not() {
        let mut metrics = Metrics::default();
        metrics.record(&exchanged(10, 990, None));
        let register = metrics.operation(Operation::RegisterThing);
        assert!((9_900..=10_100).contains(&register.service.figures().p50));
        assert!((999_000..=1_001_000).contains(&register.response.figures().p50));
    }

    #[test]
    fn merging_equals_recording_all_in_one() {
        let notes: Vec<Note> = (1..2_000)
            .map(|ms| exchanged(ms, ms % 7, if ms % 5 == 0 { rejected(429) } else { None }))
            .collect();
        let (mut left, mut right, mut whole) = (Metrics::default(), Metrics::default(), Metrics::default());
        for (n, note) in notes.iter().enumerate() {
            if n % 3 == 0 {
                left.record(note)
            } else {
                right.record(note)
            }
            whole.record(note);
        }
        left.merge(&right);
        let (merged, whole) =
            (left.operation(Operation::RegisterThing), whole.operation(Operation::RegisterThing));
        assert_eq!(merged.counts, whole.counts);
        assert_eq!(merged.service.figures(), whole.service.figures());
        assert_eq!(merged.response.figures(), whole.response.figures());
    }

    #[test]
    fn every_operation_has_its_own_place() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place, "ALL is in the order of the declaration");
        }
    }

    #[test]
    fn reasons_are_counted_each_and_merged() {
        let rejected = |message: &str| {
            Some(Cause::Rejected { status_code: 400, error_code: "X".into(), error_message: message.into() })
        };
        let of = |messages: &[String]| {
            let mut metrics = Metrics::default();
            messages.iter().for_each(|message| metrics.record(&exchanged(1, 0, rejected(message))));
            metrics
        };
        let id = |n: u32| format!("certificate {n:064x} is not known");
        let (mut one, two) = (of(&[id(1), id(2), String::from("site")]), of(&[String::from("site"), id(3)]));
        one.merge(&two);
        let kind = &one.failures[&("register_thing", "rejected")];
        let counts: Vec<_> = kind.reasons.iter().map(|reason| reason.count).collect();
        assert_eq!((kind.count, counts, kind.others()), (5, vec![3, 2], 0));
        let many: Vec<_> = (0..100).map(|n| format!("site {n}")).collect();
        one.merge(&of(&many));
        let kind = &one.failures[&("register_thing", "rejected")];
        assert_eq!((kind.count, kind.reasons.len()), (105, REASONS));
        assert_eq!(kind.others(), 105 - 5 - (REASONS as u64 - 2));
    }
}
