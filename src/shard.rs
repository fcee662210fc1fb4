//! A part of a job that several processes share: which rows, arrivals, rates and connections belong to it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use crate::rate::Rate;

/// One part of a job. All parts together are the job, and no two overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The number of this part, from 0.
    pub index: u32,
    /// The number of parts.
    pub of: u32,
}

impl Shard {
    /// Part `index` of `of`; `None` unless `index` is less than `of`.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (index < of).then_some(Self { index, of })
    }

    /// Whether the row with `key` belongs to this shard: by the first 64 bits of the key's SHA-256, big-endian,
    /// modulo the number of shards. Adding rows to a lot moves none of the others to another shard.
    pub fn has(self, key: &str) -> bool {
        Self::of_key(key, self.of).index == self.index
    }

    /// The one of `of` shards that the row with `key` belongs to.
    pub fn of_key(key: &str, of: u32) -> Self {
        let hash = digest(&SHA256, key.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        let index = u64::from_be_bytes(first) % u64::from(of.max(1));
        Self { index: u32::try_from(index).expect("it is below a u32"), of }
    }

    /// Whether item `number`, from 0, belongs to this shard; for items without a key, which are load test arrivals
    /// and made-up devices.
    pub fn has_turn(self, number: u64) -> bool {
        number % u64::from(self.of.max(1)) == u64::from(self.index)
    }

    /// This shard's share of `total` indivisible items. The shares add up to `total` and differ by at most one.
    pub fn share(self, total: u64) -> u64 {
        let of = u64::from(self.of.max(1));
        total / of + u64::from(u64::from(self.index) < total % of)
    }

    /// This shard's part of a rate, the same for every shard.
    ///
    /// # Errors
    /// `None` if the result is not a valid rate.
    pub fn rate(self, total: Rate) -> Option<Rate> {
        Rate::per_second(total.as_per_second() / f64::from(self.of.max(1)))
    }
}

impl fmt::Display for Shard {
    /// Formats it as it is typed: `3/8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(of: u32) -> impl Iterator<Item = Shard> {
        (0..of).map(move |index| Shard { index, of })
    }

    #[test]
    fn every_key_belongs_to_one_shard() {
        for of in [1, 2, 3, 8] {
            for key in 0..200 {
                let key = format!("SN-{key}");
                assert_eq!(all(of).filter(|shard| shard.has(&key)).count(), 1, "{key} of {of}");
            }
        }
        // Computed with `sha256sum`. Must never change: ledgers depend on it.
        for (key, index) in [("SN-0", 5), ("SN-1", 4), ("é", 3)] {
            assert!(Shard { index, of: 7 }.has(key), "{key}");
        }
    }

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for of in 1..12 {
            for total in [0, 1, 7, 8, 100, 1_000_003] {
                let shares: Vec<u64> = all(of).map(|shard| shard.share(total)).collect();
                assert_eq!(shares.iter().sum::<u64>(), total);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
            }
            let rate = Rate::per_second(10.0).unwrap();
            let sum: f64 = all(of).map(|shard| shard.rate(rate).unwrap().as_per_second()).sum();
            assert!((sum - 10.0).abs() < 1e-9);
        }
    }

    #[test]
    fn each_turn_is_one_shards() {
        for number in 0..100 {
            assert_eq!(all(7).filter(|shard| shard.has_turn(number)).count(), 1);
        }
        assert_eq!(Shard::new(3, 3), None);
        assert_eq!(Shard::new(2, 3).map(|shard| shard.to_string()).as_deref(), Some("2/3"));
    }
}
