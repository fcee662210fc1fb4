//! Reads a lot: its header, then its rows one by one.
//!
//! Owns what makes a header and a row good, and the words for what is wrong with a bad one. How records come out of
//! bytes is next door, in `records`.

use std::collections::HashMap;
use std::io::Read;
use std::iter::FusedIterator;

use super::records::{Broken, Quote, Record, RecordReader};
use super::{
    Excerpt, Identity, LotShape, NAME_LIMIT, RECORD_LIMIT, RowError, VALUE_LIMIT, is_longer_than,
    payload_fault,
};

/// Where the key is looked for if nobody says: the first of these that is a column.
pub const KEY_COLUMNS: [&str; 3] = ["SerialNumber", "DeviceId", "ThingName"];

/// Reads a lot as a stream: memory stays flat however long the file is.
///
/// The text is CSV as RFC 4180 has it, in UTF-8. A byte order mark, LF, CR LF or CR at the end of a line, line ends in
/// quoted fields, lines with nothing on them, and a last line without a line end are all fine. Every column is a template
/// parameter.
///
/// As an iterator it yields one item a row, good or bad, and goes on after a bad one: an `Err` holds everything that is
/// wrong with that row. Only a source that fails, a quote that stays open and a record over [`RECORD_LIMIT`] end it early,
/// each as its last item. A lot without rows yields one error. Keys that stand in the lot twice are not found here.
pub struct LotReader<R> {
    records: RecordReader<R>,
    shape: LotShape,
    header_line: u64,
    progress: Progress,
}

/// How far a reader has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The header was read, no row yet.
    Header,
    /// At least one row was read, or tried.
    Rows,
    /// Nothing more will come.
    End,
}

impl<R: Read> LotReader<R> {
    /// Reads the header. `key_column` names the column that identifies a device; without it the first of [`KEY_COLUMNS`]
    /// that there is does.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the header: there is none, the key column is not in it, names that are empty, equal,
    /// too long, or not text; also a source that fails, and text that is UTF-16.
    pub fn new(source: R, key_column: Option<&str>) -> Result<Self, Vec<RowError>> {
        let broken = |broken: Broken| vec![broken_record(broken, &[])];
        let mut records = RecordReader::new(source).map_err(broken)?;
        let header = records.read().map_err(broken)?.ok_or_else(|| vec![no_header()])?;
        let header_line = header.line;
        let shape = parse_header(&header, key_column)?;
        Ok(Self { records, shape, header_line, progress: Progress::Header })
    }

    /// What all rows have in common.
    pub fn shape(&self) -> &LotShape {
        &self.shape
    }

    /// The item for a source that holds no further record.
    fn finish(&mut self) -> Option<Result<Identity, Vec<RowError>>> {
        let is_empty = self.progress == Progress::Header;
        self.progress = Progress::End;
        is_empty.then(|| Err(vec![no_rows(self.header_line)]))
    }
}

impl<R: Read> Iterator for LotReader<R> {
    type Item = Result<Identity, Vec<RowError>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.progress == Progress::End {
            return None;
        }
        match self.records.read() {
            Ok(Some(record)) => {
                self.progress = Progress::Rows;
                Some(parse_row(&record, &self.shape))
            }
            Ok(None) => self.finish(),
            Err(broken) => {
                self.progress = Progress::End;
                Some(Err(vec![broken_record(broken, &self.shape.columns)]))
            }
        }
    }
}

impl<R: Read> FusedIterator for LotReader<R> {}

