//! How a ledger stands: what became of its devices, its runs, and who writes it at this moment.
//!
//! Owns the judgement whether a run that never ended is still running. Takes no lock and changes nothing.

use super::error::{LedgerError, Problem};
use super::place::Place;
use super::values::{Counts, Writer};
use super::view::{RunInfo, Trouble, View};
use super::{lock, rows};

/// How a ledger stands, all of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many devices are in which state.
    pub counts: Counts,
    /// What devices were left, rejected or given up for.
    pub troubles: Vec<Trouble>,
    /// All runs, the first one first.
    pub runs: Vec<RunStatus>,
    /// Whether a private key stands in it in plain text.
    pub holds_plain_keys: bool,
    /// The process that has it, if one does.
    pub writer: Option<Writer>,
}

/// A run and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// The run.
    pub run: RunInfo,
    /// How it stands.
    pub standing: RunStanding,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStanding {
    /// It has said how it ended.
    Ended,
    /// It goes on.
    Running,
    /// Its process is gone, and it never said how it ended.
    Crashed,
}

/// Stops at the first one that it finds, which is the first one that there is in most ledgers.
const HOLDS_PLAIN_KEYS: &str =
    "SELECT EXISTS (SELECT 1 FROM credential WHERE private_key IS NOT NULL AND sealing IS NULL AND purged_at IS NULL)
    OR EXISTS (SELECT 1 FROM prepared_key WHERE private_key IS NOT NULL AND sealing IS NULL)";

impl View {
    /// How the ledger stands; a run may be writing it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn status(&self) -> Result<Status, LedgerError> {
        // A run that had not ended before the look at the lock, has not ended after it, and does not hold it, has crashed.
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
