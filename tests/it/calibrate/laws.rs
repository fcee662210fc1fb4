//! A law is told by few samples: draws of the emulator's own laws, without a process, a machine or a clock.

use std::time::Duration;

use fleetmint::calibration::Law;
use fleetmint::emulator::scenario::LatencyLaw;

use super::scenarios::Draws;

/// What sockets and schedulers add at most where nothing else is at work.
const NOISE_US: u64 = 1_500;

/// The law that so many draws of `given` are taken for.
fn found(given: &LatencyLaw, samples: usize, seed: u64) -> Law {
    let mut draws = Draws(seed);
    let mut one = || (draws.next() >> 11) as f64 / (1_u64 << 53) as f64;
    let samples: Vec<Duration> = (0..samples)
        .map(|_| given.quantile(one()) + Duration::from_micros((one() * NOISE_US as f64) as u64))
        .collect();
    Law::of(&samples).unwrap()
}

/// Of 200 calibrations with ten samples each, the share whose law is of the given one's kind and near its parameters.
fn share_told(given: &str, is_near: impl Fn(&Law) -> bool) -> f64 {
    let given: LatencyLaw = given.parse().unwrap();
    (0..200).filter(|seed| is_near(&found(&given, 10, *seed))).count() as f64 / 200.0
}

fn is_within(found: f64, given: f64, share: f64) -> bool {
    (found - given).abs() <= (given * share).max(2.0)
}

#[test]
fn a_constant_law_is_always_told() {
    for (given, median) in [("0", 0.0), ("20ms", 20.0), ("150ms", 150.0), ("200ms", 200.0)] {
        let told = |law: &Law| matches!(law, Law::Constant(ms) if is_within(*ms, median, 0.01));
        assert_eq!(share_told(given, told), 1.0, "{given}");
    }
}

/// Ten samples of a uniform law may look skewed; where they do not, its bounds are near, and never outside.
#[test]
fn a_uniform_law_is_mostly_told_with_its_bounds() {
    let told = |law: &Law| {
        matches!(law, Law::Uniform(least, most)
            if (40.0..=70.0).contains(least) && (90.0..=122.0).contains(most))
    };
    let share = share_told("40ms..120ms", told);
    assert!(share > 0.75, "{share}");
}

#[test]
fn a_law_of_two_points_is_told_with_both_where_both_were_seen() {
    let told = |law: &Law| match law {
        Law::Points(low, high, share) => {
            is_within(*low, 30.0, 0.1) && is_within(*high, 500.0, 0.1) && (0.05..=0.7).contains(share)
        }
        // The second was not among them.
        Law::Constant(ms) => is_within(*ms, 30.0, 0.1),
        Law::Uniform(..) | Law::LogNormal(..) => false,
    };
    assert!(share_told("30ms 70%, 500ms 30%", told) > 0.95);
}

#[test]
fn a_long_tail_is_not_told_as_a_narrow_law() {
    let told = |law: &Law| match law {
        Law::LogNormal(median, sigma) => is_within(*median, 50.0, 0.6) && (0.3..=1.6).contains(sigma),
        Law::Uniform(least, most) => most / least > 3.0,
        Law::Constant(_) | Law::Points(..) => false,
    };
    let given = LatencyLaw::log_normal(Duration::from_millis(50), 0.8).unwrap();
    let share = (0..200).filter(|seed| told(&found(&given, 10, *seed))).count() as f64 / 200.0;
    assert!(share > 0.85, "{share}");
}