/// A header's names and key column, or everything that is wrong with it: the first [`HEADER_ERRORS`] things, for what
/// is not a lot at all has more.
fn parse_header(header: &Record<'_>, key_column: Option<&str>) -> Result<LotShape, Vec<RowError>> {
    if let Some(quote) = header.stray_text {
        return Err(vec![stray_text(quote, header.last_line, &[])]);
    }
    let error = |(found, wanted): (String, &str)| header_error(header.line, found, wanted);
    let mut errors = Vec::new();
    let mut columns: Vec<String> = Vec::with_capacity(header.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (bytes, number) in header.fields().zip(1..) {
        if errors.len() >= HEADER_ERRORS {
            return Err(errors);
        }
        let name = String::from_utf8_lossy(bytes).into_owned();
        if let Err(found) = decode(bytes) {
            errors.push(error((format!("in the name of column {number} {found}"), WANTED_UTF8)));
        } else if let Some(fault) = name_fault(&name, number) {
            errors.push(error(fault));
        } else {
            let first = *seen.entry(name.clone()).or_insert(number);
            if first != number {
                let found = format!("the name {} in column {first} and in column {number}", Excerpt(&name));
                errors.push(error((found, "names that differ: each is a template parameter")));
            }
        }
        columns.push(name);
    }
    match find_key_column(&columns, key_column, header.line) {
        Ok(key_column) if errors.is_empty() => return Ok(LotShape { columns, key_column }),
        Ok(_) => {}
        Err(error) => errors.push(error),
    }
    Err(errors)
}

/// So many errors are enough to see what is wrong with a header.
const HEADER_ERRORS: usize = 100;

/// What is wrong with a column's name by itself: what was found, what was wanted.
fn name_fault(name: &str, number: usize) -> Option<(String, &'static str)> {
    if name.trim().is_empty() {
        let wanted =
            "the name of a template parameter (a comma at the end of the header makes one column too many)";
        Some((format!("no name for column {number}"), wanted))
    } else if name.chars().any(char::is_control) {
        let found = format!("a control character in the name of column {number}, {}", Excerpt(name));
        Some((found, "the name of a template parameter, in plain text"))
    } else if is_longer_than(name, NAME_LIMIT) {
        let found = format!("{} characters in the name of column {number}", name.chars().count());
        Some((found, "at most 2048 characters, the service's limit for a parameter's name"))
    } else {
        None
    }
}

/// The key's place among `columns`.
fn find_key_column(columns: &[String], wanted: Option<&str>, line: u64) -> Result<usize, RowError> {
    let place = |name: &str| columns.iter().position(|column| column == name);
    let found = match wanted {
        Some(name) => place(name),
        None => KEY_COLUMNS.into_iter().find_map(place),
    };
    found.ok_or_else(|| {
        let wanted = match wanted {
            Some(name) => format!("the column {}, which --key-column names", Excerpt(name)),
            None => format!(
                "one of {}, or --key-column NAME to say which of the lot's columns identifies a device",
                KEY_COLUMNS.join(", ")
            ),
        };
        header_error(line, list_columns(columns), wanted)
    })
}

/// The columns in words, with a guess where there is only one.
fn list_columns(columns: &[String]) -> String {
    const LISTED: usize = 20;
    if let [only] = columns {
        let guess = match only {
            _ if only.contains(';') => "; is it separated by semicolons, not commas?",
            _ if only.contains('\t') => "; is it separated by tabs, not commas?",
            _ => "",
        };
        return format!("the one column {} in the header{guess}", Excerpt(only));
    }
    let names: Vec<String> = columns.iter().take(LISTED).map(|name| Excerpt(name).to_string()).collect();
    let more = match columns.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the columns {}{more} in the header", names.join(", "))
}

/// A row's values, or everything that is wrong with it.
///
/// Where quotes are misplaced or fields missing it is anybody's guess which value belongs to which column, so nothing else is
/// said of such a row.
fn parse_row(record: &Record<'_>, shape: &LotShape) -> Result<Identity, Vec<RowError>> {
    if let Some(quote) = record.stray_text {
        return Err(vec![stray_text(quote, record.last_line, &shape.columns)]);
    }
    if record.len() != shape.columns.len() {
        return Err(vec![ragged(record, shape.columns.len())]);
    }
    let mut errors = Vec::new();
    let mut values = Vec::with_capacity(shape.columns.len());
    for (index, (bytes, column)) in record.fields().zip(&shape.columns).enumerate() {
        let fault = |(found, wanted): (String, &str)| RowError {
            line: record.line,
            column: Some(column.clone()),
            found,
            wanted: wanted.to_owned(),
        };
        match decode(bytes) {
            Err(found) => errors.push(fault((found, WANTED_UTF8))),
            Ok(text) => {
                errors.extend(value_fault(text).map(fault));
                errors.extend(key_fault(text).filter(|_| index == shape.key_column).map(fault));
                values.push(text.to_owned());
            }
        }
    }
    if values.len() == shape.columns.len() {
        let parameters = shape.columns.iter().map(String::as_str).zip(values.iter().map(String::as_str));
        errors.extend(payload_fault(record.line, parameters));
    }
    match errors.is_empty() {
        true => Ok(Identity { line: record.line, key: values[shape.key_column].clone(), values }),
        false => Err(errors),
    }
}

/// What is wrong with a value of any column.
fn value_fault(value: &str) -> Option<(String, &'static str)> {
    is_longer_than(value, VALUE_LIMIT).then(|| {
        let found = format!("a value of {} characters", value.chars().count());
        (found, "at most 4096 characters, the service's limit for a parameter's value")
    })
}

/// What is wrong with a key. It becomes the name of a directory and a word in the log.
fn key_fault(key: &str) -> Option<(String, &'static str)> {
    if key.is_empty() {
        Some((String::from("an empty key"), "a value that identifies the device"))
    } else if key.trim().is_empty() {
        let found = format!("a key of nothing but white space, \"{}\"", Excerpt(key));
        Some((found, "a value that identifies the device"))
    } else if key.chars().any(char::is_control) {
        let found = format!("a control character in the key \"{}\"", Excerpt(key));
        Some((found, "a key without line ends, tabs or other control characters"))
    } else {
        None
    }
}

/// The text in `bytes`, or what was found in them that is none. Shows one byte and no more: the value may be a secret.
fn decode(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        format!("byte 0x{:02X} at position {}, where it is not UTF-8", bytes[place], place + 1)
    })
}

