//! How attempts ended, and how long the accepted ones took.

use crate::event::{DialPhases, Timing};
use crate::failure::{Cause, Failure};

use super::Latency;

/// How the attempts of one operation ended: every attempt is in exactly one of the five ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct OperationCounts {
    /// Attempts made.
    pub attempts: u64,
    /// Accepted by the service.
    pub accepted: u64,
    /// Refused by the service, for another reason than their rate.
    pub rejected: u64,
    /// Refused by the service for their rate (429).
    pub throttled: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// Ended by the connection: closed, unreachable, or an answer that could not be used.
    pub dropped: u64,
}

impl OperationCounts {
    /// All attempts that were not accepted.
    pub fn failed(&self) -> u64 {
        self.attempts.saturating_sub(self.accepted)
    }

    /// The share of attempts that were not accepted, from 0 to 1; 0 without attempts.
    pub fn failed_share(&self) -> f64 {
        self.failed() as f64 / self.attempts.max(1) as f64
    }

    fn add(&mut self, end: Result<(), &Failure>) {
        self.attempts += 1;
        *self.end(end) += 1;
    }

    fn end(&mut self, end: Result<(), &Failure>) -> &mut u64 {
        let Err(failure) = end else { return &mut self.accepted };
        if failure.is_throttle() {
            return &mut self.throttled;
        }
        match &failure.cause {
            Cause::Rejected { .. }
            | Cause::UpgradeRefused { .. }
            | Cause::ConnectRefused { .. }
            | Cause::SubscriptionRefused { .. }
            | Cause::Credentials { .. } => &mut self.rejected,
            Cause::TimedOut { .. } | Cause::NoPuback { .. } | Cause::NoReply { .. } => &mut self.timed_out,
            Cause::Unresolvable { .. }
            | Cause::Unreachable { .. }
            | Cause::Tls { .. }
            | Cause::Closed { .. }
            | Cause::Garbled { .. }
            | Cause::Anomaly { .. }
            | Cause::TokenExpired => &mut self.dropped,
        }
    }

    /// Adds the other's.
    pub fn merge(&mut self, other: &Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.throttled = self.throttled.saturating_add(other.throttled);
        self.timed_out = self.timed_out.saturating_add(other.timed_out);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}

/// One operation's attempts and, of the accepted ones, both latencies.
#[derive(Debug, Clone, Default)]
pub struct OperationMetrics {
    /// How the attempts ended.
    pub counts: OperationCounts,
    /// Service time of accepted attempts: from sending the request to its reply.
    pub service: Latency,
    /// Response time of accepted attempts: from the instant the attempt was due, so waiting at a limit is in it.
    pub response: Latency,
}

impl OperationMetrics {
    pub(super) fn record(&mut self, timing: Timing, outcome: Result<(), &Failure>) {
        self.counts.add(outcome);
        if outcome.is_ok() {
            self.service.record(timing.service);
            self.response.record(timing.response());
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.service.merge(&other.service);
        self.response.merge(&other.response);
    }
}

/// The latencies of the steps of opening a connection.
#[derive(Debug, Clone, Default)]
pub struct DialPhaseLatencies {
    /// Name lookup and TCP.
    pub tcp: Latency,
    /// TLS handshake.
    pub tls: Latency,
    /// HTTP upgrade.
    pub upgrade: Latency,
    /// CONNECT to CONNACK.
    pub connack: Latency,
    /// SUBSCRIBE to SUBACK.
    pub suback: Latency,
}

impl DialPhaseLatencies {
    /// Names and latencies, in order.
    pub fn each(&self) -> [(&'static str, &Latency); 5] {
        [
            ("tcp", &self.tcp),
            ("tls", &self.tls),
            ("upgrade", &self.upgrade),
            ("connack", &self.connack),
            ("suback", &self.suback),
        ]
    }

    /// Names and latencies, mutable, in order.
    pub fn each_mut(&mut self) -> [(&'static str, &mut Latency); 5] {
        [
            ("tcp", &mut self.tcp),
            ("tls", &mut self.tls),
            ("upgrade", &mut self.upgrade),
            ("connack", &mut self.connack),
            ("suback", &mut self.suback),
        ]
    }

    pub(super) fn record(&mut self, phases: &DialPhases) {
        let DialPhases { tcp, tls, upgrade, connack, suback } = *phases;
        for ((_, latency), phase) in self.each_mut().into_iter().zip([tcp, tls, upgrade, connack, suback]) {
            if let Some(phase) = phase {
                latency.record(phase);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for ((_, ours), (_, theirs)) in self.each_mut().into_iter().zip(other.each()) {
            ours.merge(theirs);
        }
    }
}
