//! Judged requests: how many, how many of them were lost, and how many were answered per second.
//!
//! Owns the counting.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::flight::{Judged, Sent};

/// The requests of one step.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    judged: u64,
    lost: u64,
    /// When the first and the last lost request were sent.
    losses: Option<(Duration, Duration)>,
    /// How many requests were answered between the first and the last loss.
    answered_between: u64,
    /// How many requests were answered since the last loss.
    answered_since: u64,
}

impl Sample {
    pub(super) fn add(&mut self, sent: &Sent, is_lost: bool) {
        self.judged += 1;
        if !is_lost {
            self.answered_since += u64::from(self.losses.is_some());
            return;
        }
        self.lost += 1;
        self.losses = Some((self.losses.map_or(sent.at, |(first, _)| first), sent.at));
        self.answered_between += std::mem::take(&mut self.answered_since);
    }

    pub(super) fn judged(&self) -> u64 {
        self.judged
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn share(&self) -> f64 {
        self.lost as f64 / self.judged.max(1) as f64
    }

    /// The log-likelihood of the losses, in nats, if `share` of all requests are lost.
    pub(super) fn likelihood(&self, share: f64) -> f64 {
        let term = |count: u64, share: f64| if count == 0 { 0.0 } else { count as f64 * share.ln() };
        term(self.lost, share) + term(self.judged - self.lost, 1.0 - share)
    }

    /// An upper bound of the share that is lost, allowing for sampling noise.
    pub(super) fn ceiling(&self) -> f64 {
        let (lost, judged) = (self.lost as f64, self.judged.max(1) as f64);
        (lost + lost.sqrt() + 1.0) / judged
    }

    /// The time from the first loss to the last.
    pub(super) fn span(&self) -> Duration {
        self.losses.map_or(Duration::ZERO, |(first, last)| last.saturating_sub(first))
    }

    /// Requests answered per second between losses: the limit, if the rate is the cause. `None` if the losses are too
    /// close.
    pub(super) fn answered_per_second(&self) -> Option<f64> {
        let span = self.span();
        (span >= Duration::from_secs(2)).then(|| self.answered_between as f64 / span.as_secs_f64())
    }

    /// The sum of both samples.
    pub(super) fn with(&self, other: &Self) -> Self {
        Self { judged: self.judged + other.judged, lost: self.lost + other.lost, ..Self::default() }
    }
}

/// The requests of the last minute, by the second in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Recent {
    seconds: VecDeque<Second>,
}

#[derive(Debug, Clone, Copy)]
struct Second {
    number: u64,
    judged: u64,
    lost: u64,
    /// The requests that no trial held to another rate: how many were judged, and how many of them lost.
    untried: (u64, u64),
}

const MINUTE: u64 = 60;

impl Recent {
    pub(super) fn add(&mut self, judged: &Judged, is_untried: bool) {
        let number = judged.sent.at.as_secs();
        if self.seconds.back().is_none_or(|last| last.number != number) {
            self.seconds.push_back(Second { number, judged: 0, lost: 0, untried: (0, 0) });
        }
        while self.seconds.front().is_some_and(|first| first.number + MINUTE < number) {
            self.seconds.pop_front();
        }
        let Some(second) = self.seconds.back_mut() else { return };
        second.judged += 1;
        second.lost += u64::from(judged.is_lost);
        if is_untried {
            second.untried.0 += 1;
            second.untried.1 += u64::from(judged.is_lost);
        }
    }

    /// Requests answered per second, over at most the last minute.
    pub(super) fn answered_per_second(&self, now: Duration) -> f64 {
        let Some(first) = self.seconds.front() else { return 0.0 };
        let answered: u64 = self.seconds.iter().map(|second| second.judged - second.lost).sum();
        let span = now.saturating_sub(Duration::from_secs(first.number)).as_secs_f64().min(MINUTE as f64);
        answered as f64 / span.max(1.0)
    }

    /// Whether recent losses are far above the baseline.
    pub(super) fn is_lossy(&self, baseline: f64) -> bool {
        let latest = self.seconds.iter().rev().take(3);
        let (judged, lost) =
            latest.fold((0, 0), |(judged, lost), second| (judged + second.judged, lost + second.lost));
        lost >= 3 && lost as f64 > (0.1 + 2.0 * baseline) * judged as f64
    }

    /// The requests that no trial held to another rate.
    pub(super) fn sample(&self) -> Sample {
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).sum();
        Sample {
            judged: sum(|second| second.untried.0),
            lost: sum(|second| second.untried.1),
            ..Sample::default()
        }
    }
}
