//! Choosing devices of a ledger whose certificates are read or exported, and checking that what was asked for exists.
//!
//! Owns [`Selection`] and the reading of devices with their certificates. Changes nothing.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::error::{LedgerError, Problem};
use super::keys::read_stored_key;
use super::refusal::NotThere;
use super::rows::{has_certificate, impossible, read_certificate_id, read_certificate_pem, read_state};
use super::sql::{read_count, read_json};
use super::{RunId, View};
use crate::certificate::{CertificateId, RegisteredThing, StoredKey};
use crate::event::{DeviceId, DeviceState};

/// Which devices to choose: those that meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// In one of these states, and with a certificate.
    pub states: Vec<DeviceState>,
    /// Reached their state in this run or a later one.
    pub since_run: Option<RunId>,
    /// With one of these keys; empty for any key.
    pub keys: Vec<String>,
}

impl Default for Selection {
    /// All registered devices.
    fn default() -> Self {
        Self { states: vec![DeviceState::Registered], since_run: None, keys: Vec::new() }
    }
}

/// A device with its certificate, and everything that the factory floor needs.
#[derive(Debug)]
pub struct CertifiedDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its key.
    pub key: String,
    /// The values of its row, in the order of the lot's columns.
    pub values: Vec<String>,
    /// Its state.
    pub state: DeviceState,
    /// What the service made of it; `None` unless it is registered.
    pub thing: Option<RegisteredThing>,
    /// Its certificate's id.
    pub certificate_id: CertificateId,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, as stored in the ledger.
    pub private_key: StoredKey,
    /// When the ledger received its registration, RFC 3339; `None` unless it is registered.
    pub registered_at: Option<String>,
}

/// A rejected device, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedDevice {
    /// Its line in the lot.
    pub line: u64,
    /// Its key.
    pub key: String,
    /// The values of its row, in the order of the lot's columns.
    pub values: Vec<String>,
    /// The name of the stage that failed.
    pub stage: String,
    /// The name of the failure's cause.
    pub cause: String,
    /// The failure, in full.
    pub failure: String,
    /// When it was rejected, RFC 3339.
    pub rejected_at: String,
}

/// Devices, joined with what belongs to them. A registered device always has a certificate; a missing one is reported
/// when the device is read.
const CHOSEN: &str = "
    FROM device
    LEFT JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
    LEFT JOIN sealing ON sealing.id = credential.sealing
    WHERE device.state IN (SELECT value FROM json_each(:states))
      AND (:since IS NULL OR device.run >= :since)
      AND (device.state = 'registered' OR credential.certificate_id IS NOT NULL)";

/// Finds devices through the index of keys. Without keys, all devices are read in order.
const WITH_KEYS: &str = "AND device.key IN (SELECT value FROM json_each(:keys))";
const WITH_ANY_KEY: &str = "AND :keys IS NULL";

const COLUMNS: &str = "
    SELECT device.id, device.key, device.parameter_values AS parameters, device.state, device.thing_name,
           device.device_configuration, device.updated_at,
           credential.certificate_id, credential.certificate, credential.private_key, credential.private_key_label,
           credential.purged_at, sealing.recipients,
           credential.digest IS row_digest(
               credential.id, credential.device, credential.certificate_id, credential.certificate,
               credential.private_key, credential.private_key_label, credential.issued_at, credential.retired_at,
               credential.sealing, credential.purged_at, credential.deleted_at)
           AND device.digest IS row_digest(
               device.id, device.key, device.parameter_values, device.state, device.registration, device.thing_name,
               device.device_configuration, device.failure_stage, device.failure_cause, device.failure,
               device.updated_at, device.request_digest) AS is_as_written";

impl View {
    /// How many devices `selection` chooses. Reads every device.
    ///
    /// # Errors
    /// [`Problem::NotThere`] if a key or run that it names does not exist, or a key's device is in another state.
    pub fn count_certified(&self, selection: &Selection) -> Result<u64, LedgerError> {
        self.named(self.try_count_certified(selection))
    }

