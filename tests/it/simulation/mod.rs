//! The engine, the real ledger in memory and the account model in one thread, in virtual time, from one seed.
//!
//! A seed that fails prints the command that replays it. `scripts/soak` runs new ones for as long as it is told to.

mod checker;
mod dice;
mod disk;
mod setup;
mod witness;
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use setup::Setup;
use world::{Verdict, simulate};

/// Seeds that every test run goes through. Those that once failed are among them.
const FIXED: std::ops::Range<u64> = 0..200;

/// How many seeds that nobody has seen before every test run tries.
const FRESH: u64 = 50;

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
    for seed in 0..20 {
        let first = simulate(seed, Setup::draw(seed), false);
        assert_eq!(first, simulate(seed, Setup::draw(seed), false), "seed {seed}");
        traces.insert(first.trace);
    }
    assert_eq!(traces.len(), 20, "different seeds, different traces");
}

#[test]
fn a_large_lot() {
    let verdict = simulate(1, Setup::large(1_000), false);
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert_eq!(verdict.cut_off, 2);
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
