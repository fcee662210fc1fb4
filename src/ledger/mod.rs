//! The ledger: what a run must not forget, in SQLite.
//!
//! It holds the lot, its devices, their certificates with private keys and tokens, and the runs. It decides nothing
//! about retries and reads no clock: the caller passes every instant.
//!
//! - A ledger is created from a lot as a whole or not at all ([`Ledger::import`]). It is reopened with the same
//!   binding, and with the same lot or one whose changes are safe ([`Ledger::resume`]).
//! - One process writes it at a time; any number may read it ([`View`]).
//! - [`Ledger::commit`] returns after COMMIT has, with the write-ahead log flushed to the disk. [`Recorded`] is the
//!   proof.
//! - A ledger that is damaged, foreign or newer is refused and left as it is. Nothing is ever repaired by guessing.

mod account;
mod backup;
mod binding;
mod checkpoint;
mod commit;
mod error;
mod findings;
mod ids;
mod import;
mod integrity;
mod key_counts;
mod keys;
mod lock;
mod made;
mod merge;
mod opening;
mod pem;
mod place;
mod refusal;
mod restore;
mod resume;
mod retry;
mod rework;
mod row_digest;
mod rows;
mod schema;
mod select;
mod siblings;
mod sink;
mod sink_line;
mod sql;
mod status;
#[cfg(test)]
mod tests;
mod values;
mod view;

use std::ops::Deref;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, Transaction, params};

pub use account::Account;
pub use binding::{Binding, Content};
pub use commit::{Conflict, Contested, Receipt};
pub use error::{ImportError, LedgerError, Problem};
pub use findings::{Finding, Found};
pub use import::LotRows;
pub use key_counts::KeyCounts;
pub use made::{
    CredentialId, LastFinding, MadeCertificate, MadeDevice, MadeDevices, MadeKind, MadeScope, UNFINISHED,
    Undone,
};
pub use merge::{MERGE_OUTCOME, MERGED_OUTCOME, MERGING_OUTCOME, Merged};
#[cfg(all(any(test, fuzzing), feature = "emulator"))]
pub(crate) use pem::fuzz as fuzz_pem;
pub use refusal::{BoundTo, LotRefusal, NotThere, RefusedRow, Standing, Unmergeable};
pub use restore::{LostLedger, Restored};
pub use resume::LotChanges;
pub use retry::{GivenUp, RETRY_OUTCOME, Retry, Returned};
pub use rework::{REWORK_OUTCOME, Rework};
pub use select::{CertifiedDevice, RejectedDevice, Selection};
pub use siblings::Overlap;
pub use sink::SINK_OUTCOME;
pub use status::{RunStanding, RunStatus, Status};
pub use values::{Counts, LotInfo, OpenDevice, Work, Writer};
pub use view::{RunInfo, Trouble, View};

use crate::identity::{Identity, RowError};
use crate::instant;
use binding::Bound;
use checkpoint::Checkpoints;
use ids::KnownIds;
use lock::LedgerLock;
use opening::Look;
use place::Place;
use schema::Digests;

/// A value that the ledger has made durable. Only the ledger creates one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// Only for values that COMMIT has acknowledged, or that were read back.
    fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A run's number in its ledger, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub i64);

/// A ledger open for writing, by this process only, until it is dropped.
#[derive(Debug)]
pub struct Ledger {
    // The drop order matters: first the helper closes its connection, then the database closes, then the lock is
    // released.
    checkpoints: Option<Checkpoints>,
    view: View,
    lock: Option<LedgerLock>,
    run: Option<RunId>,
    health: Health,
    lot_changes: LotChanges,
    /// The ids of all certificates; loaded when first needed.
    known: Option<KnownIds>,
    /// Where every credential goes first, if anywhere.
    sink: Option<sink::Sink>,
}

/// Whether it is known what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    Poisoned,
}

