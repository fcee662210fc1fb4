//! The slowest attempts of a run.

use std::time::Duration;

use crate::event::Operation;

/// An attempt that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// Its operation.
    pub operation: Operation,
    /// The device's key, or what else identifies the attempt, such as the arrival's number.
    pub device: String,
    /// When it ended, in whole seconds since the run's start.
    pub second: u64,
    /// From sending the request to its reply.
    pub service: Duration,
    /// From the instant it was due to its reply.
    pub response: Duration,
}

/// The slowest attempts by response time, the slowest first; at most [`Slowest::KEPT`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slowest(Vec<Slow>);

impl Slowest {
    /// How many are kept.
    pub const KEPT: usize = 20;

    /// Whether an attempt with this response time would be kept; if not, callers need not copy its device's key.
    pub fn takes(&self, response: Duration) -> bool {
        self.0.len() < Self::KEPT || self.0.last().is_some_and(|last| response > last.response)
    }

    /// Keeps `slow` if it is among the slowest; of equally slow ones the first stay.
    pub fn offer(&mut self, slow: Slow) {
        if !self.takes(slow.response) {
            return;
        }
        let at = self.0.partition_point(|kept| kept.response >= slow.response);
        self.0.insert(at, slow);
        self.0.truncate(Self::KEPT);
    }

    /// Adds all of `other`'s.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|slow| self.offer(slow.clone()));
    }

    /// The slowest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slow> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(ms: u64) -> Slow {
        Slow {
            operation: Operation::RegisterThing,
            device: format!("D-{ms}"),
            second: 0,
            service: Duration::from_millis(1),
            response: Duration::from_millis(ms),
        }
    }

    #[test]
    fn the_slowest_of_all_stay_in_order_however_they_came() {
        let (mut left, mut right) = (Slowest::default(), Slowest::default());
        for n in 0..500 {
            // 7 and 500 have no common divisor, so this is every number once, out of order.
            let slow = slow(n * 7 % 500);
            if n % 3 == 0 { left.offer(slow) } else { right.offer(slow) }
        }
        left.merge(&right);
        let kept: Vec<_> = left.iter().map(|slow| slow.response.as_millis()).collect();
        assert_eq!(kept, (480..500).rev().collect::<Vec<_>>());
        assert!(!left.takes(Duration::from_millis(480)) && left.takes(Duration::from_millis(481)));
    }
}
