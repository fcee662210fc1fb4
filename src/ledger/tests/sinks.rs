//! The keys sink, and ledgers made anew from one.

use super::mending::states;
use super::*;
use crate::certificate::SealedKey;
use crate::event::DeviceState;

fn sealed_binding() -> Binding {
    let content = Content {
        key_source: String::from("aws"),
        recipients: [String::from("age1x")].into(),
        ..Content::default()
    };
    Binding { content: Some(content), ..binding() }
}

fn sealed(device: i64, number: i64) -> Change {
    let recipients = vec![String::from("age1x")].into();
    let key = StoredKey::Sealed(SealedKey { age: format!("sealed key {number}"), recipients });
    Change::Issued { device: DeviceId(device), certificate: certificate(number).map_key(|_| key) }
}

/// A ledger with six devices and a sink beside it: 1 and 2 are registered, 3 is issued.
fn ledger_with_sink(directory: &Path, path: &Path) -> Ledger {
    let mut ledger = Ledger::import(path, &sealed_binding(), lot(6), accept, now()).unwrap();
    ledger.keep_in_sink(directory, now()).unwrap();
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.commit(vec![sealed(1, 1), sealed(2, 2)], now()).unwrap();
    ledger.commit(vec![registered(1), registered(2), sealed(3, 3)], now()).unwrap();
    ledger
}

fn restore(path: &Path, directory: &Path, rows: u64) -> Result<(Restored, Ledger), Problem> {
    let lost = LostLedger::read(path, directory).map_err(|error| error.problem)?;
    let restored = Ledger::restore(path, &lost, lot(rows), accept, now()).map_err(|error| match error {
        ImportError::Ledger(error) => error.problem,
        ImportError::Rows(errors) => panic!("{errors:?}"),
    })?;
    Ok((restored, Ledger::resume(path, &sealed_binding(), lot(rows), accept, now()).unwrap()))
}

fn lose(path: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

fn credentials(ledger: &Ledger) -> Vec<(i64, String, String, bool)> {
    let sql = "SELECT device, certificate_id, private_key, retired_at IS NULL FROM certificate ORDER BY certificate_id";
    let mut statement = ledger.view().connection.prepare(sql).unwrap();
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_lost_ledger_comes_back_with_every_certificate() {
    let (directory, path) = scratch();
    let ledger = ledger_with_sink(directory.path(), &path);
    let (before, had) = (states(&ledger), credentials(&ledger));
    drop(ledger);
    lose(&path);
    let anew =
        problem(Ledger::import(&path, &sealed_binding(), lot(6), accept, now()).and_then(|mut ledger| {
            ledger.keep_in_sink(directory.path(), now())?;
            Ok(ledger)
        }));
    assert!(matches!(anew, Problem::SinkTaken { .. }), "a new ledger does not take the sink over: {anew}");
    lose(&path);
    let (restored, mut ledger) = restore(&path, directory.path(), 6).unwrap();
    assert_eq!(restored, Restored { registered: 2, unsettled: 1, certificates: 3, left_out: 0 });
    assert_eq!((states(&ledger), credentials(&ledger)), (before, had));
    ledger.view().check_integrity().unwrap();
    let configuration: String = ledger
        .view()
        .connection
        .query_row("SELECT device_configuration FROM device WHERE id = 1", [], |row| row.get(0))
        .unwrap();
    assert_eq!(configuration, r#"{"url":"mqtt://x"}"#);
    let open = ledger.view().open_devices(None, 9).unwrap();
    let Work::Register { issued_at, registration, .. } = &open[0].work else { panic!("{open:?}") };
    assert_eq!((*issued_at, *registration), (UNIX_EPOCH, Registration::MaySent), "to be settled, not sent");
    // It goes on with the sink without being told, and is restored again.
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.commit(vec![Change::TokenLapsed { device: DeviceId(3) }, sealed(3, 30)], now()).unwrap();
    drop(ledger);
    lose(&path);
    let (restored, ledger) = restore(&path, directory.path(), 6).unwrap();
    assert_eq!(restored, Restored { registered: 2, unsettled: 1, certificates: 4, left_out: 0 });
    assert!(!credentials(&ledger)[2].3 && credentials(&ledger)[3].3, "the newer one is in use");
}

#[test]
fn a_line_that_was_cut_off_was_never_in_the_ledger() {
    let (directory, path) = scratch();
    drop(ledger_with_sink(directory.path(), &path));
    let sink = directory.path().join("lot.ledger.sink");
    let whole = std::fs::read_to_string(&sink).unwrap();
    std::fs::write(&sink, format!("{whole}{}", &whole[..whole.len() / 3])).unwrap();
    let lines = whole.lines().count() as u64;
    // A run goes on behind it, and whoever reads it is told.
    let mut ledger = Ledger::resume(&path, &sealed_binding(), lot(6), accept, now()).unwrap();
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.commit(vec![sealed(4, 4)], now()).unwrap();
    drop(ledger);
    lose(&path);
    assert_eq!(LostLedger::read(&path, directory.path()).unwrap().cut_off, 1);
    let (restored, ledger) = restore(&path, directory.path(), 6).unwrap();
    assert_eq!(restored.certificates, 4);
    drop(ledger);
    // Anything else is damage, and named by its line.
    let damaged = whole.replacen("sealed key 2", "sealed key 7", 1);
    assert_ne!(damaged, whole);
    std::fs::write(&sink, damaged).unwrap();
    lose(&path);
    let refused = restore(&path, directory.path(), 6).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Problem::SinkDamaged { line, .. } if line < lines), "{refused}");
    assert!(!path.exists());
}

#[test]
fn nothing_is_committed_that_the_sink_does_not_have() {
    let (directory, path) = scratch();
    let mut ledger = ledger_with_sink(directory.path(), &path);
    // Somebody restored it elsewhere: this one must not register anything more.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("lot.ledger");
    let lost = LostLedger::read(&other, directory.path()).unwrap();
    Ledger::restore(&other, &lost, lot(6), accept, now()).unwrap();
    let refused = ledger.commit(vec![sealed(4, 4)], now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkTaken { .. }), "{refused}");
    let refused = ledger.commit(vec![sealed(4, 5)], now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::Poisoned), "{refused}");
    drop(ledger);
    let ledger = Ledger::reopen(&path).unwrap();
    assert_eq!(states(&ledger)[3].1, DeviceState::Pending, "device 4 has nothing");
    drop(ledger);
    let mut again = Ledger::reopen(&path).unwrap();
    let refused = again.begin_run(&serde_json::json!({}), now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkTaken { .. }), "{refused}");
}

