//! Reads a lot: its header, then its rows one by one.
//!
//! Owns what makes a row good, and the words for what is wrong with a bad one. How records come out of bytes is in `records`;
//! what makes a header good, in `header`.

use std::io::Read;
use std::iter::FusedIterator;

use super::damage::Damage;
use super::encoding::Encoding;
use super::fault::{LotErrors, LotFault, RowError};
use super::header::parse_header;
use super::records::{Broken, Delimiter, Extent, Quote, Record, RecordReader};
use super::{Identity, LotShape, RECORD_LIMIT, is_longer_than, payload_fault};
use crate::service::MAX_PARAMETER_VALUE;
use crate::wording::{Excerpt, is_invisible, number};

/// How a lot is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LotFormat {
    /// What separates the columns; `None` takes the only delimiter that the header has unquoted, or a comma.
    pub delimiter: Option<Delimiter>,
    /// The column that identifies a device; `None` takes the first of [`KEY_COLUMNS`](super::KEY_COLUMNS) that there is.
    pub key_column: Option<String>,
    /// How to treat values that look as if a spreadsheet had damaged them.
    pub doubtful: Doubtful,
    /// Columns that a ledger has already: their names stay valid, whatever stands at their ends, and are counted among the
    /// reader's [doubts](LotReader::doubts).
    pub known_columns: Vec<String>,
}

/// How to treat what looks wrong and may be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doubtful {
    /// It is accepted, and counted among the reader's [doubts](LotReader::doubts).
    #[default]
    Taken,
    /// It is an error.
    Refused,
}

/// Reads a lot as a stream: memory stays flat however long the file is.
///
/// The text is CSV as RFC 4180 has it, in UTF-8, or in UTF-16 with a byte order mark; columns are separated by commas,
/// semicolons, tabs or vertical bars. A byte order mark, a spreadsheet's `sep=` line, LF, CR LF or CR at the end of a line, line
/// ends in quoted fields, rows of nothing but delimiters and blanks, and a last line without a line end are all fine. Every
/// column is a template parameter.
///
/// As an iterator it yields one item a row, good or bad, and goes on after a bad one: an `Err` holds everything that is
/// wrong with that row. Only a source that fails, a quote that is never closed and a record over [`RECORD_LIMIT`] end it early,
/// each as its last item. A lot without rows yields one error. Keys that occur twice are not found here, nor are keys that a
/// [new device may not have](new_key_fault): both depend on what the ledger has.
pub struct LotReader<R> {
    records: RecordReader<R>,
    shape: LotShape,
    doubtful: Doubtful,
    doubts: LotErrors,
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
    /// Reads the header of a lot in the default format, but for its key column.
    ///
    /// # Errors
    ///
    /// As [`with_format`](Self::with_format).
    pub fn new(source: R, key_column: Option<&str>) -> Result<Self, Vec<RowError>> {
        let format = LotFormat { key_column: key_column.map(str::to_owned), ..LotFormat::default() };
        Self::with_format(source, &format)
    }

    /// Reads the header.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the header: it is missing, lacks the key column, has more than one delimiter, or names that
    /// are empty, equal, too long, or have invisible characters; also a source that fails, or is recognised as something other
    /// than text with delimiters.
    pub fn with_format(source: R, format: &LotFormat) -> Result<Self, Vec<RowError>> {
        let broken = |broken: Broken| vec![broken_record(broken, &[])];
        let mut records = RecordReader::new(source, format.delimiter).map_err(broken)?;
        let header = records.read_header().map_err(broken)?.ok_or_else(|| vec![no_header()])?;
        let header_line = header.extent.line;
        if let Some(quote) = header.extent.stray_text {
            return Err(vec![stray_text(quote, header.extent.last_line, &[])]);
        }
        let (shape, doubtful_names) = parse_header(&header, format)?;
        let mut doubts = LotErrors::default();
        doubts.add(doubtful_names);
        Ok(Self {
            records,
            shape,
            doubtful: format.doubtful,
            doubts,
            header_line,
            progress: Progress::Header,
        })
    }

    /// What all rows have in common.
    pub fn shape(&self) -> &LotShape {
        &self.shape
    }

    /// What separates the columns.
    pub fn delimiter(&self) -> Delimiter {
        self.records.delimiter()
    }

    /// The lot's encoding.
    pub fn encoding(&self) -> Encoding {
        self.records.encoding()
    }

    /// What looks wrong with the header and the rows that were read so far, and was accepted all the same.
    pub fn doubts(&self) -> &LotErrors {
        &self.doubts
    }

    /// The item for a source that has no further record.
    fn finish(&mut self) -> Option<Result<Identity, Vec<RowError>>> {
        let is_empty = self.progress == Progress::Header;
        self.progress = Progress::End;
        is_empty.then(|| Err(vec![no_rows(self.header_line)]))
    }

