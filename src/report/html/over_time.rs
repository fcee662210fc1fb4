//! The charts over time.

use super::super::model::{Point, PointOperation, Report};
use super::super::wording::{count, rate};
use super::axis::Scale;
use super::chart::{Chart, Notes, Path, boxes, line, steps};
use super::plots::{self, count_tick, latency_tick};
use super::timeline::{is_whole, marks, notes, span, subject, time_axis, when};
use super::{latency, title};
use crate::event::Operation;
use crate::metrics::threshold::Threshold;

/// Accepted per second compared with what was offered.
pub(super) fn throughput(report: &Report) -> Chart {
    let points = &report.timeline.points;
    let missed = |point: &Point| point.missed as f64 / point.seconds;
    let (has_schedule, has_missed) = (
        report.arrivals.is_some(),
        report.arrivals.as_ref().is_some_and(|arrivals| arrivals.counts.missed > 0),
    );
    let limits = points.iter().filter_map(|point| point.limit_per_s);
    let levels = levels(report);
    let most = points
        .iter()
        .filter(|point| is_whole(report, point))
        .map(|point| accepted_per_s(report, point).max(offered_per_s(point)));
    let top = most.clone().fold(0.0, f64::max);
    // A limit far above the actual rate would push the lines to the bottom.
    let has_limit = limits.clone().any(|limit| limit <= top * 3.0);
    let near = levels.iter().map(|(_, per_s, _)| *per_s).filter(|per_s| *per_s <= top * 3.0);
    let scale = Scale::counts(most.chain(limits.filter(|_| has_limit)).chain(near));
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
    Chart {
        id: String::from("throughput"),
        title: format!("{} per second", title(report.headline.operation.as_deref().unwrap_or("attempts"))),
        unit: String::from("per second"),
        summary: throughput_summary(report),
        legend,
        scale,
        tick: count_tick,
        x_ticks: time_axis(report),
        paths,
        notes: Notes {
            levels: levels.into_iter().filter(|(_, per_s, _)| *per_s <= scale.max()).collect(),
            ..notes(report)
        },
        marks: marks(report, |point| throughput_words(report, point)),
        is_tall: false,
    }
}

fn throughput_summary(report: &Report) -> String {
    let offered =
        report.headline.offered_per_s.map_or(String::new(), |offered| format!(", {} offered", rate(offered)));
    format!("Accepted per second over time; {} on average{offered}.", rate(report.headline.accepted_per_s))
}

/// The service's limit that the runs found, and what thresholds demand, per second.
fn levels(report: &Report) -> Vec<(&'static str, f64, String)> {
    let name = report.headline.operation.as_deref().unwrap_or_default();
    let found = report.most_under_way(|run| run.found_per_s.get(name).copied());
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
    let demanded = report.thresholds.iter().filter_map(|judgement| {
        let per_s = judgement.threshold.parse::<Threshold>().ok()?.accepted_per_s(operation?)?;
        Some(("demand", per_s, judgement.threshold.clone()))
    });
    found
        .map(|per_s| ("found", per_s, format!("found: {}", rate(per_s))))
        .into_iter()
        .chain(demanded)
        .collect()
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
    let name = report.headline.operation.as_deref().unwrap_or_default();
    let values: Vec<u64> = values.collect();
    let scale = Scale::latencies(plots::with_demands(name, &report.thresholds, &values));
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
        notes: Notes {
            levels: plots::demanded(name, scale, &report.thresholds, plots::either),
            ..notes(report)
        },
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
        notes: notes(report),
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
        notes: notes(report),
        marks: marks(report, words),
        is_tall: false,
    })
}
