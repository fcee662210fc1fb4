//! The main job as a user runs it: the real binary, real TLS, real signals.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use x509_parser::prelude::*;

use crate::harness::{Emulate, Scratch, Transcript, column, expect_text, fleetmint, run, signal, summary};

const P256: &str = "keys = \"p256\"\n";

#[test]
fn the_seed_flow_lot_yields_exactly_its_things() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let json = scratch.path("summary.json");
    let said = run(fleetmint().arg("provision").arg(&lot).arg("--emulator").arg("--summary-json").arg(&json))
        .expect_code(0);
    assert!(said.out.contains("12 of 12 devices registered"), "{}", said.out);
    let ledger = scratch.path("seed-flow.ledger");
    assert_eq!(
        column(&ledger, "SELECT thing_name FROM device ORDER BY id"),
        ["TWOK_9999999999"]
            .into_iter()
            .map(String::from)
            .chain((2..=12).map(|n| format!("TWOK_{n:010}")))
            .collect::<Vec<_>>()
    );
    let mode = std::fs::metadata(&ledger).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let summary = summary(&json);
    assert_eq!(summary["schema"], 1);
    assert_eq!(summary["devices"]["registered"], 12);
    for operation in ["create_certificate", "register_thing"] {
        assert_eq!(summary["operations"][operation]["attempts"], 12);
        assert_eq!(summary["operations"][operation]["accepted"], 12);
        assert!(summary["operations"][operation]["service_us"]["p99_9"].as_u64().unwrap() > 0);
        assert!(summary["operations"][operation]["response_us"]["mean"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_second_run_sends_nothing_and_says_so() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let scenario = scratch.write("s.toml", P256);
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    run(&mut emulate.provision(&lot)).expect_code(0);
    let command = {
        let mut command = emulate.provision(&lot);
        command.arg("--summary-json").arg(scratch.path("second.json"));
        command
    };
    // With nobody there any more, anything that was sent would fail.
    drop(emulate);
    let mut command = command;
    let said = run(&mut command).expect_code(0);
    assert!(said.out.contains("nothing was sent"), "{}", said.out);
    let second = summary(&scratch.path("second.json"));
    assert_eq!(second["operations"]["connect"]["attempts"], 0);
    assert_eq!(second["devices"]["registered"], 12);
}

#[test]
fn every_key_of_500_devices_matches_its_certificate() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 500);
    let scenario = scratch.write("s.toml", P256);
    let emulator = format!("--emulator={}", scenario.display());
    run(fleetmint().arg("provision").arg(&lot).arg(emulator).args(["--connections", "20"])).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    let pems = column(&ledger, "SELECT certificate_pem FROM certificate ORDER BY certificate_id");
    let keys = column(&ledger, "SELECT private_key FROM certificate ORDER BY certificate_id");
    assert_eq!((pems.len(), keys.len()), (500, 500));
    let mut public_keys = HashSet::new();
    for (pem, key) in pems.iter().zip(&keys) {
        let public = public_key_of_certificate(pem);
        assert_eq!(public, public_key_of(key), "a key that is not its certificate's");
        public_keys.insert(public);
    }
    assert_eq!(public_keys.len(), 500, "keys are unique");
    assert_eq!(column(&ledger, "SELECT DISTINCT thing_name FROM device").len(), 500);
}

#[test]
fn rsa_keys_match_their_certificates() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    let ledger = scratch.path("seed-flow.ledger");
    let pems = column(&ledger, "SELECT certificate_pem FROM certificate ORDER BY certificate_id");
    let keys = column(&ledger, "SELECT private_key FROM certificate ORDER BY certificate_id");
    for (pem, key) in pems.iter().zip(&keys) {
        assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
        let (_, pem_key) = parse_x509_pem(key.as_bytes()).unwrap();
        let key = RsaKeyPair::from_der(&pem_key.contents).unwrap();
        assert_eq!(public_key_of_certificate(pem), key.public_key().as_ref());
    }
}

fn public_key_of_certificate(pem: &str) -> Vec<u8> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    certificate.public_key().subject_public_key.data.to_vec()
}

fn public_key_of(key: &str) -> Vec<u8> {
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"), "{}", &key[..40]);
    let (_, pem) = parse_x509_pem(key.as_bytes()).unwrap();
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &pem.contents).unwrap();
    key.public_key().as_ref().to_vec()
}

#[test]
fn bad_lots_are_refused_whole_and_leave_nothing() {
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("header only", b"DeviceId,SerialNumber\n"),
        ("ragged", b"DeviceId,SerialNumber\na,1,x\nb\nc,3\n"),
        ("duplicate key", b"DeviceId,SerialNumber\na,1\nb,2\nc,1\n"),
        ("no key column", b"Foo,Bar\na,1\n"),
        ("not UTF-8", b"DeviceId,SerialNumber\na,1\n\xff,2\n"),
    ];
    let (scratch, mut refused) = (Scratch::new(), Transcript::default());
    for (name, csv) in cases {
        let lot = scratch.write("lot.csv", csv);
        let said =
            run(fleetmint().arg("provision").arg(&lot).args(["--emulator", "--param", "MacAddress=x"]));
        assert_eq!(scratch.files(), ["lot.csv"], "{name} left something behind");
        refused.add(name, &said);
    }
    refused.add("not there", &run(fleetmint().args(["provision", "no/such/lot.csv", "--emulator"])));
    expect_text("provision-bad-lots", &scratch, &refused, &[]);
}

