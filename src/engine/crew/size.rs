//! How many workers a run needs: a pure policy, fed with what was measured.
//!
//! Owns the number of workers if it is not configured. By Little's law, as many requests are under way as the rate
//! times the latency; any more workers would wait. Without a rate, or if the service does not keep up with it, the
//! policy tries more workers while that gets more devices done.

use std::time::Duration;

/// How many workers begin, before anything is measured.
const START: usize = 10;
/// The factor by which workers exceed what the rate and the latency ask for.
const HEADROOM: f64 = 1.25;
/// Workers added on top of [`HEADROOM`].
const SPARE: f64 = 2.0;
/// The least gain in devices done, as a factor, for a growth to have paid.
const PAYS: f64 = 1.1;
/// How long a growth that did not pay is not tried again.
const HOLD: Duration = Duration::from_secs(30);
/// The shortest time to judge a growth by; longer if a device takes longer.
const WINDOW: Duration = Duration::from_secs(1);
/// How long fewer workers must be enough before their number falls.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of workers falls only if at most this share of them is enough.
const FEWER: f64 = 0.75;

/// What was measured, at an instant counted from the start of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) now: Duration,
    /// Devices per second that the limits admit now or soon will; `None` if there is no limit.
    pub(super) rate: Option<f64>,
    /// Whether a limit held requests back nearly all the time since the last look: then there are enough workers.
    pub(super) is_held_back: bool,
    /// The 90th percentile of worker time per device; `None` until one is done.
    pub(super) busy: Option<Duration>,
    /// Devices done so far.
    pub(super) done: u64,
}

/// The number of workers as it changes.
#[derive(Debug)]
pub(super) struct Size {
    max: usize,
    target: usize,
    /// The number before the last growth, until the growth is judged.
    before: Option<usize>,
    /// When the last judgement was, and how many devices were done then.
    judged: (Duration, u64),
    /// Devices per second with the number before.
    speed: f64,
    hold_until: Duration,
    fewer_since: Option<Duration>,
}

impl Size {
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            max,
            target: START.min(max),
            before: None,
            judged: (Duration::ZERO, 0),
            speed: 0.0,
            hold_until: Duration::ZERO,
            fewer_since: None,
        }
    }

    pub(super) fn target(&self) -> usize {
        self.target
    }

    pub(super) fn is_at_most(&self) -> bool {
        self.target >= self.max
    }

    /// How many workers there should be now.
    pub(super) fn decide(&mut self, look: Look) -> usize {
        let Some(busy) = look.busy else { return self.target };
        let needed = look.rate.map(|rate| {
            let needed = (rate * busy.as_secs_f64() * HEADROOM + SPARE).ceil();
            (needed as usize).clamp(1, self.max)
        });
        if look.is_held_back {
            self.begin(look);
            self.before = None;
            self.speed = 0.0;
            self.shrink(look.now, needed);
        } else {
            self.fewer_since = None;
            self.climb(look, busy, needed.unwrap_or(self.max));
        }
        self.target
    }

    /// Tries more workers, up to `most`, and goes back if that did not pay.
    fn climb(&mut self, look: Look, busy: Duration, most: usize) {
        let elapsed = look.now.saturating_sub(self.judged.0);
        if elapsed < WINDOW.max(busy) || look.now < self.hold_until {
            return;
        }
        let speed = (look.done - self.judged.1) as f64 / elapsed.as_secs_f64();
        self.begin(look);
        if let Some(before) = self.before.take()
            && speed < self.speed * PAYS
        {
            self.target = before;
            self.hold_until = look.now + HOLD;
            self.speed = 0.0;
            return;
        }
        self.speed = speed;
        if self.target < most {
            self.before = Some(self.target);
            self.target = (self.target * 2).min(most);
        }
    }

    fn shrink(&mut self, now: Duration, needed: Option<usize>) {
        match needed.filter(|needed| *needed as f64 <= self.target as f64 * FEWER) {
            None => self.fewer_since = None,
            Some(needed) => {
                let since = *self.fewer_since.get_or_insert(now);
                if now.saturating_sub(since) >= PATIENCE {
                    self.target = needed;
                    self.fewer_since = None;
                }
            }
        }
    }

    fn begin(&mut self, look: Look) {
        self.judged = (look.now, look.done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a service that takes `latency` per device and does at most `most` per second. Returns how many workers
    /// there are after each second, under a limit.
    fn play(max: usize, rate: Option<f64>, latency: f64, most: f64, seconds: u64) -> Vec<usize> {
        let mut size = Size::new(max);
        let (mut done, mut sizes) = (0.0, Vec::new());
        for second in 1..=seconds {
            let capacity = size.target() as f64 / latency;
            let speed = capacity.min(most).min(rate.unwrap_or(f64::MAX));
            done += speed;
            // Requests beyond the service's maximum queue.
            let busy = Duration::from_secs_f64(latency.max(size.target() as f64 / most));
            let is_held_back = rate.is_some_and(|rate| capacity.min(most) > rate);
            let look = Look {
                now: Duration::from_secs(second),
                rate,
                is_held_back,
                busy: Some(busy),
                done: done as u64,
            };
            sizes.push(size.decide(look));
        }
        sizes
    }

    #[test]
    fn the_number_follows_from_rate_and_latency() {
        for (rate, latency, least, most) in
            [(10.0, 0.3, 4, 10), (10.0, 2.0, 20, 30), (400.0, 0.3, 120, 160), (1.0, 0.1, 1, 4)]
        {
            let sizes = play(1_000, Some(rate), latency, 1e6, 60);
            let last = *sizes.last().unwrap();
            assert!((least..=most).contains(&last), "{rate}/s, {latency} s: {sizes:?}");
            let settled = sizes.iter().position(|size| *size >= least).unwrap();
            assert!(settled <= 15, "{rate}/s, {latency} s: {sizes:?}");
        }
    }

    #[test]
    fn without_a_limit_it_grows_while_that_pays_and_goes_back() {
        // 500 a second at 100 ms: 50 workers are enough, whatever the maximum.
        let sizes = play(1_000, None, 0.1, 500.0, 120);
        assert!(sizes.iter().all(|size| *size <= 160), "{sizes:?}");
        assert!(*sizes.last().unwrap() >= 40, "{sizes:?}");
    }

    #[test]
    fn a_limit_that_the_service_never_reaches_does_not_call_for_the_most() {
        let sizes = play(1_000, Some(10_000.0), 0.1, 500.0, 120);
        assert!(sizes.iter().all(|size| *size <= 160), "{sizes:?}");
    }

    #[test]
    fn no_more_than_the_most_and_nothing_before_anything_is_known() {
        assert!(play(30, None, 1.0, 1e6, 100).iter().all(|size| *size <= 30));
        assert_eq!(play(30, None, 1.0, 1e6, 100).last(), Some(&30));
        let mut size = Size::new(4);
        let look = Look { now: Duration::from_secs(9), rate: None, is_held_back: false, busy: None, done: 0 };
        assert_eq!((size.decide(look), size.is_at_most()), (4, true));
    }
}