    fn try_count_certified(&self, selection: &Selection) -> Result<u64, Problem> {
        check_keys(&self.connection, &selection.keys, &selection.states)?;
        if let Some(wanted) = selection.since_run {
            let sql = "SELECT coalesce(max(id), 0) FROM run";
            let last: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
            if wanted.0 > last {
                return Err(NotThere::Run { wanted, last }.into());
            }
        }
        let (states, since, keys) = selection.as_values();
        let sql = format!("SELECT count(*) AS devices {CHOSEN} {}", selection.by_key());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows =
            statement.query(named_params! { ":states": states, ":since": since, ":keys": keys })?;
        let row = rows.next()?.ok_or_else(|| Problem::damaged("a count has no rows"))?;
        read_count(row, "devices")
    }

    /// Passes every device that `selection` chooses to `show`, in the order of their numbers. One device is in memory
    /// at a time, and all are read from one snapshot.
    ///
    /// # Errors
    /// If the ledger cannot be read; or the first error of `show`.
    pub fn for_each_certified<E: From<LedgerError>>(
        &self,
        selection: &Selection,
        mut show: impl FnMut(CertifiedDevice) -> Result<(), E>,
    ) -> Result<(), E> {
        let (states, since, keys) = selection.as_values();
        let sql = format!("{COLUMNS} {CHOSEN} {} ORDER BY device.id", selection.by_key());
        let mut statement = self.named(self.connection.prepare_cached(&sql))?;
        let values = named_params! { ":states": states, ":since": since, ":keys": keys };
        let mut rows = self.named(statement.query(values))?;
        while let Some(row) = self.named(rows.next())? {
            show(self.named(read_certified_device(row, self.lot().shape.columns.len()))?)?;
        }
        Ok(())
    }
}

impl View {
    /// Passes every rejected device to `show`, in the order of their numbers.
    ///
    /// # Errors
    /// If the ledger cannot be read; or the first error of `show`.
    pub fn for_each_rejected<E: From<LedgerError>>(
        &self,
        mut show: impl FnMut(RejectedDevice) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT line, key, parameter_values AS parameters, failure_stage, failure_cause, failure, updated_at
                   FROM device WHERE state = 'rejected' ORDER BY id";
        let mut statement = self.named(self.connection.prepare_cached(sql))?;
        let mut rows = self.named(statement.query([]))?;
        while let Some(row) = self.named(rows.next())? {
            show(self.named(read_rejected_device(row))?)?;
        }
        Ok(())
    }

    /// The devices whose key differs from that of an earlier row only in ASCII case, among the devices with these keys;
    /// or among all devices if `keys` is empty.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn later_spellings(&self, keys: &[String]) -> Result<BTreeSet<DeviceId>, LedgerError> {
        let read = || -> Result<BTreeSet<DeviceId>, Problem> {
            let mut statement = self.connection.prepare_cached(LATER_SPELLINGS)?;
            let mut rows = statement.query([keys_to_json(keys)])?;
            let mut later = BTreeSet::new();
            while let Some(row) = rows.next()? {
                later.insert(DeviceId(row.get("id")?));
            }
            Ok(later)
        };
        self.named(read())
    }
}

/// Sorts all keys, reading nothing but their index.
const LATER_SPELLINGS: &str = "
    SELECT id FROM (SELECT id, key, row_number() OVER (PARTITION BY key COLLATE NOCASE ORDER BY id) AS nth
                    FROM device
                    WHERE ?1 IS NULL OR key COLLATE NOCASE IN (SELECT value FROM json_each(?1)))
    WHERE nth > 1 AND (?1 IS NULL OR key IN (SELECT value FROM json_each(?1)))";

impl Selection {
    fn by_key(&self) -> &'static str {
        if self.keys.is_empty() { WITH_ANY_KEY } else { WITH_KEYS }
    }

    fn as_values(&self) -> (String, Option<i64>, Option<String>) {
        let states: Vec<_> = self.states.iter().map(|state| state.name()).collect();
        (to_json(&states), self.since_run.map(|RunId(id)| id), keys_to_json(&self.keys))
    }
}

fn to_json<T: serde::Serialize>(texts: &[T]) -> String {
    serde_json::to_string(texts).expect("texts are always valid JSON")
}

/// The keys as the statements take them: `None` for any key.
pub(super) fn keys_to_json(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| to_json(keys))
}