#[test]
fn usage_errors_are_told_before_anything_else() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let cases: [&[&str]; 9] = [
        &[],
        &["--template", "T"],
        &["--endpoint", "ws://localhost/mqtt", "--template", "T"],
        &["--endpoint", "localhost:1", "--template", "T"],
        &["--endpoint", "localhost:1", "--template", "a b", "--region", "x"],
        &["--emulator", "--create-rate", "fast"],
        &["--emulator", "--connections", "0"],
        &["--emulator", "--param", "A={Nope}"],
        &["--emulator", "--client-id-prefix", "$x"],
    ];
    let mut refused = Transcript::default();
    for args in cases {
        refused.add(&args.join(" "), &run(fleetmint().arg("provision").arg(&lot).args(args)).expect_code(64));
        assert_eq!(scratch.files(), ["seed-flow.csv"]);
    }
    expect_text("provision-usage-errors", &scratch, &refused, &[]);
}

#[test]
fn a_wrong_secret_is_not_permitted_and_a_missing_one_not_ready() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let emulate = Emulate::start(&[]);
    let said = run(emulate.provision(&lot).env("AWS_SECRET_ACCESS_KEY", "wrong"));
    let said = said.expect_code(77);
    assert!(!said.err.contains("X-Amz-Signature"), "{}", said.err);
    expect_text("provision-wrong-secret", &scratch, &said.err, &[]);
    let said = run(emulate.provision(&lot).env_remove("AWS_SECRET_ACCESS_KEY")).expect_code(69);
    expect_text("provision-no-secret", &scratch, &said, &[]);
    run(&mut emulate.provision(&lot)).expect_code(0);
}

#[test]
fn nobody_there_is_for_later_and_resumable() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let emulate = Emulate::start(&[]);
    let mut command = emulate.provision(&lot);
    drop(emulate);
    let json = scratch.path("s.json");
    let said = run(command.arg("--summary-json").arg(&json)).expect_code(75);
    expect_text("provision-nobody-there", &scratch, &said.err, &[]);
    let summary = summary(&json);
    assert_eq!(summary["devices"]["pending"], 12);
    assert!(summary["operations"]["connect"]["dropped"].as_u64().unwrap() > 0);
}

#[test]
fn an_untrusted_certificate_is_named() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let (emulate, other) = (Emulate::start(&[]), Emulate::start(&[]));
    let ca_file = other.text("ca_file").to_owned();
    let mut command = emulate.provision(&lot);
    let twice = run(command.args(["--ca-file", &ca_file])).expect_code(64);
    expect_text("provision-two-ca-files", &scratch, &twice, &[]);
    let mut command = fleetmint();
    command
        .arg("provision")
        .arg(&lot)
        .args(["--endpoint", emulate.text("endpoint"), "--region", "us-east-1", "--template", "TEMP_DEVICE"])
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b");
    expect_text("provision-untrusted", &scratch, &run(&mut command).expect_code(69).err, &[]);
}

#[test]
fn a_ledger_of_something_else_is_refused() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    let ledger = scratch.path("seed-flow.ledger");
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    let before = std::fs::read(&ledger).unwrap();
    let other_lot = scratch.lot("other.csv", 3);
    let provision = |lot, args: &[&str]| {
        run(fleetmint().arg("provision").arg(lot).arg("--emulator").arg("--ledger").arg(&ledger).args(args))
    };
    let cases = [
        ("lot", provision(&other_lot, &[])),
        ("template", provision(&lot, &["--template", "OTHER"])),
        ("region", provision(&lot, &["--region", "eu-west-1"])),
    ];
    let mut refused = Transcript::default();
    for (what, said) in cases {
        let said = said.expect_code(74);
        assert!(
            !said.err.contains("another --ledger"),
            "no advice leads to a second certificate: {}",
            said.err
        );
        refused.add(&format!("another {what}"), &said);
    }
    expect_text("provision-ledger-of-something-else", &scratch, &refused, &[]);
    assert_eq!(std::fs::read(&ledger).unwrap(), before);
}

#[test]
fn throttling_costs_time_and_no_device() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario = scratch.write(
        "s.toml",
        format!("{P256}[quotas]\ncreate_keys_and_certificate = \"20/s\"\nregister_thing = \"20/s\"\n"),
    );
    let json = scratch.path("s.json");
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).arg(format!("--emulator={}", scenario.display()));
    run(command.args(["--connections", "40"]).arg("--summary-json").arg(&json)).expect_code(0);
    let summary = summary(&json);
    let register = &summary["operations"]["register_thing"];
    assert_eq!(register["accepted"], 40);
    let throttled = |operation: &str| summary["operations"][operation]["throttled"].as_u64().unwrap();
    assert!(throttled("create_certificate") + throttled("register_thing") > 0, "{summary}");
    for operation in ["connect", "create_certificate", "register_thing"] {
        let counts = &summary["operations"][operation];
        let ends = ["accepted", "rejected", "throttled", "timed_out", "dropped"];
        let sum: u64 = ends.iter().map(|end| counts[end].as_u64().unwrap()).sum();
        assert_eq!(counts["attempts"].as_u64().unwrap(), sum, "{counts}");
    }
}

