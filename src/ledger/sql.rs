//! SQLite's statements and values, with errors that describe the ledger's problem.

use rusqlite::{Connection, Params, Row};

use super::error::Problem;

pub(super) fn read_all<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    read_all_with(connection, sql, [], read)
}

pub(super) fn read_all_with<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

pub(super) fn read_count(row: &Row<'_>, column: &str) -> Result<u64, Problem> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Problem::damaged(format!("{column} is negative")))
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Problem> {
    let text: String = row.get(column)?;
    // serde's message is left out, because it quotes the value.
    serde_json::from_str(&text)
        .map_err(|_| Problem::damaged(format!("{column} is not the JSON that it should be")))
}

/// Runs a statement that must change exactly one row; anything else means that the ledger contradicts itself.
pub(super) fn write_one(connection: &Connection, sql: &str, values: impl Params) -> Result<(), Problem> {
    match connection.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        rows => Err(Problem::damaged(format!("a change of one row met {rows} rows"))),
    }
}
