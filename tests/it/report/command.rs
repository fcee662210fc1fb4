//! `provision --results` and `report` as a user runs them.

use std::fs;

use serde_json::Value;

use super::samples::Sample;
use crate::harness::{Emulate, Scratch, Transcript, column, expect_text, fleetmint, run, summary};

#[test]
fn a_run_s_results_say_what_its_summary_says() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario = scratch.write("s.toml", "keys = \"p256\"\n");
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let (results, json) = (scratch.path("run.jsonl"), scratch.path("summary.json"));
    let mut command = emulate.provision(&lot);
    command.arg("--results").arg(&results).arg("--summary-json").arg(&json).args(["--register-rate", "40/s"]);
    run(&mut command).expect_code(0);
    let summary = summary(&json);

    let said = run(fleetmint().arg("report").arg(&results).args(["--json", "-"])).expect_code(0);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["runs"][0]["verb"], "provision");
    assert_eq!(report["runs"][0]["end"], "complete");
    assert_eq!(report["runs"][0]["devices"]["registered"], 40);
    let digest = &column(&scratch.path("lot.ledger"), "SELECT digest FROM lot")[0];
    assert_eq!(report["runs"][0]["lot"], digest[..16]);
    assert_eq!(report["runs"][0]["limits"]["register_thing"], 40.0);
    assert_eq!(report["elapsed_s"], summary["elapsed_s"]);
    for operation in report["operations"].as_array().unwrap() {
        let of_the_run = &summary["operations"][operation["operation"].as_str().unwrap()];
        for (field, value) in of_the_run.as_object().unwrap() {
            assert_eq!(&operation[field], value, "{} {field}", operation["operation"]);
        }
    }
    assert_eq!(report["operations"].as_array().unwrap().len(), 3);
    let secret = emulate.text("secret_access_key");
    assert!(!fs::read_to_string(&results).unwrap().contains(secret), "the results hold a secret");

    // Results are never overwritten, and a run without them is not begun.
    let second = scratch.lot("second.csv", 1);
    let mut command = emulate.provision(&second);
    let before = fs::read(&results).unwrap();
    let said = run(command.arg("--results").arg(&results));
    expect_text("report-results-are-there", &scratch, &said, &[]);
    assert_eq!(fs::read(&results).unwrap(), before);
    let (page, logs) = (scratch.path("page.html"), scratch.path("logs"));
    let mut command = fleetmint();
    command.arg("report").arg(&results).arg("--html").arg(&page).arg("--hlog").arg(&logs);
    run(&mut command).expect_code(0);
    assert!(fs::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
    assert!(logs.join("connect.hlog").exists() && logs.join("register_thing.hlog").exists());
}

#[test]
fn files_that_cannot_be_shown_are_told_apart() {
    let scratch = Scratch::new();
    let report = |file: &str| run(fleetmint().arg("report").arg(scratch.path(file)));
    let mut refused = Transcript::default();
    refused.add("not there", &report("absent.jsonl"));
    let lot = scratch.lot("lot.csv", 1);
    assert!(lot.exists());
    refused.add("of something else", &report("lot.csv"));
    let (path, _) = Sample { seconds: 3, ..Sample::default() }.write(scratch.path("").as_path(), "r.jsonl");
    let text = fs::read_to_string(&path).unwrap().replacen("\"second\":1", "\"second\":\"1\"", 1);
    fs::write(&path, text).unwrap();
    refused.add("damaged", &report("r.jsonl"));
    refused.add("none", &run(fleetmint().arg("report")));
    expect_text("report-files-refused", &scratch, &refused, &[]);
}

/// Whoever reports a morning's runs with one wildcard: connections of one verb and certificates of another are no sum.
#[test]
fn runs_of_different_verbs_are_kept_apart() {
    let scratch = Scratch::new();
    let sample = |verb, seed, name: &str| {
        let sample = Sample { verb, seed, seconds: 5, ..Sample::default() };
        sample.write(scratch.path("").as_path(), name).0
    };
    let files = [
        sample("load provision", 1, "a.jsonl"),
        sample("provision", 2, "b.jsonl"),
        sample("load provision", 3, "c.jsonl"),
    ];
    let said = run(fleetmint().arg("report").args(&files)).expect_code(0);
    let alone = |files: &[std::path::PathBuf]| run(fleetmint().arg("report").args(files)).expect_code(0).out;
    let (load, mint) = (alone(&[files[0].clone(), files[2].clone()]), alone(&files[1..2]));
    assert_eq!(said.out, format!("== load provision ==\n\n{load}\n== provision ==\n\n{mint}"));
    let mut refused = Transcript::default();
    for option in ["--json", "--html", "--hlog"] {
        let mut command = fleetmint();
        command.arg("report").args(&files).arg(option).arg(scratch.path("out"));
        refused.add(option, &run(&mut command).expect_code(64));
    }
    expect_text("report-different-verbs", &scratch, &refused, &[]);
    assert!(!scratch.path("out").exists());
}

/// Whoever reads the page and not the text: a generator that was late makes both worthless.
#[test]
fn the_page_says_how_late_the_generator_was() {
    let scratch = Scratch::new();
    let (path, _) = Sample { seconds: 5, ..Sample::default() }.write(scratch.path("").as_path(), "r.jsonl");
    let json = run(fleetmint().arg("report").arg(&path).args(["--json", "-"])).expect_code(0).out;
    let report: Value = serde_json::from_str(&json).unwrap();
    let page = run(fleetmint().arg("report").arg(&path).args(["--html", "-"])).expect_code(0).out;
    assert!(page.contains("Generator late") && page.contains("/arrivals/lateness_us/p99"), "{page}");
    assert!(report["arrivals"]["lateness_us"]["p99"].as_u64().is_some());
}

/// The exit code of several verbs is that of the missed threshold, whatever came after it.
#[test]
fn a_missed_threshold_of_one_verb_comes_before_a_lost_shard_of_another() {
    let scratch = Scratch::new();
    let write = |sample: Sample, name: &str| sample.write(scratch.path("").as_path(), name).0;
    let missing = Sample { seconds: 5, stall: Some(2), ..Sample::default() };
    let lost = Sample { verb: "provision", seconds: 5, shard: Some("0/2"), ..Sample::default() };
    let files = [write(missing, "a.jsonl"), write(lost, "b.jsonl")];
    let code = |files: &[std::path::PathBuf], code| {
        run(fleetmint().arg("report").args(files).args(["--threshold", "missed=0"])).expect_code(code);
    };
    code(&files[1..], 4);
    code(&files, 2);
}
