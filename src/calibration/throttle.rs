//! From a flood of requests to the throttle that met it: its rate, its burst, and how it counts.
//!
//! Pure: it is told when each request was admitted or throttled.

use std::time::Duration;

/// How a throttle counts: the names in a scenario's `quotas.window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// A bucket that fills at the rate.
    Bucket,
    /// A number in each window of a clock of its own.
    Fixed,
    /// A number in any window.
    Sliding,
}

impl Counting {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Counting::Bucket => "bucket",
            Counting::Fixed => "fixed",
            Counting::Sliding => "sliding",
        }
    }
}

/// A throttle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Requests per second.
    pub rate: f64,
    /// How it counts.
    pub counting: Counting,
    /// What may come at once, as the time in which the rate allows that much.
    pub burst_s: f64,
}

/// What a flood met: for each answer when it came, from the flood's beginning, and whether the request was admitted.
pub type Flood = Vec<(Duration, bool)>;

/// The fewest requests that must be admitted behind the first throttle.
const FEWEST: usize = 8;

/// Windows whose first is shorter than this share of the others, or whose others admit less than this share of the first, are
/// of a clock of their own.
const CUT: f64 = 0.85;

impl Throttle {
    /// The throttle that these floods met, each after a pause; `None` if they met none, or too little to tell it by.
    pub fn of(floods: &[Flood]) -> Option<Self> {
        let seen: Vec<Seen> = floods.iter().filter_map(Seen::of).collect();
        let first = seen.first()?;
        if seen.iter().any(|seen| seen.is_clumped != first.is_clumped) {
            return None;
        }
        let mean = |of: fn(&Seen) -> f64| seen.iter().map(of).sum::<f64>() / seen.len() as f64;
        let rate = mean(|seen| seen.rate);
        let counting = match first.is_clumped {
            false => Counting::Bucket,
            true if seen.iter().any(|seen| seen.is_cut) => Counting::Fixed,
            true => Counting::Sliding,
        };
        let burst_s = match counting {
            Counting::Bucket => mean(|seen| seen.tokens) / rate,
            Counting::Fixed | Counting::Sliding => mean(|seen| seen.window_s),
        };
        Some(Self { rate, counting, burst_s })
    }
}

/// What several throttles of one account have in common: how most of them count, and the middle one of the bursts of these;
/// `None` if there are none.
pub(super) fn in_common(throttles: &[Throttle]) -> Option<(Counting, f64)> {
    let alike = |counting| throttles.iter().filter(move |throttle| throttle.counting == counting);
    let counting = throttles.iter().map(|throttle| throttle.counting).max_by_key(|it| alike(*it).count())?;
    let mut bursts: Vec<f64> = alike(counting).map(|throttle| throttle.burst_s).collect();
    bursts.sort_by(f64::total_cmp);
    Some((counting, bursts[bursts.len() / 2]))
}

/// What one flood shows.
struct Seen {
    rate: f64,
    /// Whether requests are admitted many at a time, with pauses between.
    is_clumped: bool,
    /// What was admitted before the first throttle, beyond the rate.
    tokens: f64,
    window_s: f64,
    /// Whether the first window was one of a clock that had begun before: it is shorter than the others, or so short that
    /// what it admits runs into the next.
    is_cut: bool,
}

