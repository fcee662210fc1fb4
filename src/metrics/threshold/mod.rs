//! Thresholds: demands on what was measured.
//!
//! Owns their syntax, as in `register_thing.p99<500ms`, `rejected<0.1%` or `missed=0`, and the judgement. What follows from
//! a judgement is up to the caller.

mod change;
mod parse;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Latency, Metrics};
use crate::event::{Counter, Operation};

pub use change::{ChangeThreshold, Demand, relative};
pub use parse::NotAThreshold;

/// A demand on one measured quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    quantity: Quantity,
    relation: Relation,
    /// The bound, in the quantity's unit.
    bound: f64,
}

/// What is measured, and in which unit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    /// A figure of a latency, in microseconds.
    Latency(Kind, Figure),
    /// A count.
    Count(Counted),
    /// A share, from 0 to 1.
    Share(Counted),
    /// A rate per second of the measured time.
    Rate(Counted),
}

/// Which latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service(Operation),
    Response(Operation),
    /// A step of opening a connection, by its place among them.
    Phase(usize),
    /// How late the generator was.
    Lateness,
}

/// Which figure of a latency.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    /// A quantile, from 0 to 1.
    Quantile(f64),
    Mean,
    Max,
}

/// What is counted: of one operation, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Ends(End, Option<Operation>),
    Arrivals(ArrivalEnd),
    ConnectionsLost,
}

/// How attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Attempts,
    Accepted,
    Rejected,
    Throttled,
    TimedOut,
    Dropped,
    /// All ends but `accepted`.
    Failed,
}

/// What became of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArrivalEnd {
    Scheduled,
    Started,
    Missed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

/// Whether a threshold was held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The threshold, as it was written.
    pub threshold: String,
    /// Whether it was held. Where nothing was measured, it was not: a run that measures nothing proves nothing.
    pub passed: bool,
    /// What was measured: microseconds, a count, a share from 0 to 1, or a rate per second. `None` if nothing was.
    pub measured: Option<f64>,
    /// What was measured, for people, with its unit.
    pub shown: String,
}

impl Threshold {
    /// Judges `metrics`, which were measured over `time`.
    pub fn judge(&self, metrics: &Metrics, time: Duration) -> Judgement {
        let measured = self.quantity.measure(metrics, time);
        Judgement {
            threshold: self.text.clone(),
            passed: measured.is_some_and(|measured| self.relation.holds(measured, self.bound)),
            measured,
            shown: measured.map_or_else(|| String::from("nothing"), |value| self.quantity.show(value)),
        }
    }

    /// The response time that it demands of `operation`, in microseconds; `None` if it demands something else.
    pub fn response_us(&self, operation: Operation) -> Option<f64> {
        self.latency_us(Kind::Response(operation))
    }

    /// The service time that it demands of `operation`, in microseconds; `None` if it demands something else.
    pub fn service_us(&self, operation: Operation) -> Option<f64> {
        self.latency_us(Kind::Service(operation))
    }

    fn latency_us(&self, demanded: Kind) -> Option<f64> {
        matches!(self.quantity, Quantity::Latency(kind, _) if kind == demanded).then_some(self.bound)
    }

    /// The rate of accepted attempts of `operation` that it demands, per second; `None` if it demands something else.
    pub fn accepted_per_s(&self, operation: Operation) -> Option<f64> {
        let of = Counted::Ends(End::Accepted, Some(operation));
        (self.quantity == Quantity::Rate(of)).then_some(self.bound)
    }

    /// Whether a run that goes on has missed it for good, or so clearly that going on is a waste: a count above an upper bound
    /// cannot fall again; a percentile or a share needs as many samples as its bound distinguishes, and at least
    /// [`LEAST_SAMPLES`]. A lower bound may still be reached.
    pub fn is_lost(&self, metrics: &Metrics, time: Duration) -> bool {
        let Some(measured) = self.quantity.measure(metrics, time) else { return false };
        let is_above = measured > self.bound || (measured == self.bound && self.relation == Relation::Less);
        let has_upper_bound = matches!(self.relation, Relation::Less | Relation::AtMost | Relation::Equal);
        if !has_upper_bound || !is_above {
            return false;
        }
        let least = match self.quantity {
            Quantity::Count(_) => 0.0,
            Quantity::Rate(_) => return false,
            Quantity::Share(_) => 1.0 / self.bound.max(1e-6),
            Quantity::Latency(_, Figure::Quantile(quantile)) => 1.0 / (1.0 - quantile).max(1e-6),
            Quantity::Latency(_, Figure::Mean) => LEAST_SAMPLES,
            Quantity::Latency(_, Figure::Max) => 0.0,
        };
        let least = if least == 0.0 { 0.0 } else { least.max(LEAST_SAMPLES) };
        self.quantity.samples(metrics) as f64 >= least
    }
}

