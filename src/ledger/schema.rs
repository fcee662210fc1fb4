//! The tables, how they came to be, and how SQLite is told to treat them.
//!
//! Owns all of the schema and every pragma. A ledger is opened by people with `sqlite3` too, hence the views.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::error::Problem;
use super::integrity;

/// Marks the file as a fleetmint ledger: "FLMT" in ASCII, in the database header's application id.
pub(super) const APPLICATION_ID: i64 = 0x464c_4d54;

/// The schema's versions, oldest first: each takes a ledger from the one before to its own, counted from 1.
/// What has been released is never edited; a change of the schema is a new entry.
const MIGRATIONS: &[&str] = &[SCHEMA_1, SCHEMA_KEYS, SCHEMA_DIGESTS, SCHEMA_GIVEN_DIGESTS];

/// The first version whose rows have digests.
pub(super) const WITH_DIGESTS: i64 = 3;

/// The newest schema that this version knows.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// `progress.commits` counts the commits after the import; see [`lock`](super::lock) for what it is good for.
///
/// A device's certificate in use is the one row of `certificate` that is its own and not retired. The partial indexes are
/// what two promises rest on: one certificate in use a device, and pages of open devices that cost no more than their length.
const SCHEMA_1: &str = "
CREATE TABLE lot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    columns TEXT NOT NULL CHECK (json_valid(columns)),
    key_column TEXT NOT NULL,
    devices INTEGER NOT NULL CHECK (devices > 0),
    template TEXT NOT NULL,
    region TEXT NOT NULL,
    account TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    pid INTEGER NOT NULL,
    settings TEXT NOT NULL CHECK (json_valid(settings)),
    outcome TEXT,
    summary TEXT CHECK (summary IS NULL OR json_valid(summary))
) STRICT;

CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL
) STRICT;
INSERT INTO progress (id, commits) VALUES (1, 0);

CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    line INTEGER NOT NULL,
    parameter_values TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'issued', 'registered', 'rejected', 'unknown')),
    registration TEXT CHECK (registration IN ('not_sent', 'may_sent')),
    thing_name TEXT UNIQUE,
    device_configuration TEXT,
    failure_stage TEXT,
    failure_cause TEXT,
    failure TEXT,
    updated_at TEXT,
    run INTEGER REFERENCES run (id),
    CHECK ((state = 'issued') = (registration IS NOT NULL))
) STRICT;
CREATE INDEX device_open ON device (id) WHERE state IN ('pending', 'issued');

CREATE TABLE certificate (
    certificate_id TEXT NOT NULL PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    certificate_pem TEXT NOT NULL,
    private_key TEXT NOT NULL,
    ownership_token TEXT,
    issued_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id),
    retired_at TEXT
) STRICT;
CREATE UNIQUE INDEX certificate_in_use ON certificate (device) WHERE retired_at IS NULL;

CREATE VIEW devices AS
    SELECT device.id, device.key, device.line, device.state, device.thing_name, certificate.certificate_id,
           certificate.issued_at, device.registration, device.failure_stage, device.failure_cause, device.failure,
           device.updated_at, device.run
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL;

CREATE VIEW lot_status AS
    SELECT lot.source, lot.template, lot.region, lot.account, lot.devices,
           count(*) FILTER (WHERE device.state = 'pending') AS pending,
           count(*) FILTER (WHERE device.state = 'issued') AS issued,
           count(*) FILTER (WHERE device.state = 'registered') AS registered,
           count(*) FILTER (WHERE device.state = 'rejected') AS rejected,
           count(*) FILTER (WHERE device.state = 'unknown') AS unknown,
           max(device.updated_at) AS updated_at
    FROM lot, device;
";

/// Keys that are made here, sealed, exported and purged.
///
/// `prepared_key` has the keys made here for devices that are not registered yet; a certificate has a copy. `sealing` has the
/// lists of recipients; a key without one is in plain text. `certificate.export` is the last export that has the key.
const SCHEMA_KEYS: &str = "
CREATE TABLE sealing (
    id INTEGER PRIMARY KEY,
    recipients TEXT NOT NULL UNIQUE CHECK (json_valid(recipients))
) STRICT;

CREATE TABLE prepared_key (
    device INTEGER PRIMARY KEY REFERENCES device (id),
    private_key TEXT NOT NULL,
    sealing INTEGER REFERENCES sealing (id),
    signing_request TEXT NOT NULL,
    prepared_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id)
) STRICT;

CREATE TABLE export (
    id INTEGER PRIMARY KEY,
    exported_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    devices INTEGER NOT NULL
) STRICT;

