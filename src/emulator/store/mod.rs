//! A directory that keeps an emulated account over restarts and crashes: its keys, and everything that was answered.
//!
//! Owns the directory: its lock, its contents, and when a change is durable. Knows neither requests nor answers. It
//! contains `identity.json` with the emulator's own keys, `ca.pem` for clients, `account.jsonl` with the account, and
//! `lock`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

mod identity;
mod journal;

pub(super) use identity::Identity;
pub(super) use journal::Journal;
pub use journal::NotKept;

/// The certificate that clients must trust.
const CA_FILE: &str = "ca.pem";
const IDENTITY: &str = "identity.json";
const ACCOUNT: &str = "account.jsonl";
const LOCK: &str = "lock";
/// The suffix of a file that is written before it gets its name.
const NEW: &str = ".new";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another emulator uses the directory.
    #[error("{} is in use by another emulator{}", path.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other emulator's process id, if known.
        pid: Option<u32>,
    },
    /// The directory contains other things.
    #[error(
        "{} holds something else than an emulator's state ({entry}); choose a new or an empty directory",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the other things.
        entry: String,
    },
    /// A file is not as the emulator wrote it.
    #[error(
        "{} is damaged: {detail}; restore it from a copy, or start over with an empty directory",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// An operation on a file failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    fn damaged(path: &Path, detail: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.to_string() }
    }
}

/// The directory, locked until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl StateDir {
    /// Opens and locks the directory at `path`, which is created if missing.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let path = &std::path::absolute(path).map_err(StoreError::io("finding", path))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StoreError::io("creating", path))?;
        refuse_foreign(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(StoreError::io("protecting", path))?;
        let lock = lock(path)?;
        Ok(Self { path: path.clone(), _lock: lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the certificate that clients trust, always to the same path.
    pub(super) fn write_ca(&self, pem: &str) -> Result<PathBuf, StoreError> {
        self.replace(CA_FILE, |file| file.write_all(pem.as_bytes()))?;
        Ok(self.file(CA_FILE))
    }

    /// The error for a directory that has an account but no identity.
    pub(super) fn no_identity(&self) -> StoreError {
        StoreError::damaged(&self.file(IDENTITY), "it is missing, and the account is there")
    }

    /// Replaces a file's content atomically: it has either the old or the new content, whatever happens. The returned
    /// handle is positioned after the content.
    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<File, StoreError> {
        let (path, new) = (self.file(name), self.file(&format!("{name}{NEW}")));
        let attempt = || {
            let mut file = private().write(true).create(true).truncate(true).open(&new)?;
            write(&mut file)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            // The new name is durable only once the directory is synced.
            File::open(&self.path)?.sync_all()?;
            Ok(file)
        };
        attempt().map_err(StoreError::io("writing", &path))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Refuses a directory that is used for something else, so that its permissions and contents are left alone.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let reading = StoreError::io("reading", path);
    for entry in fs::read_dir(path).map_err(&reading)? {
        let name = entry.map_err(&reading)?.file_name();
        let name = name.to_string_lossy();
        let ours = [CA_FILE, IDENTITY, ACCOUNT, LOCK];
        if !ours.contains(&name.strip_suffix(NEW).unwrap_or(&name)) {
            return Err(StoreError::Foreign { path: path.to_owned(), entry: name.into_owned() });
        }
    }
    Ok(())
}

/// Locks the directory. The lock ends with the process, however that ends; the file stays.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = path.join(LOCK);
    let failed = StoreError::io("locking", &file);
    let mut lock =
        private().read(true).write(true).create(true).truncate(false).open(&file).map_err(&failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = lock.take(32).read_to_string(&mut text);
            return Err(StoreError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Tells people which process holds the lock.
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_is_private_and_its_files_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let directory = StateDir::open(&path).unwrap();
        directory.write_ca("pem").unwrap();
        assert_eq!((mode(&path), mode(&path.join(CA_FILE)), mode(&path.join(LOCK))), (0o700, 0o600, 0o600));
        assert_eq!(fs::read_to_string(path.join(CA_FILE)).unwrap(), "pem");
        // An empty directory that others could read is made private.
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        StateDir::open(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
    }

    #[test]
    fn a_second_emulator_is_refused_and_told_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        let refused = StateDir::open(folder.path()).unwrap_err();
        let pid = std::process::id();
        assert!(
            matches!(&refused, StoreError::InUse { pid: Some(holder), .. } if *holder == pid),
            "{refused}"
        );
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "").unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let refused = StateDir::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("thesis.txt"), "{refused}");
        assert_eq!(mode(folder.path()), 0o755);
        assert!(!folder.path().join(LOCK).exists());
    }
}
