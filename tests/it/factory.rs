//! What comes after a run, as a user does it: export in every format, `status`, `retry`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fleetmint::call::Call;
use fleetmint::event::Change;
use fleetmint::failure::{Cause, Failure, Stage};
use fleetmint::ledger::{Ledger, OpenDevice};
use serde_json::{Value, json};

use crate::harness::{Emulate, Said, Scratch, Transcript, column, expect_text, fleetmint, run, signal};

const P256: &str = "keys = \"p256\"\n";

/// A provisioned lot of 12 devices.
fn provisioned(scratch: &Scratch) -> PathBuf {
    let lot = scratch.lot("lot.csv", 12);
    let scenario = scratch.write("s.toml", P256);
    run(fleetmint().arg("provision").arg(&lot).arg(format!("--emulator={}", scenario.display())))
        .expect_code(0);
    scratch.path("lot.ledger")
}

fn export(ledger: &Path, out: &Path, args: &[&str]) -> Said {
    let said = run(fleetmint().arg("export").arg(ledger).arg("--out").arg(out).args(args));
    assert!(!said.out.contains("PRIVATE KEY") && !said.err.contains("PRIVATE KEY"), "a key was printed");
    said
}

fn status(ledger: &Path) -> Value {
    let said = run(fleetmint().arg("status").arg(ledger).arg("--json")).expect_code(0);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
}

/// Every file below a folder, as its path from there; none but its owner may read them or the folders.
fn private_files(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn rows(path: &Path) -> Vec<csv::StringRecord> {
    csv::Reader::from_path(path).unwrap().records().map(Result::unwrap).collect()
}

#[test]
fn every_format_holds_the_same_devices_and_only_its_owner_may_read_it() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch);
    let keys = column(&ledger, "SELECT private_key FROM certificate ORDER BY device");
    for (format, files) in [("pem", 1 + 24), ("nvs", 1 + 36), ("mass-mfg", 3 + 24)] {
        let out = scratch.path(format);
        export(&ledger, &out, &["--format", format]).expect_code(0);
        assert_eq!(private_files(&out).len(), files, "{format}");
        assert_eq!(std::fs::read_to_string(out.join("SN000002/private.key")).unwrap(), keys[1]);
    }
    let entries = rows(&scratch.path("nvs").join("SN000002/nvs.csv"));
    let file = entries.iter().find(|entry| &entry[0] == "private_key").unwrap();
    assert_eq!((&file[1], &file[2], &file[3]), ("file", "string", "SN000002/private.key"));
    let values = rows(&scratch.path("mass-mfg").join("values.csv"));
    assert_eq!((values.len(), &values[1][0], &values[1][6]), (12, "SN000002", "SN000002/private.key"));

    let (jsonl, csv) = (scratch.path("lot.jsonl"), scratch.path("devices.csv"));
    export(&ledger, &jsonl, &["--format", "jsonl"]).expect_code(0);
    export(&ledger, &csv, &["--format", "csv"]).expect_code(0);
    let text = std::fs::read_to_string(&jsonl).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let in_json: Vec<_> = lines.iter().map(|line| line["private_key"].as_str().unwrap()).collect();
    assert_eq!(in_json, keys);
    assert_eq!(lines[1]["parameters"]["MacAddress"], "AA:BB:CC:00:00:02");
    let in_table: Vec<_> = rows(&csv).iter().map(|row| row[5].to_owned()).collect();
    assert_eq!(in_table, keys);
    assert_eq!((mode(&jsonl), mode(&csv)), (0o600, 0o600));
    assert_eq!(&rows(&scratch.path("lot.jsonl.manifest.csv"))[0][3], "12");
    let mut refused = Transcript::default();
    refused.add("a file", &export(&ledger, &jsonl, &["--format", "jsonl"]));
    refused.add("a folder", &export(&ledger, &scratch.path("pem"), &[]));
    expect_text("factory-export-is-there", &scratch, &refused, &[]);
}

#[test]
fn an_export_takes_only_what_was_chosen_and_names_what_is_not_there() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch);
    let out = scratch.path("two");
    let mut told = Transcript::default();
    told.add(
        "two of twelve",
        &export(&ledger, &out, &["--key", "SN000003", "--key", "SN000007", "--since-run", "1"]),
    );
    assert_eq!(rows(&out.join("manifest.csv")).len(), 2);
    let before = scratch.files();
    let nowhere = scratch.path("nowhere");
    let refused: [&[&str]; 7] = [
        &["--key", "SN000003", "--key", "SN999999"],
        &["--state", "issued", "--key", "SN000003"],
        &["--state", "pending"],
        &["--state", "unknown"],
        &["--since-run", "2"],
        &["--since-run", "0"],
        &["--format", "nvs", "--nvs-namespace", "a,b"],
    ];
    for args in refused {
        told.add(&args.join(" "), &export(&ledger, &nowhere, args));
    }
    told.add("keys to stdout", &export(&ledger, Path::new("-"), &["--format", "jsonl"]));
    expect_text("factory-export-chosen", &scratch, &told, &[]);
    assert_eq!(scratch.files(), before, "nothing is left behind");
}

