//! Ledgers of older schemas: read through a copy, rewritten when they are reopened, refused when they are forged.

use super::*;

/// A copy of the fixture of `version`, under a ledger's name.
fn old_ledger(version: i64) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = scratch();
    let fixture = format!("{}/fixtures/ledgers/schema-{version}.db", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(fixture, &path).unwrap();
    (directory, path)
}

/// A ledger's visible content: all texts of the columns that every version has.
fn seen(connection: &Connection) -> Vec<String> {
    let queries = [
        "SELECT json_array(certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, run, retired_at)
         FROM certificate ORDER BY device",
        "SELECT json_array(id, key, line, parameter_values, state, registration, thing_name, device_configuration,
                           failure_stage, failure_cause, failure, updated_at, run) FROM device ORDER BY id",
        "SELECT json_array(id, key, line, state, thing_name, certificate_id, issued_at, registration, failure_stage,
                           failure_cause, failure, updated_at, run) FROM devices ORDER BY id",
        "SELECT json_array(source, template, region, account, devices, pending, issued, registered, rejected, unknown,
                           updated_at) FROM lot_status",
        "SELECT json_array(id, started_at, ended_at, pid, settings, outcome, summary) FROM run ORDER BY id",
        "SELECT json_array(id, commits) FROM progress",
    ];
    queries.into_iter().flat_map(|sql| texts(connection, sql)).collect()
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn every_older_schema_is_brought_up_to_date_and_people_see_the_same() {
    for version in 1..schema::NEWEST {
        let (directory, path) = old_ledger(version);
        let before = seen(&Connection::open(&path).unwrap());
        let mut ledger = Ledger::reopen(&path).unwrap();
        assert_eq!(seen(&ledger.view().connection), before, "schema {version}");
        ledger.view().check_integrity().unwrap();
        assert_eq!(schema::version(&ledger.view().connection).unwrap(), schema::NEWEST);
        let kinds = "SELECT DISTINCT typeof(certificate) || typeof(private_key) || typeof(certificate_id) FROM credential";
        assert_eq!(texts(&ledger.view().connection, kinds), ["blobblobblob"], "all of it is kept short");
        let open = ledger.view().open_devices(None, 9).unwrap();
        assert!(matches!(&open[..], [OpenDevice { id: DeviceId(6), work: Work::Register { .. }, .. }]));
        ledger.commit(vec![registered(6)], now()).unwrap();
        assert_eq!(ledger.view().counts().unwrap().registered, 6);
        ledger.close().unwrap();
        assert_eq!(names(directory.path()), ["lot.ledger"]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn exports_and_purges_of_older_versions_are_still_known() {
    for version in 2..schema::NEWEST {
        let (_directory, path) = old_ledger(version);
        let shown = "SELECT json_array(private_key, exported_at, exported_to) FROM devices ORDER BY id";
        let before = texts(&Connection::open(&path).unwrap(), shown);
        let mut ledger = Ledger::reopen(&path).unwrap();
        assert_eq!(texts(&ledger.view().connection, shown), before);
        assert_eq!(
            ledger.view().key_counts().unwrap(),
            KeyCounts { exported: 5, not_exported: 1, purged: 0 }
        );
        assert_eq!(ledger.purge_exported_keys(now()).unwrap().purged, 5);
    }
}

#[test]
fn looking_at_an_older_ledger_leaves_it_as_it_is() {
    for version in 1..schema::NEWEST {
        let (directory, path) = old_ledger(version);
        let before = std::fs::read(&path).unwrap();
        let view = Ledger::open_read_only(&path).unwrap();
        assert_eq!(view.counts().unwrap().registered, 5);
        let mut devices = 0;
        let count = |_: CertifiedDevice| -> Result<(), LedgerError> {
            devices += 1;
            Ok(())
        };
        view.for_each_certified(&Selection::default(), count).unwrap();
        assert_eq!(devices, 5);
        drop(view);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(names(directory.path()), ["lot.ledger"], "and nothing beside it");
    }
}

#[test]
fn a_forged_ledger_without_digests_is_refused() {
    for (version, forgery) in [
        (
            1,
            "UPDATE certificate SET private_key = (SELECT private_key FROM certificate WHERE device = 2) WHERE device = 1",
        ),
        (
            2,
            "UPDATE certificate SET certificate_pem = (SELECT certificate_pem FROM certificate WHERE device = 2) WHERE device = 1",
        ),
        (2, "UPDATE certificate SET certificate_id = printf('%064x', 7) WHERE device = 1"),
        (1, "UPDATE certificate SET private_key = 'a key' WHERE device = 6"),
    ] {
        let (_directory, path) = old_ledger(version);
        Connection::open(&path).unwrap().execute_batch(forgery).unwrap();
        let before = std::fs::read(&path).unwrap();
        for refused in [Ledger::reopen(&path).map(drop), Ledger::open_read_only(&path).map(drop)] {
            let refused = refused.unwrap_err().problem;
            assert!(matches!(refused, Problem::Damaged { .. }), "{forgery}: {refused}");
            assert!(refused.to_string().contains("not what an older version wrote"), "{refused}");
        }
        assert_eq!(&std::fs::read(&path).unwrap()[100..], &before[100..], "its content is left as it is");
    }
}

#[test]
fn an_upgrade_that_was_killed_is_begun_anew() {
    let (directory, path) = old_ledger(4);
    for suffix in ["", "-journal", "-wal"] {
        std::fs::write(directory.path().join(format!(".lot.ledger.building{suffix}")), "half a ledger")
            .unwrap();
    }
    drop(Ledger::reopen(&path).unwrap());
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn an_older_ledger_with_a_log_loses_nothing_of_it() {
    let (directory, path) = old_ledger(4);
    let writer = Connection::open(&path).unwrap();
    crate::ledger::row_digest::add_row_digest(&writer).unwrap();
    let _: String = writer.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).unwrap();
    writer.execute_batch("UPDATE device SET failure = 'in the log' WHERE id = 6").unwrap();
    let failure = "SELECT failure FROM device WHERE id = 6";
    assert_eq!(texts(&Ledger::open_read_only(&path).unwrap().connection, failure), ["in the log"]);
    // As a crash leaves it: the log stays.
    for suffix in ["", "-wal"] {
        let copy = directory.path().join(format!("crashed.ledger{suffix}"));
        std::fs::copy(directory.path().join(format!("lot.ledger{suffix}")), copy).unwrap();
    }
    let ledger = Ledger::reopen(&directory.path().join("crashed.ledger")).unwrap();
    assert_eq!(texts(&ledger.view().connection, failure), ["in the log"]);
}