ALTER TABLE certificate ADD COLUMN sealing INTEGER REFERENCES sealing (id);
ALTER TABLE certificate ADD COLUMN export INTEGER REFERENCES export (id);
ALTER TABLE certificate ADD COLUMN purged_at TEXT;

DROP VIEW devices;
CREATE VIEW devices AS
    SELECT device.id, device.key, device.line, device.state, device.thing_name, certificate.certificate_id,
           certificate.issued_at, device.registration, device.failure_stage, device.failure_cause, device.failure,
           device.updated_at, device.run,
           CASE WHEN certificate.purged_at IS NOT NULL THEN 'purged'
                WHEN coalesce(certificate.sealing, prepared_key.sealing) IS NOT NULL THEN 'sealed'
                WHEN coalesce(certificate.device, prepared_key.device) IS NOT NULL THEN 'plain' END AS private_key,
           export.exported_at, export.destination AS exported_to
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL
    LEFT JOIN prepared_key ON prepared_key.device = device.id
    LEFT JOIN export ON export.id = certificate.export;
";

/// Each row of weight has a digest of itself; see [`integrity`](super::integrity). Triggers keep it up to date, so that no
/// statement can forget to; one that gives the digest itself saves writing a row twice.
const SCHEMA_DIGESTS: &str = "
ALTER TABLE certificate ADD COLUMN digest INTEGER;
CREATE TRIGGER certificate_added AFTER INSERT ON certificate WHEN NEW.digest IS NULL BEGIN
    UPDATE certificate SET digest = row_digest(
        certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at)
    WHERE certificate_id = NEW.certificate_id;
END;
CREATE TRIGGER certificate_changed AFTER UPDATE OF
    certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at
    ON certificate WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE certificate SET digest = row_digest(
        certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at)
    WHERE certificate_id = NEW.certificate_id;
END;

ALTER TABLE device ADD COLUMN digest INTEGER;
CREATE TRIGGER device_changed AFTER UPDATE OF
    id, key, parameter_values, state, registration, thing_name, device_configuration ON device
BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration)
    WHERE id = NEW.id;
END;

ALTER TABLE prepared_key ADD COLUMN digest INTEGER;
CREATE TRIGGER prepared_key_added AFTER INSERT ON prepared_key BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;
CREATE TRIGGER prepared_key_changed AFTER UPDATE OF device, private_key, sealing, signing_request ON prepared_key BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;

UPDATE certificate SET device = device;
UPDATE prepared_key SET device = device;
UPDATE device SET state = state WHERE state <> 'pending';
";

/// A statement that gives a device's or a prepared key's digest itself saves writing the row twice, as with certificates.
const SCHEMA_GIVEN_DIGESTS: &str = "
DROP TRIGGER device_changed;
CREATE TRIGGER device_changed AFTER UPDATE OF
    id, key, parameter_values, state, registration, thing_name, device_configuration
    ON device WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration)
    WHERE id = NEW.id;
END;

DROP TRIGGER prepared_key_added;
CREATE TRIGGER prepared_key_added AFTER INSERT ON prepared_key WHEN NEW.digest IS NULL BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;
";

/// How long SQLite waits for a lock of some other program, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 5_000;

/// As many statements as a ledger has, so that each is prepared once.
const STATEMENTS: usize = 32;

/// Makes an empty ledger of an empty database.
pub(super) fn create(connection: &mut Connection) -> Result<(), Problem> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(connection)
}

/// Brings an old schema up to date, one version at a time, each whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Problem> {
    migrate_to(connection, NEWEST)
}

/// Makes an empty ledger as an older version made it.
#[cfg(test)]
pub(super) fn create_old(connection: &mut Connection, version: i64) -> Result<(), Problem> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate_to(connection, version)
}

