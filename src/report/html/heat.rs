//! The latency heat map: how many accepted attempts took how long, over time, with the percentiles over it.

use super::super::HeatMap;
use super::super::model::{Point, PointOperation, Report};
use super::super::wording::count;
use super::axis::Scale;
use super::chart::{Chart, Mark, Notes, Path, boxes, line};
use super::plots::{self, latency_tick};
use super::timeline::{notes, span, subject, time_axis, when};
use super::{latency, title};
use crate::metrics::threshold::Threshold;

/// The classes of the shades, from few to many.
const SHADES: [&str; 6] =
    ["area heat1", "area heat2", "area heat3", "area heat4", "area heat5", "area heat6"];

/// The heat map; `None` if there is nothing to show.
pub(super) fn map(report: &Report) -> Option<Chart> {
    let map = report.timeline.heat.as_ref()?;
    let (min, max) = (*map.edges_us.first()?, *map.edges_us.last()?);
    let scale = Scale::Log { min, max };
    let name = report.headline.operation.as_deref().unwrap_or("attempts");
    let drawn = |of: fn(&PointOperation) -> u64| {
        line(report.timeline.points.iter().map(|point| {
            let operation = subject(report, point);
            let (from, to) = span(report, point);
            (operation.accepted > 0).then(|| ((from + to) / 2.0, scale.place(of(&operation) as f64)))
        }))
    };
    let shade = |n: usize| Path { class: SHADES[n], d: cells(report, map, scale, n) };
    let lines = [
        Path { class: "over", d: drawn(|operation| operation.response_us.p99) },
        Path { class: "over half", d: drawn(|operation| operation.response_us.p50) },
    ];
    Some(Chart {
        id: String::from("heat"),
        title: format!("{}: response times", title(name)),
        unit: String::from("response time"),
        summary: format!(
            "Response times over time: the darker a field, the more attempts took so long; the darkest stands for {}. Over it \
             the median and the 99th percentile.",
            count(map.most())
        ),
        legend: vec![
            ("over", String::from("p99")),
            ("over half", String::from("p50")),
            ("area heat2", String::from("few attempts")),
            ("area heat6", format!("many, up to {}", count(map.most()))),
        ],
        scale,
        tick: latency_tick,
        x_ticks: time_axis(report),
        paths: (0..SHADES.len()).map(shade).chain(lines).collect(),
        // Its fields are response times: a threshold on the service time would be read as one on them.
        notes: Notes {
            levels: plots::demanded(name, scale, &report.thresholds, Threshold::response_us),
            ..notes(report)
        },
        marks: columns(report, map).map(|points| mark(report, points)).collect(),
        is_tall: true,
    })
}

/// The points of each column.
fn columns<'a>(report: &'a Report, map: &HeatMap) -> impl Iterator<Item = &'a [Point]> {
    report.timeline.points.chunks(map.points.max(1))
}

/// The fields of one shade. Shades go by the logarithm: a few slow attempts must be seen beside thousands of fast ones.
fn cells(report: &Report, map: &HeatMap, scale: Scale, shade: usize) -> String {
    let steps = (map.most().max(2) as f64).ln();
    let shade_of = |count: u64| {
        let place = (count as f64).ln() / steps * (SHADES.len() - 1) as f64;
        (count > 0).then_some(place.round() as usize)
    };
    let fields = columns(report, map).zip(&map.columns).flat_map(|(points, counts)| {
        let from = points.first().map_or(0.0, |point| span(report, point).0);
        let to = points.last().map_or(0.0, |point| span(report, point).1);
        let ranges = counts.iter().zip(map.edges_us.windows(2));
        let shaded = ranges.filter(move |(count, _)| shade_of(**count) == Some(shade));
        shaded.map(move |(_, edges)| (from, to, scale.place(edges[0]), scale.place(edges[1])))
    });
    boxes(fields)
}

fn mark(report: &Report, points: &[Point]) -> Mark {
    let from = points.first().map_or(0.0, |point| span(report, point).0);
    let to = points.last().map_or(0.0, |point| span(report, point).1);
    let accepted = points.iter().map(|point| subject(report, point).accepted).sum();
    let most = |of: fn(&PointOperation) -> u64| points.iter().map(|point| of(&subject(report, point))).max();
    let slowest = match (most(|one| one.response_us.p99), most(|one| one.response_us.max)) {
        (Some(p99), Some(max)) if accepted > 0 => format!("; p99 {}, longest {}", latency(p99), latency(max)),
        _ => String::new(),
    };
    let when = match points {
        [only] => when(report, only),
        [first, .., last] => {
            let begin = super::super::wording::clock(first.second);
            format!("{begin} to {}", super::super::wording::clock(last.second + report.timeline.point_s))
        }
        [] => String::new(),
    };
    Mark { from, to, words: format!("{when}: {} accepted{slowest}", count(accepted)) }
}
