//! The tables, their history, and SQLite's settings.
//!
//! Owns the whole schema and every pragma. People also open ledgers with `sqlite3`, which is what the views are for.

mod history;
pub(super) mod upgrade;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::error::Problem;
use super::{pem, row_digest};
use history::HISTORY;

/// Marks the file as a fleetmint ledger: "FLMT" in ASCII, in the database header's application id.
pub(super) const APPLICATION_ID: i64 = 0x464c_4d54;

/// The first version whose rows have digests.
pub(super) const WITH_DIGESTS: i64 = 3;

/// The newest schema that this version knows.
pub(super) const NEWEST: i64 = HISTORY.len() as i64 + 1;

/// The current tables. `{base64 COLUMN}` stands for the base 64 of a BLOB, in lines of 64.
const TABLES: &str = include_str!("tables.sql");

/// The base 64 (RFC 4648), in lines of 64, of the BLOB in `{column}`. Six hexadecimal digits are three bytes and four
/// characters. 0x111111 corrects for `instr`, which counts from 1. The limits keep SQLite from computing `six` six
/// times.
const BASE64: &str = "(
    WITH RECURSIVE triple (at) AS (SELECT 1 UNION ALL SELECT at + 3 FROM triple WHERE at + 3 <= length({column}))
    SELECT group_concat(
        substr({alphabet}, 1 + (bits >> 18), 1) || substr({alphabet}, 1 + (bits >> 12 & 63), 1)
        || iif(at < length({column}), substr({alphabet}, 1 + (bits >> 6 & 63), 1), '=')
        || iif(at + 1 < length({column}), substr({alphabet}, 1 + (bits & 63), 1), '=')
        || iif(at % 48 = 46 AND at + 3 <= length({column}), char(10), ''), '')
    FROM (SELECT at, (instr({digits}, substr(six, 1, 1)) << 20) + (instr({digits}, substr(six, 2, 1)) << 16)
                     + (instr({digits}, substr(six, 3, 1)) << 12) + (instr({digits}, substr(six, 4, 1)) << 8)
                     + (instr({digits}, substr(six, 5, 1)) << 4) + instr({digits}, substr(six, 6, 1)) - 1118481 AS bits
          FROM (SELECT at, hex(substr({column}, at, 3)) || '0000' AS six FROM triple LIMIT -1) LIMIT -1))";

/// The tables as SQL.
fn tables() -> String {
    let base64 = |column: &str| {
        let alphabet = "'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'";
        let filled = BASE64.replace("{alphabet}", alphabet).replace("{digits}", "'0123456789ABCDEF'");
        filled.replace("{column}", &format!("credential.{column}"))
    };
    let filled = TABLES.replace("{base64 certificate}", &base64("certificate"));
    filled.replace("{base64 private_key}", &base64("private_key"))
}

/// How long SQLite waits for another program's lock, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 5_000;

/// The page size of a new ledger, in bytes. A credential with an RSA key takes about 2,100: three fit a page, but only
/// one fits 4,096.
const PAGE_SIZE: u32 = 8_192;

/// The page cache of a writing connection: in KiB if negative. Keys come in any order, and the upper pages of their
/// index should stay in memory.
const CACHE: i32 = -65_536;

/// The statement cache holds all of a ledger's statements, so that each is prepared once.
const STATEMENTS: usize = 64;

/// Creates an empty ledger in an empty database.
pub(super) fn create(connection: &mut Connection) -> Result<(), Problem> {
    create_version(connection, NEWEST)
}

/// Creates an empty ledger of schema `version` in an empty database, as the program of that version did.
pub(super) fn create_version(connection: &mut Connection, version: i64) -> Result<(), Problem> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    if version == NEWEST {
        transaction.execute_batch(&tables())?;
    } else {
        let steps = usize::try_from(version).unwrap_or_default();
        HISTORY.iter().take(steps).try_for_each(|statements| transaction.execute_batch(statements))?;
    }
    transaction.pragma_update(None, "user_version", version)?;
    Ok(transaction.commit()?)
}

/// Refuses a file that is not a ledger or needs a newer fleetmint. Returns its schema version.
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