/// The same, as far as version `newest`.
pub(super) fn migrate_to(connection: &mut Connection, newest: i64) -> Result<(), Problem> {
    for (before, statements) in (0..newest).zip(MIGRATIONS) {
        if version(connection)? == before {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(statements)?;
            transaction.pragma_update(None, "user_version", before + 1)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// Refuses what is no ledger, and what only a newer fleetmint understands. Returns the version of its schema.
pub(super) fn identify(connection: &Connection) -> Result<i64, Problem> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        return Err(Problem::NotALedger { found: String::from("an empty file") });
    }
    if application != APPLICATION_ID {
        return Err(Problem::NotALedger { found: String::from("an SQLite database of another program") });
    }
    match version(connection)? {
        found if found > NEWEST => Err(Problem::Newer { found, known: NEWEST }),
        found if found < 1 => Err(Problem::damaged(format!("its schema version is {found}"))),
        found => Ok(found),
    }
}

/// For every connection.
pub(super) fn set_up(connection: &Connection) -> Result<(), Problem> {
    connection.busy_timeout(std::time::Duration::from_millis(u64::from(BUSY_TIMEOUT_MS)))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise SQLite may plan a statement anew for each value that it is given, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    integrity::add_row_digest(connection)?;
    // A damaged or prepared file gets as little of a hold on us as SQLite can arrange.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // Sorting must not spill keys into files outside the ledger's directory.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Refuses a connection that cannot write: SQLite takes a file that it may not write as one to read.
pub(super) fn refuse_read_only(connection: &Connection) -> Result<(), Problem> {
    match connection.is_readonly("main")? {
        true => Err(Problem::Denied { detail: String::from("it may only be read") }),
        false => Ok(()),
    }
}

/// Whether closing the connection leaves the write-ahead log as it is.
pub(super) fn keep_log(connection: &Connection, keep: bool) -> Result<(), Problem> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// For the connection that writes a ledger: what COMMIT has acknowledged is on the disk.
pub(super) fn set_up_writing(connection: &Connection) -> Result<(), Problem> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !["wal", "memory"].contains(&mode.as_str()) {
        let detail =
            format!("its file system allows no write-ahead log (journal mode {mode}); use a local disk");
        return Err(Problem::Denied { detail });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Without this, macOS only passes the data on to the drive's cache. Elsewhere it changes nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A token that is blanked, and a key that is purged, are overwritten in the file too.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// For the connection that builds a ledger under a temporary name: if anything goes wrong, the file is thrown away.
pub(super) fn set_up_building(connection: &Connection) -> Result<(), Problem> {
    let _: String = connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    // In KiB where negative: keys come in any order, and their index should stay in memory for the most part.
    connection.pragma_update(None, "cache_size", -65_536)?;
    Ok(())
}

/// Counts one more commit, and says how many there are now.
pub(super) fn count_commit(connection: &Connection) -> Result<u64, Problem> {
    let sql = "UPDATE progress SET commits = commits + 1 RETURNING commits";
    let commits: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    u64::try_from(commits).map_err(|_| Problem::damaged("its number of commits is negative"))
}

/// How many commits there were after the import.
pub(super) fn read_commits(connection: &Connection) -> Result<u64, Problem> {
    let commits: i64 = connection.query_row("SELECT commits FROM progress", [], |row| row.get(0))?;
    u64::try_from(commits).map_err(|_| Problem::damaged("its number of commits is negative"))
}

/// In bytes; at least 512, whatever the file says.
pub(super) fn page_size(connection: &Connection) -> Result<u64, Problem> {
    let size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    u64::try_from(size)
        .ok()
        .filter(|size| *size >= 512)
        .ok_or_else(|| Problem::damaged("it has no page size"))
}

pub(super) fn version(connection: &Connection) -> Result<i64, Problem> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connection: &Connection, sql: &str) -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_page_of_open_devices_costs_its_length() {
        let mut connection = Connection::open_in_memory().unwrap();
        set_up(&connection).unwrap();
        create(&mut connection).unwrap();
        let sql = super::super::view::OPEN_DEVICES.replace("?1", "1").replace("?2", "10");
        let plan = plan(&connection, &sql);
        assert!(
            plan.contains("USING INDEX device_open (rowid>?)") || plan.contains("device_open (id>?)"),
            "{plan}"
        );
        assert!(plan.contains("certificate_in_use (device=?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn creating_and_migrating_again_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        set_up(&connection).unwrap();
        create(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(identify(&connection).unwrap(), NEWEST);
    }

    #[test]
    fn a_device_holds_one_certificate_in_use() {
        let mut connection = Connection::open_in_memory().unwrap();
        set_up(&connection).unwrap();
        create(&mut connection).unwrap();
        connection
            .execute("INSERT INTO device (id, key, line, parameter_values) VALUES (1, 'a', 2, '[]')", [])
            .unwrap();
        let issue = |id: &str| {
            connection.execute(
                "INSERT INTO certificate (certificate_id, device, certificate_pem, private_key, issued_at)
                 VALUES (?1, 1, '', '', '')",
                [id],
            )
        };
        issue("x").unwrap();
        assert!(issue("y").is_err());
        connection.execute("UPDATE certificate SET retired_at = 'now'", []).unwrap();
        issue("y").unwrap();
    }
}
