//! Requests under way: when each was sent, and which are overdue.
//!
//! Owns what is known of the service's latency. Decides nothing about rates.

use std::collections::VecDeque;
use std::time::Duration;

/// An answer is overdue after this many times the longest latency of late.
const PATIENCE: u32 = 3;
/// And never before this.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// One answer in this many is forgotten of the longest latency.
const MEMORY: u32 = 64;

/// All requests that have not ended, in the order they were sent. As many as there are workers at most, and those that
/// ended after an older one that has not.
#[derive(Default)]
pub(super) struct Flight {
    requests: VecDeque<Request>,
    /// The number of the oldest.
    oldest: u64,
    /// The longest latency of late; none before the first answer.
    latency: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Request {
    sent: Duration,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Overdue,
    Ended,
}

/// A request that ended, or that should have.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) at: Duration,
    /// Whether it has been called overdue before.
    pub(super) was_overdue: bool,
}

impl Flight {
    /// The number of the next request.
    pub(super) fn next(&self) -> u64 {
        self.oldest + self.requests.len() as u64
    }

    pub(super) fn send(&mut self, now: Duration) -> u64 {
        let number = self.next();
        self.requests.push_back(Request { sent: now, state: State::Open });
        number
    }

    /// Takes a request out; none if it has ended before.
    pub(super) fn end(&mut self, number: u64) -> Option<Sent> {
        let index = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        let request = self.requests.get_mut(index).filter(|request| request.state != State::Ended)?;
        let sent = Sent { number, at: request.sent, was_overdue: request.state == State::Overdue };
        request.state = State::Ended;
        while self.requests.front().is_some_and(|request| request.state == State::Ended) {
            self.requests.pop_front();
            self.oldest += 1;
        }
        Some(sent)
    }

    /// An answer took this long.
    pub(super) fn measure(&mut self, took: Duration) {
        self.latency = Some(match self.latency {
            Some(longest) if longest > took => longest - (longest - took) / MEMORY,
            _ => took,
        });
    }

    /// The latest request that has become overdue since the last call. None before the first answer: until then nobody
    /// knows how long one takes.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<Sent> {
        let patience = (self.latency? * PATIENCE).max(LEAST_PATIENCE);
        let mut found = None;
        for (number, request) in (self.oldest..).zip(&mut self.requests) {
            if now.saturating_sub(request.sent) < patience {
                break;
            }
            if request.state == State::Open {
                request.state = State::Overdue;
                found = Some(Sent { number, at: request.sent, was_overdue: false });
            }
        }
        found
    }
}