/// The fewest samples whose percentile, mean or share may end a run.
pub const LEAST_SAMPLES: f64 = 20.0;

impl fmt::Display for Threshold {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Relation {
    fn holds(self, measured: f64, bound: f64) -> bool {
        match self {
            Relation::Less => measured < bound,
            Relation::AtMost => measured <= bound,
            Relation::More => measured > bound,
            Relation::AtLeast => measured >= bound,
            Relation::Equal => measured == bound,
            Relation::Unequal => measured != bound,
        }
    }
}

impl Quantity {
    /// The measured value; `None` if nothing was measured.
    fn measure(self, metrics: &Metrics, time: Duration) -> Option<f64> {
        match self {
            Quantity::Latency(kind, figure) => {
                let latency = kind.of(metrics);
                (latency.count() > 0).then(|| figure.of(latency))
            }
            Quantity::Count(counted) => Some(counted.of(metrics).0 as f64),
            Quantity::Share(counted) => {
                let (count, of) = counted.of(metrics);
                (of > 0).then(|| count as f64 / of as f64)
            }
            Quantity::Rate(counted) => {
                (!time.is_zero()).then(|| counted.of(metrics).0 as f64 / time.as_secs_f64())
            }
        }
    }

    fn samples(self, metrics: &Metrics) -> u64 {
        match self {
            Quantity::Latency(kind, _) => kind.of(metrics).count(),
            Quantity::Count(counted) | Quantity::Share(counted) | Quantity::Rate(counted) => {
                counted.of(metrics).1
            }
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Quantity::Latency(..) if value < 1e3 => format!("{value:.0} us"),
            Quantity::Latency(..) if value < 1e6 => format!("{} ms", four_digits(value / 1e3)),
            Quantity::Latency(..) => format!("{} s", four_digits(value / 1e6)),
            Quantity::Count(_) => format!("{value}"),
            Quantity::Share(_) => format!("{} %", three_digits(value * 100.0)),
            Quantity::Rate(_) => format!("{}/s", three_digits(value)),
        }
    }
}

/// One digit more than the histograms distinguish, so that a bound that is narrowly missed is seen to be missed.
fn four_digits(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.3}"),
        _ if value < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// At most three significant digits in the fraction.
fn three_digits(value: f64) -> String {
    match value {
        _ if value == 0.0 => String::from("0"),
        _ if value < 0.1 => format!("{value:.4}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl Kind {
    fn of(self, metrics: &Metrics) -> &Latency {
        match self {
            Kind::Service(operation) => &metrics.operation(operation).service,
            Kind::Response(operation) => &metrics.operation(operation).response,
            Kind::Phase(place) => metrics.dial_phases.each()[place].1,
            Kind::Lateness => &metrics.lateness,
        }
    }
}

impl Figure {
    fn of(self, latency: &Latency) -> f64 {
        match self {
            Figure::Quantile(quantile) => latency.quantile(quantile) as f64,
            Figure::Mean => latency.figures().mean,
            Figure::Max => latency.figures().max as f64,
        }
    }
}

impl Counted {
    /// The count, and of how many.
    fn of(self, metrics: &Metrics) -> (u64, u64) {
        match self {
            Counted::Ends(end, Some(operation)) => end.of(metrics, operation),
            // A whole device consists of attempts that are already counted.
            Counted::Ends(end, None) => Operation::ALL
                .into_iter()
                .filter(|operation| *operation != Operation::Provision)
                .map(|operation| end.of(metrics, operation))
                .fold((0, 0), |(count, of), (more, of_more)| (count + more, of + of_more)),
            Counted::Arrivals(end) => {
                let arrivals = metrics.arrivals;
                let count = match end {
                    ArrivalEnd::Scheduled => arrivals.scheduled,
                    ArrivalEnd::Started => arrivals.started,
                    ArrivalEnd::Missed => arrivals.missed,
                };
                (count, arrivals.scheduled)
            }
            Counted::ConnectionsLost => (
                metrics.counters.of(Counter::ConnectionsLost),
                metrics.operation(Operation::Connect).counts.accepted,
            ),
        }
    }
}

impl End {
    fn of(self, metrics: &Metrics, operation: Operation) -> (u64, u64) {
        let counts = metrics.operation(operation).counts;
        let count = match self {
            End::Attempts => counts.attempts,
            End::Accepted => counts.accepted,
            End::Rejected => counts.rejected,
            End::Throttled => counts.throttled,
            End::TimedOut => counts.timed_out,
            End::Dropped => counts.dropped,
            End::Failed => counts.failed(),
        };
        (count, counts.attempts)
    }
}

#[cfg(test)]
mod tests;
