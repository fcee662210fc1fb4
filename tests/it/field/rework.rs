//! A factory's day: boards that break, and ledgers that are copied while they are in use.

use std::path::Path;
use std::process::Stdio;

use super::proxy::{port_of, proxy};
use crate::harness::{Emulate, Said, Scratch, Transcript, column, expect_text, fleetmint, run};

/// `fleetmint retry --state registered` with these arguments, for the account of an emulator.
fn retry(emulate: &Emulate, scratch: &Scratch, args: &[&str]) -> Said {
    run(fleetmint()
        .arg("retry")
        .arg(scratch.path("lot.ledger"))
        .args(["--state", "registered"])
        .args(args)
        .args(["--endpoint", emulate.text("endpoint"), "--ca-file", emulate.text("ca_file")])
        .env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key")))
}

fn certificates(scratch: &Scratch, what: &str) -> Vec<String> {
    column(&scratch.path("lot.ledger"), &format!("SELECT hex(certificate_id) FROM credential WHERE {what}"))
}

/// Whoever solders a new board for a device that is registered: its key went with the old one.
#[test]
fn a_registered_device_gets_another_certificate_and_the_old_one_is_inactive() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let emulate = Emulate::start(&[]);
    run(&mut emulate.provision(&lot)).expect_code(0);
    let old = certificates(&scratch, "device = 2");

    // Not by accident: which, and that it is meant, has to be said.
    let mut told = Transcript::default();
    for args in [
        &["--reissue", "--yes"][..],
        &["--key", "SN000002", "--yes"],
        &["--key", "SN000002", "--reissue"],
        &["--key", "SN000009", "--reissue", "--yes"],
    ] {
        told.add(&args.join(" "), &retry(&emulate, &scratch, args).expect_code(64));
    }
    assert_eq!(certificates(&scratch, "retired_at IS NOT NULL").len(), 0);

    told.add("all of it", &retry(&emulate, &scratch, &["--key", "SN000002", "--reissue", "--yes"]));
    let sql = "SELECT deactivated_at FROM rework JOIN device ON device.id = device WHERE key = 'SN000002'";
    let deactivated = column(&scratch.path("lot.ledger"), sql);
    assert!(deactivated.len() == 1 && !deactivated[0].is_empty(), "{deactivated:?}");
    // A device that is pending is no registered one.
    told.add("once more", &retry(&emulate, &scratch, &["--key", "SN000002", "--reissue", "--yes"]));
    expect_text("rework", &scratch, &told, &[]);
    run(fleetmint().arg("status").arg(scratch.path("lot.ledger"))).expect_code(0).expect_out(&["rework"]);

    run(&mut emulate.provision(&lot)).expect_code(0).expect_out(&["3 of 3 devices registered"]);
    let [one, two] = &certificates(&scratch, "device = 2 ORDER BY id")[..] else { panic!("not two") };
    assert!(one == &old[0] && two != one, "the ledger keeps both");
    assert_eq!(&certificates(&scratch, "device = 2 AND retired_at IS NULL"), std::slice::from_ref(two));
    let out = scratch.path("out.jsonl");
    run(fleetmint()
        .arg("export")
        .arg(scratch.path("lot.ledger"))
        .args(["--format", "jsonl", "--out"])
        .arg(&out))
    .expect_code(0);
    let exported = std::fs::read_to_string(out).unwrap().to_uppercase();
    assert!(exported.contains(two) && !exported.contains(one), "the new one leaves");
}

/// Whose credentials may provision and nothing else: the device is told to be certified anew all the same, and what is left to
/// do is said.
#[test]
fn an_old_certificate_that_may_not_be_touched_is_named() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    let scenario = scratch.write("s.toml", "deny = [\"iot:UpdateCertificate\"]\n");
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    run(&mut emulate.provision(&lot)).expect_code(0);
    let old = certificates(&scratch, "device = 1");
    let said = retry(&emulate, &scratch, &["--key", "SN000001", "--reissue", "--yes"]);
    expect_text("rework-not-permitted", &scratch, &said, &[(&old[0].to_lowercase(), "THE-OLD-ONE")]);
    assert_eq!(column(&scratch.path("lot.ledger"), "SELECT deactivated_at FROM rework"), [""]);
}

