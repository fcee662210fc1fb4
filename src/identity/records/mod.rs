//! CSV records out of bytes: what separates fields, where each record starts, and when to stop reading one.
//!
//! The rules are those of RFC 4180 section 2, and those of the csv crate where the RFC says nothing. The parser is our own because
//! the libraries accept any bytes: the two mistakes that swallow rows in silence, a quote that is never closed and one that a
//! later row's quote closes, are found here.

use std::io::{self, BufRead, BufReader, Read};

use super::encoding::{Encoding, Foreign, Utf8Source};

/// The largest record, in bytes of UTF-8: eight times what the service could ever be sent.
pub const RECORD_LIMIT: usize = 1024 * 1024;

/// What separates the columns of a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// The tab character.
    Tab,
    /// `|`
    Pipe,
}

impl Delimiter {
    /// All delimiters.
    pub const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Pipe];

    fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|delimiter| delimiter.byte() == byte)
    }

    /// Its name in words, in the plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Comma => "commas",
            Self::Semicolon => "semicolons",
            Self::Tab => "tabs",
            Self::Pipe => "vertical bars",
        }
    }
}

/// Reads records one after another into the same memory.
pub(super) struct RecordReader<R> {
    source: BufReader<Utf8Source<R>>,
    delimiters: Delimiters,
    place: Place,
    /// The record's fields, unquoted, back to back.
    text: Vec<u8>,
    /// Where in `text` each field ends.
    ends: Vec<usize>,
}

/// What separates a record's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delimiters {
    One(Delimiter),
    /// The one that the header has; which of [`Delimiter::ALL`] were seen in it so far.
    Sought([bool; 4]),
}

/// One record, valid until the next is read.
pub(super) struct Record<'a> {
    pub(super) extent: Extent,
    text: &'a [u8],
    ends: &'a [usize],
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The line on which it starts, from 1.
    pub(super) line: u64,
    /// The line on which it ends: another only if a quoted field has line ends in it.
    pub(super) last_line: u64,
    /// The first quoted field with text after its closing quote: most likely the quote was never closed, and a later row's quote
    /// was taken for its end.
    pub(super) stray_text: Option<Quote>,
}

/// A quote that opens a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    /// Its line.
    pub(super) line: u64,
    /// The index of the field that it opens.
    pub(super) field: usize,
}

/// Why no further record can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source failed.
    Source {
        /// The line that was being read.
        line: u64,
        /// How it failed.
        error: io::Error,
    },
    /// The source is not CSV.
    Foreign(Foreign),
    /// The header has more than one of the delimiters unquoted.
    Ambiguous {
        /// The header's line.
        line: u64,
        /// Those that it has.
        found: Vec<Delimiter>,
    },
    /// A `sep=` line names none of the delimiters, or another one than was asked for.
    Separator {
        /// Its line.
        line: u64,
        /// What it names.
        found: String,
        /// What was asked for.
        wanted: Option<Delimiter>,
    },
    /// A quote was opened and not closed, in the rest of the file or within [`RECORD_LIMIT`] bytes.
    OpenQuote(Quote),
    /// A record has more than [`RECORD_LIMIT`] bytes.
    TooLong {
        /// The line on which it starts.
        line: u64,
    },
}

impl Record<'_> {
    /// How many fields it has: at least one.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The fields in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

