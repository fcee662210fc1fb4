//! The search for the service's rate, against many kinds of service, in virtual time.

use super::services::{Loss, Result, Shape, Throttle, Trial};
use crate::rate::RateLimit;

pub(super) const BUCKET: Shape = Shape::Bucket { seconds: 1.0, least: 1.0 };
const LARGE_BUCKET: Shape = Shape::Bucket { seconds: 5.0, least: 1.0 };
const SMALL_BUCKET: Shape = Shape::Bucket { seconds: 0.1, least: 2.0 };
const NO_BUCKET: Shape = Shape::Bucket { seconds: 0.01, least: 1.0 };

const QUICK: (f64, f64) = (0.001, 0.001);
const STEADY: (f64, f64) = (0.1, 0.1);
const UNEVEN: (f64, f64) = (0.02, 0.2);
const SLOW: (f64, f64) = (2.0, 2.0);

pub(super) fn trial(shape: Shape, quota: f64, latency: (f64, f64), throttle: Throttle) -> Trial {
    let limit = RateLimit::Auto;
    let loss = Loss::None;
    Trial { shape, throttle, quota, change: None, loss, others: 0.0, latency, limit, seconds: 180.0, seed: 0 }
}

/// Runs trials on all cores, and reports the trials and results that `judge` rejects.
pub(super) fn run(trials: &[Trial], judge: impl Fn(&Result) -> bool + Sync) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let judge = &judge;
    let wanting: Vec<String> = std::thread::scope(|scope| {
        let part = |thread: usize| {
            let trials = trials.iter().skip(thread).step_by(threads);
            let judged = trials.map(|trial| (trial, trial.run()));
            let wanting = judged.filter(|(_, result)| !judge(result));
            wanting.map(|(trial, result)| format!("{result:?} of {trial:?}")).collect::<Vec<_>>()
        };
        let started: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        started.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wanting.is_empty(), "{} of {} trials:\n{}", wanting.len(), trials.len(), wanting.join("\n"));
}

fn is_close(result: &Result) -> bool {
    result.used >= 0.95 && result.throttled <= 0.02
}

/// What the documentation promises for a cold start.
#[test]
fn an_unknown_limit_is_found_and_used() {
    let mut trials = Vec::new();
    for quota in [10.0, 50.0] {
        for throttle in [Throttle::Prompt, Throttle::Late(1.5)] {
            for shape in [BUCKET, SMALL_BUCKET, LARGE_BUCKET] {
                for latency in [QUICK, STEADY, UNEVEN] {
                    trials.push(trial(shape, quota, latency, throttle));
                }
            }
            for shape in [Shape::FixedWindow, Shape::SlidingWindow] {
                trials.push(trial(shape, quota, STEADY, throttle));
            }
        }
        trials.push(trial(BUCKET, quota, SLOW, Throttle::Prompt));
    }
    for shape in [BUCKET, SMALL_BUCKET, NO_BUCKET, Shape::FixedWindow, Shape::SlidingWindow] {
        trials.push(trial(shape, 400.0, STEADY, Throttle::Prompt));
    }
    trials.push(trial(BUCKET, 400.0, UNEVEN, Throttle::Late(1.5)));
    trials.push(Trial { seconds: 45.0, ..trial(BUCKET, 2_000.0, STEADY, Throttle::Prompt) });
    run(&trials, is_close);
}

/// The broker's own throttle: the client hears nothing until it gives up.
#[test]
fn an_unknown_limit_is_found_by_silence() {
    let mut trials = Vec::new();
    for quota in [10.0, 50.0] {
        for shape in [BUCKET, SMALL_BUCKET] {
            for latency in [QUICK, STEADY, UNEVEN] {
                trials.push(trial(shape, quota, latency, Throttle::Silent(1.2)));
            }
        }
    }
    run(&trials, |result| result.used >= 0.95 && result.throttled <= 0.05);
}

/// A single request per second gives little to estimate a limit from: each probe weighs much.
#[test]
fn a_limit_of_one_a_second_is_found_too() {
    let trials = [BUCKET, SMALL_BUCKET, LARGE_BUCKET, Shape::FixedWindow]
        .map(|shape| trial(shape, 1.0, STEADY, Throttle::Prompt));
    run(&trials, |result| result.used >= 0.9 && result.throttled <= 0.06);
}

/// If requests overtake each other and the service allows no burst, no rate near the limit is free of throttles: less
/// of the limit is used, and the throttled share stays small.
#[test]
fn where_throttles_cannot_be_avoided_they_stay_few() {
    let unordered = (0.1, 0.5);
    let mut trials = Vec::new();
    for quota in [10.0, 50.0] {
        for shape in [SMALL_BUCKET, Shape::SlidingWindow, Shape::FixedWindow] {
            trials.push(trial(shape, quota, unordered, Throttle::Prompt));
        }
    }
    run(&trials, |result| result.used >= 0.65 && result.throttled <= 0.02);
}

#[test]
fn the_cold_start_costs_little() {
    let of = |quota| trial(BUCKET, quota, STEADY, Throttle::Prompt);
    run(&[of(10.0), of(50.0), of(400.0)], |result| result.throttled_in_all <= 0.02);
}

#[test]
fn a_limit_that_rises_or_falls_is_followed() {
    let trials = [(10.0, 20.0), (20.0, 10.0), (50.0, 10.0), (10.0, 50.0), (200.0, 20.0), (20.0, 200.0)].map(
        |(from, to)| Trial {
            change: Some((60.0, to)),
            seconds: 400.0,
            ..trial(BUCKET, from, UNEVEN, Throttle::Prompt)
        },
    );
    run(&trials, is_close);
}

/// The fixed rate is above what the service sustains.
#[test]
fn a_fixed_limit_follows_the_service_below_it() {
    let trials = [10.0, 50.0, 200.0].map(|quota| Trial {
        limit: RateLimit::per_second(400.0),
        ..trial(BUCKET, quota, (0.02, 0.02), Throttle::Prompt)
    });
    run(&trials, is_close);
}

#[test]
fn few_throttles_for_no_reason_do_not_slow_it_down() {
    let reasonless = Shape::Random { share: 0.002 };
    let trials: Vec<_> =
        (0..6).map(|seed| Trial { seed, ..trial(reasonless, 50.0, STEADY, Throttle::Prompt) }).collect();
    run(&trials, |result| result.used >= 0.9);
}
