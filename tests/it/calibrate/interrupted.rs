//! A calibration that is killed leaves nothing that another run, or `cleanup`, does not remove.

use std::process::Stdio;
use std::time::Duration;

use super::{command, with_account};
use crate::harness::{Emulate, Scratch, column, fleetmint, run, signal};

/// How many things there are, and certificates that do not lapse.
fn holdings(emulate: &Emulate) -> (u64, u64) {
    let body = fetch(emulate.text("admin"));
    (body["things"].as_u64().unwrap(), body["certificates"]["active"].as_u64().unwrap())
}

fn fetch(admin: &str) -> serde_json::Value {
    use std::io::{Read, Write};
    let host = admin.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /account HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    // The connection is kept: the body is whole once it can be read.
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some(body) = text.split("\r\n\r\n").nth(1).and_then(|body| serde_json::from_str(body).ok()) {
            return body;
        }
        assert!(count > 0, "{text}");
    }
}

#[test]
fn a_killed_run_is_cleaned_up_by_cleanup_and_by_the_next_run() {
    let scratch = Scratch::new();
    let scenario = scratch.write("s.toml", "keys = \"p256\"\n[latency]\nregister_thing = \"100ms\"\n");
    let emulate = Emulate::start(&["--admin", "127.0.0.1:0", "--scenario", scenario.to_str().unwrap()]);
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("o.toml"));
    let start = || {
        let mut command = command(&ledger, &out);
        with_account(&mut command, &emulate).args(["--template", "TEMP_DEVICE"]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    // Killed as soon as something was made; then later and later.
    for (things, how) in [(1, "cleanup"), (2, "cleanup"), (3, "calibrate")] {
        let mut child = start();
        while holdings(&emulate).0 < things && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(&child, "KILL");
        child.wait().unwrap();
        assert!(holdings(&emulate).0 >= things, "killed in the middle");
        if how == "cleanup" {
            let mut cleanup = fleetmint();
            cleanup.arg("cleanup").arg(&ledger).args(["--orphans", "--yes"]);
            run(with_account(&mut cleanup, &emulate)).expect_code(0);
        } else {
            let mut again = command(&ledger, &out);
            run(with_account(&mut again, &emulate).args(["--template", "TEMP_DEVICE"])).expect_code(0);
        }
        assert_eq!(holdings(&emulate), (0, 0), "after {how}");
    }
    let left = column(&ledger, "SELECT count(*) FROM device WHERE state IN ('registered', 'issued')");
    assert_eq!(left, ["0"]);
}

/// What it made is cleaned up in the account in which it was made, and by the template that it was made with.
#[test]
fn a_ledger_of_another_account_or_template_is_refused_before_anything_is_removed() {
    let scratch = Scratch::new();
    let emulate = Emulate::start(&[]);
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("o.toml"));
    let mut child = command(&ledger, &out).arg("--emulator").stdout(Stdio::null()).spawn().unwrap();
    let certified = "SELECT count(*) FROM credential";
    while (!ledger.exists() || column(&ledger, certified) == ["0"]) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    let mut elsewhere = command(&ledger, &out);
    with_account(&mut elsewhere, &emulate).args(["--template", "TEMP_DEVICE"]);
    let said = run(&mut elsewhere).expect_code(64).expect_err(&["--endpoint", "was made for"]);
    assert!(!said.err.contains("cleaning up"), "{}", said.err);
    let body = scratch.write("t.json", include_str!("../../../fixtures/templates/temp-device.json"));
    let mut other = command(&ledger, &out);
    other.args(["--emulator", "--template", "OTHER", "--template-file"]).arg(body);
    let said = run(&mut other).expect_code(64).expect_err(&["--template", "was made for TEMP_DEVICE"]);
    assert!(!said.err.contains("cleaning up"), "{}", said.err);
    assert_eq!(column(&ledger, "SELECT count(*) FROM finding"), ["0"]);
}

#[test]
fn ctrl_c_removes_what_was_made() {
    let scratch = Scratch::new();
    let emulate = Emulate::start(&["--admin", "127.0.0.1:0"]);
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("o.toml"));
    let mut command = command(&ledger, &out);
    with_account(&mut command, &emulate).args(["--template", "TEMP_DEVICE"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    while holdings(&emulate).0 < 1 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(holdings(&emulate), (0, 0));
}

/// At any instant of a calibration, its own removal included; where a missing parameter makes a thing too.
#[test]
#[ignore = "takes minutes: scripts/calibration/check"]
fn a_run_that_is_killed_anywhere_leaves_nothing() {
    let scratch = Scratch::new();
    let scenario = "keys = \"p256\"\nmissing_parameter = \"empty\"\ntoken_reuse = \"accept\"\n";
    let scenario = scratch.write("s.toml", scenario);
    let emulate = Emulate::start(&["--admin", "127.0.0.1:0", "--scenario", scenario.to_str().unwrap()]);
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("o.toml"));
    let mut had_things = 0;
    for attempt in 1..=12 {
        let mut command = command(&ledger, &out);
        with_account(&mut command, &emulate).args(["--template", "TEMP_DEVICE"]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1_300 * attempt));
        if child.try_wait().unwrap().is_none() {
            signal(&child, "KILL");
            child.wait().unwrap();
        }
        had_things += u64::from(holdings(&emulate).0 > 0);
        // Every other one is left for the next run to remove.
        if attempt % 2 == 0 {
            let mut cleanup = fleetmint();
            cleanup.arg("cleanup").arg(&ledger).args(["--orphans", "--yes"]);
            run(with_account(&mut cleanup, &emulate)).expect_code(0);
            assert_eq!(holdings(&emulate), (0, 0), "attempt {attempt}");
        }
    }
    assert!(had_things > 0, "no run was killed while it had things");
}