impl<R: Read> RecordReader<R> {
    /// Starts reading `source`: looks at its first bytes. Without a `delimiter`, the header says which it is.
    pub(super) fn new(source: R, delimiter: Option<Delimiter>) -> Result<Self, Broken> {
        let source = Utf8Source::new(source).map_err(Broken::Foreign)?;
        Ok(Self {
            source: BufReader::with_capacity(READ_SIZE, source),
            delimiters: delimiter.map_or(Delimiters::Sought([false; 4]), Delimiters::One),
            place: Place { line: 1, after_cr: false },
            text: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// The first record, which settles what separates fields; `None` if there is not one. Blank records before it are skipped,
    /// and so is the `sep=` line of a spreadsheet, which names the delimiter.
    pub(super) fn read_header(&mut self) -> Result<Option<Record<'_>>, Broken> {
        let Some(mut extent) = self.advance()? else { return Ok(None) };
        if let Some(named) = self.named_separator() {
            self.delimiters = Delimiters::One(self.check_separator(extent.line, named)?);
            match self.advance()? {
                Some(next) => extent = next,
                None => return Ok(None),
            }
        }
        self.settle_delimiter(extent.line)?;
        Ok(Some(self.record(extent)))
    }

    /// The next record; `None` after the last. Blank ones are skipped: those of nothing but delimiters, spaces and tabs.
    pub(super) fn read(&mut self) -> Result<Option<Record<'_>>, Broken> {
        let extent = self.advance()?;
        Ok(extent.map(|extent| self.record(extent)))
    }

    /// What separates fields; a comma until the header has said so.
    pub(super) fn delimiter(&self) -> Delimiter {
        match self.delimiters {
            Delimiters::One(delimiter) => delimiter,
            Delimiters::Sought(_) => Delimiter::Comma,
        }
    }

    /// The source's encoding.
    pub(super) fn encoding(&self) -> Encoding {
        self.source.get_ref().encoding()
    }

    fn record(&self, extent: Extent) -> Record<'_> {
        Record { extent, text: &self.text, ends: &self.ends }
    }

    /// If the record is a `sep=` line, the text after `sep=`.
    fn named_separator(&self) -> Option<Vec<u8>> {
        let name = self.text.get(..SEPARATOR.len())?;
        let rest = &self.text[SEPARATOR.len()..];
        if !name.eq_ignore_ascii_case(SEPARATOR) {
            return None;
        }
        match (rest, self.delimiters, self.ends.len()) {
            // The named delimiter itself has ended the field.
            ([], Delimiters::One(delimiter), 2) => Some(vec![delimiter.byte()]),
            ([], Delimiters::Sought(seen), 2) => seen_in(seen).next().map(|delimiter| vec![delimiter.byte()]),
            (rest, _, 1) if (1..=4).contains(&rest.len()) && std::str::from_utf8(rest).is_ok_and(is_one) => {
                Some(rest.to_vec())
            }
            _ => None,
        }
    }

    fn check_separator(&self, line: u64, named: Vec<u8>) -> Result<Delimiter, Broken> {
        let wanted = match self.delimiters {
            Delimiters::One(delimiter) => Some(delimiter),
            Delimiters::Sought(_) => None,
        };
        let found = if let [byte] = named[..] { Delimiter::of_byte(byte) } else { None };
        match found {
            Some(found) if wanted.is_none_or(|wanted| wanted == found) => Ok(found),
            _ => Err(Broken::Separator { line, found: String::from_utf8_lossy(&named).into_owned(), wanted }),
        }
    }

    fn settle_delimiter(&mut self, line: u64) -> Result<(), Broken> {
        if let Delimiters::Sought(seen) = self.delimiters {
            let found: Vec<Delimiter> = seen_in(seen).collect();
            self.delimiters = Delimiters::One(match found[..] {
                [] => Delimiter::Comma,
                [only] => only,
                _ => return Err(Broken::Ambiguous { line, found }),
            });
        }
        Ok(())
    }

