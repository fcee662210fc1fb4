//! A ledger that somebody else holds.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::account::Service;
use super::evidence::{every_certificate_is_explained, every_device_once};
use super::{devices, said, spawn, wait_for};
use crate::harness::{Scratch, run, signal};

const SCENARIO: &str = "keys = \"p256\"\ntoken_reuse = \"accept\"\n";

#[test]
fn a_second_run_is_refused_at_once_and_names_the_first() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", 200), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let first = spawn(service.provision(&lot).args(["--create-rate", "20/s"]));
    wait_for(|| devices(&ledger, "registered") > 0);
    let before = service.connections();
    let refused_at = Instant::now();
    run(&mut service.provision(&lot)).expect_code(73).expect_err(&[
        "in use",
        &format!("pid {}", first.id()),
        "lot.ledger",
    ]);
    // It waits for nobody: SQLite's own patience is five seconds.
    assert!(refused_at.elapsed() < Duration::from_secs(4), "{:?}", refused_at.elapsed());
    assert_eq!(service.connections(), before, "the second one sent nothing");
    signal(&first, "TERM");
    said(first).expect_code(5);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), 200);
    service.stop();
}

#[test]
fn a_foreign_writer_is_met_before_anything_is_sent() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", 40), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let first = spawn(service.provision(&lot).args(["--create-rate", "20/s"]));
    wait_for(|| devices(&ledger, "registered") > 0);
    signal(&first, "KILL");
    said(first);
    wait_for(|| service.connected() == 0);
    let issued = service.account().counters.certificates_created;
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let shell = Connection::open(&ledger).unwrap();
        shell.execute_batch(begin).unwrap();
        run(&mut service.provision(&lot))
            .expect_code(73)
            .expect_err(&["another program is writing it", "lot.ledger"]);
        shell.execute_batch("ROLLBACK").unwrap();
    }
    assert_eq!(service.account().counters.certificates_created, issued);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), 40);
    service.stop();
}

#[test]
fn a_foreign_writer_in_the_middle_stops_the_run_and_its_sending() {
    const DEVICES: usize = 60;
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    // Most are issued at once, and then wait for their turn to be registered.
    let child = spawn(service.provision(&lot).args(["--connections", "60", "--register-rate", "2/s"]));
    wait_for(|| devices(&ledger, "issued") > 40);
    let shell = Connection::open(&ledger).unwrap();
    shell.busy_timeout(Duration::from_secs(5)).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    said(child).expect_code(73).expect_err(&["another program is writing it", "lot.ledger", "resume"]);
    shell.execute_batch("ROLLBACK").unwrap();
    // The commit that failed waited five seconds, in which ten registrations were allowed. None comes after it.
    let account = service.account();
    let ahead = account.things.len() - devices(&ledger, "registered");
    assert!(ahead <= 20, "{ahead} devices were registered that nobody could write down");
    every_certificate_is_explained(&ledger, &account);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

#[test]
fn a_foreign_writer_that_is_quick_is_waited_for() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", 60), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let child = spawn(service.provision(&lot).args(["--create-rate", "40/s"]));
    wait_for(|| devices(&ledger, "registered") > 0);
    let shell = Connection::open(&ledger).unwrap();
    shell.busy_timeout(Duration::from_secs(5)).unwrap();
    shell.execute_batch("BEGIN EXCLUSIVE").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    shell.execute_batch("ROLLBACK").unwrap();
    said(child).expect_code(0);
    every_device_once(&ledger, &service.account(), 60);
    service.stop();
}
