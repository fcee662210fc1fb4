//! Files and folders that only their owner may read, and that are on the disk when their functions return.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::ExportError;
use super::error::failed;

/// A file in the making that knows the SHA-256 of what was written to it. Keeps no copy of that.
pub(super) struct HashedFile {
    file: File,
    context: Context,
    length: u64,
}

/// What is in a file.
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

    /// Flushes it to the disk.
    pub(super) fn finish(self) -> io::Result<Written> {
        self.file.sync_all()?;
        Ok(Written { sha256: to_hex(self.context.finish().as_ref()), length: self.length })
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

pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<Written, ExportError> {
    let write = || {
        let mut file = HashedFile::create(path)?;
        file.write_all(content)?;
        file.finish()
    };
    write().map_err(failed("writing", path))
}

pub(super) fn sync_directory(path: &Path) -> Result<(), ExportError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flushing to the disk the directory", path))
}
