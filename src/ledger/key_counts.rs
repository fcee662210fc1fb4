//! Where the devices' private keys are, which of them were exported, and how they are purged.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::error::{LedgerError, Problem};
use super::sql::write_one;
use super::view::View;
use super::{Ledger, instant};
use crate::event::DeviceId;

/// How many devices' keys the ledger has, and how many of them were exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// Keys of registered devices that are in the ledger and in an export.
    pub exported: u64,
    /// Keys that are in the ledger only.
    pub not_exported: u64,
    /// Keys purged from the ledger, now or earlier.
    pub purged: u64,
}

impl View {
    /// How many open devices have a key made here: it is the one that gets certified, whatever the run's settings say.
    pub fn open_prepared_keys(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT count(*) FROM prepared_key JOIN device ON device.id = prepared_key.device
                   WHERE device.state IN ('pending', 'issued')";
        self.named(count(&self.connection, sql))
    }

    /// How many devices' keys the ledger has, and how many of them were exported.
    pub fn key_counts(&self) -> Result<KeyCounts, LedgerError> {
        self.named(read_key_counts(&self.connection))
    }
}

impl Ledger {
    /// Records that the keys of `devices` were exported to `destination` at `now`.
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
    /// ledger's file and its write-ahead log. What the file system or the disk keeps of them is beyond our reach.
    ///
    /// # Errors
    /// If writing fails. [`Problem::Lingering`] if another program reads the ledger: the keys are blanked then, but old
    /// pages are still in the log; another call finishes the job.
    pub fn purge_exported_keys(&mut self, now: SystemTime) -> Result<KeyCounts, LedgerError> {
        self.write(|transaction| {
            // Includes the keys of the device's retired certificates: it may be the same key.
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

/// Rebuilds the file and empties the log. Blanking alone is not enough, even with `secure_delete`: when SQLite moves
/// rows between pages, it leaves their old bytes in the gaps. Needs as much memory as the file is long.
pub(super) fn scrub(connection: &Connection) -> Result<(), Problem> {
    connection.execute_batch("VACUUM")?;
    let is_busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy == 0 { Ok(()) } else { Err(Problem::Lingering) }
}

fn read_key_counts(connection: &Connection) -> Result<KeyCounts, Problem> {
    // A key that only the device has cannot be exported or purged here.
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
