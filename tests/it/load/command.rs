//! The command: what it takes, what it writes, how it ends.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Scratch, fleetmint};

/// An emulator whose keys cost nothing to make.
const FAST: &str = concat!("--emulator=", env!("CARGO_MANIFEST_DIR"), "/fixtures/scenarios/load.toml");

fn load(scratch: &Scratch, scenario: &str, args: &[&str]) -> Command {
    let mut command = fleetmint();
    // What it writes by default is written here.
    command.current_dir(scratch.path("")).args(["load", scenario, FAST]).args(args);
    command
}

fn run(mut command: Command, code: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", said(&output));
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
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
    let output = run(load(&scratch, "provision", &args), 0);
    let summary = json(&scratch.path("summary.json"));
    assert_eq!(summary["arrivals"], serde_json::json!({"scheduled": 50, "started": 50, "missed": 0}));
    assert_eq!(summary["devices"]["registered"], 50);
    assert_eq!(summary["devices"]["pending"], 50);
    for text in ["pass  missed=0", "service", "response", "50 things were registered, and stay"] {
        assert!(said(&output).contains(text), "{text}: {}", said(&output));
    }
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
    let none = said(&run(load(&scratch, "provision", &again), 64));
    assert!(none.contains("none of the 100 devices of load.ledger is without a certificate"), "{none}");
    // Other devices need another ledger.
    let other = said(&run(load(&scratch, "provision", &["--devices=100", "--rate=50/s", "--for=1s"]), 74));
    assert!(other.contains("differs in MacAddress"), "{other}");
}

#[test]
fn a_missed_threshold_and_used_up_devices_have_exit_codes_of_their_own() {
    let scratch = Scratch::new();
    let args = ["--devices=10", "--rate=50/s", "--for=1s"];
    let output = said(&run(load(&scratch, "create", &args), 4));
    assert!(output.contains("warning: 10 devices for 50 arrivals"), "{output}");
    assert!(output.contains("used up after 10 arrivals of 50"), "{output}");
    let missed = ["--devices=10", "--ledger=b", "--rate=10/s", "--for=1s", "--threshold=connect.p99<1us"];
    let output = said(&run(load(&scratch, "create", &missed), 2));
    assert!(output.contains("FAIL  connect.p99<1us"), "{output}");
}

#[test]
fn connect_measures_each_step() {
    let scratch = Scratch::new();
    let args = ["--profile", "ramp 0..40/s 1s; pause 200ms", "--hold=300ms", "--summary-json=-"];
    let summary: Value = serde_json::from_slice(&run(load(&scratch, "connect", &args), 0).stdout).unwrap();
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
        let output = said(&run(load(&scratch, "publish", &args), 0));
        let row = output.lines().find(|line| line.starts_with("publish ")).unwrap();
        assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["publish", "50", "50"], "{output}");
    }
}

#[test]
fn what_is_typed_wrong_is_said_with_its_place() {
    let scratch = Scratch::new();
    scratch.write("there", "");
    let base = ["--devices=10", "--rate=10/s", "--for=1s"];
    for (args, wanted) in [
        (&["--devices=10", "--rate=10/s"][..], "--for"),
        (&["--devices=10", "--profile", "hold 20 3s"], "column 6: found \"20\""),
        (&["--rate=10/s", "--for=1s"], "--lot"),
        (&[&base[..], &["--warmup=1s"]].concat(), "leaves nothing to measure"),
        (&[&base[..], &["--threshold=p99<1s"]].concat(), "column 1: found \"p99\""),
        (&[&base[..], &["--key-pattern=x"]].concat(), "{n}"),
        (&[&base[..], &["--column=A={m}"]].concat(), "A: column 1: found \"m\""),
        (&[&base[..], &["--junit=j"]].concat(), "--threshold"),
    ] {
        let output = said(&run(load(&scratch, "create", args), 64));
        assert!(output.contains(wanted), "{args:?}: {output}");
    }
    let args = [&base[..], &["--results=there"]].concat();
    let output = said(&run(load(&scratch, "create", &args), 74));
    assert!(output.contains("the file exists"), "{output}");
    assert_eq!(scratch.files(), ["there"], "nothing was begun");
}
