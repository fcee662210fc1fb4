//! Opening a ledger's file: the checks before anything in it is trusted, and the upgrade of an old one.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::Problem;
use super::lock::{self, LedgerLock};
use super::place::Place;
use super::schema::upgrade::{self, Source};
use super::{import, integrity, schema};

/// How much of a ledger is checked before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it.
    Through,
    /// Only its head. Whoever reads a row later compares it with its digest.
    Ahead,
}

/// Opens the ledger at `place` for reading.
pub(super) fn to_read(place: &Place) -> Result<Connection, Problem> {
    place.refuse_absent()?;
    place.refuse_foreign()?;
    // Read the note before the ledger: a run that is writing it notes its commits only after making them.
    let noted = lock::noted_commits(&place.lock);
    let (connection, source) = match open_to_read(place, Source::Live) {
        Ok(connection) => (connection, Source::Live),
        // SQLite wants to write beside a file whose log may be in use. Without a log, there is no need.
        Err(Problem::Denied { .. }) if !place.has_log() => {
            (open_to_read(place, Source::Immutable)?, Source::Immutable)
        }
        Err(Problem::Denied { detail }) => {
            let detail = format!(
                "{detail}; its write-ahead log cannot be read where nothing may be written: copy both to another place"
            );
            return Err(Problem::Denied { detail });
        }
        Err(problem) => return Err(problem),
    };
    place.refuse_cut_page(schema::page_size(&connection)?)?;
    place.refuse_lost_commits(schema::read_commits(&connection)?, noted)?;
    if schema::version(&connection)? < schema::NEWEST {
        return upgrade::private_copy(&place.ledger, source);
    }
    Ok(connection)
}

fn open_to_read(place: &Place, source: Source) -> Result<Connection, Problem> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(upgrade::uri(&place.ledger, source), flags)?;
    schema::set_up(&connection)?;
    schema::identify(&connection)?;
    Ok(connection)
}

/// Opens another ledger of any schema for reading, without upgrading it.
pub(super) fn as_it_is(other: &Path) -> Result<Connection, Problem> {
    let place = Place::of(other).map_err(|error| error.problem)?;
    place.refuse_foreign()?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(upgrade::uri(&place.ledger, Source::Live), flags)?;
    schema::set_up(&connection)?;
    schema::identify(&connection)?;
    Ok(connection)
}

/// Opens the ledger at `place` for writing. One of an older schema is brought up to date.
pub(super) fn to_write(place: &Place, lock: &mut LedgerLock, look: Look) -> Result<Connection, Problem> {
    let mut connection = open_to_write(place, look)?;
    if schema::version(&connection)? < schema::NEWEST {
        bring_up_to_date(place, connection)?;
        connection = open_to_write(place, Look::Ahead)?;
    }
    place.keep_private()?;
    schema::set_up_writing(&connection)?;
    // Every noted commit is there; otherwise the ledger would not have opened.
    lock.settle(schema::read_commits(&connection)?);
    Ok(connection)
}

fn open_to_write(place: &Place, look: Look) -> Result<Connection, Problem> {
    place.refuse_absent()?;
    place.refuse_foreign()?;
    let noted = lock::noted_commits(&place.lock);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&place.ledger, flags)?;
    schema::refuse_read_only(&connection)?;
    // Until the file is known to be sound, the log is neither moved into it nor removed.
    schema::keep_log(&connection, place.log.exists())?;
    schema::set_up(&connection)?;
    let version = schema::identify(&connection)?;
    place.refuse_cut_page(schema::page_size(&connection)?)?;
    // If the file's header forbids writing, this is known only now.
    schema::refuse_read_only(&connection)?;
    if look == Look::Through || version < schema::NEWEST {
        integrity::check(&connection)?;
    }
    place.refuse_lost_commits(schema::read_commits(&connection)?, noted)?;
    schema::keep_log(&connection, false)?;
    Ok(connection)
}

/// Rewrites a ledger of an older schema into a new file, which replaces the old one once it is complete and durable. A
/// crash in between leaves the old one.
fn bring_up_to_date(place: &Place, old: Connection) -> Result<(), Problem> {
    place.refuse_no_room()?;
    // Success means that nobody else has it open, and that no log is left that could be taken for the new file's.
    let mode: String = old.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode != "delete" {
        return Err(Problem::Busy);
    }
    close(old)?;
    let building = place.begin()?;
    let mut new = begin_file(building.path(), OpenFlags::SQLITE_OPEN_URI)?;
    upgrade::fill(&mut new, &place.ledger, Source::Live)?;
    schema::set_up_writing(&new)?;
    close(new)?;
    building.replace()
}

/// Builds a new ledger at `place`: `fill` works on a file that gets the ledger's name only once it is complete and
/// durable.
pub(super) fn build(
    place: &Place,
    lock: &mut LedgerLock,
    fill: impl FnOnce(&mut Connection) -> Result<(), import::Refusal>,
) -> Result<(), import::Refusal> {
    if place.is_taken() {
        return Err(Problem::Exists.into());
    }
    place.refuse_orphaned_log()?;
    // The note is about an earlier ledger at this place.
    lock.settle(0);
    let building = place.begin()?;
    let mut connection = begin_file(building.path(), OpenFlags::empty())?;
    schema::create(&mut connection)?;
    fill(&mut connection)?;
    schema::set_up_writing(&connection)?;
    // The first read with a write-ahead log: without shared memory it fails here, and leaves nothing behind.
    schema::read_commits(&connection)?;
    close(connection)?;
    Ok(building.install()?)
}

fn begin_file(path: &Path, more: OpenFlags) -> Result<Connection, Problem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    schema::set_up(&connection)?;
    schema::set_up_building(&connection)?;
    Ok(connection)
}

fn close(connection: Connection) -> Result<(), Problem> {
    connection.close().map_err(|(_, error)| error.into())
}
