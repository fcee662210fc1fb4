//! Moves the write-ahead log into the file. This happens between commits, never during one: whoever waits for a commit
//! should not wait for the file too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};

use super::error::Problem;
use super::schema;

/// The log length, in pages, that is worth a checkpoint while commits go on: 32 MiB. Pages that every commit touches
/// are then moved once for many commits.
const LONG: u32 = 4_096;
/// The log length, in pages, at which the next commit must wait for a checkpoint.
const LONGEST: u32 = 4 * LONG;
/// The log length, in pages, that is worth a checkpoint when idle.
const SHORT: u32 = 128;

/// The log of a ledger that is being written, and the thread that moves it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    ledger: PathBuf,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Checkpoints through a connection of its own while commits go on.
    helper: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Watches the log that `connection` writes.
    pub(super) fn watch(connection: &mut Connection, ledger: &Path) -> Result<Self, Problem> {
        let pages = Arc::new(AtomicU32::new(0));
        let noted = pages.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            noted.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { ledger: ledger.to_path_buf(), pages, helper: None })
    }

    /// Call after each commit. The log can only start over once all of it is moved, at a moment without commits: the
    /// helper moves most of it, and the rest is moved here.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        match &self.helper {
            None if pages >= LONG => {
                let ledger = self.ledger.clone();
                let helper = std::thread::Builder::new().name(String::from("checkpoint"));
                self.helper = helper.spawn(move || move_log(&ledger)).ok();
            }
            Some(helper) if helper.is_finished() || pages >= LONGEST => {
                self.join();
                checkpoint(connection);
            }
            _ => {}
        }
    }

    /// Call when idle.
    pub(super) fn rest(&mut self, connection: &Connection) {
        if self.pages.load(Ordering::Relaxed) >= SHORT {
            self.join();
            checkpoint(connection);
            self.pages.store(0, Ordering::Relaxed);
        }
    }

    fn join(&mut self) {
        if let Some(helper) = self.helper.take() {
            // A helper that panicked has only moved less than it could.
            let _ = helper.join();
        }
    }
}

impl Drop for Checkpoints {
    /// Joins the helper: the last connection to close moves and removes the log, and must not be the helper's.
    fn drop(&mut self) {
        self.join();
    }
}

fn move_log(ledger: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // A failure here only leaves the log longer. The writer will soon meet the same problem, and report it.
    let Ok(connection) = Connection::open_with_flags(ledger, flags) else { return };
    if schema::set_up(&connection).is_ok() && schema::keep_log(&connection, true).is_ok() {
        checkpoint(&connection);
    }
}

/// Moves as much as possible without waiting for other connections. A failure is harmless: it is tried again later.
fn checkpoint(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}
