//! From results files to one report.
//!
//! Merging adds histograms and counters, so the percentiles of several files are those of a single run with all their
//! samples. [`seconds`](super::seconds) aligns the files.

use std::path::PathBuf;
use std::time::Duration;

use super::compare;
use super::heat::{HeatMap, Spread};
use super::hints;
use super::model::{
    ArrivalReport, CurvePoint, Curves, Headline, OperationReport, PhaseReport, Point, PointLatency,
    PointOperation, REPORT_SCHEMA, Report, Run, SlowReport, Timeline,
};
use super::seconds::{Placed, Placement, Second};
use super::shards::{self, ShardReport};
use super::summary::{self, FailureSummary};
use super::under_way::{self, Span};
use super::verdict::{self, Verdict};
use crate::event::Operation;
use crate::instant;
use crate::metrics::threshold::{Demand, Judgement, Threshold};
use crate::metrics::{
    Arrivals, Latency, LatencyFigures, Metrics, OperationCounts, OperationMetrics, Slow, Slowest,
};
use crate::results::{Bound, Ending, Footer, Results, ResultsError, Site};
use crate::shard::Shard;
use crate::wording;

/// The most points on a timeline; more could not be told apart on a page.
pub const MAX_POINTS: u64 = 400;
/// Points of a percentile curve per additional nine of the percentage.
const CURVE_POINTS: u32 = 12;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A file cannot be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A run is named twice and would be counted twice.
    #[error("{} and {} are the same run, which would be counted twice; name it once", .0.display(), .1.display())]
    Twice(PathBuf, PathBuf),
    /// Two runs of the same shard of a load test; which one is meant is not guessed.
    #[error("{} and {} are both of shard {shard} of a load test, which would be counted twice; name the one that was meant", .first.display(), .second.display())]
    ShardTwice {
        /// The shard.
        shard: Shard,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Runs of different jobs.
    #[error("{} is of {}, and {} of {}: these are not parts of one job", .0.display(), .1, .2.display(), .3)]
    OtherCut(PathBuf, String, PathBuf, String),
}

/// Files of runs of one subcommand, which may be added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameVerb {
    /// The subcommand, as results files name it.
    pub verb: String,
    /// The files, in the given order.
    pub files: Vec<PathBuf>,
}

/// Groups `files` by subcommand, in the order of the first file of each: measurements of different subcommands must
/// not be added up.
///
/// # Errors
/// If the header of one of them cannot be read.
pub fn by_verb(files: &[PathBuf]) -> Result<Vec<SameVerb>, CompileError> {
    let mut groups: Vec<SameVerb> = Vec::new();
    for file in files {
        let verb = Results::open(file)?.header().verb.clone();
        match groups.iter_mut().find(|group| group.verb == verb) {
            Some(group) => group.files.push(file.clone()),
            None => groups.push(SameVerb { verb, files: vec![file.clone()] }),
        }
    }
    Ok(groups)
}

/// What a report is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Results files, at least one, all of runs of one subcommand.
    pub files: &'a [PathBuf],
    /// Those to compare with; none for a report by itself.
    pub baseline: &'a [PathBuf],
    /// Thresholds besides those of the runs. Those on changes need a baseline.
    pub thresholds: &'a [Demand],
    /// What to call it; by default, what the runs did.
    pub title: Option<&'a str>,
}

/// Reads and merges `files`, at least one, all of runs of one subcommand.
///
/// # Errors
/// If one of them cannot be read completely or is given twice, or if their shards do not fit together.
pub fn compile(files: &[PathBuf]) -> Result<Report, CompileError> {
    Request { files, ..Request::default() }.compile()
}

impl Request<'_> {
    /// Reads and merges the files.
    ///
    /// # Errors
    /// If one of them cannot be read completely or is given twice, or if their shards do not fit together.
    pub fn compile(&self) -> Result<Report, CompileError> {
        let mut new = Side::read(self.files)?;
        new.report.title = self.title.map(wording::clean);
        for threshold in self.thresholds {
            if let Demand::Threshold(threshold) = threshold {
                let judgement = threshold.judge(&new.total, new.time());
                if !new.report.thresholds.contains(&judgement) {
                    new.report.thresholds.push(judgement);
                }
            }
        }
        if !self.baseline.is_empty() {
            let old = Side::read(self.baseline)?;
            let mut comparison = compare::compare(&new.compared(), &old.compared())?;
            for threshold in self.thresholds {
                if let Demand::Change(change) = threshold {
                    let judgement = change.judge((&new.total, new.time()), (&old.total, old.time()));
                    comparison.thresholds.push(judgement);
                }
            }
            new.report.comparison = Some(comparison);
        }
        let mut report = new.report;
        report.hints = hints::of(&report);
        report.verdict = verdict::of(&report);
        Ok(report)
    }
}

