//! What can be wrong with a ledger, in words that say what to do about it.
//!
//! Owns the translation of SQLite's and the operating system's errors. No error shows a value of a row other than its key,
//! nor a certificate's key or token: SQLite quotes statements, and all our statements carry their values as parameters.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::refusal::{LotRefusal, NotThere, Shown, Unmergeable};
use crate::event::{DeviceId, DeviceState};
use crate::identity::LotErrors;

/// Something is wrong with a ledger: which, and what.
#[derive(Debug, thiserror::Error)]
#[error("ledger {}: {problem}", .ledger.display())]
pub struct LedgerError {
    /// The ledger's file; `:memory:` for one in memory.
    pub ledger: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no file of that name.
    #[error("there is no such file; check the path")]
    Missing,
    /// A new ledger was wanted, and there is a file of that name.
    #[error("the file is there already, and is left as it is")]
    Exists,
    /// Another run has it.
    #[error("in use by another fleetmint process ({}); wait until it has ended, or stop it", Holder(.pid))]
    InUse {
        /// The other process, as it wrote itself down; none if it had no time yet to do so.
        pid: Option<u32>,
    },
    /// The lock file beside it is a symbolic link.
    #[error(
        "its lock file {} is a symbolic link, which is never written through; find out who made it, and remove it",
        .lock.display()
    )]
    LinkedLock {
        /// The lock file.
        lock: PathBuf,
    },
    /// A program other than fleetmint has it open for writing.
    #[error(
        "another program is writing it and does not let go (a sqlite3 shell with an open transaction?); close it and run the same command again"
    )]
    Busy,
    /// The file is something else.
    #[error(
        "not a fleetmint ledger: {found}; it is left as it is. If it was a ledger once, restore a backup"
    )]
    NotALedger {
        /// What it is instead.
        found: String,
    },
    /// The write-ahead log of a ledger is there, and the ledger itself is not.
    #[error(
        "the file is missing, but {} is there and may hold private keys; put the ledger back beside it, or move it away to begin anew",
        .log.display()
    )]
    OrphanedLog {
        /// The write-ahead log.
        log: PathBuf,
    },
    /// The schema is one that this version does not know.
    #[error(
        "written by a newer fleetmint: schema {found}, and this one knows up to {known}; use the newer one"
    )]
    Newer {
        /// The ledger's schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// What is in the file is not what a ledger can hold.
    #[error(
        "damaged: {detail}. It is left as it is and is not repaired, for a guess could lose a key; keep a copy and restore a backup"
    )]
    Damaged {
        /// What was noticed.
        detail: String,
    },
    /// Commits that were acknowledged are not in it any more.
    #[error(
        "has {found} commits where {noted} were made before: its write-ahead log {} is missing or damaged, or this is an old copy; \
         put the newest log or copy back. To go on without what was lost, certificates perhaps among it, remove {}",
        .log.display(), .lock.display()
    )]
    LostCommits {
        /// How many commits it has.
        found: u64,
        /// How many the run that crashed on it had made.
        noted: u64,
        /// Where the missing ones should be.
        log: PathBuf,
        /// Where their number is noted.
        lock: PathBuf,
    },
    /// No room to write.
    #[error(
        "no space left to write to; free some (df shows how much there is) and run the same command again"
    )]
    Full,
    /// The operating system does not allow it.
    #[error(
        "cannot be opened or written: {detail}; check that the file and its directory are there and are yours to write"
    )]
    Denied {
        /// What was said.
        detail: String,
    },
    /// Its file system lacks what keeps two processes apart.
    #[error(
        "its file system has no locks or no shared memory, as many network file systems have none: put the ledger on a local disk ({detail})"
    )]
    NotLocal {
        /// What was said.
        detail: String,
    },
    /// It was made for another template, region or account.
    #[error(
        "made for {what} {found}, and this run is for {wanted}; certificates or keys of it are there, so use that {what} again"
    )]
    OtherBinding {
        /// `template`, `region`, `account` or `shard`.
        what: &'static str,
        /// What the ledger was made for.
        found: String,
        /// What this run is for.
        wanted: String,
    },
    /// What decides the content of identities is not what it was when the first of them was made.
    #[error(
        "its identities were made with other settings ({}); use those again, or change them for the devices that are still to come",
        .differences.join(", ")
    )]
    OtherContent {
        /// What differs.
        differences: Vec<String>,
    },
    /// A ledger beside it has to do with the same devices, and the lot was cut into shards otherwise for that one.
    #[error(
        "this run is for {wanted}, and {} has devices of the same lot as {found}: both would issue certificates for them. Go on as \
         {found}; or, once `fleetmint status` says that nothing was issued there, remove that one", .other.display()
    )]
    OtherCut {
        /// The other ledger.
        other: PathBuf,
        /// What it has of the lot.
        found: String,
        /// What this run is for.
        wanted: String,
    },
    /// The ledger was merged into another, which goes on in its place.
    #[error("merged into {into}, which goes on in its place; if that one is lost, merge again")]
    MergedAway {
        /// The other ledger.
        into: String,
    },
    /// The ledgers of shards do not make a whole.
    #[error(transparent)]
    Unmergeable(#[from] Unmergeable),
    /// Its keys are sealed, and were to be no longer.
    #[error("its keys are sealed, and none is ever added in plain text: name the recipients again")]
    Unsealing,
    /// A plain key was brought to a ledger whose keys are sealed: a bug in whoever brought it.
    #[error("a plain key for device number {} in a ledger whose keys are sealed; this is a bug, and nothing was written", .device.0)]
    PlainKey {
        /// Whose.
        device: DeviceId,
    },
    /// Parameters were to change while devices may be registered with those that were.
    #[error(
        "{devices} of its devices may be registered with the parameters that were; a run with those settles them, and the parameters may change after it"
    )]
    Unsettled {
        /// How many.
        devices: u64,
    },
    /// The lot has changed where what was done forbids it.
    #[error("{0}")]
    OtherLot(Box<LotRefusal>),
    /// Another column is to be the key.
    #[error(
        "its key column was {recorded}, and is {found}: devices could not be told apart; use {recorded} again"
    )]
    OtherKeyColumn {
        /// The ledger's.
        recorded: String,
        /// The lot's.
        found: String,
    },
    /// The ledger of an older version has to be written anew, and the disk has no room for both.
    #[error(
        "written by an older fleetmint, and there is no room to bring it up to date: {needed} bytes are needed beside it, and {free} are free"
    )]
    NoRoom {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A change that a device in its state cannot go through: a bug in whoever asked for it.
    #[error("device {} is {}, which cannot become {change}; this is a bug, and nothing was written", Shown(.device), .state.name())]
    IllegalTransition {
        /// The device's key.
        device: String,
        /// Its state.
        state: DeviceState,
        /// What was to become of it.
        change: &'static str,
    },
    /// No device has that number: a bug in whoever asked.
    #[error("there is no device number {}; this is a bug, and nothing was written", .device.0)]
    NoSuchDevice {
        /// The number.
        device: DeviceId,
    },
    /// Something that was asked for by name is not there: whoever asked is wrong, and the ledger is fine.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// A commit failed before, so that what is durable is not known.
    #[error(
        "an earlier write failed, and nothing more is written until the ledger is opened again; run the same command again"
    )]
    Poisoned,
    /// Keys were purged, and another program has the ledger open, so that its log could not be emptied.
    #[error(
        "the keys are blanked, but another program has the ledger open, so that they are still in its write-ahead log; close that program and run the same command again"
    )]
    Lingering,
    /// The operating system failed us.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What was said.
        source: io::Error,
    },
    /// The disk, or what stands between it and us, refused a read or a write.
    #[error(
        "a read or write failed: {detail}; look at the disk, at quotas and limits of file sizes (ulimit -f), and at the system's log"
    )]
    Disk {
        /// What SQLite said of it.
        detail: String,
    },
    /// SQLite failed in a way that has no better name here.
    #[error("SQLite: {detail}; look at the disk and the system's log")]
    Sqlite {
        /// What it said.
        detail: String,
    },
}

