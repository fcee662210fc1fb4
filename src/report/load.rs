//! The result of a load test: its summary as JSON and as text.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Detail;
use super::summary::failures;
use super::{DeviceSummary, FailureSummary, OperationSummary, human_latency, terminal};
use crate::event::Operation;
use crate::ledger::Counts;
use crate::metrics::threshold::Judgement;
use crate::metrics::{Arrivals, LatencyFigures, Metrics};
use crate::schedule::{Profile, Spacing};

/// The version of the summary's schema: raised when a field changes its meaning or is removed, not when one is added.
pub const LOAD_SCHEMA: u32 = 1;

/// The result of a load test. Latencies are in microseconds. No figure includes what was due in the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSummary {
    /// [`LOAD_SCHEMA`].
    pub schema: u32,
    /// The scenario, such as `load create`.
    pub verb: String,
    /// How it ended: `complete`, `out_of_devices`, `threshold_lost`, `drained`, `aborted`, `stopped`, `ledger_failed`
    /// or `bug`.
    pub outcome: String,
    /// The offered load, as a profile.
    pub profile: String,
    /// `uniform` or `poisson`.
    pub spacing: String,
    /// How much of the profile was warm-up, in seconds.
    pub warm_up_s: f64,
    /// From the end of the warm-up to the end of the last arrival, in seconds.
    pub measured_s: f64,
    /// The arrivals after the warm-up.
    pub arrivals: Arrivals,
    /// How late the generator itself was, in microseconds.
    pub lateness_us: LatencyFigures,
    /// The operations that were tried, in a device's order.
    pub operations: Vec<NamedOperation>,
    /// The steps of the dials in order, in microseconds; empty if there were no dials.
    pub dial_phases_us: Vec<(String, LatencyFigures)>,
    /// Failures by reason, most frequent first.
    pub failures: Vec<FailureSummary>,
    /// The outcome of the thresholds.
    pub thresholds: Vec<Judgement>,
    /// The ledger's devices, over all its runs; `None` without a ledger.
    pub devices: Option<DeviceSummary>,
}

/// An operation with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedOperation {
    /// The name as in results files, such as `create_certificate`.
    pub name: String,
    /// Accepted attempts per second of measured time.
    pub accepted_per_s: f64,
    /// Its attempts and latencies.
    #[serde(flatten)]
    pub summary: OperationSummary,
}

/// The input of a summary.
#[derive(Debug, Clone)]
pub struct LoadFacts<'a> {
    /// The scenario, such as `load create`.
    pub verb: &'a str,
    /// The name of the outcome.
    pub outcome: &'a str,
    /// The offered load.
    pub profile: &'a Profile,
    /// How arrivals were spaced.
    pub spacing: Spacing,
    /// How much of the profile was warm-up.
    pub warm_up: Duration,
    /// From the end of the warm-up to the end of the last arrival.
    pub measured: Duration,
    /// The measurements during that time.
    pub metrics: &'a Metrics,
    /// The outcome of the thresholds.
    pub thresholds: &'a [Judgement],
    /// The ledger's devices, over all its runs.
    pub devices: Option<Counts>,
}

impl LoadSummary {
    /// Summarizes the results of a load test.
    pub fn new(facts: LoadFacts<'_>) -> Self {
        let metrics = facts.metrics;
        let measured_s = facts.measured.as_secs_f64();
        let operation = |operation: Operation| {
            let summary = OperationSummary::from(metrics.operation(operation));
            let accepted_per_s = summary.counts.accepted as f64 / measured_s.max(1e-6);
            NamedOperation { name: operation.name().to_owned(), accepted_per_s, summary }
        };
        let was_tried = |operation: &Operation| metrics.operation(*operation).counts.attempts > 0;
        let phases = metrics.dial_phases.each();
        Self {
            schema: LOAD_SCHEMA,
            verb: facts.verb.to_owned(),
            outcome: facts.outcome.to_owned(),
            profile: facts.profile.to_string(),
            spacing: facts.spacing.name().to_owned(),
            warm_up_s: facts.warm_up.as_secs_f64(),
            measured_s,
            arrivals: metrics.arrivals,
            lateness_us: metrics.lateness.figures(),
            operations: Operation::ALL.into_iter().filter(was_tried).map(operation).collect(),
            dial_phases_us: phases
                .into_iter()
                .filter(|(_, latency)| latency.count() > 0)
                .map(|(name, latency)| (name.to_owned(), latency.figures()))
                .collect(),
            failures: failures(metrics),
            thresholds: facts.thresholds.to_vec(),
            devices: facts.devices.map(DeviceSummary::from),
        }
    }
}

