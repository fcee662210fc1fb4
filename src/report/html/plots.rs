//! The charts of a report.

use super::super::model::{CurvePoint, OperationReport, Point, PointOperation, Report};
use super::super::wording::{clock, count, rate};
use super::axis::{Scale, time_ticks};
use super::chart::{Chart, Mark, Path, XTick, boxes, line, steps};
use super::{latency, title};

/// Latency by percentile, service and response time: the axis gives each additional nine the same width.
pub(super) fn percentiles(operation: &OperationReport, is_tall: bool) -> Chart {
    let (service, response) = (&operation.curve.service, &operation.curve.response);
    let samples = operation.summary.counts.accepted.max(10) as f64;
    let place = |quantile: f64| (1.0 / (1.0 - quantile).max(1.0 / samples)).ln() / samples.ln();
    let scale = Scale::latencies(service.iter().chain(response).map(|point| point.us));
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
        marks: percentile_marks(service, response, place),
        is_tall,
    }
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

/// Accepted per second compared with what was offered.
pub(super) fn throughput(report: &Report) -> Chart {
    let points = &report.timeline.points;
    let missed = |point: &Point| point.missed as f64 / point.seconds;
    let (has_schedule, has_missed) = (
        report.arrivals.is_some(),
        report.arrivals.as_ref().is_some_and(|arrivals| arrivals.counts.missed > 0),
    );
    let limits = points.iter().filter_map(|point| point.limit_per_s);
    let most = points
        .iter()
        .filter(|point| is_whole(report, point))
        .map(|point| accepted_per_s(report, point).max(offered_per_s(point)));
    let top = most.clone().fold(0.0, f64::max);
    // A limit far above the actual rate would push the lines to the bottom.
    let has_limit = limits.clone().any(|limit| limit <= top * 3.0);
    let scale = Scale::counts(most.chain(limits.filter(|_| has_limit)));
    let level = |of: &dyn Fn(&Point) -> Option<f64>| {
        steps(points.iter().map(|point| {
            let (from, to) = span(report, point);
            of(point).filter(|_| is_whole(report, point)).map(|value| (from, to, scale.place(value)))
        }))
    };
    let mut legend = vec![("response", String::from("accepted"))];
    let mut paths = Vec::new();
    if has_schedule {
        legend.push(("offered", String::from("offered")));
        paths.push(Path { class: "offered", d: level(&|point| Some(offered_per_s(point))) });
    }
    if has_limit {
        legend.push(("limit", String::from("rate limit")));
        paths.push(Path { class: "limit", d: level(&|point| point.limit_per_s) });
    }
    if has_missed {
        legend.push(("area missed", String::from("missed")));
        let bar = |point: &Point| {
            let (from, to) = span(report, point);
            (from, to, 0.0, scale.place(missed(point)))
        };
        let d = boxes(points.iter().filter(|point| is_whole(report, point)).map(bar));
        paths.push(Path { class: "area missed", d });
    }
    paths.push(Path { class: "response", d: level(&|point| Some(accepted_per_s(report, point))) });
    let offered =
        report.headline.offered_per_s.map_or(String::new(), |offered| format!(", {} offered", rate(offered)));
    Chart {
        id: String::from("throughput"),
        title: format!("{} per second", title(report.headline.operation.as_deref().unwrap_or("attempts"))),
        unit: String::from("per second"),
        summary: format!(
            "Accepted per second over time; {} on average{offered}.",
            rate(report.headline.accepted_per_s)
        ),
        legend,
        scale,
        tick: count_tick,
        x_ticks: time_axis(report),
        paths,
        marks: marks(report, |point| throughput_words(report, point)),
        is_tall: false,
    }
}

fn throughput_words(report: &Report, point: &Point) -> String {
    // A count over part of a second is not a rate.
    let told = |number: u64, per_s: f64| if is_whole(report, point) { rate(per_s) } else { count(number) };
    let accepted = told(subject(report, point).accepted, accepted_per_s(report, point));
    let mut words = format!("{}: accepted {accepted}", when(report, point));
    if report.arrivals.is_some() {
        words += &format!(", offered {}", told(point.scheduled, offered_per_s(point)));
    }
    if let Some(limit) = point.limit_per_s {
        words += &format!(", limit {}", rate(limit));
    }
    if point.missed > 0 {
        words += &format!(", {} missed", count(point.missed));
    }
    words
}

