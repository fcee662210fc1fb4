//! How private keys are stored in the ledger.
//!
//! Owns the columns that hold keys. A sealed key comes in sealed and leaves sealed: nothing here can open it.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Problem;
use super::pem::{self, Kept};
use super::sql::{read_json, write_one};
use crate::certificate::{PreparedKey, SealedKey, Secret, StoredKey};
use crate::event::DeviceId;

/// A key as stored in the columns.
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

/// The number of a list of recipients, which is stored first if it is new.
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

/// Stores the key prepared for a device that has none.
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

/// Deletes the copy of a prepared key once its certificate, which includes the key, can no longer be given up.
pub(super) fn forget_prepared(connection: &Connection, device: DeviceId) -> Result<(), Problem> {
    connection.prepare_cached("DELETE FROM prepared_key WHERE device = ?1")?.execute([device.0])?;
    Ok(())
}
