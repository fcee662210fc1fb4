//! Requests under way: when each was sent, what became of it, and which should have been answered by now.
//!
//! Owns what is known of the service's latency. Decides nothing about rates.

use std::collections::VecDeque;
use std::time::Duration;

/// A request is judged after this multiple of the recent maximum latency.
const PATIENCE: u32 = 3;
/// No request is judged sooner than this.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// The recent maximum latency forgets one in this many answers.
const MEMORY: u32 = 64;

/// All requests that have not ended or are not judged, in the order they were sent: one per worker, those of about
/// the last second, and those that ended after an older one that has not.
#[derive(Default)]
pub(super) struct Flight {
    requests: VecDeque<Request>,
    /// The number of the oldest request.
    oldest: u64,
    /// The number of the first request that is not judged.
    unjudged: u64,
    /// The recent maximum latency; `None` until the first answer.
    latency: Option<Duration>,
    /// After how long the last request older than any answer was given up; `None` until the first.
    given_up: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Request {
    sent: Duration,
    fate: Option<Fate>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    Lost,
    /// The request says nothing about the service.
    Unclear,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) at: Duration,
}

/// A request as it stands at the age at which all requests are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) sent: Sent,
    pub(super) is_lost: bool,
}

impl Flight {
    /// The number of the next request.
    pub(super) fn next(&self) -> u64 {
        self.oldest + self.requests.len() as u64
    }

    pub(super) fn send(&mut self, now: Duration) -> u64 {
        let number = self.next();
        self.requests.push_back(Request { sent: now, fate: None });
        number
    }

    /// Ends a request; `None` if it has ended before.
    pub(super) fn end(&mut self, number: u64, fate: Fate, now: Duration) -> Option<Sent> {
        let index = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        let request = self.requests.get_mut(index).filter(|request| request.fate.is_none())?;
        request.fate = Some(fate);
        let sent = Sent { number, at: request.sent };
        let age = now.saturating_sub(sent.at);
        match fate {
            Fate::Answered => self.measure(age),
            Fate::Lost if self.latency.is_some_and(|longest| age > longest) => self.given_up = Some(age),
            Fate::Lost | Fate::Unclear => {}
        }
        self.forget();
        Some(sent)
    }

    /// The next request that has come of age, if any. Answered or not, all are judged at the same age: answers arrive
    /// before losses show, and would outvote them.
    ///
    /// `None` until the first answer: the latency is not known before.
    pub(super) fn judge(&mut self, now: Duration) -> Option<Judged> {
        let patience = self.patience()?;
        loop {
            let index = usize::try_from(self.unjudged - self.oldest).ok()?;
            let request = *self.requests.get(index)?;
            if now.saturating_sub(request.sent) < patience {
                return None;
            }
            let sent = Sent { number: self.unjudged, at: request.sent };
            self.unjudged += 1;
            self.forget();
            if request.fate != Some(Fate::Unclear) {
                return Some(Judged { sent, is_lost: request.fate != Some(Fate::Answered) });
            }
        }
    }

    /// How many requests sent after this one are answered, counted up to `most`.
    pub(super) fn answered_after(&self, number: u64, most: usize) -> usize {
        let after = usize::try_from((number + 1).saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        let fates = self.requests.iter().skip(after).map(|request| request.fate);
        fates.filter(|fate| *fate == Some(Fate::Answered)).take(most).count()
    }

    /// The recent maximum latency; `None` until the first answer.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// The age at which requests are judged: no later than a request is given up. `None` until the first answer.
    fn patience(&self) -> Option<Duration> {
        let given_up = self.given_up.unwrap_or(Duration::MAX);
        self.latency.map(|latency| (latency * PATIENCE).min(given_up).max(LEAST_PATIENCE))
    }

    fn measure(&mut self, took: Duration) {
        self.latency = Some(match self.latency {
            Some(longest) if longest > took => longest - (longest - took) / MEMORY,
            _ => took,
        });
    }

    fn forget(&mut self) {
        while self.oldest < self.unjudged
            && self.requests.front().is_some_and(|request| request.fate.is_some())
        {
            self.requests.pop_front();
            self.oldest += 1;
        }
    }
}
