//! The summary of a run, as `--summary-json` writes it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Operation;
use crate::ledger::Counts;
use crate::metrics::{Counters, LatencyFigures, Metrics, OperationCounts, OperationMetrics};
use crate::results::{Bound, Devices};
use crate::usage::Usage;

/// The version of the summary's schema: raised when a field changes its meaning or is removed, not when one is added.
pub const SCHEMA: u32 = 1;

/// The results of a run. Latencies are in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How the run ended: `complete`, `drained`, `aborted`, `stopped`, `ledger_failed` or `bug`.
    pub outcome: String,
    /// How long the run took, in seconds.
    pub elapsed_s: f64,
    /// The lot's devices by state, over all runs of its ledger.
    pub devices: DeviceSummary,
    /// This run's operations.
    pub operations: OperationSummaries,
    /// The steps of this run's dials, in microseconds.
    pub dial_phases_us: PhaseSummaries,
    /// This run's failures by reason, most frequent first.
    pub failures: Vec<FailureSummary>,
    /// What else was counted: a field for each [`Counter`](crate::event::Counter).
    #[serde(flatten)]
    pub counters: Counters,
    /// How long the devices still open will take at this run's speed, in seconds; `None` if none is open, or if this
    /// run registered none.
    #[serde(default)]
    pub eta_s: Option<f64>,
    /// What limited the run; `None` in summaries written before this was measured.
    #[serde(default)]
    pub bound: Option<Bound>,
    /// How the rate limits were used.
    #[serde(default)]
    pub limits: Vec<LimitSummary>,
    /// How long requests waited because the service answered none, in seconds.
    #[serde(default)]
    pub outage_s: f64,
}

/// How a rate limit was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitSummary {
    /// The name of the operation that it limits.
    pub operation: String,
    /// The limit as requested: a rate, `auto` or `unlimited`.
    pub asked: String,
    /// The service's own limit, per second, once it is established.
    pub found_per_s: Option<f64>,
    /// How that limit is known, in words.
    pub found_by: Option<String>,
    /// The share of requests, 0 to 1, that are never answered at any rate, if a test has shown it.
    pub unanswered: Option<f64>,
    /// How long it held requests back while the service answered, in seconds.
    pub held_s: f64,
}

/// Devices by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// All devices of the lot.
    pub total: u64,
    /// Confirmed by the service.
    pub registered: u64,
    /// Refused by the service for good.
    pub rejected: u64,
    /// A registration was published, its answer never came, and nothing can settle the outcome.
    pub unknown: u64,
    /// A registration was published and its answer never came; the next run may settle the outcome. Older summaries
    /// count these as unknown.
    #[serde(default)]
    pub unsettled: u64,
    /// Still to do; none of them can be registered yet.
    pub pending: u64,
}

impl From<Counts> for DeviceSummary {
    fn from(counts: Counts) -> Self {
        Self {
            total: counts.total(),
            registered: counts.registered,
            rejected: counts.rejected,
            unknown: counts.unknown,
            unsettled: counts.issued_may_sent,
            pending: counts.pending + counts.issued_not_sent,
        }
    }
}

impl From<Counts> for Devices {
    fn from(counts: Counts) -> Self {
        let DeviceSummary { total, registered, rejected, unknown, unsettled, pending } = counts.into();
        Self { total, registered, rejected, unknown, unsettled, pending }
    }
}

/// The operations, one entry each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationSummaries {
    /// Opening connections.
    pub connect: OperationSummary,
    /// CreateKeysAndCertificate.
    pub create_certificate: OperationSummary,
    /// RegisterThing.
    pub register_thing: OperationSummary,
}

/// An operation's attempts, and the latencies of the accepted ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationSummary {
    /// How the attempts ended.
    #[serde(flatten)]
    pub counts: OperationCounts,
    /// From sending the request to its reply, in microseconds.
    pub service_us: LatencyFigures,
    /// From the instant the attempt was due to its reply, in microseconds: includes waiting for a limit or a
    /// connection.
    pub response_us: LatencyFigures,
}

impl From<&OperationMetrics> for OperationSummary {
    fn from(metrics: &OperationMetrics) -> Self {
        Self {
            counts: metrics.counts,
            service_us: metrics.service.figures(),
            response_us: metrics.response.figures(),
        }
    }
}

