//! Creates a new ledger from a lot: completely, or not at all.
//!
//! Owns how a row is written to the ledger, and the search for duplicate keys. CSV is read elsewhere.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::error::{ImportError, Problem};
use super::row_digest::row_digest;
use super::schema::Digests;
use super::{Binding, binding, instant, schema};
use crate::event::DeviceState;
use crate::identity::{Identity, LotDigest, LotErrors, LotFault, LotShape, MADE_UP, RowError, new_key_fault};
use crate::shard::Shard;
use crate::wording::Excerpt;

/// A lot that is imported into a ledger, or compared with one.
#[derive(Debug)]
pub struct LotRows<'a, I> {
    /// The lot's file name, for people.
    pub source: &'a str,
    /// What its rows have in common.
    pub shape: LotShape,
    /// Its rows: each an identity, or everything that is wrong with it.
    pub rows: I,
}

/// Why a lot was refused, before the ledger's path is added to the error.
#[derive(Debug)]
pub(super) enum Refusal {
    Rows(LotErrors),
    Problem(Problem),
}

impl Refusal {
    pub(super) fn at(self, path: &std::path::Path) -> ImportError {
        match self {
            Self::Rows(errors) => ImportError::Rows(errors),
            Self::Problem(problem) => ImportError::Ledger(problem.at(path)),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Problem(error.into())
    }
}

/// Writes a lot into an empty ledger in one transaction, row by row; memory does not grow with the lot.
///
/// Continues after an error to find them all; nothing is written then.
pub(super) fn fill<I>(
    connection: &mut Connection,
    binding: &Binding,
    lot: LotRows<'_, I>,
    mut check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
    now: SystemTime,
) -> Result<(), Refusal>
where
    I: Iterator<Item = Result<Identity, Vec<RowError>>>,
{
    schema::set_digests(connection, Digests::ByStatement)?;
    let transaction = connection.transaction()?;
    let mut digest = LotDigest::new(&lot.shape);
    let mut errors = LotErrors::default();
    let (mut rows, mut devices) = (0_u64, 0);
    let mut table = DeviceTable::new(&transaction, key_column_name(&lot.shape)?)?;
    for row in lot.rows {
        match row {
            Ok(identity) => {
                rows += 1;
                digest.row(&identity);
                errors.add(check(&identity).err().into_iter().flatten());
                errors.add(new_key_fault(&identity, table.key_column));
                if is_own(binding.shard, lot.source, &identity.key, identity.line) {
                    devices += 1;
                    errors.add(table.insert(devices, &identity)?);
                }
            }
            Err(found) => errors.add(found),
        }
    }
    if rows == 0 && errors.is_empty() {
        errors.add([no_rows()]);
    }
    if !errors.is_empty() {
        return Err(Refusal::Rows(errors));
    }
    drop(table);
    insert_lot(&transaction, binding, lot.source, &lot.shape, &digest.finish(), devices, now)?;
    transaction.commit()?;
    Ok(schema::set_digests(connection, Digests::ByTrigger)?)
}

/// Whether a row of a lot belongs to a ledger. Made-up devices are dealt out in turn, so that each shard has as many as
/// it has arrivals for.
pub(super) fn is_own(shard: Option<Shard>, source: &str, key: &str, line: u64) -> bool {
    /// The line of the first row, after the header.
    const FIRST_ROW: u64 = 2;
    shard.is_none_or(|shard| match source {
        MADE_UP => shard.has_turn(line.saturating_sub(FIRST_ROW)),
        _ => shard.has(key),
    })
}

/// The device table while it is being filled.
pub(super) struct DeviceTable<'a> {
    insert: Statement<'a>,
    find_line: Statement<'a>,
    pub(super) key_column: &'a str,
}

impl<'a> DeviceTable<'a> {
    pub(super) fn new(connection: &'a Connection, key_column: &'a str) -> Result<Self, Problem> {
        Ok(Self {
            insert: connection.prepare(
                "INSERT INTO device (id, key, line, parameter_values, digest) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (key) DO NOTHING",
            )?,
            find_line: connection.prepare("SELECT line FROM device WHERE key = ?1")?,
            key_column,
        })
    }

    /// Inserts one device; if its key exists already, returns an error that names the earlier line.
    pub(super) fn insert(&mut self, id: i64, identity: &Identity) -> Result<Option<RowError>, Problem> {
        let values = values_to_text(&identity.values);
        let digest = digest_of_new(id, &identity.key, &values);
        if self.insert.execute(params![id, identity.key, line_number(identity), values, digest])? == 1 {
            return Ok(None);
        }
        let first: Option<i64> = self.find_line.query_row([&identity.key], |row| row.get(0)).optional()?;
        let first = first.and_then(|line| u64::try_from(line).ok()).unwrap_or_default();
        Ok(Some(self.twice(identity, first)))
    }

    /// The error for a row whose key is also on line `first`.
    pub(super) fn twice(&self, identity: &Identity, first: u64) -> RowError {
        RowError {
            line: identity.line,
            column: Some(self.key_column.to_owned()),
            fault: LotFault::Duplicate,
            found: format!("\"{}\", which is the key of line {first} too", Excerpt(&identity.key)),
            wanted: String::from("a key that no other row has"),
        }
    }
}

/// The digest of a device as imported, computed here because a call from SQL for each row would be slower.
fn digest_of_new(id: i64, key: &str, values: &str) -> i64 {
    use rusqlite::types::ValueRef::{Integer, Null, Text};
    let state = DeviceState::Pending.name();
    let columns = [Integer(id), Text(key.as_bytes()), Text(values.as_bytes()), Text(state.as_bytes())];
    row_digest(columns.into_iter().chain([Null; 8]))
}

/// A row's line number, as stored in the ledger.
pub(super) fn line_number(identity: &Identity) -> i64 {
    i64::try_from(identity.line).unwrap_or(i64::MAX)
}

/// A row's values, as stored in the ledger: a JSON array of texts.
pub(super) fn values_to_text(values: &[String]) -> String {
    serde_json::to_string(values).expect("texts are always valid JSON")
}

/// The name of a lot's key column.
pub(super) fn key_column_name(shape: &LotShape) -> Result<&str, Problem> {
    let name = shape.columns.get(shape.key_column).map(String::as_str);
    name.ok_or_else(|| Problem::damaged(format!("the lot has no column number {}", shape.key_column + 1)))
}

fn insert_lot(
    connection: &Connection,
    binding: &Binding,
    source: &str,
    shape: &LotShape,
    digest: &str,
    devices: i64,
    now: SystemTime,
) -> Result<(), Problem> {
    connection.execute(
        "INSERT INTO lot (id, source, digest, columns, key_column, devices, template, region, account, created_at,
                          content, shard, shards, row_digest)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
                 row_digest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12))",
        params![
            source,
            digest,
            values_to_text(&shape.columns),
            key_column_name(shape)?,
            devices,
            binding.template,
            binding.region,
            binding.account.to_string(),
            instant::to_text(now),
            binding.content.as_ref().map(binding::to_json),
            binding.shard.map(|shard| shard.index),
            binding.shard.map(|shard| shard.of),
        ],
    )?;
    Ok(())
}

fn no_rows() -> RowError {
    RowError {
        line: 1,
        column: None,
        fault: LotFault::Rows,
        found: String::from("a lot without rows"),
        wanted: String::from("at least one device"),
    }
}
