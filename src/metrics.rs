//! Counters and HDR histograms: the fold over what happened.
//!
//! Owns every number of a report that is not in the ledger's device table. Only adds: a number that was recorded is
//! never changed, and none is invented. Merging two is adding their histograms and counters.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::event::{DialPhases, Note, Operation, Timing};
use crate::failure::{Cause, Failure};

/// The longest latency that is told apart, one hour; a longer one is recorded as this.
pub const MAX_LATENCY_US: u64 = 3_600_000_000;

/// Latencies of one kind, in microseconds, to three significant digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3);
        Self(histogram.expect("1 us to 1 h with 3 digits are valid bounds"))
    }
}

impl Latency {
    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US);
        self.0.saturating_record(us.max(1));
    }

    /// Adds all of `other`'s latencies: the result is exactly what recording them here would have given.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all latencies share one configuration");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The figures that reports show, in microseconds; all zero if nothing was recorded.
    pub fn figures(&self) -> LatencyFigures {
        if self.0.is_empty() {
            return LatencyFigures::default();
        }
        LatencyFigures {
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p99_9: self.0.value_at_quantile(0.999),
            max: self.0.max(),
            mean: self.0.mean(),
        }
    }
}

/// Percentiles of a [`Latency`], in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LatencyFigures {
    /// Half were at most this.
    pub p50: u64,
    /// 90 % were at most this.
    pub p90: u64,
    /// 99 % were at most this.
    pub p99: u64,
    /// 99.9 % were at most this.
    pub p99_9: u64,
    /// All were at most this.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
}

/// How the attempts of one operation ended: every attempt is in exactly one of the five ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct OperationCounts {
    /// Attempts made.
    pub attempts: u64,
    /// Ended well.
    pub accepted: u64,
    /// Refused by the service.
    pub rejected: u64,
    /// Refused by the service for their rate (429).
    pub throttled: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// Ended by the connection: closed, unreachable, or an answer that could not be used.
    pub dropped: u64,
}

impl OperationCounts {
    fn add(&mut self, end: Result<(), &Failure>) {
        self.attempts += 1;
        *self.end(end) += 1;
    }

    fn end(&mut self, end: Result<(), &Failure>) -> &mut u64 {
        let Err(failure) = end else { return &mut self.accepted };
        if failure.is_throttle() {
            return &mut self.throttled;
        }
        match &failure.cause {
            Cause::Rejected { .. }
            | Cause::UpgradeRefused { .. }
            | Cause::ConnectRefused { .. }
            | Cause::SubscriptionRefused { .. }
            | Cause::Credentials { .. } => &mut self.rejected,
            Cause::TimedOut { .. } | Cause::NoPuback { .. } | Cause::NoReply { .. } => &mut self.timed_out,
            Cause::Unresolvable { .. }
            | Cause::Unreachable { .. }
            | Cause::Tls { .. }
            | Cause::Closed { .. }
            | Cause::Garbled { .. }
            | Cause::Anomaly { .. }
            | Cause::TokenExpired => &mut self.dropped,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.throttled += other.throttled;
        self.timed_out += other.timed_out;
        self.dropped += other.dropped;
    }
}

/// One operation's attempts and, of the accepted ones, both latencies.
#[derive(Debug, Clone, Default)]
pub struct OperationMetrics {
    /// How the attempts ended.
    pub counts: OperationCounts,
    /// Service time of accepted attempts: from sending the request to its reply.
    pub service: Latency,
    /// Response time of accepted attempts: from the instant the attempt was due, so waiting at a limit is in it.
    pub response: Latency,
}

impl OperationMetrics {
    fn record(&mut self, timing: Timing, outcome: Result<(), &Failure>) {
        self.counts.add(outcome);
        if outcome.is_ok() {
            self.service.record(timing.service);
            self.response.record(timing.response());
        }
    }
}

/// A kind of failure: how often, and one example in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// How often.
    pub count: u64,
    /// The first of its kind.
    pub example: Failure,
}

/// All that was measured.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    connect: OperationMetrics,
    create_certificate: OperationMetrics,
    register_thing: OperationMetrics,
    /// The steps of opening a connection, of the dials that got through the step.
    pub dial_phases: DialPhaseLatencies,
    /// Failures by stage and cause.
    pub failures: BTreeMap<(&'static str, &'static str), FailureCount>,
    /// Connections that ended by themselves while they waited.
    pub connections_lost: u64,
    /// Registrations whose answer was lost, and which the control plane confirmed.
    pub settled: u64,
    /// Replies that were delivered again, and ignored.
    pub redelivered: u64,
}