/// The steps of a dial, each from the end of the one before, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummaries {
    /// Name lookup and TCP.
    pub tcp: LatencyFigures,
    /// TLS handshake.
    pub tls: LatencyFigures,
    /// HTTP upgrade.
    pub upgrade: LatencyFigures,
    /// CONNECT to CONNACK.
    pub connack: LatencyFigures,
    /// SUBSCRIBE to SUBACK.
    pub suback: LatencyFigures,
}

/// Failures for the same reason; for a kind of failure with very many reasons, one entry covers the remaining ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureSummary {
    /// The stage's name.
    pub stage: String,
    /// The cause's name.
    pub cause: String,
    /// How often.
    pub count: u64,
    /// The first of them, in words.
    pub example: String,
    /// What to do about it; empty if nothing.
    pub hint: String,
}

impl Summary {
    /// Summarizes the results of a run.
    pub fn new(outcome: &str, elapsed: Duration, devices: Counts, metrics: &Metrics) -> Self {
        let operation = |operation| OperationSummary::from(metrics.operation(operation));
        Self {
            schema: SCHEMA,
            outcome: outcome.to_owned(),
            elapsed_s: elapsed.as_secs_f64(),
            devices: devices.into(),
            operations: OperationSummaries {
                connect: operation(Operation::Connect),
                create_certificate: operation(Operation::CreateCertificate),
                register_thing: operation(Operation::RegisterThing),
            },
            dial_phases_us: PhaseSummaries {
                tcp: metrics.dial_phases.tcp.figures(),
                tls: metrics.dial_phases.tls.figures(),
                upgrade: metrics.dial_phases.upgrade.figures(),
                connack: metrics.dial_phases.connack.figures(),
                suback: metrics.dial_phases.suback.figures(),
            },
            failures: failures(metrics),
            counters: metrics.counters,
            eta_s: eta_s(elapsed, devices, metrics),
            bound: None,
            limits: Vec::new(),
            outage_s: 0.0,
        }
    }

    /// The summary, with what limited the run and how its limits were used.
    pub fn with_usage(self, usage: &Usage) -> Self {
        let bound = usage.bound();
        let limits = usage.limits.iter().map(|limit| LimitSummary {
            operation: limit.operation.name().to_owned(),
            asked: limit.asked.to_string(),
            found_per_s: limit.found.map(|found| found.rate),
            found_by: limit.found.map(|found| found.by.to_string()),
            unanswered: limit.unanswered,
            held_s: limit.held.as_secs_f64(),
        });
        Self {
            bound: Some(Bound { by: bound.name().to_owned(), detail: bound.to_string(), hint: bound.hint() }),
            limits: limits.collect(),
            outage_s: usage.outage.as_secs_f64(),
            ..self
        }
    }
}

impl Summary {
    /// The service's own limits by operation name, per second, as far as they were established.
    pub fn found_per_s(&self) -> BTreeMap<String, f64> {
        let found = |limit: &LimitSummary| Some((limit.operation.clone(), limit.found_per_s?));
        self.limits.iter().filter_map(found).collect()
    }
}

fn eta_s(elapsed: Duration, devices: Counts, metrics: &Metrics) -> Option<f64> {
    let registered = metrics.operation(Operation::RegisterThing).counts.accepted;
    (devices.open() > 0 && registered > 0)
        .then(|| devices.open() as f64 * elapsed.as_secs_f64() / registered as f64)
}

/// The failures by reason, most frequent first.
pub(super) fn failures(metrics: &Metrics) -> Vec<FailureSummary> {
    let by_reason = metrics.failures.iter().flat_map(|((stage, cause), failures)| {
        let summary = |count, example, hint: &str| FailureSummary {
            stage: (*stage).to_owned(),
            cause: (*cause).to_owned(),
            count,
            example,
            hint: hint.to_owned(),
        };
        let told = failures.reasons.iter().map(move |reason| {
            let example = &reason.example;
            summary(reason.count, example.to_string(), example.hint())
        });
        let others = (failures.others() > 0).then(|| {
            let example = format!("{} at {stage}, for further reasons", cause.replace('_', " "));
            summary(failures.others(), example, failures.example.hint())
        });
        told.chain(others)
    });
    let mut failures: Vec<_> = by_reason.collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    failures
}