impl Ledger {
    /// Creates a ledger at `path` from a lot, mode 0600: the whole of it, or nothing. `check` validates each row beyond
    /// what reading it did. Memory does not grow with the lot.
    ///
    /// # Errors
    /// [`ImportError::Rows`] with everything that is wrong with the lot, duplicate keys included; or the ledger exists,
    /// is in use, or cannot be written. Nothing is left behind then.
    pub fn import<I>(
        path: &Path,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let place = Place::of(path)?;
        let mut lock = LedgerLock::acquire(&place.lock).map_err(|problem| problem.at(path))?;
        opening::build(&place, &mut lock, |connection| {
            import::fill(connection, binding, lot, check, now)?;
            Ok(siblings::refuse_conflicts(connection, &place, binding)?)
        })
        .map_err(|refusal| refusal.at(path))?;
        Ok(Self::take_up(&place, lock, Look::Ahead)?)
    }

    /// Reopens the ledger at `path`, after checking the whole of it, with the lot that it was made from. Rows may have
    /// been added, changed, withdrawn and reordered; [`lot_changes`](Self::lot_changes) says what was taken over.
    /// `check` validates each row as in [`import`](Self::import), because its criteria may have changed.
    ///
    /// A row may change as long as its device is certainly not registered: a rejected device becomes Pending then, and
    /// one whose row is missing is withdrawn. A ledger in which nothing was issued is bound to `binding`, whatever it
    /// was bound to before.
    ///
    /// # Errors
    /// [`ImportError::Rows`] if the lot itself is wrong; or the ledger is in use, damaged, foreign, newer, bound to
    /// something else ([`Problem::OtherBinding`], [`Problem::OtherContent`]) or has devices whose rows must not change
    /// ([`Problem::OtherLot`]). Nothing is taken over then.
    pub fn resume<I>(
        path: &Path,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let mut ledger = Self::reopen(path)?;
        ledger.take_lot(binding, lot, check, now).map_err(|refusal| refusal.at(path))?;
        Ok(ledger)
    }

    /// Takes over all changes of a lot, or none of them.
    fn take_lot<I>(
        &mut self,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<(), import::Refusal>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let at = instant::to_text(now);
        let bound = binding::check(&self.view.connection, &self.view.lot.binding, binding)?;
        if self.lock.is_some() {
            let place = Place::of(self.view.path()).map_err(|error| error.problem)?;
            siblings::refuse_conflicts(&self.view.connection, &place, binding)?;
        }
        // Deferred: if nothing has changed, nothing is written, and there is no lock to wait for.
        let transaction = self.view.connection.transaction()?;
        let before = transaction.total_changes();
        let changes = resume::take(&transaction, &self.view.lot, lot, check, &at)?;
        let changes = LotChanges { bound_anew: bound == Bound::Anew, ..changes };
        if changes.bound_anew {
            binding::bind(&transaction, &self.view.lot.binding, binding, &at)?;
        }
        if transaction.total_changes() > before {
            let commits = schema::count_commit(&transaction)?;
            transaction.commit()?;
            self.view.lot = rows::read_lot(&self.view.connection)?;
            if let Some(lock) = &self.lock {
                lock.note(commits);
            }
        }
        self.lot_changes = changes;
        Ok(())
    }

    /// What [`resume`](Self::resume) took over from a changed lot.
    pub fn lot_changes(&self) -> &LotChanges {
        &self.lot_changes
    }

    /// Calls [`resume`](Self::resume) if there is a ledger at `path`, otherwise [`import`](Self::import).
    ///
    /// # Errors
    /// As for [`resume`](Self::resume) and [`import`](Self::import).
    pub fn open_or_import<I>(
        path: &Path,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        if Place::of(path)?.is_taken() {
            Self::resume(path, binding, lot, check, now)
        } else {
            Self::import(path, binding, lot, check, now)
        }
    }

    /// Reopens the ledger at `path` without its lot, after checking the whole of it.
    ///
    /// # Errors
    /// If the ledger is missing, in use, damaged, foreign or newer; or was merged into another
    /// ([`Problem::MergedAway`], [`Problem::MergeUnfinished`]), so that only that one knows where its devices stand.
    pub fn reopen(path: &Path) -> Result<Self, LedgerError> {
        Self::reopen_after(path, Look::Through)?.unless_merged()
    }

