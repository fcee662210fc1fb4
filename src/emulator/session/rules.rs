//! What the scenario allows a connection, and how much of it is used: messages and bytes per second.
//!
//! Owns the connection's own quotas; the account's are owned by [`super::super::account`]. Does not wait itself.

use std::time::{Duration, Instant};

use super::super::account::{Counting, RateCounter};
use super::super::scenario::{Denials, Limits, Quota, Quotas, Scenario};

/// When a connection gets replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ReplyPolicy {
    /// Always: the service was observed to answer requesters without a subscription.
    ToRequester,
    /// Only if it has subscribed, as the documentation requires.
    ToSubscriber,
}

/// What the scenario allows a connection.
#[derive(Debug, Clone)]
pub(in super::super) struct Rules {
    pub(in super::super) replies: ReplyPolicy,
    pub(in super::super) limits: Limits,
    /// How a client is told of a denial.
    pub(super) denials: Denials,
    /// The quota of messages, in both directions together.
    pub(super) publish: Option<Quota>,
    pub(super) counting: Counting,
    /// Bytes per second in both directions together, and the burst: the time whose worth of bytes may come at once.
    pub(super) throughput: Option<(u32, Duration)>,
}

impl Rules {
    pub(in super::super) fn of(scenario: &Scenario) -> Self {
        let replies =
            if scenario.require_subscription { ReplyPolicy::ToSubscriber } else { ReplyPolicy::ToRequester };
        Self { denials: scenario.permissions, ..Self::new(replies, &scenario.quotas, scenario.limits) }
    }

    pub(in super::super) fn new(replies: ReplyPolicy, quotas: &Quotas, limits: Limits) -> Self {
        Self {
            replies,
            limits,
            denials: Denials::default(),
            publish: quotas.publish_per_connection.clone(),
            counting: Counting::of(quotas),
            throughput: quotas.bytes_per_connection.map(|bytes| (bytes, quotas.burst)),
        }
    }
}

/// How much of its quotas a connection has used.
#[derive(Debug)]
pub(in super::super) struct Usage {
    /// The emulator's start, which quotas count from.
    epoch: Instant,
    messages: RateCounter,
    /// When all bytes so far would have passed at the allowed rate.
    bytes_until: Instant,
}

impl Usage {
    pub(in super::super) fn new(epoch: Instant, now: Instant) -> Self {
        Self { epoch, messages: RateCounter::default(), bytes_until: now }
    }

    /// Whether one more message may pass at `now`. It is counted if so.
    pub(in super::super) fn message(&mut self, rules: &Rules, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.epoch);
        rules.publish.as_ref().is_none_or(|quota| self.messages.take(age, quota, rules.counting))
    }

    /// Counts this many bytes as passed.
    pub(super) fn bytes(&mut self, rules: &Rules, now: Instant, count: usize) {
        if let Some((per_second, _)) = rules.throughput {
            let takes = Duration::from_secs_f64(count as f64 / f64::from(per_second));
            self.bytes_until = self.bytes_until.max(now) + takes;
        }
    }

    /// Until when nothing more may pass; `None` if more may pass at `now`.
    pub(super) fn held_until(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        let (_, burst) = rules.throughput?;
        self.bytes_until.checked_sub(burst).filter(|until| *until > now)
    }
}
