//! Returns devices that were given up to Pending, so that the next run works on them again.
//!
//! Rejected devices certainly have no registration, and removed ones no longer have one. Unknown ones may have one: the
//! caller accepts that such a device may end up with two certificates. Registered devices are never touched here; see
//! [`rework`](super::rework).

use std::time::SystemTime;

use rusqlite::{Connection, Transaction, named_params, params};
use serde_json::json;

use super::error::{LedgerError, Problem};
use super::refusal::NotThere;
use super::select::{check_keys, keys_to_json};
use super::sql::{read_all_with, read_count};
use super::{Ledger, RunId, View, instant};
use crate::event::DeviceState;

/// The outcome of a history entry, not of a real run: it returned devices to Pending.
pub const RETRY_OUTCOME: &str = "retry";

/// Which devices to return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The state of the devices to return.
    pub from: GivenUp,
    /// Only devices with one of these keys; empty for any key.
    pub keys: Vec<String>,
    /// Only devices with this [`Cause::name`](crate::failure::Cause::name); `None` for any cause.
    pub cause: Option<String>,
}

/// The states that a device can be returned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Refused by the service: certainly not registered.
    Rejected,
    /// Possibly registered. The ledger's certificate may stay behind in the account, active.
    Unknown,
    /// Once registered, and removed from the account again.
    Removed,
}

impl GivenUp {
    /// The state.
    pub fn state(self) -> DeviceState {
        match self {
            Self::Rejected => DeviceState::Rejected,
            Self::Unknown => DeviceState::Unknown,
            Self::Removed => DeviceState::Removed,
        }
    }
}

/// The result of returning devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returned {
    /// The entry in the ledger's history; `None` if there was nothing to return.
    pub run: Option<RunId>,
    /// Devices that are Pending now.
    pub devices: u64,
    /// Retired certificates of theirs: kept with their keys, and never used again.
    pub certificates_retired: u64,
}

/// How many keys of returned devices the history lists; all are counted.
const KEYS_KEPT: u64 = 1_000;

const CHOSEN: &str = "state = :state AND (:cause IS NULL OR failure_cause = :cause)
    AND (:keys IS NULL OR key IN (SELECT value FROM json_each(:keys)))";

impl View {
    /// How many devices [`Ledger::retry`] would return.
    ///
    /// # Errors
    /// [`Problem::NotThere`] if a key does not exist, its device is in another state, or no device has the cause.
    pub fn count_retry(&self, retry: &Retry) -> Result<u64, LedgerError> {
        self.named(count(&self.connection, retry))
    }
}

impl Ledger {
    /// Returns the devices that `retry` chooses to Pending and retires their certificates: all of them, or none.
    /// Recorded in the history as a run of its own that ended with [`RETRY_OUTCOME`]. Not to be called during a run.
    ///
    /// # Errors
    /// As for [`View::count_retry`], with nothing written; or if writing fails, as in [`commit`](Self::commit).
    pub fn retry(&mut self, retry: &Retry, now: SystemTime) -> Result<Returned, LedgerError> {
        if self.view.count_retry(retry)? == 0 {
            return Ok(Returned::default());
        }
        self.write(|transaction| return_devices(transaction, retry, now))
    }
}

fn count(connection: &Connection, retry: &Retry) -> Result<u64, Problem> {
    check_keys(connection, &retry.keys, &[retry.from.state()])?;
    let sql = format!("SELECT count(*) AS devices FROM device WHERE {CHOSEN}");
    let counts = query_chosen(connection, &sql, retry, |row| read_count(row, "devices"))?;
    let devices = counts.into_iter().next().unwrap_or_default();
    if let (0, Some(wanted)) = (devices, &retry.cause) {
        let any = Retry { cause: None, ..retry.clone() };
        let sql = format!(
            "SELECT DISTINCT failure_cause FROM device WHERE failure IS NOT NULL AND {CHOSEN} ORDER BY 1"
        );
        let found = query_chosen(connection, &sql, &any, |row| Ok(row.get(0)?))?;
        if !found.is_empty() {
            let (state, wanted) = (retry.from.state(), wanted.clone());
            return Err(NotThere::Cause { state, wanted, found }.into());
        }
    }
    Ok(devices)
}

