//! From results files to one report.
//!
//! Merging adds histograms and counters, so the percentiles of several files are those of a single run with all their
//! samples. Files are aligned by their machines' wall clocks, to the second; pauses of more than [`LONGEST_PAUSE_S`]
//! in which no run was under way are cut out. Reads the files twice, in constant memory: first for their length, then
//! for their figures.

use std::fs::File;
use std::io::BufReader;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::hints;
use super::model::{
    ArrivalReport, CurvePoint, Curves, Headline, OperationReport, PhaseReport, Point, PointLatency,
    PointOperation, REPORT_SCHEMA, Report, Run, SlowReport, Timeline,
};
use super::shards::{self, ShardReport};
use super::summary::{self, FailureSummary};
use crate::event::Operation;
use crate::instant;
use crate::metrics::threshold::{Judgement, Threshold};
use crate::metrics::{
    Arrivals, Interval, Latency, LatencyFigures, Metrics, OperationCounts, OperationMetrics, Slow, Slowest,
};
use crate::results::{self, Ending, Extent, Footer, Results, ResultsError};
use crate::shard::Shard;
use crate::wording;

/// The longest pause between two runs that stays on the timeline, in seconds.
pub const LONGEST_PAUSE_S: f64 = 10.0;
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

/// Reads and merges `files`, at least one, all of runs of one subcommand.
///
/// # Errors
/// If one of them cannot be read completely or is given twice, or if their shards do not fit together.
pub fn compile(files: &[PathBuf]) -> Result<Report, CompileError> {
    let placed = place(files)?;
    let shards = shards::of(placed.runs.iter().map(|run| (run.file.as_path(), &run.extent)))?;
    let merged = merge(&placed)?;
    Ok(arrange(&placed, merged, shards))
}

/// A file and its position on the timeline.
struct Placed {
    file: PathBuf,
    extent: Extent,
    elapsed_s: f64,
    /// The position of its second 0, in seconds after the first run's.
    begins_at_s: u64,
}

/// All files in the order of their start, and the timeline that they form.
struct Placement {
    runs: Vec<Placed>,
    elapsed_s: f64,
    cut_out_s: f64,
}

fn place(files: &[PathBuf]) -> Result<Placement, CompileError> {
    let mut found: Vec<(PathBuf, Extent)> = Vec::with_capacity(files.len());
    for file in files {
        let extent = results::extent(file)?;
        if let Some((first, _)) = found.iter().find(|(_, other)| *other == extent) {
            return Err(CompileError::Twice(first.clone(), file.clone()));
        }
        found.push((file.clone(), extent));
    }
    found.sort_by_key(|(_, extent)| extent.header.started_at);
    let first = found.first().map_or(SystemTime::UNIX_EPOCH, |(_, extent)| extent.header.started_at);
    let mut placement = Placement { runs: Vec::with_capacity(found.len()), elapsed_s: 0.0, cut_out_s: 0.0 };
    for (file, extent) in found {
        let elapsed_s = match &extent.ending {
            Ending::Footer(footer) => footer.elapsed_s,
            Ending::CutOff => extent.seconds as f64,
        };
        let since = extent.header.started_at.duration_since(first).unwrap_or(Duration::ZERO).as_secs_f64();
        let mut begins = since - placement.cut_out_s;
        let pause = begins - placement.elapsed_s;
        if pause > LONGEST_PAUSE_S {
            placement.cut_out_s += pause;
            begins = placement.elapsed_s;
        }
        placement.elapsed_s = placement.elapsed_s.max(begins + elapsed_s);
        placement.runs.push(Placed { file, extent, elapsed_s, begins_at_s: begins.round() as u64 });
    }
    Ok(placement)
}

/// The merged content of the files.
struct Merged {
    total: Metrics,
    points: Vec<Point>,
    point_s: u64,
}

fn merge(placement: &Placement) -> Result<Merged, CompileError> {
    let mut readers = Vec::with_capacity(placement.runs.len());
    for run in &placement.runs {
        readers.push(Reader::open(&run.file, run.begins_at_s)?);
    }
    let seconds = placement.runs.iter().map(|run| run.begins_at_s + run.extent.seconds).max().unwrap_or(0);
    let mut merged = Merged { total: Metrics::default(), points: Vec::new(), point_s: point_length(seconds) };
    let mut open = OpenPoint::default();
    while let Some(second) = next_second(&mut readers)? {
        // A run that is still writing may have grown since its length was read; the rest is left for the next report.
        if second >= seconds {
            break;
        }
        while second >= open.second + merged.point_s {
            let next = open.second + merged.point_s;
            merged.points.push(open.close(merged.point_s, placement.elapsed_s));
            open = OpenPoint { second: next, ..OpenPoint::default() };
        }
        for reader in &mut readers {
            if let Some(interval) = reader.take(second) {
                open.metrics.merge(&interval.metrics);
                merged.total.merge(&interval.metrics);
            }
        }
        let sum = |of: fn(&Reader) -> u32| readers.iter().map(of).fold(0, u32::saturating_add);
        open.connections = open.connections.max(sum(|reader| reader.connections));
        open.in_flight = open.in_flight.max(sum(|reader| reader.in_flight));
    }
    if seconds > 0 {
        merged.points.push(open.close(merged.point_s, placement.elapsed_s));
    }
    Ok(merged)
}

