//! The page's sections, from the most important to the reference tables.

use maud::{Markup, html};

use super::super::model::{ArrivalReport, Hint, OperationReport, Report, Run, Weight};
use super::super::verdict::{Outcome, Verdict};
use super::super::wording::{length, percent, rate};
use super::{compare, devices, heat, n, number, over_time, plots, prose, tables, us};
use crate::metrics::LatencyFigures;
use crate::results::Site;

/// What the report is about, in a few words.
pub(super) fn title(report: &Report) -> String {
    if let Some(title) = &report.title {
        return title.clone();
    }
    let mut verbs: Vec<&str> = report.runs.iter().map(|run| run.verb.as_str()).collect();
    verbs.dedup();
    let verbs = super::title(&verbs.join(", "));
    match report.runs.len() {
        1 => verbs,
        runs => format!("{verbs}: {runs} runs merged"),
    }
}

pub(super) fn body(report: &Report) -> Markup {
    html! {
        a.skip href="#main" { "To the report" }
        header {
            p.over { "fleetmint report" }
            h1 { (title(report)) }
            (verdict(report))
            (figures(report))
            (context(report))
        }
        main id="main" {
            (hints(&report.hints))
            (tables::thresholds(report))
            (compare::section(report))
            (devices::section(report))
            (time_section(report))
            (percentiles(report))
            (tables::phases(report))
            (tables::failures(report))
            (tables::counters(report))
            (tables::slowest(report))
            (settings(report))
            (reading())
        }
        footer {
            div {
                @if let Some(run) = report.runs.first() { "Measured with " (run.tool) ". " }
                "Schema " (report.schema) ". This page holds all it shows: it loads nothing and sends nothing."
            }
        }
    }
}

/// PASS or FAIL, and a sentence.
fn verdict(report: &Report) -> Markup {
    let Verdict { outcome, sentence } = &report.verdict;
    let class = match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Incomplete => "incomplete",
        Outcome::NotJudged => "unjudged",
    };
    html! {
        p.verdict {
            span.badge.(class) { (outcome.word()) }
            @if report.is_emulated() { " " span.badge.emulator { "EMULATOR" } }
            " " (sentence.replace(" %", "\u{a0}%"))
        }
    }
}

/// Where, when and with what it was measured.
fn context(report: &Report) -> Markup {
    let Some(first) = report.runs.first() else { return html! {} };
    let all = |of: &dyn Fn(&Run) -> Option<String>| {
        let mut all: Vec<String> = report.runs.iter().filter_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all.join(", ")
    };
    let site = |of: fn(&Site) -> Option<String>| all(&|run| run.site.as_ref().and_then(of));
    let rows = [
        ("endpoint", site(|site| Some(site.endpoint.clone()))),
        ("region", site(|site| Some(site.region.clone()))),
        ("from", site(|site| site.host.clone())),
        ("version", all(&|run| Some(run.tool.clone()))),
        ("offered", all(&|run| run.offered.clone())),
        ("ended", ends(report)),
    ];
    html! {
        dl.context {
            div {
                dt { "when" }
                dd {
                    time datetime=(first.started_at) { (date(&first.started_at)) }
                    ", for " (number("/elapsed_s", report.elapsed_s, &length(report.elapsed_s)))
                }
            }
            @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) { div { dt { (name) } dd { (value) } } }
            div.wide { dt { "command" } dd { code { (first.command) } @if report.runs.len() > 1 { " and " (report.runs.len() - 1) " more" } } }
        }
    }
}

/// An instant to the second, for display: `2026-11-24 03:16:52 UTC`.
pub(super) fn date(instant: &str) -> String {
    let (date, time) = instant.split_once('T').unwrap_or((instant, ""));
    let time = time.split(['.', 'Z']).next().unwrap_or_default();
    format!("{date} {time} UTC")
}

fn ends(report: &Report) -> String {
    let mut ends: Vec<&str> = report.runs.iter().map(|run| run.end.as_str()).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.join(", ")
}

/// The five figures under the verdict.
fn figures(report: &Report) -> Markup {
    let name = report.headline.operation.as_deref().unwrap_or_default();
    let subject = report.operations.iter().position(|operation| operation.operation == name);
    let Some((at, operation)) = subject.and_then(|at| Some((at, report.operations.get(at)?))) else {
        return html! {};
    };
    html! {
        dl.figures {
            (accepted(report, at, operation))
            (response(at, operation, "p50", "Response, median", |us| us.p50))
            (response(at, operation, "p99", "Response, 99 % within", |us| us.p99))
            (failed(report, at, operation))
            @match &report.arrivals {
                Some(arrivals) => (missed(arrivals)),
                None => div {
                    dt { "Took" }
                    dd.big { (number("/elapsed_s", report.elapsed_s, &length(report.elapsed_s))) }
                    dd.small { (ends(report)) }
                },
            }
        }
    }
}

