//! Rework: a registered device whose board or key was lost gets another certificate. The ledger keeps both.

use std::time::SystemTime;

use rusqlite::{Connection, params};
use serde_json::json;

use super::error::{LedgerError, Problem};
use super::ids::KeptId;
use super::refusal::NotThere;
use super::retry::insert_deed;
use super::select::check_keys;
use super::sql::write_one;
use super::{Ledger, RunId, instant};
use crate::certificate::CertificateId;
use crate::event::DeviceState;

/// The outcome of a history entry, not of a real run: it returned registered devices for another certificate.
pub const REWORK_OUTCOME: &str = "rework";

/// A registered device that is to get another certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rework {
    /// Its key.
    pub key: String,
    /// Its current certificate, as the caller saw it when deactivating it; any other is refused.
    pub certificate: CertificateId,
    /// When the account reported the certificate as inactive; `None` if the account does not allow that.
    pub deactivated_at: Option<SystemTime>,
}

impl Ledger {
    /// Returns registered devices to Pending, to be certified and registered again, and keeps what they had: all of
    /// them, or none. Not to be called during a run.
    ///
    /// # Errors
    /// [`Problem::NotThere`] if a key does not exist, or its device is not registered or has another certificate; or if
    /// writing fails, as in [`commit`](Self::commit).
    pub fn rework(&mut self, devices: &[Rework], now: SystemTime) -> Result<RunId, LedgerError> {
        let keys: Vec<String> = devices.iter().map(|device| device.key.clone()).collect();
        let connection = &self.view.connection;
        self.view.named(check_keys(connection, &keys, &[DeviceState::Registered]))?;
        let at = instant::to_text(now);
        self.write(|transaction| {
            let settings = json!({ "version": env!("CARGO_PKG_VERSION"), "rework": keys });
            let run = insert_deed(transaction, &settings, REWORK_OUTCOME, &at)?;
            devices.iter().try_for_each(|device| start_over(transaction, device, &at, run))?;
            Ok(run)
        })
    }
}

fn start_over(connection: &Connection, rework: &Rework, at: &str, run: RunId) -> Result<(), Problem> {
    let id = KeptId::of(&rework.certificate);
    let sql =
        "INSERT INTO rework (device, credential, thing_name, registered_at, begun_at, deactivated_at, run)
               SELECT device.id, credential.id, device.thing_name, device.updated_at, ?3, ?4, ?5
               FROM device JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
               WHERE device.key = ?1 AND credential.certificate_id = ?2";
    let deactivated_at = rework.deactivated_at.map(instant::to_text);
    if connection.prepare_cached(sql)?.execute(params![rework.key, id, at, deactivated_at, run.0])? != 1 {
        return Err(NotThere::Certificate { key: rework.key.clone() }.into());
    }
    let sql = "UPDATE credential SET retired_at = ?2
               WHERE retired_at IS NULL AND device = (SELECT id FROM device WHERE key = ?1)";
    write_one(connection, sql, params![rework.key, at])?;
    let sql = "UPDATE device SET state = 'pending', thing_name = NULL, device_configuration = NULL, updated_at = ?2, run = ?3
               WHERE key = ?1";
    write_one(connection, sql, params![rework.key, at, run.0])
}
