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

use crate::rate::{Rate, RateLimit};

/// A limit that many tasks wait at, in the order they came. Time that nobody used is not made up for later, beyond a
/// burst of 2 or 1 % of a second's worth: a burst of 1 would lose every tick that the timer is late.
///
/// Below the rate that was set it looks for the service's own: each sign of a throttle lowers it, each second without
/// one raises it a little, until it is out of the way again.
pub(super) struct Limit {
    turn: tokio::sync::Mutex<()>,
    limiter: Option<Limiter>,
    ceiling: f64,
    pace: Mutex<Pace>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<TokioInstant>>;

/// What the service seems to bear.
#[derive(Default)]
struct Pace {
    /// Permits per second; none as long as nothing was throttled.
    rate: Option<f64>,
    /// When the next permit is due, at that rate.
    due: Option<Instant>,
    /// When the rate was last changed.
    changed: Option<Instant>,
    /// When the counting of permits began, and how many there were since: to start from, once something is throttled.
    counted: Option<(Instant, u32)>,
}

/// What a throttle leaves of the rate.
const CUT: f64 = 0.7;
/// What a second without one adds to it, as a share.
const GROWTH: f64 = 0.02;
/// Permits are counted over this long.
const WINDOW: Duration = Duration::from_secs(1);
/// Never less than one permit in ten seconds: it must show when the service has recovered.
const LEAST: f64 = 0.1;

impl Limit {
    /// A limit as it was asked for.
    pub(super) fn new(limit: RateLimit) -> Self {
        let rate = limit.fixed();
        Self {
            turn: tokio::sync::Mutex::new(()),
            limiter: rate.map(|rate| RateLimiter::direct_with_clock(quota(rate), TokioClock)),
            ceiling: rate.map_or(1_000_000.0, Rate::as_per_second),
            pace: Mutex::new(Pace::default()),
        }
    }

    /// Waits for a permit. Dropping the future gives up the place in the queue and spends nothing.
    pub(super) async fn permit(&self) {
        if self.limiter.is_none() && !self.is_paced() {
            self.pace().count(Instant::now());
            return;
        }
        let _turn = self.turn.lock().await;
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait).await;
        }
    }

    /// The service asked for less speed, or went silent as if it did.
    pub(super) fn slow_down(&self) {
        self.pace().slow_down(Instant::now());
    }

    /// How long to wait before asking again; `None` took a permit.
    fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut pace = self.pace();
        if let Some(wait) = pace.wait(now, self.ceiling) {
            return Some(wait);
        }
        if let Some(Err(not_until)) = self.limiter.as_ref().map(RateLimiter::check) {
            // The timer never fires early; at least this, so that the loop cannot spin.
            return Some(not_until.wait_time_from(TokioClock.now()).max(Duration::from_micros(100)));
        }
        pace.count(now);
        None
    }

    fn is_paced(&self) -> bool {
        self.pace().rate.is_some()
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().expect("no code panics while it holds this lock")
    }
}

impl Pace {
    /// How long the next permit is away, once the rate has grown as it may.
    fn wait(&mut self, now: Instant, ceiling: f64) -> Option<Duration> {
        let (rate, changed) = (self.rate?, self.changed.unwrap_or(now));
        let quiet = now.saturating_duration_since(changed).as_secs_f64();
        if quiet >= WINDOW.as_secs_f64() {
            let grown = rate * (1.0 + GROWTH).powf(quiet);
            self.rate = (grown < ceiling).then_some(grown);
            self.changed = Some(now);
        }
        let wait = self.due?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn count(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            self.due = Some(now + Duration::from_secs_f64(1.0 / rate));
        }
        match &mut self.counted {
            Some((began, permits)) if now.saturating_duration_since(*began) < WINDOW => *permits += 1,
            counted => *counted = Some((now, 1)),
        }
    }

    /// Requests that were under way together are throttled together: one cut answers for them all.
    fn slow_down(&mut self, now: Instant) {
        if self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < WINDOW / 2) {
            return;
        }
        let permits = self.counted.map_or(1, |(_, permits)| permits);
        let rate = self.rate.unwrap_or_else(|| f64::from(permits) / WINDOW.as_secs_f64());
        let rate = (rate * CUT).max(LEAST);
        self.rate = Some(rate);
        self.changed = Some(now);
        self.due = Some(now + Duration::from_secs_f64(1.0 / rate));
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
        Limit::new(RateLimit::per_second(per_second))
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

    /// Requests against a service that bears `quota` per second, from 20 workers that would send 400/s; how much of the
    /// quota was used, and which share of the requests was throttled.
    async fn use_quota(quota: f64, successes: u32) -> (f64, f64) {
        let limit = Arc::new(limit(400.0));
        let service = Arc::new(Mutex::new((quota, Instant::now(), 0_u32, 0_u32)));
        let mut workers = tokio::task::JoinSet::new();
        let start = Instant::now();
        for _ in 0..20 {
            let (limit, service) = (limit.clone(), service.clone());
            workers.spawn(async move {
                loop {
                    limit.permit().await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let mut service = service.lock().unwrap();
                    let (tokens, refilled, served, throttled) = &mut *service;
                    if *served >= successes {
                        return;
                    }
                    let now = Instant::now();
                    *tokens = (*tokens + now.duration_since(*refilled).as_secs_f64() * quota).min(quota);
                    *refilled = now;
                    if *tokens >= 1.0 {
                        *tokens -= 1.0;
                        *served += 1;
                    } else {
                        *throttled += 1;
                        limit.slow_down();
                    }
                }
            });
        }
        while workers.join_next().await.is_some() {}
        let throttled = f64::from(service.lock().unwrap().3);
        let successes = f64::from(successes);
        (successes / quota / start.elapsed().as_secs_f64(), throttled / (successes + throttled))
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_that_the_service_bears_is_found() {
        for quota in [1.0, 10.0, 50.0, 200.0] {
            let (used, throttled) = use_quota(quota, (quota * 120.0) as u32).await;
            assert!(used >= 0.75, "{quota}/s: {used} of the quota was used");
            // What it takes to come down from 400/s to 1/s weighs more than the few requests that follow.
            let most = if quota < 10.0 { 0.6 } else { 0.1 };
            assert!(throttled <= most, "{quota}/s: {throttled} of the requests were throttled");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_recovers_once_nothing_is_throttled_any_more() {
        let limit = limit(100.0);
        for _ in 0..10 {
            limit.permit().await;
            limit.slow_down();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        limit.permit().await;
        let start = Instant::now();
        for _ in 0..1_000 {
            limit.permit().await;
        }
        assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
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