/// Settings for every connection.
pub(super) fn set_up(connection: &Connection) -> Result<(), Problem> {
    connection.busy_timeout(std::time::Duration::from_millis(u64::from(BUSY_TIMEOUT_MS)))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise SQLite may plan a statement again for each new value, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    row_digest::add_row_digest(connection)?;
    pem::add_functions(connection)?;
    // Gives a damaged or malicious file as little influence as SQLite allows.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // Sorting must not spill keys into files outside the ledger's directory.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Refuses a read-only connection: SQLite silently opens a file as read-only if it may not write it.
pub(super) fn refuse_read_only(connection: &Connection) -> Result<(), Problem> {
    if connection.is_readonly("main")? {
        Err(Problem::Denied { detail: String::from("it may only be read") })
    } else {
        Ok(())
    }
}

/// Sets whether closing the connection leaves the write-ahead log in place.
pub(super) fn keep_log(connection: &Connection, keep: bool) -> Result<(), Problem> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Settings for the connection that writes a ledger: what COMMIT acknowledges is on the disk.
pub(super) fn set_up_writing(connection: &Connection) -> Result<(), Problem> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !["wal", "memory"].contains(&mode.as_str()) {
        let detail = format!("SQLite allows no write-ahead log there, but journal mode {mode}");
        return Err(Problem::NotLocal { detail });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Without this, macOS only passes the data to the drive's cache. No effect elsewhere.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Overwrites used tokens and purged keys in the file too.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    // The log is moved into the file between commits, not during one; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Settings for the connection that builds a ledger under a temporary name: on any error, the file is thrown away.
pub(super) fn set_up_building(connection: &Connection) -> Result<(), Problem> {
    let _: String = connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    Ok(())
}

/// How the digests of rows are kept up to date on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digests {
    /// By triggers, so that no statement can forget to.
    ByTrigger,
    /// By each statement for the row that it writes, in half the time: with triggers, SQLite copies every page that a
    /// statement changes, to be able to undo that statement alone.
    ByStatement,
}

/// Sets how digests are kept up to date; call it between transactions.
///
/// With [`Digests::ByStatement`], release builds also skip foreign keys and CHECK constraints, which cost as much again.
/// All values come from enums and from the ledger itself: there, these checks are assertions.
pub(super) fn set_digests(connection: &Connection, digests: Digests) -> Result<(), Problem> {
    let by_trigger = digests == Digests::ByTrigger;
    // Only on a change: SQLite then plans every statement again.
    if connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? != by_trigger {
        let has_checks = by_trigger || cfg!(debug_assertions);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, has_checks)?;
        connection.pragma_update(None, "ignore_check_constraints", !has_checks)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, by_trigger)?;
    }
    Ok(())
}

/// Counts one more commit, and returns the new count.
pub(super) fn count_commit(connection: &Connection) -> Result<u64, Problem> {
    let sql = "UPDATE progress SET commits = commits + 1 RETURNING commits";
    let commits: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    u64::try_from(commits).map_err(|_| Problem::damaged("its number of commits is negative"))
}

/// The number of commits after the import.
pub(super) fn read_commits(connection: &Connection) -> Result<u64, Problem> {
    let commits: i64 = connection.query_row("SELECT commits FROM progress", [], |row| row.get(0))?;
    u64::try_from(commits).map_err(|_| Problem::damaged("its number of commits is negative"))
}

/// The page size in bytes; at least 512, whatever the file says.
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
        assert!(plan.contains("credential_in_use (device=?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn every_version_is_known_by_its_number() {
        for version in 1..=NEWEST {
            let mut connection = Connection::open_in_memory().unwrap();
            set_up(&connection).unwrap();
            create_version(&mut connection, version).unwrap();
            assert_eq!(identify(&connection).unwrap(), version);
        }
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
                "INSERT INTO credential (certificate_id, device, certificate, private_key, issued_at)
                 VALUES (?1, 1, '', '', '')",
                [id],
            )
        };
        issue("x").unwrap();
        assert!(issue("y").is_err());
        connection.execute("UPDATE credential SET retired_at = 'now'", []).unwrap();
        issue("y").unwrap();
    }
}
