//! Private keys in the ledger: how each is kept, which were exported, and how they are blanked.
//!
//! Owns the columns that hold keys. A sealed key comes here sealed and leaves sealed: nothing here can open one.

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::commit::write_one;
use super::error::{LedgerError, Problem};
use super::pem::{self, Kept};
use super::rows::read_json;
use super::view::View;
use super::{Ledger, instant};
use crate::certificate::{PreparedKey, SealedKey, Secret, StoredKey};
use crate::event::DeviceId;

/// How many devices' keys are in the ledger, and whether anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// In the ledger and in an export; the device is registered.
    pub exported: u64,
    /// In the ledger only.
    pub not_exported: u64,
    /// Purged from the ledger, now or before.
    pub purged: u64,
}

/// A key as the columns hold it.
pub(super) struct KeyColumns<'a> {
    pub(super) text: Option<Kept<'a>>,
    pub(super) sealing: Option<i64>,
    pub(super) purged_at: Option<&'a str>,
}

impl<'a> KeyColumns<'a> {
    pub(super) fn of(connection: &Connection, key: &'a StoredKey) -> Result<Self, Problem> {
        Ok(match key {
            StoredKey::Plain(pem) => {
                Self { text: Some(Kept::of(pem.expose())), sealing: None, purged_at: None }
            }
            StoredKey::Sealed(sealed) => {
                let sealing = Some(sealing_number(connection, &sealed.recipients)?);
                Self { text: Some(Kept::Text(&sealed.age)), sealing, purged_at: None }
            }
            StoredKey::Purged { at } => {
                Self { text: Some(Kept::Text("")), sealing: None, purged_at: Some(at) }
            }
            StoredKey::Elsewhere => Self { text: None, sealing: None, purged_at: None },
        })
    }
}

/// The number of a list of recipients, which is written down when it is new.
fn sealing_number(connection: &Connection, recipients: &[String]) -> Result<i64, Problem> {
    let text = serde_json::to_string(recipients).expect("texts are always valid JSON");
    let find = |text: &str| -> rusqlite::Result<Option<i64>> {
        let mut statement = connection.prepare_cached("SELECT id FROM sealing WHERE recipients = ?1")?;
        statement.query_row([text], |row| row.get(0)).optional()
    };
    if let Some(number) = find(&text)? {
        return Ok(number);
    }
    connection.prepare_cached("INSERT INTO sealing (recipients) VALUES (?1)")?.execute([&text])?;
    Ok(connection.last_insert_rowid())
}

/// Reads `private_key`, `private_key_label`, `recipients` and `purged_at`.
pub(super) fn read_stored_key(row: &Row<'_>) -> Result<StoredKey, Problem> {
    if let Some(at) = row.get("purged_at")? {
        return Ok(StoredKey::Purged { at });
    }
    match row.get::<_, Option<String>>("recipients")? {
        None => {
            let label: Option<String> = row.get("private_key_label")?;
            let key = row.get_ref("private_key")?;
            if key == ValueRef::Null {
                return Ok(StoredKey::Elsewhere);
            }
            let text = pem::restore(key, label.as_deref().unwrap_or_default())?;
            Ok(StoredKey::Plain(Secret::new(text)))
        }
        Some(_) => {
            let recipients: Arc<[String]> = read_json::<Vec<String>>(row, "recipients")?.into();
            Ok(StoredKey::Sealed(SealedKey { age: row.get("private_key")?, recipients }))
        }
    }
}

/// Writes down the key prepared for a device that has none.
pub(super) fn insert_prepared(
    connection: &Connection,
    device: DeviceId,
    key: &PreparedKey,
    at: &str,
    run: Option<i64>,
) -> Result<(), Problem> {
    let (text, sealing) = match &key.private_key {
        StoredKey::Plain(pem) => (pem.expose(), None),
        StoredKey::Sealed(sealed) => (&sealed.age, Some(sealing_number(connection, &sealed.recipients)?)),
        StoredKey::Elsewhere | StoredKey::Purged { .. } => {
            return Err(Problem::damaged("a key that is prepared is there"));
        }
    };
    let sql =
        "INSERT INTO prepared_key (device, private_key, sealing, signing_request, prepared_at, run, digest)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_digest(?1, ?2, ?3, ?4))";
    write_one(connection, sql, params![device.0, text, sealing, key.request.pem, at, run])
}

