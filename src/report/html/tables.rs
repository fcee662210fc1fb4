//! The page's tables.

use maud::{Markup, html};

use super::super::compare::LEAST_FOR_P99_9;
use super::super::model::{OperationReport, PhaseReport, Report};
use super::super::wording::{clock, count, rate};
use super::axis::Scale;
use super::{n, number, prose, timeline, title, us};
use crate::metrics::LatencyFigures;
use crate::metrics::threshold::Judgement;

/// A table that may be wider than the page: it scrolls on its own, also with the keyboard.
pub(super) fn scrolling(label: &str, table: &Markup) -> Markup {
    // The section around it has the same words: landmarks are told apart by their names.
    html! { div.scroll role="region" aria-label={ (label) ", as a table" } tabindex="0" { (table) } }
}

pub(super) fn thresholds(report: &Report) -> Markup {
    if report.thresholds.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="thresholds" {
            h2 id="thresholds" { "Thresholds" }
            @if report.runs.len() > 1 { p.note { "Of all runs together." } }
            (judgements("/thresholds", "Thresholds", &report.thresholds))
        }
    }
}

/// A table of judgements, which are at `place` in the JSON; nothing if there are none.
pub(super) fn judgements(place: &str, label: &str, judgements: &[Judgement]) -> Markup {
    if judgements.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            thead { tr { th scope="col" { "Threshold" } th.text scope="col" { "Result" } th scope="col" { "Measured" } } }
            tbody {
                @for (at, threshold) in judgements.iter().enumerate() {
                    tr {
                        th scope="row" { code { (threshold.threshold) } }
                        @if threshold.passed { td.text.good { "✓ pass" } } @else { td.text.bad { "✗ fail" } }
                        td {
                            @match threshold.measured {
                                Some(measured) => (number(&format!("{place}/{at}/measured"), measured, &threshold.shown.replace(" us", " µs"))),
                                None => (threshold.shown),
                            }
                        }
                    }
                }
            }
        }
    };
    scrolling(label, &table)
}

/// Counts and percentiles of all operations.
pub(super) fn operations(report: &Report) -> Markup {
    let counts = html! {
        table {
            caption { "How attempts ended" }
            thead {
                tr {
                    th scope="col" { "Operation" }
                    @for head in ["Attempts", "Accepted", "Rejected", "Throttled", "Timed out", "Dropped", "Accepted per second"] {
                        th scope="col" { (head) }
                    }
                }
            }
            tbody { @for (at, operation) in report.operations.iter().enumerate() { (count_row(at, operation)) } }
        }
    };
    let latencies = html! {
        table {
            caption { "Latency of the accepted" }
            thead {
                tr {
                    th scope="col" { "Operation" }
                    th.text scope="col" { "Time" }
                    @for head in ["p50", "p90", "p99", "p99.9", "Longest", "Mean"] { th scope="col" { (head) } }
                }
            }
            tbody {
                @for (at, operation) in report.operations.iter().enumerate() {
                    @if operation.summary.counts.accepted > 0 {
                        tr {
                            th scope="rowgroup" rowspan="2" { (title(&operation.operation)) }
                            td.text { "response" }
                            (latency_cells(&format!("/operations/{at}/response_us"), operation, &operation.summary.response_us))
                        }
                        tr {
                            td.text { "service" }
                            (latency_cells(&format!("/operations/{at}/service_us"), operation, &operation.summary.service_us))
                        }
                    }
                }
            }
        }
    };
    html! { (scrolling("Latency of operations", &latencies)) (scrolling("Counts of operations", &counts)) }
}

fn count_row(at: usize, operation: &OperationReport) -> Markup {
    let counts = operation.summary.counts;
    let cells = [
        ("attempts", counts.attempts),
        ("accepted", counts.accepted),
        ("rejected", counts.rejected),
        ("throttled", counts.throttled),
        ("timed_out", counts.timed_out),
        ("dropped", counts.dropped),
    ];
    let place = |field: &str| format!("/operations/{at}/{field}");
    html! {
        tr {
            th scope="row" { (title(&operation.operation)) }
            @for (field, value) in cells { td { (n(&place(field), value)) } }
            td { (number(&place("accepted_per_s"), operation.accepted_per_s, &rate(operation.accepted_per_s))) }
        }
    }
}

fn latency_cells(place: &str, operation: &OperationReport, figures: &LatencyFigures) -> Markup {
    let LatencyFigures { p50, p90, p99, p99_9, max, mean } = *figures;
    let is_enough = operation.summary.counts.accepted >= LEAST_FOR_P99_9;
    let cell = |field: &str, value: u64| html! { td { (us(&format!("{place}/{field}"), value)) } };
    html! {
        (cell("p50", p50)) (cell("p90", p90)) (cell("p99", p99))
        @if is_enough { (cell("p99_9", p99_9)) } @else { td { "–" } }
        (cell("max", max))
        td { (number(&format!("{place}/mean"), mean, &super::latency(mean.round() as u64))) }
    }
}

