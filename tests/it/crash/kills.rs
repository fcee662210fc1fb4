//! SIGKILL, at any moment, again and again.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::account::Service;
use super::evidence::{self, every_device_once};
use super::{said, seed, setting, spawn};
use crate::harness::Scratch;

/// Requests take a while, so that at any moment some are on their way, some done and not answered, some answered and not
/// recorded.
const SCENARIO: &str =
    "keys = \"p256\"\n[latency]\ncreate_keys_and_certificate = \"50ms\"\nregister_thing = \"50ms\"\n";

#[test]
fn a_hundred_kills_lose_no_key_and_register_no_device_twice() {
    survive("token_reuse = \"reject\"\n", 100);
}

#[test]
fn kills_leave_nothing_unknown_where_a_token_may_be_used_again() {
    survive("token_reuse = \"accept\"\n", 100);
}

/// Kills one lot's run `kills` times, then lets it finish, and looks at what is there.
fn survive(rules: &str, kills: u64) {
    let kills = setting("FLEETMINT_CRASH_KILLS", kills);
    let devices = setting("FLEETMINT_CRASH_DEVICES", 12 * kills);
    let seed = seed("kills");
    let mut random = SmallRng::seed_from_u64(seed);
    let devices = usize::try_from(devices).unwrap();
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", devices);
    let ledger = scratch.path("lot.ledger");
    let service = Service::start(&scratch, &format!("{rules}{SCENARIO}"));
    let start = Instant::now();
    let mut ended_early = 0;
    for kill in 1..=kills {
        let mut child = spawn(&mut service.provision(&lot));
        // From before the ledger is open to deep in the run.
        std::thread::sleep(Duration::from_millis(random.random_range(10..=300)));
        child.kill().unwrap();
        let said = said(child);
        match said.code {
            None => {}
            Some(0 | 3) => ended_early += 1,
            Some(_) => panic!("kill {kill}: {:?}\n{}", said.code, said.err),
        }
        if kill % 10 == 0 && ledger.exists() {
            eprintln!("{kill} kills in {:?}: {:?}", start.elapsed(), evidence::states(&ledger));
        }
    }
    assert_eq!(ended_early, 0, "the lot was done before the last kill: more devices are needed");
    let last = said(spawn(&mut service.provision(&lot)));
    assert_eq!(last.code, Some(0), "{}\n{}", last.out, last.err);
    eprintln!("done in {:?}: {:?}", start.elapsed(), evidence::states(&ledger));
    every_device_once(&ledger, &service.account(), devices);
    service.stop();
}
