//! `fleetmint calibrate`, as a user runs it.

mod fakes;
mod interrupted;
mod laws;
mod scenarios;

use std::path::PathBuf;

use fleetmint::emulator::scenario::Scenario;
use serde_json::Value;

use crate::harness::{Emulate, Said, Scratch, fleetmint, run};

/// A finished calibration.
struct Calibrated {
    said: Said,
    report: Value,
    /// The scenario as it was written.
    written: String,
    scenario: Scenario,
    _scratch: Scratch,
}

/// Calibrates what these options say.
#[track_caller]
fn calibrate(options: &[&str]) -> Calibrated {
    let scratch = Scratch::new();
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("account.toml"));
    let said = run(command(&ledger, &out).args(options)).expect_code(0);
    finished(said, out, scratch)
}

fn command(ledger: &std::path::Path, out: &std::path::Path) -> std::process::Command {
    let mut command = fleetmint();
    command.args(["calibrate", "--yes", "--json"]);
    command.arg("--ledger").arg(ledger).arg("--scenario-out").arg(out);
    command
}

#[track_caller]
fn finished(said: Said, out: PathBuf, scratch: Scratch) -> Calibrated {
    let written = std::fs::read_to_string(out).unwrap();
    let scenario = Scenario::from_toml(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    let report = serde_json::from_str(&said.out).unwrap();
    Calibrated { said, report, written, scenario, _scratch: scratch }
}

impl Calibrated {
    /// Whether nothing was found of a fact.
    #[track_caller]
    fn is_left_out(&self, name: &str) -> bool {
        let facts = self.report["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["name"] == name).unwrap_or_else(|| panic!("no fact {name}"));
        fact["found"].is_null() && fact["verdict"] == "not seen"
    }

    /// What was found of a fact.
    #[track_caller]
    fn found(&self, name: &str) -> &str {
        let facts = self.report["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["name"] == name).unwrap_or_else(|| panic!("no fact {name}"));
        fact["found"].as_str().unwrap_or_else(|| panic!("not found: {fact}"))
    }
}

#[test]
fn every_fact_is_documented() {
    let document = include_str!("../../../docs/CALIBRATE.md");
    for row in fleetmint::calibration::facts::TABLE {
        assert!(document.contains(&format!("`{}`", row.name)), "{} is not in docs/CALIBRATE.md", row.name);
    }
}

#[test]
fn it_asks_first_and_a_rehearsal_sends_nothing() {
    let scratch = Scratch::new();
    let mut command = fleetmint();
    command.args(["calibrate", "--emulator", "--ledger"]).arg(scratch.path("l"));
    command.arg("--scenario-out").arg(scratch.path("o"));
    run(command.stdin(std::process::Stdio::null()))
        .expect_code(64)
        .expect_err(&["at most 25 certificates, and at most 5 things", "pass --yes if you mean it"]);
    let said = run(command.arg("--dry-run")).expect_code(0);
    assert!(said.err.contains("at most 25 certificates, and at most 5 things"), "{}", said.err);
    assert!(said.out.is_empty() && scratch.files().is_empty(), "{:?}", scratch.files());
}

/// Nothing is signed with a claim certificate, so nothing is known of signatures.
#[test]
fn with_a_claim_the_signature_facts_are_left_out() {
    let scratch = Scratch::new();
    let claims = scratch.path("claims");
    let emulate = Emulate::start(&["--claim-dir", claims.to_str().unwrap()]);
    let (ledger, out) = (scratch.path("l"), scratch.path("o"));
    let mut command = command(&ledger, &out);
    emulate.reached_by(&mut command).args(["--template", "TEMP_DEVICE"]);
    command.arg("--claim-cert").arg(claims.join("claim.pem"));
    command.arg("--claim-key").arg(claims.join("claim-key.pem"));
    let done = finished(run(&mut command).expect_code(0), out, scratch);
    for fact in ["clock_window", "x_amz_expires"] {
        assert!(done.is_left_out(fact), "{fact}: {}", done.said.out);
    }
    assert_eq!(done.found("keys"), "RSA 2048");
}

#[test]
fn the_report_has_no_name_in_it_and_says_where_to_send_it() {
    let scratch = Scratch::new();
    let (ledger, out) = (scratch.path("l"), scratch.path("o"));
    let mut command = command(&ledger, &out);
    let said = run(command.args(["--emulator", "--column", "DeviceId=kettle-{n:03}"])).expect_code(0);
    let done = finished(said, out, scratch);
    for name in ["TEMP_DEVICE", "SerialNumber", "MacAddress", "kettle", "123456789012", "AKIA"] {
        assert!(!done.said.out.contains(name) && !done.written.contains(name), "{name} in {}", done.said.out);
    }
    assert!(done.report["send_to"].as_str().unwrap().starts_with("the issue tracker of "));
    assert_eq!(done.found("keys"), "RSA 2048");
    assert_eq!(done.found("clock_window"), "within 5 minutes");
    assert_eq!(done.found("x_amz_expires"), "ignored");
    assert_eq!(done.found("answer_connection"), "the one that asked");
}
