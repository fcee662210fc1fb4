//! The command: what it takes, what it writes, how it ends.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Said, Scratch, Transcript, expect_text, fleetmint};

/// An emulator whose keys cost nothing to make.
const FAST: &str = concat!("--emulator=", env!("CARGO_MANIFEST_DIR"), "/fixtures/scenarios/load.toml");

fn load(scratch: &Scratch, scenario: &str, args: &[&str]) -> Command {
    let mut command = fleetmint();
    // What it writes by default is written here.
    command.current_dir(scratch.path("")).args(["load", scenario, FAST]).args(args);
    command
}

fn run(mut command: Command, code: i32) -> Said {
    crate::harness::run(&mut command).expect_code(code)
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn provision_keeps_what_it_makes_and_judges_it() {
    let scratch = Scratch::new();
    let args = [
        "--devices=100",
        "--rate=50/s",
        "--for=1s",
        "--connections=20",
        "--seed=7",
        "--threshold=missed=0",
        "--threshold=rejected<0.1%",
        "--threshold=provision.accepted=50",
        "--junit=junit.xml",
        "--results=results.jsonl",
        "--summary-json=summary.json",
    ];
    let said = run(load(&scratch, "provision", &args), 0);
    let summary = json(&scratch.path("summary.json"));
    assert_eq!(summary["arrivals"], serde_json::json!({"scheduled": 50, "started": 50, "missed": 0}));
    assert_eq!(summary["devices"]["registered"], 50);
    assert_eq!(summary["devices"]["pending"], 50);
    let thresholds: Vec<_> = said.out.lines().filter(|line| line.starts_with("  pass  ")).collect();
    assert_eq!(
        thresholds,
        [
            "  pass  missed=0               measured 0",
            "  pass  rejected<0.1%          measured 0 %",
            "  pass  provision.accepted=50  measured 50"
        ]
    );
    said.expect_err(&["50 things were registered, and stay"]);
    let junit = std::fs::read_to_string(scratch.path("junit.xml")).unwrap();
    assert!(junit.contains("tests=\"3\"") && junit.contains("failures=\"0\""), "{junit}");

    let results = std::fs::read_to_string(scratch.path("results.jsonl")).unwrap();
    let lines: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["header"]["verb"], "load provision");
    assert_eq!(lines[0]["header"]["offered"], "hold 50/s 1s, uniform");
    assert_eq!(lines.last().unwrap()["footer"]["end"], "complete");
    assert_eq!(lines.last().unwrap()["footer"]["thresholds"][2]["passed"], true);

    // The same command again takes the devices that are left; once more, and there are none.
    let again = ["--devices=100", "--rate=50/s", "--for=1s", "--seed=7"];
    run(load(&scratch, "provision", &again), 0);
    let mut refused = Transcript::default();
    refused.add("no device left", &run(load(&scratch, "provision", &again), 64));
    // Other devices need another ledger.
    refused.add("other devices", &run(load(&scratch, "provision", &again[..3]), 74));
    expect_text("load-ledger", &scratch, &refused, &[]);
}

#[test]
fn a_missed_threshold_and_used_up_devices_have_exit_codes_of_their_own() {
    let scratch = Scratch::new();
    let args = ["--devices=10", "--rate=50/s", "--for=1s"];
    let said = run(load(&scratch, "create", &args), 4);
    said.expect_err(&["warning: 10 devices for 50 arrivals", "used up after 10 arrivals of 50"]);
    let missed = ["--devices=10", "--ledger=b", "--rate=10/s", "--for=1s", "--threshold=connect.p99<1us"];
    run(load(&scratch, "create", &missed), 2).expect_out(&["FAIL  connect.p99<1us"]);
}

#[test]
fn connect_measures_each_step() {
    let scratch = Scratch::new();
    let args = ["--profile", "ramp 0..40/s 1s; pause 200ms", "--hold=300ms", "--summary-json=-"];
    let summary: Value = serde_json::from_str(&run(load(&scratch, "connect", &args), 0).out).unwrap();
    assert_eq!(summary["operations"][0]["name"], "connect");
    assert_eq!(summary["operations"][0]["accepted"], 20);
    let steps: Vec<_> = summary["dial_phases_us"].as_array().unwrap().iter().map(|step| &step[0]).collect();
    assert_eq!(steps, ["tcp", "tls", "upgrade", "connack"], "nothing is subscribed to");
    assert_eq!(scratch.files(), [""; 0], "no ledger, no file");
}

#[test]
fn publish_brings_messages_back_at_either_quality() {
    let scratch = Scratch::new();
    for qos in ["--qos=0", "--qos=1"] {
        let args =
            [qos, "--rate=50/s", "--for=1s", "--payload-size=3000", "--timeout=5s", "--threshold=missed=0"];
        let output = run(load(&scratch, "publish", &args), 0).out;
        let row = output.lines().find(|line| line.starts_with("publish ")).unwrap();
        assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["publish", "50", "50"], "{output}");
    }
}

#[test]
fn what_is_typed_wrong_is_said_with_its_place() {
    let scratch = Scratch::new();
    scratch.write("there", "");
    let base = ["--devices=10", "--rate=10/s", "--for=1s"];
    let mut refused = Transcript::default();
    for args in [
        &["--devices=10", "--rate=10/s"][..],
        &["--devices=10", "--profile", "hold 20 3s"],
        &["--rate=10/s", "--for=1s"],
        &[&base[..], &["--warmup=1s"]].concat(),
        &[&base[..], &["--threshold=p99<1s"]].concat(),
        &[&base[..], &["--key-pattern=x"]].concat(),
        &[&base[..], &["--column=A={m}"]].concat(),
        &[&base[..], &["--junit=j"]].concat(),
    ] {
        refused.add(&args.join(" "), &run(load(&scratch, "create", args), 64));
    }
    let args = [&base[..], &["--results=there"]].concat();
    refused.add("results that are there", &run(load(&scratch, "create", &args), 74));
    expect_text("load-wrong-arguments", &scratch, &refused, &[]);
    assert_eq!(scratch.files(), ["there"], "nothing was begun");
}