/// The latencies of the steps of opening a connection.
#[derive(Debug, Clone, Default)]
pub struct DialPhaseLatencies {
    /// Name lookup and TCP.
    pub tcp: Latency,
    /// TLS handshake.
    pub tls: Latency,
    /// HTTP upgrade.
    pub upgrade: Latency,
    /// CONNECT to CONNACK.
    pub connack: Latency,
    /// SUBSCRIBE to SUBACK.
    pub suback: Latency,
}

impl DialPhaseLatencies {
    /// Names and latencies, in order.
    pub fn each(&self) -> [(&'static str, &Latency); 5] {
        [
            ("tcp", &self.tcp),
            ("tls", &self.tls),
            ("upgrade", &self.upgrade),
            ("connack", &self.connack),
            ("suback", &self.suback),
        ]
    }

    fn record(&mut self, phases: &DialPhases) {
        let pairs = [
            (&mut self.tcp, phases.tcp),
            (&mut self.tls, phases.tls),
            (&mut self.upgrade, phases.upgrade),
            (&mut self.connack, phases.connack),
            (&mut self.suback, phases.suback),
        ];
        for (latency, phase) in pairs {
            if let Some(phase) = phase {
                latency.record(phase);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.tcp.merge(&other.tcp);
        self.tls.merge(&other.tls);
        self.upgrade.merge(&other.upgrade);
        self.connack.merge(&other.connack);
        self.suback.merge(&other.suback);
    }
}

impl Metrics {
    /// Folds one note in.
    pub fn record(&mut self, note: &Note) {
        match note {
            Note::Dialled { timing, phases, outcome } => {
                self.dial_phases.record(phases);
                self.end(Operation::Connect, *timing, outcome);
            }
            Note::Exchanged { operation, timing, outcome } => self.end(*operation, *timing, outcome),
            Note::ConnectionLost { failure } => {
                self.connections_lost += 1;
                self.count_failure(failure);
            }
            Note::Settled => self.settled += 1,
            Note::Redelivered { count } => self.redelivered += u64::from(*count),
        }
    }

    /// One operation's numbers.
    pub fn operation(&self, operation: Operation) -> &OperationMetrics {
        match operation {
            Operation::Connect => &self.connect,
            Operation::CreateCertificate => &self.create_certificate,
            Operation::RegisterThing => &self.register_thing,
        }
    }

    /// Adds all of `other`: exactly what recording its notes here would have given.
    pub fn merge(&mut self, other: &Self) {
        for operation in Operation::ALL {
            let theirs = other.operation(operation);
            let ours = self.operation_mut(operation);
            ours.counts.merge(&theirs.counts);
            ours.service.merge(&theirs.service);
            ours.response.merge(&theirs.response);
        }
        self.dial_phases.merge(&other.dial_phases);
        for (kind, theirs) in &other.failures {
            let example = || FailureCount { count: 0, example: theirs.example.clone() };
            self.failures.entry(*kind).or_insert_with(example).count += theirs.count;
        }
        self.connections_lost += other.connections_lost;
        self.settled += other.settled;
        self.redelivered += other.redelivered;
    }

    fn operation_mut(&mut self, operation: Operation) -> &mut OperationMetrics {
        match operation {
            Operation::Connect => &mut self.connect,
            Operation::CreateCertificate => &mut self.create_certificate,
            Operation::RegisterThing => &mut self.register_thing,
        }
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
        let first = || FailureCount { count: 0, example: failure.clone() };
        self.failures.entry(kind).or_insert_with(first).count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Stage;

    fn exchanged(service_ms: u64, wait_ms: u64, cause: Option<Cause>) -> Note {
        Note::Exchanged {
            operation: Operation::RegisterThing,
            timing: Timing {
                wait: Duration::from_millis(wait_ms),
                service: Duration::from_millis(service_ms),
            },
            outcome: cause.map_or(Ok(()), |cause| Err(Failure::new(Stage::RegisterThing, cause))),
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
    fn a_latency_beyond_an_hour_is_recorded_as_an_hour() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(10_000));
        assert!(latency.figures().max >= MAX_LATENCY_US);
        assert_eq!(latency.count(), 1);
    }
}
