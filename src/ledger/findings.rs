//! What verbs that check or change the account found out about devices.

use std::time::SystemTime;

use rusqlite::{Transaction, params};
use serde_json::Value;

use super::error::{LedgerError, Problem};
use super::sql::{read_json, write_one};
use super::{Ledger, View, instant};
use crate::event::DeviceId;

/// A verb's last finding about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The device.
    pub device: DeviceId,
    /// The outcome, in a word that the verb can count by.
    pub outcome: String,
    /// The details, JSON, without secrets.
    pub details: Value,
}

/// A finding, with what the ledger knows of its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The finding.
    pub finding: Finding,
    /// The device's key.
    pub key: String,
    /// The time of the finding, RFC 3339.
    pub found_at: String,
}

impl Ledger {
    /// Records the findings of `verb`, which replace its earlier ones about the same devices.
    ///
    /// # Errors
    /// If writing fails, as in [`commit`](Self::commit).
    pub fn record_findings(
        &mut self,
        verb: &str,
        findings: &[Finding],
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let (at, run) = (instant::to_text(now), self.run.map(|run| run.0));
        self.write(|transaction| write_findings(transaction, verb, findings, &at, run))
    }
}

/// Writes the findings of `verb`, which replace its earlier ones about the same devices.
pub(super) fn write_findings<'a>(
    transaction: &Transaction<'_>,
    verb: &str,
    findings: impl IntoIterator<Item = &'a Finding>,
    at: &str,
    run: Option<i64>,
) -> Result<(), Problem> {
    let sql = "INSERT INTO finding (device, verb, found_at, outcome, details, run) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (device, verb) DO UPDATE SET
               found_at = excluded.found_at, outcome = excluded.outcome, details = excluded.details, run = excluded.run";
    findings.into_iter().try_for_each(|Finding { device, outcome, details }| {
        write_one(transaction, sql, params![device.0, verb, at, outcome, details.to_string(), run])
    })
}

impl View {
    /// Passes each last finding of `verb` to `show`, in the order of the devices' numbers.
    ///
    /// # Errors
    /// If the ledger cannot be read; or the first error of `show`.
    pub fn for_each_finding<E: From<LedgerError>>(
        &self,
        verb: &str,
        mut show: impl FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT finding.device, finding.outcome, finding.details, finding.found_at, device.key
                   FROM finding JOIN device ON device.id = finding.device
                   WHERE finding.verb = ?1 ORDER BY finding.device";
        let mut statement = self.named(self.connection.prepare_cached(sql))?;
        let mut rows = self.named(statement.query([verb]))?;
        while let Some(row) = self.named(rows.next())? {
            let read = || -> Result<Found, Problem> {
                let device = DeviceId(row.get("device")?);
                let finding =
                    Finding { device, outcome: row.get("outcome")?, details: read_json(row, "details")? };
                Ok(Found { finding, key: row.get("key")?, found_at: row.get("found_at")? })
            };
            show(self.named(read())?)?;
        }
        Ok(())
    }
}