#[test]
fn a_ledger_takes_a_sink_late_or_another_one() {
    let (directory, path) = scratch();
    let mut ledger = Ledger::import(&path, &sealed_binding(), lot(6), accept, now()).unwrap();
    ledger.commit(vec![sealed(1, 1), registered(1), sealed(2, 2)], now()).unwrap();
    ledger.keep_in_sink(directory.path(), now()).unwrap();
    drop(ledger);
    let other = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::reopen(&path).unwrap();
    ledger.keep_in_sink(other.path(), now()).unwrap();
    ledger.commit(vec![sealed(3, 3)], now()).unwrap();
    drop(ledger);
    lose(&path);
    let (restored, _) = restore(&path, other.path(), 6).unwrap();
    assert_eq!(restored, Restored { registered: 1, unsettled: 2, certificates: 3, left_out: 0 });
}

#[test]
fn an_older_copy_of_a_ledger_is_not_taken_for_it() {
    let (directory, path) = scratch();
    let mut ledger = ledger_with_sink(directory.path(), &path);
    let copy = directory.path().join("copy");
    ledger.view().backup(&copy).unwrap();
    ledger.commit(vec![sealed(4, 4)], now()).unwrap();
    ledger.commit(vec![registered(4)], now()).unwrap();
    drop(ledger);
    lose(&path);
    std::fs::rename(copy, &path).unwrap();
    let mut copy = Ledger::reopen(&path).unwrap();
    let refused = copy.commit(vec![sealed(4, 40)], now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkAhead { .. }), "{refused}");
    let refused = copy.begin_run(&serde_json::json!({}), now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkAhead { .. }), "{refused}");
    drop(copy);
    lose(&path);
    let (restored, mut ledger) = restore(&path, directory.path(), 6).unwrap();
    assert_eq!(restored, Restored { registered: 3, unsettled: 1, certificates: 4, left_out: 0 });
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.commit(vec![sealed(5, 5)], now()).unwrap();
}

#[test]
fn what_happened_under_another_sink_is_in_the_first_one_too() {
    let (directory, path) = scratch();
    let mut ledger = ledger_with_sink(directory.path(), &path);
    let other = tempfile::tempdir().unwrap();
    ledger.keep_in_sink(other.path(), now()).unwrap();
    ledger.commit(vec![registered(3)], now()).unwrap();
    ledger.keep_in_sink(directory.path(), now()).unwrap();
    drop(ledger);
    lose(&path);
    let (restored, _) = restore(&path, directory.path(), 6).unwrap();
    assert_eq!(restored, Restored { registered: 3, unsettled: 0, certificates: 3, left_out: 0 });
}

#[test]
fn a_sink_takes_no_plain_key_and_no_other_lot() {
    let (directory, path) = scratch();
    let mut ledger = import(&path, 3);
    let refused = ledger.keep_in_sink(directory.path(), now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkPlainKey), "{refused}");
    assert!(!directory.path().join("lot.ledger.sink").exists());
    drop(ledger);
    lose(&path);
    drop(ledger_with_sink(directory.path(), &path));
    lose(&path);
    // Device 3 is only issued, and may be gone from the lot; device 2 is registered.
    let refused = restore(&path, directory.path(), 1).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Problem::SinkOtherLot { key, .. } if key == "SN-0000002"), "{refused}");
    let (restored, ledger) = restore(&path, directory.path(), 2).unwrap();
    assert_eq!(restored, Restored { registered: 2, unsettled: 0, certificates: 2, left_out: 1 });
    drop(ledger);
    let missing = LostLedger::read(&directory.path().join("x.ledger"), directory.path()).unwrap_err();
    assert!(matches!(missing.problem, Problem::SinkMissing { .. }), "{missing}");
}

#[test]
fn a_sink_that_has_vanished_is_not_begun_again_where_nothing_is_mounted() {
    let (directory, path) = scratch();
    drop(ledger_with_sink(directory.path(), &path));
    for name in ["lot.ledger.sink", "lot.ledger.claim"] {
        std::fs::rename(directory.path().join(name), directory.path().join(format!("{name}.away"))).unwrap();
    }
    let mut ledger = Ledger::reopen(&path).unwrap();
    let refused = ledger.begin_run(&serde_json::json!({}), now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::SinkFailed { .. }), "{refused}");
    assert!(!directory.path().join("lot.ledger.sink").exists(), "nothing is made in its place");
    drop(ledger);
    // Another place for it may be named.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::reopen(&path).unwrap();
    ledger.keep_in_sink(elsewhere.path(), now()).unwrap();
    assert!(elsewhere.path().join("lot.ledger.sink").exists());
}
