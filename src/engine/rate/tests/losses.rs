//! Requests that get no answer, for any reason, from services of all kinds, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::search::{BUCKET, run, trial};
use super::services::{Loss, Result, Shape, Throttle, Trial};
use crate::rate::RateLimit;

const ALL: [Loss; 5] =
    [Loss::None, Loss::Random(0.002), Loss::Random(0.01), Loss::Random(0.05), Loss::Bursts];
/// Far above any fixed rate.
const NO_QUOTA: f64 = 1e6;
/// A silent throttle: the client gives the connection up after 1.2 s.
const SILENT: Throttle = Throttle::Silent(1.2);

fn set(rate: f64, shape: Shape, quota: f64, throttle: Throttle, loss: Loss) -> Trial {
    let limit = RateLimit::per_second(rate);
    Trial { limit, loss, seconds: 300.0, ..trial(shape, quota, (0.05, 0.15), throttle) }
}

/// The fixed rate is used, and no quota is reported.
#[test]
fn losses_do_not_slow_a_set_rate_down_and_are_not_called_a_quota() {
    let rates = [1.0, 10.0, 50.0];
    let trials: Vec<_> = rates
        .into_iter()
        .flat_map(|rate| ALL.map(|loss| set(rate, BUCKET, NO_QUOTA, Throttle::Prompt, loss)))
        .collect();
    run(&trials, |result| result.used_in_all >= 0.95 && !result.names_limit);
}

/// A rate that loses more than another does so by chance now and then. Before a test compared all its requests at both rates, a
/// tenth of these runs named a quota.
#[test]
fn chance_is_hardly_ever_called_a_quota() {
    let mut trials = Vec::new();
    for rate in [10.0, 30.0, 50.0] {
        for share in [0.02, 0.03, 0.05, 0.08] {
            let trial = set(rate, BUCKET, NO_QUOTA, Throttle::Prompt, Loss::Random(share));
            trials.extend((0..25).map(|seed| Trial { seed, ..trial }));
        }
    }
    let named = AtomicUsize::new(0);
    run(&trials, |result| {
        named.fetch_add(usize::from(result.names_limit), Ordering::Relaxed);
        result.used_in_all >= 0.9
    });
    let named = named.into_inner();
    assert!(named * 100 <= trials.len(), "{named} of {} runs named a quota", trials.len());
}

#[test]
fn a_share_that_is_lost_at_any_rate_is_told() {
    let trials = [10.0, 50.0].map(|rate| set(rate, BUCKET, NO_QUOTA, Throttle::Prompt, Loss::Random(0.05)));
    let is_told = |result: &Result| result.unanswered.is_some_and(|share| (0.03..0.09).contains(&share));
    run(&trials, is_told);
}

#[test]
fn beside_losses_a_quota_is_used_up_and_named() {
    let mut trials = Vec::new();
    for loss in ALL {
        for (shape, throttle) in
            [(BUCKET, Throttle::Prompt), (Shape::FixedWindow, Throttle::Prompt), (BUCKET, SILENT)]
        {
            trials.push(set(50.0, shape, 35.0, throttle, loss));
        }
    }
    run(&trials, |result| result.used_in_all >= 0.95 && result.throttled <= 0.05 && result.names_limit);
}

/// A service that says what is too much has no need to be silent.
#[test]
fn where_requests_are_throttled_losses_are_not_tested() {
    let trials = [0.05, 0.1].map(|share| set(50.0, BUCKET, 35.0, Throttle::Prompt, Loss::Random(share)));
    run(&trials, |result| result.unanswered.is_none() && result.names_limit && result.used_in_all >= 0.95);
}

#[test]
fn a_quota_that_changes_is_followed_through_losses() {
    let mut trials = Vec::new();
    for loss in [Loss::None, Loss::Random(0.01)] {
        for throttle in [Throttle::Prompt, SILENT] {
            for (before, after) in [(35.0, 17.5), (17.5, 35.0)] {
                let trial = set(50.0, BUCKET, before, throttle, loss);
                trials.push(Trial { change: Some((300.0, after)), seconds: 600.0, ..trial });
            }
        }
    }
    run(&trials, |result| result.used_in_all >= 0.95 && result.throttled <= 0.05);
}

#[test]
fn after_an_outage_the_rate_is_back_within_half_a_minute() {
    let mut trials = Vec::new();
    for outage in [Loss::Outage(60.0, 90.0), Loss::Outage(60.0, 360.0)] {
        for (quota, throttle) in [(NO_QUOTA, Throttle::Prompt), (7.0, Throttle::Prompt), (7.0, SILENT)] {
            trials.push(Trial { seconds: 450.0, ..set(10.0, BUCKET, quota, throttle, outage) });
        }
    }
    run(&trials, |result| result.used_after >= 0.95);
}

/// Others take three tenths of the quota.
#[test]
fn what_others_leave_of_a_quota_is_used() {
    let trials = [Loss::None, Loss::Random(0.01)]
        .map(|loss| Trial { others: 10.5, ..set(50.0, BUCKET, 35.0, Throttle::Prompt, loss) });
    run(&trials, |result| result.used_in_all >= 0.95 && result.throttled <= 0.05);
}
