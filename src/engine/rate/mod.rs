//! Rate limits: one per operation, global, first come first served.
//!
//! Owns the only use of governor, and the waiting. Waiting goes through tokio's clock, so that a paused clock governs
//! it too; the queue is a fair lock, because thousands of waiters that each poll the limiter cost far more than one
//! that sleeps. [`pace`] finds the rate that the service sustains.

mod flight;
mod inquiry;
mod outage;
mod overload;
mod pace;
mod patience;
mod plateau;
mod round;
mod sign;
#[cfg(test)]
mod tests;
mod waits;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter, nanos::Nanos};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::rate::{Rate, RateLimit};
use crate::usage::Found;

pub(super) use sign::Sign;
pub(super) use waits::Waits;

use pace::Pace;
use patience::Waiting;
use waits::{Reason, Stopwatch};

/// A limit that many tasks wait at, in order of arrival. Unused time is not made up for later, beyond a burst of 2 or
/// 1 % of a second's worth: a burst of 1 would lose every tick that the timer is late.
///
/// Below the fixed rate, or without one, it looks for the service's own limit: each permit reports what became of its
/// request.
pub(super) struct Limit {
    asked: RateLimit,
    turn: tokio::sync::Mutex<()>,
    limiter: Option<Limiter>,
    clock: Arc<Paced>,
    /// Whether every request passes, whatever becomes of it.
    is_open: bool,
    /// How long it has held requests back.
    held: Stopwatch,
    waits: Arc<Waits>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<TokioInstant>>;

/// The pace, and the origin of its time; and what a permit's holder shares with the others.
struct Paced {
    epoch: Instant,
    pace: Mutex<Pace>,
    /// How many wait for a permit.
    waiting: AtomicU64,
    /// Permits that their holders have passed on.
    spare: Mutex<Vec<Spare>>,
    passed_on: Notify,
}

/// A permit that was passed on and that nobody has taken yet. Not a [`Permit`], which would keep the pace alive that
/// keeps it.
struct Spare {
    number: Option<u64>,
    good_until: Option<Instant>,
}

/// Permission to send one request. Its holder reports what became of the request; dropping it reports that nothing is
/// known.
#[must_use]
pub(super) struct Permit {
    clock: Arc<Paced>,
    /// The request's number; `None` once its outcome was reported.
    number: Option<u64>,
    /// Until when the request may be sent; `None` if there is no limit.
    good_until: Option<Instant>,
}

/// How a limit is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Use {
    /// The limit as configured.
    pub(super) asked: RateLimit,
    /// Requests per second that pass now; `None` while only `asked` limits them.
    pub(super) pace: Option<f64>,
    /// Whether the pace is about to grow by much.
    pub(super) is_growing: bool,
    /// The service's own limit; `None` until it is established.
    pub(super) found: Option<Found>,
    /// The share of requests that is never answered, at any rate; `None` unless a test has shown one.
    pub(super) unanswered: Option<f64>,
    /// How long it has held requests back while the service answered.
    pub(super) held: Duration,
}

impl Limit {
    /// Creates a limit as configured.
    pub(super) fn new(asked: RateLimit) -> Self {
        Self::sharing(&Arc::default(), asked)
    }

    /// Creates a limit as configured, which adds to `waits`.
    pub(super) fn sharing(waits: &Arc<Waits>, asked: RateLimit) -> Self {
        Self {
            asked,
            turn: tokio::sync::Mutex::new(()),
            limiter: asked.fixed().map(|rate| RateLimiter::direct_with_clock(quota(rate), TokioClock)),
            clock: Arc::new(Paced {
                epoch: Instant::now(),
                pace: Mutex::new(Pace::new(asked)),
                waiting: AtomicU64::new(0),
                spare: Mutex::default(),
                passed_on: Notify::new(),
            }),
            is_open: false,
            held: Stopwatch::default(),
            waits: waits.clone(),
        }
    }

    /// No limit, even if the service throttles: for requests that something else paces, such as a load test.
    pub(super) fn none() -> Self {
        Self { is_open: true, ..Self::new(RateLimit::Unlimited) }
    }