/// Some files, and what they come to.
struct Side {
    placement: Placement,
    report: Report,
    total: Metrics,
}

impl Side {
    fn read(files: &[PathBuf]) -> Result<Self, CompileError> {
        let placement = Placement::of(files)?;
        let shards = shards::of(placement.runs.iter().map(|run| (run.file.as_path(), &run.extent)))?;
        let merged = merge(&placement)?;
        let total = merged.total.clone();
        Ok(Self { report: arrange(&placement, merged, shards), total, placement })
    }

    /// The measured time.
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.placement.elapsed_s)
    }

    fn compared(&self) -> compare::Side<'_> {
        compare::Side { report: &self.report, placement: &self.placement }
    }
}

/// The merged content of the files.
#[derive(Default)]
struct Merged {
    total: Metrics,
    points: Vec<Point>,
    /// How the response times of each operation were spread, for each point.
    spreads: Vec<[Spread; Operation::ALL.len()]>,
    point_s: u64,
}

impl Merged {
    fn push(&mut self, open: &OpenPoint, elapsed_s: f64) {
        self.points.push(open.close(self.point_s, elapsed_s));
        self.spreads
            .push(Operation::ALL.map(|operation| Spread::of(&open.metrics.operation(operation).response)));
    }

    /// The heat map of an operation.
    fn heat(&self, subject: Operation) -> Option<HeatMap> {
        let at = Operation::ALL.iter().position(|operation| *operation == subject)?;
        HeatMap::of(&self.spreads.iter().map(|spreads| spreads[at].clone()).collect::<Vec<_>>())
    }
}

fn merge(placement: &Placement) -> Result<Merged, CompileError> {
    let mut merged = Merged { point_s: point_length(placement.seconds()), ..Merged::default() };
    let mut open = OpenPoint::default();
    let mut seconds = placement.read()?;
    while let Some(Second { second, intervals, connections, in_flight }) = seconds.next()? {
        while second >= open.second + merged.point_s {
            let next = open.second + merged.point_s;
            merged.push(&open, placement.elapsed_s);
            open = OpenPoint { second: next, ..OpenPoint::default() };
        }
        for interval in &intervals {
            open.metrics.merge(&interval.metrics);
            merged.total.merge(&interval.metrics);
        }
        open.connections = open.connections.max(connections);
        open.in_flight = open.in_flight.max(in_flight);
    }
    if placement.seconds() > 0 {
        merged.push(&open, placement.elapsed_s);
    }
    Ok(merged)
}

/// How many seconds a point covers: the first of these lengths that results in few enough points.
fn point_length(seconds: u64) -> u64 {
    let lengths = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
    let hours = seconds.div_ceil(MAX_POINTS).div_ceil(3600) * 3600;
    lengths.into_iter().find(|length| seconds.div_ceil(*length) <= MAX_POINTS).unwrap_or(hours)
}

/// The point that is being summed up.
#[derive(Default)]
struct OpenPoint {
    second: u64,
    metrics: Metrics,
    connections: u32,
    in_flight: u32,
}

impl OpenPoint {
    fn close(&self, point_s: u64, elapsed_s: f64) -> Point {
        let metrics = &self.metrics;
        let operations = with_attempts(metrics)
            .map(|operation| (operation.name().to_owned(), point_operation(metrics.operation(operation))));
        let failures = metrics
            .failures
            .iter()
            .map(|((stage, cause), failures)| (format!("{stage}.{cause}"), failures.count));
        Point {
            second: self.second,
            seconds: (elapsed_s - self.second as f64).clamp(0.0, point_s as f64),
            scheduled: metrics.arrivals.scheduled,
            missed: metrics.arrivals.missed,
            connections: self.connections,
            in_flight: self.in_flight,
            limit_per_s: None,
            operations: operations.collect(),
            failures: failures.collect(),
        }
    }
}

