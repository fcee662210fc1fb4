//! What was created in the account for a ledger's devices: for verbs that check or remove it.
//!
//! Owns the choice of such devices, and what is recorded once nothing is left of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::{Connection, Row, Transaction, named_params, params};
use serde_json::Value;

use super::error::{LedgerError, Problem};
use super::findings::{Finding, write_findings};
use super::rows::{
    find_key, has_certificate, impossible, read_certificate_id, read_certificate_pem, read_state,
};
use super::schema::Digests;
use super::sink_line::Line;
use super::sql::{read_all, read_count, read_json, write_one};
use super::{Ledger, RunId, View, instant};
use crate::certificate::CertificateId;
use crate::event::{DeviceId, DeviceState};
use crate::identity::Identity;
use crate::shard::Shard;

/// Which devices to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeScope {
    /// The verb whose last finding is read for each device.
    pub verb: &'static str,
    /// What the account must have for a device.
    pub of: MadeKind,
    /// Only devices with one of these keys; empty for any key.
    pub keys: HashSet<String>,
    /// Only devices of this shard; `None` for any.
    pub shard: Option<Shard>,
    /// Only devices that reached their state in this run or a later one.
    pub since_run: Option<RunId>,
    /// Only devices without a finding of the verb from this run or a later one.
    pub not_since: Option<RunId>,
}

impl MadeScope {
    /// All devices of this kind, with no verb's findings.
    pub fn of(of: MadeKind) -> Self {
        Self { verb: "", of, keys: HashSet::new(), shard: None, since_run: None, not_since: None }
    }
}

/// What the account must have for a device, to the ledger's knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeKind {
    /// It is registered.
    Registered,
    /// It is or was registered, or the verb has begun with it and not finished.
    OnceRegistered,
    /// A certificate was issued for it, whatever became of that certificate.
    Certified,
}

/// A device for which something was created in the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its row.
    pub identity: Identity,
    /// Its state.
    pub state: DeviceState,
    /// The thing that it is or was registered as; `None` if it never was, or the template has no thing.
    pub thing_name: Option<String>,
    /// When it reached its state, RFC 3339.
    pub updated_at: Option<String>,
    /// The run in which it reached its state.
    pub run: Option<RunId>,
    /// The certificates issued for it and not deleted, oldest first.
    pub certificates: Vec<MadeCertificate>,
    /// The verb's last finding about it since it reached its state.
    pub finding: Option<LastFinding>,
}

/// A verb's last finding about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFinding {
    /// The outcome, in one word.
    pub outcome: String,
    /// The details, JSON.
    pub details: Value,
    /// The time of the finding, RFC 3339.
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
    /// When the ledger received it, RFC 3339.
    pub issued_at: String,
    /// Whether it is its device's current certificate; others are retired.
    pub is_in_use: bool,
}

impl MadeDevice {
    /// The current certificate.
    pub fn certificate(&self) -> Option<&MadeCertificate> {
        self.certificates.iter().find(|certificate| certificate.is_in_use)
    }
}

#[cfg(test)]
impl MadeCertificate {
    /// A certificate in use with this PEM.
    pub(crate) fn sample(pem: &str) -> Self {
        let id = "c0".repeat(32).try_into().expect("64 digits are an id");
        Self { row: CredentialId(1), id, pem: pem.to_owned(), issued_at: String::new(), is_in_use: true }
    }
}

/// The outcomes after which something remains to be done.
pub const UNFINISHED: [&str; 3] = ["begun", "policies", "kept"];

/// A finding about a device, and which of its certificates the account no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The finding.
    pub finding: Finding,
    /// All certificates of the device if the account has none of them any more; empty if it may still have one.
    pub gone: Vec<CredentialId>,
}

/// What only few devices have: retired certificates, and registrations that were replaced.
#[derive(Debug, Default)]
struct Past {
    /// Rows of retired certificates, by device.
    retired: HashMap<i64, Vec<i64>>,
    /// The last thing of devices that were returned for a rework.
    reworked: BTreeMap<i64, Option<String>>,
}

/// A cursor over the devices of a [`MadeScope`], read page by page.
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
    /// A cursor at the first device of `scope`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn made_devices(&self, scope: MadeScope) -> Result<MadeDevices, LedgerError> {
        let past = self.named(read_past(&self.connection))?;
        Ok(MadeDevices { scope, past, after: 0 })
    }

    /// The next devices, at most `limit`; empty at the end.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn next_made(&self, devices: &mut MadeDevices, limit: usize) -> Result<Vec<MadeDevice>, LedgerError> {
        self.named(self.read_made(devices, limit))
    }

    /// How many devices `scope` chooses. Reads every device.
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
    let key: String = row.get("key")?;
    let is_named = scope.keys.is_empty() || scope.keys.contains(&key);
    if !is_named || scope.shard.is_some_and(|shard| !shard.has(&key)) {
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
    /// Records what `verb` has undone: its findings, and which certificates are gone. A device whose certificates are
    /// gone becomes Removed if it was or may have been registered, and otherwise keeps its state. The names of things
    /// stay, for people to read.
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
        self.write_to_sink_first(Digests::ByTrigger, |transaction, lines| {
            write_findings(transaction, verb, undone.iter().map(|undone| &undone.finding), &at, run)?;
            let gone = undone.iter().filter(|undone| !undone.gone.is_empty());
            gone.into_iter().try_for_each(|undone| {
                let is_removed = write_gone(transaction, undone, &at, run)?;
                if let Some(lines) = lines.as_mut().filter(|_| is_removed) {
                    lines.push(Line::Removed { device: find_key(transaction, undone.finding.device)? });
                }
                Ok(())
            })
        })
    }
}

/// Moves a device to Removed if it is or may be registered, or is pending in a rework, and so was registered before.
const REMOVE: &str = "
    UPDATE device SET state = 'removed', registration = NULL, updated_at = ?2, run = ?3
    WHERE id = ?1 AND (state IN ('registered', 'issued', 'unknown')
                       OR state = 'pending' AND EXISTS (SELECT 1 FROM rework WHERE rework.device = device.id))";

/// Returns whether the device is Removed now.
fn write_gone(
    transaction: &Transaction<'_>,
    undone: &Undone,
    at: &str,
    run: Option<i64>,
) -> Result<bool, Problem> {
    let DeviceId(device) = undone.finding.device;
    for CredentialId(credential) in &undone.gone {
        // By row number: there is no index on the devices of retired certificates.
        let sql = "UPDATE credential SET deleted_at = coalesce(deleted_at, ?2), retired_at = coalesce(retired_at, ?2)
                   WHERE id = ?1";
        write_one(transaction, sql, params![credential, at])?;
    }
    transaction.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([device])?;
    Ok(transaction.prepare_cached(REMOVE)?.execute(params![device, at, run])? > 0)
}
