//! Checks that a ledger is what was written to it.
//!
//! Owns the search for damage, and the digests of rows. SQLite notices damage to its own structures, but not within a
//! value: a key with a flipped bit is still valid text. So each important row has a digest, which every write brings up
//! to date, and which is checked before a run uses the ledger.

use rusqlite::Connection;

use super::error::Problem;
use super::schema;

/// Queries that count the rows whose digest does not match.
const ALTERED: [(&str, &str); 5] = [
    (
        "lot",
        "SELECT count(*) FROM lot WHERE row_digest IS NOT row_digest(
         source, digest, columns, key_column, devices, template, region, account, created_at, content, shard, shards)",
    ),
    (
        "device",
        "SELECT count(*) FROM device WHERE digest IS NOT row_digest(
         id, key, parameter_values, state, registration, thing_name, device_configuration,
         failure_stage, failure_cause, failure, updated_at, request_digest)",
    ),
    (
        "credential",
        "SELECT count(*) FROM credential WHERE digest IS NOT row_digest(
         id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at, sealing,
         purged_at, deleted_at)",
    ),
    ("token", "SELECT count(*) FROM token WHERE digest IS NOT row_digest(device, ownership_token)"),
    (
        "prepared_key",
        "SELECT count(*) FROM prepared_key WHERE digest IS NOT row_digest(device, private_key, sealing, signing_request)",
    ),
];

/// Queries that count mismatched digests in schemas 3 and 4. There, a device had no digest until its first change: its
/// imported values were compared with the lot.
const ALTERED_BEFORE_5: [(&str, &str); 3] = [
    (
        "certificate",
        "SELECT count(*) FROM certificate WHERE digest IS NOT row_digest(
         certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at,
         sealing, purged_at)",
    ),
    (
        "prepared_key",
        "SELECT count(*) FROM prepared_key WHERE digest IS NOT row_digest(device, private_key, sealing, signing_request)",
    ),
    (
        "device",
        "SELECT count(*) FROM device WHERE digest IS NOT row_digest(
         id, key, parameter_values, state, registration, thing_name, device_configuration)
         AND NOT (digest IS NULL AND state = 'pending' AND thing_name IS NULL AND device_configuration IS NULL)",
    ),
];

/// Reads the whole file, and refuses one that is damaged or was altered by anything but a ledger's own statements.
pub(super) fn check(connection: &Connection) -> Result<(), Problem> {
    check_schema(connection)?;
    // The second check covers the list of free pages, which the first one skips if the schema has views.
    for check in ["PRAGMA integrity_check(1)", "PRAGMA integrity_check(sqlite_schema)"] {
        let verdict: String = connection.query_row(check, [], |row| row.get(0))?;
        if verdict != "ok" {
            let found = verdict.trim_start_matches("*** in database main ***").trim();
            let found = found.lines().next().unwrap_or_default();
            return Err(Problem::damaged(found));
        }
    }
    let altered: &[_] = match schema::version(connection)? {
        schema::NEWEST => &ALTERED,
        schema::WITH_DIGESTS.. => &ALTERED_BEFORE_5,
        _ => &[],
    };
    for (table, altered) in altered {
        let rows: i64 = connection.query_row(altered, [], |row| row.get(0))?;
        if rows > 0 {
            return Err(Problem::damaged(format!(
                "{rows} rows of its table {table} are not as they were written"
            )));
        }
    }
    Ok(())
}

/// Refuses a ledger whose tables, indexes or triggers are not those of its version: a statement on it could do
/// anything.
fn check_schema(connection: &Connection) -> Result<(), Problem> {
    let mut model = Connection::open_in_memory()?;
    schema::set_up(&model)?;
    schema::create_version(&mut model, schema::version(connection)?)?;
    if definitions(connection)? == definitions(&model)? {
        Ok(())
    } else {
        Err(Problem::damaged("its tables are not defined as in a ledger of its version"))
    }
}

/// Everything in the schema except what SQLite adds itself on ANALYZE.
fn definitions(connection: &Connection) -> Result<Vec<(String, String, Option<String>)>, Problem> {
    let mut query = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*' ORDER BY type, name",
    )?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::set_up(&connection).unwrap();
        schema::create(&mut connection).unwrap();
        connection
            .execute_batch(
                "INSERT INTO device (id, key, line, parameter_values) VALUES (1, 'a', 2, '[]');
                 INSERT INTO credential (certificate_id, device, certificate, private_key, issued_at)
                 VALUES ('x', 1, 'pem', 'key', 'then');
                 INSERT INTO token (device, ownership_token) VALUES (1, 'token');
                 UPDATE device SET state = 'registered', thing_name = 'thing';
                 UPDATE credential SET retired_at = 'now';",
            )
            .unwrap();
        connection
    }

    #[test]
    fn what_is_written_by_statements_is_sound() {
        check(&ledger()).unwrap();
    }

    #[test]
    fn a_value_that_changed_by_itself_is_found() {
        for (table, change) in [
            ("credential", "UPDATE credential SET private_key = 'kex'"),
            ("credential", "UPDATE credential SET device = 1, certificate = NULLIF('pfm', '')"),
            ("device", "UPDATE device SET thing_name = 'thinh'"),
            ("device", "UPDATE device SET state = 'unknown'"),
            ("device", "UPDATE device SET updated_at = 'some day'"),
            ("token", "UPDATE token SET ownership_token = 'tokem'"),
        ] {
            let connection = ledger();
            let digests = format!("CREATE TEMP TABLE was AS SELECT digest FROM {table};");
            let restore = format!("UPDATE {table} SET digest = (SELECT digest FROM was)");
            connection.execute_batch(&format!("{digests} {change}; {restore}")).unwrap();
            let problem = check(&connection).unwrap_err();
            assert!(
                problem.to_string().contains(&format!("1 rows of its table {table}")),
                "{change}: {problem}"
            );
        }
    }

    #[test]
    fn a_schema_of_somebody_else_is_found() {
        for change in ["DROP TRIGGER device_changed", "DROP INDEX device_open", "CREATE TABLE more (x)"] {
            let connection = ledger();
            connection.execute_batch(change).unwrap();
            assert!(check(&connection).unwrap_err().to_string().contains("not defined"), "{change}");
        }
        let connection = ledger();
        connection.execute_batch("ANALYZE").unwrap();
        check(&connection).unwrap();
    }

    #[test]
    fn a_digest_tells_types_and_bounds_apart() {
        let connection = Connection::open_in_memory().unwrap();
        crate::ledger::row_digest::add_row_digest(&connection).unwrap();
        let digest = |arguments: &str| -> i64 {
            connection.query_row(&format!("SELECT row_digest({arguments})"), [], |row| row.get(0)).unwrap()
        };
        let all = [
            "",
            "NULL",
            "NULL, NULL",
            "''",
            "'a'",
            "x'61'",
            "'a', 'b'",
            "'ab', ''",
            "'ab'",
            "1",
            "'1'",
            "1.0",
        ];
        let digests: std::collections::HashSet<i64> = all.iter().map(|arguments| digest(arguments)).collect();
        assert_eq!(digests.len(), all.len());
        // From `printf '\003\0\0\0\0\0\0\0\001a' | sha256sum`.
        assert_eq!(digest("'a'"), i64::from_be_bytes([0x8e, 0xa5, 0xff, 0x16, 0xe1, 0x5e, 0x7c, 0xe4]));
    }
}