fn with_attempts(metrics: &Metrics) -> impl DoubleEndedIterator<Item = Operation> {
    Operation::ALL.into_iter().filter(|operation| metrics.operation(*operation).counts.attempts > 0)
}

fn point_operation(metrics: &OperationMetrics) -> PointOperation {
    let OperationCounts { attempts, accepted, rejected, throttled, timed_out, dropped } = metrics.counts;
    PointOperation {
        attempts,
        accepted,
        rejected,
        throttled,
        timed_out,
        dropped,
        service_us: point_latency(&metrics.service),
        response_us: point_latency(&metrics.response),
    }
}

fn point_latency(latency: &Latency) -> PointLatency {
    let LatencyFigures { p50, p99, max, .. } = latency.figures();
    PointLatency { p50, p99, max }
}

fn arrange(placement: &Placement, merged: Merged, shards: Option<ShardReport>) -> Report {
    let elapsed_s = placement.elapsed_s;
    // The last one is what the run was about: the earlier ones only prepare it.
    let subject = with_attempts(&merged.total).next_back();
    let heat = subject.and_then(|subject| merged.heat(subject));
    let Merged { total, mut points, point_s, .. } = merged;
    if let Some(subject) = subject {
        let limits = limits(placement, subject);
        for point in &mut points {
            let (from, to) = (point.second as f64, (point.second + point_s) as f64);
            point.limit_per_s = under_way::most_between(&limits, from, to);
        }
    }
    let has_schedule = total.arrivals != Arrivals::default();
    Report {
        schema: REPORT_SCHEMA,
        title: None,
        verdict: Verdict::default(),
        comparison: None,
        runs: placement.runs.iter().map(run).collect(),
        shards,
        elapsed_s,
        cut_out_s: placement.cut_out_s,
        headline: headline(&total, subject, elapsed_s),
        arrivals: has_schedule.then(|| arrivals(&total)),
        operations: with_attempts(&total).map(|subject| operation(&total, subject, elapsed_s)).collect(),
        dial_phases: dial_phases(&total),
        failures: cleaned(summary::failures(&total)),
        counters: total.counters,
        thresholds: thresholds(placement, &total),
        slowest: slowest(&placement.runs),
        timeline: Timeline { point_s, points, heat },
        hints: Vec::new(),
    }
}

fn per_s(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn share(count: u64, of: u64) -> f64 {
    if of > 0 { count as f64 / of as f64 } else { 0.0 }
}

/// The runs with their limits.
fn limits(placement: &Placement, subject: Operation) -> Vec<Span> {
    let span = |run: &Placed| Span {
        begins_s: run.begins_at_s as f64,
        ends_s: run.begins_at_s as f64 + run.elapsed_s,
        per_s: run.extent.header.limits.get(subject.name()).copied(),
    };
    placement.runs.iter().map(span).collect()
}

fn run(placed: &Placed) -> Run {
    let header = &placed.extent.header;
    let (end, detail, devices) = match &placed.extent.ending {
        Ending::Footer(footer) => (footer.end.as_str(), footer.detail.as_str(), footer.devices),
        Ending::CutOff => ("no end", "its file has no end: the run crashed, was cut off, or goes on", None),
    };
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => wording::clean(text),
        value => wording::clean(&value.to_string()),
    };
    Run {
        file: wording::plain(&placed.file.display().to_string()),
        tool: wording::clean(&header.tool),
        verb: wording::clean(&header.verb),
        command: wording::clean(&header.command),
        started_at: instant::to_text(header.started_at),
        begins_at_s: placed.begins_at_s,
        elapsed_s: placed.elapsed_s,
        end: wording::clean(end),
        detail: wording::clean(detail),
        offered: header.offered.as_deref().map(wording::clean),
        limits: header.limits.clone(),
        warm_up_s: header.warm_up_s,
        settings: header.settings.iter().map(|(name, value)| (wording::clean(name), text(value))).collect(),
        devices,
        site: header.site.as_ref().map(|site| Site {
            endpoint: wording::clean(&site.endpoint),
            region: wording::clean(&site.region),
            host: site.host.as_deref().map(wording::clean),
            is_emulator: site.is_emulator,
        }),
        lot: header.lot.as_deref().map(wording::clean),
        bound: footer(placed).and_then(|footer| footer.bound.as_ref()).map(|bound| Bound {
            by: wording::clean(&bound.by),
            detail: wording::clean(&bound.detail),
            hint: wording::clean(&bound.hint),
        }),
        found_per_s: footer(placed).map(|footer| footer.found_per_s.clone()).unwrap_or_default(),
    }
}

