//! What was made in the account for a ledger's devices: for verbs that look at it, or take it out again.
//!
//! Owns the choice of such devices, and what is written once nothing of one is left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::{Connection, Row, Transaction, named_params, params};
use serde_json::Value;

use super::error::{LedgerError, Problem};
use super::findings::{Finding, write_findings};
use super::rows::{has_certificate, impossible, read_certificate_id, read_certificate_pem, read_state};
use super::sql::{read_all, read_count, read_json, write_one};
use super::{Ledger, RunId, View, instant};
use crate::certificate::CertificateId;
use crate::event::{DeviceId, DeviceState};
use crate::identity::Identity;

/// Which devices are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeScope {
    /// The verb whose last finding about each of them is told.
    pub verb: &'static str,
    /// What there has to be of a device.
    pub of: MadeKind,
    /// Only those with one of these keys; empty for any key.
    pub keys: HashSet<String>,
    /// Only those that this run or a later one brought to their state.
    pub since_run: Option<RunId>,
    /// Only those about which the verb has found out nothing in this run or a later one.
    pub not_since: Option<RunId>,
}

/// What there has to be of a device in the account, as far as the ledger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeKind {
    /// It is registered.
    Registered,
    /// It is or once was registered, or the verb has begun with it and not come to an end.
    OnceRegistered,
    /// A certificate was issued for it, whatever became of that.
    Certified,
}

/// A device that something was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its row.
    pub identity: Identity,
    /// Its state.
    pub state: DeviceState,
    /// The thing that it is, or once was, registered as; `None` if it never was, or the template has no thing.
    pub thing_name: Option<String>,
    /// When it came to its state, RFC 3339.
    pub updated_at: Option<String>,
    /// The run that brought it there.
    pub run: Option<RunId>,
    /// The certificates that were issued for it and not deleted, the first one first.
    pub certificates: Vec<MadeCertificate>,
    /// What the verb last found out about it, since it came to its state.
    pub finding: Option<LastFinding>,
}

/// What a verb last found out about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFinding {
    /// In a word.
    pub outcome: String,
    /// The rest, JSON.
    pub details: Value,
    /// When, RFC 3339.
    pub found_at: String,
}

/// The number of a certificate's row in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(i64);

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeCertificate {
    /// The number of its row.
    pub row: CredentialId,
    /// Its id.
    pub id: CertificateId,
    /// The certificate, PEM.
    pub pem: String,
    /// When the ledger got it, RFC 3339.
    pub issued_at: String,
    /// Whether it is the one that its device has; others are retired.
    pub is_in_use: bool,
}

impl MadeDevice {
    /// The certificate that it has.
    pub fn certificate(&self) -> Option<&MadeCertificate> {
        self.certificates.iter().find(|certificate| certificate.is_in_use)
    }
}

#[cfg(test)]
impl MadeCertificate {
    /// One with this PEM, in use.
    pub(crate) fn sample(pem: &str) -> Self {
        let id = "c0".repeat(32).try_into().expect("64 digits are an id");
        Self { row: CredentialId(1), id, pem: pem.to_owned(), issued_at: String::new(), is_in_use: true }
    }
}

/// The outcomes of a finding after which there is still something to do.
pub const UNFINISHED: [&str; 3] = ["begun", "policies", "kept"];

/// What was found out about a device, and which of its certificates the account does not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// What was found out.
    pub finding: Finding,
    /// All certificates of the device, if the account has none of them any more; empty if it may have one.
    pub gone: Vec<CredentialId>,
}

/// What few devices have besides: certificates that they no longer use, and registrations that were replaced.
#[derive(Debug, Default)]
struct Past {
    /// Rows of retired certificates, by device.
    retired: HashMap<i64, Vec<i64>>,
    /// The last thing of devices that were given back to be certified anew.
    reworked: BTreeMap<i64, Option<String>>,
}

/// The devices of a [`MadeScope`], page by page.
#[derive(Debug)]
pub struct MadeDevices {
    scope: MadeScope,
    past: Past,
    after: i64,
}

