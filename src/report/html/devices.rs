//! What became of a lot's devices: for provisioning runs.

use maud::{Markup, html};

use super::super::hints;
use super::super::model::Report;
use super::super::wording::{count, length, percent, rate};
use super::axis::Scale;
use super::chart::{Chart, Notes, Path, line};
use super::plots::count_tick;
use super::prose;
use super::timeline::{at, marks, notes, time_axis, when};
use crate::event::Operation;
use crate::results::Devices;

/// How many reasons of rejections are named.
const REASONS: usize = 5;

/// The section; nothing for other runs.
pub(super) fn section(report: &Report) -> Markup {
    let is_provisioning = report.runs.iter().any(|run| run.verb == "provision");
    let Some(devices) = report.devices().filter(|devices| is_provisioning && devices.total > 0) else {
        return html! {};
    };
    html! {
        section aria-labelledby="devices" {
            h2 id="devices" { "Devices" }
            (bar(&devices))
            @if let Some(eta) = eta(report, &devices) { p.note { (eta) } }
            @for run in &report.runs {
                @if let Some(bound) = run.bound.as_ref().filter(|bound| bound.by != "nothing") {
                    p { strong { "Bound by " (bound.by) ": " } (bound.detail) "." @if !bound.hint.is_empty() { " " (prose(&hints::sentence(&bound.hint))) } }
                }
            }
            (rejections(report, &devices))
            @if report.timeline.points.len() > 2 { (progress(report, &devices).render()) }
        }
    }
}

/// The states: class, name, how many.
fn states(devices: &Devices) -> Vec<(&'static str, &'static str, u64)> {
    let Devices { total: _, registered, rejected, unknown, unsettled, pending } = *devices;
    let states = [
        ("registered", "registered", registered),
        ("rejected", "rejected", rejected),
        ("unknown", "unknown", unknown),
        ("unsettled", "unsettled", unsettled),
        ("pending", "still to do", pending),
    ];
    states.into_iter().filter(|(.., number)| *number > 0).collect()
}

/// All devices as one bar.
fn bar(devices: &Devices) -> Markup {
    let share = |number: u64| number as f64 / devices.total as f64;
    let states = states(devices);
    let before = |at: usize| states[..at].iter().map(|(.., number)| share(*number)).sum::<f64>();
    let words: Vec<String> =
        states.iter().map(|(_, name, number)| format!("{} {name}", count(*number))).collect();
    html! {
        figure.states {
            svg role="img" aria-label={ "Of " (count(devices.total)) " devices: " (words.join(", ")) } {
                @for (at, (class, _, number)) in states.iter().enumerate() {
                    rect class=(class) x=(format!("{:.3}%", before(at) * 100.0)) width=(format!("{:.3}%", share(*number) * 100.0))
                        y="0" height="100%" {}
                }
            }
            ul.legend {
                @for (class, name, number) in &states {
                    li {
                        svg aria-hidden="true" { rect class=(class) width="14" height="10" {} }
                        (count(*number)) " " (name) " (" (percent(share(*number))) ")"
                    }
                }
            }
        }
    }
}

/// How long the rest will take.
fn eta(report: &Report, devices: &Devices) -> Option<String> {
    let open = devices.pending + devices.unsettled;
    let per_s = registered_per_s(report)?;
    (open > 0).then(|| {
        format!(
            "The {} that are left take about {} more at this run's speed.",
            count(open),
            length(open as f64 / per_s)
        )
    })
}

fn registered_per_s(report: &Report) -> Option<f64> {
    let registrations = report.operation(Operation::RegisterThing.name())?;
    Some(registrations.accepted_per_s).filter(|per_s| *per_s > 0.0)
}

fn rejections(report: &Report, devices: &Devices) -> Markup {
    let rejected: Vec<_> = report.failures.iter().filter(|failure| failure.cause == "rejected").collect();
    if devices.rejected == 0 || rejected.is_empty() {
        return html! {};
    }
    html! {
        h3.reasons { "Why devices were rejected" }
        ul.hints {
            @for failure in rejected.iter().take(REASONS) {
                li.serious {
                    strong { (count(failure.count)) " × " (failure.example) }
                    @if !failure.hint.is_empty() { (prose(&hints::sentence(&failure.hint))) }
                }
            }
            @if rejected.len() > REASONS { li { (count((rejected.len() - REASONS) as u64)) " further reasons are below." } }
        }
    }
}

/// Devices registered so far against the best that the rate allows.
fn progress(report: &Report, devices: &Devices) -> Chart {
    let mut sum = 0;
    let mut so_far: Vec<(f64, u64)> = vec![(0.0, 0)];
    for point in &report.timeline.points {
        sum += point.operations.get(Operation::RegisterThing.name()).map_or(0, |one| one.accepted);
        so_far.push((point.second as f64 + point.seconds, sum));
    }
    let all = sum + devices.pending + devices.unsettled;
    let scale = Scale::counts([all as f64].into_iter());
    let limit = best_per_s(report);
    let mut legend = vec![("response", String::from("registered by this run"))];
    let mut paths = vec![Path {
        class: "response",
        d: line(so_far.iter().map(|(second, sum)| Some((at(report, *second), scale.place(*sum as f64))))),
    }];
    if let Some((per_s, what)) = limit {
        legend.push(("limit", format!("at best, {what}: {}", rate(per_s))));
        let full = (all as f64 / per_s).min(report.elapsed_s);
        let corners = [
            (0.0, 0.0),
            (full, full * per_s),
            (report.elapsed_s, (report.elapsed_s * per_s).min(all as f64)),
        ];
        let d = line(corners.map(|(second, number)| Some((at(report, second), scale.place(number)))));
        paths.push(Path { class: "limit", d });
    }
    let words: Vec<u64> = so_far.iter().skip(1).map(|(_, sum)| *sum).collect();
    Chart {
        id: String::from("progress"),
        title: String::from("Progress"),
        unit: String::from("devices"),
        summary: format!("Devices registered over time: {} at the end, of {} to do.", count(sum), count(all)),
        legend,
        scale,
        tick: count_tick,
        x_ticks: time_axis(report),
        paths,
        notes: Notes { levels: vec![("base", all as f64, format!("{} to do", count(all)))], ..notes(report) },
        marks: marks(report, |point| {
            let place = report.timeline.points.iter().position(|one| one.second == point.second);
            let sum = place.and_then(|place| words.get(place)).copied().unwrap_or_default();
            format!("{}: {} registered", when(report, point), count(sum))
        }),
        is_tall: false,
    }
}

/// The highest rate that registrations could have had, and why.
fn best_per_s(report: &Report) -> Option<(f64, &'static str)> {
    let name = Operation::RegisterThing.name();
    let found = report.most_under_way(|run| run.found_per_s.get(name).copied());
    let limit = || report.most_under_way(|run| run.limits.get(name).copied());
    let best = found.map(|per_s| (per_s, "the limit found"));
    best.or_else(|| Some((limit()?, "the rate limit"))).filter(|(per_s, _)| *per_s > 0.0)
}