/// Accepted per second; how many, where there was not a second.
fn accepted(report: &Report, at: usize, operation: &OperationReport) -> Markup {
    let headline = &report.headline;
    let all = n(&format!("/operations/{at}/accepted"), operation.summary.counts.accepted);
    let is_rate = report.elapsed_s >= 1.0;
    html! {
        div {
            dt { (super::title(&operation.operation)) " accepted" }
            dd.big {
                @if is_rate { (number("/headline/accepted_per_s", headline.accepted_per_s, &rate(headline.accepted_per_s))) }
                @else { (all) }
            }
            dd.small {
                @match headline.offered_per_s.filter(|_| is_rate) {
                    Some(offered) => { "of " (number("/headline/offered_per_s", offered, &rate(offered))) " offered" }
                    None if is_rate => { (all) " in all" }
                    None => { "too short for a rate" }
                }
            }
        }
    }
}

fn response(
    at: usize,
    operation: &OperationReport,
    figure: &str,
    name: &str,
    of: fn(&LatencyFigures) -> u64,
) -> Markup {
    let place = |side: &str| format!("/operations/{at}/{side}/{figure}");
    let summary = &operation.summary;
    html! {
        div {
            dt { (name) }
            @if summary.counts.accepted == 0 {
                dd.big { "–" }
                dd.small { "none accepted" }
            } @else {
                dd.big { (us(&place("response_us"), of(&summary.response_us))) }
                dd.small { "service " (us(&place("service_us"), of(&summary.service_us))) }
            }
        }
    }
}

fn failed(report: &Report, at: usize, operation: &OperationReport) -> Markup {
    let place = |field: &str| format!("/operations/{at}/{field}");
    let (counts, share) = (operation.summary.counts, report.headline.failed_share);
    html! {
        div {
            dt { "Not accepted" }
            dd.big.bad[share > 0.0] { (number("/headline/failed_share", share, &percent(share))) }
            dd.small {
                (n(&place("throttled"), counts.throttled)) " throttled, " (n(&place("rejected"), counts.rejected)) " rejected"
            }
        }
    }
}

fn missed(arrivals: &ArrivalReport) -> Markup {
    let counts = arrivals.counts;
    html! {
        div {
            dt { "Missed arrivals" }
            dd.big.bad[counts.missed > 0] { (n("/arrivals/missed", counts.missed)) }
            dd.small { "of " (n("/arrivals/scheduled", counts.scheduled)) " due" }
            dd.small { "Generator late by " (us("/arrivals/lateness_us/p99", arrivals.lateness_us.p99)) " at p99" }
        }
    }
}

fn hints(hints: &[Hint]) -> Markup {
    let class = |weight| match weight {
        Weight::Serious => "serious",
        Weight::Notable => "notable",
        Weight::Fine => "fine",
    };
    html! {
        section aria-labelledby="next" {
            h2 id="next" { "What to make of it" }
            ul.hints {
                @for hint in hints {
                    li class=(class(hint.weight)) { strong { (hint.finding) } (prose(&hint.advice)) }
                }
            }
        }
    }
}

fn percentiles(report: &Report) -> Markup {
    let name = report.headline.operation.as_deref();
    let (subject, others): (Vec<_>, Vec<_>) = report
        .operations
        .iter()
        .filter(|operation| operation.summary.counts.accepted >= LEAST_FOR_A_PLOT)
        .partition::<Vec<&OperationReport>, _>(|operation| Some(operation.operation.as_str()) == name);
    if report.operations.iter().all(|operation| operation.summary.counts.accepted == 0) {
        return html! { section aria-labelledby="latency" { h2 id="latency" { "Attempts" } (tables::operations(report)) } };
    }
    html! {
        section aria-labelledby="latency" {
            h2 id="latency" { "Latency by percentile" }
            p.note {
                "Of accepted attempts. Response time runs from the instant that an attempt was due; service time from the \
                 instant that it was sent. Where they part, attempts had to wait."
            }
            (missed_note(report))
            @for operation in subject { (plots::percentiles(operation, &report.thresholds, true).render()) }
            @if !others.is_empty() {
                div.pair { @for operation in others { (plots::percentiles(operation, &report.thresholds, false).render()) } }
            }
            (tables::operations(report))
        }
    }
}

fn missed_note(report: &Report) -> Markup {
    let missed = report.arrivals.as_ref().filter(|arrivals| arrivals.counts.missed > 0);
    html! {
        @if let Some(arrivals) = missed {
            p.bad {
                (n("/arrivals/missed", arrivals.counts.missed)) " missed arrivals ("
                (number("/arrivals/missed_share", arrivals.missed_share, &percent(arrivals.missed_share)))
                ") are in none of these percentiles: what was offered fared worse than this."
            }
        }
    }
}

/// A plot of fewer samples than this shows nothing.
const LEAST_FOR_A_PLOT: u64 = 2;

/// A chart over time with fewer points than this shows no more than a table.
const SHORTEST_CHART: usize = 3;

