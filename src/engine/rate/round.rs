//! Requests sent at one rate, or at one that grew slowly, and their answers.
//!
//! Owns whether a throttled round was plainly too fast.

use std::time::Duration;

use super::flight::Sent;

/// Requests sent at one rate, or at one that grew slowly.
#[derive(Clone, Copy, Default)]
pub(super) struct Round {
    /// The number of the first request.
    pub(super) first: u64,
    pub(super) began: Duration,
    pub(super) sent: u64,
    pub(super) accepted: u64,
    throttled: u64,
    /// How often a throttle followed an acceptance.
    turns: u32,
    is_last_accepted: bool,
    /// When the first and the last throttled request were sent.
    span: Option<(Duration, Duration)>,
}

impl Round {
    /// A round that begins at `began` with the request numbered `first`.
    pub(super) fn new(first: u64, began: Duration) -> Self {
        Self { first, began, ..Self::default() }
    }

    pub(super) fn accept(&mut self, number: u64) {
        if number >= self.first {
            self.accepted += 1;
            self.is_last_accepted = true;
        }
    }

    pub(super) fn throttle(&mut self, sent: &Sent) {
        if sent.number >= self.first {
            self.throttled += 1;
            self.turns += u32::from(self.is_last_accepted);
            self.is_last_accepted = false;
            self.span = Some((self.span.map_or(sent.at, |(first, _)| first), sent.at));
        }
    }

    /// Whether throttles and acceptances alternate for longer than the rest of a used-up second would explain.
    pub(super) fn is_plainly_overloaded(&self) -> bool {
        let spread = self.span.map_or(Duration::ZERO, |(first, last)| last.saturating_sub(first));
        spread >= Duration::from_millis(250)
            && self.turns >= 3
            && self.accepted + self.throttled >= 8
            && self.throttled * 8 >= self.accepted
    }

    pub(super) fn share_accepted(&self) -> f64 {
        self.accepted as f64 / (self.accepted + self.throttled).max(1) as f64
    }
}
