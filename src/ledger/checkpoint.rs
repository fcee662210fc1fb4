//! Moving the write-ahead log into the file: beside the commits, never inside one, where whoever waits for it would wait for
//! the file too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};

use super::error::Problem;
use super::schema;

/// How many pages of log are worth the work while commits go on: 32 MiB. The pages that every commit touches are then moved
/// once for many commits.
const LONG: u32 = 4_096;
/// How many at most, whatever else is going on.
const LONGEST: u32 = 4 * LONG;
/// How many when there is nothing else to do.
const SHORT: u32 = 128;

/// The log of a ledger that is written, and who moves it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    ledger: PathBuf,
    /// Pages in the log, as the last commit left it.
    pages: Arc<AtomicU32>,
    /// Moves what it finds, with a connection of its own, while commits go on behind it.
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

    /// After a commit. The log starts over once all of it is moved, which takes a moment without a commit: the helper does the
    /// most of it, and the rest is done here.
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

    /// When there is nothing else to do.
    pub(super) fn rest(&mut self, connection: &Connection) {
        if self.pages.load(Ordering::Relaxed) >= SHORT {
            self.join();
            checkpoint(connection);
            self.pages.store(0, Ordering::Relaxed);
        }
    }

    fn join(&mut self) {
        if let Some(helper) = self.helper.take() {
            // One that panicked has moved less than it could.
            let _ = helper.join();
        }
    }
}

impl Drop for Checkpoints {
    /// Whoever closes the ledger last moves the log, and removes it: that must not be the helper.
    fn drop(&mut self) {
        self.join();
    }
}

fn move_log(ledger: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Whatever goes wrong here leaves a longer log: the writer meets the same trouble soon, and says so.
    let Ok(connection) = Connection::open_with_flags(ledger, flags) else { return };
    if schema::set_up(&connection).is_ok() && schema::keep_log(&connection, true).is_ok() {
        checkpoint(&connection);
    }
}

/// Moves as much as can be moved without waiting for anybody. What fails is tried again; nothing rests on it.
fn checkpoint(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}
