//! Where a ledger is, and the files beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{LedgerError, Problem};
use super::schema::APPLICATION_ID;

/// The length of an SQLite file's header. Source: <https://www.sqlite.org/fileformat2.html>, section 1.3.
const HEADER: usize = 100;
/// The first bytes of an SQLite file. The application id is at byte 68, big-endian.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// Refuses to open symbolic links; for files that are written.
pub(super) const NO_LINKS: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Whether an error is caused by [`NO_LINKS`]. FreeBSD uses a different error number.
pub(super) fn is_link(error: &io::Error) -> bool {
    [rustix::io::Errno::LOOP, rustix::io::Errno::MLINK]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether an error means that the file system has no locks.
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The files of one ledger.
#[derive(Debug)]
pub(super) struct Place {
    /// The ledger itself.
    pub(super) ledger: PathBuf,
    /// The lock file of the process that has it open for writing.
    pub(super) lock: PathBuf,
    /// SQLite's write-ahead log.
    pub(super) log: PathBuf,
    /// A new ledger under construction, not usable yet.
    building: PathBuf,
    pub(super) directory: PathBuf,
}

impl Place {
    /// The place of the ledger at `path`; the same for all spellings of that path.
    pub(super) fn of(path: &Path) -> Result<Self, LedgerError> {
        let resolved = resolve(path).map_err(|error| Problem::io("opening its directory", error).at(path))?;
        let (Some(directory), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(Problem::Denied { detail: String::from("it is a directory") }.at(path));
        };
        let mut building = std::ffi::OsString::from(".");
        building.push(name);
        building.push(".building");
        Ok(Self {
            lock: with_suffix(&resolved, ".lock"),
            log: with_suffix(&resolved, "-wal"),
            building: directory.join(building),
            directory: directory.to_path_buf(),
            ledger: resolved,
        })
    }

    /// Whether the ledger's name is taken, by a file of any kind.
    pub(super) fn is_taken(&self) -> bool {
        fs::symlink_metadata(&self.ledger).is_ok()
    }

    /// Refuses a place where only a ledger's log is left: SQLite would replay that into a new ledger.
    pub(super) fn refuse_orphaned_log(&self) -> Result<(), Problem> {
        if self.has_log() { Err(Problem::OrphanedLog { log: self.log.clone() }) } else { Ok(()) }
    }

    /// Refuses a place without a ledger.
    pub(super) fn refuse_absent(&self) -> Result<(), Problem> {
        if self.is_taken() { Ok(()) } else { self.refuse_orphaned_log().and(Err(Problem::Missing)) }
    }

    /// Refuses to start a second file as large as the ledger if the disk has no room for it.
    pub(super) fn refuse_no_room(&self) -> Result<(), Problem> {
        /// Bytes for anything else that is written meanwhile, such as a log.
        const MARGIN: u64 = 16 << 20;
        let length = fs::metadata(&self.ledger).map_err(|error| Problem::io("looking at it", error))?.len();
        let disk = rustix::fs::statvfs(&self.directory)
            .map_err(|error| Problem::io("looking at its file system", error.into()))?;
        let (needed, free) = (length + MARGIN, disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < needed { Err(Problem::NoRoom { needed, free }) } else { Ok(()) }
    }

    /// Whether there is a non-empty write-ahead log.
    pub(super) fn has_log(&self) -> bool {
        fs::metadata(&self.log).is_ok_and(|log| log.len() > 0)
    }

    /// Refuses a file whose first bytes are not a ledger's, before SQLite opens it: SQLite would roll back or complete
    /// another program's unfinished work, and remove the log of a ledger that was truncated to nothing.
    pub(super) fn refuse_foreign(&self) -> Result<(), Problem> {
        let failed = |error| Problem::io("opening it", error);
        if !fs::metadata(&self.ledger).map_err(failed)?.is_file() {
            return Err(Problem::Denied {
                detail: String::from("it is a directory or a device, and no file"),
            });
        }
        let mut head = Vec::with_capacity(HEADER);
        File::open(&self.ledger)
            .and_then(|file| file.take(HEADER as u64).read_to_end(&mut head))
            .map_err(failed)?;
        let not_a_ledger = |found: &str| Err(Problem::NotALedger { found: found.to_owned() });
        match head.as_slice() {
            [] => not_a_ledger("an empty file"),
            head if !head.starts_with(SQLITE_MAGIC) => not_a_ledger("not an SQLite database"),
            head if head.len() < HEADER => Err(Problem::damaged("it has been cut off in its header")),
            head if head[68..72] != APPLICATION_ID.to_be_bytes()[4..] => {
                not_a_ledger("an SQLite database of another program")
            }
            _ => Ok(()),
        }
    }

    /// Refuses a ledger whose last page is truncated: SQLite would read zeros instead of what is missing.
    pub(super) fn refuse_cut_page(&self, page_size: u64) -> Result<(), Problem> {
        let length = fs::metadata(&self.ledger).map_err(|error| Problem::io("looking at it", error))?.len();
        // While there is a log, its pages may still be being copied into the file, or a full disk may have stopped that
        // midway.
        match length % page_size {
            0 => Ok(()),
            _ if self.has_log() => Ok(()),
            _ => {
                Err(Problem::damaged(format!("its {length} bytes are not whole pages: it has been cut off")))
            }
        }
    }

    /// Refuses a ledger with fewer commits than were noted beside it.
    pub(super) fn refuse_lost_commits(&self, found: u64, noted: u64) -> Result<(), Problem> {
        if found >= noted {
            return Ok(());
        }
        Err(Problem::LostCommits { found, noted, log: self.log.clone(), lock: self.lock.clone() })
    }

    /// Removes all permissions of group and others from the ledger and SQLite's files beside it.
    pub(super) fn keep_private(&self) -> Result<(), Problem> {
        for file in [&self.ledger, &self.log, &with_suffix(&self.ledger, "-shm")] {
            match fs::metadata(file) {
                Ok(found) if found.permissions().mode() & 0o077 != 0 => {
                    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
                        .map_err(|error| Problem::io("making it readable by its owner alone", error))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Begins a new ledger: an empty file under a temporary name, removed again unless it is installed.
    pub(super) fn begin(&self) -> Result<Building<'_>, Problem> {
        self.remove_leftovers();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.building)
            .map_err(|error| Problem::io("creating it", error))?;
        Ok(Building(self))
    }

    /// Removes what a crash during an import left behind. Only for the holder of the lock.
    pub(super) fn remove_leftovers(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(with_suffix(&self.building, suffix));
        }
    }

    /// Gives the temporary file the ledger's name; durable on return.
    fn install(&self, rename: impl FnOnce() -> io::Result<()>) -> Result<(), Problem> {
        let file = File::open(&self.building).map_err(|error| Problem::io("opening it again", error))?;
        file.sync_all().map_err(|error| Problem::io("flushing it to the disk", error))?;
        rename().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Problem::Exists,
            _ => Problem::io("giving it its name", error),
        })?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| Problem::io("flushing its directory to the disk", error))
    }

    fn rename_without_replacing(&self) -> io::Result<()> {
        // Creating a hard link fails if the name is taken; a rename would replace the file.
        match fs::hard_link(&self.building, &self.ledger) {
            Ok(()) => fs::remove_file(&self.building),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Some file systems have no hard links. There, the lock keeps other imports out between the check and the
            // rename.
            Err(_) if self.is_taken() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&self.building, &self.ledger),
        }
    }
}

/// A ledger under construction; dropping it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Building<'a>(&'a Place);

impl Building<'_> {
    /// The temporary file.
    pub(super) fn path(&self) -> &Path {
        &self.0.building
    }

    /// Installs it as the ledger, unless there is one. The database must be closed.
    pub(super) fn install(self) -> Result<(), Problem> {
        self.0.install(|| self.0.rename_without_replacing())
    }

    /// Replaces the existing ledger with it, atomically. Both databases must be closed.
    pub(super) fn replace(self) -> Result<(), Problem> {
        self.0.install(|| fs::rename(&self.0.building, &self.0.ledger))
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.remove_leftovers();
    }
}

fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let directory = match path.parent() {
                Some(parent) if parent != Path::new("") => parent.canonicalize()?,
                _ => Path::new(".").canonicalize()?,
            };
            Ok(directory.join(name))
        }
        outcome => outcome,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
