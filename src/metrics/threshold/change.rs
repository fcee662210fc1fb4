//! Thresholds on changes since a baseline, such as `register_thing.p99<+10%`: what marks them is the sign of the bound.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::parse::{self, Subject};
use super::{Judgement, NotAThreshold, Quantity, Relation, Threshold, three_digits};
use crate::metrics::Metrics;

/// What a run must hold, by itself or compared with a baseline.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// A demand on what was measured.
    Threshold(Threshold),
    /// A demand on how it changed.
    Change(ChangeThreshold),
}

/// A demand on the change of one measured quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeThreshold {
    text: String,
    quantity: Quantity,
    relation: Relation,
    /// The bound, in the unit of the change.
    bound: f64,
    unit: Unit,
}

/// What a change is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A share of the baseline's value.
    Relative,
    /// The quantity's own unit.
    Own,
}

const CHANGES: &str =
    "a change such as +10%, or +5ms of a latency, or +0.5pp (percentage points) of a count's share";

impl FromStr for Demand {
    type Err = NotAThreshold;

    fn from_str(text: &str) -> Result<Self, NotAThreshold> {
        let parts = parse::split(text)?;
        let bound = parts.bound;
        if !bound.starts_with(['+', '-']) {
            return text.parse().map(Demand::Threshold);
        }
        let (quantity, bound, unit) =
            read_change(parts.subject, bound).ok_or_else(|| parse::wrong(text, bound, CHANGES))?;
        let relation = parts.relation;
        Ok(Demand::Change(ChangeThreshold { text: text.trim().to_owned(), quantity, relation, bound, unit }))
    }
}

fn read_change(subject: Subject, text: &str) -> Option<(Quantity, f64, Unit)> {
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let text = &text[1..];
    if let Some(points) = text.strip_suffix("pp") {
        let Subject::Counted(counted) = subject else { return None };
        return Some((Quantity::Share(counted), sign * parse::number(points.trim_end())? / 100.0, Unit::Own));
    }
    if let Some(percent) = text.strip_suffix('%') {
        let quantity = match subject {
            Subject::Latency(kind, figure) => Quantity::Latency(kind, figure),
            // Runs may differ in length, so that only the rates of their counts can be compared.
            Subject::Counted(counted) => Quantity::Rate(counted),
        };
        return Some((quantity, sign * parse::number(percent.trim_end())? / 100.0, Unit::Relative));
    }
    let Subject::Latency(kind, figure) = subject else { return None };
    let time = humantime::parse_duration(text).ok()?;
    Some((Quantity::Latency(kind, figure), sign * time.as_secs_f64() * 1e6, Unit::Own))
}

impl fmt::Display for Demand {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Demand::Threshold(threshold) => threshold.fmt(f),
            Demand::Change(change) => f.write_str(&change.text),
        }
    }
}

impl ChangeThreshold {
    /// Judges the change from `old` to `new`, each measured over its time. Where one of them measured nothing, or a
    /// relative change has no meaning, it is not held.
    pub fn judge(&self, new: (&Metrics, Duration), old: (&Metrics, Duration)) -> Judgement {
        let of = |(metrics, time): (&Metrics, Duration)| self.quantity.measure(metrics, time);
        let (new, old) = (of(new), of(old));
        let change = match (new, old, self.unit) {
            (Some(new), Some(old), Unit::Own) => Some(new - old),
            (Some(new), Some(old), Unit::Relative) => relative(new, old),
            _ => None,
        };
        let show = |value: Option<f64>| {
            value.map_or_else(|| String::from("nothing"), |value| self.quantity.show(value))
        };
        let sides = format!("{} after {}", show(new), show(old));
        Judgement {
            threshold: self.text.clone(),
            passed: change.is_some_and(|change| self.relation.holds(change, self.bound)),
            measured: change,
            shown: change.map_or(sides.clone(), |change| format!("{}: {sides}", self.show(change))),
        }
    }

    fn show(&self, change: f64) -> String {
        let sign = if change < 0.0 { "-" } else { "+" };
        match (self.unit, self.quantity) {
            (Unit::Relative, _) => format!("{sign}{} %", three_digits(change.abs() * 100.0)),
            (Unit::Own, Quantity::Share(_)) => format!("{sign}{} pp", three_digits(change.abs() * 100.0)),
            (Unit::Own, quantity) => format!("{sign}{}", quantity.show(change.abs())),
        }
    }
}

/// The change from `old` to `new` as a share of `old`; `None` from 0 to anything else.
pub fn relative(new: f64, old: f64) -> Option<f64> {
    if new == old { Some(0.0) } else { (old > 0.0).then(|| new / old - 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Note, Operation, Timing};

    fn metrics(ms: u64, accepted: u64) -> Metrics {
        let mut metrics = Metrics::default();
        let timing = Timing { wait: Duration::ZERO, service: Duration::from_millis(ms) };
        for _ in 0..accepted {
            metrics.record(&Note::Exchanged { operation: Operation::RegisterThing, timing, outcome: Ok(()) });
        }
        metrics
    }

    #[test]
    fn changes_are_judged_in_the_unit_that_is_asked() {
        let second = Duration::from_secs(1);
        let judge = |text: &str| match text.parse::<Demand>().unwrap() {
            Demand::Change(change) => change.judge((&metrics(11, 90), second), (&metrics(10, 100), second)),
            Demand::Threshold(_) => panic!("{text} is of a change"),
        };
        for (text, passed, shown) in [
            ("register_thing.p99<+15%", true, "+9.99 %: 11.01 ms after 10.01 ms"),
            ("register_thing.p99 < +5%", false, "+9.99 %: 11.01 ms after 10.01 ms"),
            ("register_thing.service.mean<=+2ms", true, "+1.000 ms: 11.00 ms after 10.00 ms"),
            ("register_thing.accepted>-5%", false, "-10.00 %: 90.0/s after 100/s"),
            ("register_thing.failed<+1pp", true, "+0 pp: 0 % after 0 %"),
            ("throttled<+10%", true, "+0 %: 0/s after 0/s"),
            ("publish.p50<+10%", false, "nothing after nothing"),
        ] {
            let judgement = judge(text);
            assert_eq!((judgement.passed, judgement.shown.as_str()), (passed, shown), "{text}");
        }
    }

    #[test]
    fn nothing_is_a_share_of_zero() {
        assert_eq!(
            [relative(11.0, 10.0), relative(5.0, 10.0)].map(|change| (change.unwrap() * 10.0).round()),
            [1.0, -5.0]
        );
        assert_eq!([relative(0.0, 0.0), relative(1.0, 0.0)], [Some(0.0), None]);
    }

    #[test]
    fn a_threshold_without_a_sign_is_of_the_run_itself() {
        assert!(matches!("missed=0".parse::<Demand>(), Ok(Demand::Threshold(_))));
        for (text, column) in
            [("register_thing.p99<+x", 20), ("rejected<+5ms", 10), ("register_thing.p99<+1pp", 20)]
        {
            let error = text.parse::<Demand>().unwrap_err();
            assert_eq!((error.column, error.wanted), (column, CHANGES), "{text}");
        }
        assert_eq!("nonsense<+1%".parse::<Demand>().unwrap_err().column, 1);
    }
}
