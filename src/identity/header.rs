//! A lot's header: the names of its columns, and which of them identifies a device.

use std::collections::HashMap;

use super::fault::{LotFault, RowError};
use super::reader::LotFormat;
use super::records::Record;
use super::{LotShape, is_longer_than};
use crate::service::MAX_PARAMETER_NAME;
use crate::wording::{Excerpt, folded, is_invisible};

/// Where the key is looked for by default: the first of these that is a column.
pub const KEY_COLUMNS: [&str; 3] = ["SerialNumber", "DeviceId", "ThingName"];

/// How many errors are reported of a header: enough to see what is wrong with it.
pub(super) const HEADER_ERRORS: usize = 100;

/// A header's names and key column, and what is doubtful about the names; or everything that is wrong with it: the first
/// [`HEADER_ERRORS`] things, since a file that is not a lot at all has more.
pub(super) fn parse_header(
    header: &Record<'_>,
    format: &LotFormat,
) -> Result<(LotShape, Vec<RowError>), Vec<RowError>> {
    let line = header.extent.line;
    let (mut errors, mut doubts) = (Vec::new(), Vec::new());
    let mut columns: Vec<String> = Vec::with_capacity(header.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (bytes, number) in header.fields().zip(1..) {
        if errors.len() >= HEADER_ERRORS {
            return Err(errors);
        }
        let name = String::from_utf8_lossy(bytes).into_owned();
        if let Err(found) = super::reader::decode(bytes) {
            let found = format!("in the name of column {number} {found}");
            errors.push(error(line, LotFault::Encoding, found, super::reader::WANTED_UTF8));
        } else if let Some((found, wanted)) = name_fault(&name, number) {
            let is_known = format.known_columns.contains(&name);
            let told = if is_known { &mut doubts } else { &mut errors };
            told.push(error(line, LotFault::ColumnName, found, wanted));
        } else {
            let first = *seen.entry(name.clone()).or_insert(number);
            if first != number {
                let found = format!("the name {} in column {first} and in column {number}", Excerpt(&name));
                let wanted = "names that differ: each is a template parameter";
                errors.push(error(line, LotFault::ColumnName, found, wanted));
            }
        }
        columns.push(name);
    }
    match find_key_column(&columns, format.key_column.as_deref(), line) {
        Ok(key_column) if errors.is_empty() => return Ok((LotShape { columns, key_column }, doubts)),
        // The key may only be missing because of what is wrong with the names.
        Err(missing) if errors.is_empty() || missing.fault == LotFault::Header => errors.push(missing),
        _ => {}
    }
    Err(errors)
}

/// What is wrong with a single column's name: what was found, what was wanted.
fn name_fault(name: &str, number: usize) -> Option<(String, &'static str)> {
    if name.trim().is_empty() {
        let wanted = "the name of a template parameter (a delimiter at the end of the header makes one column too many)";
        Some((format!("no name for column {number}"), wanted))
    } else if let Some(place) = name.chars().position(is_invisible) {
        let found = format!(
            "a character that cannot be seen, number {} of the name \"{}\" of column {number}",
            place + 1,
            Excerpt(name)
        );
        Some((found, "the name of a template parameter, in plain text"))
    } else if name.starts_with(' ') || name.ends_with(' ') {
        let found = format!("a space at an end of the name \"{}\" of column {number}", Excerpt(name));
        Some((found, "the name of a template parameter, with nothing between it and the delimiters"))
    } else if is_longer_than(name, MAX_PARAMETER_NAME) {
        let found = format!("{} characters in the name of column {number}", name.chars().count());
        Some((found, "at most 2048 characters, the service's limit for a parameter's name"))
    } else {
        None
    }
}

/// The key's index in `columns`.
fn find_key_column(columns: &[String], wanted: Option<&str>, line: u64) -> Result<usize, RowError> {
    let place = |name: &str| columns.iter().position(|column| column == name);
    let found = wanted.map_or_else(|| KEY_COLUMNS.into_iter().find_map(place), place);
    found.ok_or_else(|| {
        let listed = list_columns(columns);
        if columns.iter().any(|name| is_value(name)) {
            let found = format!("no header: the first row has {listed}, which look like a device's values");
            let wanted = "a line above it that names the columns, such as SerialNumber,DeviceId";
            return error(line, LotFault::Header, found, wanted);
        }
        let known = wanted.as_ref().map_or(&KEY_COLUMNS[..], std::slice::from_ref);
        let nearly = columns.iter().find_map(|column| {
            let meant = known.iter().find(|name| folded(name) == folded(column))?;
            Some(format!("; {} is nearly {}", Excerpt(column), Excerpt(meant)))
        });
        let wanted = match wanted {
            Some(name) => format!("the column \"{}\", which is to identify devices", Excerpt(name)),
            None => {
                format!(
                    "a column that identifies a device: one of {}, or another that is named",
                    KEY_COLUMNS.join(", ")
                )
            }
        };
        let wanted = wanted + &nearly.unwrap_or_default();
        error(line, LotFault::KeyColumn, format!("{listed} in the header"), wanted)
    })
}

/// Whether a text is surely not a column's name: digits alone, or bytes in hexadecimal, such as a MAC address.
fn is_value(name: &str) -> bool {
    let is_hex = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = |separator: char| name.contains(separator) && name.split(separator).all(is_hex);
    name.bytes().all(|byte| byte.is_ascii_digit()) || is_address(':') || is_address('-')
}

/// The columns in words.
fn list_columns(columns: &[String]) -> String {
    const LISTED: usize = 20;
    if let [only] = columns {
        return format!("the one column {}", Excerpt(only));
    }
    let names: Vec<String> = columns.iter().take(LISTED).map(|name| Excerpt(name).to_string()).collect();
    let more = match columns.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the columns {}{more}", names.join(", "))
}

fn error(line: u64, fault: LotFault, found: String, wanted: impl Into<String>) -> RowError {
    RowError { line, column: None, fault, found, wanted: wanted.into() }
}