fn accepted_per_s(report: &Report, point: &Point) -> f64 {
    subject(report, point).accepted as f64 / point.seconds
}

fn offered_per_s(point: &Point) -> f64 {
    point.scheduled as f64 / point.seconds
}

/// Latency over time.
pub(super) fn latencies(report: &Report) -> Chart {
    let points = &report.timeline.points;
    let values = points.iter().flat_map(|point| {
        let PointOperation { response_us, service_us, .. } = subject(report, point);
        [response_us.p50, response_us.p99, response_us.max, service_us.p99]
    });
    let scale = Scale::latencies(values);
    let drawn = |of: fn(&PointOperation) -> u64| {
        line(points.iter().map(|point| {
            let operation = subject(report, point);
            let (from, to) = span(report, point);
            (operation.accepted > 0).then(|| ((from + to) / 2.0, scale.place(of(&operation) as f64)))
        }))
    };
    let words = |point: &Point| {
        let PointOperation { accepted, response_us, service_us, .. } = subject(report, point);
        if accepted == 0 {
            return format!("{}: none accepted", when(report, point));
        }
        format!(
            "{}: response p50 {}, p99 {}, longest {}; service p99 {}",
            when(report, point),
            latency(response_us.p50),
            latency(response_us.p99),
            latency(response_us.max),
            latency(service_us.p99)
        )
    };
    Chart {
        id: String::from("latencies"),
        title: format!("{} latency", title(report.headline.operation.as_deref().unwrap_or("attempts"))),
        unit: String::from("latency"),
        summary: String::from(
            "Response time over time: median, 99th percentile and longest, and the service time's 99th percentile.",
        ),
        legend: vec![
            ("max", String::from("response, longest")),
            ("response", String::from("response p99")),
            ("median", String::from("response p50")),
            ("service", String::from("service p99")),
        ],
        scale,
        tick: latency_tick,
        x_ticks: time_axis(report),
        paths: vec![
            Path { class: "max", d: drawn(|operation| operation.response_us.max) },
            Path { class: "median", d: drawn(|operation| operation.response_us.p50) },
            Path { class: "service", d: drawn(|operation| operation.service_us.p99) },
            Path { class: "response", d: drawn(|operation| operation.response_us.p99) },
        ],
        marks: marks(report, words),
        is_tall: false,
    }
}

/// The classes of the causes' colours; the rest of the causes share the last one.
const CAUSES: [&str; 6] = ["area c0", "area c1", "area c2", "area c3", "area c4", "area c5"];

