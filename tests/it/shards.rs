//! Several processes that share a job, as a scheduler's array starts them; and their ledgers and results put together.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Emulate, Scratch, Transcript, column, expect_text, fleetmint, run, signal, summary};

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
    let mut refused = Transcript::default();
    refused.add("merge of three of four", &merge(&parts[..3]));
    assert!(!whole.exists());
    merge(&parts).expect_code(0).expect_out(&["4 shards of 240 devices", "240 registered"]);
    assert_eq!(column(&whole, COUNT), ["240"]);
    assert_eq!(column(&whole, "SELECT count(DISTINCT thing_name) FROM device"), ["240"]);
    run(fleetmint().arg("status").arg(&whole)).expect_code(0);
    run(fleetmint().arg("export").arg(&whole).arg("--out").arg(scratch.path("keys"))).expect_code(0);
    // The whole goes on, and a shard does not.
    run(&mut emulate.provision(&lot)).expect_code(0);
    refused.add("a task afterwards", &run(&mut task(&emulate, &lot, 1)));
    run(fleetmint().arg("status").arg(&parts[1])).expect_code(0).expect_out(&["was merged into"]);
    let retry = ["--state", "rejected", "--yes"];
    refused.add("retry of a shard", &run(fleetmint().arg("retry").arg(&parts[1]).args(retry)));
    expect_text("shards-merged", &scratch, &refused, &[]);
}

#[test]
fn a_lot_is_not_provisioned_whole_beside_its_shards() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 20);
    let emulate = emulate(&scratch);
    run(&mut task(&emulate, &lot, 0)).expect_code(0);
    let mut refused = Transcript::default();
    refused.add("the whole lot", &run(&mut emulate.provision(&lot)));
    let mut rehearsal = emulate.provision(&lot);
    let rehearsed = run(rehearsal.arg("--dry-run")).expect_code(74).expect_err(&["lot.ledger", "shard 0/4"]);
    assert!(!rehearsed.err.contains(".fleetmint-dry-run"), "{}", rehearsed.err);
    assert!(!scratch.path("lot.ledger").exists());
    let mut other = emulate.provision(&lot);
    refused.add("a shard of three", &run(other.args(["--shard", "0/3"])));
    expect_text("shards-beside-others", &scratch, &refused, &[]);
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
    let mut refused = Transcript::default();
    refused.add("no scheduler", &run(&mut provision(&["--shard", "auto/2"])));
    refused.add("no such shard", &run(&mut provision(&["--shard", "2/2"])));
    refused.add("a total of one", &run(&mut provision(&["--total-connections", "2"])));
    let other = run(provision(&["--shard", "auto/2"]).env("JOB_COMPLETION_INDEX", "2"));
    refused.add("no such task", &other);
    let few = ["--shard", "1/2", "--total-connections", "1"];
    refused.add("fewer connections than shards", &run(&mut provision(&few)));
    expect_text("shards-wrong-arguments", &scratch, &refused, &[]);
    assert_eq!(scratch.files(), ["lot.csv"]);
}

/// A results file and a summary for each shard, and for each task that goes on with one.
#[test]
fn results_of_shards_and_of_requeued_tasks_are_apart() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let emulate = emulate(&scratch);
    let out = |name: &str| scratch.path(name).display().to_string();
    let task = |index: u32, more: &[&str]| {
        let mut task = task(&emulate, &lot, index);
        task.args(["--results", &out("run.jsonl"), "--summary-json", &out("run.json")]).args(more);
        run(&mut task)
    };
    task(0, &["--limit", "2"]).expect_code(0).expect_err(&["results in ", "run.0-of-4.jsonl"]);
    task(1, &[]).expect_code(0);
    task(0, &[]).expect_code(0).expect_err(&["run.0-of-4.2.jsonl"]);
    for name in
        ["run.0-of-4.jsonl", "run.0-of-4.2.jsonl", "run.1-of-4.jsonl", "run.0-of-4.json", "run.1-of-4.json"]
    {
        assert!(scratch.path(name).exists(), "no {name} in {:?}", scratch.files());
    }
    // Each shard has other devices, and all have one lot.
    let files = ["run.0-of-4.jsonl", "run.1-of-4.jsonl"].map(|name| scratch.path(name));
    run(fleetmint().arg("report").args(&files)).expect_code(4).expect_err(&["2 of 4 shards"]);
    assert!(files.iter().all(|file| std::fs::read_to_string(file).unwrap().contains("\"lot\":\"")));
}

