//! The summary as text, for a terminal of 80 columns.

use std::fmt::Write as _;
use std::time::Duration;

use super::compare::LEAST_FOR_P99_9;
use super::{FailureSummary, OperationSummary, Summary};
use crate::metrics::LatencyFigures;

/// How detailed a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The figures that most users need.
    Brief,
    /// The steps of connecting as well.
    Full,
}

/// The summary as text, ending in a newline. The most important part comes last, next to the prompt.
pub fn render(summary: &Summary, detail: Detail) -> String {
    let mut text = String::new();
    operations(&mut text, summary);
    if detail == Detail::Full {
        phases(&mut text, summary);
    }
    failures(&mut text, &summary.failures);
    line!(text, "");
    headline(&mut text, summary);
    text
}

fn headline(text: &mut String, summary: &Summary) {
    if let Some(bound) = &summary.bound {
        match bound.by.as_str() {
            "nothing" => line!(text, "bound by {}", bound.detail),
            by => line!(text, "bound by {by}: {}", bound.detail),
        }
        if !bound.hint.is_empty() {
            line!(text, "  -> {}", bound.hint);
        }
    }
    silence(text, summary);
    let devices = &summary.devices;
    if summary.operations.register_thing.counts.accepted == devices.registered && devices.registered > 0 {
        line!(text, "{:.1} devices/s", devices.registered as f64 / summary.elapsed_s.max(1e-6));
    }
    if let Some(eta_s) = summary.eta_s {
        let left = humantime::format_duration(Duration::from_secs(eta_s.ceil() as u64));
        line!(text, "the devices that are open: about {left} more at this run's speed");
    }
    let unsettled = match devices.unsettled {
        0 => String::new(),
        unsettled => format!(" {unsettled} unsettled,"),
    };
    line!(
        text,
        "{} of {} devices registered, {} rejected, {} unknown,{unsettled} {} pending; {:.1} s",
        devices.registered,
        devices.total,
        devices.rejected,
        devices.unknown,
        devices.pending,
        summary.elapsed_s
    );
}

/// For how long and how many requests got no answer, if notable, and whether that is known to be independent of the rate.
fn silence(text: &mut String, summary: &Summary) {
    if summary.outage_s >= 1.0 {
        line!(text, "no request was answered for {:.0} s: the run waited", summary.outage_s);
    }
    let operations = [&summary.operations.create_certificate, &summary.operations.register_thing];
    let sum =
        |of: fn(&OperationSummary) -> u64| operations.iter().map(|operation| of(operation)).sum::<u64>();
    let share = sum(|it| it.counts.timed_out) as f64 / sum(|it| it.counts.attempts).max(1) as f64;
    if share < 0.0005 {
        return;
    }
    let is_tested = summary.limits.iter().any(|limit| limit.unanswered.is_some());
    let is_limited = summary.limits.iter().any(|limit| limit.found_per_s.is_some());
    let at = if is_tested && !is_limited { ", at any rate" } else { "" };
    line!(text, "{:.1} % of requests were never answered{at}", share * 100.0);
}

fn operations(text: &mut String, summary: &Summary) {
    let operations = [
        ("connect", &summary.operations.connect),
        ("create certificate", &summary.operations.create_certificate),
        ("register thing", &summary.operations.register_thing),
    ];
    operation_tables(text, &operations);
}

/// Counts and latencies of operations, with an explanation of the latencies.
pub(super) fn operation_tables(text: &mut String, operations: &[(&str, &OperationSummary)]) {
    line!(
        text,
        "\n{:<20}{:>9}{:>10}{:>10}{:>11}{:>11}{:>9}",
        "",
        "attempts",
        "accepted",
        "rejected",
        "throttled",
        "timed out",
        "dropped"
    );
    for (name, operation) in operations {
        let counts = &operation.counts;
        line!(
            text,
            "{name:<20}{:>9}{:>10}{:>10}{:>11}{:>11}{:>9}",
            counts.attempts,
            counts.accepted,
            counts.rejected,
            counts.throttled,
            counts.timed_out,
            counts.dropped
        );
    }
    latency_table(text, operations);
}

