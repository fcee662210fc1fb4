//! Token buckets: what a rate allows at an instant.
//!
//! Owns the arithmetic and nothing else. Whether AWS counts this way is not published.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::scenario::Rate;

/// A bucket that holds one second's worth, is full at first, and fills at its rate.
///
/// Kept as the instant at which it will be full again, so that there is no counting of ticks and no rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenBucket {
    full_at: Option<SystemTime>,
}

impl TokenBucket {
    /// Takes one out at `now`; false if there is none.
    pub fn take(&mut self, now: SystemTime, rate: Rate) -> bool {
        let capacity = rate.interval() * rate.burst();
        let Some(empty_at) = now.checked_add(capacity) else { return false };
        // A clock that was set back must not lock the bucket: it is never emptier than empty.
        let full_at = self.full_at.unwrap_or(now).clamp(now, empty_at);
        let next = full_at.checked_add(rate.interval()).filter(|next| *next <= empty_at);
        self.full_at = Some(next.unwrap_or(full_at));
        next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEN: Rate = Rate { count: 10, per: Duration::from_secs(1) };

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    /// How many of `tries` at one instant get through.
    fn burst(bucket: &mut TokenBucket, now: SystemTime, rate: Rate, tries: usize) -> usize {
        (0..tries).filter(|_| bucket.take(now, rate)).count()
    }

    #[test]
    fn a_full_bucket_gives_one_second_at_once_and_then_the_rate() {
        let mut bucket = TokenBucket::default();
        assert_eq!(burst(&mut bucket, at(0), TEN, 50), 10);
        assert_eq!(burst(&mut bucket, at(99), TEN, 50), 0);
        assert_eq!(burst(&mut bucket, at(100), TEN, 50), 1);
        assert_eq!(burst(&mut bucket, at(349), TEN, 50), 2);
        assert_eq!(burst(&mut bucket, at(400), TEN, 50), 1);
        assert_eq!(burst(&mut bucket, at(100_000), TEN, 50), 10);
    }

    #[test]
    fn asking_in_vain_costs_nothing() {
        let mut bucket = TokenBucket::default();
        let through: usize = (0..10_000).map(|ms| burst(&mut bucket, at(ms), TEN, 3)).sum();
        // The bucket of the first instant, and 9.999 seconds of filling.
        assert_eq!(through, 10 + 99);
    }

    #[test]
    fn a_slow_rate_gives_one_at_a_time() {
        let slow = Rate { count: 30, per: Duration::from_secs(60) };
        let mut bucket = TokenBucket::default();
        assert_eq!(burst(&mut bucket, at(0), slow, 5), 1);
        assert_eq!(burst(&mut bucket, at(1_999), slow, 5), 0);
        assert_eq!(burst(&mut bucket, at(2_000), slow, 5), 1);
    }

    #[test]
    fn a_clock_set_back_locks_nothing() {
        let mut bucket = TokenBucket::default();
        burst(&mut bucket, at(900_000), TEN, 10);
        assert_eq!(burst(&mut bucket, at(0), TEN, 5), 0);
        assert_eq!(burst(&mut bucket, at(100), TEN, 5), 1);
    }
}
