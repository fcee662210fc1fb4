//! Resuming with other settings, another region, or beside another ledger.

use crate::harness::{Emulate, Scratch, Transcript, column, expect_text, fleetmint, run};

/// Ten recipients' worth of age identities would do; one is enough.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// An operator who forgets a `--param` on the second day: half a lot must not differ in silence.
#[test]
fn other_settings_are_refused_until_they_are_asked_for() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 4);
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).arg("--emulator").args(args));
    let key_types = ["--keys", "local"];
    provision(&[&["--limit", "2"], &key_types[..]].concat()).expect_code(0);
    let mut refused = Transcript::default();
    refused.add("keys from AWS", &provision(&[]));
    refused.add("a parameter more", &provision(&["--keys", "local", "--param", "Site=Oulu"]));
    expect_text("settings-changed", &scratch, &refused, &[]);
    let registered = "SELECT key FROM device WHERE state = 'registered'";
    assert_eq!(column(&scratch.path("lot.ledger"), registered).len(), 2);
    provision(&["--change-settings"]).expect_code(0).expect_out(&["4 of 4 devices registered"]);
}

/// An operator who drops `--seal-to` on the second day.
#[test]
fn a_sealed_ledger_is_never_unsealed() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 4);
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).arg("--emulator").args(args));
    provision(&["--limit", "2", "--seal-to", RECIPIENT]).expect_code(0);
    expect_text("settings-unsealed", &scratch, &provision(&["--change-settings"]), &[]);
    provision(&["--seal-to", RECIPIENT]).expect_code(0);
}

/// An operator who types what `status` says.
#[test]
fn the_resume_command_is_the_whole_command() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 4);
    let ledger = scratch.path("l.ledger");
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).args(["--emulator", "--keys", "local", "--limit", "2", "--ledger"]);
    command.arg(&ledger).args(["--seal-to", RECIPIENT, "--create-rate", "7/s", "--timeout", "9s"]);
    run(command.env("FLEETMINT_CONNECTIONS", "3")).expect_code(0);
    let status = run(fleetmint().args(["status", "--json"]).arg(&ledger)).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    let next = status["next"].as_array().unwrap().iter().find(|next| next["step"] == "resume").unwrap();
    let typed = next["command"].as_str().unwrap();
    for word in [
        "--keys=local",
        "--seal-to=age1",
        "--create-rate=7/s",
        "--timeout=9s",
        "--connections=3",
        "--emulator",
    ] {
        assert!(typed.contains(word), "{word}: {typed}");
    }
    assert!(!typed.contains("--limit"), "{typed}");
    let again = typed.strip_prefix("fleetmint ").unwrap();
    let script = format!("exec \"$0\" {again}");
    let mut shell = std::process::Command::new("sh");
    run(shell.args(["-c", &script, env!("CARGO_BIN_EXE_fleetmint")])).expect_code(0).expect_out(&["4 of 4"]);
}

/// Whoever tries first on the emulator, and then runs against an account with the same lot.
#[test]
fn a_trial_on_the_emulator_is_told_from_the_real_run() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    let emulate = Emulate::start(&[]);
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    let refused = run(&mut emulate.provision(&lot));
    expect_text("settings-of-a-trial", &scratch, &refused, &[]);
    run(emulate.provision(&lot).arg("--ledger").arg(scratch.path("real.ledger"))).expect_code(0);
}

/// Whoever runs a pilot's CSV under a ledger of its own, and then the full one.
#[test]
fn a_ledger_beside_it_that_knows_the_same_devices_is_named() {
    let scratch = Scratch::new();
    let (pilot, full) = (scratch.lot("pilot.csv", 2), scratch.lot("full.csv", 5));
    let provision = |lot: &std::path::Path, args: &[&str]| {
        run(fleetmint().arg("provision").arg(lot).arg("--emulator").args(args))
    };
    provision(&pilot, &[]).expect_code(0);
    let dry = provision(&full, &["--dry-run"]).expect_code(0);
    dry.expect_err(&["warning", "pilot.ledger", "2 devices", "second certificate"]);
    let other = provision(&full, &["--ledger", scratch.path("pilot.ledger").to_str().unwrap()]);
    other.expect_code(0).expect_out(&["5 of 5"]).expect_err(&["3 added"]);
}
