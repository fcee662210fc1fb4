//! Thresholds as people write them: a quantity, a relation, a bound.

use std::str::FromStr;

use super::{ArrivalEnd, Counted, End, Figure, Kind, Quantity, Relation, Threshold};
use crate::event::Operation;

/// Text that is not a threshold: where, what was found there, and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: found {found:?}; wanted {wanted}")]
pub struct NotAThreshold {
    /// The column of the text, in characters from 1.
    pub column: usize,
    /// The text there; empty at the end.
    pub found: String,
    /// What should be there.
    pub wanted: &'static str,
}

const SUBJECTS: &str = "an operation (connect, create_certificate, register_thing, publish, provision) with .p99, \
    .service.p99, .max or a count; lateness.p99; or a count such as rejected or missed";
const FIGURES: &str = "p50, p99, p99.9 or another percentile below 100, mean, or max";
const COUNTS: &str = "a latency such as p99, service.p99 or response.max, or a count: attempts, accepted, rejected, \
    throttled, timed_out, dropped, failed";
const RELATIONS: &str = "<, <=, >, >=, = or !=, as in register_thing.p99<500ms";
const TIMES: &str = "a time such as 500ms or 2s";
const AMOUNTS: &str = "a number such as 0, a share such as 0.1%, or a rate such as 10/s";

impl FromStr for Threshold {
    type Err = NotAThreshold;

    fn from_str(text: &str) -> Result<Self, NotAThreshold> {
        let Parts { subject, relation, bound } = split(text)?;
        let wanted = if matches!(subject, Subject::Latency(..)) { TIMES } else { AMOUNTS };
        let (quantity, bound) = read_bound(subject, bound).ok_or_else(|| wrong(text, bound, wanted))?;
        Ok(Self { text: text.trim().to_owned(), quantity, relation, bound })
    }
}

/// The parts of a threshold, its bound still as text.
pub(super) struct Parts<'a> {
    pub(super) subject: Subject,
    pub(super) relation: Relation,
    pub(super) bound: &'a str,
}

pub(super) fn split(text: &str) -> Result<Parts<'_>, NotAThreshold> {
    let relation_at = text.find(['<', '>', '=', '!']).unwrap_or(text.len());
    let (subject, rest) = text.split_at(relation_at);
    let subject = read_subject(subject.trim()).map_err(|(part, wanted)| wrong(text, part, wanted))?;
    let (relation, bound) = read_relation(rest).ok_or_else(|| wrong(text, rest, RELATIONS))?;
    Ok(Parts { subject, relation, bound: bound.trim() })
}

/// The error for a `part` of `text`.
pub(super) fn wrong(text: &str, part: &str, wanted: &'static str) -> NotAThreshold {
    let at = part.as_ptr() as usize - text.as_ptr() as usize;
    NotAThreshold { column: text[..at].chars().count() + 1, found: part.chars().take(40).collect(), wanted }
}

#[derive(Clone, Copy)]
pub(super) enum Subject {
    Latency(Kind, Figure),
    Counted(Counted),
}

/// The subject, or what is wrong with it and what was wanted.
fn read_subject(text: &str) -> Result<Subject, (&str, &'static str)> {
    let (first, rest) = text.split_once('.').unwrap_or((text, &text[text.len()..]));
    if let Some(operation) = Operation::ALL.into_iter().find(|operation| operation.name() == first) {
        return read_of_operation(operation, rest);
    }
    if first == "lateness" {
        return figure(rest).map(|figure| Subject::Latency(Kind::Lateness, figure)).ok_or((rest, FIGURES));
    }
    let counted = match text {
        "scheduled" => Counted::Arrivals(ArrivalEnd::Scheduled),
        "started" => Counted::Arrivals(ArrivalEnd::Started),
        "missed" => Counted::Arrivals(ArrivalEnd::Missed),
        "connections_lost" => Counted::ConnectionsLost,
        _ => Counted::Ends(end(text).ok_or((text, SUBJECTS))?, None),
    };
    Ok(Subject::Counted(counted))
}

fn read_of_operation(operation: Operation, text: &str) -> Result<Subject, (&str, &'static str)> {
    if let Some(end) = end(text) {
        return Ok(Subject::Counted(Counted::Ends(end, Some(operation))));
    }
    // Unless it says which latency, it is the response time: what a client of the service would see.
    if let Some(figure) = figure(text) {
        return Ok(Subject::Latency(Kind::Response(operation), figure));
    }
    let (kind, rest) = text.split_once('.').ok_or((text, COUNTS))?;
    let phase = ["tcp", "tls", "upgrade", "connack", "suback"].iter().position(|phase| *phase == kind);
    let kind = match (kind, phase) {
        ("service", _) => Kind::Service(operation),
        ("response", _) => Kind::Response(operation),
        (_, Some(place)) if operation == Operation::Connect => Kind::Phase(place),
        _ => return Err((text, COUNTS)),
    };
    figure(rest).map(|figure| Subject::Latency(kind, figure)).ok_or((rest, FIGURES))
}

fn figure(text: &str) -> Option<Figure> {
    match text {
        "mean" => Some(Figure::Mean),
        "max" => Some(Figure::Max),
        _ => {
            let percentile = number(text.strip_prefix('p')?)?;
            (percentile > 0.0 && percentile < 100.0).then_some(Figure::Quantile(percentile / 100.0))
        }
    }
}

fn end(text: &str) -> Option<End> {
    Some(match text {
        "attempts" => End::Attempts,
        "accepted" => End::Accepted,
        "rejected" => End::Rejected,
        "throttled" => End::Throttled,
        "timed_out" => End::TimedOut,
        "dropped" => End::Dropped,
        "failed" => End::Failed,
        _ => return None,
    })
}

/// The relation, and the rest of the text.
fn read_relation(text: &str) -> Option<(Relation, &str)> {
    let relations = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("==", Relation::Equal),
        ("!=", Relation::Unequal),
        ("<", Relation::Less),
        (">", Relation::More),
        ("=", Relation::Equal),
    ];
    relations.into_iter().find_map(|(sign, relation)| Some((relation, text.strip_prefix(sign)?)))
}

/// What is measured, and the bound in its unit.
fn read_bound(subject: Subject, text: &str) -> Option<(Quantity, f64)> {
    let counted = match subject {
        Subject::Latency(kind, figure) => {
            let time = humantime::parse_duration(text).ok()?;
            return Some((Quantity::Latency(kind, figure), time.as_secs_f64() * 1e6));
        }
        Subject::Counted(counted) => counted,
    };
    if let Some(percent) = text.strip_suffix('%') {
        let percent = number(percent.trim_end())?;
        return (percent <= 100.0).then_some((Quantity::Share(counted), percent / 100.0));
    }
    if let Some(rate) = text.strip_suffix("/s") {
        return Some((Quantity::Rate(counted), number(rate)?));
    }
    Some((Quantity::Count(counted), number(text)?))
}

/// A number of at least 0, in plain digits.
pub(super) fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}
