//! A complete and consistent copy of a ledger, even while a run writes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{LedgerError, Problem};
use super::place::NO_LINKS;
use super::view::View;

impl View {
    /// Copies the ledger to a new file at `copy`, mode 0600; the copy is complete and durable on return. A run may go
    /// on writing meanwhile: the copy is a snapshot.
    ///
    /// # Errors
    /// If the file exists or cannot be written; no partial copy is left behind. The error names `copy` as its ledger.
    pub fn backup(&self, copy: &Path) -> Result<(), LedgerError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(NO_LINKS);
        let named = |problem: Problem| problem.at(copy);
        options.open(copy).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => named(Problem::Exists),
            _ => named(Problem::io("creating it", error)),
        })?;
        self.write_copy(copy).map_err(|problem| {
            let _ = fs::remove_file(copy);
            named(problem)
        })
    }

    fn write_copy(&self, copy: &Path) -> Result<(), Problem> {
        let name = copy.to_str().ok_or_else(|| Problem::Denied {
            detail: String::from("its name is not UTF-8, which SQLite cannot write to"),
        })?;
        // SQLite writes into an existing empty file, and keeps its mode.
        self.connection.execute("VACUUM INTO ?1", [name])?;
        let directory = match copy.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(copy)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| Problem::io("flushing it to the disk", error))
    }
}