    /// Waits for a permit. Dropping the future gives up the place in the queue and spends nothing.
    pub(super) async fn permit(&self) -> Permit {
        if self.is_open {
            return Permit { clock: self.clock.clone(), number: None, good_until: None };
        }
        if self.limiter.is_none() && !self.clock.pace().is_limiting(self.clock.now()) {
            return self.take();
        }
        let _waiting = Queued::at(&self.clock.waiting);
        let _turn = self.turn.lock().await;
        loop {
            if let Some(permit) = self.spare() {
                return permit;
            }
            let Some((wait, reason)) = self.wait() else { return self.take() };
            let _waiting = self.waits.begin(reason);
            let _held = (reason == Reason::Rate).then(|| self.held.begin());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.clock.passed_on.notified() => {}
            }
        }
    }

    /// A permit that was passed on and is still good.
    fn spare(&self) -> Option<Permit> {
        loop {
            let Spare { number, good_until } = self.clock.spare().pop()?;
            let permit = Permit { clock: self.clock.clone(), number, good_until };
            if permit.is_good() {
                return Some(permit);
            }
        }
    }

    /// How the limit has been used so far.
    pub(super) fn used(&self) -> Use {
        let pace = self.clock.pace();
        Use {
            asked: self.asked,
            pace: pace.rate(),
            is_growing: pace.is_doubling(),
            found: pace.found(),
            unanswered: pace.unanswered(),
            held: self.held.total(),
        }
    }

    /// How long to wait before asking again, and why; `None` if the request may go, which spends a permit of the fixed
    /// rate.
    fn wait(&self) -> Option<(Duration, Reason)> {
        let (paced, is_out) = {
            let mut pace = self.clock.pace();
            (pace.wait(self.clock.now()), pace.is_out())
        };
        let reason = if is_out { Reason::Outage } else { Reason::Rate };
        let wait = paced.or_else(|| {
            let not_until = self.limiter.as_ref()?.check().err()?;
            Some(not_until.wait_time_from(TokioClock.now()))
        });
        // The timer never fires early. The minimum keeps the loop from spinning.
        Some((wait?.max(Duration::from_micros(100)), reason))
    }

    fn take(&self) -> Permit {
        let (number, paced) = {
            let mut pace = self.clock.pace();
            (pace.sent(self.clock.now()), pace.rate())
        };
        let rate = paced.or_else(|| Some(self.asked.fixed()?.as_per_second()));
        // Within a period it meets at most one other request.
        let period = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        let good_until = period.and_then(|period| Instant::now().checked_add(period));
        Permit { clock: self.clock.clone(), number: Some(number), good_until }
    }
}

impl Permit {
    /// Whether the request may still be sent.
    pub(super) fn is_good(&self) -> bool {
        self.good_until.is_none_or(|until| Instant::now() <= until)
    }

    /// Gives the permit to whoever waits for one; gives it back if nobody does, or if there is no limit.
    pub(super) fn pass_on(mut self) -> Option<Self> {
        if self.good_until.is_none() || self.clock.waiting.load(Ordering::Relaxed) == 0 {
            return Some(self);
        }
        self.clock.spare().push(Spare { number: self.number.take(), good_until: self.good_until });
        self.clock.passed_on.notify_one();
        None
    }

    /// How long to wait for the answer: `within` at most, and less if requests sent later are answered.
    pub(super) fn patience(&self, within: Duration) -> Waiting<'_> {
        Waiting { permit: self, within }
    }

    /// Reports what became of the request.
    pub(super) fn heard(mut self, sign: Sign) {
        self.end(sign);
    }

    fn end(&mut self, sign: Sign) {
        if let Some(number) = self.number.take() {
            self.clock.pace().heard(number, sign, self.clock.now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(Sign::Unclear);
    }
}

impl Paced {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("no code panics while it holds this lock")
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spare.lock().expect("no code panics while it holds this lock")
    }
}

/// A place in the queue, until it is dropped.
struct Queued<'a>(&'a AtomicU64);

impl<'a> Queued<'a> {
    fn at(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn quota(rate: Rate) -> Quota {
    let burst = (rate.as_per_second() / 100.0).max(2.0) as u32;
    let burst = NonZeroU32::new(burst).expect("a burst is at least 2");
    let quota = Quota::with_period(rate.period()).expect("a rate is positive, so its period is");
    quota.allow_burst(burst)
}

/// Tokio's clock, which a test can pause.
#[derive(Debug, Clone, Copy)]
struct TokioClock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TokioInstant(Instant);

impl Clock for TokioClock {
    type Instant = TokioInstant;

    fn now(&self) -> TokioInstant {
        TokioInstant(Instant::now())
    }
}

impl Reference for TokioInstant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl std::ops::Add<Nanos> for TokioInstant {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0 + Duration::from(duration))
    }
}