/// The steps of opening a connection, with a bar from the median to the 99th percentile.
pub(super) fn phases(report: &Report) -> Markup {
    if report.dial_phases.is_empty() {
        return html! {};
    }
    let all = report.dial_phases.iter().flat_map(|phase| [phase.us.p50, phase.us.p99, phase.us.max]);
    let scale = Scale::latencies(all);
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Step" }
                    th.text.bar scope="col" { "Median to p99, line to the longest" }
                    @for head in ["p50", "p99", "Longest", "Connections"] { th scope="col" { (head) } }
                }
            }
            tbody { @for (at, phase) in report.dial_phases.iter().enumerate() { (phase_row(at, phase, scale)) } }
        }
    };
    html! {
        section aria-labelledby="phases" {
            h2 id="phases" { "Opening a connection" }
            p.note {
                "Step by step, each from the end of the one before."
                @if scale.is_log() { " The bars' scale is logarithmic." }
            }
            (scrolling("Steps of opening a connection", &table))
        }
    }
}

fn phase_row(at: usize, phase: &PhaseReport, scale: Scale) -> Markup {
    let place = |field: &str| format!("/dial_phases/{at}/us/{field}");
    let percent = |us: u64| format!("{:.2}%", scale.place(us as f64) * 100.0);
    let (p50, p99, max) = (phase.us.p50, phase.us.p99, phase.us.max);
    let width = (scale.place(p99 as f64) - scale.place(p50 as f64)) * 100.0;
    html! {
        tr {
            th scope="row" { (phase_title(&phase.phase)) }
            td.bar {
                svg aria-hidden="true" {
                    line.rail x1="0" x2="100%" y1="7" y2="7" {}
                    line.end x1=(percent(p99)) x2=(percent(max)) y1="7" y2="7" {}
                    rect.reach x=(percent(p50)) y="2" width=(format!("{width:.2}%")) height="10" rx="2" {}
                    svg x=(percent(p50)) { rect.mid x="-1.5" y="0" width="3" height="14" rx="1" {} }
                }
            }
            td { (us(&place("p50"), p50)) }
            td { (us(&place("p99"), p99)) }
            td { (us(&place("max"), max)) }
            td { (n(&format!("/dial_phases/{at}/count"), phase.count)) }
        }
    }
}

fn phase_title(phase: &str) -> String {
    match phase {
        "tcp" => String::from("Name lookup and TCP"),
        "tls" => String::from("TLS handshake"),
        "upgrade" => String::from("WebSocket upgrade"),
        "connack" => String::from("MQTT CONNECT"),
        "suback" => String::from("SUBSCRIBE"),
        other => title(other),
    }
}

pub(super) fn failures(report: &Report) -> Markup {
    if report.failures.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Where and what" }
                    th scope="col" { "Count" }
                    th.text scope="col" { "The first of them, and what to do" }
                }
            }
            tbody {
                @for (at, failure) in report.failures.iter().enumerate() {
                    tr {
                        th scope="row" { (title(&failure.stage)) ": " (failure.cause.replace('_', " ")) }
                        td { (n(&format!("/failures/{at}/count"), failure.count)) }
                        td.words { (failure.example) @if !failure.hint.is_empty() { br; strong { "→ " } (prose(&failure.hint)) } }
                    }
                }
            }
        }
    };
    html! {
        section aria-labelledby="failed" {
            h2 id="failed" { "What went wrong" }
            (scrolling("What went wrong", &table))
        }
    }
}

/// The counters besides attempts and their outcomes.
pub(super) fn counters(report: &Report) -> Markup {
    html! {
        @for (counter, count) in report.counters.counted() {
            p.note { (counter.meaning().trim_end_matches('.')) ": " (n(&format!("/{}", counter.name()), count)) }
        }
    }
}

pub(super) fn slowest(report: &Report) -> Markup {
    if report.slowest.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Device" }
                    th.text scope="col" { "Operation" }
                    @for head in ["Response", "Service", "Ended at"] { th scope="col" { (head) } }
                }
            }
            tbody {
                @for (at, slow) in report.slowest.iter().enumerate() {
                    @let place = |field: &str| format!("/slowest/{at}/{field}");
                    tr {
                        td.key { (slow.device) }
                        td.text { (title(&slow.operation)) }
                        td { (us(&place("response_us"), slow.response_us)) }
                        td { (us(&place("service_us"), slow.service_us)) }
                        td { (number(&place("second"), slow.second, &clock(slow.second))) }
                    }
                }
            }
        }
    };
    html! {
        section aria-labelledby="slow" {
            h2 id="slow" { "The slowest devices" }
            p.note { "By response time." }
            (scrolling("The slowest devices", &table))
        }
    }
}

/// The numbers of the charts over time.
pub(super) fn over_time(report: &Report) -> Markup {
    let has_schedule = report.arrivals.is_some();
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Time" }
                    @if has_schedule { th scope="col" { "Offered" } th scope="col" { "Missed" } }
                    @for head in ["Accepted", "Failed", "Response p50", "p99", "Longest", "Service p99", "Connections"] {
                        th scope="col" { (head) }
                    }
                }
            }
            tbody {
                @for point in &report.timeline.points {
                    @let operation = timeline::subject(report, point);
                    tr {
                        th scope="row" { (timeline::when(report, point)) }
                        @if has_schedule { td { (count(point.scheduled)) } td { (count(point.missed)) } }
                        td { (count(operation.accepted)) }
                        td { (count(operation.attempts - operation.accepted)) }
                        @for us in [operation.response_us.p50, operation.response_us.p99, operation.response_us.max, operation.service_us.p99] {
                            td { @if operation.accepted > 0 { (super::latency(us)) } @else { "–" } }
                        }
                        td { (count(point.connections.into())) }
                    }
                }
            }
        }
    };
    html! {
        details {
            summary { "The numbers over time as a table" }
            (scrolling("Numbers over time", &table))
        }
    }
}