    /// Reopens the ledger at `path` without its lot and without checking the whole of it, which takes a second for
    /// every 100,000 devices: for work on few devices. [`View::for_each_certified`] compares every device that it reads
    /// with its digest.
    ///
    /// # Errors
    /// As [`reopen`](Self::reopen).
    pub fn reopen_unread(path: &Path) -> Result<Self, LedgerError> {
        Self::reopen_after(path, Look::Ahead)?.unless_merged()
    }

    fn unless_merged(self) -> Result<Self, LedgerError> {
        self.view.named(merge::refuse_merged(&self.view.connection))?;
        Ok(self)
    }

    fn reopen_after(path: &Path, look: Look) -> Result<Self, LedgerError> {
        let place = Place::of(path)?;
        place.refuse_absent().map_err(|problem| problem.at(path))?;
        let lock = LedgerLock::acquire(&place.lock).map_err(|problem| problem.at(path))?;
        place.remove_leftovers();
        Self::take_up(&place, lock, look)
    }

    fn take_up(place: &Place, mut lock: LedgerLock, look: Look) -> Result<Self, LedgerError> {
        let open = |lock: &mut LedgerLock| -> Result<Self, Problem> {
            let mut connection = opening::to_write(place, lock, look)?;
            let checkpoints = Checkpoints::watch(&mut connection, &place.ledger)?;
            let view = View::over(connection, &place.ledger)?;
            Ok(Self { checkpoints: Some(checkpoints), ..Self::new(view) })
        };
        let ledger = open(&mut lock).map_err(|problem| problem.at(&place.ledger))?;
        Ok(Self { lock: Some(lock), ..ledger })
    }

