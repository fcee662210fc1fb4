//! Latency by percentile, and what its plot has in common with others.

use super::super::model::{CurvePoint, OperationReport};
use super::super::wording::count;
use super::axis::Scale;
use super::chart::{Chart, Mark, Notes, Path, XTick, line};
use super::{latency, title};
use crate::event::Operation;
use crate::metrics::threshold::{Judgement, Threshold};

/// Latency by percentile, service and response time: the axis gives each additional nine the same width.
pub(super) fn percentiles(operation: &OperationReport, thresholds: &[Judgement], is_tall: bool) -> Chart {
    let (service, response) = (&operation.curve.service, &operation.curve.response);
    let samples = operation.summary.counts.accepted.max(10) as f64;
    let place = |quantile: f64| (1.0 / (1.0 - quantile).max(1.0 / samples)).ln() / samples.ln();
    let values: Vec<u64> = service.iter().chain(response).map(|point| point.us).collect();
    let scale = Scale::latencies(with_demands(&operation.operation, thresholds, &values));
    let drawn = |curve: &[CurvePoint]| {
        line(curve.iter().map(|point| Some((place(point.quantile), scale.place(point.us as f64)))))
    };
    let name = title(&operation.operation);
    let (p50, p99) = (operation.summary.response_us.p50, operation.summary.response_us.p99);
    Chart {
        id: format!("percentiles-{}", operation.operation),
        title: name.clone(),
        unit: String::from("latency"),
        summary: format!(
            "Latency of {name} by percentile. Response time: half within {}, 99 % within {}, the longest {}.",
            latency(p50),
            latency(p99),
            latency(operation.summary.response_us.max)
        ),
        legend: vec![("response", String::from("response time")), ("service", String::from("service time"))],
        scale,
        tick: latency_tick,
        x_ticks: percentile_ticks(samples, place, if is_tall { 0.07 } else { 0.15 }),
        paths: vec![
            Path { class: "response", d: drawn(response) },
            Path { class: "service", d: drawn(service) },
        ],
        notes: Notes {
            levels: demanded(&operation.operation, scale, thresholds, either),
            ..Notes::default()
        },
        marks: percentile_marks(service, response, place),
        is_tall,
    }
}

/// A demand of more than this many times the longest latency is not drawn: the lines would lie at the bottom.
const FAR: f64 = 10.0;

/// A latency that a threshold demands of an operation, in microseconds.
pub(super) type Demanded = fn(&Threshold, Operation) -> Option<f64>;

/// The latency that a threshold demands, in a plot that has both.
pub(super) fn either(threshold: &Threshold, operation: Operation) -> Option<f64> {
    threshold.response_us(operation).or_else(|| threshold.service_us(operation))
}

/// The latencies that thresholds demand of an operation, in microseconds.
fn demands(operation: &str, thresholds: &[Judgement], of: Demanded) -> Vec<(f64, String)> {
    let operation = Operation::ALL.into_iter().find(|one| one.name() == operation);
    let demand = |judgement: &Judgement| {
        let us = of(&judgement.threshold.parse().ok()?, operation?)?;
        Some((us, judgement.threshold.clone()))
    };
    thresholds.iter().filter_map(demand).collect()
}

/// The values of a plot, and the demands that are to be in it as well.
pub(super) fn with_demands(
    operation: &str,
    thresholds: &[Judgement],
    values: &[u64],
) -> impl Iterator<Item = u64> {
    let longest = values.iter().copied().max().unwrap_or(0) as f64;
    let demands = demands(operation, thresholds, either).into_iter().map(|(us, _)| us);
    let near: Vec<u64> = demands.filter(|us| *us <= longest * FAR).map(|us| us as u64).collect();
    values.iter().copied().chain(near)
}

/// The lines of the thresholds on an operation's latency that are within the plot.
pub(super) fn demanded(
    operation: &str,
    scale: Scale,
    thresholds: &[Judgement],
    of: Demanded,
) -> Vec<(&'static str, f64, String)> {
    let demands = demands(operation, thresholds, of).into_iter().filter(|(us, _)| *us <= scale.max());
    demands.map(|(us, text)| ("demand", us, text)).collect()
}

/// Ticks at least `room` apart from each other and from the longest one at the right end.
fn percentile_ticks(samples: f64, place: impl Fn(f64) -> f64, room: f64) -> Vec<XTick> {
    let all = [
        (0.0, "0 %", false),
        (0.5, "50 %", true),
        (0.9, "90 %", false),
        (0.99, "99 %", false),
        (0.999, "99.9 %", false),
        (0.9999, "99.99 %", true),
        (0.99999, "99.999 %", true),
        (0.999_999, "99.9999 %", true),
    ];
    let mut ticks: Vec<XTick> = Vec::new();
    for (quantile, label, is_minor) in all {
        let at = place(quantile);
        let is_apart = ticks.last().is_none_or(|last| at - last.at >= room);
        if 1.0 - quantile >= 1.0 / samples && is_apart && at <= 1.0 - room {
            ticks.push(XTick { at, label: label.to_owned(), is_minor });
        }
    }
    ticks.push(XTick { at: 1.0, label: String::from("max"), is_minor: false });
    ticks
}

/// The values under the pointer. Both curves have the same quantiles, since both are of the accepted attempts.
fn percentile_marks(
    service: &[CurvePoint],
    response: &[CurvePoint],
    place: impl Fn(f64) -> f64,
) -> Vec<Mark> {
    let places: Vec<f64> = response.iter().map(|point| place(point.quantile)).collect();
    let words = |at: usize, point: &CurvePoint| {
        let share = match point.quantile {
            1.0 => String::from("the longest"),
            quantile => format!("{} %", significant(quantile)),
        };
        let service = service.get(at).filter(|service| service.quantile == point.quantile);
        let service = service.map_or(String::new(), |service| format!(", service {}", latency(service.us)));
        format!("{share}: response {}{service}", latency(point.us))
    };
    let strip = |(at, point): (usize, &CurvePoint)| {
        let middle = |one: usize, other: usize| match (places.get(one), places.get(other)) {
            (Some(one), Some(other)) => (one + other) / 2.0,
            (Some(one), None) => *one,
            _ => 0.0,
        };
        let from = if at == 0 { 0.0 } else { middle(at, at - 1) };
        Mark { from, to: middle(at, at + 1).max(from), words: words(at, point) }
    };
    response.iter().enumerate().map(strip).collect()
}

/// A quantile as a percentage, with one more digit than it has nines.
fn significant(quantile: f64) -> String {
    let nines = (-(1.0 - quantile).log10()).floor().clamp(0.0, 9.0) as usize;
    let text = format!("{:.*}", nines.max(1), quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A round latency: `500 µs`, `2 ms`, `1.5 s`.
pub(super) fn latency_tick(us: f64) -> String {
    match us {
        ..=0.0 => String::from("0"),
        ..1e3 => format!("{} µs", trimmed(us)),
        ..1e6 => format!("{} ms", trimmed(us / 1e3)),
        _ => format!("{} s", trimmed(us / 1e6)),
    }
}

pub(super) fn count_tick(value: f64) -> String {
    if value >= 1000.0 { count(value.round() as u64) } else { trimmed(value) }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_as_many_digits_as_nines() {
        let shown = [0.0, 0.5, 0.9, 0.978, 0.999, 0.999_99].map(significant);
        assert_eq!(shown, ["0", "50", "90", "97.8", "99.9", "99.999"]);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [0.0, 500.0, 2_000.0, 2_500.0, 1_500_000.0].map(latency_tick),
            ["0", "500 µs", "2 ms", "2.5 ms", "1.5 s"]
        );
    }
}
