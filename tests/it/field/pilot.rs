//! A few devices first.

use crate::harness::{Scratch, column, fleetmint, run};

/// An operator who tries three devices of a lot, looks at them in the account, and goes on with the rest.
#[test]
fn a_pilot_takes_the_first_devices_and_the_same_command_goes_on() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 8);
    let state = scratch.write("p256.toml", "keys = \"p256\"\n");
    let emulator = format!("--emulator={}", state.display());
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).arg(&emulator).args(args));
    let registered = || {
        column(&scratch.path("lot.ledger"), "SELECT key FROM device WHERE state = 'registered' ORDER BY id")
    };
    provision(&["--limit", "3"])
        .expect_code(0)
        .expect_err(&["provisioning 3 of 8", "5 devices are still open"]);
    assert_eq!(registered(), ["SN000001", "SN000002", "SN000003"]);
    provision(&["--limit", "2"]).expect_code(0);
    assert_eq!(registered().len(), 5);
    provision(&[]).expect_code(0).expect_out(&["8 of 8 devices registered"]);
    provision(&["--limit", "2"]).expect_code(0).expect_out(&["nothing to do"]);
}

/// A support case: one device of a lot, or those of a list.
#[test]
fn only_the_named_devices_are_taken() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 8);
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).arg("--emulator").args(args));
    let registered = || {
        column(&scratch.path("lot.ledger"), "SELECT key FROM device WHERE state = 'registered' ORDER BY id")
    };
    provision(&["--only", "SN000007", "--only", "SN000002"]).expect_code(0);
    assert_eq!(registered(), ["SN000002", "SN000007"]);
    let list = scratch.write("list.txt", "\u{feff}SN000001\r\n\r\nSN000007\r\n");
    provision(&["--only-file", list.to_str().unwrap()]).expect_code(0);
    assert_eq!(registered(), ["SN000001", "SN000002", "SN000007"]);
    provision(&["--only", "SN000007"]).expect_code(0).expect_out(&["nothing to do"]);
    provision(&["--only", "SN999999"]).expect_code(64).expect_err(&["--only", "\"SN999999\""]);
    let empty = scratch.write("empty.txt", "\n");
    provision(&["--only-file", empty.to_str().unwrap()]).expect_code(64).expect_err(&["no key"]);
    assert_eq!(registered().len(), 3);
}

/// Whoever wants to know what a night's run would do before the night.
#[test]
fn a_dry_run_says_what_would_be_sent_and_leaves_nothing() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 8);
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).arg("--emulator").args(args));
    let rates = ["--create-rate", "2/s", "--register-rate", "4/s"];
    let dry = provision(&[&["--dry-run"], &rates[..]].concat()).expect_code(0);
    dry.expect_out(&["8 of 8 devices would be provisioned", "at least 4s", "SerialNumber", "create 2/s"]);
    assert_eq!(scratch.files(), ["lot.csv"]);
    provision(&["--limit", "3"]).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    let before = std::fs::read(&ledger).unwrap();
    let dry = provision(&["--dry-run", "--limit", "4"]).expect_code(0);
    dry.expect_out(&["4 of 8 devices would be provisioned; 3 registered", "no rate is fixed"]);
    assert_eq!(std::fs::read(&ledger).unwrap(), before);
    assert!(scratch.files().iter().all(|file| !file.contains("dry-run")), "{:?}", scratch.files());
    // A lot that is wrong is found out too.
    std::fs::write(&lot, "DeviceId,SerialNumber,MacAddress\na,b,c\na,b,c\n").unwrap();
    provision(&["--dry-run"]).expect_code(65);
}
