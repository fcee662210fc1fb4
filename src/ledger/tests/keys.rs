//! Keys made here, sealed, exported and purged.

use std::sync::Arc;

use super::*;
use crate::certificate::SealedKey;

fn sealed(text: &str) -> StoredKey {
    let recipients: Arc<[String]> = [String::from("age1one"), String::from("age1two")].into();
    StoredKey::Sealed(SealedKey { age: format!("sealed {text}"), recipients })
}

fn work(ledger: &Ledger) -> Vec<Work> {
    ledger.view().open_devices(None, 99).unwrap().into_iter().map(|device| device.work).collect()
}

fn request_of(work: &Work) -> &str {
    match work {
        Work::Certify { request } => &request.pem,
        other => panic!("{other:?}"),
    }
}

fn stored_keys(ledger: &Ledger) -> Vec<StoredKey> {
    let mut keys = Vec::new();
    ledger
        .view()
        .for_each_certified::<LedgerError>(&Selection::default(), |device| {
            keys.push(device.private_key);
            Ok(())
        })
        .unwrap();
    keys
}

fn prepared_keys(ledger: &Ledger) -> i64 {
    let connection = &ledger.view().connection;
    connection.query_row("SELECT count(*) FROM prepared_key", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_prepared_key_is_taken_up_again_after_a_crash() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 2);
    let receipts = ledger.commit(vec![prepared(1)], now()).unwrap();
    assert!(matches!(&receipts[..], [Receipt::KeyPrepared(request)] if request.pem == "request 1"));
    drop(ledger);
    let mut ledger = Ledger::resume(&path, &binding(), lot(2), accept, now()).unwrap();
    let open = work(&ledger);
    assert_eq!(request_of(&open[0]), "request 1");
    assert!(matches!(open[1], Work::Create));
    assert_eq!(ledger.view().open_prepared_keys().unwrap(), 1);
    let receipts = ledger.commit(vec![certified(1, 7)], now()).unwrap();
    let [Receipt::Issued(certificate)] = &receipts[..] else { panic!("{receipts:?}") };
    assert_eq!(certificate.private_key, plain("own key 1"), "the certificate has the key that it is for");
    assert!(!format!("{receipts:?}").contains("own key"));
    ledger.commit(vec![registered(1)], now()).unwrap();
    assert_eq!(stored_keys(&ledger), [plain("own key 1")]);
    assert_eq!((ledger.view().open_prepared_keys().unwrap(), prepared_keys(&ledger)), (0, 0));
}

#[test]
fn a_device_with_a_key_of_its_own_gets_no_other() {
    let mut ledger = in_memory(2);
    ledger.commit(vec![prepared(1)], now()).unwrap();
    for change in [prepared(1), issued(1), certified(2, 1)] {
        let problem = ledger.commit(vec![change], now()).unwrap_err().problem;
        assert!(matches!(problem, Problem::IllegalTransition { .. }), "{problem}");
    }
    // Its certificate lapses, the device is left open for a while, and is certified again: always with the same key.
    for number in 1..=3 {
        let receipts = ledger
            .commit(vec![certified(1, 10 + number), lapsed(1), left(1, Registration::NotSent)], now())
            .unwrap();
        assert!(matches!(&receipts[1], Receipt::KeyPrepared(request) if request.pem == "request 1"));
        assert_eq!(request_of(&work(&ledger)[0]), "request 1");
    }
    let receipts = ledger.commit(vec![issued(2), lapsed(2)], now()).unwrap();
    assert!(matches!(receipts[1], Receipt::Done), "the service made that key");
}

#[test]
fn a_rejected_device_keeps_its_key() {
    let mut ledger = in_memory(1);
    ledger.commit(vec![prepared(1), rejected(1)], now()).unwrap();
    assert_eq!(prepared_keys(&ledger), 1);
    assert_eq!(ledger.view().open_prepared_keys().unwrap(), 0);
}

#[test]
fn sealed_keys_stay_sealed_and_say_to_whom() {
    let mut ledger = in_memory(3);
    let own =
        PreparedKey { private_key: sealed("2"), request: SigningRequest { pem: String::from("request") } };
    ledger
        .commit(
            vec![
                Change::Issued { device: DeviceId(1), certificate: certificate(1).map_key(|_| sealed("1")) },
                Change::KeyPrepared { device: DeviceId(2), key: own },
                certified(2, 2),
                issued(3),
                registered(1),
                registered(2),
                registered(3),
            ],
            now(),
        )
        .unwrap();
    assert_eq!(stored_keys(&ledger), [sealed("1"), sealed("2"), plain("key 3")]);
    let lists: i64 =
        ledger.view().connection.query_row("SELECT count(*) FROM sealing", [], |row| row.get(0)).unwrap();
    assert_eq!(lists, 1, "recipients are written down once");
    let connection = &ledger.view().connection;
    let mut shown = connection.prepare("SELECT private_key FROM devices ORDER BY id").unwrap();
    let shown: Vec<String> = shown.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(shown, ["sealed", "sealed", "plain"]);
}

