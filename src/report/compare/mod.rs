//! Two reports beside each other: every figure before and after, and whether it changed by more than noise.
//!
//! Owns which figures are compared and what the result is. [`noise`] says how much a figure changes by chance, [`blocks`]
//! cuts runs into the parts that it needs.

mod blocks;
mod noise;
mod text;

use serde::{Deserialize, Serialize};

use super::compile::CompileError;
use super::model::{OperationReport, Report, Run};
use super::seconds::Placement;
use crate::metrics::LatencyFigures;
use crate::metrics::threshold::{Judgement, relative};

pub(super) use text::{cells, how, render};

/// From this many samples on, there is a 99.9th percentile.
pub(super) const LEAST_FOR_P99_9: u64 = 1_000;

/// A report compared with that of a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The runs of the baseline.
    pub baseline: Vec<Run>,
    /// How long at least one of them was under way, in seconds.
    pub elapsed_s: f64,
    /// How many blocks each side was cut into; 0 if the runs are too short to tell changes from noise.
    pub blocks: usize,
    /// The figures, side by side.
    pub figures: Vec<Change>,
    /// The thresholds on changes.
    pub thresholds: Vec<Judgement>,
}

/// A figure of both reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its name, as thresholds have it, such as `register_thing.p99`.
    pub figure: String,
    /// What it is measured in.
    pub unit: Unit,
    /// The baseline's; `None` if it has none.
    pub old: Option<f64>,
    /// This report's; `None` if it has none.
    pub new: Option<f64>,
    /// The change: relative to the baseline, or the difference of two shares. `None` if there is nothing to compare.
    pub change: Option<f64>,
    /// The largest change that is still noise; `None` if that cannot be told.
    pub noise: Option<f64>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Microseconds; less is better.
    Us,
    /// Per second; more is better.
    PerS,
    /// A share from 0 to 1 of what should not have happened; less is better.
    Share,
}

/// What to make of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More than noise, for the better.
    Better,
    /// More than noise, for the worse.
    Worse,
    /// No more than noise.
    Noise,
    /// It cannot be told.
    Untested,
}

/// A report, and where its files are on the timeline.
pub(super) struct Side<'a> {
    pub(super) report: &'a Report,
    pub(super) placement: &'a Placement,
}

/// Compares `new` with `old`; thresholds are still to be judged.
pub(super) fn compare(new: &Side<'_>, old: &Side<'_>) -> Result<Comparison, CompileError> {
    let mut figures = figures(new.report, old.report);
    let blocks = noise::blocks(new.placement, old.placement);
    if blocks > 0 {
        let cut = |side: &Side<'_>| blocks::cut(side.placement, blocks);
        noise::judge(&mut figures, &cut(new)?, &cut(old)?);
    }
    Ok(Comparison {
        baseline: old.report.runs.clone(),
        elapsed_s: old.report.elapsed_s,
        blocks,
        figures,
        thresholds: Vec::new(),
    })
}

/// All figures of both reports, side by side.
fn figures(new: &Report, old: &Report) -> Vec<Change> {
    let of = |report: &Report, name: &str| -> Vec<(String, Unit, f64)> {
        let operation = report.operation(name);
        operation.map(of_operation).unwrap_or_default()
    };
    let mut changes = Vec::new();
    for name in operations(new, old) {
        let (new, old) = (of(new, &name), of(old, &name));
        let names = new.iter().chain(&old).map(|(figure, unit, _)| (figure.clone(), *unit));
        let mut seen: Vec<(String, Unit)> = Vec::new();
        names.for_each(|one| {
            if !seen.contains(&one) {
                seen.push(one)
            }
        });
        let value = |all: &[(String, Unit, f64)], figure: &str| {
            all.iter().find(|(name, ..)| name == figure).map(|(.., value)| *value)
        };
        changes.extend(seen.into_iter().map(|(figure, unit)| {
            let (new, old) = (value(&new, &figure), value(&old, &figure));
            let change = change(unit, new, old);
            Change { figure, unit, old, new, change, noise: None, verdict: Verdict::Untested }
        }));
    }
    changes
}

/// The operations of either report: what the runs were about first.
fn operations(new: &Report, old: &Report) -> Vec<String> {
    let all = new.operations.iter().rev().chain(old.operations.iter().rev());
    let mut names: Vec<String> = Vec::new();
    all.for_each(|one| {
        if !names.contains(&one.operation) {
            names.push(one.operation.clone())
        }
    });
    names
}

/// The figures of an operation, by name.
fn of_operation(operation: &OperationReport) -> Vec<(String, Unit, f64)> {
    let named = |figure: &str| format!("{}.{figure}", operation.operation);
    let counts = operation.summary.counts;
    let mut figures = vec![
        (named("accepted"), Unit::PerS, operation.accepted_per_s),
        (named("failed"), Unit::Share, counts.failed_share()),
    ];
    if counts.accepted == 0 {
        return figures;
    }
    let sides = [("response", &operation.summary.response_us), ("service", &operation.summary.service_us)];
    for (side, latencies) in sides {
        let LatencyFigures { p50, p90, p99, p99_9, mean, .. } = *latencies;
        let all = [
            ("p50", p50 as f64),
            ("p90", p90 as f64),
            ("p99", p99 as f64),
            ("p99.9", p99_9 as f64),
            ("mean", mean),
        ];
        let is_shown = |figure: &str| figure != "p99.9" || counts.accepted >= LEAST_FOR_P99_9;
        let shown = all.into_iter().filter(|(figure, _)| is_shown(figure));
        figures.extend(shown.map(|(figure, us)| (named(&format!("{side}.{figure}")), Unit::Us, us)));
    }
    figures
}

/// The change from `old` to `new`.
fn change(unit: Unit, new: Option<f64>, old: Option<f64>) -> Option<f64> {
    match (unit, new?, old?) {
        (Unit::Share, new, old) => Some(new - old),
        (_, new, old) => relative(new, old),
    }
}

impl Change {
    /// Whether it is worse than before, whatever the noise.
    fn is_worse(&self) -> bool {
        let more = self.change.is_some_and(|change| change > 0.0);
        more != (self.unit == Unit::PerS)
    }
}