/// How many seconds a point covers: the first of these lengths that results in few enough points.
fn point_length(seconds: u64) -> u64 {
    let lengths = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
    let hours = seconds.div_ceil(MAX_POINTS).div_ceil(3600) * 3600;
    lengths.into_iter().find(|length| seconds.div_ceil(*length) <= MAX_POINTS).unwrap_or(hours)
}

/// Reads one file along the timeline.
struct Reader {
    intervals: Peekable<Results<BufReader<File>>>,
    begins_at_s: u64,
    /// As of the last second read; 0 after the end.
    connections: u32,
    in_flight: u32,
}

impl Reader {
    fn open(file: &Path, begins_at_s: u64) -> Result<Self, ResultsError> {
        let intervals = Results::open(file)?.peekable();
        Ok(Self { intervals, begins_at_s, connections: 0, in_flight: 0 })
    }

    /// The second of its next interval.
    fn next_second(&mut self) -> Result<Option<u64>, ResultsError> {
        if let Some(Err(error)) = self.intervals.next_if(Result::is_err) {
            return Err(error);
        }
        let next = self.intervals.peek();
        Ok(next.and_then(|next| next.as_ref().ok()).map(|interval| self.begins_at_s + interval.second))
    }

    fn take(&mut self, second: u64) -> Option<Interval> {
        let begins_at_s = self.begins_at_s;
        let is_due = |next: &Result<Interval, ResultsError>| {
            next.as_ref().is_ok_and(|interval| begins_at_s + interval.second == second)
        };
        if self.intervals.peek().is_none() {
            (self.connections, self.in_flight) = (0, 0);
        }
        let interval = self.intervals.next_if(is_due)?.ok()?;
        (self.connections, self.in_flight) = (interval.connections, interval.in_flight);
        Some(interval)
    }
}

/// The earliest second that any file still has.
fn next_second(readers: &mut [Reader]) -> Result<Option<u64>, ResultsError> {
    let mut next = None;
    for reader in readers {
        let second = reader.next_second()?;
        next = next.into_iter().chain(second).min();
    }
    Ok(next)
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
    let Merged { total, mut points, point_s } = merged;
    let elapsed_s = placement.elapsed_s;
    // The last one is what the run was about: the earlier ones only prepare it.
    let subject = with_attempts(&total).next_back();
    if let Some(subject) = subject {
        points.iter_mut().for_each(|point| point.limit_per_s = limit(placement, subject, point, point_s));
    }
    let has_schedule = total.arrivals != Arrivals::default();
    let mut report = Report {
        schema: REPORT_SCHEMA,
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
        timeline: Timeline { point_s, points },
        hints: Vec::new(),
    };
    report.hints = hints::of(&report);
    report
}

fn per_s(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn share(count: u64, of: u64) -> f64 {
    if of > 0 { count as f64 / of as f64 } else { 0.0 }
}

/// The sum of the limits of the runs under way; `None` if there was none, or one of them had no limit.
fn limit(placement: &Placement, subject: Operation, point: &Point, point_s: u64) -> Option<f64> {
    let is_under_way = |run: &&Placed| {
        run.begins_at_s < point.second + point_s && run.begins_at_s + run.extent.seconds > point.second
    };
    let limits = placement.runs.iter().filter(is_under_way);
    let limits = limits.map(|run| run.extent.header.limits.get(subject.name()).copied());
    limits.collect::<Option<Vec<f64>>>().filter(|limits| !limits.is_empty()).map(|limits| limits.iter().sum())
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
    }
}

fn headline(total: &Metrics, subject: Option<Operation>, elapsed_s: f64) -> Headline {
    let counts = subject.map_or_else(OperationCounts::default, |subject| total.operation(subject).counts);
    let scheduled = total.arrivals.scheduled;
    Headline {
        operation: subject.map(|subject| subject.name().to_owned()),
        offered_per_s: (scheduled > 0).then(|| per_s(scheduled, elapsed_s)),
        accepted_per_s: per_s(counts.accepted, elapsed_s),
        failed_share: share(counts.attempts - counts.accepted, counts.attempts),
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
