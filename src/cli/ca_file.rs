//! The emulator's CA certificate on disk, where clients can read it.
//!
//! Owns the temporary directory for it, which is used if no other path is given, and removes those of killed
//! emulators. A directory is in use while its lock is held, which is independent of process ids.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Fatal};
use crate::emulator::Emulator;

/// The prefix of temporary directories; a random number follows.
const PREFIX: &str = "fleetmint-emulator-";
const LOCK: &str = "lock";
/// A younger directory may belong to an emulator that has not locked it yet.
const GRACE: Duration = Duration::from_secs(60);

/// The CA certificate on disk; a temporary directory for it is removed with the emulator.
pub(super) struct CaFile {
    pub(super) path: PathBuf,
    _temporary: Option<Temporary>,
}

/// A directory that is removed on drop, or later by another emulator, which sees from the lock that it is no longer
/// in use.
struct Temporary {
    directory: PathBuf,
    lock: File,
}

impl CaFile {
    /// Places the certificate at the chosen path, or where the emulator keeps it, or in a temporary directory.
    pub(super) fn place(chosen: Option<&Path>, emulator: &Emulator) -> Result<Self, Fatal> {
        let (path, temporary) = match (chosen, emulator.ca_file()) {
            (None, Some(kept)) => return Ok(Self { path: kept.to_owned(), _temporary: None }),
            (Some(chosen), _) => (std::path::absolute(chosen).map_err(|error| failed(chosen, &error))?, None),
            (None, None) => {
                let parent = std::env::temp_dir();
                let temporary = Temporary::make(&parent).map_err(|error| failed(&parent, &error))?;
                (temporary.directory.join("ca.pem"), Some(temporary))
            }
        };
        fs::write(&path, emulator.ca_pem()).map_err(|error| failed(&path, &error))?;
        Ok(Self { path, _temporary: temporary })
    }
}

fn failed(path: &Path, error: &io::Error) -> Fatal {
    let path = path.display();
    Fatal::new(Exit::Unavailable, format!("the CA certificate could not be written to {path}: {error}"))
}

impl Temporary {
    fn make(parent: &Path) -> io::Result<Self> {
        let directory = parent.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let lock = File::create(directory.join(LOCK))?;
        lock.try_lock()?;
        clear_away(parent, directory.metadata()?.uid(), GRACE);
        Ok(Self { directory, lock })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing of value is in it, and nobody is left to read an error.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = self.lock.unlock();
    }
}

/// Removes this user's directories whose emulators are gone. What cannot be read or removed is left to the system.
fn clear_away(parent: &Path, user: u32, grace: Duration) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(is_number);
        if is_ours && is_abandoned(&entry.path(), user, grace) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_number(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_abandoned(directory: &Path, user: u32, grace: Duration) -> bool {
    let Ok(metadata) = directory.symlink_metadata() else { return false };
    let is_old =
        metadata.modified().ok().and_then(|then| then.elapsed().ok()).is_some_and(|age| age >= grace);
    let is_free = || File::open(directory.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
    metadata.is_dir() && metadata.uid() == user && is_old && is_free()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_emulator_left_is_cleared_away_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let user = parent.path().metadata().unwrap().uid();
        let alive = Temporary::make(parent.path()).unwrap();
        let killed = Temporary::make(parent.path()).unwrap();
        let left = killed.directory.clone();
        // As after a kill: the lock is gone, the directory is not.
        killed.lock.unlock().unwrap();
        for other in ["fleetmint-emulator-notes", "fleetmint-emulator-0123456789abcdef", "other"] {
            fs::create_dir(parent.path().join(other)).unwrap();
        }

        clear_away(parent.path(), user, GRACE);
        assert!(left.exists(), "it is too young to be told from one that is being made");
        clear_away(parent.path(), user + 1, Duration::ZERO);
        assert!(left.exists(), "it is somebody else's");
        clear_away(parent.path(), user, Duration::ZERO);
        assert!(!left.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 4);
        drop(alive);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
