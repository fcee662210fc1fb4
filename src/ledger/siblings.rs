//! Other ledgers in a directory that have worked on the same devices.
//!
//! A ledger cannot know what another one has done: a device that is in two gets two certificates. This finds ledgers
//! that are in the same directory, but not those that are elsewhere or were deleted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::binding::{Binding, said};
use super::error::{LedgerError, Problem};
use super::merge::Whole;
use super::place::Place;
use super::rows::read_lot;
use super::schema::upgrade::{Source, uri};
use super::view::View;
use super::{opening, schema};

/// Another ledger that has worked on devices of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The other ledger.
    pub ledger: PathBuf,
    /// How many of this ledger's devices it has issued certificates for, or tried to register.
    pub devices: u64,
    /// The key of one of these devices.
    pub example: String,
}

/// The first schema version in which a ledger can be a shard's.
const SHARDED: i64 = 5;
/// The most files of a directory that are checked.
const FILES: usize = 1_000;

/// This ledger's own files, under any name. They must not be opened: when a process closes any descriptor of a file, it
/// loses its POSIX locks on that file (fcntl(2)), and with them SQLite's. Other processes would then truncate the
/// `-shm` file while the writer uses it.
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

/// The files beside a ledger that are not its own.
fn files_beside(ledger: &Path, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let own = own_files(ledger);
    let is_other = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && !own.contains(&identity(&file)))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)?.take(FILES) {
        files.push(entry?.path());
    }
    files.retain(is_other);
    files.sort();
    Ok(files)
}

/// Refuses to work beside a ledger that has the same devices from another division into shards: a different number of
/// them, or none; or that was merged into another ledger, which has them now. `connection` has the ledger's own devices.
/// Files that cannot be read are skipped.
pub(super) fn refuse_conflicts(
    connection: &Connection,
    place: &Place,
    wanted: &Binding,
) -> Result<(), Problem> {
    // A directory that cannot be listed counts as empty.
    for other in files_beside(&place.ledger, &place.directory).unwrap_or_default() {
        if let Ok(Some(conflict)) = conflict(connection, &other, wanted) {
            return Err(conflict);
        }
    }
    Ok(())
}

/// Why this ledger must not be used beside another one.
fn conflict(own: &Connection, other: &Path, wanted: &Binding) -> Result<Option<Problem>, Problem> {
    /// How many of its devices are searched for.
    const LOOKED_AT: i64 = 1_000;
    let connection = opening::as_it_is(other)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM lot WHERE template = ?1 AND region = ?2 AND account = ?3)";
    let values = params![wanted.template, wanted.region, wanted.account.to_string()];
    if !connection.query_row(sql, values, |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let other = other.to_path_buf();
    let conflict = match Whole::of_part(&connection)? {
        Some(whole) if whole.is(own)? => return Ok(None),
        Some(whole) => Problem::OtherMerged { other, into: whole.into },
        None => {
            let is_sharded = schema::version(&connection)? >= SHARDED;
            let shard = if is_sharded { read_lot(&connection)?.binding.shard } else { None };
            if shard.map(|shard| shard.of) == wanted.shard.map(|shard| shard.of) {
                return Ok(None);
            }
            Problem::OtherCut { other, found: said(shard), wanted: said(wanted.shard) }
        }
    };
    let mut keys = connection.prepare("SELECT key FROM device LIMIT ?1")?;
    let mut keys = keys.query([LOOKED_AT])?;
    let mut is_own = own.prepare("SELECT EXISTS (SELECT 1 FROM device WHERE key = ?1)")?;
    while let Some(row) = keys.next()? {
        if is_own.query_row([row.get::<_, String>(0)?], |row| row.get::<_, bool>(0))? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
}

impl View {
    /// Refuses this ledger the place `ledger` if another one beside that has the same devices from another division into
    /// shards: a different number of them, or none; or was merged into another ledger, which has them now.
    ///
    /// # Errors
    /// [`Problem::OtherCut`] and [`Problem::OtherMerged`], of the place.
    pub fn refuse_conflicts(&self, ledger: &Path) -> Result<(), LedgerError> {
        let place = Place::of(ledger)?;
        refuse_conflicts(&self.connection, &place, &self.lot().binding).map_err(|problem| problem.at(ledger))
    }

    /// The other ledgers in `directory` for the same template, region and account that have worked on devices of this
    /// one. Files that cannot be read are skipped.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn overlaps(&self, directory: &Path) -> Result<Vec<Overlap>, LedgerError> {
        let listed = |error| Problem::io("listing a directory", error).at(self.path());
        let mut found = Vec::new();
        for path in files_beside(self.path(), directory).map_err(listed)? {
            if let Ok(Some(overlap)) = self.overlap(&path) {
                found.push(overlap);
            }
        }
        Ok(found)
    }

    fn overlap(&self, other: &Path) -> Result<Option<Overlap>, Problem> {
        let connection = opening::as_it_is(other)?;
        if let Some(whole) = Whole::of_part(&connection)?
            && whole.is(&self.connection)?
        {
            return Ok(None);
        }
        connection.execute("ATTACH ?1 AS own", [uri(self.path(), Source::Live)])?;
        let has_more = "SELECT (SELECT devices FROM main.lot) > (SELECT devices FROM own.lot)";
        // The devices of the smaller ledger are looked for in the larger one.
        let pairs = if connection.query_row(has_more, [], |row| row.get(0))? {
            "own.device AS ours CROSS JOIN main.device AS theirs"
        } else {
            "main.device AS theirs CROSS JOIN own.device AS ours"
        };
        // Uses only what a ledger of any schema has.
        let sql = format!(
            "SELECT count(*), min(theirs.key) FROM {pairs} ON ours.key = theirs.key
             WHERE theirs.state IN ('issued', 'registered', 'unknown')
               AND EXISTS (SELECT 1 FROM main.lot WHERE template = ?1 AND region = ?2 AND account = ?3)"
        );
        let binding = &self.lot().binding;
        let values = params![binding.template, binding.region, binding.account.to_string()];
        let (devices, example): (i64, Option<String>) =
            connection.query_row(&sql, values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let devices = u64::try_from(devices).unwrap_or_default();
        Ok(example.map(|example| Overlap { ledger: other.to_path_buf(), devices, example }))
    }
}
