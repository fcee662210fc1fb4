//! Compares a lot with the ledger that was made from it: all changes are taken over, or everything is refused.
//!
//! Rows are told apart by their keys; their order does not matter. A device's state decides whether its row may change:
//! the row of a registered device may not, nor that of one that may be registered, until that is settled. Keeps no row
//! in memory.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Problem;
use super::import::{DeviceTable, LotRows, Refusal, is_own, key_column_name, line_number, values_to_text};
use super::refusal::{LotRefusal, RefusedRow, Standing};
use super::rows::{read_registration, read_state};
use super::sql::{read_count, write_one};
use super::values::LotInfo;
use crate::event::{DeviceState, Registration};
use crate::identity::{Identity, LotDigest, LotErrors, LotShape, RowError, new_key_fault};

/// What a ledger took over from a changed lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LotChanges {
    /// Rows with a new key.
    pub added: u64,
    /// Rows with new values under a known key.
    pub changed: u64,
    /// Devices whose row is gone, and which are now withdrawn.
    pub withdrawn: u64,
    /// Withdrawn devices whose row is back.
    pub returned: u64,
    /// Rows that are now on another line.
    pub moved: u64,
    /// Whether the ledger was bound to something else, which is possible while nothing is issued.
    pub bound_anew: bool,
}

/// Takes over a lot's changes within the transaction of `connection`. Reads the lot to its end.
pub(super) fn take<I>(
    connection: &Connection,
    recorded: &LotInfo,
    lot: LotRows<'_, I>,
    mut check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
    at: &str,
) -> Result<LotChanges, Refusal>
where
    I: Iterator<Item = Result<Identity, Vec<RowError>>>,
{
    refuse_other_key_column(recorded, &lot.shape)?;
    let mut errors = LotErrors::default();
    let mut digest = LotDigest::new(&lot.shape);
    let mut comparison = Comparison::new(connection, recorded, &lot.shape, at)?;
    for row in lot.rows {
        match row {
            Ok(identity) => {
                errors.add(check(&identity).err().into_iter().flatten());
                digest.row(&identity);
                if is_own(recorded.binding.shard, &recorded.source, &identity.key, identity.line) {
                    errors.add(comparison.meet(&identity)?);
                }
            }
            Err(found) => errors.add(found),
        }
    }
    if !errors.is_empty() {
        return Err(Refusal::Rows(errors));
    }
    Ok(comparison.finish(lot.source, &digest.finish())?)
}

/// Refuses another key column: devices are told apart by their keys, so no row would match.
fn refuse_other_key_column(recorded: &LotInfo, found: &LotShape) -> Result<(), Problem> {
    let (recorded, found) = (key_column_name(&recorded.shape)?, key_column_name(found)?);
    if recorded == found {
        return Ok(());
    }
    Err(Problem::OtherKeyColumn { recorded: recorded.to_owned(), found: found.to_owned() })
}

/// A lot being compared with its ledger.
struct Comparison<'a> {
    connection: &'a Connection,
    recorded: &'a LotInfo,
    columns: Columns<'a>,
    table: DeviceTable<'a>,
    at: &'a str,
    /// The number of the next device if nothing has changed.
    expected: i64,
    next_id: i64,
    met: Met,
    /// Devices met so far that were not withdrawn.
    known: u64,
    rows: u64,
    changes: LotChanges,
    refused: LotRefusal,
}

/// A device as stored in the ledger.
struct Stored {
    id: i64,
    key: String,
    line: u64,
    values: String,
    state: DeviceState,
    registration: Option<Registration>,
}

impl<'a> Comparison<'a> {
    fn new(
        connection: &'a Connection,
        recorded: &'a LotInfo,
        shape: &'a LotShape,
        at: &'a str,
    ) -> Result<Self, Problem> {
        let sql = "SELECT coalesce(max(id), 0), count(*) FILTER (WHERE state <> 'withdrawn') FROM device";
        let (last, devices): (i64, i64) =
            connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if u64::try_from(devices) != Ok(recorded.devices) {
            let made = recorded.devices;
            return Err(Problem::damaged(format!("it was made with {made} devices, and has {devices}")));
        }
        Ok(Self {
            connection,
            recorded,
            columns: Columns::new(&recorded.shape.columns, &shape.columns),
            table: DeviceTable::new(connection, key_column_name(shape)?)?,
            at,
            expected: 1,
            next_id: last + 1,
            met: Met::default(),
            known: 0,
            rows: 0,
            changes: LotChanges::default(),
            refused: LotRefusal::new(&recorded.source),
        })
    }

