//! The contents of `fleetmint report`: every figure, before it becomes text, JSON or a page.
//!
//! The JSON has these fields; `docs/schema/report-v1.json` describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Comparison, FailureSummary, HeatMap, OperationSummary, ShardReport, Verdict};
use crate::metrics::threshold::Judgement;
use crate::metrics::{Arrivals, Counters, LatencyFigures};
use crate::results::{Bound, Devices, Site};

/// The version of the report's schema: raised when a field changes its meaning or is removed, not when one is added.
pub const REPORT_SCHEMA: u32 = 1;

/// One run, or several merged. Latencies are in microseconds; other units are in the field names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: u32,
    /// The title that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How it went, in one sentence.
    #[serde(default)]
    pub verdict: Verdict,
    /// The runs, the first one first.
    pub runs: Vec<Run>,
    /// Which shards the runs are; `None` if they are whole jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardReport>,
    /// How long at least one run was under way, in seconds, without the pauses that were cut out.
    pub elapsed_s: f64,
    /// Pauses between runs that were cut out of the timeline, in seconds.
    pub cut_out_s: f64,
    /// The figures that matter most.
    pub headline: Headline,
    /// The scheduled arrivals; `None` if no run had a schedule.
    pub arrivals: Option<ArrivalReport>,
    /// The operations that had attempts, in a device's order.
    pub operations: Vec<OperationReport>,
    /// The steps of opening a connection, each from the end of the one before; empty if none was opened.
    pub dial_phases: Vec<PhaseReport>,
    /// What went wrong, the most frequent first.
    pub failures: Vec<FailureSummary>,
    /// What else was counted: a field for each [`Counter`](crate::event::Counter).
    #[serde(flatten)]
    pub counters: Counters,
    /// The thresholds of the runs, judged over all runs together.
    pub thresholds: Vec<Judgement>,
    /// The slowest attempts by response time, the slowest first.
    pub slowest: Vec<SlowReport>,
    /// The run over time.
    pub timeline: Timeline,
    /// The baseline that it is compared with, and the changes; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What the figures show and what to do next, the most serious first.
    pub hints: Vec<Hint>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its results file.
    pub file: String,
    /// The program and its version.
    pub tool: String,
    /// The subcommand.
    pub verb: String,
    /// The command line.
    pub command: String,
    /// The instant of its second 0, RFC 3339.
    pub started_at: String,
    /// The position of its second 0 on the timeline, in seconds.
    pub begins_at_s: u64,
    /// From second 0 to its end, in seconds; to the end of its file if no end is recorded.
    pub elapsed_s: f64,
    /// How it ended; `no end` if its file records none: it crashed, or is still running.
    pub end: String,
    /// Why it ended so, in words.
    pub detail: String,
    /// Its schedule of arrivals, in words.
    pub offered: Option<String>,
    /// Its rate limits, per second, by operation.
    pub limits: BTreeMap<String, f64>,
    /// Its warm-up before second 0, in seconds; no figure includes it.
    pub warm_up_s: f64,
    /// Its settings by name, as text.
    pub settings: BTreeMap<String, String>,
    /// The devices of its ledger by state.
    pub devices: Option<Devices>,
    /// Where it worked; `None` if its file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// The lot, by the beginning of its digest; `None` for made-up devices, or if its file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lot: Option<String>,
    /// What limited it; `None` if that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// The service's own limits that it established, per second, by operation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found_per_s: BTreeMap<String, f64>,
}

/// The figures that matter most: those of the operation that the run was about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// The operation; `None` if nothing was attempted.
    pub operation: Option<String>,
    /// Arrivals due per second; `None` without a schedule.
    pub offered_per_s: Option<f64>,
    /// Accepted per second.
    pub accepted_per_s: f64,
    /// The share of attempts that were not accepted, 0 to 1.
    pub failed_share: f64,
}

/// The arrivals of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArrivalReport {
    /// The counts.
    #[serde(flatten)]
    pub counts: Arrivals,
    /// The share of due arrivals that were missed, 0 to 1.
    pub missed_share: f64,
    /// How late the generator itself handed them out, in microseconds.
    pub lateness_us: LatencyFigures,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationReport {
    /// Its name.
    pub operation: String,
    /// Counts and percentiles.
    #[serde(flatten)]
    pub summary: OperationSummary,
    /// Accepted per second.
    pub accepted_per_s: f64,
    /// The percentile curves.
    pub curve: Curves,
}

/// Percentile curves of the accepted attempts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Curves {
    /// Of the service time.
    pub service: Vec<CurvePoint>,
    /// Of the response time.
    pub response: Vec<CurvePoint>,
}

/// A point of a percentile curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// A share of the accepted attempts, 0 to 1.
    pub quantile: f64,
    /// The latency that this share did not exceed, in microseconds.
    pub us: u64,
}

/// A step of opening a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// How many dials completed it.
    pub count: u64,
    /// How long those dials took for it, in microseconds.
    pub us: LatencyFigures,
}

/// A slow attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowReport {
    /// The operation.
    pub operation: String,
    /// The device's key, or the number of the arrival.
    pub device: String,
    /// When it ended, in seconds on the timeline.
    pub second: u64,
    /// From sending to reply, in microseconds.
    pub service_us: u64,
    /// From the due instant to the reply, in microseconds.
    pub response_us: u64,
}

/// The run over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// How many seconds a point covers.
    pub point_s: u64,
    /// The points, in order, without gaps.
    pub points: Vec<Point>,
    /// How the response times of the headline's operation were spread over time; `None` if none was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat: Option<HeatMap>,
}

/// A few consecutive seconds. Counts are sums; percentiles are over all samples in these seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Point {
    /// Its first second on the timeline.
    pub second: u64,
    /// How many seconds it covers; the last point may have fewer.
    pub seconds: f64,
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Arrivals that were missed.
    pub missed: u64,
    /// The most open connections in these seconds.
    pub connections: u32,
    /// The most attempts under way in these seconds.
    pub in_flight: u32,
    /// The highest rate limit of the headline's operation in these seconds, per second, if all runs under way had one.
    pub limit_per_s: Option<f64>,
    /// Operations that had attempts, by name.
    pub operations: BTreeMap<String, PointOperation>,
    /// Failures by stage and cause, as `register_thing.throttled`.
    pub failures: BTreeMap<String, u64>,
}

/// One operation during a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PointOperation {
    /// Attempts that ended.
    pub attempts: u64,
    /// Attempts that were accepted.
    pub accepted: u64,
    /// Attempts that were refused.
    pub rejected: u64,
    /// Attempts that were refused for their rate.
    pub throttled: u64,
    /// Attempts that were not answered in time.
    pub timed_out: u64,
    /// Attempts that ended with their connection.
    pub dropped: u64,
    /// Service time of the accepted attempts.
    pub service_us: PointLatency,
    /// Response time of the accepted attempts.
    pub response_us: PointLatency,
}

/// Latencies during a few seconds, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PointLatency {
    /// Half took at most this long.
    pub p50: u64,
    /// 99 % took at most this long.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// Something that the figures show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// How much it matters.
    pub weight: Weight,
    /// What the figures show.
    pub finding: String,
    /// What it means, or what to do about it.
    pub advice: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The figures cannot be trusted, or a threshold was missed.
    Serious,
    /// Something could be better.
    Notable,
    /// Good to know.
    Fine,
}