#[test]
fn status_says_what_a_finished_lot_is_and_what_to_do() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch);
    let report = status(&ledger);
    assert_eq!(
        (&report["schema"], &report["plain_keys"], &report["writer"]),
        (&json!(1), &json!(true), &json!(null))
    );
    assert_eq!((&report["devices"]["registered"], &report["devices"]["total"]), (&json!(12), &json!(12)));
    assert_eq!((&report["lot"]["rows"], &report["lot"]["account"]), (&json!(12), &json!("emulator")));
    assert_eq!((&report["runs"][0]["run"], &report["runs"][0]["outcome"]), (&json!(1), &json!("complete")));
    let command = format!("fleetmint export {} --out DIR", ledger.display());
    assert_eq!(report["next"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&report["next"][0]["step"], &report["next"][0]["command"]),
        (&json!("export"), &json!(command))
    );
    let text = run(fleetmint().arg("status").arg(&ledger)).expect_code(0).out;
    for words in ["12 devices of", "plain text", "12 registered", ": complete", &command] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

#[test]
fn status_of_what_is_no_ledger_is_an_error() {
    let scratch = Scratch::new();
    let other = scratch.write("other", "no database");
    let mut refused = Transcript::default();
    for (file, what) in [(scratch.path("none"), "no file"), (other, "another file")] {
        for verb in ["status", "retry"] {
            let mut command = fleetmint();
            command.arg(verb).arg(&file);
            if verb == "retry" {
                command.args(["--state", "rejected"]);
            }
            refused.add(&format!("{verb} of {what}"), &run(&mut command));
        }
    }
    expect_text("factory-no-ledger", &scratch, &refused, &[]);
}

#[test]
fn a_run_is_seen_running_and_then_crashed_and_its_ledger_is_not_for_retry() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 400);
    let scenario = scratch.write("s.toml", P256);
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let mut command = emulate.provision(&lot);
    command.args(["--connections", "4", "--create-rate", "20/s", "--param", "Site=it's here"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ledger = scratch.path("lot.ledger");
    let start = std::time::Instant::now();
    while !ledger.exists() || column(&ledger, "SELECT key FROM device WHERE state = 'registered'").len() < 3 {
        assert!(start.elapsed().as_secs() < 60, "waited a minute in vain");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let report = status(&ledger);
    let pid = json!(child.id());
    assert_eq!((&report["runs"][0]["outcome"], &report["writer"]["pid"]), (&json!("running"), &pid));
    assert_eq!(report["next"][0]["step"], "wait");
    let said = run(fleetmint().arg("retry").arg(&ledger).args(["--state", "rejected"]));
    let of_the_run = (&*format!("pid {pid}"), "pid OF-THE-RUN");
    expect_text("factory-retry-during-a-run", &scratch, &said, &[of_the_run]);
    signal(&child, "KILL");
    child.wait().unwrap();
    let report = status(&ledger);
    assert_eq!((&report["runs"][0]["outcome"], &report["writer"]), (&json!("crashed"), &json!(null)));
    let resume = &report["next"][0];
    assert_eq!(resume["step"], "resume");
    let command = resume["command"].as_str().unwrap();
    for words in [
        "provision",
        "lot.csv",
        "--ledger",
        "wss://localhost:",
        "TEMP_DEVICE",
        r"--param='Site=it'\''s here'",
    ] {
        assert!(command.contains(words), "no {words:?} in {command}");
    }
    let text = run(fleetmint().arg("status").arg(&ledger)).expect_code(0).out;
    assert!(text.contains(&format!("crashed (pid {pid})")), "{text}");
}

/// A template that refuses every device, for it wants a parameter that no lot has.
const STRICT: &str = r#"{"Parameters": {"DeviceId": {"Type": "String"}}, "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": [" ", [{"Ref": "DeviceId"}, "x"]]}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}}}"#;

#[test]
fn rejected_devices_are_taken_up_again_once_the_template_is_mended() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 5);
    let strict = scratch.write(
        "strict.toml",
        format!("{P256}[[templates]]\nname = \"TEMP_DEVICE\"\nbody = '''{STRICT}'''\n"),
    );
    let mended = scratch.write("mended.toml", P256);
    let ledger = scratch.path("lot.ledger");
    let wrong = Emulate::start(&["--scenario", strict.to_str().unwrap()]);
    run(&mut wrong.provision(&lot)).expect_code(3);
    drop(wrong);
    let report = status(&ledger);
    assert_eq!(report["devices"]["rejected"], 5);
    let cause = &report["causes"][0];
    assert_eq!(
        (&cause["state"], &cause["devices"], &cause["example_key"]),
        (&json!("rejected"), &json!(5), &json!("SN000001"))
    );
    assert!(cause["example"].as_str().unwrap().contains("RegisterThing"), "{cause}");
    assert_eq!(report["next"][0]["step"], "retry");

    let retry = |args: &[&str]| run(fleetmint().arg("retry").arg(&ledger).args(args));
    let mut refused = Transcript::default();
    for args in [
        &["--state", "rejected", "--key", "SN000009"][..],
        &["--state", "rejected", "--cause", "nonsense"],
        &["--state", "registered"],
        &["--state", "rejected", "--reissue-unknown"],
    ] {
        refused.add(&args.join(" "), &retry(args).expect_code(64));
    }
    expect_text("factory-retry-refused", &scratch, &refused, &[]);
    let said =
        retry(&["--state", "rejected", "--key", "SN000001", "--cause", cause["cause"].as_str().unwrap()]);
    assert!(said.expect_code(0).out.contains("1 rejected device is pending again, 1 certificate retired"));
    retry(&["--state", "rejected"]).expect_code(0);
    assert!(retry(&["--state", "rejected"]).expect_code(0).out.contains("nothing to do"));

    let right = Emulate::start(&["--scenario", mended.to_str().unwrap()]);
    run(&mut right.provision(&lot)).expect_code(0);
    let report = status(&ledger);
    assert_eq!((&report["devices"]["registered"], &report["causes"]), (&json!(5), &json!([])));
    let outcomes: Vec<_> =
        report["runs"].as_array().unwrap().iter().map(|run| run["outcome"].clone()).collect();
    assert_eq!(outcomes, ["complete", "retry", "retry", "complete"]);
    assert_eq!(
        column(&ledger, "SELECT certificate_id FROM certificate WHERE retired_at IS NOT NULL").len(),
        5
    );
    export(&ledger, &scratch.path("out"), &["--since-run", "4"]).expect_code(0);
    assert_eq!(rows(&scratch.path("out/manifest.csv")).len(), 5);
}

