//! Rate limits: one per operation, global, first come first served.
//!
//! Owns the only use of governor. Waiting goes through tokio's clock, so that a paused clock governs it too; the queue
//! is a fair lock, because thousands of waiters that each poll the limiter cost far more than one that sleeps.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter, nanos::Nanos};
use tokio::time::Instant;

use crate::rate::Rate;

/// A limit that many tasks wait at, in the order they came. Time that nobody used is not made up for later, beyond a
/// burst of 2 or 1 % of a second's worth: a burst of 1 would lose every tick that the timer is late.
pub(super) struct Limit {
    turn: tokio::sync::Mutex<()>,
    limiter: Option<Limiter>,
    held_until: Mutex<Option<Instant>>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<TokioInstant>>;

impl Limit {
    /// A limit of `rate`, or none; a limit without a rate can still be held.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            limiter: rate.map(|rate| RateLimiter::direct_with_clock(quota(rate), TokioClock)),
            held_until: Mutex::new(None),
        }
    }

    /// Waits for a permit. Dropping the future gives up the place in the queue and spends nothing.
    pub(super) async fn permit(&self) {
        if self.limiter.is_none() && self.held().is_none() {
            return;
        }
        let _turn = self.turn.lock().await;
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Lets nobody pass for `time` from now: the service asked for less speed.
    pub(super) fn hold(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut held = self.held_until.lock().expect("no code panics while it holds this lock");
        *held = Some(held.map_or(until, |already| already.max(until)));
    }

    /// How long to wait before asking again; `None` took a permit.
    fn wait(&self) -> Option<Duration> {
        if let Some(wait) = self.held() {
            return Some(wait);
        }
        let not_until = self.limiter.as_ref()?.check().err()?;
        // The timer has a granularity of 1 ms and never fires early; at least that, so that the loop cannot spin.
        Some(not_until.wait_time_from(TokioClock.now()).max(Duration::from_micros(100)))
    }

    fn held(&self) -> Option<Duration> {
        let mut held = self.held_until.lock().expect("no code panics while it holds this lock");
        let wait = held.as_ref()?.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            *held = None;
            return None;
        }
        Some(wait)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn limit(per_second: f64) -> Limit {
        Limit::new(Rate::per_second(per_second))
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_delivers_its_rate() {
        for per_second in [0.5, 10.0, 47.0, 400.0, 2_000.0] {
            let limit = limit(per_second);
            let start = Instant::now();
            let permits = (per_second * 20.0) as u32;
            for _ in 0..permits {
                limit.permit().await;
            }
            let burst = (per_second / 100.0).max(2.0).floor();
            let ideal = (f64::from(permits) - burst) / per_second;
            let ratio = start.elapsed().as_secs_f64() / ideal;
            assert!((0.999..=1.01).contains(&ratio), "{per_second}/s took {ratio} of the ideal time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unused_time_is_not_made_up_for() {
        let limit = limit(10.0);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        for _ in 0..12 {
            limit.permit().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn permits_go_out_in_the_order_of_asking() {
        let limit = Arc::new(limit(100.0));
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        for n in 0..50 {
            let (limit, sender) = (limit.clone(), sender.clone());
            tokio::spawn(async move {
                limit.permit().await;
                sender.send(n).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop(sender);
        let mut order = Vec::new();
        while let Some(n) = receiver.recv().await {
            order.push(n);
        }
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_limit_lets_nobody_pass_even_without_a_rate() {
        let limit = Limit::new(None);
        limit.permit().await;
        limit.hold(Duration::from_secs(3));
        limit.hold(Duration::from_secs(1));
        let start = Instant::now();
        limit.permit().await;
        assert!(start.elapsed() >= Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_waiting_spends_nothing() {
        let limit = limit(1.0);
        limit.permit().await;
        limit.permit().await;
        let start = Instant::now();
        for _ in 0..5 {
            let waited = tokio::time::timeout(Duration::from_millis(10), limit.permit()).await;
            assert!(waited.is_err());
        }
        limit.permit().await;
        assert!(start.elapsed() < Duration::from_millis(1_100), "{:?}", start.elapsed());
    }
}
