//! Opening a ledger's file: what is looked at before a byte of it is trusted, and how an old one becomes a new one.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::Problem;
use super::lock::{self, LedgerLock};
use super::place::Place;
use super::schema::upgrade::{self, Source};
use super::{import, integrity, schema};

/// How much of a ledger is looked at before it is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it.
    Through,
    /// Its head. Whoever reads a row afterwards holds it against its digest.
    Ahead,
}

/// Opens the ledger at `place` to look at it.
pub(super) fn to_read(place: &Place) -> Result<Connection, Problem> {
    place.refuse_absent()?;
    place.refuse_foreign()?;
    // Before the ledger is read: a run that writes it at this moment notes its commits after making them.
    let noted = lock::noted_commits(&place.lock);
    let (connection, source) = match open_to_read(place, Source::Live) {
        Ok(connection) => (connection, Source::Live),
        // SQLite wants to write beside a file whose log may be in use. Without a log, nothing is.
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

/// Opens the ledger at `place` to write it, of an older schema too: that is brought up to date.
pub(super) fn to_write(place: &Place, lock: &mut LedgerLock, look: Look) -> Result<Connection, Problem> {
    let mut connection = open_to_write(place, look)?;
    if schema::version(&connection)? < schema::NEWEST {
        bring_up_to_date(place, connection)?;
        connection = open_to_write(place, Look::Ahead)?;
    }
    place.keep_private()?;
    schema::set_up_writing(&connection)?;
    // All that was noted is there, or the ledger would not have opened.
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
    // Until it is known to be sound, nothing is moved from the log into the file, nor the log removed.
    schema::keep_log(&connection, place.log.exists())?;
    schema::set_up(&connection)?;
    let version = schema::identify(&connection)?;
    place.refuse_cut_page(schema::page_size(&connection)?)?;
    // Known only now, if it is the file's header that forbids it.
    schema::refuse_read_only(&connection)?;
    if look == Look::Through || version < schema::NEWEST {
        integrity::check(&connection)?;
    }
    place.refuse_lost_commits(schema::read_commits(&connection)?, noted)?;
    schema::keep_log(&connection, false)?;
    Ok(connection)
}

/// Writes a ledger of an older schema anew, in a file of its own that takes the name of the old one when it is whole and
/// durable. Whatever comes between leaves the old one.
fn bring_up_to_date(place: &Place, old: Connection) -> Result<(), Problem> {
    place.refuse_no_room()?;
    // Nobody else has it open when this succeeds, and there is no log any more that could be taken for the new file's.
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

/// Builds a new ledger at `place`: `fill` works on a file that gets the ledger's name only when it is whole and durable.
pub(super) fn build(
    place: &Place,
    lock: &mut LedgerLock,
    fill: impl FnOnce(&mut Connection) -> Result<(), import::Refusal>,
) -> Result<(), import::Refusal> {
    if place.is_taken() {
        return Err(Problem::Exists.into());
    }
    place.refuse_orphaned_log()?;
    // What was noted is of a ledger that had this place before.
    lock.settle(0);
    let building = place.begin()?;
    let mut connection = begin_file(building.path(), OpenFlags::empty())?;
    schema::create(&mut connection)?;
    fill(&mut connection)?;
    schema::set_up_writing(&connection)?;
    // The first look with a write-ahead log: it fails here, and leaves nothing, where no memory can be shared.
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
