//! Whether a lot is the one that a ledger was made from, and if not, how it differs.
//!
//! Compares row by row as the lot streams by; keeps no row.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, Row};

use super::Binding;
use super::error::{LotMismatch, Problem, Shown};
use super::import::{LotRows, Refusal, key_column_name, values_to_text};
use super::view::LotInfo;
use crate::identity::{Identity, LotDigest, LotErrors, RowError};

/// How a lot differs from the one that the ledger was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LotDifference {
    /// Its columns.
    Columns {
        /// The ledger's.
        recorded: Vec<String>,
        /// The lot's.
        found: Vec<String>,
    },
    /// Which column is the key.
    KeyColumn {
        /// The ledger's.
        recorded: String,
        /// The lot's.
        found: String,
    },
    /// Its rows.
    Rows {
        /// The first difference.
        first: RowDifference,
        /// Rows with other values under an old key.
        changed: u64,
        /// Rows with a key that the ledger does not have.
        added: u64,
        /// Keys of the ledger that no row has.
        missing: u64,
    },
}

/// How one row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowDifference {
    /// Other values under an old key.
    Changed {
        /// The row's line.
        line: u64,
        /// Its key.
        key: String,
        /// The columns that differ; their values are not shown, for they may be secrets.
        columns: Vec<String>,
    },
    /// A key that the ledger does not have.
    Added {
        /// The row's line.
        line: u64,
        /// Its key.
        key: String,
    },
    /// A key of the ledger that no row has.
    Missing {
        /// The line on which it was.
        line: u64,
        /// The key.
        key: String,
    },
    /// The same row at another rank.
    Moved {
        /// The row's line.
        line: u64,
        /// Its key.
        key: String,
    },
}

impl fmt::Display for LotDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns { recorded, found } => {
                write!(f, "its columns were {}, and are {}", recorded.join(", "), found.join(", "))
            }
            Self::KeyColumn { recorded, found } => {
                write!(f, "its key column was {recorded}, and is {found}")
            }
            Self::Rows { first, changed, added, missing } => {
                write!(f, "{first} (in all: {changed} rows changed, {added} added, {missing} missing)")
            }
        }
    }
}

impl fmt::Display for RowDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { line, key, columns } => {
                write!(f, "line {line} changed under the old key {}, in {}", Shown(key), columns.join(", "))
            }
            Self::Added { line, key } => write!(f, "line {line} has the new key {}", Shown(key)),
            Self::Missing { line, key } => {
                write!(f, "the row of key {} is missing, once on line {line}", Shown(key))
            }
            Self::Moved { line, key } => {
                write!(f, "line {line} has key {}, once at another place", Shown(key))
            }
        }
    }
}

/// Refuses a run that is for something else than the ledger was made for.
pub(super) fn check_binding(recorded: &Binding, wanted: &Binding) -> Result<(), Problem> {
    let parts = [
        ("account", &recorded.account, &wanted.account),
        ("region", &recorded.region, &wanted.region),
        ("template", &recorded.template, &wanted.template),
    ];
    match parts.into_iter().find(|(_, recorded, wanted)| recorded != wanted) {
        None => Ok(()),
        Some((what, recorded, wanted)) => {
            Err(Problem::OtherBinding { what, found: recorded.clone(), wanted: wanted.clone() })
        }
    }
}

/// Refuses a lot that is not the one the ledger was made from. Reads it to its end.
pub(super) fn compare<I>(
    connection: &Connection,
    recorded: &LotInfo,
    lot: LotRows<'_, I>,
    mut check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
) -> Result<(), Refusal>
where
    I: Iterator<Item = Result<Identity, Vec<RowError>>>,
{
    let refuse =
        |difference| Problem::OtherLot(Box::new(LotMismatch { lot: recorded.source.clone(), difference }));
    if let Some(difference) = compare_shapes(recorded, &lot)? {
        return Err(refuse(difference).into());
    }
    let mut errors = LotErrors::default();
    let mut digest = LotDigest::new(&lot.shape);
    let mut comparison = Comparison::new(connection, &recorded.shape.columns);
    for row in lot.rows {
        match row {
            Ok(identity) => {
                errors.add(check(&identity).err().into_iter().flatten());
                digest.row(&identity);
                comparison.meet(&identity)?;
            }
            Err(found) => errors.add(found),
        }
    }
    if !errors.is_empty() {
        return Err(Refusal::Rows(errors));
    }
    match comparison.finish(recorded.devices)? {
        Some(difference) => Err(refuse(difference).into()),
        None if digest.finish() != recorded.digest => {
            Err(Problem::damaged("its devices are those of the lot, and the lot's digest is another").into())
        }
        None => Ok(()),
    }
}