/// Drops the copy of a prepared key whose certificate, with the key itself, is not going to be given up any more.
pub(super) fn forget_prepared(connection: &Connection, device: DeviceId) -> Result<(), Problem> {
    connection.prepare_cached("DELETE FROM prepared_key WHERE device = ?1")?.execute([device.0])?;
    Ok(())
}

impl View {
    /// How many open devices have a key of their own, made here: they are certified with that, whatever a run prefers.
    pub fn open_prepared_keys(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT count(*) FROM prepared_key JOIN device ON device.id = prepared_key.device
                   WHERE device.state IN ('pending', 'issued')";
        self.named(count(&self.connection, sql))
    }

    /// How many devices' keys are here, and whether anywhere else.
    pub fn key_counts(&self) -> Result<KeyCounts, LedgerError> {
        self.named(read_key_counts(&self.connection))
    }
}

impl Ledger {
    /// Writes down that the keys of `devices` are at `destination` too, from `now` on.
    ///
    /// # Errors
    /// If writing fails, as in [`commit`](Self::commit); or a device has no certificate.
    pub fn record_export(
        &mut self,
        destination: &str,
        devices: &[DeviceId],
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        self.write(|transaction| {
            let sql = "INSERT INTO export (exported_at, destination, devices) VALUES (?1, ?2, ?3)";
            let number = i64::try_from(devices.len()).unwrap_or(i64::MAX);
            transaction.execute(sql, params![instant::to_text(now), destination, number])?;
            let export = transaction.last_insert_rowid();
            let sql = "UPDATE credential SET export = ?2 WHERE device = ?1 AND retired_at IS NULL";
            devices.iter().try_for_each(|device| write_one(transaction, sql, params![device.0, export]))
        })
    }

    /// Blanks the private keys of registered devices whose keys were exported, and removes every trace of them from the
    /// ledger's file and its write-ahead log. What is left of them on the disk beneath is the file system's affair.
    ///
    /// # Errors
    /// If writing fails. [`Problem::Lingering`] if another program reads the ledger: the keys are blanked then, and old pages
    /// are still in the log; the same again finishes it.
    pub fn purge_exported_keys(&mut self, now: SystemTime) -> Result<KeyCounts, LedgerError> {
        self.write(|transaction| {
            // With the keys of certificates that such a device gave up, which may be the same key.
            let sql = "UPDATE credential SET private_key = '', private_key_label = NULL, sealing = NULL, purged_at = ?1
                       WHERE purged_at IS NULL AND private_key IS NOT NULL AND device IN (
                           SELECT credential.device FROM credential JOIN device ON device.id = credential.device
                           WHERE credential.export IS NOT NULL AND credential.retired_at IS NULL
                                 AND device.state = 'registered')";
            transaction.execute(sql, [instant::to_text(now)])?;
            Ok(())
        })?;
        self.view.named(scrub(&self.view.connection))?;
        self.view.key_counts()
    }
}

/// Rebuilds the file and empties the log. Blanking alone is not enough, even with `secure_delete`: when rows move from page
/// to page, SQLite leaves their old bytes in the gaps. Takes memory as large as the file.
pub(super) fn scrub(connection: &Connection) -> Result<(), Problem> {
    connection.execute_batch("VACUUM")?;
    let is_busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy == 0 { Ok(()) } else { Err(Problem::Lingering) }
}

fn read_key_counts(connection: &Connection) -> Result<KeyCounts, Problem> {
    // A key that only the device has is not here to be exported or purged.
    let in_use = "SELECT count(*) FROM credential JOIN device ON device.id = credential.device
                  WHERE credential.retired_at IS NULL
                        AND (credential.private_key IS NOT NULL OR credential.purged_at IS NOT NULL)";
    let is_exported = "credential.export IS NOT NULL AND device.state = 'registered'";
    let waiting = "SELECT count(*) FROM prepared_key WHERE NOT EXISTS (
                       SELECT 1 FROM credential
                       WHERE credential.device = prepared_key.device AND credential.retired_at IS NULL)";
    let not_exported =
        count(connection, &format!("{in_use} AND credential.purged_at IS NULL AND NOT ({is_exported})"))?;
    Ok(KeyCounts {
        exported: count(connection, &format!("{in_use} AND credential.purged_at IS NULL AND {is_exported}"))?,
        not_exported: not_exported + count(connection, waiting)?,
        purged: count(connection, &format!("{in_use} AND credential.purged_at IS NOT NULL"))?,
    })
}

fn count(connection: &Connection, sql: &str) -> Result<u64, Problem> {
    let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or_default())
}
