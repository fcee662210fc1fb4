//! The engine, the real ledger in memory and the account model in one thread, in virtual time, from one seed.
//!
//! A seed that fails prints the command that replays it. `scripts/soak` runs new ones for as long as it is told to.

mod checker;
mod dice;
mod disk;
mod setup;
mod shards;
mod witness;
pub mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fleetmint::emulator::scenario::{Scenario, TokenReuse};
use setup::{Keys, Setup};
use world::{Verdict, simulate};

/// Seeds that every test run goes through. Those that once failed are among them.
const FIXED: std::ops::Range<u64> = 0..120;

/// How many seeds that nobody has seen before every test run tries.
const FRESH: u64 = 30;

#[test]
fn fixed_seeds() {
    run_all(FIXED);
}

#[test]
fn fresh_seeds() {
    let start = fresh_seed();
    match std::env::var("FLEETMINT_SIM_MINUTES") {
        Err(_) => run_all(start..start + FRESH),
        Ok(minutes) => soak(start, Duration::from_secs_f64(60.0 * minutes.parse::<f64>().unwrap())),
    }
}

/// Where nothing goes wrong, every device is registered.
#[test]
fn calm_seeds() {
    for seed in 0..20 {
        let setup = Setup::draw_calm(seed);
        assert!(setup.is_calm(), "seed {seed}");
        let (devices, verdict) = (setup.devices, simulate(seed, setup, false));
        assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
        assert_eq!(verdict.ends, [devices, 0, 0], "seed {seed}");
    }
}

/// Runs one seed, `FLEETMINT_SIM_SEED`, and tells its story if it fails.
#[test]
fn replay() {
    let seed = std::env::var("FLEETMINT_SIM_SEED").map_or(0, |seed| seed.parse().unwrap());
    let verdict = simulate(seed, Setup::draw(seed), true);
    for line in &verdict.story {
        println!("{line}");
    }
    println!("{:#?}", Setup::draw(seed));
    assert!(verdict.violations.is_empty(), "{}", complaint(seed, &verdict));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..8 {
        for keys in [Keys::Service, Keys::Local] {
            let draw = || Setup { keys, ..Setup::draw(seed) };
            let first = simulate(seed, draw(), false);
            assert_eq!(first, simulate(seed, draw(), false), "seed {seed}, {keys:?}");
            traces.insert(first.trace);
        }
    }
    assert_eq!(traces.len(), 16, "different seeds, different traces");
}

/// `FLEETMINT_SIM_DEVICES` makes it larger, and prints how long it took.
#[test]
fn a_large_lot() {
    let devices = std::env::var("FLEETMINT_SIM_DEVICES").map_or(1_000, |devices| devices.parse().unwrap());
    let began = Instant::now();
    let verdict = simulate(1, Setup::large(devices), false);
    println!(
        "{devices} devices, {:.1} s of virtual time, {} sightings, in {:.1} s",
        verdict.virtual_time.as_secs_f64(),
        verdict.sightings,
        began.elapsed().as_secs_f64()
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert_eq!(verdict.cut_off, 2);
}

/// The same seeds, with keys made by the client.
#[test]
fn keys_made_by_the_client() {
    for seed in 0..40 {
        let verdict = simulate(seed, Setup { keys: Keys::Local, ..Setup::draw(seed) }, false);
        assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
    }
}

/// Where nothing goes wrong, every device is registered with the key that was made for it.
#[test]
fn calm_seeds_with_keys_made_by_the_client() {
    for seed in 0..10 {
        let setup = Setup { keys: Keys::Local, ..Setup::draw_calm(seed) };
        let (devices, verdict) = (setup.devices, simulate(seed, setup, false));
        assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
        assert_eq!(verdict.ends, [devices, 0, 0], "seed {seed}");
    }
}

/// Both answers to what AWS does not say: whether a token that was used may register again.
#[test]
fn a_used_token_is_taken_again_or_not() {
    let ends = [TokenReuse::Accept, TokenReuse::Reject].map(|token_reuse| {
        let mut sum = [0; 3];
        for seed in 0..15 {
            let setup = Setup::draw(seed);
            let scenario = Scenario { token_reuse, ..setup.scenario };
            let verdict = simulate(seed, Setup { scenario, ..setup }, false);
            assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
            for (sum, end) in sum.iter_mut().zip(verdict.ends) {
                *sum += end;
            }
        }
        sum
    });
    let [[_, _, unknown_if_accepted], [_, _, unknown_if_rejected]] = ends;
    assert!(unknown_if_accepted < unknown_if_rejected, "what can be settled is: {ends:?}");
}

fn run_all(seeds: std::ops::Range<u64>) {
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get() as u64).min(4);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                let seeds = seeds.clone().filter(move |seed| seed % threads == thread);
                scope.spawn(move || seeds.filter_map(run_one).collect::<Vec<_>>())
            })
            .collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

/// Runs new seeds until the time is up or one fails.
fn soak(start: u64, time: Duration) {
    let began = Instant::now();
    let mut next = start;
    while began.elapsed() < time {
        run_all(next..next + 200);
        next += 200;
    }
    println!("{} seeds from {start} on, none failed", next - start);
}

fn run_one(seed: u64) -> Option<String> {
    let verdict = simulate(seed, Setup::draw(seed), false);
    (!verdict.violations.is_empty()).then(|| complaint(seed, &verdict))
}

fn complaint(seed: u64, verdict: &Verdict) -> String {
    let violations: Vec<_> = verdict.violations.iter().take(5).map(String::as_str).collect();
    format!(
        "seed {seed}: {}\n  replay: FLEETMINT_SIM_SEED={seed} cargo test --test it simulation::replay -- --nocapture",
        violations.join("\n    ")
    )
}

/// A seed that differs from one test run to the next.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() * 1_000
}
