//! Runs that are not held to a rate, or to a very high one.

use std::time::Duration;

use fleetmint::emulator::memory::Faults;
use fleetmint::emulator::scenario::{self, Fault, Quota, Quotas, Scenario, TokenReuse};
use fleetmint::rate::{Rate, RateLimit};

use super::play::{Play, Second};

fn scenario(quota: Option<f64>) -> Scenario {
    let quota = quota.map(|quota| Quota::constant(Rate::per_second(quota).unwrap()));
    let quotas =
        Quotas { create_keys_and_certificate: quota.clone(), register_thing: quota, ..Quotas::default() };
    Scenario { token_reuse: TokenReuse::Accept, quotas, ..Scenario::default() }
}

/// Half of the lost never arrive, the other half are done.
fn losing(share: f64) -> Faults {
    let lost = [(Fault::Silence, share / 2.0), (Fault::Unacknowledged, share / 2.0)];
    Faults { requests: scenario::Faults::of_requests(lost), ..Faults::default() }
}

fn registered(seconds: &[Second]) -> f64 {
    seconds.iter().map(|second| second.registered).sum::<u64>() as f64
}

/// A quota of 20/s of which nobody knows, and a rate that is to be found.
#[test]
fn an_unknown_quota_is_found_by_a_short_run_and_then_used_up() {
    let play = Play {
        scenario: scenario(Some(20.0)),
        faults: Faults::default(),
        rate: RateLimit::Auto,
        connections: 1_000,
        devices: 900,
        horizon: Duration::from_secs(600),
    };
    let seconds = play.run();
    assert_eq!(registered(&seconds), 900.0);
    let took = seconds.iter().rposition(|second| second.registered > 0).unwrap() as f64 + 1.0;
    assert!(900.0 / 20.0 / took >= 0.90, "it took {took} s, ideally 45");
    let settled = &seconds[15..seconds.len() - 2];
    let used = registered(settled) / 20.0 / settled.len() as f64;
    assert!(used >= 0.95, "{used} of the quota was used once it was found");
}

/// Nothing holds the run back but the answers' own time.
#[test]
fn without_a_set_rate_one_lost_in_a_hundred_costs_less_than_a_tenth() {
    let [without, with] = [0.0, 0.01].map(|share| {
        let play = Play {
            scenario: scenario(None),
            faults: Faults {
                latency: (Duration::from_millis(50), Duration::from_millis(150)),
                ..losing(share)
            },
            rate: RateLimit::Unlimited,
            connections: 40,
            devices: 4_000,
            horizon: Duration::from_secs(30),
        };
        registered(&play.run())
    });
    assert!(with >= 0.9 * without, "{with} devices rather than {without}");
}

/// As many as a large account may, beside losses, without and with a quota that is lower than was thought.
#[test]
fn four_hundred_a_second() {
    for (quota, available) in [(None, 400.0), (Some(280.0), 280.0)] {
        let play = Play {
            scenario: scenario(quota),
            faults: losing(0.01),
            rate: RateLimit::per_second(400.0),
            connections: 1_000,
            devices: 9_000,
            horizon: Duration::from_secs(20),
        };
        let seconds = play.run();
        // The connections are opened in the first seconds; what is after the last whole second is none.
        let whole = &seconds[3..20];
        let used = registered(whole) / 0.99 / available / whole.len() as f64;
        let throttled: u64 = seconds[10..].iter().map(|second| second.throttled).sum();
        let requests: u64 = seconds[10..].iter().map(|second| second.requests).sum();
        let registered: Vec<u64> = seconds.iter().map(|second| second.registered).collect();
        assert!(used >= 0.95, "{used} of {available}/s: {registered:?}");
        assert!(throttled * 50 <= requests, "{throttled} of {requests} were throttled");
    }
}