/// Stages and causes, each once, in the order of their first reason.
fn failure_kinds(report: &Report) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for kind in report.failures.iter().map(|failure| format!("{}.{}", failure.stage, failure.cause)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Failures per second by cause, stacked; `None` if there were none.
pub(super) fn failures(report: &Report) -> Option<Chart> {
    if report.failures.is_empty() {
        return None;
    }
    let kinds = failure_kinds(report);
    let own = if kinds.len() > CAUSES.len() { CAUSES.len() - 1 } else { kinds.len() };
    let group = |kind: &str| {
        kinds.iter().position(|other| other == kind).unwrap_or(own).min(CAUSES.len() - 1).min(own)
    };
    let per_s = |point: &Point| {
        let mut sums = vec![0.0; own + 1];
        for (kind, count) in &point.failures {
            sums[group(kind)] += *count as f64 / point.seconds.max(f64::MIN_POSITIVE);
        }
        sums
    };
    let whole = report.timeline.points.iter().filter(|point| is_whole(report, point));
    let scale = Scale::counts(whole.clone().map(|point| per_s(point).iter().sum()));
    let area = |layer: usize| {
        boxes(whole.clone().map(|point| {
            let sums = per_s(point);
            let below: f64 = sums[..layer].iter().sum();
            let (from, to) = span(report, point);
            (from, to, scale.place(below), scale.place(below + sums[layer]))
        }))
    };
    let label = |layer: usize| match kinds.get(layer) {
        Some(kind) if layer < own => kind.replace('.', ": ").replace('_', " "),
        _ => format!("{} other kinds", kinds.len() - own),
    };
    let layers = 0..if kinds.len() > own { own + 1 } else { own };
    let words = |point: &Point| {
        let told = point
            .failures
            .iter()
            .map(|(kind, n)| format!("{} × {}", count(*n), kind.replace('.', ": ").replace('_', " ")));
        let told: Vec<String> = told.collect();
        let what = if told.is_empty() { String::from("no failure") } else { told.join(", ") };
        format!("{}: {what}", when(report, point))
    };
    let all = report.failures.iter().fold(0_u64, |sum, failure| sum.saturating_add(failure.count));
    Some(Chart {
        id: String::from("failures"),
        title: String::from("Rejects, throttles and other failures"),
        unit: String::from("per second"),
        summary: format!(
            "Failures per second over time by cause; {} in all, most of them {}.",
            count(all),
            label(0)
        ),
        legend: layers.clone().map(|layer| (CAUSES[layer], label(layer))).collect(),
        scale,
        tick: count_tick,
        x_ticks: time_axis(report),
        paths: layers.map(|layer| Path { class: CAUSES[layer], d: area(layer) }).collect(),
        marks: marks(report, words),
        is_tall: false,
    })
}

/// Open connections, and attempts under way.
pub(super) fn connections(report: &Report) -> Option<Chart> {
    let points = &report.timeline.points;
    let most =
        points.iter().map(|point| point.connections.max(point.in_flight)).max().filter(|most| *most > 0)?;
    let scale = Scale::counts([f64::from(most)].into_iter());
    let level = |of: fn(&Point) -> u32| {
        steps(points.iter().map(|point| {
            let (from, to) = span(report, point);
            Some((from, to, scale.place(f64::from(of(point)))))
        }))
    };
    let words = |point: &Point| {
        let (open, busy) = (count(point.connections.into()), count(point.in_flight.into()));
        format!("{}: {open} connections, {busy} attempts under way", when(report, point))
    };
    Some(Chart {
        id: String::from("connections"),
        title: String::from("Connections"),
        unit: String::from("at once"),
        summary: format!("Open connections and attempts under way over time; {most} at most."),
        legend: vec![
            ("connections", String::from("open")),
            ("in-flight", String::from("attempts under way")),
        ],
        scale,
        tick: count_tick,
        x_ticks: time_axis(report),
        paths: vec![
            Path { class: "connections", d: level(|point| point.connections) },
            Path { class: "in-flight", d: level(|point| point.in_flight) },
        ],
        marks: marks(report, words),
        is_tall: false,
    })
}

/// The headline's operation in a point.
pub(super) fn subject(report: &Report, point: &Point) -> PointOperation {
    let name = report.headline.operation.as_deref().unwrap_or_default();
    point.operations.get(name).copied().unwrap_or_default()
}

/// Whether a point is long enough for a rate: the last one may be so short that one event in it looks like a thousand
/// per second.
pub(super) fn is_whole(report: &Report, point: &Point) -> bool {
    point.seconds >= report.timeline.point_s as f64 || report.timeline.points.len() == 1
}

/// The seconds that a point covers: `1:05`, `1:00 to 1:10`.
pub(super) fn when(report: &Report, point: &Point) -> String {
    match report.timeline.point_s {
        1 => clock(point.second),
        length => format!("{} to {}", clock(point.second), clock(point.second + length)),
    }
}

fn span(report: &Report, point: &Point) -> (f64, f64) {
    let from = point.second as f64 / total(report);
    (from.min(1.0), ((point.second as f64 + point.seconds) / total(report)).min(1.0))
}

fn total(report: &Report) -> f64 {
    report.elapsed_s.max(f64::MIN_POSITIVE)
}

fn marks(report: &Report, words: impl Fn(&Point) -> String) -> Vec<Mark> {
    let mark = |point: &Point| {
        let (from, to) = span(report, point);
        Mark { from, to, words: words(point) }
    };
    report.timeline.points.iter().map(mark).collect()
}

fn time_axis(report: &Report) -> Vec<XTick> {
    let ticks = time_ticks(total(report)).into_iter().filter(|tick| *tick as f64 <= total(report));
    let tick = |(n, tick): (usize, u64)| XTick {
        at: tick as f64 / total(report),
        label: clock(tick),
        is_minor: n % 2 == 1,
    };
    ticks.enumerate().map(tick).collect()
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

fn count_tick(value: f64) -> String {
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
