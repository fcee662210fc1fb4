//! What `fleetmint report` shows: every number of it, before it becomes text, JSON or a page.
//!
//! The JSON is this, field by field; `docs/schema/report-v1.json` describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FailureSummary, OperationSummary};
use crate::metrics::threshold::Judgement;
use crate::metrics::{Arrivals, Counters, LatencyFigures};
use crate::results::Devices;

/// The version of the report's schema: raised when a field changes its meaning or goes away, not when one is added.
pub const REPORT_SCHEMA: u32 = 1;

/// One run, or several merged. Latencies are in microseconds, all else as its name says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: u32,
    /// The runs, the first one first.
    pub runs: Vec<Run>,
    /// How long at least one run was under way, in seconds; pauses that were cut out are not in it.
    pub elapsed_s: f64,
    /// Pauses between runs that were cut out of the time line, in seconds.
    pub cut_out_s: f64,
    /// The figures that matter most.
    pub headline: Headline,
    /// What was due by a schedule; none if no run had one.
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
    /// The thresholds of the runs, judged of all runs together.
    pub thresholds: Vec<Judgement>,
    /// The slowest attempts by response time, the slowest first.
    pub slowest: Vec<SlowReport>,
    /// How it went over time.
    pub timeline: Timeline,
    /// What the numbers say, and what to do next, the weightiest first.
    pub hints: Vec<Hint>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its results file.
    pub file: String,
    /// The program and its version.
    pub tool: String,
    /// What it did.
    pub verb: String,
    /// The command line.
    pub command: String,
    /// The instant of its second 0, RFC 3339.
    pub started_at: String,
    /// Where its second 0 lies on the time line, in seconds.
    pub begins_at_s: u64,
    /// From second 0 to its end, in seconds; as far as its file goes if it has no end.
    pub elapsed_s: f64,
    /// How it ended; `no end` if its file has none: it crashed, or goes on.
    pub end: String,
    /// Why, in words.
    pub detail: String,
    /// Its schedule of arrivals, in words.
    pub offered: Option<String>,
    /// Its rate limits, per second, by operation.
    pub limits: BTreeMap<String, f64>,
    /// Its warm-up before second 0, which is in no figure, in seconds.
    pub warm_up_s: f64,
    /// Its settings by name, as text.
    pub settings: BTreeMap<String, String>,
    /// The devices of its ledger by state.
    pub devices: Option<Devices>,
}

/// The figures that matter most: those of the operation that the run was about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// The operation; none if nothing was attempted.
    pub operation: Option<String>,
    /// Arrivals due per second; none without a schedule.
    pub offered_per_s: Option<f64>,
    /// Accepted per second.
    pub accepted_per_s: f64,
    /// The share of attempts that were not accepted, 0 to 1.
    pub failed_share: f64,
}

/// What was due by a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArrivalReport {
    /// How many.
    #[serde(flatten)]
    pub counts: Arrivals,
    /// The share of those due that were missed, 0 to 1.
    pub missed_share: f64,
    /// How late the generator itself handed them out.
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
    /// The share of all, 0 to 1, …
    pub quantile: f64,
    /// … that took at most this.
    pub us: u64,
}

/// A step of opening a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// How many got through it.
    pub count: u64,
    /// How long it took those.
    pub us: LatencyFigures,
}

/// A slow attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowReport {
    /// What it was.
    pub operation: String,
    /// The device's key, or the arrival.
    pub device: String,
    /// When it ended, in seconds on the time line.
    pub second: u64,
    /// From sending to reply.
    pub service_us: u64,
    /// From due to reply.
    pub response_us: u64,
}

/// How it went over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// How many seconds a point stands for.
    pub point_s: u64,
    /// The points, in order, without a gap.
    pub points: Vec<Point>,
}

/// Some seconds. Counts are sums, percentiles are of all samples of these seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Point {
    /// The first of them on the time line.
    pub second: u64,
    /// How many there are; fewer at the end.
    pub seconds: f64,
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Arrivals that were missed.
    pub missed: u64,
    /// Open connections, the most of these seconds.
    pub connections: u32,
    /// Attempts under way, the most of these seconds.
    pub in_flight: u32,
    /// The rate limit of the headline's operation, per second, where all runs that were under way had one.
    pub limit_per_s: Option<f64>,
    /// Operations that had attempts, by name.
    pub operations: BTreeMap<String, PointOperation>,
    /// Failures by stage and cause, as `register_thing.throttled`.
    pub failures: BTreeMap<String, u64>,
}

/// An operation in some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PointOperation {
    /// Attempts that ended.
    pub attempts: u64,
    /// Ended well.
    pub accepted: u64,
    /// Refused.
    pub rejected: u64,
    /// Refused for their rate.
    pub throttled: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// Ended by the connection.
    pub dropped: u64,
    /// Service time of the accepted.
    pub service_us: PointLatency,
    /// Response time of the accepted.
    pub response_us: PointLatency,
}

/// Latencies in some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PointLatency {
    /// Half took at most this.
    pub p50: u64,
    /// 99 % took at most this.
    pub p99: u64,
    /// All took at most this.
    pub max: u64,
}

/// Something that the numbers say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// How it bears on the run.
    pub weight: Weight,
    /// What is so.
    pub finding: String,
    /// What it means, or what to do about it.
    pub advice: String,
}

/// How a finding bears on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The figures cannot be taken at their word, or a threshold was missed.
    Serious,
    /// Something could be better.
    Notable,
    /// Good to know.
    Fine,
}
