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