/// Latencies of the operations with accepted attempts, with an explanation; nothing if no attempt was accepted.
pub(super) fn latency_table(text: &mut String, operations: &[(&str, &OperationSummary)]) {
    if operations.iter().all(|(_, operation)| operation.counts.accepted == 0) {
        return;
    }
    line!(
        text,
        "\n{:<20}{:<10}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "latency of accepted",
        "",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max"
    );
    for (name, operation) in operations {
        latencies(text, name, operation);
    }
    line!(text, "service: from sending the request to its reply; response: from when it was due,");
    line!(text, "so waiting at a rate limit or for a connection is in it.");
}

fn latencies(text: &mut String, name: &str, operation: &OperationSummary) {
    if operation.counts.accepted == 0 {
        return;
    }
    let samples = operation.counts.accepted;
    figures(text, name, "service", samples, &operation.service_us);
    figures(text, "", "response", samples, &operation.response_us);
}

fn phases(text: &mut String, summary: &Summary) {
    if summary.operations.connect.counts.accepted == 0 {
        return;
    }
    let phases = &summary.dial_phases_us;
    let samples = summary.operations.connect.counts.accepted;
    let named = [
        ("tcp", samples, &phases.tcp),
        ("tls", samples, &phases.tls),
        ("upgrade", samples, &phases.upgrade),
        ("connack", samples, &phases.connack),
        ("suback", samples, &phases.suback),
    ];
    phase_table(text, &named);
}

/// Latencies of the steps of a dial; nothing if there are none.
pub(super) fn phase_table(text: &mut String, phases: &[(&str, u64, &LatencyFigures)]) {
    if !phases.is_empty() {
        line!(text, "");
    }
    for (n, (name, samples, latency)) in phases.iter().enumerate() {
        figures(text, if n == 0 { "connect, by step" } else { "" }, name, *samples, latency);
    }
}

fn figures(text: &mut String, name: &str, kind: &str, samples: u64, latency: &LatencyFigures) {
    let [p50, p90, p99, max] = [latency.p50, latency.p90, latency.p99, latency.max].map(human_latency);
    let p99_9 = if samples < LEAST_FOR_P99_9 { String::from("-") } else { human_latency(latency.p99_9) };
    line!(text, "{name:<20}{kind:<10}{p50:>9}{p90:>9}{p99:>9}{p99_9:>9}{max:>9}");
}

/// The failures; nothing if there were none.
pub(super) fn failures(text: &mut String, failures: &[FailureSummary]) {
    if failures.is_empty() {
        return;
    }
    line!(text, "\nwhat went wrong on the way:");
    let next = failures.iter().skip(1).map(|failure| failure.hint.as_str()).chain([""]);
    for (failure, next_hint) in failures.iter().zip(next) {
        line!(text, "{:>8} x {}", failure.count, failure.example);
        if !failure.hint.is_empty() && failure.hint != next_hint {
            line!(text, "{:>10} {}", "->", failure.hint);
        }
    }
}

/// A latency with about three digits: `870 us`, `12.3 ms`, `4.56 s`.
pub fn human_latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..9_995 => format!("{:.2} ms", us as f64 / 1e3),
        9_995..99_950 => format!("{:.1} ms", us as f64 / 1e3),
        99_950..999_500 => format!("{:.0} ms", us as f64 / 1e3),
        999_500..9_995_000 => format!("{:.2} s", us as f64 / 1e6),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_shown_in_three_digits_or_so() {
        let shown: Vec<_> =
            [0, 999, 1_000, 9_994, 9_996, 12_345, 123_456, 138_879, 999_900, 4_560_000, 61_000_000]
                .map(human_latency)
                .into();
        assert_eq!(
            shown,
            [
                "0 us", "999 us", "1.00 ms", "9.99 ms", "10.0 ms", "12.3 ms", "123 ms", "139 ms", "1.00 s",
                "4.56 s", "61.0 s"
            ]
        );
    }
}
