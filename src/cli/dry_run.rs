//! `--dry-run`: everything except sending.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use crate::engine::Rates;
use crate::ledger::Ledger;
use crate::rate::RateLimit;

/// A temporary place for the ledger that a run would have, removed on drop. It may hold private keys, so only the
/// owner can read it.
pub(super) struct Rehearsal {
    directory: PathBuf,
    ledger: PathBuf,
}

impl Rehearsal {
    /// Prepares a copy of the ledger, if there is one. The original is never written.
    pub(super) fn of(ledger: &Path) -> Result<Self, Fatal> {
        let beside = ledger.parent().filter(|folder| !folder.as_os_str().is_empty());
        let parent =
            if ledger.exists() { beside.unwrap_or(Path::new(".")).to_owned() } else { std::env::temp_dir() };
        let directory = parent.join(format!(".fleetmint-dry-run-{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| {
            let message = format!("--dry-run: a copy cannot be made in {}: {error}", parent.display());
            Fatal::new(Exit::LedgerUnusable, message)
        })?;
        let rehearsal = Self { ledger: directory.join("ledger"), directory };
        if ledger.exists() {
            let view = Ledger::open_read_only(ledger).map_err(ledger_error)?;
            view.backup(&rehearsal.ledger).map_err(ledger_error)?;
        }
        Ok(rehearsal)
    }

    /// An error about the copy as one about the ledger that it stands for.
    pub(super) fn told_of(&self, fatal: Fatal, ledger: &Path) -> Fatal {
        let (copy, own) = (self.ledger.display().to_string(), ledger.display().to_string());
        Fatal::new(fatal.exit, fatal.message.replace(&copy, &own))
    }

    /// The path of the temporary ledger.
    pub(super) fn ledger(&self) -> &Path {
        &self.ledger
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // If removal fails, nothing is reported, but only the owner can read what is left.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The least time that a run over this many devices takes; `None` if no rate is fixed.
pub(super) fn least_time(devices: u64, rates: &Rates) -> Option<Duration> {
    let slowest = [rates.create, rates.register]
        .into_iter()
        .filter_map(RateLimit::fixed)
        .map(|rate| devices as f64 / rate.as_per_second())
        .reduce(f64::max)?;
    Some(Duration::from_secs(slowest.ceil() as u64))
}
