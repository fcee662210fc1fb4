//! One run at a time on one ledger: an operating system's lock on a file beside it.
//!
//! Not on the ledger's own file: closing any other handle on that would drop the POSIX locks that SQLite holds on it.
//! The lock ends with the process, however that ends; the file is removed when the ledger is closed, and means nothing
//! without the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Problem;

/// The right to write one ledger, until it is dropped.
#[derive(Debug)]
pub(super) struct LedgerLock {
    path: PathBuf,
    // Held for its lock alone.
    _file: File,
}

/// How often the file may vanish between opening and locking it, each time because a holder closed its ledger.
const ATTEMPTS: usize = 16;

impl LedgerLock {
    /// Takes the lock at `path` at once, or says who has it.
    pub(super) fn acquire(path: &Path) -> Result<Self, Problem> {
        for _ in 0..ATTEMPTS {
            let mut file = open(path).map_err(|error| Problem::io("opening the lock file beside it", error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Problem::InUse { pid: read_pid(&mut file) }),
                Err(TryLockError::Error(error)) => {
                    return Err(Problem::io("locking the lock file beside it", error));
                }
            }
            // A holder removes the file before it lets go of the lock: what we have locked may have no name any more.
            if has_that_name(&file, path) {
                write_pid(&mut file).map_err(|error| Problem::io("writing the lock file beside it", error))?;
                return Ok(Self { path: path.to_path_buf(), _file: file });
            }
        }
        Err(Problem::InUse { pid: None })
    }
}

impl Drop for LedgerLock {
    fn drop(&mut self) {
        // Before the lock goes with the file's handle, so that it is our own file that is removed. Left behind, it is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn has_that_name(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(named)) => ours.dev() == named.dev() && ours.ino() == named.ino(),
        _ => false,
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
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
        assert!(matches!(refused, Problem::InUse { pid: Some(pid) } if pid == std::process::id()), "{refused}");
        drop(held);
        assert!(!path.exists());
        drop(LedgerLock::acquire(&path).unwrap());
    }

    #[test]
    fn a_lock_file_that_nobody_holds_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        fs::write(&path, "4294967295 and more of what a crash left behind").unwrap();
        let _held = LedgerLock::acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
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