const DEVICES: &str = "
    SELECT device.id, device.line, device.key, device.parameter_values AS parameters, device.state, device.thing_name,
           device.updated_at, device.run, finding.outcome, finding.details, finding.found_at,
           finding.run AS found_in,
           credential.id AS credential, credential.certificate_id, credential.certificate, credential.issued_at
    FROM device
    LEFT JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
    LEFT JOIN finding ON finding.device = device.id AND finding.verb = :verb
                     AND finding.found_at >= coalesce(device.updated_at, '')
    WHERE device.id > :after
    ORDER BY device.id";

impl View {
    /// The devices of `scope`, from the first on.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn made_devices(&self, scope: MadeScope) -> Result<MadeDevices, LedgerError> {
        let past = self.named(read_past(&self.connection))?;
        Ok(MadeDevices { scope, past, after: 0 })
    }

    /// The next of `devices`, `limit` at most; none at the end.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn next_made(&self, devices: &mut MadeDevices, limit: usize) -> Result<Vec<MadeDevice>, LedgerError> {
        self.named(self.read_made(devices, limit))
    }

    /// How many devices `scope` chooses. Looks at every device.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn count_made(&self, scope: &MadeScope) -> Result<u64, LedgerError> {
        let count = || -> Result<u64, Problem> {
            let past = read_past(&self.connection)?;
            let mut statement = self.connection.prepare_cached(DEVICES)?;
            let mut rows = statement.query(named_params! { ":verb": scope.verb, ":after": 0 })?;
            let mut devices = 0;
            while let Some(row) = rows.next()? {
                devices += u64::from(is_chosen(row, scope, &past)?);
            }
            Ok(devices)
        };
        self.named(count())
    }

    fn read_made(&self, devices: &mut MadeDevices, limit: usize) -> Result<Vec<MadeDevice>, Problem> {
        let MadeDevices { scope, past, after } = devices;
        let mut statement = self.connection.prepare_cached(DEVICES)?;
        let mut rows = statement.query(named_params! { ":verb": scope.verb, ":after": *after })?;
        let mut chosen = Vec::new();
        while chosen.len() < limit {
            let Some(row) = rows.next()? else { break };
            *after = row.get("id")?;
            if is_chosen(row, scope, past)? {
                chosen.push(self.read_made_device(row, past)?);
            }
        }
        Ok(chosen)
    }

    fn read_made_device(&self, row: &Row<'_>, past: &Past) -> Result<MadeDevice, Problem> {
        let id: i64 = row.get("id")?;
        let values: Vec<String> = read_json(row, "parameters")?;
        let columns = self.lot.shape.columns.len();
        if values.len() != columns {
            let what = format!("has {} values for {columns} columns", values.len());
            return Err(impossible(DeviceId(id), &what));
        }
        let mut certificates = Vec::new();
        for credential in past.retired.get(&id).into_iter().flatten() {
            let sql = "SELECT id AS credential, certificate_id, certificate, issued_at FROM credential WHERE id = ?1";
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query([credential])?;
            let row = rows.next()?.ok_or_else(|| Problem::damaged("a certificate went away"))?;
            certificates.push(read_made_certificate(row, false)?);
        }
        if has_certificate(row)? {
            certificates.push(read_made_certificate(row, true)?);
        }
        let recorded: Option<String> = row.get("thing_name")?;
        let outcome: Option<String> = row.get("outcome")?;
        let finding = outcome
            .map(|outcome| {
                let found_at = row.get("found_at")?;
                Ok::<_, Problem>(LastFinding { outcome, details: read_json(row, "details")?, found_at })
            })
            .transpose()?;
        Ok(MadeDevice {
            id: DeviceId(id),
            identity: Identity { line: read_count(row, "line")?, key: row.get("key")?, values },
            state: read_state(row, "state")?,
            thing_name: recorded.or_else(|| past.reworked.get(&id).cloned().flatten()),
            updated_at: row.get("updated_at")?,
            run: row.get::<_, Option<i64>>("run")?.map(RunId),
            certificates,
            finding,
        })
    }
}

