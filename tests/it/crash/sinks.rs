//! SIGKILL under a run with a keys sink, and disks that vanish with the ledger on them.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::account::Service;
use super::evidence::{self, every_device_once_sealed};
use super::{said, seed, setting, spawn};
use crate::harness::{Scratch, fleetmint, run};

/// Requests take a while, so that kills come between the sink and the ledger too.
const SCENARIO: &str =
    "keys = \"p256\"\n[latency]\ncreate_keys_and_certificate = \"20ms\"\nregister_thing = \"20ms\"\n";

#[test]
fn kills_and_lost_disks_lose_no_key_and_register_no_device_twice() {
    let kills = setting("FLEETMINT_CRASH_KILLS", 30);
    let devices = usize::try_from(setting("FLEETMINT_CRASH_DEVICES", 16 * kills)).unwrap();
    let mut random = SmallRng::seed_from_u64(seed("sinks"));
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", devices);
    let (ledger, sink) = (scratch.path("lot.ledger"), scratch.path("sink"));
    std::fs::create_dir(&sink).unwrap();
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let service = Service::start(&scratch, SCENARIO);
    let provision = || {
        let mut command = service.provision(&lot);
        command.args(["--seal-to", &recipient, "--keys-sink"]).arg(&sink);
        command
    };
    let length = || std::fs::metadata(sink.join("lot.ledger.sink")).map_or(0, |file| file.len());
    let mut restored = 0;
    for kill in 1..=kills {
        // In the middle of its work, once the sink has grown a little; now and then before it has begun.
        let grown = length() + random.random_range(0..=60_000);
        let mut child = spawn(&mut provision());
        let start = Instant::now();
        while length() < grown && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..=20)));
        child.kill().unwrap();
        let said = said(child);
        assert!(matches!(said.code, None | Some(0 | 3)), "kill {kill}: {:?}\n{}", said.code, said.err);
        if random.random_bool(0.3) && sink.join("lot.ledger.claim").exists() {
            for suffix in ["", "-wal", "-shm", ".lock"] {
                let _ = std::fs::remove_file(scratch.path(&format!("lot.ledger{suffix}")));
            }
            run(&mut provision()).expect_code(74).expect_err(&["belongs to another ledger", "restore"]);
            assert!(!ledger.exists(), "the lot is not begun again");
            run(fleetmint().arg("restore").arg(&lot).arg("--from-sink").arg(&sink)).expect_code(0);
            restored += 1;
        }
    }
    eprintln!("{restored} restored: {:?}", evidence::states(&ledger));
    run(&mut provision()).expect_code(0);
    let open =
        |sealed: String| String::from_utf8(age::decrypt(&identity, sealed.as_bytes()).unwrap()).unwrap();
    every_device_once_sealed(&ledger, &service.account(), devices, open);
    // The whole of it, once more.
    std::fs::rename(&ledger, scratch.path("lost.ledger")).unwrap();
    run(fleetmint().arg("restore").arg(&lot).arg("--from-sink").arg(&sink))
        .expect_code(0)
        .expect_out(&[&format!("{devices} devices registered, 0 to be settled")]);
    every_device_once_sealed(&ledger, &service.account(), devices, open);
    service.stop();
}