/// Two accounts behind a network that only a proxy leads out of: the ledger is of the first one's endpoint, and the
/// credentials are of the second. Nothing of the ledger is there, which is not the same as deleted.
#[test]
fn another_accounts_credentials_make_nothing_of_certificates_that_are_not_there() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    let [own, other] = ["a1b2c3", "zyxwvu"]
        .map(|prefix| Emulate::start(&["--advertise", &format!("{prefix}-ats.iot.us-east-1.amazonaws.com")]));
    let authorities =
        [&own, &other].map(|account| std::fs::read_to_string(account.text("ca_file")).unwrap()).concat();
    let authorities = scratch.write("ca.pem", authorities);
    let (port, _) = proxy("");
    let far_away = |verb: &str, more: &[&str]| {
        let mut command = fleetmint();
        command.arg(verb).args(more).arg("--ca-file").arg(&authorities);
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"))
            .env("AWS_ACCESS_KEY_ID", own.text("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", own.text("secret_access_key"));
        run(&mut command)
    };
    let plane = |account| format!("https://iot.us-east-1.amazonaws.com:{}", port_of(account));
    let endpoint = format!("a1b2c3-ats.iot.us-east-1.amazonaws.com:{}", port_of(&own));
    let lot = lot.to_str().unwrap();
    let provision = [lot, "--endpoint", &endpoint, "--control-endpoint", &plane(&own), "--template"];
    far_away("provision", &[&provision[..], &[own.text("template"), "--no-check"]].concat()).expect_code(0);

    let ledger = scratch.path("lot.ledger");
    let retry = |account| {
        let words =
            ["--state", "registered", "--key", "SN000001", "--reissue", "--yes", "--control-endpoint"];
        let plane = plane(account);
        let words = [&[ledger.to_str().unwrap()][..], &words, &[&plane]].concat();
        far_away("retry", &words)
    };
    expect_text("rework-in-another-account", &scratch, &retry(&other), &[]);
    assert_eq!(certificates(&scratch, "retired_at IS NOT NULL").len(), 0);
    retry(&own).expect_code(0).expect_out(&["1 old certificate is inactive"]);
}

/// On this machine accounts cannot be told apart: an emulator that has not got the certificate shows nothing.
#[test]
fn a_certificate_that_is_not_there_counts_as_inactive_only_in_the_ledgers_account() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    run(&mut Emulate::start(&[]).provision(&lot)).expect_code(0);
    let old = certificates(&scratch, "device = 1");
    let said = retry(&Emulate::start(&[]), &scratch, &["--key", "SN000001", "--reissue", "--yes"]);
    expect_text("rework-not-there", &scratch, &said, &[(&old[0].to_lowercase(), "THE-OLD-ONE")]);
    assert_eq!(column(&scratch.path("lot.ledger"), "SELECT deactivated_at FROM rework"), [""]);
}

/// The account is away in the middle of it: nothing may be half done.
#[test]
fn an_account_that_does_not_answer_changes_nothing() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    let emulate = Emulate::start(&[]);
    run(&mut emulate.provision(&lot)).expect_code(0);
    let nowhere = ["--control-endpoint", "https://127.0.0.1:1"];
    let args = [&["--key", "SN000001", "--reissue", "--yes"][..], &nowhere].concat();
    expect_text("rework-nobody-there", &scratch, &retry(&emulate, &scratch, &args), &[]);
    assert_eq!(certificates(&scratch, "retired_at IS NOT NULL").len(), 0);
}

/// People copy the file of a ledger that is in use, and find half of it when they need it.
#[test]
fn a_backup_of_a_ledger_in_use_is_whole() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 120);
    let scenario = scratch.write("s.toml", "keys = \"p256\"\n");
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let mut provision = emulate.provision(&lot);
    provision.args(["--create-rate", "40/s"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut provision = provision.spawn().unwrap();
    let ledger = scratch.path("lot.ledger");
    while !ledger.exists() || column(&ledger, "SELECT id FROM run").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut registered = vec![0];
    for nth in 0.. {
        let has_ended = provision.try_wait().unwrap().is_some();
        let copy = scratch.path(&format!("copy-{nth}.ledger"));
        run(fleetmint().arg("backup").arg(&ledger).arg(&copy))
            .expect_code(0)
            .expect_out(&["of 120", "checked"]);
        let sql = "SELECT count(*) FROM device JOIN credential ON credential.device = device.id WHERE state = 'registered'";
        registered.push(column(&copy, sql)[0].parse().unwrap());
        if has_ended {
            break;
        }
    }
    assert!(provision.wait().unwrap().success());
    assert!(registered.is_sorted(), "{registered:?}");
    assert_eq!(registered.last(), Some(&120));

    // A copy is as good as the ledger: it is exported from, and a run takes it up.
    let copy = scratch.path("copy-0.ledger");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    run(fleetmint().arg("status").arg(&copy)).expect_code(0);
    let there = std::fs::read(&copy).unwrap();
    let mut refused = Transcript::default();
    refused.add("there already", &run(fleetmint().arg("backup").arg(&ledger).arg(&copy)));
    assert_eq!(std::fs::read(&copy).unwrap(), there);
    let backup = |from: &Path, to: &Path| run(fleetmint().arg("backup").arg(from).arg(to));
    refused.add("to nowhere", &backup(&ledger, &scratch.path("no/where")));
    refused.add("of nothing", &backup(&scratch.path("absent"), &scratch.path("x")));
    expect_text("backup-refused", &scratch, &refused, &[]);
    assert!(!scratch.path("x").exists());
}