fn is_chosen(row: &Row<'_>, scope: &MadeScope, past: &Past) -> Result<bool, Problem> {
    let id: i64 = row.get("id")?;
    let state = read_state(row, "state")?;
    let is_registered = state == DeviceState::Registered;
    let once_registered = || -> Result<bool, Problem> {
        let outcome: Option<String> = row.get("outcome")?;
        let is_unfinished = outcome.is_some_and(|outcome| UNFINISHED.contains(&outcome.as_str()));
        let was_reworked = past.reworked.contains_key(&id) && past.retired.contains_key(&id);
        Ok(is_registered || was_reworked || is_unfinished)
    };
    let is_of_kind = match scope.of {
        MadeKind::Registered => is_registered,
        MadeKind::OnceRegistered => once_registered()?,
        MadeKind::Certified => once_registered()? || has_certificate(row)? || past.retired.contains_key(&id),
    };
    if !is_of_kind {
        return Ok(false);
    }
    let brought_by: Option<i64> = row.get("run")?;
    if scope.since_run.is_some_and(|RunId(since)| brought_by.is_none_or(|run| run < since)) {
        return Ok(false);
    }
    if !scope.keys.is_empty() && !scope.keys.contains(&row.get::<_, String>("key")?) {
        return Ok(false);
    }
    let found_in: Option<i64> = row.get("found_in")?;
    Ok(!matches!((scope.not_since, found_in), (Some(RunId(since)), Some(found)) if found >= since))
}

fn read_past(connection: &Connection) -> Result<Past, Problem> {
    let mut past = Past::default();
    let retired =
        "SELECT id, device FROM credential WHERE retired_at IS NOT NULL AND deleted_at IS NULL ORDER BY id";
    for (id, device) in read_all(connection, retired, |row| Ok((row.get(0)?, row.get(1)?)))? {
        past.retired.entry(device).or_default().push(id);
    }
    let reworked = "SELECT device, thing_name FROM rework ORDER BY id";
    past.reworked.extend(read_all(connection, reworked, |row| Ok((row.get(0)?, row.get(1)?)))?);
    Ok(past)
}

fn read_made_certificate(row: &Row<'_>, is_in_use: bool) -> Result<MadeCertificate, Problem> {
    Ok(MadeCertificate {
        row: CredentialId(row.get("credential")?),
        id: read_certificate_id(row)?,
        pem: read_certificate_pem(row)?,
        issued_at: row.get("issued_at")?,
        is_in_use,
    })
}

impl Ledger {
    /// Writes down what `verb` has undone: what it found out, and that the certificates of devices are gone, which makes those
    /// that were, or may have been, registered Removed. The names of their things stay, for people. Others keep their state.
    ///
    /// # Errors
    /// If writing fails, as in [`commit`](Self::commit); or there is no such device.
    pub fn record_undone(
        &mut self,
        verb: &str,
        undone: &[Undone],
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let (at, run) = (instant::to_text(now), self.run.map(|run| run.0));
        self.write(|transaction| {
            write_findings(transaction, verb, undone.iter().map(|undone| &undone.finding), &at, run)?;
            let gone = undone.iter().filter(|undone| !undone.gone.is_empty());
            gone.into_iter().try_for_each(|undone| write_gone(transaction, undone, &at, run))
        })
    }
}

/// A device whose registration was taken back for a rework had one all the same.
const REMOVE: &str = "
    UPDATE device SET state = 'removed', registration = NULL, updated_at = ?2, run = ?3
    WHERE id = ?1 AND (state IN ('registered', 'issued', 'unknown')
                       OR state = 'pending' AND EXISTS (SELECT 1 FROM rework WHERE rework.device = device.id))";

fn write_gone(
    transaction: &Transaction<'_>,
    undone: &Undone,
    at: &str,
    run: Option<i64>,
) -> Result<(), Problem> {
    let DeviceId(device) = undone.finding.device;
    for CredentialId(credential) in &undone.gone {
        // By its own number: there is no index on the devices of retired certificates.
        let sql = "UPDATE credential SET deleted_at = coalesce(deleted_at, ?2), retired_at = coalesce(retired_at, ?2)
                   WHERE id = ?1";
        write_one(transaction, sql, params![credential, at])?;
    }
    transaction.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([device])?;
    transaction.prepare_cached(REMOVE)?.execute(params![device, at, run])?;
    Ok(())
}
