//! Several processes that share a job, as a scheduler's array starts them; and their ledgers and results put together.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Emulate, Scratch, column, fleetmint, run, signal, summary};

/// Keys that take no time to make.
const P256: &str = "keys = \"p256\"\n";
const COUNT: &str = "SELECT count(*) FROM device WHERE state = 'registered'";

fn emulate(scratch: &Scratch) -> Emulate {
    Emulate::start(&["--scenario", scratch.write("scenario.toml", P256).to_str().unwrap()])
}

/// Task `index` of a Slurm array of four.
fn task(emulate: &Emulate, lot: &Path, index: u32) -> Command {
    let mut command = emulate.provision(lot);
    command.args(["--shard", "auto/4", "--connections", "2"]).env("SLURM_ARRAY_TASK_ID", index.to_string());
    command
}

#[test]
fn an_array_whose_task_is_killed_and_requeued_provisions_a_lot_once() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 240);
    let emulate = emulate(&scratch);
    let ledger = |index: u32| scratch.path(&format!("lot.{index}-of-4.ledger"));
    let mut tasks: Vec<_> = (0..4)
        .map(|index| task(&emulate, &lot, index).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    // Killed in the middle, if the machine lets us; its requeue goes on in any case.
    while !ledger(3).exists() {
        std::thread::yield_now();
    }
    signal(&tasks[3], "KILL");
    for task in &mut tasks {
        task.wait().unwrap();
    }
    run(&mut task(&emulate, &lot, 3)).expect_code(0);
    let parts: Vec<_> = (0..4).map(ledger).collect();
    let whole = scratch.path("lot.ledger");
    let merge = |parts: &[std::path::PathBuf]| {
        run(fleetmint().arg("merge").args(parts).arg("-o").arg(scratch.path("lot.ledger")))
    };
    merge(&parts[..3]).expect_code(74).expect_err(&["shard 3/4 is missing"]);
    assert!(!whole.exists());
    merge(&parts).expect_code(0).expect_out(&["4 shards of 240 devices", "240 registered"]);
    assert_eq!(column(&whole, COUNT), ["240"]);
    assert_eq!(column(&whole, "SELECT count(DISTINCT thing_name) FROM device"), ["240"]);
    run(fleetmint().arg("status").arg(&whole)).expect_code(0);
    run(fleetmint().arg("export").arg(&whole).arg("--out").arg(scratch.path("keys"))).expect_code(0);
    // The whole goes on, and a shard does not.
    run(&mut emulate.provision(&lot)).expect_code(0);
    run(&mut task(&emulate, &lot, 1)).expect_code(74).expect_err(&["merged into"]);
    run(fleetmint().arg("status").arg(&parts[1])).expect_code(0).expect_out(&["was merged into"]);
    let retry = ["--state", "rejected", "--yes"];
    run(fleetmint().arg("retry").arg(&parts[1]).args(retry)).expect_code(74).expect_err(&["merged into"]);
}

#[test]
fn a_lot_is_not_provisioned_whole_beside_its_shards() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 20);
    let emulate = emulate(&scratch);
    run(&mut task(&emulate, &lot, 0)).expect_code(0);
    run(&mut emulate.provision(&lot)).expect_code(74).expect_err(&["the whole lot", "shard 0/4"]);
    let mut rehearsal = emulate.provision(&lot);
    let rehearsed = run(rehearsal.arg("--dry-run")).expect_code(74).expect_err(&["lot.ledger", "shard 0/4"]);
    assert!(!rehearsed.err.contains(".fleetmint-dry-run"), "{}", rehearsed.err);
    assert!(!scratch.path("lot.ledger").exists());
    let mut other = emulate.provision(&lot);
    run(other.args(["--shard", "0/3"])).expect_code(74).expect_err(&["shard 0/3", "shard 0/4"]);
    let mut same = emulate.provision(&lot);
    run(same.args(["--shard", "1/4", "--total-rate", "100/s", "--total-connections", "4"])).expect_code(0);
    // One task of the array, done again by itself.
    run(task(&emulate, &lot, 0).env("SLURM_ARRAY_TASK_COUNT", "1")).expect_code(0);
}

#[test]
fn a_shard_that_is_not_clear_is_refused_before_anything_is_done() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let provision = |args: &[&str]| {
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg("--emulator").args(args);
        command
    };
    run(&mut provision(&["--shard", "auto/2"]))
        .expect_code(64)
        .expect_err(&["--shard", "JOB_COMPLETION_INDEX"]);
    run(&mut provision(&["--shard", "2/2"])).expect_code(64).expect_err(&["from 0 to N-1"]);
    run(&mut provision(&["--total-connections", "2"])).expect_code(64);
    run(provision(&["--shard", "auto/2"]).env("JOB_COMPLETION_INDEX", "2"))
        .expect_code(64)
        .expect_err(&["0 to 1"]);
    let few = ["--shard", "1/2", "--total-connections", "1"];
    run(&mut provision(&few)).expect_code(64).expect_err(&["--total-connections"]);
    assert_eq!(scratch.files(), ["lot.csv"]);
}

#[test]
fn the_shards_of_a_load_test_offer_what_one_would() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch);
    let shard = |index: u32| {
        let mut command = fleetmint();
        command
            .args(["load", "create", "--rate", "50/s", "--for", "2s", "--devices", "100", "--shard"])
            .arg(format!("{index}/3"))
            .args(["--endpoint", emulate.text("endpoint"), "--region", emulate.text("region")])
            .args([
                "--template",
                emulate.text("template"),
                "--ca-file",
                emulate.text("ca_file"),
                "--connections",
                "2",
                "--summary-json",
            ])
            .arg(scratch.path(&format!("{index}.json")))
            .arg("--results")
            .arg(scratch.path(&format!("{index}.jsonl")))
            .env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key"))
            .current_dir(scratch.path("."));
        command
    };
    for index in 0..3 {
        run(&mut shard(index)).expect_code(0);
    }
    let of = |index: u32| {
        summary(&scratch.path(&format!("{index}.json")))["arrivals"]["scheduled"].as_u64().unwrap()
    };
    assert_eq!([of(0), of(1), of(2)], [34, 33, 33]);
    let keys =
        |index: u32| column(&scratch.path(&format!("load.{index}-of-3.ledger")), "SELECT key FROM device");
    let mut all: Vec<_> = (0..3).flat_map(keys).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100, "each device is one shard's");
    let report = |indices: &[u32]| {
        let files = indices.iter().map(|index| scratch.path(&format!("{index}.jsonl")));
        run(fleetmint().arg("report").args(files))
    };
    report(&[0, 1, 2]).expect_code(0).expect_err(&["3 of 3 shards"]);
    report(&[0, 2]).expect_code(4).expect_err(&["2 of 3 shards", "shard 1/3 is missing"]);
    let once = std::fs::read_to_string(scratch.path("1.jsonl")).unwrap();
    let beside = |first: u32, name: &str, (from, to): (&str, &str)| {
        assert!(once.contains(from), "{once}");
        let other = scratch.write(name, once.replacen(from, to, 1));
        run(fleetmint().arg("report").arg(scratch.path(&format!("{first}.jsonl"))).arg(other)).expect_code(64)
    };
    beside(1, "again.jsonl", ("\"command\":\"", "\"command\":\"again "))
        .expect_err(&["both of shard 1/3 of a load test"]);
    beside(0, "other.jsonl", ("\"seed\":1", "\"seed\":5"))
        .expect_err(&["shard 0/3 of hold 50/s 2s, uniform (seed 1)", "(seed 5)"]);
}
