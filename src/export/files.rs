//! Files and folders that only their owner may read, and how they are flushed to the disk.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::ExportError;
use super::error::failed;

/// A file under construction that computes the SHA-256 of its content. Keeps no copy of the content.
pub(super) struct HashedFile {
    file: File,
    context: Context,
    length: u64,
}

/// The facts about a written file.
pub(super) struct Written {
    /// SHA-256 of its content, hexadecimal.
    pub(super) sha256: String,
    /// In bytes.
    pub(super) length: u64,
}

impl HashedFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: create_file(path)?, context: Context::new(&SHA256), length: 0 })
    }

    /// Finishes the file. It is durable only after [`sync_file`] or [`sync_tree`].
    pub(super) fn finish(self) -> Written {
        Written { sha256: to_hex(self.context.finish().as_ref()), length: self.length }
    }
}

impl Write for HashedFile {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = self.file.write(content)?;
        self.context.update(&content[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(super) fn sha256(content: &[u8]) -> String {
    to_hex(digest(&SHA256, content).as_ref())
}

fn to_hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written to it");
        text
    })
}

pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a new file. It is durable only after [`sync_tree`].
pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<Written, ExportError> {
    create_file(path).and_then(|mut file| file.write_all(content)).map_err(failed("writing", path))?;
    Ok(Written { sha256: sha256(content), length: content.len() as u64 })
}

/// Flushes the file at `path` to the disk.
pub(super) fn sync_file(path: &Path) -> Result<(), ExportError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("flushing to the disk", path))
}

pub(super) fn sync_directory(path: &Path) -> Result<(), ExportError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flushing to the disk the directory", path))
}

/// Flushes everything below the directory `root` to the disk; `handle` is a handle of `root` from before anything was
/// written there. One flush of the whole file system takes a hundredth of the time of one flush per file.
pub(super) fn sync_tree(root: &Path, handle: &File) -> Result<(), ExportError> {
    let flush = || if sync_file_system(handle)? { Ok(()) } else { sync_each(root) };
    flush().map_err(failed("flushing to the disk", root))
}

/// Flushes the whole file system; `false` if the system cannot.
#[cfg(target_os = "linux")]
fn sync_file_system(handle: &File) -> io::Result<bool> {
    use rustix::io::Errno;
    match rustix::fs::syncfs(handle) {
        Ok(()) => Ok(true),
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &File) -> io::Result<bool> {
    Ok(false)
}

fn sync_each(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_each(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_flushed_file_by_file_where_the_file_system_cannot_be_at_once() {
        let directory = tempfile::tempdir().unwrap();
        create_directory(&directory.path().join("a")).unwrap();
        write_file(&directory.path().join("a/b"), b"x").unwrap();
        sync_each(directory.path()).unwrap();
        sync_tree(directory.path(), &File::open(directory.path()).unwrap()).unwrap();
        assert!(sync_each(&directory.path().join("gone")).is_err());
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, link) = (directory.path().join("victim"), directory.path().join("link"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(write_file(&link, b"key").is_err() && create_directory(&link).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}