    /// Parses the next record that is not blank into `text` and `ends`.
    fn advance(&mut self) -> Result<Option<Extent>, Broken> {
        loop {
            let extent = self.parse()?;
            let is_blank = self.text.iter().all(|byte| matches!(byte, b' ' | b'\t'));
            match extent {
                Some(_) if is_blank => {}
                extent => return Ok(extent),
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Extent>, Broken> {
        self.text.clear();
        self.ends.clear();
        if !self.skip_line_ends()? {
            return Ok(None);
        }
        let mut part = Part::at(self.place.line);
        loop {
            let line = self.place.line;
            let buffer = self.source.fill_buf().map_err(|error| Broken::Source { line, error })?;
            if buffer.is_empty() {
                part.check_closed()?;
                self.ends.push(self.text.len());
                return Ok(Some(part.extent));
            }
            let mut taken = 0;
            let mut is_complete = false;
            for byte in buffer {
                if part.taken == RECORD_LIMIT {
                    part.check_closed()?;
                    return Err(Broken::TooLong { line: part.extent.line });
                }
                part.taken += 1;
                taken += 1;
                part.extent.last_line = self.place.line;
                let step = part.step(*byte, &mut self.delimiters, self.place.line);
                self.place.pass(*byte);
                match step {
                    Step::Text => self.text.push(*byte),
                    Step::Nothing => {}
                    Step::EndOfField => self.ends.push(self.text.len()),
                    Step::EndOfRecord => {
                        self.ends.push(self.text.len());
                        is_complete = true;
                        break;
                    }
                }
            }
            self.source.consume(taken);
            if is_complete {
                return Ok(Some(part.extent));
            }
        }
    }

    /// Skips line ends; whether anything comes after them.
    fn skip_line_ends(&mut self) -> Result<bool, Broken> {
        loop {
            let line = self.place.line;
            let buffer = self.source.fill_buf().map_err(|error| Broken::Source { line, error })?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let blank = buffer.iter().take_while(|byte| is_line_end(**byte)).count();
            let ends_here = blank < buffer.len();
            buffer[..blank].iter().for_each(|byte| self.place.pass(*byte));
            self.source.consume(blank);
            if ends_here {
                return Ok(true);
            }
        }
    }
}

const SEPARATOR: &[u8] = b"sep=";
const READ_SIZE: usize = 64 * 1024;

fn is_one(text: &str) -> bool {
    text.chars().count() == 1
}

fn seen_in(seen: [bool; 4]) -> impl Iterator<Item = Delimiter> {
    Delimiter::ALL.into_iter().zip(seen).filter(|(_, seen)| *seen).map(|(delimiter, _)| delimiter)
}

impl Delimiters {
    /// Whether `byte` separates fields; remembers that it was seen.
    fn meet(&mut self, byte: u8) -> bool {
        match self {
            Self::One(delimiter) => byte == delimiter.byte(),
            Self::Sought(seen) => {
                let place = Delimiter::ALL.iter().position(|delimiter| delimiter.byte() == byte);
                place.map(|place| seen[place] = true).is_some()
            }
        }
    }
}

/// A record that is being read. A quote opens only at a field's start, two inside mean one, and elsewhere it is a character like
/// any other.
struct Part {
    extent: Extent,
    /// Bytes of the source.
    taken: usize,
    field: usize,
    state: State,
    /// The line of the last quote that opened.
    quote_line: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Inside,
    Closed,
}

/// What a byte is to a record.
enum Step {
    Text,
    Nothing,
    EndOfField,
    EndOfRecord,
}

impl Part {
    fn at(line: u64) -> Self {
        let extent = Extent { line, last_line: line, stray_text: None };
        Self { extent, taken: 0, field: 0, state: State::FieldStart, quote_line: line }
    }

    /// Moves on over one byte of `line`.
    fn step(&mut self, byte: u8, delimiters: &mut Delimiters, line: u64) -> Step {
        use State::{Closed, FieldStart, Inside, Plain};
        let (state, step) = match (self.state, byte) {
            (Inside, b'"') => (Closed, Step::Nothing),
            (Inside, _) | (Closed, b'"') => (Inside, Step::Text),
            (_, b'\n' | b'\r') => (FieldStart, Step::EndOfRecord),
            (FieldStart, b'"') => {
                self.quote_line = line;
                (Inside, Step::Nothing)
            }
            (_, byte) if delimiters.meet(byte) => {
                self.field += 1;
                (FieldStart, Step::EndOfField)
            }
            (Closed, _) => {
                let quote = Quote { line: self.quote_line, field: self.field };
                self.extent.stray_text.get_or_insert(quote);
                (Plain, Step::Text)
            }
            (FieldStart | Plain, _) => (Plain, Step::Text),
        };
        self.state = state;
        step
    }

    /// Fails if the record cannot end here.
    fn check_closed(&self) -> Result<(), Broken> {
        if self.state == State::Inside {
            return Err(Broken::OpenQuote(Quote { line: self.quote_line, field: self.field }));
        }
        Ok(())
    }
}

/// A place in the file. A line ends with LF, CR LF or CR.
#[derive(Clone, Copy)]
struct Place {
    line: u64,
    after_cr: bool,
}

impl Place {
    fn pass(&mut self, byte: u8) {
        self.line += u64::from(byte == b'\r' || (byte == b'\n' && !self.after_cr));
        self.after_cr = byte == b'\r';
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
