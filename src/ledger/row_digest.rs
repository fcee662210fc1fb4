//! The digest of a row, which reveals whether anything else has altered it.

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use super::error::Problem;

/// Adds the SQL function `row_digest` to `connection`: a digest of any values, their types and their order.
pub(super) fn add_row_digest(connection: &Connection) -> Result<(), Problem> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("row_digest", -1, flags, |arguments| {
        Ok(row_digest((0..arguments.len()).map(|index| arguments.get_raw(index))))
    })?;
    Ok(())
}

/// The first 64 bits of SHA-256: protects against accidents, not against deliberate changes.
pub(super) fn row_digest<'a>(values: impl Iterator<Item = ValueRef<'a>>) -> i64 {
    let mut context = Context::new(&SHA256);
    let mut absorb = |kind: u8, bytes: &[u8]| {
        let mut head = [kind; 9];
        head[1..].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
        context.update(&head);
        context.update(bytes);
    };
    for value in values {
        match value {
            ValueRef::Null => absorb(0, &[]),
            ValueRef::Integer(number) => absorb(1, &number.to_be_bytes()),
            ValueRef::Real(number) => absorb(2, &number.to_be_bytes()),
            ValueRef::Text(text) => absorb(3, text),
            ValueRef::Blob(bytes) => absorb(4, bytes),
        }
    }
    let mut digest = [0; 8];
    digest.copy_from_slice(&context.finish().as_ref()[..8]);
    i64::from_be_bytes(digest)
}
