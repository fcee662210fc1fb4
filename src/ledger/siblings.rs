//! Other ledgers in a directory that have done something for the same devices.
//!
//! One ledger cannot know what another has done: a device that is in two gets two certificates. This finds those that stand
//! beside each other; whatever is elsewhere, or was deleted, is not found.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::error::{LedgerError, Problem};
use super::place::Place;
use super::schema;
use super::schema::upgrade::{Source, uri};
use super::view::View;

/// Another ledger that has done something for devices of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The other ledger.
    pub ledger: PathBuf,
    /// How many devices of this one it has issued certificates for, or tried to register.
    pub devices: u64,
    /// The key of one of them.
    pub example: String,
}

/// How many files of a directory are looked at.
const FILES: usize = 1_000;

/// Which files are this ledger's, by whatever names. They must not be opened: when a process closes any descriptor of a file,
/// it loses its POSIX locks on it (fcntl(2)), and with them SQLite's. Other processes would then truncate the `-shm` file
/// under the writer.
fn own_files(ledger: &Path) -> Vec<(u64, u64)> {
    ["", "-wal", "-shm", "-journal", ".lock"]
        .into_iter()
        .filter_map(|suffix| {
            let mut name = ledger.as_os_str().to_owned();
            name.push(suffix);
            fs::metadata(name).ok().map(|file| identity(&file))
        })
        .collect()
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl View {
    /// The other ledgers in `directory` for the same template, region and account that have done something for devices of
    /// this one. What cannot be read is passed over.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn overlaps(&self, directory: &Path) -> Result<Vec<Overlap>, LedgerError> {
        let listed = |error| Problem::io("listing a directory", error).at(self.path());
        let own = own_files(self.path());
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(listed)?.take(FILES) {
            let path = entry.map_err(listed)?.path();
            if !fs::metadata(&path).is_ok_and(|file| file.is_file() && !own.contains(&identity(&file))) {
                continue;
            }
            if let Ok(Some(overlap)) = self.overlap(&path) {
                found.push(overlap);
            }
        }
        found.sort_by(|a, b| a.ledger.cmp(&b.ledger));
        Ok(found)
    }

    fn overlap(&self, other: &Path) -> Result<Option<Overlap>, Problem> {
        let place = Place::of(other).map_err(|error| error.problem)?;
        place.refuse_foreign()?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(uri(&place.ledger, Source::Live), flags)?;
        schema::set_up(&connection)?;
        schema::identify(&connection)?;
        connection.execute("ATTACH ?1 AS own", [uri(self.path(), Source::Live)])?;
        // Only what a ledger of any schema has.
        let sql = "SELECT count(*), min(device.key) FROM main.device JOIN own.device AS ours ON ours.key = device.key
                   WHERE device.state IN ('issued', 'registered', 'unknown')
                     AND EXISTS (SELECT 1 FROM main.lot WHERE template = ?1 AND region = ?2 AND account = ?3)";
        let binding = &self.lot().binding;
        let values = params![binding.template, binding.region, binding.account];
        let (devices, example): (i64, Option<String>) =
            connection.query_row(sql, values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let devices = u64::try_from(devices).unwrap_or_default();
        Ok(example.map(|example| Overlap { ledger: other.to_path_buf(), devices, example }))
    }
}
