//! How much figures change by chance: a paired permutation test.
//!
//! Both sides are cut into the same number of blocks. If nothing changed but chance, it makes no difference which of the
//! two blocks at the same place in the runs belongs to which side. So the blocks are swapped, each pair by the toss of a
//! coin, again and again, and each time every figure is computed anew. A change that hardly any of these reshuffles has
//! is more than noise. Blocks, and not requests, are swapped, because requests close to each other are slow together.
//! The coins come from a fixed seed: the same files give the same result.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::blocks::{self, Block};
use super::{Change, Unit, Verdict, change};
use crate::event::Operation;
use crate::metrics::OperationCounts;
use crate::report::seconds::Placement;

/// How often the blocks are reshuffled.
pub(super) const RESHUFFLES: usize = 999;
/// The share of reshuffles that may have a larger change than what is called more than noise.
pub(super) const LEVEL: f64 = 0.01;
/// The most blocks; longer ones depend less on each other.
pub(super) const MOST_BLOCKS: usize = 40;
/// With fewer pairs of blocks there are too few ways to swap them.
pub(super) const LEAST_BLOCKS: usize = 8;
const SEED: u64 = 1;
/// Changes that differ by less are the same: the report's figures are rounded a little otherwise.
const ROUNDING: f64 = 0.01;

/// The number of blocks for these runs; 0 if they are too short.
pub(super) fn blocks(new: &Placement, old: &Placement) -> usize {
    let seconds = blocks::whole_seconds(new).min(blocks::whole_seconds(old));
    let count = usize::try_from(seconds).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS);
    if count >= LEAST_BLOCKS { count } else { 0 }
}

/// Finds the noise of each figure, and so its verdict.
pub(super) fn judge(changes: &mut [Change], new: &[Block], old: &[Block]) {
    let mut coins = StdRng::seed_from_u64(SEED);
    let swaps: Vec<Vec<bool>> =
        (0..RESHUFFLES).map(|_| new.iter().map(|_| coins.random()).collect()).collect();
    let mut by_chance: Vec<Vec<f64>> = vec![Vec::with_capacity(RESHUFFLES); changes.len()];
    for (at, operation) in Operation::ALL.into_iter().enumerate() {
        let response = Series::new(new, old, |block| &block.operations[at].response);
        let service = Series::new(new, old, |block| &block.operations[at].service);
        for swap in &swaps {
            let (response, service) = (response.swapped(swap), service.swapped(swap));
            for (one, by_chance) in changes.iter().zip(&mut by_chance) {
                let Some(("", figure)) =
                    one.figure.strip_prefix(operation.name()).and_then(|rest| rest.split_once('.'))
                else {
                    continue;
                };
                let (new, old) = match figure.split_once('.') {
                    Some(("response", figure)) => response.figures(figure),
                    Some((_, figure)) => service.figures(figure),
                    None => counted(new, old, at, swap, one.unit),
                };
                by_chance.push(change(one.unit, new, old).map_or(f64::INFINITY, f64::abs));
            }
        }
    }
    changes.iter_mut().zip(&mut by_chance).for_each(|(change, by_chance)| change.conclude(by_chance));
}

impl Change {
    /// Takes the noise from the changes by chance.
    fn conclude(&mut self, by_chance: &mut [f64]) {
        let Some(change) = self.change else { return };
        by_chance.sort_by(f64::total_cmp);
        let at = ((1.0 - LEVEL) * by_chance.len() as f64) as usize;
        let noise = by_chance.get(at).copied().filter(|noise| noise.is_finite());
        self.noise = noise;
        self.verdict = match noise {
            None => Verdict::Untested,
            Some(noise) if change.abs() <= noise * (1.0 + ROUNDING) => Verdict::Noise,
            Some(_) if self.is_worse() => Verdict::Worse,
            Some(_) => Verdict::Better,
        };
    }
}

/// A rate or a share of both sides after a swap.
fn counted(new: &[Block], old: &[Block], at: usize, swap: &[bool], unit: Unit) -> (Option<f64>, Option<f64>) {
    let sum = |is_new: bool| {
        let pairs = new.iter().zip(old).zip(swap);
        let side = pairs.map(|((new, old), is_swapped)| if is_new == *is_swapped { old } else { new });
        let (mut seconds, mut counts) = (0.0, OperationCounts::default());
        for block in side {
            seconds += block.seconds;
            counts.merge(&block.operations[at].counts);
        }
        match unit {
            Unit::PerS => Some(counts.accepted as f64 / seconds),
            _ => (counts.attempts > 0).then(|| counts.failed_share()),
        }
    };
    (sum(true), sum(false))
}

/// Latencies of both sides, block by block, as counts of the same ascending values.
struct Series {
    values: Vec<u64>,
    /// For each pair of blocks the new and the old one: places in `values`, each with its count.
    pairs: Vec<[Vec<(usize, u64)>; 2]>,
}

impl Series {
    fn new(new: &[Block], old: &[Block], of: impl Fn(&Block) -> &Vec<(u64, u64)>) -> Self {
        let mut values: Vec<u64> = new.iter().chain(old).flat_map(&of).map(|(us, _)| *us).collect();
        values.sort_unstable();
        values.dedup();
        let placed = |block: &Block| -> Vec<(usize, u64)> {
            of(block).iter().map(|(us, count)| (values.partition_point(|value| value < us), *count)).collect()
        };
        let pairs = new.iter().zip(old).map(|(new, old)| [placed(new), placed(old)]).collect();
        Self { values, pairs }
    }

    /// Both sides after a swap.
    fn swapped(&self, swap: &[bool]) -> Swapped<'_> {
        let mut counts = [vec![0; self.values.len()], vec![0; self.values.len()]];
        for (pair, is_swapped) in self.pairs.iter().zip(swap) {
            for (side, block) in pair.iter().enumerate() {
                let side = &mut counts[side ^ usize::from(*is_swapped)];
                block.iter().for_each(|(place, count)| side[*place] += count);
            }
        }
        Swapped { values: &self.values, counts }
    }
}

/// Both sides after a swap: how often each value occurs.
struct Swapped<'a> {
    values: &'a [u64],
    counts: [Vec<u64>; 2],
}

impl Swapped<'_> {
    /// A figure of the new and of the old side.
    fn figures(&self, figure: &str) -> (Option<f64>, Option<f64>) {
        (self.figure(&self.counts[0], figure), self.figure(&self.counts[1], figure))
    }

    fn figure(&self, counts: &[u64], figure: &str) -> Option<f64> {
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        let Some(percentile) = figure.strip_prefix('p').and_then(|text| text.parse::<f64>().ok()) else {
            let sum: f64 = self.values.iter().zip(counts).map(|(us, count)| *us as f64 * *count as f64).sum();
            return Some(sum / all as f64);
        };
        let mut left = (percentile / 100.0 * all as f64).ceil().max(1.0) as u64;
        let place = counts.iter().position(|count| {
            let is_there = left <= *count;
            left = left.saturating_sub(*count);
            is_there
        });
        place.and_then(|place| self.values.get(place)).map(|us| *us as f64)
    }
}
