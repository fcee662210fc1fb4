//! How latencies were spread over time: how many were in which range, for each part of the timeline.
//!
//! Built on a fixed grid, so that nothing needs to be known of the latencies to come, and cut to what is there at last.

use serde::{Deserialize, Serialize};

use crate::metrics::Latency;

/// How many ranges a factor of ten is divided into at first.
const PER_DECADE: u32 = 32;
/// The most ranges of a map; more would be too thin to see.
const MOST_RANGES: usize = 36;
/// The most columns of a map.
const MOST_COLUMNS: usize = 120;

/// Accepted attempts by response time, over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// How many points of the timeline a column covers; the last one may have fewer.
    pub points: usize,
    /// The limits of the ranges in microseconds, ascending: one more than there are ranges.
    pub edges_us: Vec<f64>,
    /// For each column, how many attempts were in each range.
    pub columns: Vec<Vec<u64>>,
}

/// The latencies of one point of the timeline, on the grid: ascending ranges, each with a count.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread(Vec<(usize, u64)>);

impl Spread {
    pub(super) fn of(latency: &Latency) -> Self {
        let mut counts: Vec<(usize, u64)> = Vec::new();
        for (us, count) in latency.recorded() {
            let range = ((us.max(1) as f64).log10() * f64::from(PER_DECADE)) as usize;
            match counts.last_mut().filter(|(last, _)| *last == range) {
                Some((_, sum)) => *sum += count,
                None => counts.push((range, count)),
            }
        }
        Self(counts)
    }
}

impl HeatMap {
    /// The map of these points; `None` if there is nothing on it.
    pub(super) fn of(points: &[Spread]) -> Option<Self> {
        let ranges = || points.iter().flat_map(|spread| &spread.0).map(|(range, _)| *range);
        let (lowest, highest) = (ranges().min()?, ranges().max()?);
        let mut joined = 1;
        while highest / joined - lowest / joined >= MOST_RANGES {
            joined *= 2;
        }
        let (first, last) = (lowest / joined, highest / joined);
        let edge = |range: usize| 10_f64.powf((range * joined) as f64 / f64::from(PER_DECADE));
        let per_column = points.len().div_ceil(MOST_COLUMNS).max(1);
        let column = |points: &[Spread]| {
            let mut counts = vec![0; last - first + 1];
            for (range, count) in points.iter().flat_map(|spread| &spread.0) {
                counts[range / joined - first] += count;
            }
            counts
        };
        Some(Self {
            points: per_column,
            edges_us: (first..=last + 1).map(edge).collect(),
            columns: points.chunks(per_column).map(column).collect(),
        })
    }

    /// The most attempts in one range of one column.
    pub fn most(&self) -> u64 {
        self.columns.iter().flatten().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spread(latencies_us: impl IntoIterator<Item = u64>) -> Spread {
        let mut latency = Latency::default();
        latencies_us.into_iter().for_each(|us| latency.record(Duration::from_micros(us)));
        Spread::of(&latency)
    }

    #[test]
    fn every_attempt_is_in_the_range_of_its_latency() {
        let points = [spread([1_000, 1_010, 90_000]), spread([]), spread([5_000_000])];
        let map = HeatMap::of(&points).unwrap();
        assert_eq!((map.points, map.columns.len()), (1, 3));
        assert!(map.edges_us.len() <= MOST_RANGES + 1 && map.edges_us.len() == map.columns[0].len() + 1);
        let counts: Vec<u64> = map.columns.iter().map(|column| column.iter().sum()).collect();
        assert_eq!((counts, map.most()), (vec![3, 0, 1], 2));
        let range = |us: f64| map.edges_us.iter().rposition(|edge| *edge <= us * 1.001).unwrap();
        assert_eq!((map.columns[0][range(1_000.0)], map.columns[2][range(5_000_000.0)]), (2, 1));
    }

    #[test]
    fn a_long_run_has_few_columns_and_an_empty_one_no_map() {
        let points: Vec<Spread> = (0..400).map(|n| spread([n + 1_000])).collect();
        let map = HeatMap::of(&points).unwrap();
        assert!((100..=MOST_COLUMNS).contains(&map.columns.len()), "{}", map.columns.len());
        assert_eq!(map.columns.iter().flatten().sum::<u64>(), 400);
        assert_eq!(HeatMap::of(&[Spread::default()]), None);
    }
}
