//! What can be wrong with a ledger, in words that say what to do about it.
//!
//! Owns the translation of SQLite's and the operating system's errors. No error shows a value of a row other than its key,
//! nor a certificate's key or token: SQLite quotes statements, and all our statements carry their values as parameters.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::resume::LotDifference;
use super::select::NotThere;
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
    #[error("the file is there already, and is left as it is; choose another --ledger")]
    Exists,
    /// Another run has it.
    #[error("in use by another fleetmint process ({}); wait until it has ended, or stop it", Holder(.pid))]
    InUse {
        /// The other process, as it wrote itself down; none if it had no time yet to do so.
        pid: Option<u32>,
    },
    /// A program other than fleetmint has it open for writing.
    #[error(
        "another program is writing it and does not let go (a sqlite3 shell with an open transaction?); close it and run the same command again"
    )]
    Busy,
    /// The file is something else.
    #[error(
        "not a fleetmint ledger: {found}; it is left as it is. Choose another --ledger, or, if it was a ledger once, restore a backup"
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
    /// The schema is an old one, and the ledger was opened for reading only.
    #[error(
        "written by an older fleetmint: schema {found}, wanted {known}; resume it once to bring it up to date"
    )]
    Older {
        /// The ledger's schema.
        found: i64,
        /// The schema wanted.
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
    /// It was made for another template, region or account.
    #[error(
        "made for {what} {found}, and this run is for {wanted}; use that {what} again, or another --ledger"
    )]
    OtherBinding {
        /// `template`, `region` or `account`.
        what: &'static str,
        /// What the ledger was made for.
        found: String,
        /// What this run is for.
        wanted: String,
    },
    /// It was made from another lot.
    #[error("made from another lot: {0}; use the lot as it was ({source}), or another --ledger", source = .0.lot)]
    OtherLot(Box<LotMismatch>),
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

/// Which lot a ledger was made from, and how the lot given differs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{difference}")]
pub struct LotMismatch {
    /// The name of the file that the ledger was made from.
    pub lot: String,
    /// How the lot given differs.
    pub difference: LotDifference,
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
        matches!(self, Self::IllegalTransition { .. } | Self::NoSuchDevice { .. } | Self::NotThere(_))
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

/// A text of the lot as it can be shown: on one line, and not without end.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 40;
        write!(f, "\"{}", self.0.chars().take(LONGEST).collect::<String>().escape_debug())?;
        f.write_str(if self.0.chars().nth(LONGEST).is_some() { "…\"" } else { "\"" })
    }
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
