//! Allows one run at a time on a ledger, by an operating system's lock on a file beside it.
//!
//! The lock is not on the ledger's own file: closing any other handle on that would drop SQLite's POSIX locks on it.
//! The lock ends with the process, however that ends. The file is removed when the ledger is closed.
//!
//! The file also notes the number of commits, each time after COMMIT has returned. If a crash leaves the file behind,
//! it shows whether the ledger still has everything that was acknowledged: SQLite silently takes a missing or damaged
//! write-ahead log for an empty or shorter one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Problem;
use super::place;
use super::values::Writer;

/// The right to write one ledger, until it is dropped.
#[derive(Debug)]
pub(super) struct LedgerLock {
    path: PathBuf,
    file: File,
    legacy: Legacy,
}

/// What happens to the file when the lock is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Legacy {
    /// It is removed: the ledger has everything that was noted.
    Nothing,
    /// It stays: a crashed run's note in it has not been checked yet.
    Note,
}

/// The content of the file.
#[derive(Debug, Default)]
struct Note {
    pid: Option<u32>,
    commits: u64,
}

/// How often the file may vanish between opening and locking it, each time because a holder closed its ledger.
const ATTEMPTS: usize = 16;

/// The fixed length of a note, so that each overwrites the one before it.
const NOTE_LENGTH: usize = 32;

impl LedgerLock {
    /// Takes the lock at `path` without waiting, or says who has it.
    pub(super) fn acquire(path: &Path) -> Result<Self, Problem> {
        for _ in 0..ATTEMPTS {
            let file = open(path).map_err(|error| {
                if place::is_link(&error) {
                    Problem::LinkedLock { lock: path.to_path_buf() }
                } else {
                    Problem::io("opening the lock file beside it", error)
                }
            })?;
            match file.try_lock() {
                Ok(()) => {}
                // A reader, such as `holder`, takes a shared lock, and only for a moment.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                    std::thread::yield_now();
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(Problem::InUse { pid: read_note(&file).pid }),
                Err(TryLockError::Error(error)) if place::has_no_locks(&error) => {
                    return Err(Problem::NotLocal { detail: format!("locking {}: {error}", path.display()) });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Problem::io("locking the lock file beside it", error));
                }
            }
            // A holder removes the file before it releases the lock: the file that we locked may have lost its name.
            if has_that_name(&file, path) {
                let commits = read_note(&file).commits;
                let legacy = if commits == 0 { Legacy::Nothing } else { Legacy::Note };
                let lock = Self { path: path.to_path_buf(), file, legacy };
                write_note(&lock.file, commits)
                    .map_err(|error| Problem::io("writing the lock file beside it", error))?;
                return Ok(lock);
            }
        }
        Err(Problem::InUse { pid: None })
    }

    /// Notes that the ledger has `commits`, all of them acknowledged.
    pub(super) fn note(&self, commits: u64) {
        // A failed note only makes the check at the next opening less strict.
        let _ = write_note(&self.file, commits);
    }

    /// Replaces an earlier run's note, once its ledger has been checked or is gone.
    pub(super) fn settle(&mut self, commits: u64) {
        self.legacy = Legacy::Nothing;
        self.note(commits);
    }
}

impl Drop for LedgerLock {
    fn drop(&mut self) {
        if self.legacy == Legacy::Nothing {
            // Before the handle, and with it the lock, goes: otherwise another process's file could be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The process that has the lock at `path`; does not take the lock.
pub(super) fn holder(path: &Path) -> Option<Writer> {
    let file = File::open(path).ok()?;
    // If a shared lock succeeds, nobody holds the exclusive one. It ends with this handle.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(Writer { pid: read_note(&file).pid }),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// How many commits are noted in the lock file at `path`; 0 if there is no such file.
pub(super) fn noted_commits(path: &Path) -> u64 {
    File::open(path).map(|file| read_note(&file).commits).unwrap_or_default()
}

/// Opens the lock file, never through a symbolic link: someone may have placed it there to have another file
/// overwritten.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(place::NO_LINKS).open(path)
}

fn has_that_name(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(named)) => ours.dev() == named.dev() && ours.ino() == named.ino(),
        _ => false,
    }
}

/// Writes the note in one write over the previous one, so that a crash leaves no partial note.
fn write_note(file: &File, commits: u64) -> io::Result<()> {
    let width = NOTE_LENGTH - 12;
    let note = format!("{:>10} {commits:>width$}\n", std::process::id());
    file.write_all_at(note.as_bytes(), 0)
}

fn read_note(file: &File) -> Note {
    let mut bytes = [0; NOTE_LENGTH];
    let length = file.read_at(&mut bytes, 0).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..length]);
    let mut words = text.split_ascii_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok());
    let commits = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    Note { pid, commits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        let held = LedgerLock::acquire(&path).unwrap();
        let refused = LedgerLock::acquire(&path).unwrap_err();
        assert!(
            matches!(refused, Problem::InUse { pid: Some(pid) } if pid == std::process::id()),
            "{refused}"
        );
        assert_eq!(holder(&path), Some(Writer { pid: Some(std::process::id()) }));
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(!path.exists());
        drop(LedgerLock::acquire(&path).unwrap());
    }

    #[test]
    fn a_lock_file_that_nobody_holds_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        fs::write(&path, "4294967296 and more of what some crash has left behind").unwrap();
        let held = LedgerLock::acquire(&path).unwrap();
        assert!(matches!(LedgerLock::acquire(&path), Err(Problem::InUse { pid: Some(_) })));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_note_outlives_everyone_who_did_not_look_into_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        let crashed = LedgerLock::acquire(&path).unwrap();
        crashed.note(u64::MAX);
        let copy = directory.path().join("y.lock");
        fs::copy(&path, &copy).unwrap();
        drop(LedgerLock::acquire(&copy).unwrap());
        assert_eq!(noted_commits(&copy), u64::MAX);
        let mut last = LedgerLock::acquire(&copy).unwrap();
        last.settle(7);
        assert_eq!(noted_commits(&copy), 7);
        drop(last);
        assert!(!copy.exists());
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(_held) = LedgerLock::acquire(&path) {
                            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