#[test]
fn only_exported_keys_are_purged_and_no_byte_of_them_stays() {
    let (directory, path) = scratch();
    let mark = |device: i64| format!("{device:03}-hunter2-");
    let own = |device: i64| {
        let body = mark(device).repeat(3 + usize::try_from(device * 37 % 50).unwrap());
        let request = SigningRequest { pem: format!("request {device}") };
        let key = PreparedKey { private_key: plain(&body), request };
        Change::KeyPrepared { device: DeviceId(device), key }
    };
    let mut ledger = import(&path, 80);
    // The certificate was given up once, so that there are two copies.
    let shuffled = |step: i64| (1..=60).map(move |device| device * step % 61);
    let given_up = shuffled(7).flat_map(|device| [own(device), certified(device, device), lapsed(device)]);
    ledger.commit(given_up.collect(), now()).unwrap();
    let done = shuffled(11).filter(|device| *device <= 55);
    let done = done.flat_map(|device| [certified(device, 100 + device), registered(device)]);
    ledger.commit(done.chain([issued(62)]).collect(), now()).unwrap();
    let exported: Vec<DeviceId> = (1..=50).map(DeviceId).collect();
    ledger.record_export("/floor/7", &exported, now()).unwrap();
    let before = ledger.view().key_counts().unwrap();
    assert_eq!(before, KeyCounts { exported: 50, not_exported: 11, purged: 0 });
    let after = ledger.purge_exported_keys(now()).unwrap();
    assert_eq!(after, KeyCounts { exported: 0, not_exported: 11, purged: 50 });
    let files: Vec<_> = names(directory.path()).iter().map(|name| directory.path().join(name)).collect();
    let texts: Vec<_> = files.iter().map(|file| text_of(file)).collect();
    let found = |device: i64| texts.iter().any(|text| text.contains(&mark(device)));
    let stayed: Vec<_> = exported.iter().filter(|DeviceId(device)| found(*device)).collect();
    assert!(stayed.is_empty(), "traces of {stayed:?}");
    assert!((51..=60).all(found), "what was not exported is kept, registered or not");
    drop(ledger);
    let mut ledger = Ledger::resume(&path, &binding(), lot(80), accept, now()).unwrap();
    ledger.view().check_integrity().unwrap();
    assert_eq!(stored_keys(&ledger)[0], StoredKey::Purged { at: String::from("2023-11-14T22:13:20.123Z") });
    assert_eq!(ledger.purge_exported_keys(now()).unwrap(), after, "again changes nothing");
    ledger.commit(vec![registered(62)], now()).expect("the ledger stays usable");
}

/// A file's bytes as text, with invalid UTF-8 replaced.
fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()
}

/// Shows why blanking is not enough, even with `secure_delete`: rows that grow move, and leave bytes in the gaps of
/// their pages.
#[test]
fn rebuilding_removes_what_rows_left_in_the_gaps_of_pages() {
    let (_directory, path) = scratch();
    let connection = Connection::open(&path).unwrap();
    schema::set_up_writing(&connection).unwrap();
    connection
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, filler TEXT, secret TEXT); BEGIN")
        .unwrap();
    let mark = |id: i64| format!("K{id:05}-");
    let filler = |id: i64, longest: i64| "x".repeat(usize::try_from(id * 7919 % longest).unwrap());
    for id in (1..=600).map(|id| id * 101 % 601) {
        let values = params![id, filler(id, 601), mark(id).repeat(40)];
        connection.execute("INSERT INTO t VALUES (?1, ?2, ?3)", values).unwrap();
    }
    for id in (1..=600).map(|id| id * 211 % 601) {
        connection.execute("UPDATE t SET filler = ?2 WHERE id = ?1", params![id, filler(id, 997)]).unwrap();
    }
    connection.execute_batch("UPDATE t SET secret = ''; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let left = || {
        let text = text_of(&path);
        (1..=600).filter(|id| text.contains(&mark(*id))).count()
    };
    assert!(left() > 0, "blanking was enough this time: the test has lost its point");
    super::super::key_counts::scrub(&connection).unwrap();
    assert_eq!(left(), 0);
}

#[test]
fn a_reader_in_the_way_is_named() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 1);
    ledger.commit(vec![issued(1), registered(1)], now()).unwrap();
    ledger.record_export("/floor", &[DeviceId(1)], now()).unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM device").unwrap();
    ledger.view().connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    let problem = ledger.purge_exported_keys(now()).unwrap_err().problem;
    assert!(matches!(problem, Problem::Lingering), "{problem}");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(ledger.purge_exported_keys(now()).unwrap().purged, 1);
}

#[test]
fn an_export_of_a_device_without_a_certificate_is_a_defect() {
    let mut ledger = in_memory(1);
    assert!(ledger.record_export("/floor", &[DeviceId(1)], now()).is_err());
}