/// `fleetmint load SCENARIO` as a shard, in the scratch directory.
fn load(emulate: &Emulate, scratch: &Scratch, words: &[&str], shard: &str) -> Command {
    let mut command = fleetmint();
    command
        .arg("load")
        .args(words)
        .args(["--shard", shard])
        .args(["--endpoint", emulate.text("endpoint"), "--region", emulate.text("region")])
        .args(["--ca-file", emulate.text("ca_file")])
        .env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key"))
        .current_dir(scratch.path("."));
    if words[0] != "connect" {
        command.args(["--template", emulate.text("template")]);
    }
    command
}

/// Whatever a scheduler does about a lost task: its load was offered, and is not offered again.
#[test]
fn a_replaced_task_of_a_load_test_does_not_run_the_load_again() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch);
    let create = ["create", "--rate", "20/s", "--for", "1s", "--devices", "60"];
    let again = |command: &mut Command| {
        run(command).expect_code(64).expect_err(&["was begun before", "not run again"]);
    };
    // By what the scheduler says.
    again(load(&emulate, &scratch, &create, "0/2").env("SLURM_RESTART_COUNT", "1"));
    assert!(!scratch.path("load.0-of-2.ledger").exists());
    // By the ledger: it was killed, or ended.
    let mut first = load(&emulate, &scratch, &create, "0/2").stderr(Stdio::null()).spawn().unwrap();
    let ledger = scratch.path("load.0-of-2.ledger");
    while !ledger.exists() || column(&ledger, "SELECT id FROM run").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    signal(&first, "KILL");
    first.wait().unwrap();
    again(&mut load(&emulate, &scratch, &create, "0/2"));
    run(&mut load(&emulate, &scratch, &create, "1/2")).expect_code(0);
    again(&mut load(&emulate, &scratch, &create, "1/2"));
    // Another test may take the devices that are left.
    let other = ["create", "--rate", "10/s", "--for", "1s", "--devices", "60"];
    run(&mut load(&emulate, &scratch, &other, "1/2")).expect_code(0);
    // By its results, which a test without a ledger needs.
    let connect = ["connect", "--rate", "10/s", "--for", "1s"];
    run(&mut load(&emulate, &scratch, &connect, "1/2")).expect_code(64).expect_err(&["--results"]);
    let with_results = [&connect[..], &["--results", "run.jsonl"]].concat();
    run(&mut load(&emulate, &scratch, &with_results, "1/2")).expect_code(0);
    again(&mut load(&emulate, &scratch, &with_results, "1/2"));
    run(&mut load(&emulate, &scratch, &with_results, "0/2")).expect_code(0);
}

/// Rows belong to shards by their keys, arrivals take turns: a shard that has too few rows stops all of them.
#[test]
fn a_lot_that_leaves_a_shard_too_few_rows_is_refused_by_every_shard() {
    let scratch = Scratch::new();
    scratch.lot("lot.csv", 40);
    let emulate = emulate(&scratch);
    let shards = |rate: &'static str| {
        let words = ["create", "--rate", rate, "--for", "1s", "--lot", "lot.csv"];
        ["0/2", "1/2"].map(|shard| run(&mut load(&emulate, &scratch, &words, shard)))
    };
    // Of 40 rows one shard of two has 20 at most.
    for said in shards("42/s") {
        said.expect_code(64).expect_err(&["--lot", "rows for 21 arrivals", "/2"]);
    }
    for said in shards("10/s") {
        said.expect_code(0);
    }
}