fn headline(total: &Metrics, subject: Option<Operation>, elapsed_s: f64) -> Headline {
    let counts = subject.map_or_else(OperationCounts::default, |subject| total.operation(subject).counts);
    let scheduled = total.arrivals.scheduled;
    Headline {
        operation: subject.map(|subject| subject.name().to_owned()),
        offered_per_s: (scheduled > 0).then(|| per_s(scheduled, elapsed_s)),
        accepted_per_s: per_s(counts.accepted, elapsed_s),
        failed_share: counts.failed_share(),
    }
}

fn arrivals(total: &Metrics) -> ArrivalReport {
    let counts = total.arrivals;
    let missed_share = share(counts.missed, counts.scheduled);
    ArrivalReport { counts, missed_share, lateness_us: total.lateness.figures() }
}

fn operation(total: &Metrics, operation: Operation, elapsed_s: f64) -> OperationReport {
    let metrics = total.operation(operation);
    OperationReport {
        operation: operation.name().to_owned(),
        summary: metrics.into(),
        accepted_per_s: per_s(metrics.counts.accepted, elapsed_s),
        curve: Curves { service: curve(&metrics.service), response: curve(&metrics.response) },
    }
}

fn curve(latency: &Latency) -> Vec<CurvePoint> {
    latency.curve(CURVE_POINTS).into_iter().map(|(quantile, us)| CurvePoint { quantile, us }).collect()
}

fn dial_phases(total: &Metrics) -> Vec<PhaseReport> {
    let phases = total.dial_phases.each().into_iter().filter(|(_, latency)| latency.count() > 0);
    let report = |(phase, latency): (&str, &Latency)| PhaseReport {
        phase: phase.to_owned(),
        count: latency.count(),
        us: latency.figures(),
    };
    phases.map(report).collect()
}

fn cleaned(failures: Vec<FailureSummary>) -> Vec<FailureSummary> {
    let clean =
        |failure: FailureSummary| FailureSummary { example: wording::clean(&failure.example), ..failure };
    failures.into_iter().map(clean).collect()
}

/// The thresholds of all runs, each once, evaluated on what all runs measured.
fn thresholds(placement: &Placement, total: &Metrics) -> Vec<Judgement> {
    let time = Duration::from_secs_f64(placement.elapsed_s);
    let mut judgements: Vec<Judgement> = Vec::new();
    for demanded in placement.runs.iter().filter_map(footer).flat_map(|footer| &footer.thresholds) {
        let judgement = match demanded.threshold.parse::<Threshold>() {
            Ok(threshold) => threshold.judge(total, time),
            // A version with other quantities wrote it: only its own judgement of its own run is available.
            Err(_) => demanded.clone(),
        };
        let judgement = Judgement {
            threshold: wording::clean(&judgement.threshold),
            shown: wording::clean(&judgement.shown),
            ..judgement
        };
        if !judgements.contains(&judgement) {
            judgements.push(judgement);
        }
    }
    judgements
}

fn footer(run: &Placed) -> Option<&Footer> {
    match &run.extent.ending {
        Ending::Footer(footer) => Some(footer),
        Ending::CutOff => None,
    }
}

fn slowest(runs: &[Placed]) -> Vec<SlowReport> {
    let mut slowest = Slowest::default();
    for run in runs {
        for slow in footer(run).into_iter().flat_map(|footer| footer.slowest.iter()) {
            slowest.offer(Slow { second: slow.second.saturating_add(run.begins_at_s), ..slow.clone() });
        }
    }
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let report = |slow: &Slow| SlowReport {
        operation: slow.operation.name().to_owned(),
        device: wording::plain(&slow.device),
        second: slow.second,
        service_us: us(slow.service),
        response_us: us(slow.response),
    };
    slowest.iter().map(report).collect()
}