/// Writes down what a run does once the tokens are too old: that would take an hour.
fn give_up_on_all(ledger: &Path) {
    let mut ledger = Ledger::reopen(ledger).unwrap();
    let issued = ledger.view().open_devices(None, 100).unwrap();
    let failure = Failure::new(Stage::Call(Call::RegisterThing), Cause::TokenExpired);
    let unknown = |device: OpenDevice| Change::Unknown { device: device.id, failure: failure.clone() };
    ledger.commit(issued.into_iter().map(unknown).collect(), std::time::SystemTime::now()).unwrap();
}

#[test]
fn unknown_devices_are_only_reissued_with_consent() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 4);
    let silent = scratch.write("silent.toml", format!("{P256}[faults.register_thing]\nno_reply = 1\n"));
    let ledger = scratch.path("lot.ledger");
    let emulate = Emulate::start(&["--scenario", silent.to_str().unwrap()]);
    let mut command = emulate.provision(&lot);
    command.args(["--timeout", "100ms", "--control-endpoint", "https://localhost:1"]);
    run(&mut command).expect_code(3);
    assert_eq!(status(&ledger)["devices"]["unknown"], 0, "the token may still settle it");
    give_up_on_all(&ledger);
    assert_eq!(status(&ledger)["devices"]["unknown"], 4);
    let emulate = Emulate::start(&["--scenario", scratch.write("s.toml", P256).to_str().unwrap()]);
    assert_eq!(status(&ledger)["next"][0]["step"], "reissue");
    let retry = |args: &[&str]| {
        run(fleetmint()
            .arg("retry")
            .arg(&ledger)
            .args(["--state", "unknown"])
            .args(args)
            .stdin(Stdio::null()))
    };
    let mut refused = Transcript::default();
    for args in ["--yes", "--reissue-unknown"] {
        refused.add(args, &retry(&[args]).expect_code(64));
    }
    expect_text("factory-reissue-without-consent", &scratch, &refused, &[]);
    run(&mut emulate.provision(&lot)).expect_code(3);
    assert_eq!(status(&ledger)["devices"]["unknown"], 4, "no run reissues them by itself");
    retry(&["--reissue-unknown", "--yes", "--key", "SN000001"]).expect_code(0);
    run(&mut emulate.provision(&lot)).expect_code(3);
    assert_eq!(status(&ledger)["devices"]["unknown"], 3);
    run(emulate.provision(&lot).arg("--reissue-unknown"))
        .expect_code(0)
        .expect_err(&["own two", "3 unknown devices"]);
    assert_eq!(status(&ledger)["devices"]["registered"], 4);
    assert_eq!(column(&ledger, "SELECT certificate_id FROM certificate").len(), 8);
    assert_eq!(
        column(&ledger, "SELECT certificate_id FROM certificate WHERE retired_at IS NOT NULL").len(),
        4
    );
}
