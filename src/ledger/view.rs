//! Reading a ledger: its open devices, how many are in which state, and its runs.
//!
//! Takes no lock: any number of views may read a ledger while a run writes it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::{LedgerError, Problem};
use super::place::Place;
use super::rows::{read_counts, read_lot, read_open_device, read_state};
use super::sql::{read_all, read_count};
use super::values::{Counts, LotInfo, OpenDevice};
use super::{integrity, opening};
use crate::event::{DeviceId, DeviceState};
use crate::wording::without_ids;

/// A ledger open for reading.
#[derive(Debug)]
pub struct View {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) lot: LotInfo,
}

/// Devices that share a state and the last failure's stage, cause and [reason](crate::failure::Failure::reason). If
/// there are too many reasons, the rarest ones are combined into one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Their state.
    pub state: DeviceState,
    /// [`Stage::name`](crate::failure::Stage::name) of their failure.
    pub stage: String,
    /// [`Cause::name`](crate::failure::Cause::name) of their failure.
    pub cause: String,
    /// How many devices share them.
    pub devices: u64,
    /// How many different reasons these devices have.
    pub reasons: u64,
    /// The key of the first of these devices.
    pub example_key: String,
    /// The failure of the first of these devices, in full.
    pub example: String,
}

/// A run, as recorded in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Its number, from 1.
    pub id: i64,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339; `None` if it is running or crashed.
    pub ended_at: Option<String>,
    /// The id of its process.
    pub pid: u32,
    /// Its settings, JSON.
    pub settings: String,
    /// How it ended; `None` if it is running or crashed.
    pub outcome: Option<String>,
    /// Its results, JSON.
    pub summary: Option<String>,
}

/// A page of open devices. Thanks to the partial index `device_open`, its cost depends only on its length.
pub(super) const OPEN_DEVICES: &str = "
    SELECT device.id, device.line, device.key, device.parameter_values AS parameters, device.state, device.registration,
           credential.certificate_id, credential.certificate, credential.private_key, credential.private_key_label,
           token.ownership_token, credential.issued_at, credential.purged_at, sealing.recipients,
           prepared_key.signing_request
    FROM device
    LEFT JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
    LEFT JOIN token ON token.device = device.id
    LEFT JOIN sealing ON sealing.id = credential.sealing
    LEFT JOIN prepared_key ON prepared_key.device = device.id
    WHERE device.state IN ('pending', 'issued') AND device.id > ?1
    ORDER BY device.id LIMIT ?2";

const TROUBLES: &str = "
    SELECT device.state, device.failure_stage, device.failure_cause, grouped.devices, device.key, device.failure
    FROM (SELECT min(id) AS first, count(*) AS devices FROM device WHERE failure IS NOT NULL
          GROUP BY state, failure_stage, failure_cause, failure) AS grouped
    JOIN device ON device.id = grouped.first
    ORDER BY device.id";

/// How many reasons of a state, stage and cause are listed separately.
const REASONS: usize = 20;

/// Groups failures by their reasons.
#[derive(Default)]
struct Troubles {
    /// By state, stage, cause, and reason.
    found: BTreeMap<(&'static str, String, String, String), Trouble>,
}

impl Troubles {
    /// Adds devices with the same failure text, in the order of their first devices.
    fn add(&mut self, trouble: Trouble) {
        let reason = without_ids(&trouble.example);
        let kind = (trouble.state.name(), trouble.stage.clone(), trouble.cause.clone(), reason);
        match self.found.entry(kind) {
            Entry::Occupied(mut same) => same.get_mut().devices += trouble.devices,
            Entry::Vacant(place) => {
                place.insert(trouble);
            }
        }
    }

    /// The troubles, most frequent first; the rarest reasons of a kind are combined if there are very many.
    fn finish(self) -> Vec<Trouble> {
        let mut troubles: Vec<Trouble> = self.found.into_values().collect();
        troubles.sort_by_key(|trouble| Reverse(trouble.devices));
        let mut told: Vec<Trouble> = Vec::new();
        let mut others: Vec<Trouble> = Vec::new();
        for trouble in troubles {
            let is_same = |other: &&Trouble| {
                (other.state, &other.stage, &other.cause) == (trouble.state, &trouble.stage, &trouble.cause)
            };
            if told.iter().filter(is_same).count() < REASONS {
                told.push(trouble);
            } else if let Some(rest) = others.iter().position(|other| is_same(&other)) {
                others[rest].devices += trouble.devices;
                others[rest].reasons += 1;
            } else {
                others.push(trouble);
            }
        }
        told.extend(others);
        told
    }
}

impl View {
    /// Opens the ledger at `path` for reading; a run may be writing it. A ledger of an older schema is read through a
    /// private temporary copy, and stays as it is. On a read-only medium, nothing is written beside the ledger.
    ///
    /// # Errors
    /// If there is no ledger, or it is of a newer schema or visibly damaged; only
    /// [`check_integrity`](Self::check_integrity) checks everything.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let place = Place::of(path)?;
        let view = opening::to_read(&place).and_then(|connection| Self::over(connection, path));
        view.map_err(|problem| problem.at(path))
    }