const WANTED_UTF8: &str = "text in UTF-8 (in a spreadsheet, save as \"CSV UTF-8\")";

fn ragged(record: &Record<'_>, wanted: usize) -> RowError {
    let fields = if record.len() == 1 { "field" } else { "fields" };
    let found = match record.last_line {
        last if last == record.line => format!("{} {fields}", record.len()),
        last => {
            format!("{} {fields} in a row that goes on to line {last} (is a quote left open?)", record.len())
        }
    };
    RowError { line: record.line, column: None, found, wanted: format!("{wanted}, as in the header") }
}

fn stray_text(quote: Quote, last_line: u64, columns: &[String]) -> RowError {
    let found = match last_line {
        last if last == quote.line => String::from("text after a closing quote"),
        last => format!(
            "text after a closing quote, in a row that goes on to line {last} (is the quote left open that opens here?)"
        ),
    };
    RowError {
        line: quote.line,
        column: columns.get(quote.field).cloned(),
        found,
        wanted: String::from(
            "a comma or the end of the line there; a quote inside a quoted value is written twice",
        ),
    }
}

fn header_error(line: u64, found: String, wanted: impl Into<String>) -> RowError {
    RowError { line, column: None, found, wanted: wanted.into() }
}

fn no_header() -> RowError {
    header_error(
        1,
        String::from("an empty file"),
        "a header that names the template's parameters, then a row for each device",
    )
}

fn no_rows(header_line: u64) -> RowError {
    header_error(header_line, String::from("a header and no rows"), "a row for each device below the header")
}

fn broken_record(broken: Broken, columns: &[String]) -> RowError {
    match broken {
        Broken::Source { line, error } => {
            header_error(line, format!("a read error: {error}"), "a file that can be read to its end")
        }
        Broken::Utf16 { mark: [first, second] } => header_error(
            1,
            format!("UTF-16 text (the file begins with the byte order mark {first:02X} {second:02X})"),
            WANTED_UTF8,
        ),
        Broken::OpenQuote(Quote { line, field }) => RowError {
            line,
            column: columns.get(field).cloned(),
            found: String::from("a quote that opens here and is not closed; nothing after it could be read"),
            wanted: format!("a closing quote, within {RECORD_LIMIT} bytes"),
        },
        Broken::TooLong { line } => header_error(
            line,
            format!("a row of more than {RECORD_LIMIT} bytes; nothing after it could be read"),
            format!("at most {RECORD_LIMIT} bytes"),
        ),
    }
}

#[cfg(test)]
mod tests;