/// The summary as text for a terminal of 80 columns, ending in a newline.
pub fn render_load(summary: &LoadSummary, detail: Detail) -> String {
    let mut text = String::new();
    headline(&mut text, summary);
    operations(&mut text, summary);
    latencies(&mut text, summary, detail);
    terminal::failures(&mut text, &summary.failures);
    thresholds(&mut text, summary);
    text
}

fn headline(text: &mut String, summary: &LoadSummary) {
    let Arrivals { scheduled, started, missed } = summary.arrivals;
    line!(
        text,
        "{}: {}; {scheduled} arrivals, {started} started, {missed} missed; {:.1} s measured",
        summary.verb,
        summary.outcome.replace('_', " "),
        summary.measured_s
    );
    let waiting = scheduled.saturating_sub(started + missed);
    if waiting > 0 {
        line!(text, "{waiting} of them had not been started when the test was ended");
    }
    if missed > 0 {
        line!(
            text,
            "missed: {missed} arrivals ({:.2} %) found no free connection in time. Nothing was sent for them, and no",
            missed as f64 * 100.0 / scheduled.max(1) as f64
        );
        line!(text, "percentile below contains them: users would have seen worse than these figures.");
    }
    let LatencyFigures { p50, p99, max, .. } = summary.lateness_us;
    let [p50, p99, max] = [p50, p99, max].map(human_latency);
    line!(text, "the generator itself was late by {p50} (p50), {p99} (p99), {max} (max)");
}

fn operations(text: &mut String, summary: &LoadSummary) {
    line!(
        text,
        "\n{:<19}{:>9}{:>10}{:>9}{:>9}{:>10}{:>10}{:>8}",
        "",
        "attempts",
        "accepted",
        "per s",
        "rejected",
        "throttled",
        "timed out",
        "dropped"
    );
    for NamedOperation { name, accepted_per_s, summary } in &summary.operations {
        let counts = &summary.counts;
        line!(
            text,
            "{:<19}{:>9}{:>10}{accepted_per_s:>9.1}{:>9}{:>10}{:>10}{:>8}",
            name.replace('_', " "),
            counts.attempts,
            counts.accepted,
            counts.rejected,
            counts.throttled,
            counts.timed_out,
            counts.dropped
        );
    }
}

fn latencies(text: &mut String, summary: &LoadSummary, detail: Detail) {
    let names: Vec<String> = summary.operations.iter().map(|named| named.name.replace('_', " ")).collect();
    let named = names.iter().zip(&summary.operations).map(|(name, named)| (name.as_str(), &named.summary));
    terminal::latency_table(text, &named.collect::<Vec<_>>());
    let dials = summary.operations.iter().find(|named| named.name == Operation::Connect.name());
    let samples = dials.map_or(0, |named| named.summary.counts.accepted);
    let phases: Vec<_> =
        summary.dial_phases_us.iter().map(|(name, latency)| (name.as_str(), samples, latency)).collect();
    if detail == Detail::Full {
        terminal::phase_table(text, &phases);
    }
}

fn thresholds(text: &mut String, summary: &LoadSummary) {
    if summary.thresholds.is_empty() {
        return;
    }
    line!(text, "\nthresholds:");
    let width = summary.thresholds.iter().map(|judged| judged.threshold.chars().count()).max().unwrap_or(0);
    for Judgement { threshold, passed, shown, .. } in &summary.thresholds {
        let verdict = if *passed { "pass" } else { "FAIL" };
        line!(text, "  {verdict}  {threshold:<width$}  measured {shown}");
    }
}