fn return_devices(
    transaction: &Transaction<'_>,
    retry: &Retry,
    now: SystemTime,
) -> Result<Returned, Problem> {
    let at = instant::to_text(now);
    let run = insert_run(transaction, retry, &at)?;
    let sql = format!("SELECT key FROM device WHERE {CHOSEN} ORDER BY id LIMIT {KEYS_KEPT}");
    let keys: Vec<String> = query_chosen(transaction, &sql, retry, |row| Ok(row.get(0)?))?;
    let certificates_retired = retire_certificates(transaction, retry, &at)?;
    let devices = make_pending(transaction, retry, &at, run)?;
    if retry.from == GivenUp::Unknown && certificates_retired != devices {
        return Err(Problem::damaged(format!(
            "its {devices} unknown devices hold {certificates_retired} certificates, not one each"
        )));
    }
    check_none_certified(transaction, run)?;
    let summary = json!({
        "returned": devices,
        "certificates_retired": certificates_retired,
        "keys": keys,
        "keys_left_out": devices.saturating_sub(keys.len() as u64),
    });
    transaction.execute("UPDATE run SET summary = ?2 WHERE id = ?1", params![run.0, summary.to_string()])?;
    Ok(Returned { run: Some(run), devices, certificates_retired })
}

fn insert_run(transaction: &Transaction<'_>, retry: &Retry, at: &str) -> Result<RunId, Problem> {
    let asked = json!({
        "state": retry.from.state().name(),
        "cause": retry.cause,
        "keys": retry.keys.len(),
    });
    let settings = json!({ "version": env!("CARGO_PKG_VERSION"), "retry": asked });
    insert_deed(transaction, &settings, RETRY_OUTCOME, at)
}

/// Records in the history, as a run of its own, what was done to the ledger outside of a run.
pub(super) fn insert_deed(
    connection: &Connection,
    settings: &serde_json::Value,
    outcome: &str,
    at: &str,
) -> Result<RunId, Problem> {
    let sql = "INSERT INTO run (started_at, ended_at, pid, settings, outcome) VALUES (?1, ?1, ?2, ?3, ?4)";
    connection.execute(sql, params![at, std::process::id(), settings.to_string(), outcome])?;
    Ok(RunId(connection.last_insert_rowid()))
}

/// Retires certificates as [`Change::TokenLapsed`](crate::event::Change::TokenLapsed) does: certificate and key stay,
/// the token goes.
fn retire_certificates(transaction: &Transaction<'_>, retry: &Retry, at: &str) -> Result<u64, Problem> {
    let sql = format!("DELETE FROM token WHERE device IN (SELECT id FROM device WHERE {CHOSEN})");
    let values = named_params! {
        ":state": retry.from.state().name(),
        ":cause": retry.cause,
        ":keys": keys_to_json(&retry.keys),
    };
    transaction.execute(&sql, values)?;
    let sql = format!(
        "UPDATE credential SET retired_at = :at
         WHERE retired_at IS NULL AND device IN (SELECT id FROM device WHERE {CHOSEN})"
    );
    let changed = transaction.execute(
        &sql,
        named_params! {
            ":at": at,
            ":state": retry.from.state().name(),
            ":cause": retry.cause,
            ":keys": keys_to_json(&retry.keys),
        },
    )?;
    Ok(changed as u64)
}

fn make_pending(transaction: &Transaction<'_>, retry: &Retry, at: &str, run: RunId) -> Result<u64, Problem> {
    let sql = format!(
        "UPDATE device SET state = 'pending', registration = NULL, failure_stage = NULL, failure_cause = NULL,
         failure = NULL, thing_name = NULL, device_configuration = NULL, updated_at = :at, run = :run WHERE {CHOSEN}"
    );
    let changed = transaction.execute(
        &sql,
        named_params! {
            ":at": at,
            ":run": run.0,
            ":state": retry.from.state().name(),
            ":cause": retry.cause,
            ":keys": keys_to_json(&retry.keys),
        },
    )?;
    Ok(changed as u64)
}

/// Checks that no returned device has a certificate or a thing: otherwise the ledger would contradict itself.
fn check_none_certified(transaction: &Transaction<'_>, run: RunId) -> Result<(), Problem> {
    let sql = "SELECT count(*) FROM device LEFT JOIN credential
               ON credential.device = device.id AND credential.retired_at IS NULL
               WHERE device.run = ?1 AND (credential.device IS NOT NULL OR device.thing_name IS NOT NULL)";
    match transaction.query_row(sql, [run.0], |row| row.get::<_, i64>(0))? {
        0 => Ok(()),
        devices => Err(Problem::damaged(format!("{devices} devices that were given up are registered"))),
    }
}

fn query_chosen<T>(
    connection: &Connection,
    sql: &str,
    retry: &Retry,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let values = named_params! {
        ":state": retry.from.state().name(),
        ":cause": retry.cause,
        ":keys": keys_to_json(&retry.keys),
    };
    read_all_with(connection, sql, values, read)
}