    /// Takes over one row; returns an error if its key was on an earlier line, or is new and not acceptable.
    fn meet(&mut self, identity: &Identity) -> Result<Option<RowError>, Problem> {
        self.rows += 1;
        let stored = match self.find(BY_ID, self.expected)? {
            Some(stored) if stored.key == identity.key => Some(stored),
            _ => self.find(BY_KEY, &identity.key)?,
        };
        let Some(stored) = stored else {
            let id = self.next_id;
            self.next_id += 1;
            self.met.add(id);
            self.changes.added += 1;
            let inserted = self.table.insert(id, identity)?;
            return Ok(new_key_fault(identity, self.table.key_column).or(inserted));
        };
        self.expected = stored.id + 1;
        if !self.met.add(stored.id) {
            return Ok(Some(self.table.twice(identity, stored.line)));
        }
        self.meet_known(identity, &stored)?;
        Ok(None)
    }

    fn meet_known(&mut self, identity: &Identity, stored: &Stored) -> Result<(), Problem> {
        let values = values_to_text(&identity.values);
        let is_same_text = stored.values == values;
        let differing = match &self.columns.rearranged {
            None if is_same_text => Vec::new(),
            _ => self.columns.differing(&stored.values, &identity.values),
        };
        let was_withdrawn = stored.state == DeviceState::Withdrawn;
        self.known += u64::from(!was_withdrawn);
        if !differing.is_empty() {
            if let Some(because) = stored.standing() {
                let key = stored.key.clone();
                self.refused.add(RefusedRow { because, line: identity.line, key, columns: differing });
                return Ok(());
            }
            self.changes.changed += 1;
        }
        self.changes.returned += u64::from(was_withdrawn);
        self.changes.moved += u64::from(stored.line != identity.line);
        if !is_same_text || stored.line != identity.line {
            let sql = "UPDATE device SET line = ?2, parameter_values = ?3 WHERE id = ?1";
            write_one(self.connection, sql, params![stored.id, line_number(identity), values])?;
        }
        let is_mended = stored.state == DeviceState::Rejected && !differing.is_empty();
        if was_withdrawn || is_mended { self.start_over(stored.id, DeviceState::Pending) } else { Ok(()) }
    }

    /// Gives up what a device has and moves it to `state`. The device is certainly not registered.
    fn start_over(&self, id: i64, state: DeviceState) -> Result<(), Problem> {
        self.connection.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([id])?;
        let sql = "UPDATE credential SET retired_at = ?2 WHERE device = ?1 AND retired_at IS NULL";
        self.connection.prepare_cached(sql)?.execute(params![id, self.at])?;
        let sql =
            "UPDATE device SET state = ?2, registration = NULL, failure_stage = NULL, failure_cause = NULL,
                   failure = NULL, updated_at = ?3 WHERE id = ?1";
        write_one(self.connection, sql, params![id, state.name(), self.at])
    }

    fn find(&self, sql: &str, value: impl rusqlite::ToSql) -> Result<Option<Stored>, Problem> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_row([value], |row| Ok(read_stored(row))).optional()?.transpose()
    }

    /// Withdraws the devices without a row, and records which lot this was.
    fn finish(mut self, source: &str, digest: &str) -> Result<LotChanges, Problem> {
        if self.known < self.recorded.devices || self.columns.rearranged.is_some() {
            self.look_at_unmet()?;
        }
        if self.refused.rows() > 0 {
            return Err(Problem::OtherLot(Box::new(self.refused)));
        }
        if self.changes == LotChanges::default() && self.columns.rearranged.is_none() {
            if digest == self.recorded.digest {
                return Ok(self.changes);
            }
            // What has changed in the lot may be other shards' rows alone.
            if self.recorded.binding.shard.is_none() {
                let detail = "its devices are those of the lot, and the lot's digest is another";
                return Err(Problem::damaged(detail));
            }
        }
        let sql = "UPDATE lot SET source = ?1, digest = ?2, columns = ?3, devices = ?4";
        let devices = i64::try_from(self.rows).unwrap_or(i64::MAX);
        self.connection.execute(sql, params![source, digest, values_to_text(self.columns.found), devices])?;
        Ok(self.changes)
    }

    fn look_at_unmet(&mut self) -> Result<(), Problem> {
        let mut after = 0;
        while let Some(stored) = self.find(NEXT, after)? {
            after = stored.id;
            if self.met.has(stored.id) {
                continue;
            }
            if self.columns.rearranged.is_some() {
                let values = values_to_text(&self.columns.rearrange(&stored.values));
                let sql = "UPDATE device SET parameter_values = ?2 WHERE id = ?1";
                write_one(self.connection, sql, params![stored.id, values])?;
            }
            if stored.state == DeviceState::Withdrawn {
                continue;
            }
            if let Some(because) = stored.standing() {
                let (line, key) = (stored.line, stored.key);
                self.refused.add(RefusedRow { because, line, key, columns: Vec::new() });
                continue;
            }
            self.changes.withdrawn += 1;
            self.start_over(stored.id, DeviceState::Withdrawn)?;
        }
        Ok(())
    }
}