/// Refuses keys that no device has, and keys whose device is in none of `states`.
pub(super) fn check_keys(
    connection: &Connection,
    keys: &[String],
    states: &[DeviceState],
) -> Result<(), Problem> {
    let mut statement = connection.prepare_cached("SELECT state FROM device WHERE key = ?1")?;
    let mut missing = Vec::new();
    let mut elsewhere = None;
    for key in keys {
        match statement.query_row([key], |row| Ok(read_state(row, "state"))).optional()?.transpose()? {
            None => missing.push(key.clone()),
            Some(found) if !states.contains(&found) => {
                let wanted = states.to_vec();
                elsewhere.get_or_insert(NotThere::State { key: key.clone(), found, wanted });
            }
            Some(_) => {}
        }
    }
    match (missing.is_empty(), elsewhere) {
        (false, _) => Err(NotThere::Keys { keys: missing }.into()),
        (true, Some(elsewhere)) => Err(elsewhere.into()),
        (true, None) => Ok(()),
    }
}

fn read_certified_device(row: &Row<'_>, columns: usize) -> Result<CertifiedDevice, Problem> {
    let id = DeviceId(row.get("id")?);
    let state = read_state(row, "state")?;
    if !has_certificate(row)? {
        return Err(impossible(id, "is registered, and lacks its certificate"));
    }
    if !row.get::<_, bool>("is_as_written")? {
        return Err(impossible(id, "is not as it was written"));
    }
    let values: Vec<String> = read_json(row, "parameters")?;
    if values.len() != columns {
        return Err(impossible(id, &format!("has {} values for {columns} columns", values.len())));
    }
    let is_registered = state == DeviceState::Registered;
    Ok(CertifiedDevice {
        id,
        key: row.get("key")?,
        values,
        state,
        thing: is_registered.then(|| read_thing(row)).transpose()?,
        certificate_id: read_certificate_id(row)?,
        certificate_pem: read_certificate_pem(row)?,
        private_key: read_stored_key(row)?,
        registered_at: is_registered.then(|| row.get("updated_at")).transpose()?,
    })
}

fn read_rejected_device(row: &Row<'_>) -> Result<RejectedDevice, Problem> {
    let text = |column| Ok::<_, Problem>(row.get::<_, Option<String>>(column)?.unwrap_or_default());
    Ok(RejectedDevice {
        line: read_count(row, "line")?,
        key: row.get("key")?,
        values: read_json(row, "parameters")?,
        stage: text("failure_stage")?,
        cause: text("failure_cause")?,
        failure: text("failure")?,
        rejected_at: text("updated_at")?,
    })
}

fn read_thing(row: &Row<'_>) -> Result<RegisteredThing, Problem> {
    Ok(RegisteredThing {
        // NULL if the service named no thing, so that two devices without one do not collide.
        thing_name: row.get::<_, Option<String>>("thing_name")?.unwrap_or_default(),
        device_configuration: read_json(row, "device_configuration")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::schema;

    #[test]
    fn devices_stream_in_their_order_without_being_sorted_first() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::set_up(&connection).unwrap();
        schema::create(&mut connection).unwrap();
        let plan = |keys: &str| {
            let sql = format!("EXPLAIN QUERY PLAN {COLUMNS} {CHOSEN} {keys} ORDER BY device.id");
            let mut statement = connection.prepare(&sql).unwrap();
            let values = named_params! { ":states": "[]", ":since": 1, ":keys": "[]" };
            let lines = statement.query_map(values, |row| row.get::<_, String>(3)).unwrap();
            lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        let all = plan(WITH_ANY_KEY);
        assert!(!all.contains("TEMP B-TREE") && all.contains("credential_in_use (device=?)"), "{all}");
        let some = plan(WITH_KEYS);
        assert!(some.contains("(key=?)") && !some.contains("SCAN device"), "{some}");
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {LATER_SPELLINGS}")).unwrap();
        let lines = statement.query_map(["[]"], |row| row.get::<_, String>(3)).unwrap();
        let later = lines.map(Result::unwrap).collect::<Vec<_>>().join("; ");
        assert!(later.contains("COVERING INDEX"), "{later}");
    }
}