    /// A view over an open ledger.
    pub(super) fn over(connection: Connection, path: &Path) -> Result<Self, Problem> {
        let lot = read_lot(&connection)?;
        Ok(Self { connection, path: path.to_path_buf(), lot })
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lot that it was made from.
    pub fn lot(&self) -> &LotInfo {
        &self.lot
    }

    /// Reads the whole file and refuses one that is damaged.
    pub fn check_integrity(&self) -> Result<(), LedgerError> {
        self.named(integrity::check(&self.connection))
    }

    /// At most `limit` open devices, Pending and Issued, after `after`, in the order of their numbers.
    ///
    /// # Errors
    /// If the ledger cannot be read, or a device is in a state that no legal changes lead to.
    pub fn open_devices(
        &self,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<OpenDevice>, LedgerError> {
        self.named(self.read_open_devices(after, limit))
    }

    fn read_open_devices(&self, after: Option<DeviceId>, limit: usize) -> Result<Vec<OpenDevice>, Problem> {
        let after = after.map_or(0, |DeviceId(id)| id);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(OPEN_DEVICES)?;
        let mut rows = statement.query([after, limit])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            devices.push(read_open_device(row, self.lot.shape.columns.len())?);
        }
        Ok(devices)
    }

    /// How many devices are in each state. Reads every device.
    pub fn counts(&self) -> Result<Counts, LedgerError> {
        self.named(read_counts(&self.connection))
    }

    /// Whether the device with `key` is, to the ledger's knowledge, still to be registered: it is Pending, or Issued
    /// and not sent. A key that the ledger does not have is taken as still to come.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn is_to_come(&self, key: &str) -> Result<bool, LedgerError> {
        self.named(self.read_is_to_come(key))
    }

    fn read_is_to_come(&self, key: &str) -> Result<bool, Problem> {
        const SQL: &str =
            "SELECT state = 'pending' OR coalesce(registration = 'not_sent', 0) FROM device WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([key])?;
        Ok(match rows.next()? {
            Some(row) => row.get(0)?,
            None => true,
        })
    }

    /// Whether the device with `key` had this thing before it was returned to get another certificate.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn had_thing(&self, key: &str, thing: &str) -> Result<bool, LedgerError> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM rework JOIN device ON device.id = rework.device
                                          WHERE device.key = ?1 AND rework.thing_name = ?2)";
        let had = self.connection.prepare_cached(SQL);
        self.named(had.and_then(|mut had| had.query_row([key, thing], |row| row.get(0))))
    }

    /// Why devices were left open, rejected or given up: their failures in groups, most frequent first.
    pub fn troubles(&self) -> Result<Vec<Trouble>, LedgerError> {
        self.named(self.read_troubles())
    }

    pub(super) fn read_troubles(&self) -> Result<Vec<Trouble>, Problem> {
        let alike = read_all(&self.connection, TROUBLES, |row| {
            Ok(Trouble {
                state: read_state(row, "state")?,
                stage: row.get("failure_stage")?,
                cause: row.get("failure_cause")?,
                devices: read_count(row, "devices")?,
                reasons: 1,
                example_key: row.get("key")?,
                example: row.get("failure")?,
            })
        })?;
        let mut troubles = Troubles::default();
        alike.into_iter().for_each(|trouble| troubles.add(trouble));
        Ok(troubles.finish())
    }

    /// All runs, oldest first.
    pub fn runs(&self) -> Result<Vec<RunInfo>, LedgerError> {
        self.named(self.read_runs())
    }

    pub(super) fn read_runs(&self) -> Result<Vec<RunInfo>, Problem> {
        read_all(&self.connection, "SELECT * FROM run ORDER BY id", |row| {
            Ok(RunInfo {
                id: row.get("id")?,
                started_at: row.get("started_at")?,
                ended_at: row.get("ended_at")?,
                pid: row.get("pid")?,
                settings: row.get("settings")?,
                outcome: row.get("outcome")?,
                summary: row.get("summary")?,
            })
        })
    }

    /// Names the ledger in an error.
    pub(super) fn named<T, P: Into<Problem>>(&self, outcome: Result<T, P>) -> Result<T, LedgerError> {
        outcome.map_err(|problem| problem.into().at(&self.path))
    }
}
