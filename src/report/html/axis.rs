//! Axes: where a value lies, and which values label the axis.

/// The scale of an axis from 0 (its lower end) to 1 (its upper end).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Linear, from 0 to a maximum.
    Linear { max: f64 },
    /// Logarithmic, between two values above 0.
    Log { min: f64, max: f64 },
}

/// From this ratio of the largest to the smallest value on, a linear scale would flatten the small ones.
const LOG_FROM: f64 = 40.0;

impl Scale {
    /// The scale for counts and rates, starting at 0.
    pub(super) fn counts(values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(0.0, f64::max);
        Scale::Linear { max: ceiling(max) }
    }

    /// The scale for latencies: linear from 0 if they are similar, logarithmic if they are far apart.
    pub(super) fn latencies(values: impl Iterator<Item = u64>) -> Self {
        let (mut min, mut max) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0) {
            (min, max) = (min.min(value as f64), max.max(value as f64));
        }
        if max == 0.0 {
            return Scale::Linear { max: 1.0 };
        }
        if max / min >= LOG_FROM {
            Scale::Log { min: floor_125(min), max: ceiling_125(max) }
        } else {
            Scale::Linear { max: ceiling(max) }
        }
    }

    /// The position of `value`, from 0 to 1.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear { max } => (value / max).clamp(0.0, 1.0),
            Scale::Log { min, max } => ((value.max(min) / min).ln() / (max / min).ln()).clamp(0.0, 1.0),
        }
    }

    /// The values that label the axis, ascending.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear { max } => {
                let step = step(max);
                (0..=8).map(|n| f64::from(n) * step).take_while(|tick| *tick <= max * 1.000_001).collect()
            }
            Scale::Log { min, max } => {
                let decades = (max / min).log10();
                let wanted: &[f64] = if decades > 3.0 {
                    &[1.0]
                } else if decades > 2.0 {
                    &[1.0, 3.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                let first = min.log10().floor() as i32;
                let all = (first..=first + 12)
                    .flat_map(|decade| wanted.iter().map(move |one| one * 10_f64.powi(decade)));
                all.filter(|tick| *tick >= min * 0.999_999 && *tick <= max * 1.000_001).collect()
            }
        }
    }

    /// The value at its upper end.
    pub(super) fn max(self) -> f64 {
        match self {
            Scale::Linear { max } | Scale::Log { max, .. } => max,
        }
    }

    pub(super) fn is_log(self) -> bool {
        matches!(self, Scale::Log { .. })
    }
}

/// The distance between ticks: 1, 2, 2.5 or 5 times a power of ten, chosen to give four to six ticks.
fn step(max: f64) -> f64 {
    let raw = max / 5.0;
    let power = 10_f64.powf(raw.log10().floor());
    let nice =
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|nice| nice * power >= raw * 0.999_999).unwrap_or(10.0);
    nice * power
}

fn ceiling(max: f64) -> f64 {
    if !(max.is_finite() && max > 0.0) {
        return 1.0;
    }
    let step = step(max);
    (max / step).ceil() * step
}

fn floor_125(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|one| one * power)
        .find(|nice| *nice <= value * 1.000_001)
        .unwrap_or(power)
}

fn ceiling_125(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|one| one * power)
        .find(|nice| *nice >= value * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// Ticks of a time axis of `seconds`, in customary units of time.
pub(super) fn time_ticks(seconds: f64) -> Vec<u64> {
    let steps =
        [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];
    let whole = seconds.max(1.0) as u64;
    let days = whole.div_ceil(8 * 86_400) * 86_400;
    let step = steps.into_iter().find(|step| whole / step <= 8).unwrap_or(days);
    (0..=whole / step).map(|n| n * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_end_above_the_greatest_value_at_a_round_one() {
        for (max, wanted) in
            [(49.3, 50.0), (0.0, 1.0), (1.0, 1.0), (7.2, 8.0), (1_234.0, 1_250.0), (0.03, 0.03)]
        {
            let Scale::Linear { max: found } = Scale::counts([max].into_iter()) else { panic!("not linear") };
            assert!((found - wanted).abs() < 1e-9, "{max}: {found}");
            let ticks = Scale::Linear { max: found }.ticks();
            assert!((3..=7).contains(&ticks.len()), "{max}: {ticks:?}");
        }
    }

    #[test]
    fn latencies_far_apart_are_laid_out_by_the_logarithm() {
        let near = Scale::latencies([1_000, 12_000].into_iter());
        assert!(!near.is_log());
        let far = Scale::latencies([900, 2_100_000].into_iter());
        assert_eq!(far, Scale::Log { min: 500.0, max: 5_000_000.0 });
        assert_eq!(far.ticks(), [1_000.0, 10_000.0, 100_000.0, 1_000_000.0]);
        assert!((far.place(50_000.0) - 0.5).abs() < 1e-9 && far.place(0.0) == 0.0);
    }

    #[test]
    fn time_is_counted_in_steps_that_people_use() {
        assert_eq!(time_ticks(12.3), [0, 2, 4, 6, 8, 10, 12]);
        assert_eq!(time_ticks(0.2), [0, 1]);
        assert_eq!(time_ticks(3_600.0), [0, 600, 1_200, 1_800, 2_400, 3_000, 3_600]);
        assert!(time_ticks(1e9).len() <= 10);
    }
}