    /// Keeps a row's doubts, or makes them its errors.
    fn sort_out(&mut self, identity: Identity) -> Result<Identity, Vec<RowError>> {
        let key_column = &self.shape.columns[self.shape.key_column];
        let doubts = value_doubts(&identity, &self.shape);
        if self.doubtful == Doubtful::Refused && !doubts.is_empty() {
            return Err(doubts);
        }
        self.doubts.add(doubts);
        // An error for a new device; for a device that the ledger has already, only worth reporting.
        self.doubts.add(new_key_fault(&identity, key_column));
        Ok(identity)
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
                let row = parse_row(&record, &self.shape);
                Some(row.and_then(|identity| self.sort_out(identity)))
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

/// Why a new device may not have this key, in the column of this name: it has an invisible character, or is a spreadsheet's
/// error. A device that the ledger has already keeps its key.
pub fn new_key_fault(identity: &Identity, key_column: &str) -> Option<RowError> {
    let key = identity.key.as_str();
    let error = |fault, found, wanted: &str| {
        let column = Some(key_column.to_owned());
        Some(RowError { line: identity.line, column, fault, found, wanted: wanted.to_owned() })
    };
    if let Some(place) = key.chars().position(is_invisible) {
        let found =
            format!("a character that cannot be seen, number {} of the key \"{}\"", place + 1, Excerpt(key));
        error(LotFault::Invisible, found, "a key in plain text")
    } else if key.starts_with(' ') || key.ends_with(' ') {
        let found = format!("a space at an end of the key \"{}\"", Excerpt(key));
        error(LotFault::Invisible, found, "a key without white space around it")
    } else if Damage::of_key(key) == Some(Damage::Error) {
        let found = format!("the key \"{}\", which is a spreadsheet's error", Excerpt(key));
        error(LotFault::SpreadsheetError, found, "a value that identifies the device")
    } else {
        None
    }
}

/// A row's values, or everything that is wrong with it.
///
/// If quotes are misplaced or fields missing, nobody knows which value belongs to which column, so nothing else is reported of
/// such a row.
fn parse_row(record: &Record<'_>, shape: &LotShape) -> Result<Identity, Vec<RowError>> {
    let Extent { line, last_line, stray_text: stray } = record.extent;
    if let Some(quote) = stray {
        return Err(vec![stray_text(quote, last_line, &shape.columns)]);
    }
    if record.len() != shape.columns.len() {
        return Err(vec![ragged(record, shape.columns.len())]);
    }
    let mut errors = Vec::new();
    let mut values = Vec::with_capacity(shape.columns.len());
    for (index, (bytes, column)) in record.fields().zip(&shape.columns).enumerate() {
        let error = |(fault, found, wanted): (LotFault, String, &str)| RowError {
            line,
            column: Some(column.clone()),
            fault,
            found,
            wanted: wanted.to_owned(),
        };
        match decode(bytes) {
            Err(found) => errors.push(error((LotFault::Encoding, found, WANTED_UTF8))),
            Ok(text) => {
                errors.extend(value_fault(text).map(error));
                errors.extend(key_fault(text).filter(|_| index == shape.key_column).map(error));
                values.push(text.to_owned());
            }
        }
    }
    if values.len() == shape.columns.len() {
        let parameters = shape.columns.iter().map(String::as_str).zip(values.iter().map(String::as_str));
        errors.extend(payload_fault(line, parameters));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Identity { line, key: values[shape.key_column].clone(), values })
}

/// What is wrong with a value of any column.
fn value_fault(value: &str) -> Option<(LotFault, String, &'static str)> {
    is_longer_than(value, MAX_PARAMETER_VALUE).then(|| {
        let found = format!("a value of {} characters", value.chars().count());
        (LotFault::Value, found, "at most 4096 characters, the service's limit for a parameter's value")
    })
}

/// What is wrong with any key. It becomes a part of file names and a word in the log.
fn key_fault(key: &str) -> Option<(LotFault, String, &'static str)> {
    if key.is_empty() {
        Some((LotFault::NoKey, String::from("an empty key"), "a value that identifies the device"))
    } else if key.chars().all(|c| c == ' ' || is_invisible(c)) {
        let found = format!("a key of nothing but white space, \"{}\"", Excerpt(key));
        Some((LotFault::NoKey, found, "a value that identifies the device"))
    } else if key.chars().any(char::is_control) {
        let found = format!("a control character in the key \"{}\"", Excerpt(key));
        Some((LotFault::Invisible, found, "a key without line ends, tabs or other control characters"))
    } else {
        None
    }
}

/// What looks as if a spreadsheet had changed it. Of columns other than the key, only what cannot be a secret is shown.
fn value_doubts(identity: &Identity, shape: &LotShape) -> Vec<RowError> {
    let mut doubts = Vec::new();
    for (index, (value, column)) in identity.values.iter().zip(&shape.columns).enumerate() {
        let is_key = index == shape.key_column;
        let damage = if is_key { Damage::of_key(value) } else { Damage::of_value(value) };
        let found = match damage {
            // It is an error, not a doubt.
            Some(Damage::Error) if is_key => continue,
            Some(damage @ (Damage::Formula | Damage::Apostrophe)) if !is_key => {
                format!("a value that looks like {}", damage.words())
            }
            Some(damage) => format!("\"{}\", which looks like {}", Excerpt(value), damage.words()),
            None => continue,
        };
        doubts.push(RowError {
            line: identity.line,
            column: Some(column.clone()),
            fault: LotFault::SpreadsheetDamage,
            found,
            wanted: String::from("the value as it was (in a spreadsheet, import the column as text)"),
        });
    }
    doubts
}

/// The text in `bytes`, or what was found that is not UTF-8. Shows one byte and no more: the value may be a secret.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        format!("byte 0x{:02X} at position {}, where it is not UTF-8", bytes[place], place + 1)
    })
}

