//! The timeline of a report as the lower axis of plots.

use super::super::model::{Point, PointOperation, Report};
use super::super::wording::{clock, length, rate};
use super::axis::time_ticks;
use super::chart::{Mark, Notes, XTick};
use crate::schedule::Stage;

/// The headline's operation in a point.
pub(super) fn subject(report: &Report, point: &Point) -> PointOperation {
    let name = report.headline.operation.as_deref().unwrap_or_default();
    point.operations.get(name).copied().unwrap_or_default()
}

/// Whether a point is long enough for a rate: the last one may be so short that one event in it looks like a thousand
/// per second.
pub(super) fn is_whole(report: &Report, point: &Point) -> bool {
    let is_alone = report.timeline.points.len() == 1;
    point.seconds >= if is_alone { 1.0 } else { report.timeline.point_s as f64 }
}

/// The seconds that a point covers: `1:05`, `1:00 to 1:10`.
pub(super) fn when(report: &Report, point: &Point) -> String {
    match report.timeline.point_s {
        1 => clock(point.second),
        length => format!("{} to {}", clock(point.second), clock(point.second + length)),
    }
}

/// The part of the plot that a point covers.
pub(super) fn span(report: &Report, point: &Point) -> (f64, f64) {
    (at(report, point.second as f64), at(report, point.second as f64 + point.seconds))
}

/// The longest part of a plot that a warm-up takes: it has no figures.
const WARM_UP: f64 = 0.2;

/// The warm-up before the timeline's beginning as plots show it, in seconds.
fn warm_up_s(report: &Report) -> f64 {
    let first = report.runs.first().map_or(0.0, |run| run.warm_up_s);
    first.min(report.elapsed_s * WARM_UP / (1.0 - WARM_UP))
}

/// The position of an instant of the timeline, from 0 to 1.
pub(super) fn at(report: &Report, second: f64) -> f64 {
    let warm_up_s = warm_up_s(report);
    let all = (report.elapsed_s + warm_up_s).max(f64::MIN_POSITIVE);
    ((second + warm_up_s) / all).clamp(0.0, 1.0)
}

/// The warm-up, and the instants at which the offered rate changed.
pub(super) fn notes(report: &Report) -> Notes {
    let warm_up_s = report.runs.first().map_or(0.0, |run| run.warm_up_s);
    let shade = (warm_up_s > 0.0).then(|| (at(report, 0.0), format!("warm-up, {}", length(warm_up_s))));
    let stages = report.stages();
    // The first one is how it began.
    let changes = stages.iter().skip(1).filter(|stage| stage.begins_s > 0.0);
    let label = |stage: &Stage| stage.rate.map_or(String::from("changing"), rate);
    let instants = changes.map(|stage| (at(report, stage.begins_s), label(stage))).take(MOST_INSTANTS);
    Notes { shade, instants: instants.collect(), ..Notes::default() }
}

/// More changes of the rate than this are a slope.
const MOST_INSTANTS: usize = 24;

pub(super) fn marks(report: &Report, words: impl Fn(&Point) -> String) -> Vec<Mark> {
    let mark = |point: &Point| {
        let (from, to) = span(report, point);
        Mark { from, to, words: words(point) }
    };
    report.timeline.points.iter().map(mark).collect()
}

pub(super) fn time_axis(report: &Report) -> Vec<XTick> {
    let ticks = time_ticks(report.elapsed_s).into_iter().filter(|tick| *tick as f64 <= report.elapsed_s);
    let tick = |(n, tick): (usize, u64)| XTick {
        at: at(report, tick as f64),
        label: clock(tick),
        is_minor: n % 2 == 1,
    };
    ticks.enumerate().map(tick).collect()
}
