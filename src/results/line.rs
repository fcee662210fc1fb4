//! The lines of a results file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::{Footer, Header};
use crate::event::Operation;
use crate::failure::Failure;
use crate::metrics::{
    Arrivals, Counters, FailureCount, Interval, Latency, Metrics, OperationCounts, OperationMetrics,
    ReasonCount,
};

/// The name of the format, which every header begins with.
pub(super) const FORMAT: &str = "fleetmint results";

/// A line: an object with one field, whose name says what kind of line it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Header(Box<HeaderLine>),
    Interval(Box<IntervalLine>),
    Footer(Box<Footer>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeaderLine {
    pub(super) format: String,
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) header: Header,
}

/// One second; what is zero or empty is left out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IntervalLine {
    pub(super) second: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    connections: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    in_flight: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    arrivals: Arrivals,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lateness: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    operations: BTreeMap<String, OperationLine>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dial_phases: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailureLine>,
    #[serde(flatten, serialize_with = "counted")]
    counters: Counters,
}

#[derive(Debug, Serialize, Deserialize)]
struct OperationLine {
    #[serde(flatten)]
    counts: OperationCounts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailureLine {
    stage: String,
    cause: String,
    count: u64,
    /// An example, in the first line of a file that has this kind of failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    example: Option<Failure>,
    /// By reason; left out where all have that of the file's first example of the kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<ReasonCount>,
}

/// The reason of the first example of each kind of failure that a file has.
pub(super) type Shown = BTreeMap<Kind, String>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn counted<S: Serializer>(counters: &Counters, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counters.counted().map(|(counter, count)| (counter.name(), count)))
}

impl IntervalLine {
    /// The line of `interval`, with an example of each kind of failure that `shown` does not have yet.
    pub(super) fn new(interval: &Interval, shown: &mut Shown) -> Self {
        let metrics = &interval.metrics;
        let operations =
            Operation::ALL.into_iter().map(|operation| (operation, metrics.operation(operation)));
        let failures =
            metrics.failures.iter().map(|(kind, failures)| FailureLine::new(*kind, failures, shown));
        Self {
            second: interval.second,
            connections: interval.connections,
            in_flight: interval.in_flight,
            arrivals: metrics.arrivals,
            lateness: encoded(&metrics.lateness),
            operations: operations
                .filter(|(_, metrics)| metrics.counts != OperationCounts::default())
                .map(|(operation, metrics)| (operation.name().to_owned(), OperationLine::new(metrics)))
                .collect(),
            dial_phases: metrics
                .dial_phases
                .each()
                .into_iter()
                .filter_map(|(phase, latency)| Some((phase.to_owned(), encoded(latency)?)))
                .collect(),
            failures: failures.collect(),
            counters: metrics.counters,
        }
    }

    /// The interval of this line. `examples` has one of each kind of failure in earlier lines, and is given this one's.
    pub(super) fn into_interval(self, examples: &mut Vec<Failure>) -> Result<Interval, String> {
        let mut metrics = Metrics::default();
        metrics.arrivals = self.arrivals;
        metrics.lateness = decoded(self.lateness.as_deref()).map_err(|wrong| format!("lateness: {wrong}"))?;
        metrics.counters = self.counters;
        for (name, line) in self.operations {
            let operation = operation_of(&name)?;
            *metrics.operation_mut(operation) =
                line.into_metrics().map_err(|wrong| format!("operations.{name}.{wrong}"))?;
        }
        for (name, text) in self.dial_phases {
            let mut phases = metrics.dial_phases.each_mut().into_iter();
            let Some((_, latency)) = phases.find(|(phase, _)| *phase == name) else {
                return Err(format!("dial_phases: there is no phase {name:?}"));
            };
            *latency = decoded(Some(&text)).map_err(|wrong| format!("dial_phases.{name}: {wrong}"))?;
        }
        for line in self.failures {
            let (kind, failures) = line.into_failures(examples)?;
            metrics.failures.insert(kind, failures);
        }
        Ok(Interval {
            second: self.second,
            metrics,
            connections: self.connections,
            in_flight: self.in_flight,
        })
    }
}

impl OperationLine {
    fn new(metrics: &OperationMetrics) -> Self {
        Self {
            counts: metrics.counts,
            service: encoded(&metrics.service),
            response: encoded(&metrics.response),
        }
    }