#[test]
fn a_row_that_the_service_rejects_is_rejected_alone() {
    let scratch = Scratch::new();
    let lot = scratch.write(
        "lot.csv",
        "DeviceId,SerialNumber,MacAddress\nGOOD_1,1,A\nno spaces allowed,2,B\nGOOD_3,3,C\n",
    );
    let scenario = scratch.write("s.toml", P256);
    let json = scratch.path("s.json");
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).arg(format!("--emulator={}", scenario.display()));
    let said = run(command.arg("--summary-json").arg(&json)).expect_code(3);
    assert!(said.out.contains("RegisterThing: rejected with 400"), "{}", said.out);
    let summary = summary(&json);
    assert_eq!(summary["devices"]["registered"], 2);
    assert_eq!(summary["devices"]["rejected"], 1);
    let ledger = scratch.path("lot.ledger");
    assert_eq!(column(&ledger, "SELECT key FROM device WHERE state = 'rejected'"), ["2"]);
}

#[test]
fn interrupted_runs_drain_and_resume() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 60);
    let scenario = scratch.write("s.toml", P256);
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let mut command = emulate.provision(&lot);
    let child = command
        .args(["--connections", "4", "--create-rate", "20/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ledger = scratch.path("lot.ledger");
    wait_for(|| ledger.exists() && registered(&ledger) >= 5);
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{err}");
    assert!(err.contains("resume"), "{err}");
    let first = registered(&ledger);
    assert!((5..60).contains(&first), "{first} registered by the interrupted run");
    assert_eq!(
        column(&ledger, "SELECT key FROM device WHERE state = 'issued'").len(),
        0,
        "in flight was finished"
    );
    let json = scratch.path("s.json");
    run(emulate.provision(&lot).arg("--summary-json").arg(&json)).expect_code(0);
    assert_eq!(registered(&ledger), 60);
    let second = summary(&json);
    assert_eq!(second["operations"]["register_thing"]["accepted"].as_u64().unwrap(), 60 - first as u64);
}

fn registered(ledger: &std::path::Path) -> usize {
    column(ledger, "SELECT key FROM device WHERE state = 'registered'").len()
}

/// Waits for a condition that another process brings about; gives up after a minute.
fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited a minute in vain");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn constants_and_the_certificate_id_reach_the_service() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "SerialNumber\n1\n2\n");
    let template = r#"{"Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String"}, "CertificateId": {"Type": "String"}},
      "Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Site"}}},
                    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "CertificateId"}, "Status": "ACTIVE"}}}}"#;
    scratch.write("template.json", template);
    let scenario =
        scratch.write("s.toml", format!("{P256}[[templates]]\nname = \"SITES\"\nbody = '''{template}'''\n"));
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).arg(format!("--emulator={}", scenario.display()));
    command.args([
        "--template",
        "SITES",
        "--param",
        "Site=berlin-{SerialNumber}",
        "--param",
        "CertificateId={certificate_id}",
    ]);
    run(&mut command).expect_code(0);
    let things = column(&scratch.path("lot.ledger"), "SELECT thing_name FROM device ORDER BY id");
    assert_eq!(things, ["berlin-1", "berlin-2"]);
}

#[test]
fn export_writes_what_the_factory_needs() {
    let scratch = Scratch::new();
    let lot = scratch.seed_flow();
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    let (ledger, out) = (scratch.path("seed-flow.ledger"), scratch.path("out"));
    run(fleetmint().arg("export").arg(&ledger).arg("--out").arg(&out)).expect_code(0);
    let key = out.join("123456789012/private.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&key).unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    assert!(out.join("123456789012/certificate.pem").exists());
    let mut manifest = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
    assert_eq!(manifest.records().count(), 12);
    run(fleetmint().arg("export").arg(&ledger).arg("--out").arg(&out)).expect_code(74);
}

#[test]
fn emulate_says_one_json_line_and_stops_on_sigterm() {
    let mut emulate = Emulate::start(&[]);
    for key in ["endpoint", "region", "ca_file", "access_key_id", "secret_access_key", "template"] {
        assert!(!emulate.text(key).is_empty());
    }
    assert!(emulate.text("endpoint").starts_with("wss://localhost:"));
    let ca_file = emulate.text("ca_file").to_owned();
    assert!(std::fs::read_to_string(&ca_file).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    signal(&emulate.child, "TERM");
    assert_eq!(emulate.child.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(&ca_file).exists(), "the temporary CA file goes with the emulator");
}