/// Why a lot did not become a ledger, or is not that of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The lot itself is wrong; no ledger was made or changed.
    #[error("{0}")]
    Rows(LotErrors),
    /// The ledger is.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Problem {
    /// The error of the ledger at `path`.
    pub(super) fn at(self, path: &Path) -> LedgerError {
        LedgerError { ledger: path.to_path_buf(), problem: self }
    }

    /// `source` came of `doing` something to a file.
    pub(super) fn io(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::NotFound => Self::Denied { detail: format!("{doing}: {source}") },
            _ => Self::Io { doing, source },
        }
    }

    /// Whether it is the caller who is wrong, and the ledger is as it was before.
    pub(super) fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::IllegalTransition { .. }
                | Self::NoSuchDevice { .. }
                | Self::NotThere(_)
                | Self::PlainKey { .. }
        )
    }

    /// What is in the ledger contradicts itself.
    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged { detail: detail.into() }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite quotes statements of its schema, line breaks and all.
        let detail = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        match error.sqlite_error_code() {
            Some(_) if error.sqlite_error().is_some_and(|error| is_not_local(error.extended_code)) => {
                Self::NotLocal { detail }
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::NotADatabase) => {
                Self::NotALedger { found: String::from("not an SQLite database") }
            }
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { detail },
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Denied { detail }
            }
            Some(ErrorCode::SystemIoFailure) => Self::Disk { detail },
            Some(_) => Self::Sqlite { detail },
            // What is not SQLite's own failure is a value that our schema does not allow, or a row that must be there.
            None => Self::Damaged { detail },
        }
    }
}

/// Whether SQLite could not lock a file, or share memory with others who have it open.
fn is_not_local(extended_code: i32) -> bool {
    use rusqlite::ffi;
    matches!(
        extended_code,
        ffi::SQLITE_IOERR_LOCK
            | ffi::SQLITE_IOERR_RDLOCK
            | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMLOCK
            | ffi::SQLITE_IOERR_SHMMAP
            | ffi::SQLITE_PROTOCOL
    )
}

struct Holder<'a>(&'a Option<u32>);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("its pid is not known"),
        }
    }
}
