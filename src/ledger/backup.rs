//! A copy of a ledger, whole and of one instant, though a run may be writing it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{LedgerError, Problem};
use super::place::NO_LINKS;
use super::view::View;

impl View {
    /// Copies the ledger to a new file at `copy`, mode 0600, whole and durable when it returns. A run may go on writing
    /// meanwhile; the copy is of one instant.
    ///
    /// # Errors
    /// If there is a file of that name, or it cannot be written; nothing is left of it then. The error is of `copy`.
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
        // SQLite writes into an empty file of that name, and keeps its mode.
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