impl Seen {
    fn of(flood: &Flood) -> Option<Self> {
        let mut flood = flood.clone();
        flood.sort_by_key(|(at, _)| *at);
        let throttled = flood.iter().find(|(_, admitted)| !admitted)?.0.as_secs_f64();
        let admitted: Vec<f64> =
            flood.iter().filter(|(_, admitted)| *admitted).map(|(at, _)| at.as_secs_f64()).collect();
        let later: Vec<f64> = admitted.iter().copied().filter(|at| *at > throttled).collect();
        if later.len() < FEWEST {
            return None;
        }
        let spacing = (flood.last()?.0.as_secs_f64()) / flood.len() as f64;
        // A pause is one that the flood itself does not explain.
        let mut gaps: Vec<f64> = later.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        let is_clumped = gaps[gaps.len() / 2] < 2.0 * spacing;
        let span = later[later.len() - 1] - later[0];
        if !is_clumped {
            let rate = (later.len() - 1) as f64 / span;
            let before = admitted.len() - later.len();
            return Some(Self {
                rate,
                is_clumped,
                // Half a token is left on average where one is too few.
                tokens: before as f64 + 0.5 - rate * throttled,
                window_s: 0.0,
                is_cut: false,
            });
        }
        // Half of the longest: the machine's own hiccups are shorter.
        let pause = (6.0 * spacing).max(gaps[gaps.len() - 1] / 2.0);
        let mut starts = vec![admitted[0]];
        let mut sizes = vec![0_usize];
        for (place, at) in admitted.iter().enumerate() {
            if place > 0 && at - admitted[place - 1] > pause {
                starts.push(*at);
                sizes.push(0);
            }
            *sizes.last_mut().expect("there is one from the beginning") += 1;
        }
        // The last may be cut off by the end of the flood, and the first by the beginning of a window.
        let whole = starts.len().checked_sub(2).filter(|whole| *whole >= 2)?;
        let window_s = (starts[whole] - starts[1]) / (whole - 1) as f64;
        let size = sizes[1..=whole - 1].iter().sum::<usize>() as f64 / (whole - 1) as f64;
        Some(Self {
            rate: size / window_s,
            is_clumped,
            tokens: 0.0,
            window_s,
            is_cut: starts[1] - starts[0] < CUT * window_s || sizes[0] as f64 * CUT > size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of 60 requests a second for six seconds against a throttle, begun at `phase` of its clock.
    fn flood(counting: Counting, rate: f64, burst_s: f64, phase: f64) -> Flood {
        let most = rate * burst_s;
        let (mut tokens, mut last, mut admitted) = (most, 0.0, Vec::<f64>::new());
        (0..360)
            .map(|n| {
                let at = f64::from(n) / 60.0;
                tokens = (tokens + rate * (at - last)).min(most);
                last = at;
                let window = |at: f64| ((at + phase) / burst_s).floor();
                let is_admitted = match counting {
                    Counting::Bucket => tokens >= 1.0,
                    Counting::Fixed => {
                        admitted.iter().filter(|it| window(**it) == window(at)).count() < most as usize
                    }
                    Counting::Sliding => {
                        admitted.iter().filter(|it| **it > at - burst_s).count() < most as usize
                    }
                };
                if is_admitted {
                    tokens -= 1.0;
                    admitted.push(at);
                }
                (Duration::from_secs_f64(at), is_admitted)
            })
            .collect()
    }

    #[test]
    fn each_way_of_counting_is_told_by_its_floods() {
        for counting in [Counting::Bucket, Counting::Fixed, Counting::Sliding] {
            for rate in [10.0, 20.0] {
                let floods = [flood(counting, rate, 1.0, 0.3), flood(counting, rate, 1.0, 0.7)];
                let found = Throttle::of(&floods).unwrap();
                assert_eq!(found.counting, counting, "{found:?}");
                assert!((found.rate / rate - 1.0).abs() < 0.1, "{found:?} of {rate}");
                assert!((found.burst_s - 1.0).abs() < 0.15, "{found:?}");
            }
        }
    }

    /// Wherever in its window a clock is met first: half a window later it shows itself.
    #[test]
    fn a_clock_is_told_at_each_phase_by_two_floods_half_a_window_apart() {
        for rate in [8.0, 10.0, 20.0] {
            for phase in (0..100).map(|percent| f64::from(percent) / 100.0) {
                let floods = [phase, phase + 0.5].map(|phase| flood(Counting::Fixed, rate, 1.0, phase));
                let found = Throttle::of(&floods).unwrap();
                assert_eq!(found.counting, Counting::Fixed, "{rate}/s at {phase}: {found:?}");
            }
        }
    }

    #[test]
    fn the_majority_says_how_an_account_counts() {
        let throttle = |counting, burst_s| Throttle { rate: 1.0, counting, burst_s };
        let (fixed, sliding) = (Counting::Fixed, Counting::Sliding);
        let all = [throttle(sliding, 9.0), throttle(fixed, 1.1), throttle(fixed, 1.0)];
        assert_eq!(in_common(&all), Some((fixed, 1.1)));
        assert_eq!(in_common(&[]), None);
    }

    #[test]
    fn without_a_throttle_there_is_none() {
        let free = (0..100).map(|n| (Duration::from_millis(n * 20), true)).collect();
        assert_eq!(Throttle::of(&[free]), None);
        assert_eq!(Throttle::of(&[]), None);
    }
}
