//! From measured durations to a latency law, in the notation of scenarios.
//!
//! A handful of samples shows a law's middle and width, and hardly its tail: the simplest law that goes with them is taken.

use std::fmt;
use std::time::Duration;

/// The fewest samples that say anything.
const FEWEST: usize = 3;

/// Durations within this of each other are one, in milliseconds, whatever the median: what sockets and schedulers add.
const NOISE_MS: f64 = 4.0;

/// Durations within this share of the median are one.
const NOISE_SHARE: f64 = 0.12;

/// A step between neighbours by this factor separates two groups.
const GAP: f64 = 2.5;

/// A law, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Law {
    /// Always the same.
    Constant(f64),
    /// Anything between the two.
    Uniform(f64, f64),
    /// One of two, and the share of the second.
    Points(f64, f64, f64),
    /// Log-normal: median and sigma.
    LogNormal(f64, f64),
}

impl Law {
    /// The law of these samples; `None` if there are too few.
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut ms: Vec<f64> = samples.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        if ms.len() < FEWEST {
            return None;
        }
        let (least, most, median) = (ms[0], ms[ms.len() - 1], median(&ms));
        if most - least <= noise(median) {
            return Some(Law::Constant(median));
        }
        if let Some(points) = two_groups(&ms) {
            return Some(points);
        }
        let is_skewed = most - median > 3.0 * (median - least) && least > 0.0;
        Some(if is_skewed { Law::LogNormal(median, sigma(&ms)) } else { Law::Uniform(least, most) })
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn noise(around: f64) -> f64 {
    NOISE_MS.max(around * NOISE_SHARE)
}

/// Two groups, each as narrow as noise, with a wide gap between them.
fn two_groups(sorted: &[f64]) -> Option<Law> {
    let gap = |at: &usize| sorted[*at] / sorted[at - 1].max(0.1);
    let at = (1..sorted.len()).max_by(|one, other| gap(one).total_cmp(&gap(other)))?;
    let (low, high) = sorted.split_at(at);
    let is_narrow = |group: &[f64]| {
        let width = group[group.len() - 1] - group[0];
        width <= 2.0 * noise(median(group))
    };
    let is_apart = gap(&at) >= GAP && high[0] - low[low.len() - 1] > 4.0 * noise(median(low));
    (is_apart && is_narrow(low) && is_narrow(high)).then(|| {
        let share = high.len() as f64 / sorted.len() as f64;
        Law::Points(median(low), median(high), share)
    })
}

/// The standard deviation of the logarithms.
fn sigma(sorted: &[f64]) -> f64 {
    let logs: Vec<f64> = sorted.iter().map(|ms| ms.ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let square = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (logs.len() - 1) as f64;
    square.sqrt()
}

/// As a scenario has it: a TOML value.
impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Law::Constant(ms) => write!(f, "\"{}\"", Ms(*ms)),
            Law::Uniform(least, most) => write!(f, "\"{}..{}\"", Ms(*least), Ms(*most)),
            Law::Points(low, high, share) => {
                let percent = (share * 100.0).round().clamp(1.0, 99.0);
                write!(f, "\"{} {}%, {} {percent}%\"", Ms(*low), 100.0 - percent, Ms(*high))
            }
            Law::LogNormal(median, sigma) => {
                write!(f, "{{ median = \"{}\", sigma = {sigma:.2} }}", Ms(*median))
            }
        }
    }
}

/// Milliseconds, or microseconds where there are few.
struct Ms(f64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10.0 { write!(f, "{:.0}us", self.0 * 1e3) } else { write!(f, "{:.0}ms", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(ms: &[u64]) -> String {
        let samples: Vec<_> = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Law::of(&samples).map_or_else(String::new, |law| law.to_string())
    }

    #[test]
    fn the_simplest_law_that_goes_with_the_samples_is_taken() {
        assert_eq!(law(&[5, 5]), "");
        assert_eq!(law(&[5, 6, 7]), "\"6000us\"");
        assert_eq!(law(&[500, 505, 510, 520]), "\"508ms\"");
        assert_eq!(law(&[20, 25, 30, 40, 31]), "\"20ms..40ms\"");
        assert_eq!(law(&[500, 501, 502, 503, 504, 505, 506, 507, 508, 4000]), "\"504ms 90%, 4000ms 10%\"");
        let skewed = law(&[20, 22, 23, 25, 28, 35, 60, 90]);
        assert!(skewed.starts_with("{ median = \"26ms\", sigma = 0.5"), "{skewed}");
    }
}