    fn into_metrics(self) -> Result<OperationMetrics, String> {
        let OperationCounts { attempts, accepted, rejected, throttled, timed_out, dropped } = self.counts;
        let ends = [accepted, rejected, throttled, timed_out, dropped];
        let sum = ends.into_iter().try_fold(0_u64, |sum, end| sum.checked_add(end));
        if sum != Some(attempts) {
            return Err(format!("attempts: {attempts} attempts have another number of ends: {ends:?}"));
        }
        let service = decoded(self.service.as_deref()).map_err(|wrong| format!("service: {wrong}"))?;
        let response = decoded(self.response.as_deref()).map_err(|wrong| format!("response: {wrong}"))?;
        Ok(OperationMetrics { counts: self.counts, service, response })
    }
}

type Kind = (&'static str, &'static str);

impl FailureLine {
    fn new(kind: Kind, failures: &FailureCount, shown: &mut Shown) -> Self {
        let is_first = !shown.contains_key(&kind);
        let known = shown.entry(kind).or_insert_with(|| failures.example.reason());
        let is_known = match &failures.reasons[..] {
            [only] => failures.others() == 0 && only.example.reason() == *known,
            _ => false,
        };
        Self {
            stage: kind.0.to_owned(),
            cause: kind.1.to_owned(),
            count: failures.count,
            example: is_first.then(|| failures.example.clone()),
            reasons: if is_known { Vec::new() } else { failures.reasons.clone() },
        }
    }

    fn into_failures(self, examples: &mut Vec<Failure>) -> Result<(Kind, FailureCount), String> {
        let Self { stage, cause, count, example, reasons } = self;
        let kind_of = |failure: &Failure| (failure.stage.name(), failure.cause.name());
        let told = reasons.iter().try_fold(0_u64, |sum, reason| sum.checked_add(reason.count));
        if told.is_none_or(|told| told > count) {
            return Err(format!("failures: {cause:?} at {stage:?}: the reasons of {count} are of more"));
        }
        if reasons.iter().any(|reason| kind_of(&reason.example) != (stage.as_str(), cause.as_str())) {
            return Err(format!("failures: {cause:?} at {stage:?} has a reason of another kind"));
        }
        let example = match example {
            Some(example) if kind_of(&example) != (stage.as_str(), cause.as_str()) => {
                return Err(format!("failures: {cause:?} at {stage:?} has an example of another kind"));
            }
            Some(example) => {
                // There are few kinds of failure, so there are few examples.
                examples.push(example.clone());
                example
            }
            None => examples
                .iter()
                .find(|example| kind_of(example) == (stage.as_str(), cause.as_str()))
                .cloned()
                .ok_or_else(|| format!("failures: {cause:?} at {stage:?} has no example, here or before"))?,
        };
        let mut failures = FailureCount::none(&example);
        match &reasons[..] {
            [] => failures.add(count, &example),
            _ => reasons.iter().for_each(|reason| failures.add(reason.count, &reason.example)),
        }
        failures.count = count;
        Ok((kind_of(&example), failures))
    }
}

fn operation_of(name: &str) -> Result<Operation, String> {
    Operation::ALL.into_iter().find(|operation| operation.name() == name).ok_or_else(|| {
        let known = Operation::ALL.map(Operation::name).join(", ");
        format!("there is no operation {name:?}; there are {known}")
    })
}

fn encoded(latency: &Latency) -> Option<String> {
    (latency.count() > 0).then(|| latency.encode())
}

fn decoded(text: Option<&str>) -> Result<Latency, String> {
    text.map_or(Ok(Latency::default()), |text| Latency::decode(text).map_err(|error| error.to_string()))
}

/// The slowest attempts, as a footer has them.
pub(super) mod slowest {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::operation_of;
    use crate::metrics::{Slow, Slowest};

    #[derive(Serialize, Deserialize)]
    struct SlowLine {
        operation: String,
        device: String,
        second: u64,
        service_us: u64,
        response_us: u64,
    }

    pub(in crate::results) fn serialize<S: Serializer>(slowest: &Slowest, to: S) -> Result<S::Ok, S::Error> {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let lines = slowest.iter().map(|slow| SlowLine {
            operation: slow.operation.name().to_owned(),
            device: slow.device.clone(),
            second: slow.second,
            service_us: us(slow.service),
            response_us: us(slow.response),
        });
        lines.collect::<Vec<_>>().serialize(to)
    }

    pub(in crate::results) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Slowest, D::Error> {
        let mut slowest = Slowest::default();
        for line in Vec::<SlowLine>::deserialize(from)? {
            slowest.offer(Slow {
                operation: operation_of(&line.operation).map_err(D::Error::custom)?,
                device: line.device,
                second: line.second,
                service: Duration::from_micros(line.service_us),
                response: Duration::from_micros(line.response_us),
            });
        }
        Ok(slowest)
    }
}
