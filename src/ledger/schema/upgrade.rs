//! Upgrades a ledger of an older schema to the newest by filling a new file from it.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{create, set_up};
use crate::certificate::StoredKey;
use crate::ledger::error::Problem;
use crate::ledger::rows::read_certificate_id;
use crate::ledger::{keys, pem};

/// Whether another process can write the old file while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) enum Source {
    /// It is on a read-only medium or in a read-only directory, and has no log.
    Immutable,
    /// It can be written, as usual.
    Live,
}

/// Statements that copy tables unchanged, with the first version that has the table.
const COPIED: [(i64, &str); 4] = [
    (
        1,
        "INSERT INTO run SELECT id, started_at, ended_at, pid, settings, outcome, summary FROM old.run ORDER BY id",
    ),
    (2, "INSERT INTO sealing SELECT id, recipients FROM old.sealing ORDER BY id"),
    (2, "INSERT INTO export SELECT id, exported_at, destination, devices FROM old.export ORDER BY id"),
    (1, "UPDATE progress SET commits = (SELECT commits FROM old.progress)"),
];

const LOT: &str = "INSERT INTO lot (id, source, digest, columns, key_column, devices, template, region, account, created_at)
    SELECT id, source, digest, columns, key_column, devices, template, region, account, created_at FROM old.lot";

const DEVICES: &str = "INSERT INTO device
    (id, key, line, parameter_values, state, registration, thing_name, device_configuration, failure_stage,
     failure_cause, failure, updated_at, run, digest)
    SELECT id, key, line, parameter_values, state, registration, thing_name, device_configuration, failure_stage,
           failure_cause, failure, updated_at, run,
           row_digest(id, key, parameter_values, state, registration, thing_name, device_configuration,
                      failure_stage, failure_cause, failure, updated_at, NULL)
    FROM old.device ORDER BY id";

const PREPARED_KEYS: &str = "INSERT INTO prepared_key
    (device, private_key, sealing, signing_request, prepared_at, run, digest)
    SELECT device, private_key, sealing, signing_request, prepared_at, run,
           row_digest(device, private_key, sealing, signing_request)
    FROM old.prepared_key ORDER BY device";

/// Copies certificates in the order in which they were written. `{keys}` stands for the columns that schema 1 lacks.
const CREDENTIALS: &str = "INSERT INTO credential
    (id, device, certificate_id, certificate, private_key, private_key_label, issued_at, run, retired_at, sealing,
     export, purged_at, digest)
    SELECT id, device, certificate_id, certificate, private_key, private_key_label, issued_at, run, retired_at, sealing,
           export, purged_at,
           row_digest(id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at,
                      sealing, purged_at, NULL)
    FROM (SELECT rowid AS id, device, id_kept(certificate_id) AS certificate_id,
                 iif(pem_label(certificate_pem) IS 'CERTIFICATE', pem_kept(certificate_pem), certificate_pem) AS certificate,
                 pem_kept(private_key) AS private_key, pem_label(private_key) AS private_key_label,
                 issued_at, run, retired_at, {keys}
          FROM old.certificate ORDER BY rowid LIMIT -1)";

const TOKENS: &str = "INSERT INTO token (device, ownership_token, digest)
    SELECT device, ownership_token, row_digest(device, ownership_token)
    FROM old.certificate WHERE retired_at IS NULL AND ownership_token IS NOT NULL ORDER BY device";

/// Fills the empty database behind `connection` with the content of the ledger at `old`, in the newest schema.
///
/// # Errors
/// If the old ledger cannot be read; or, if its rows have no digests, a key in it does not match its certificate.
pub(in crate::ledger) fn fill(
    connection: &mut Connection,
    old: &Path,
    source: Source,
) -> Result<(), Problem> {
    create(connection)?;
    connection.execute("ATTACH ?1 AS old", [uri(old, source)])?;
    let old_version: i64 = connection.pragma_query_value(Some("old"), "user_version", |row| row.get(0))?;
    let transaction = connection.transaction()?;
    for (since, statement) in COPIED {
        if old_version >= since {
            transaction.execute(statement, [])?;
        }
    }
    transaction.execute(LOT, [])?;
    transaction.execute(DEVICES, [])?;
    let columns = if old_version >= 2 {
        "sealing, export, purged_at"
    } else {
        "NULL AS sealing, NULL AS export, NULL AS purged_at"
    };
    transaction.execute(&CREDENTIALS.replace("{keys}", columns), [])?;
    transaction.execute(TOKENS, [])?;
    if old_version >= 2 {
        transaction.execute(PREPARED_KEYS, [])?;
    }
    if old_version < super::WITH_DIGESTS {
        check_pairs(&transaction)?;
    }
    transaction.commit()?;
    Ok(connection.execute_batch("DETACH old")?)
}

/// A private copy of an older ledger in the newest schema, for reading: a nameless temporary file of SQLite's, which is
/// deleted with the connection.
pub(in crate::ledger) fn private_copy(old: &Path, source: Source) -> Result<Connection, Problem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags("", flags)?;
    set_up(&copy)?;
    super::set_up_building(&copy)?;
    fill(&mut copy, old, source)?;
    Ok(copy)
}

/// SQLite's URI of a file that is only read. Source: <https://www.sqlite.org/uri.html>.
pub(in crate::ledger) fn uri(path: &Path, source: Source) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte))
            }
            other => write!(uri, "%{other:02x}").expect("writing to a text cannot fail"),
        }
    }
    uri + match source {
        Source::Immutable => "?mode=ro&immutable=1",
        Source::Live => "?mode=ro",
    }
}

/// Checks each certificate against its key, because rows without digests could have been mixed up.
fn check_pairs(connection: &Connection) -> Result<(), Problem> {
    let sql = "SELECT credential.certificate_id, credential.certificate, credential.private_key,
                      credential.private_key_label, credential.purged_at, sealing.recipients, device.key
               FROM credential JOIN device ON device.id = credential.device
               LEFT JOIN sealing ON sealing.id = credential.sealing ORDER BY credential.id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let StoredKey::Plain(key) = keys::read_stored_key(row)? else { continue };
        let certificate = pem::restore(row.get_ref("certificate")?, "CERTIFICATE")?;
        let id = read_certificate_id(row)?;
        if let Err(mismatch) = crate::keys::check_pair(id.as_str(), &certificate, &key) {
            let device: String = row.get("key")?;
            let device = crate::ledger::refusal::Shown(&device).to_string();
            return Err(Problem::damaged(format!(
                "the certificate of the device with key {device} is not what an older version wrote: {mismatch}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_the_same_in_a_uri() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["plain", "a b", "what?mode=rw", "50%41", "a#b", "ü;&="] {
            let path = directory.path().join(name);
            Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            for source in [Source::Live, Source::Immutable] {
                let read = Connection::open_with_flags(uri(&path, source), flags).unwrap();
                assert_eq!(crate::ledger::schema::version(&read).unwrap(), 7, "{name}");
            }
        }
    }
}
