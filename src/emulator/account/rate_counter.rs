//! Counts what a quota admits over time, by each way of counting.
//!
//! Owns the arithmetic and nothing else. AWS does not publish how it counts. Instants are ages of the emulator, which
//! only rise; one that is earlier than the last is treated as the last.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::scenario::{Quota, Quotas, Window};
use crate::rate::Rate;

/// Tolerance for rounding errors in sums of many small parts, which must not cost a request its place.
const ROUNDING: f64 = 1e-6;

/// How quotas are counted: the scenario's `window` and `burst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    window: Window,
    burst: Duration,
}

impl Counting {
    /// How these quotas are counted.
    pub fn of(quotas: &Quotas) -> Self {
        Self { window: quotas.window, burst: quotas.burst }
    }

    /// How many fit into one burst: at least one.
    fn capacity(self, rate: Rate) -> f64 {
        (rate.as_per_second() * self.burst.as_secs_f64() + ROUNDING).floor().max(1.0)
    }

    /// The length of a window, such that full windows give the quota's rate.
    fn length(self, rate: Rate) -> Duration {
        Duration::from_secs_f64(self.capacity(rate) / rate.as_per_second())
    }
}

/// One quota's counter. A new one admits a whole burst.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RateCounter(State);

#[derive(Debug, Clone, PartialEq, Default)]
enum State {
    #[default]
    New,
    /// The tokens in the bucket at age `at`.
    Bucket { at: Duration, tokens: f64 },
    /// How many were admitted in the window that began at age `began`.
    Fixed { began: Duration, count: f64 },
    /// The ages of those admitted within the last window.
    Sliding(VecDeque<Duration>),
}

impl RateCounter {
    /// Admits one at `age`, if there is room.
    pub fn take(&mut self, age: Duration, quota: &Quota, counting: Counting) -> bool {
        self.take_many(1, age, quota, counting)
    }

    /// Admits `count` together at `age`, or none of them.
    pub fn take_many(&mut self, count: u32, age: Duration, quota: &Quota, counting: Counting) -> bool {
        let age = age.max(self.last());
        let (from, Some(rate)) = quota.step(age) else {
            self.0 = State::New;
            return true;
        };
        match counting.window {
            Window::Bucket => self.take_tokens(count.into(), age, rate, quota, counting),
            Window::Fixed => self.take_fixed(count.into(), age, from, rate, counting),
            Window::Sliding => self.take_sliding(count, age, rate, counting),
        }
    }

    /// When to ask again after a refusal at `age`: never too late, possibly a little early.
    pub fn retry_at(&self, age: Duration, quota: &Quota, counting: Counting) -> Duration {
        let Some(rate) = quota.at(age) else { return age };
        let at = match &self.0 {
            State::New => age,
            State::Bucket { at, tokens } => *at + rate.period().mul_f64((1.0 - tokens).clamp(0.0, 1.0)),
            State::Fixed { began, .. } => *began + counting.length(rate),
            State::Sliding(taken) => taken.front().map_or(age, |oldest| *oldest + counting.length(rate)),
        };
        at.max(age)
    }

    /// Whether the counter is like a new one at `age`, so that it can be dropped.
    pub fn is_idle(&self, age: Duration, quota: &Quota, counting: Counting) -> bool {
        quota.at(age).is_none_or(|rate| self.last() + counting.length(rate) + counting.burst <= age)
    }

    /// When it last admitted something, or last counted.
    fn last(&self) -> Duration {
        match &self.0 {
            State::New => Duration::ZERO,
            State::Bucket { at, .. } => *at,
            State::Fixed { began, .. } => *began,
            State::Sliding(taken) => taken.back().copied().unwrap_or_default(),
        }
    }

    fn take_tokens(
        &mut self,
        count: f64,
        age: Duration,
        rate: Rate,
        quota: &Quota,
        counting: Counting,
    ) -> bool {
        let capacity = counting.capacity(rate);
        let tokens = match self.0 {
            State::Bucket { at, tokens } => quota.between(at, age).fold(tokens, |tokens, (held, rate)| {
                rate.map_or(capacity, |rate| tokens + held.as_secs_f64() * rate.as_per_second())
            }),
            _ => capacity,
        };
        let tokens = tokens.min(capacity);
        let is_taken = tokens + ROUNDING >= count;
        self.0 = State::Bucket { at: age, tokens: if is_taken { tokens - count } else { tokens } };
        is_taken
    }

    /// Windows follow one another from the age at which the rate began to hold.
    fn take_fixed(
        &mut self,
        count: f64,
        age: Duration,
        from: Duration,
        rate: Rate,
        counting: Counting,
    ) -> bool {
        let length = counting.length(rate);
        let windows = (age.saturating_sub(from)).as_nanos() / length.as_nanos().max(1);
        let began = from + length * u32::try_from(windows).unwrap_or(u32::MAX);
        let so_far = match self.0 {
            State::Fixed { began: last, count } if last == began => count,
            _ => 0.0,
        };
        let is_taken = so_far + count <= counting.capacity(rate);
        self.0 = State::Fixed { began, count: if is_taken { so_far + count } else { so_far } };
        is_taken
    }

