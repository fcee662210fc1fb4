//! Reads SQLite's rows into values, and checks that legal changes can have led to them.

use std::time::SystemTime;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::error::Problem;
use super::keys::read_stored_key;
use super::pem::{self, CERTIFICATE};
use super::sql::{read_all, read_count, read_json};
use super::values::{Counts, LotInfo, OpenDevice, Work};
use super::{Binding, Content, Recorded, ids, instant};
use crate::certificate::{CertificateId, IssuedCertificate, PreparedKey, Secret, SigningRequest};
use crate::event::{DeviceId, DeviceState, Registration};
use crate::identity::{Identity, LotShape};
use crate::shard::Shard;

pub(super) fn read_lot(connection: &Connection) -> Result<LotInfo, Problem> {
    let mut lots = read_all(connection, "SELECT * FROM lot", |row| {
        let columns: Vec<String> = read_json(row, "columns")?;
        let key_column: String = row.get("key_column")?;
        let at = columns.iter().position(|column| *column == key_column);
        let key_column = at.ok_or_else(|| Problem::damaged("its lot has no key column"))?;
        Ok(LotInfo {
            source: row.get("source")?,
            digest: row.get("digest")?,
            shape: LotShape { columns, key_column },
            devices: read_count(row, "devices")?,
            binding: Binding {
                template: row.get("template")?,
                region: row.get("region")?,
                account: row.get::<_, String>("account")?.as_str().into(),
                content: read_content(row)?,
                shard: read_shard(row)?,
            },
            created_at: row.get("created_at")?,
        })
    })?;
    lots.pop().ok_or_else(|| Problem::damaged("it has no lot"))
}

fn read_content(row: &Row<'_>) -> Result<Option<Content>, Problem> {
    match row.get::<_, Option<String>>("content")? {
        None => Ok(None),
        Some(_) => read_json(row, "content").map(Some),
    }
}

fn read_shard(row: &Row<'_>) -> Result<Option<Shard>, Problem> {
    let shard = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let (index, of) = (shard(row.get("shard")?), shard(row.get("shards")?));
    Ok(index.zip(of).map(|(index, of)| Shard { index, of }))
}

pub(super) fn read_counts(connection: &Connection) -> Result<Counts, Problem> {
    let mut counts = Counts::default();
    let sql = "SELECT state, registration, count(*) AS devices FROM device GROUP BY state, registration";
    let groups = read_all(connection, sql, |row| {
        Ok((read_state(row, "state")?, read_registration(row)?, read_count(row, "devices")?))
    })?;
    for (state, registration, devices) in groups {
        let counted = match (state, registration) {
            (DeviceState::Pending, _) => &mut counts.pending,
            (DeviceState::Issued, Some(Registration::NotSent)) => &mut counts.issued_not_sent,
            (DeviceState::Issued, _) => &mut counts.issued_may_sent,
            (DeviceState::Registered, _) => &mut counts.registered,
            (DeviceState::Rejected, _) => &mut counts.rejected,
            (DeviceState::Unknown, _) => &mut counts.unknown,
            (DeviceState::Withdrawn, _) => &mut counts.withdrawn,
            (DeviceState::Removed, _) => &mut counts.removed,
        };
        *counted += devices;
    }
    Ok(counts)
}

pub(super) fn read_open_device(row: &Row<'_>, columns: usize) -> Result<OpenDevice, Problem> {
    let id = DeviceId(row.get("id")?);
    let values: Vec<String> = read_json(row, "parameters")?;
    if values.len() != columns {
        return Err(impossible(id, &format!("has {} values for {columns} columns", values.len())));
    }
    let identity = Identity { line: read_count(row, "line")?, key: row.get("key")?, values };
    let is_certified = has_certificate(row)?;
    let work = match (read_state(row, "state")?, read_registration(row)?) {
        (DeviceState::Pending, None) if !is_certified => {
            match row.get::<_, Option<String>>("signing_request")? {
                None => Work::Create,
                Some(request) => Work::Certify { request: Recorded::new(SigningRequest { pem: request }) },
            }
        }
        (DeviceState::Issued, Some(registration)) if is_certified => Work::Register {
            certificate: Recorded::new(read_certificate(row)?),
            issued_at: match row.get::<_, Option<String>>("ownership_token")?.as_deref() {
                // A restored ledger has no tokens: none counts as one that has expired.
                Some("") => SystemTime::UNIX_EPOCH,
                _ => read_instant(row, "issued_at")?,
            },
            registration,
        },
        (DeviceState::Issued, _) => return Err(impossible(id, "is issued, and lacks its certificate")),
        _ => return Err(impossible(id, "is pending, and holds a certificate")),
    };
    Ok(OpenDevice { id, identity, work })
}