fn time_section(report: &Report) -> Markup {
    let point_s = report.timeline.point_s;
    html! {
        section aria-labelledby="time" {
            h2 id="time" { "Over time" }
            p.note {
                @if point_s == 1 { "Each point is one second." } @else {
                    "Each point stands for " (n("/timeline/point_s", point_s)) " seconds: rates are their mean, percentiles are of all \
                     their samples, the longest is the longest of all."
                }
                " What happened counts where it ended."
            }
            @if report.timeline.points.len() < SHORTEST_CHART {
                p.note { "There are too few of them for charts." }
            } @else {
                (charts(report))
            }
            (tables::over_time(report))
        }
    }
}

fn charts(report: &Report) -> Markup {
    let name = report.headline.operation.as_deref();
    let subject = report.operations.iter().find(|operation| Some(operation.operation.as_str()) == name);
    let has_latencies = subject.is_some_and(|one| one.summary.counts.accepted >= LEAST_FOR_A_PLOT);
    html! {
        @if subject.is_some_and(|one| one.summary.counts.accepted > 0) || report.arrivals.is_some() { (over_time::throughput(report).render()) }
        @if has_latencies {
            @if let Some(map) = heat::map(report) { (map.render()) }
            (over_time::latencies(report).render())
        }
        @match over_time::failures(report) {
            Some(chart) => (chart.render()),
            None => p.note { "Nothing was rejected, throttled or lost." },
        }
        @if let Some(chart) = over_time::connections(report) { (chart.render()) }
    }
}

fn settings(report: &Report) -> Markup {
    html! {
        section aria-labelledby="runs" {
            h2 id="runs" { @if report.runs.len() == 1 { "The run" } @else { "The runs" } }
            @if report.runs.len() > 1 {
                p.note {
                    "Merged exactly: histograms and counters are added, so that the percentiles are those of one run with all \
                     samples. Laid beside each other by the clocks of their machines, to the second."
                }
            }
            @for (at, run) in report.runs.iter().enumerate() { (one_run(report, at, run)) }
        }
    }
}

fn one_run(report: &Report, at: usize, run: &Run) -> Markup {
    let place = |field: &str| format!("/runs/{at}/{field}");
    html! {
        article {
            @if report.runs.len() > 1 { h3 { "Run " (at + 1) ": " (run.verb) } }
            dl.settings {
                dt { "command" } dd { code { (run.command) } }
                dt { "results" } dd { (run.file) }
                dt { "started" }
                dd {
                    (run.started_at)
                    @if report.runs.len() > 1 { ", at " (n(&place("begins_at_s"), run.begins_at_s)) " s on the time line" }
                }
                dt { "took" } dd { (number(&place("elapsed_s"), run.elapsed_s, &length(run.elapsed_s))) }
                dt { "ended" }
                dd { (run.end) @if !run.detail.is_empty() { ": " (run.detail) } }
                @if let Some(offered) = &run.offered { dt { "offered" } dd { (offered) } }
                @for (operation, limit) in &run.limits {
                    dt { "limit of " (operation.replace('_', " ")) } dd { (number(&place(&format!("limits/{operation}")), limit, &rate(*limit))) }
                }
                @if run.warm_up_s > 0.0 {
                    dt { "warm-up" }
                    dd { (number(&place("warm_up_s"), run.warm_up_s, &length(run.warm_up_s))) " before the start, in no figure" }
                }
                @if let Some(lot) = &run.lot { dt { "lot" } dd { (lot) } }
                @if let Some(devices) = &run.devices {
                    dt { "devices" }
                    dd {
                        (n(&place("devices/registered"), devices.registered)) " of " (n(&place("devices/total"), devices.total))
                        " registered, " (n(&place("devices/rejected"), devices.rejected)) " rejected, "
                        (n(&place("devices/unknown"), devices.unknown)) " unknown, "
                        (n(&place("devices/unsettled"), devices.unsettled)) " unsettled, "
                        (n(&place("devices/pending"), devices.pending)) " pending"
                    }
                }
                @for (name, value) in &run.settings { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn reading() -> Markup {
    html! {
        section aria-labelledby="reading" {
            h2 id="reading" { "How to read this" }
            dl.settings {
                dt { "service time" }
                dd { "From sending a request to its reply: what the service, the network and this machine took." }
                dt { "response time" }
                dd { "From the instant that the attempt was due to its reply, so that waiting at a rate limit or for a connection is \
                     in it. A stall of the service delays everything that falls due in it; only the response time shows that." }
                dt { "missed" }
                dd { "Due, but never started, because no connection became free in time. Never made up for, and in no percentile." }
                dt { "percentiles" }
                dd { "From HDR histograms in microseconds with three significant digits, of accepted attempts." }
                dt { "ends" }
                dd { "Every attempt has one of five: accepted, rejected, throttled (refused for its rate), timed out, dropped (ended by \
                     the connection)." }
            }
        }
    }
}
