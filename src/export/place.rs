//! Where an export is written before it gets its name, which happens only once it is complete and durable.
//!
//! Owns the temporary sibling of `out` and its lock, and refuses to replace anything.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::ExportError;
use super::error::failed;
use super::files::{create_directory, sync_directory, sync_file, sync_tree};

/// A folder that does not have its name yet; removed on drop.
pub(super) struct UnfinishedFolder {
    workshop: Workshop,
    /// Its final path.
    out: PathBuf,
}

impl UnfinishedFolder {
    /// Begins a folder beside `out`, replacing what a killed export left there.
    pub(super) fn begin(out: &Path) -> Result<Self, ExportError> {
        let is_free = match fs::read_dir(out) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound && is_free(out),
        };
        if !is_free {
            return Err(occupied(out));
        }
        let (workshop, out) = Workshop::begin(out)?;
        Ok(Self { workshop, out })
    }

    /// The path while it is being written.
    pub(super) fn path(&self) -> &Path {
        &self.workshop.path
    }

    /// Makes the folder durable and gives it its name. A rename replaces only an empty directory.
    pub(super) fn install(self) -> Result<(), ExportError> {
        sync_tree(&self.workshop.path, &self.workshop.lock)?;
        fs::rename(&self.workshop.path, &self.out)
            .map_err(failed("giving the export its name,", &self.out))?;
        sync_directory(&self.workshop.parent)
    }
}

/// A file and its manifest that do not have their names yet; removed on drop.
pub(super) struct UnfinishedFile {
    workshop: Workshop,
    content: PathBuf,
    manifest: PathBuf,
    /// The file's final path.
    out: PathBuf,
    /// The manifest's final path.
    manifest_out: PathBuf,
}

impl UnfinishedFile {
    /// Begins a file beside `out`, replacing what a killed export left there.
    pub(super) fn begin(out: &Path) -> Result<Self, ExportError> {
        let taken = [out.to_path_buf(), manifest_of(out)].into_iter().find(|path| !is_free(path));
        if let Some(taken) = taken {
            return Err(occupied(&taken));
        }
        let (workshop, out) = Workshop::begin(out)?;
        let (content, manifest) = (workshop.path.join("content"), workshop.path.join("manifest"));
        Ok(Self { manifest_out: manifest_of(&out), workshop, content, manifest, out })
    }

    /// The path at which the file is written.
    pub(super) fn content(&self) -> &Path {
        &self.content
    }

    /// The path at which the manifest is written.
    pub(super) fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// The name that the file will have.
    pub(super) fn name(&self) -> &OsStr {
        self.out.file_name().expect("a workshop is only begun for a path with a name")
    }

    /// Makes both durable and gives them their names, the manifest first: the file never appears without it.
    pub(super) fn install(self) -> Result<(), ExportError> {
        sync_file(&self.manifest)?;
        sync_file(&self.content)?;
        move_without_replacing(&self.manifest, &self.manifest_out)?;
        if let Err(error) = move_without_replacing(&self.content, &self.out) {
            let _ = fs::remove_file(&self.manifest_out);
            return Err(error);
        }
        sync_directory(&self.workshop.parent)
    }
}

/// The path of the manifest for the file `out`.
fn manifest_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".manifest.csv");
    PathBuf::from(name)
}

/// A directory beside `out` in which an export is made; removed with its content on drop.
struct Workshop {
    path: PathBuf,
    parent: PathBuf,
    /// Shows other exports that this one is alive: a lock ends with its process.
    lock: File,
}

impl Workshop {
    /// Creates the directory, and returns it with the resolved `out`.
    fn begin(out: &Path) -> Result<(Self, PathBuf), ExportError> {
        let resolved = resolve(out).map_err(failed("opening", out))?;
        let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(occupied(out));
        };
        let mut unfinished_name = OsString::from(".");
        unfinished_name.push(name);
        unfinished_name.push(".exporting");
        let path = parent.join(unfinished_name);
        remove_leftovers(&path, out)?;
        create_directory(&path).map_err(failed("creating", &path))?;
        let lock = lock(&path, out)?;
        Ok((Self { parent: parent.to_path_buf(), path, lock }, resolved))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Already gone if it was installed. Otherwise keys must not stay behind in a forgotten directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what a killed export left at `path`.
fn remove_leftovers(path: &Path, out: &Path) -> Result<(), ExportError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // No export makes a link or a file there, so this is something else: it is not followed.
        Ok(found) if !found.is_dir() => Err(occupied(path)),
        _ => {
            let _abandoned = lock(path, out)?;
            fs::remove_dir_all(path).map_err(failed("removing what an earlier export left in", path))
        }
    }
}

fn is_free(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn occupied(out: &Path) -> ExportError {
    ExportError::Occupied { out: out.to_path_buf() }
}

fn move_without_replacing(from: &Path, to: &Path) -> Result<(), ExportError> {
    // A hard link fails if the name is taken; a rename would replace it.
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(occupied(to)),
        // Some file systems, such as those of USB sticks, have no hard links.
        Err(_) if !is_free(to) => Err(occupied(to)),
        Err(_) => fs::rename(from, to).map_err(failed("giving the export its name,", to)),
    }
}

fn resolve(out: &Path) -> io::Result<PathBuf> {
    match (out.canonicalize(), out.file_name()) {
        (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = out.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            Ok(parent.canonicalize()?.join(name))
        }
        (outcome, _) => outcome,
    }
}

fn lock(path: &Path, out: &Path) -> Result<File, ExportError> {
    let directory = File::open(path).map_err(failed("opening", path))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(ExportError::InUse { out: out.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(failed("locking", path)(error)),
    }
}