/// Connections of all shards together; each opens its part, and no more.
#[test]
fn connections_of_a_load_test_are_shared_exactly() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch);
    let words = ["create", "--rate", "10/s", "--for", "1s", "--devices", "60", "--total-connections", "5"];
    for (index, connections) in [("0/2", "connections 3 to 3"), ("1/2", "connections 2 to 2")] {
        run(&mut load(&emulate, &scratch, &words, index)).expect_code(0).expect_err(&[connections]);
        let both = run(load(&emulate, &scratch, &words, index).args(["--max-connections", "9"]));
        both.expect_code(64).expect_err(&["--total-connections"]);
    }
}

/// A shard of a load test that comes too late says by how much, before it begins.
#[test]
fn a_late_shard_of_a_load_test_says_how_late_it_is() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch);
    let create =
        ["create", "--rate", "10/s", "--for", "1s", "--devices", "60", "--start-at", "2026-01-31T12:00:00Z"];
    let said = run(&mut load(&emulate, &scratch, &create, "0/2")).expect_code(0);
    let lines: Vec<_> = said.err.lines().collect();
    let at = |words: &str| {
        lines.iter().position(|line| line.contains(words)).unwrap_or_else(|| panic!("{lines:?}"))
    };
    assert!(at(" s late: it was to begin at 2026-01-31T12:00:00") > at("what the test creates"), "{lines:?}");
}

#[test]
fn the_shards_of_a_load_test_offer_what_one_would() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch);
    let shard = |index: u32| {
        let words = ["create", "--rate", "50/s", "--for", "2s", "--devices", "100"];
        let mut command = load(&emulate, &scratch, &words, &format!("{index}/3"));
        command.args(["--summary-json", "run.json", "--results", "run.jsonl"]);
        command
    };
    for index in 0..3 {
        run(&mut shard(index)).expect_code(0);
    }
    let of = |index: u32| {
        summary(&scratch.path(&format!("run.{index}-of-3.json")))["arrivals"]["scheduled"].as_u64().unwrap()
    };
    assert_eq!([of(0), of(1), of(2)], [34, 33, 33]);
    let keys =
        |index: u32| column(&scratch.path(&format!("load.{index}-of-3.ledger")), "SELECT key FROM device");
    let mut all: Vec<_> = (0..3).flat_map(keys).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100, "each device is one shard's");
    let report = |indices: &[u32]| {
        let files = indices.iter().map(|index| scratch.path(&format!("run.{index}-of-3.jsonl")));
        run(fleetmint().arg("report").args(files))
    };
    report(&[0, 1, 2]).expect_code(0).expect_err(&["3 of 3 shards"]);
    report(&[0, 2]).expect_code(4).expect_err(&["2 of 3 shards", "shard 1/3 is missing"]);
    let once = std::fs::read_to_string(scratch.path("run.1-of-3.jsonl")).unwrap();
    assert!(!once.contains("\"lot\""), "the devices are made up");
    let beside = |first: u32, name: &str, (from, to): (&str, &str)| {
        assert!(once.contains(from), "{once}");
        let other = scratch.write(name, once.replacen(from, to, 1));
        run(fleetmint().arg("report").arg(scratch.path(&format!("run.{first}-of-3.jsonl"))).arg(other))
            .expect_code(64)
    };
    beside(1, "again.jsonl", ("\"command\":\"", "\"command\":\"again "))
        .expect_err(&["both of shard 1/3 of a load test"]);
    beside(0, "other.jsonl", ("\"seed\":1", "\"seed\":5"))
        .expect_err(&["shard 0/3 of hold 50/s 2s, uniform (seed 1)", "(seed 5)"]);
}
