//! Texts that are contracts, word for word: help, summaries, status, reports, errors. A snapshot shows what a change does to
//! them; `INSTA_UPDATE=always cargo test --test it texts` accepts it.
//!
//! Times, rates, ports and temporary folders are not the same twice, and are replaced: [`expect_text`].

use std::path::Path;

use crate::harness::{Emulate, Said, Scratch, expect_text, fleetmint, run};

/// Of a run: figures, with the blanks before them, which make room for wider ones.
const FIGURES: &[(&str, &str)] = &[
    (r" +\d+(\.\d+)? (us|ms|s)\b", " LATENCY"),
    // What bound the run depends on the machine.
    (r"(?s)bound by .*?(\d+ of \d+ devices)", "BOUND AND RATE\n$1"),
    (r#""pid": \d+"#, r#""pid": PID"#),
];

#[test]
fn help() {
    let mut looked_at = help_of(&[]);
    looked_at.sort();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    let files =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let named = files.filter_map(|file| file.strip_suffix(".snap").map(str::to_owned));
    let mut kept: Vec<_> = named.filter(|name| name == "help" || name.starts_with("help-")).collect();
    kept.sort();
    assert_eq!(looked_at, kept, "each snapshot of a help is of a verb that its parent names");
}

/// Compares the help of a verb, and of each verb below it that it names. Returns the snapshots' names.
fn help_of(verb: &[String]) -> Vec<String> {
    let said = run(fleetmint().args(verb).arg("--help")).expect_code(0);
    let name = ["help"].into_iter().chain(verb.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name.as_str(), &said.out);
    });
    let mut looked_at = vec![name];
    let below = said.out.split_once("Commands:\n").and_then(|(_, after)| after.split("\n\n").next());
    for line in below.unwrap_or_default().lines() {
        let name = line.strip_prefix("  ").and_then(|line| line.split(' ').next()).unwrap_or_default();
        // The second line of a description begins with blanks.
        if !name.is_empty() && name != "help" {
            looked_at.extend(help_of(&[verb, &[name.to_owned()]].concat()));
        }
    }
    looked_at
}

/// A lot of three, one of which is rejected.
fn provisioned(scratch: &Scratch) -> Said {
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,1,x\nno spaces,2,y\nC,3,z\n");
    let scenario = scratch.write("s.toml", "keys = \"p256\"\n");
    let mut command = fleetmint();
    command.arg("provision").arg(lot).arg(format!("--emulator={}", scenario.display()));
    run(command.args(["--connections", "1"])).expect_code(3)
}

#[test]
fn a_run_and_what_is_left_of_it() {
    let scratch = Scratch::new();
    let provisioned = provisioned(&scratch);
    expect_text("provision", &scratch, &provisioned, FIGURES);
    let expect_of = |name: &str, args: &[&str]| {
        let said = run(fleetmint().args(args).current_dir(scratch.path(""))).expect_code(0);
        expect_text(name, &scratch, &said, FIGURES);
    };
    expect_of("status", &["status", "lot.ledger"]);
    expect_of("status-json", &["status", "lot.ledger", "--json"]);
    expect_of("export", &["export", "lot.ledger", "--out", "out"]);
    expect_of("purge-keys", &["purge-keys", "lot.ledger", "--yes"]);
    expect_of("retry", &["retry", "lot.ledger", "--state", "rejected"]);
    expect_of("dry-run", &["provision", "lot.csv", "--emulator=s.toml", "--dry-run"]);
}

/// What an account is asked before a lot, and after it.
#[test]
fn before_and_after() {
    let (scratch, emulate) = (Scratch::new(), Emulate::start(&[]));
    let lot = scratch.lot("lot.csv", 3);
    let expect_of = |name: &str, args: &[&str]| {
        let mut command = fleetmint();
        command.args(args).current_dir(scratch.path(""));
        let machine = [
            (r"\d+ MiB", "SIZE"),
            (r"room for \d+ connections", "room for CONNECTIONS"),
            (r"\ds from", "SECONDS from"),
        ];
        let reached = ["check", "verify", "cleanup"].contains(&args[0]);
        let command = if reached { emulate.reached_by(&mut command) } else { &mut command };
        expect_text(name, &scratch.path(""), &run(command).expect_code(0), &machine);
    };
    expect_of("check", &["check", "lot.csv", "--template", emulate.text("template")]);
    run(&mut emulate.provision(&lot)).expect_code(0);
    expect_of("verify", &["verify", "lot.ledger"]);
    expect_of("backup", &["backup", "lot.ledger", "copy.ledger"]);
    expect_of("cleanup-what-it-would-do", &["cleanup", "lot.ledger"]);
    expect_of("cleanup", &["cleanup", "lot.ledger", "--yes"]);
    expect_of("verify-after-cleanup", &["verify", "lot.ledger"]);
}

#[test]
fn bad_lots() {
    for lot in ["duplicate-keys", "invalid-utf8", "many-errors", "ragged"] {
        let scratch = Scratch::new();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/lots/{lot}.csv"));
        scratch.write("lot.csv", std::fs::read(fixture).unwrap());
        let mut command = fleetmint();
        let said = run(command.args(["provision", "lot.csv", "--emulator"]).current_dir(scratch.path("")));
        expect_text(&format!("lot-{lot}"), &scratch, &said.expect_code(65), &[]);
    }
}

/// What people mistype, forget, and run into.
#[test]
fn errors() {
    let scratch = Scratch::new();
    provisioned(&scratch);
    scratch.write("empty", "");
    scratch.write("other.csv", "DeviceId\nA\n");
    scratch.write("broken.toml", "keys = \"p25\"\n");
    let cases: [(&str, &[&str]); 13] = [
        ("no-verb", &[]),
        ("misspelt-verb", &["provison", "lot.csv"]),
        ("misspelt-option", &["provision", "lot.csv", "--emulator", "--conections", "4"]),
        ("bad-rate", &["provision", "lot.csv", "--emulator", "--create-rate", "10"]),
        (
            "bad-threshold",
            &[
                "load",
                "create",
                "--emulator",
                "--devices",
                "9",
                "--rate",
                "1/s",
                "--for",
                "1s",
                "--threshold",
                "p99<5",
            ],
        ),
        ("bad-profile", &["load", "create", "--emulator", "--devices", "9", "--profile", "hold 5/s"]),
        ("bad-scenario", &["provision", "lot.csv", "--emulator=broken.toml"]),
        ("no-lot", &["provision", "nowhere.csv", "--emulator"]),
        (
            "no-credentials",
            &["provision", "other.csv", "--endpoint", "x-ats.iot.eu-west-1.amazonaws.com", "--template", "T"],
        ),
        ("no-ledger", &["status", "nowhere.ledger"]),
        ("no-ledger-at-all", &["status", "lot.csv"]),
        ("no-results", &["report", "empty"]),
        ("out-is-there", &["export", "lot.ledger", "--out", "."]),
    ];
    for (name, args) in cases {
        let mut command = fleetmint();
        let said = run(command.args(args).current_dir(scratch.path("")));
        assert_ne!(said.code, Some(0), "{name}");
        expect_text(&format!("error-{name}"), &scratch, &said, &[]);
    }
}