    /// Opens the ledger at `path` for reading, without a lock; a run may be writing it.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn open_read_only(path: &Path) -> Result<View, LedgerError> {
        View::open(path)
    }

    /// Creates a ledger in memory, for simulation. It differs from one in a file only in that it is gone once dropped.
    ///
    /// # Errors
    /// [`ImportError::Rows`] as in [`import`](Self::import).
    pub fn in_memory<I>(
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        Self::fill_memory(":memory:", binding, lot, check, now)
    }

    /// Creates a ledger in memory like [`in_memory`](Self::in_memory), but one that others in this process can open by
    /// its name: `file:NAME?mode=memory&cache=shared`. It exists while anyone has it open, so it can outlive an
    /// interrupted run.
    ///
    /// # Errors
    /// [`ImportError::Rows`] as in [`import`](Self::import).
    pub fn in_shared_memory<I>(
        name: &str,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        Self::fill_memory(&shared_memory(name), binding, lot, check, now)
    }

    /// Reopens a ledger in shared memory, as [`reopen`](Self::reopen) does one in a file.
    ///
    /// # Errors
    /// If it does not exist, or is damaged.
    pub fn reopen_in_shared_memory(name: &str) -> Result<Self, LedgerError> {
        let path = Path::new(IN_MEMORY);
        let named = |problem: Problem| problem.at(path);
        let connection = connect_in_memory(&shared_memory(name)).map_err(named)?;
        schema::identify(&connection).map_err(named)?;
        integrity::check(&connection).map_err(named)?;
        Ok(Self::new(View::over(connection, path).map_err(named)?))
    }

    fn fill_memory<I>(
        uri: &str,
        binding: &Binding,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Self, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let path = Path::new(IN_MEMORY);
        let named = |problem: Problem| problem.at(path);
        let mut connection = connect_in_memory(uri).map_err(named)?;
        schema::create(&mut connection).map_err(named)?;
        import::fill(&mut connection, binding, lot, check, now).map_err(|refusal| refusal.at(path))?;
        Ok(Self::new(View::over(connection, path).map_err(named)?))
    }

    fn new(view: View) -> Self {
        Self {
            checkpoints: None,
            view,
            lock: None,
            run: None,
            health: Health::Sound,
            lot_changes: LotChanges::default(),
            known: None,
            sink: None,
        }
    }

    /// The ledger, for reading.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Records that a run begins: everything committed from here on is marked as this run's.
    ///
    /// `settings` is JSON, without secrets.
    ///
    /// # Errors
    /// If writing fails, as in [`commit`](Self::commit).
    pub fn begin_run(&mut self, settings: &serde_json::Value, now: SystemTime) -> Result<RunId, LedgerError> {
        // Now, before anybody waits for a commit.
        self.load_known_ids()?;
        self.open_sink(now)?;
        let run = self.write(|transaction| {
            let sql = "INSERT INTO run (started_at, pid, settings) VALUES (?1, ?2, ?3)";
            let values = params![instant::to_text(now), std::process::id(), settings.to_string()];
            transaction.execute(sql, values)?;
            Ok(RunId(transaction.last_insert_rowid()))
        })?;
        self.run = Some(run);
        Ok(run)
    }

    /// Records how `run` ended. A crashed run never gets here, and is recognized by that.
    ///
    /// # Errors
    /// If writing fails, as in [`commit`](Self::commit).
    pub fn end_run(
        &mut self,
        run: RunId,
        outcome: &str,
        summary: &serde_json::Value,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        self.write(|transaction| {
            let sql = "UPDATE run SET ended_at = ?2, outcome = ?3, summary = ?4 WHERE id = ?1";
            transaction.execute(sql, params![run.0, instant::to_text(now), outcome, summary.to_string()])?;
            Ok(())
        })?;
        self.run = None;
        Ok(())
    }

    /// Closes the ledger. Dropping it does the same, but cannot report an error. Everything committed is durable either
    /// way: closing only moves it from the write-ahead log into the file.
    ///
    /// # Errors
    /// If closing fails; the log then stays beside the file, and belongs to it.
    pub fn close(self) -> Result<(), LedgerError> {
        drop(self.checkpoints);
        let View { connection, path, .. } = self.view;
        connection.close().map_err(|(_, error)| Problem::from(error).at(&path))
    }

    /// Runs one write in a transaction of its own, and counts it. If SQLite fails, it is unknown what is durable, and
    /// no further write is accepted.
    fn write<T>(
        &mut self,
        statements: impl FnOnce(&Transaction<'_>) -> Result<T, Problem>,
    ) -> Result<T, LedgerError> {
        self.write_with(Digests::ByTrigger, statements)
    }

    fn write_with<T>(
        &mut self,
        digests: Digests,
        statements: impl FnOnce(&Transaction<'_>) -> Result<T, Problem>,
    ) -> Result<T, LedgerError> {
        if self.health == Health::Poisoned {
            return Err(Problem::Poisoned.at(&self.view.path));
        }
        self.view.named(schema::set_digests(&self.view.connection, digests))?;
        let outcome = commit::commit_counted(&mut self.view.connection, statements);
        if outcome.as_ref().is_err_and(|problem| !problem.is_callers()) {
            self.health = Health::Poisoned;
        }
        let (written, commits) = self.view.named(outcome)?;
        if let Some(lock) = &self.lock {
            lock.note(commits);
        }
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.after_commit(&self.view.connection);
        }
        Ok(written)
    }

    /// Runs one write whose lines are durable in the keys sink before it is committed.
    fn write_to_sink_first<T>(
        &mut self,
        digests: Digests,
        statements: impl FnOnce(&Transaction<'_>, &mut Option<Vec<sink_line::Line>>) -> Result<T, Problem>,
    ) -> Result<T, LedgerError> {
        let mut sink = self.sink.take();
        let written = self.write_with(digests, |transaction| {
            let mut lines = sink.is_some().then(Vec::new);
            let written = statements(transaction, &mut lines)?;
            if let (Some(sink), Some(lines)) = (&mut sink, lines) {
                sink.append(&lines, schema::read_commits(transaction)? + 1)?;
            }
            Ok(written)
        });
        self.sink = sink;
        written
    }

    /// Moves the log into the file if it is long enough; call it when idle.
    pub fn rest(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.rest(&self.view.connection);
        }
    }
}

/// The path that errors show for a ledger in memory.
const IN_MEMORY: &str = ":memory:";

fn shared_memory(name: &str) -> String {
    format!("file:{name}?mode=memory&cache=shared")
}

fn connect_in_memory(uri: &str) -> Result<Connection, Problem> {
    let connection = Connection::open_with_flags(uri, OpenFlags::default())?;
    schema::set_up(&connection)?;
    schema::set_up_writing(&connection)?;
    Ok(connection)
}
