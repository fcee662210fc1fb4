//! For how long requests have waited, and why.
//!
//! Owns these times. Several limits share them: time in which requests wait at two of them counts once.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// For how long requests have waited at any of the limits that share this.
#[derive(Debug, Default)]
pub(in crate::engine) struct Waits {
    for_rate: Stopwatch,
    for_answer: Stopwatch,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its turn.
    Rate,
    /// The end of an outage.
    Outage,
}

impl Waits {
    /// How long a rate has held requests back.
    pub(in crate::engine) fn for_rate(&self) -> Duration {
        self.for_rate.total()
    }

    /// How long requests have waited because the service answers none.
    pub(in crate::engine) fn for_answer(&self) -> Duration {
        self.for_answer.total()
    }

    /// Counts until the result is dropped.
    pub(super) fn begin(&self, reason: Reason) -> Running<'_> {
        match reason {
            Reason::Rate => self.for_rate.begin(),
            Reason::Outage => self.for_answer.begin(),
        }
    }
}

/// A stopwatch that runs until this is dropped.
pub(super) struct Running<'a>(&'a Stopwatch);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.counted().end();
    }
}

/// The time in which at least one waits.
#[derive(Debug, Default)]
pub(super) struct Stopwatch(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    waiting: u32,
    /// Since when at least one waits; `None` if none does.
    since: Option<Instant>,
    before: Duration,
}

impl Stopwatch {
    /// Runs until the result is dropped.
    pub(super) fn begin(&self) -> Running<'_> {
        self.counted().begin();
        Running(self)
    }

    /// The time so far, with what still runs.
    pub(super) fn total(&self) -> Duration {
        let counted = self.counted();
        counted.before + counted.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Counted {
    fn begin(&mut self) {
        self.waiting += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn end(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.before += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_two_wait_counts_once() {
        let second = Duration::from_secs(1);
        let waits = Waits::default();
        let one = waits.begin(Reason::Rate);
        tokio::time::advance(second).await;
        let other = waits.begin(Reason::Rate);
        tokio::time::advance(second).await;
        drop(one);
        tokio::time::advance(second).await;
        assert_eq!(waits.for_rate(), 3 * second, "what goes on counts too");
        drop(other);
        tokio::time::advance(second).await;
        drop(waits.begin(Reason::Rate));
        assert_eq!((waits.for_rate(), waits.for_answer()), (3 * second, Duration::ZERO));
        let _outage = waits.begin(Reason::Outage);
        tokio::time::advance(second).await;
        assert_eq!((waits.for_rate(), waits.for_answer()), (3 * second, second));
    }
}
