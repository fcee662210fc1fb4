//! Runs that are asked to stop, and runs whose reader goes away.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::account::Service;
use super::evidence::{every_certificate_is_explained, every_device_once, states};
use super::{beside, devices, said, spawn, wait_for};
use crate::harness::{Scratch, run, signal};

/// Slow enough to be met in the middle of an exchange.
const SCENARIO: &str =
    "keys = \"p256\"\n[latency]\ncreate_keys_and_certificate = \"100ms\"\nregister_thing = \"300ms\"\n";
const DEVICES: usize = 60;

#[test]
fn the_first_signal_finishes_what_is_in_flight() {
    for name in ["INT", "TERM", "HUP"] {
        let scratch = Scratch::new();
        let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
        let service = Service::start(&scratch, SCENARIO);
        let child = in_flight(&service, &lot, &ledger);
        signal(&child, name);
        said(child).expect_code(5).expect_err(&["finishing the devices in flight", "resume"]);
        // Before the test itself opens the ledger.
        assert!(!beside(&ledger, ".lock").exists() && !beside(&ledger, "-wal").exists(), "{name}");
        // Nothing in flight: every certificate of the account is registered, and the ledger knows.
        let account = service.account();
        assert_eq!(account.certificates.len(), account.things.len(), "{name}");
        assert_eq!(devices(&ledger, "registered"), account.things.len(), "{name}");
        assert_eq!(devices(&ledger, "issued"), 0, "{name}");
        run(&mut service.provision(&lot)).expect_code(0);
        every_device_once(&ledger, &service.account(), DEVICES);
        service.stop();
    }
}

#[test]
fn the_second_signal_stops_at_once() {
    for (first, second) in [("INT", "INT"), ("TERM", "TERM"), ("HUP", "TERM")] {
        let scratch = Scratch::new();
        let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
        // An answer that takes longer than the test waits: only an abort ends this.
        let service = Service::start(
            &scratch,
            "keys = \"p256\"\ntoken_reuse = \"accept\"\n[latency]\nregister_thing = \"5m\"\n",
        );
        let mut child = spawn(service.provision(&lot).args(["--timeout", "10m"]));
        wait_for(|| devices(&ledger, "issued") == 10);
        signal(&child, first);
        let mut words = BufReader::new(child.stderr.take().unwrap());
        read_until(&mut words, "once more to stop at once");
        signal(&child, second);
        wait_for(|| child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(5), "{first}, {second}");
        assert_eq!(states(&ledger)["issued"], 10);
        every_certificate_is_explained(&ledger, &service.account());
        service.stop();
        let service = Service::start(&scratch, "keys = \"p256\"\n");
        // The tokens are of the first account; the second one's control plane tells that nothing was registered.
        run(service.provision(&lot).args(["--connections", "3"])).expect_code(0);
        every_device_once(&ledger, &service.account(), DEVICES);
        service.stop();
    }
}

#[test]
fn a_hangup_is_never_the_second_signal() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let mut child = in_flight(&service, &lot, &ledger);
    let mut words = BufReader::new(child.stderr.take().unwrap());
    signal(&child, "HUP");
    read_until(&mut words, "once more to stop at once");
    signal(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let mut rest = String::new();
    words.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("stopping at once"), "{rest}");
    assert_eq!(devices(&ledger, "issued"), 0, "it drained");
    service.stop();
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", DEVICES);
    let ledger = scratch.path("lot.ledger");
    let service = Service::start(&scratch, SCENARIO);
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fleetmint")]);
    let child = spawn(&mut service.aim(nohup, &lot));
    wait_for(|| devices(&ledger, "registered") > 0);
    signal(&child, "HUP");
    said(child).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

#[test]
fn readers_that_go_away_do_not_end_a_run() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let mut child = spawn(service.provision(&lot).env("FLEETMINT_LOG", "trace"));
    // As `2>&1 | head -1` does: both streams are closed after a line.
    drop(child.stdout.take());
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    every_device_once(&ledger, &service.account(), DEVICES);
    // And nothing to do, said to nobody.
    let mut child = service.provision(&lot).stdout(closed()).stderr(closed()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    service.stop();
}

#[test]
fn a_run_that_nobody_listens_to_still_drains() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let mut child = service.provision(&lot).stdout(closed()).stderr(closed()).spawn().unwrap();
    wait_for(|| devices(&ledger, "registered") > 0);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(devices(&ledger, "issued"), 0);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

/// A run with devices in the middle of their registration.
fn in_flight(service: &Service, lot: &Path, ledger: &Path) -> Child {
    let child = spawn(&mut service.provision(lot));
    wait_for(|| devices(ledger, "issued") > 0);
    child
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

fn read_until(reader: &mut impl BufRead, words: &str) {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "no {words:?} was said");
    }
}
