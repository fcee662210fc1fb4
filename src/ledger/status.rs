//! The status of a ledger: its devices, its runs, and the process that is writing it.
//!
//! Owns the judgement whether an unfinished run is still running. Takes no lock and changes nothing.

use super::error::{LedgerError, Problem};
use super::place::Place;
use super::values::{Counts, Writer};
use super::view::{RunInfo, Trouble, View};
use super::{lock, rows};

/// The status of a ledger, from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many devices are in each state.
    pub counts: Counts,
    /// Why devices were left open, rejected or given up.
    pub troubles: Vec<Trouble>,
    /// All runs, oldest first.
    pub runs: Vec<RunStatus>,
    /// Whether the ledger has any private key in plain text.
    pub holds_plain_keys: bool,
    /// The process that has it open for writing, if there is one.
    pub writer: Option<Writer>,
}

/// A run and its standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// The run.
    pub run: RunInfo,
    /// Whether it has ended, is running or crashed.
    pub standing: RunStanding,
}

/// Whether a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStanding {
    /// It has recorded how it ended.
    Ended,
    /// It is still running.
    Running,
    /// Its process is gone, and it never recorded how it ended.
    Crashed,
}

/// Whether any key is in plain text. Stops at the first one found, which in most ledgers is the first key of all.
pub(super) const HOLDS_PLAIN_KEYS: &str =
    "SELECT EXISTS (SELECT 1 FROM credential WHERE private_key IS NOT NULL AND sealing IS NULL AND purged_at IS NULL)
    OR EXISTS (SELECT 1 FROM prepared_key WHERE private_key IS NOT NULL AND sealing IS NULL)";

impl View {
    /// The ledger's status; a run may be writing it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn status(&self) -> Result<Status, LedgerError> {
        // A run that had not ended before the lock was checked, has not ended after it, and does not hold the lock has
        // crashed.
        let before = self.runs()?;
        let writer = lock::holder(&Place::of(self.path())?.lock);
        self.named(self.read_status(&before, writer))
    }

    fn read_status(&self, before: &[RunInfo], writer: Option<Writer>) -> Result<Status, Problem> {
        let _one_instant = self.connection.unchecked_transaction()?;
        let runs = self.read_runs()?.into_iter();
        let holds_plain_keys = self.connection.query_row(HOLDS_PLAIN_KEYS, [], |row| row.get(0))?;
        Ok(Status {
            counts: rows::read_counts(&self.connection)?,
            troubles: self.read_troubles()?,
            runs: runs.map(|run| RunStatus { standing: judge(&run, before, writer), run }).collect(),
            holds_plain_keys,
            writer,
        })
    }
}

fn judge(run: &RunInfo, before: &[RunInfo], writer: Option<Writer>) -> RunStanding {
    let was_there = before.iter().any(|earlier| earlier.id == run.id);
    match writer {
        _ if run.ended_at.is_some() => RunStanding::Ended,
        _ if !was_there => RunStanding::Running,
        Some(Writer { pid }) if pid.is_none_or(|pid| pid == run.pid) => RunStanding::Running,
        _ => RunStanding::Crashed,
    }
}