pub(super) const WANTED_UTF8: &str = "text in UTF-8 (in a spreadsheet, save as \"CSV UTF-8\")";

fn ragged(record: &Record<'_>, wanted: usize) -> RowError {
    let Extent { line, last_line, .. } = record.extent;
    let mut found = number(record.len() as u64, "field", "fields");
    if last_line != line {
        found += &format!(" in a row that goes on to line {last_line} (is a quote left open?)");
    }
    RowError {
        line,
        column: None,
        fault: LotFault::Fields,
        found,
        wanted: format!("{wanted}, as in the header"),
    }
}

fn stray_text(quote: Quote, last_line: u64, columns: &[String]) -> RowError {
    let mut found = String::from("text after a closing quote");
    if last_line != quote.line {
        found +=
            &format!(", in a row that goes on to line {last_line} (is the quote left open that opens here?)");
    }
    RowError {
        line: quote.line,
        column: columns.get(quote.field).cloned(),
        fault: LotFault::Quote,
        found,
        wanted: String::from(
            "a delimiter or the end of the line there; a quote inside a quoted value is written twice",
        ),
    }
}

fn no_header() -> RowError {
    RowError {
        line: 1,
        column: None,
        fault: LotFault::Header,
        found: String::from("an empty file"),
        wanted: String::from("a header that names the template's parameters, then a row for each device"),
    }
}

fn no_rows(line: u64) -> RowError {
    RowError {
        line,
        column: None,
        fault: LotFault::Rows,
        found: String::from("a header and no rows"),
        wanted: String::from("a row for each device below the header"),
    }
}

fn broken_record(broken: Broken, columns: &[String]) -> RowError {
    let error = |line, fault, found, wanted| RowError { line, column: None, fault, found, wanted };
    match broken {
        Broken::Source { line, error: why } => {
            let wanted = String::from("a file that can be read to its end");
            error(line, LotFault::Source, format!("a read error: {why}"), wanted)
        }
        Broken::Foreign(foreign) => {
            error(1, LotFault::Format, foreign.found.to_owned(), foreign.wanted.to_owned())
        }
        Broken::Ambiguous { line, found } => {
            let names: Vec<_> = found.into_iter().map(Delimiter::plural).collect();
            let found =
                format!("{} in the header, each of which may separate the columns", names.join(" and "));
            error(line, LotFault::Delimiter, found, String::from("one delimiter, or to be told which it is"))
        }
        Broken::Separator { line, found, wanted } => {
            let wanted = match wanted {
                Some(wanted) => format!("{}, as was asked for", wanted.plural()),
                None => String::from("a comma, a semicolon, a tab or a vertical bar"),
            };
            let found = format!("a sep= line that names \"{}\"", Excerpt(&found));
            error(line, LotFault::Delimiter, found, wanted)
        }
        Broken::OpenQuote(Quote { line, field }) => RowError {
            column: columns.get(field).cloned(),
            ..error(
                line,
                LotFault::Quote,
                String::from("a quote that opens here and is not closed; nothing after it could be read"),
                format!("a closing quote, within {RECORD_LIMIT} bytes"),
            )
        },
        Broken::TooLong { line } => error(
            line,
            LotFault::Fields,
            format!("a row of more than {RECORD_LIMIT} bytes; nothing after it could be read"),
            format!("at most {RECORD_LIMIT} bytes"),
        ),
    }
}

#[cfg(test)]
mod tests;
