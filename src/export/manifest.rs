//! The list of an export's files, with the SHA-256 of each. Holds no secret.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::ExportError;
use super::error::failed;
use super::files::{HashedFile, Written};

/// A table under construction, without secrets: its buffer is not zeroed.
pub(super) struct Table {
    path: PathBuf,
    rows: csv::Writer<HashedFile>,
}

impl Table {
    /// Creates the file at `path` with a header row of `columns`.
    pub(super) fn create(path: &Path, columns: &[&str]) -> Result<Self, ExportError> {
        let mut table = Self::create_bare(path)?;
        table.add(columns)?;
        Ok(table)
    }

    /// Creates the file at `path` without a header.
    pub(super) fn create_bare(path: &Path) -> Result<Self, ExportError> {
        let file = HashedFile::create(path).map_err(failed("creating", path))?;
        Ok(Self { path: path.to_path_buf(), rows: csv::Writer::from_writer(file) })
    }

    pub(super) fn add<T: AsRef<[u8]>>(&mut self, row: &[T]) -> Result<(), ExportError> {
        self.rows.write_record(row).map_err(|error: csv::Error| failed("writing", &self.path)(error.into()))
    }

    /// Writes what is still buffered.
    pub(super) fn finish(self) -> Result<Written, ExportError> {
        self.rows
            .into_inner()
            .map_err(|error| io::Error::new(error.error().kind(), error.error().to_string()))
            .map(HashedFile::finish)
            .map_err(failed("writing", &self.path))
    }
}

/// Writes the manifest of a single-file export.
pub(super) fn write_of_file(
    path: &Path,
    name: &OsStr,
    written: &Written,
    devices: u64,
) -> Result<(), ExportError> {
    let mut manifest = Table::create(path, &["file", "sha256", "bytes", "devices"])?;
    let (bytes, devices) = (written.length.to_string(), devices.to_string());
    manifest.add(&[&*name.to_string_lossy(), &written.sha256, &bytes, &devices])?;
    manifest.finish().map(drop)
}
