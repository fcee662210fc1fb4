//! What can be wrong with a ledger, in words that say what to do about it.
//!
//! Owns the translation of SQLite's and the operating system's errors. No error shows a private key, a token, or any
//! value of a row except its key. SQLite quotes statements in its errors, so all our statements pass values as
//! parameters.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::refusal::{BoundTo, LotRefusal, NotThere, Shown, Unmergeable};
use crate::event::{DeviceId, DeviceState};
use crate::identity::LotErrors;

/// A problem with a ledger.
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
    /// A new ledger was to be created, but there is a file of that name.
    #[error("the file is there already, and is left as it is")]
    Exists,
    /// Another fleetmint process has it open for writing.
    #[error("in use by another fleetmint process ({}); wait until it has ended, or stop it", Holder(.pid))]
    InUse {
        /// The other process, as recorded in the lock file; `None` if it has not written that yet.
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
    /// Another program has it open for writing.
    #[error(
        "another program is writing it and does not let go (a sqlite3 shell with an open transaction?); close it and run the same command again"
    )]
    Busy,
    /// The file is not a fleetmint ledger.
    #[error(
        "not a fleetmint ledger: {found}; it is left as it is. If it was a ledger once, restore a backup"
    )]
    NotALedger {
        /// What it is instead.
        found: String,
    },
    /// The ledger is missing, but its write-ahead log is there.
    #[error(
        "the file is missing, but {} is there and may hold private keys; put the ledger back beside it, or move it away to begin anew",
        .log.display()
    )]
    OrphanedLog {
        /// The write-ahead log.
        log: PathBuf,
    },
    /// This version does not know the schema.
    #[error(
        "written by a newer fleetmint: schema {found}, and this one knows up to {known}; use the newer one"
    )]
    Newer {
        /// The ledger's schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The file contains something that a ledger cannot contain.
    #[error(
        "damaged: {detail}. It is left as it is and is not repaired, for a guess could lose a key; keep a copy and restore a backup"
    )]
    Damaged {
        /// What was noticed.
        detail: String,
    },
    /// Commits that were acknowledged are missing.
    #[error(
        "has {found} commits where {noted} were made before: its write-ahead log {} is missing or damaged, or this is an old copy; \
         put the newest log or copy back. To go on without what was lost, certificates perhaps among it, remove {}",
        .log.display(), .lock.display()
    )]
    LostCommits {
        /// How many commits it has.
        found: u64,
        /// How many commits the crashed run had noted.
        noted: u64,
        /// The log in which the missing commits should be.
        log: PathBuf,
        /// The lock file with the noted number.
        lock: PathBuf,
    },
    /// There is no space left to write to.
    #[error(
        "no space left to write to; free some (df shows how much there is) and run the same command again"
    )]
    Full,
    /// The operating system denied access.
    #[error(
        "cannot be opened or written: {detail}; check that the file and its directory are there and are yours to write"
    )]
    Denied {
        /// The operating system's message.
        detail: String,
    },
    /// Its file system lacks the locks or shared memory that keep two processes apart.
    #[error(
        "its file system has no locks or no shared memory, as many network file systems have none: put the ledger on a local disk ({detail})"
    )]
    NotLocal {
        /// The operating system's message.
        detail: String,
    },
    /// It was made for another template, region, account or shard.
    #[error(
        "made for {what} {found}, and this run is for {wanted}; certificates or keys of it are there, so use that {what} again"
    )]
    OtherBinding {
        /// In what they differ.
        what: BoundTo,
        /// What the ledger was made for.
        found: String,
        /// What this run is for.
        wanted: String,
    },
    /// Settings that decide the content of identities differ from those that the first identities were made with.
    #[error(
        "its identities were made with other settings ({}); use those again, or change them for the devices that are still to come",
        .differences.join(", ")
    )]
    OtherContent {
        /// The settings that differ.
        differences: Vec<String>,
    },
    /// A ledger beside it has the same devices, from a lot that was cut into shards in another way.
    #[error(
        "this run is for {wanted}, and {} has devices of the same lot as {found}: both would issue certificates for them. Go on as \
         {found}; or, once `fleetmint status` says that nothing was issued there, remove that one", .other.display()
    )]
    OtherCut {
        /// The other ledger.
        other: PathBuf,
        /// The part of the lot that the other ledger has.
        found: String,
        /// What this run is for.
        wanted: String,
    },
    /// The ledger was merged into another, which has replaced it.
    #[error("merged into {into}, which goes on in its place; if that one is lost, go on with a backup of it")]
    MergedAway {
        /// The other ledger.
        into: String,
    },
    /// A merge of the ledger into another was interrupted.
    #[error(
        "a merge into {into} was interrupted; repeat it with the ledgers of all shards, and go on with the merged one"
    )]
    MergeUnfinished {
        /// The other ledger.
        into: String,
    },
    /// A ledger beside this one has the same devices and was merged into another, which goes on in its place.
    #[error("{} has devices of the same lot, and was merged into {into}: go on with that one, or a backup of it", .other.display())]
    OtherMerged {
        /// The ledger beside this one.
        other: PathBuf,
        /// What it was merged into.
        into: String,
    },
    /// The ledgers do not form a complete set of shards.
    #[error(transparent)]
    Unmergeable(#[from] Unmergeable),
    /// The keys sink cannot be written or read.
    #[error("its keys sink {} failed: {detail}", .file.display())]
    SinkFailed {
        /// A file of the sink.
        file: PathBuf,
        /// The operating system's error.
        detail: String,
    },
    /// Another ledger owns the keys sink.
    #[error("its keys sink {} belongs to another ledger: {by}", .sink.display())]
    SinkTaken {
        /// The sink.
        sink: PathBuf,
        /// The other ledger, and who made it the owner.
        by: String,
    },
    /// The keys sink has more than the ledger, which is an older copy of the one that wrote it.
    #[error("its keys sink {} has more than it: it is an older copy of the ledger that wrote that", .sink.display())]
    SinkAhead {
        /// The sink.
        sink: PathBuf,
    },
    /// The ledger has or would have private keys in plain text, and a sink takes only sealed ones.
    #[error("a keys sink has only sealed keys, and this ledger's are in plain text")]
    SinkPlainKey,
    /// There is no such keys sink.
    #[error("it has no keys sink {}", .sink.display())]
    SinkMissing {
        /// Where it was to be.
        sink: PathBuf,
    },
    /// A line of the keys sink is damaged.
    #[error("{}, line {line}: {detail}; the sink is damaged, and nothing was made from it", .sink.display())]
    SinkDamaged {
        /// The sink.
        sink: PathBuf,
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The keys sink has a device that is not in the lot, or not in this shard's part of it.
    #[error("{} has a certificate of the device {}, which {part} does not have", .sink.display(), Shown(.key))]
    SinkOtherLot {
        /// The sink.
        sink: PathBuf,
        /// The device's key.
        key: String,
        /// The part of the lot.
        part: String,
    },
    /// The keys sink is being written.
    #[error("{} is being written: stop the run that does, and restore again", .sink.display())]
    SinkGrows {
        /// The sink.
        sink: PathBuf,
    },
    /// Its keys are sealed, and the run would no longer seal them.
    #[error("its keys are sealed, and none is ever added in plain text: name the recipients again")]
    Unsealing,
    /// A plain key was passed to a ledger whose keys are sealed: a bug in the caller.
    #[error("a plain key for device number {} in a ledger whose keys are sealed; this is a bug, and nothing was written", .device.0)]
    PlainKey {
        /// The key's device.
        device: DeviceId,
    },
    /// Parameters were to change while devices may be registered with the previous ones.
    #[error(
        "{devices} of its devices may be registered with the parameters that were; a run with those settles them, and the parameters may change after it"
    )]
    Unsettled {
        /// How many devices.
        devices: u64,
    },
    /// The lot has changed in rows that must not change any more.
    #[error("{0}")]
    OtherLot(Box<LotRefusal>),
    /// The lot has another key column than the ledger.
    #[error(
        "its key column was {recorded}, and is {found}: devices could not be told apart; use {recorded} again"
    )]
    OtherKeyColumn {
        /// The ledger's key column.
        recorded: String,
        /// The lot's key column.
        found: String,
    },
    /// The ledger of an older version has to be rewritten, and the disk has no room for both files.
    #[error(
        "written by an older fleetmint, and there is no room to bring it up to date: {needed} bytes are needed beside it, and {free} are free"
    )]
    NoRoom {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The device's state does not permit the change: a bug in the caller.
    #[error("device {} is {}, which cannot become {change}; this is a bug, and nothing was written", Shown(.device), .state.name())]
    IllegalTransition {
        /// The device's key.
        device: String,
        /// Its state.
        state: DeviceState,
        /// The change that was asked for.
        change: &'static str,
    },
    /// No device has that number: a bug in the caller.
    #[error("there is no device number {}; this is a bug, and nothing was written", .device.0)]
    NoSuchDevice {
        /// The number.
        device: DeviceId,
    },
    /// Something that was asked for by name does not exist: the request is wrong, and the ledger is fine.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// An earlier commit failed, so it is not known what is durable.
    #[error(
        "an earlier write failed, and nothing more is written until the ledger is opened again; run the same command again"
    )]
    Poisoned,
    /// Keys were purged, but the log could not be emptied because another program has the ledger open.
    #[error(
        "the keys are blanked, but another program has the ledger open, so that they are still in its write-ahead log; close that program and run the same command again"
    )]
    Lingering,
    /// An operation of the operating system failed.
    #[error("{doing}: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// A read or write failed at the disk, or in a layer between it and us.
    #[error(
        "a read or write failed: {detail}; look at the disk, at quotas and limits of file sizes (ulimit -f), and at the system's log"
    )]
    Disk {
        /// SQLite's message.
        detail: String,
    },
    /// Any other SQLite error.
    #[error("SQLite: {detail}; look at the disk and the system's log")]
    Sqlite {
        /// SQLite's message.
        detail: String,
    },
}

/// Why a lot did not become a ledger, or does not match its ledger.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The lot itself is wrong; no ledger was made or changed.
    #[error("{0}")]
    Rows(LotErrors),
    /// Something is wrong with the ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Problem {
    /// Names the ledger at `path` in the error.
    pub(super) fn at(self, path: &Path) -> LedgerError {
        LedgerError { ledger: path.to_path_buf(), problem: self }
    }

    /// The problem that `source` stands for, an error from `doing` something to a file.
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

    /// Whether the caller is at fault, and the ledger is unchanged.
    pub(super) fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::IllegalTransition { .. }
                | Self::NoSuchDevice { .. }
                | Self::NotThere(_)
                | Self::PlainKey { .. }
        )
    }

    /// The ledger's content contradicts itself.
    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged { detail: detail.into() }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite quotes statements of its schema, including their line breaks.
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
            // Without an SQLite error code, a value violates our schema, or a required row is missing.
            None => Self::Damaged { detail },
        }
    }
}

/// Whether SQLite could not lock the file, or share memory with other processes that have it open.
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