const BY_ID: &str = "SELECT id, key, line, parameter_values, state, registration FROM device WHERE id = ?1";
const BY_KEY: &str = "SELECT id, key, line, parameter_values, state, registration FROM device WHERE key = ?1";
const NEXT: &str = "SELECT id, key, line, parameter_values, state, registration FROM device WHERE id > ?1
    ORDER BY id LIMIT 1";

fn read_stored(row: &Row<'_>) -> Result<Stored, Problem> {
    Ok(Stored {
        id: row.get("id")?,
        key: row.get("key")?,
        line: read_count(row, "line")?,
        values: row.get("parameter_values")?,
        state: read_state(row, "state")?,
        registration: read_registration(row)?,
    })
}

impl Stored {
    /// Why the device's row must not change; `None` while it is certainly not registered.
    fn standing(&self) -> Option<Standing> {
        match (self.state, self.registration) {
            (DeviceState::Registered, _) => Some(Standing::Registered),
            (DeviceState::Unknown, _) | (DeviceState::Issued, Some(Registration::MaySent) | None) => {
                Some(Standing::Perhaps)
            }
            (DeviceState::Issued, Some(Registration::NotSent)) => None,
            (
                DeviceState::Pending | DeviceState::Rejected | DeviceState::Withdrawn | DeviceState::Removed,
                _,
            ) => None,
        }
    }
}

/// The lot's columns compared with the ledger's.
struct Columns<'a> {
    recorded: &'a [String],
    found: &'a [String],
    /// For each of the lot's columns, its position in the ledger; `None` if the columns and their order are the same.
    rearranged: Option<Vec<Option<usize>>>,
}

impl<'a> Columns<'a> {
    fn new(recorded: &'a [String], found: &'a [String]) -> Self {
        let was_at = |name: &String| recorded.iter().position(|column| column == name);
        let rearranged = (recorded != found).then(|| found.iter().map(was_at).collect());
        Self { recorded, found, rearranged }
    }

    /// The values of a ledger's row in the order of the lot's columns; empty for new columns.
    fn rearrange(&self, stored: &str) -> Vec<String> {
        let mut stored: Vec<String> = serde_json::from_str(stored).unwrap_or_default();
        let Some(rearranged) = &self.rearranged else { return stored };
        let take = |at: &Option<usize>| at.and_then(|at| stored.get_mut(at)).map(std::mem::take);
        rearranged.iter().map(take).map(Option::unwrap_or_default).collect()
    }

    /// The names of the columns in which a row differs, including those that only one side has.
    fn differing(&self, stored: &str, found: &[String]) -> Vec<String> {
        let stored = self.rearrange(stored);
        let is_new = |at: usize| self.rearranged.as_ref().is_some_and(|was| was[at].is_none());
        let differs = |at: &usize| is_new(*at) || stored.get(*at) != found.get(*at);
        let differing = (0..self.found.len()).filter(differs).map(|at| &self.found[at]);
        let gone = self.recorded.iter().filter(|name| !self.found.contains(name));
        differing.chain(gone).cloned().collect()
    }
}

/// The devices met so far, one bit each.
#[derive(Default)]
struct Met(Vec<u64>);

impl Met {
    /// Adds a device; `false` if it was met before.
    fn add(&mut self, id: i64) -> bool {
        let (at, bit) = Self::place(id);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let is_new = self.0[at] & bit == 0;
        self.0[at] |= bit;
        is_new
    }

    fn has(&self, id: i64) -> bool {
        let (at, bit) = Self::place(id);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }

    fn place(id: i64) -> (usize, u64) {
        let id = usize::try_from(id).unwrap_or_default();
        (id / 64, 1 << (id % 64))
    }
}