fn read_certificate(row: &Row<'_>) -> Result<IssuedCertificate, Problem> {
    let token: Option<String> = row.get("ownership_token")?;
    let token = token.ok_or_else(|| Problem::damaged("an open certificate has no ownership token"))?;
    Ok(IssuedCertificate {
        certificate_id: read_certificate_id(row)?,
        certificate_pem: read_certificate_pem(row)?,
        private_key: read_stored_key(row)?,
        ownership_token: Secret::new(token),
    })
}

/// Whether the row has a certificate joined to it.
pub(super) fn has_certificate(row: &Row<'_>) -> Result<bool, Problem> {
    Ok(!matches!(row.get_ref("certificate_id")?, ValueRef::Null))
}

/// Reads `certificate`.
pub(super) fn read_certificate_pem(row: &Row<'_>) -> Result<String, Problem> {
    pem::restore(row.get_ref("certificate")?, CERTIFICATE)
}

/// A device's state before a change.
pub(super) struct Found {
    pub(super) state: DeviceState,
    /// The key prepared for it, if there is one.
    pub(super) prepared: Option<PreparedKey>,
}

/// Reads one device's state in a single query, because every change of a run begins with it.
pub(super) fn find_device(connection: &Connection, device: DeviceId) -> Result<Found, Problem> {
    let sql =
        "SELECT device.state, prepared_key.signing_request, prepared_key.private_key, NULL AS private_key_label,
                      sealing.recipients, NULL AS purged_at
               FROM device
               LEFT JOIN prepared_key ON prepared_key.device = device.id
               LEFT JOIN sealing ON sealing.id = prepared_key.sealing
               WHERE device.id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([device.0])?;
    let row = rows.next()?.ok_or(Problem::NoSuchDevice { device })?;
    let prepared = match row.get("signing_request")? {
        None => None,
        Some(pem) => {
            Some(PreparedKey { private_key: read_stored_key(row)?, request: SigningRequest { pem } })
        }
    };
    Ok(Found { state: read_state(row, "state")?, prepared })
}

/// The key of one device.
pub(super) fn find_key(connection: &Connection, device: DeviceId) -> Result<String, Problem> {
    let mut statement = connection.prepare_cached("SELECT key FROM device WHERE id = ?1")?;
    Ok(statement.query_row([device.0], |row| row.get(0))?)
}

pub(super) fn read_state(row: &Row<'_>, column: &str) -> Result<DeviceState, Problem> {
    let name: String = row.get(column)?;
    DeviceState::from_name(&name).ok_or_else(|| Problem::damaged("a device is in a state that is none"))
}

/// The name of a [`Registration`] in the ledger.
pub(super) fn registration_name(registration: Registration) -> &'static str {
    match registration {
        Registration::NotSent => "not_sent",
        Registration::MaySent => "may_sent",
    }
}

pub(super) fn read_registration(row: &Row<'_>) -> Result<Option<Registration>, Problem> {
    let name: Option<String> = row.get("registration")?;
    match name.as_deref() {
        None => Ok(None),
        Some("not_sent") => Ok(Some(Registration::NotSent)),
        Some("may_sent") => Ok(Some(Registration::MaySent)),
        Some(_) => Err(Problem::damaged("a device's registration is neither not_sent nor may_sent")),
    }
}

pub(super) fn read_certificate_id(row: &Row<'_>) -> Result<CertificateId, Problem> {
    ids::restore(row.get_ref("certificate_id")?)
}

fn read_instant(row: &Row<'_>, column: &str) -> Result<SystemTime, Problem> {
    let text: String = row.get(column)?;
    instant::from_text(&text).ok_or_else(|| Problem::damaged(format!("{column} is not an instant")))
}

pub(super) fn impossible(device: DeviceId, what: &str) -> Problem {
    Problem::damaged(format!("device number {} {what}", device.0))
}
