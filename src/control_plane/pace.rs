//! How fast to send an operation's requests, judging by its throttles. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How much one answered request raises the rate per second, before the first throttle: half the rate in a second.
const GROWTH: f64 = 0.5;
/// How much one answered request raises the rate per second, once a throttle has shown where the quota is.
const CREEP: f64 = 0.01;
/// The factor that a throttle cuts the rate by.
const CUT: f64 = 0.75;
/// The lowest rate, per second, so that every wait ends.
const SLOWEST: f64 = 0.2;
/// The highest rate, per second: more requests than one process can have under way.
const FASTEST: f64 = 5_000.0;

/// The rate of one operation. It begins at AWS's default and grows while nothing is throttled. The requests that were
/// under way when it was exceeded cut it only once.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    growth: f64,
    /// When the next request may go.
    next: Option<Instant>,
    /// When the rate was last cut; requests sent before do not cut it again.
    cut_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, growth: GROWTH, next: None, cut_at: None }
    }

    /// When a request that is ready now may be sent. Each call takes one request's turn.
    pub(super) fn turn(&mut self, now: Instant) -> Instant {
        let turn = self.next.map_or(now, |next| next.max(now));
        self.next = Some(turn + Duration::from_secs_f64(self.per_second.recip()));
        turn
    }

    /// Notes that a request was answered, whatever the answer.
    pub(super) fn note_answer(&mut self) {
        self.per_second = (self.per_second + self.growth).min(FASTEST);
    }

    /// Notes that a request sent at `sent` was throttled.
    pub(super) fn note_throttle(&mut self, sent: Instant, now: Instant) {
        if self.cut_at.is_some_and(|cut_at| sent <= cut_at) {
            return;
        }
        self.per_second = (self.per_second * CUT).max(SLOWEST);
        self.growth = CREEP;
        self.cut_at = Some(now);
        // Waiting requests have their turns already; new ones wait a moment longer, for the bucket to fill.
        self.next = Some(
            self.next.map_or(now, |next| next.max(now)) + Duration::from_secs_f64(self.per_second.recip()),
        );
    }

    /// The present rate, per second.
    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a service with a token bucket of `quota` per second for `seconds`, with as many requests as the pace
    /// admits, each answered after 30 ms. Returns how many were accepted, and how many throttled.
    fn asked(quota: f64, begins_at: f64, seconds: u64) -> (u64, u64) {
        let latency = Duration::from_millis(30);
        let begin = Instant::now();
        let (mut pace, mut tokens, mut at) = (Pace::new(begins_at), quota, begin);
        let (mut accepted, mut throttled) = (0, 0);
        let mut under_way = std::collections::VecDeque::new();
        loop {
            let turn = pace.turn(at);
            if turn - begin > Duration::from_secs(seconds) {
                return (accepted, throttled);
            }
            tokens = f64::min(tokens + (turn - at).as_secs_f64() * quota, quota);
            at = turn;
            let is_accepted = tokens >= 1.0;
            if is_accepted {
                tokens -= 1.0;
                accepted += 1;
            } else {
                throttled += 1;
            }
            under_way.push_back((turn, is_accepted));
            while let Some((sent, is_accepted)) = under_way.pop_front_if(|(sent, _)| *sent + latency <= at) {
                if is_accepted { pace.note_answer() } else { pace.note_throttle(sent, sent + latency) }
            }
        }
    }

    #[test]
    fn the_rate_finds_a_quota_far_above_the_default_and_stays_near_it() {
        let (accepted, throttled) = asked(500.0, 10.0, 60);
        assert!(accepted > 20_000, "of 30,000 that the quota allows: {accepted}");
        assert!(throttled * 20 < accepted, "{throttled} throttled, {accepted} accepted");
    }

    #[test]
    fn the_default_quota_is_nearly_used_and_a_smaller_one_is_kept_to() {
        for (quota, least) in [(10.0, 2_400), (1.0, 200)] {
            let (accepted, throttled) = asked(quota, 10.0, 300);
            assert!(accepted > least, "quota {quota}: {accepted}");
            assert!(throttled * 5 < accepted, "quota {quota}: {throttled} throttled, {accepted} accepted");
        }
    }

    #[test]
    fn requests_that_were_under_way_at_a_cut_do_not_cut_again() {
        let now = Instant::now();
        let mut pace = Pace::new(100.0);
        let later = now + Duration::from_millis(20);
        pace.note_throttle(now, later);
        let cut = pace.per_second();
        pace.note_throttle(later, later + Duration::from_millis(1));
        assert_eq!((cut, pace.per_second()), (75.0, 75.0));
        pace.note_throttle(later + Duration::from_millis(2), later + Duration::from_millis(30));
        assert!(pace.per_second() < cut);
    }
}