    fn take_sliding(&mut self, count: u32, age: Duration, rate: Rate, counting: Counting) -> bool {
        if !matches!(self.0, State::Sliding(_)) {
            self.0 = State::Sliding(VecDeque::new());
        }
        let State::Sliding(taken) = &mut self.0 else { return false };
        let length = counting.length(rate);
        while taken.front().is_some_and(|oldest| *oldest + length <= age) {
            taken.pop_front();
        }
        let is_taken = taken.len() as f64 + f64::from(count) <= counting.capacity(rate);
        if is_taken {
            taken.extend((0..count).map(|_| age));
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(window: Window, burst_ms: u64) -> Counting {
        Counting { window, burst: Duration::from_millis(burst_ms) }
    }

    fn quota(text: &str) -> Quota {
        text.parse().unwrap()
    }

    const EVERY: [Window; 3] = [Window::Bucket, Window::Fixed, Window::Sliding];

    struct Bench {
        counter: RateCounter,
        quota: Quota,
        counting: Counting,
    }

    impl Bench {
        fn new(text: &str, window: Window, burst_ms: u64) -> Self {
            Self { counter: RateCounter::default(), quota: quota(text), counting: counting(window, burst_ms) }
        }

        /// How many get through at one instant, one after the other, up to 5,000.
        fn burst(&mut self, millis: u64) -> usize {
            let age = Duration::from_millis(millis);
            (0..5_000).take_while(|_| self.counter.take(age, &self.quota, self.counting)).count()
        }
    }

    #[test]
    fn a_bucket_gives_a_burst_at_once_and_then_the_rate() {
        let mut bench = Bench::new("10/s", Window::Bucket, 1_000);
        for (millis, through) in [(500, 10), (599, 0), (600, 1), (849, 2), (900, 1), (100_000, 10)] {
            assert_eq!(bench.burst(millis), through, "{millis}");
        }
    }

    #[test]
    fn a_fixed_window_begins_anew_on_the_second() {
        let mut bench = Bench::new("10/s", Window::Fixed, 1_000);
        for (millis, through) in [(500, 10), (999, 0), (1_000, 10), (1_999, 0), (5_400, 10), (6_000, 10)] {
            assert_eq!(bench.burst(millis), through, "{millis}");
        }
    }

    #[test]
    fn a_sliding_window_never_holds_more_than_its_count() {
        let mut bench = Bench::new("10/s", Window::Sliding, 1_000);
        for (millis, through) in [(500, 10), (1_499, 0), (1_500, 10), (2_499, 0), (2_500, 10)] {
            assert_eq!(bench.burst(millis), through, "{millis}");
        }
    }

    #[test]
    fn whatever_the_window_the_rate_is_kept_in_the_long_run() {
        for window in EVERY {
            for (text, burst_ms, expected) in [
                ("10/s", 1_000, 1_000),
                ("10/s", 1, 1_000),
                ("400/s", 100, 40_000),
                ("3/s", 1_000, 300),
                ("30/min", 1_000, 50),
                ("0.7/s", 5_000, 70),
            ] {
                let mut bench = Bench::new(text, window, burst_ms);
                let through: usize = (0..100_000).map(|millis| bench.burst(millis)).sum();
                // Besides the rate, one burst at the start; and windows that are cut off at the end. Instants are whole
                // milliseconds here, so that a window of 333.3 ms begins up to one late.
                let capacity = bench.counting.capacity(bench.quota.at(Duration::ZERO).unwrap()) as usize;
                let most = expected + capacity;
                assert!(
                    (expected * 99 / 100..=most).contains(&through),
                    "{window:?} {text} {burst_ms}: {through}"
                );
            }
        }
    }

    #[test]
    fn a_rate_that_changes_holds_from_there_on() {
        for window in EVERY {
            let mut bench = Bench::new(
                "10/s until 10s, then 20/s until 20s, then 5/s until 30s, then unlimited",
                window,
                100,
            );
            let mut second =
                |at: u64| (at * 1000..at * 1000 + 1000).map(|millis| bench.burst(millis)).sum::<usize>();
            let counted: Vec<usize> = [5, 6, 14, 15, 24, 25].into_iter().map(&mut second).collect();
            for (found, rate) in counted.iter().zip([10, 10, 20, 20, 5, 5]) {
                assert!(found.abs_diff(rate) <= 2, "{window:?}: {counted:?}");
            }
            assert_eq!(bench.burst(30_000), 5_000);
        }
    }

    #[test]
    fn several_come_together_or_not_at_all() {
        for window in EVERY {
            let (quota, counting) = (quota("10/s"), counting(window, 1_000));
            let mut counter = RateCounter::default();
            let mut take = |count| counter.take_many(count, Duration::from_secs(1), &quota, counting);
            assert!(take(8) && !take(3) && take(2) && !take(1), "{window:?}");
        }
    }

    #[test]
    fn who_waits_as_long_as_told_gets_through() {
        for window in EVERY {
            for burst_ms in [1, 1_000] {
                let mut bench = Bench::new("3/s", window, burst_ms);
                let mut age = Duration::from_millis(1_234);
                let mut through = 0;
                for tries in 1..=100 {
                    if bench.counter.take(age, &bench.quota, bench.counting) {
                        through += 1;
                    } else {
                        let next = bench.counter.retry_at(age, &bench.quota, bench.counting);
                        assert!(next >= age);
                        age = next.max(age + Duration::from_nanos(1));
                    }
                    assert!(tries < 10 || through * 3 >= tries, "{window:?}: {through} of {tries}");
                }
            }
        }
    }

    #[test]
    fn an_idle_counter_is_as_good_as_a_new_one() {
        for window in EVERY {
            let mut bench = Bench::new("2/s", window, 1_000);
            bench.burst(10_000);
            let idle = |at, bench: &Bench| {
                bench.counter.is_idle(Duration::from_millis(at), &bench.quota, bench.counting)
            };
            assert!(!idle(10_500, &bench), "{window:?}");
            assert!(idle(12_000, &bench), "{window:?}");
            assert_eq!(bench.burst(12_000), 2);
        }
    }
}