fn compare_shapes<I>(recorded: &LotInfo, lot: &LotRows<'_, I>) -> Result<Option<LotDifference>, Problem> {
    if recorded.shape.columns != lot.shape.columns {
        let found = lot.shape.columns.clone();
        return Ok(Some(LotDifference::Columns { recorded: recorded.shape.columns.clone(), found }));
    }
    if recorded.shape.key_column != lot.shape.key_column {
        let (recorded, found) = (key_column_name(&recorded.shape)?, key_column_name(&lot.shape)?);
        return Ok(Some(LotDifference::KeyColumn { recorded: recorded.to_owned(), found: found.to_owned() }));
    }
    Ok(None)
}

/// A lot passing by its ledger.
struct Comparison<'a> {
    connection: &'a Connection,
    columns: &'a [String],
    rank: i64,
    /// Rows whose key the ledger has.
    known: u64,
    changed: u64,
    added: u64,
    first: Option<RowDifference>,
    /// The device in whose place something else was first met: missing, unless it is met later.
    displaced: Option<Stored>,
}

/// A device as the ledger has it.
struct Stored {
    id: i64,
    key: String,
    line: i64,
    values: String,
}

impl<'a> Comparison<'a> {
    fn new(connection: &'a Connection, columns: &'a [String]) -> Self {
        Self { connection, columns, rank: 0, known: 0, changed: 0, added: 0, first: None, displaced: None }
    }

    /// Compares one row: with the device of its rank, which is next in the file, and only then by key.
    fn meet(&mut self, identity: &Identity) -> Result<(), Problem> {
        self.rank += 1;
        let at_rank = self.find("id = ?1", self.rank)?;
        let stored = match at_rank {
            Some(stored) if stored.key == identity.key => Some(stored),
            other => {
                let by_key = self.find("key = ?1", &identity.key)?;
                if self.first.is_none() && by_key.is_some() {
                    self.displaced = other;
                }
                by_key
            }
        };
        match stored {
            Some(stored) => self.meet_known(identity, &stored),
            None => {
                self.added += 1;
                self.note(RowDifference::Added { line: identity.line, key: identity.key.clone() });
            }
        }
        Ok(())
    }

    fn meet_known(&mut self, identity: &Identity, stored: &Stored) {
        self.known += 1;
        self.displaced.take_if(|displaced| displaced.key == identity.key);
        let (line, key) = (identity.line, identity.key.clone());
        if stored.values != values_to_text(&identity.values) {
            self.changed += 1;
            let columns = differing_columns(self.columns, &stored.values, &identity.values);
            self.note(RowDifference::Changed { line, key, columns });
        } else if stored.id != self.rank {
            self.note(RowDifference::Moved { line, key });
        }
    }

    fn note(&mut self, difference: RowDifference) {
        self.first.get_or_insert(difference);
    }

    fn find(&self, condition: &str, value: impl rusqlite::ToSql) -> Result<Option<Stored>, Problem> {
        let sql = format!("SELECT id, key, line, parameter_values FROM device WHERE {condition}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_row([value], read_stored).optional()?)
    }

    /// The verdict, once the lot has passed. `devices` is how many the ledger says that it has.
    fn finish(mut self, devices: u64) -> Result<Option<LotDifference>, Problem> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM device", [], |row| row.get(0))?;
        if u64::try_from(count) != Ok(devices) {
            return Err(Problem::damaged(format!("it was made with {devices} devices, and has {count}")));
        }
        let missing = devices.saturating_sub(self.known);
        if self.first.is_none() && missing > 0 {
            self.displaced = self.find("id = ?1", self.rank + 1)?;
        }
        let lost = self.displaced.take().map(|stored| RowDifference::Missing {
            line: u64::try_from(stored.line).unwrap_or_default(),
            key: stored.key,
        });
        let (changed, added) = (self.changed, self.added);
        Ok(lost.or(self.first).map(|first| LotDifference::Rows { first, changed, added, missing }))
    }
}

fn read_stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored { id: row.get(0)?, key: row.get(1)?, line: row.get(2)?, values: row.get(3)? })
}

fn differing_columns(columns: &[String], stored: &str, found: &[String]) -> Vec<String> {
    let stored: Vec<String> = serde_json::from_str(stored).unwrap_or_default();
    let differs = |(at, _): &(usize, &String)| stored.get(*at) != found.get(*at);
    columns.iter().enumerate().filter(differs).map(|(_, name)| name.clone()).collect()
}
