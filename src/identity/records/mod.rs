//! CSV records out of bytes: where each starts, and when to stop reading one.
//!
//! Owns lines, quotes, and the bound on a record's size, around csv-core's parser. Knows nothing of columns or keys.
//!
//! The parser makes something of any bytes. So what it takes is also watched from beside, byte by byte, for the two
//! mistakes that would swallow rows in silence: a quote that stays open, and one that a later row's quote closes.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use csv_core::ReadRecordResult;

/// The largest record, in bytes of the file: eight times what the service could ever be sent.
pub const RECORD_LIMIT: usize = 1024 * 1024;

/// Reads records one after another into the same memory.
pub(super) struct RecordReader<R> {
    source: BufReader<Chain<Cursor<Vec<u8>>, Uninterrupted<R>>>,
    parser: csv_core::Reader,
    place: Place,
    /// The record's fields, unquoted, back to back.
    text: Vec<u8>,
    /// Where in `text` each field ends.
    ends: Vec<usize>,
}

/// One record, as long as the next is not read.
pub(super) struct Record<'a> {
    /// The line on which it starts, from 1.
    pub(super) line: u64,
    /// The line on which it ends: another only if a quoted field has line ends in it.
    pub(super) last_line: u64,
    /// The first quoted field with text after its closing quote: most likely one quote was left open and a later row's
    /// taken for its end.
    pub(super) stray_text: Option<Quote>,
    text: &'a [u8],
    ends: &'a [usize],
}

/// A quote that opens a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    /// The line on which it stands.
    pub(super) line: u64,
    /// The field it opens, from 0.
    pub(super) field: usize,
}

/// Why no further record can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source failed.
    Source {
        /// At this line.
        line: u64,
        /// In this way.
        error: io::Error,
    },
    /// The source begins with the byte order mark of UTF-16.
    Utf16 {
        /// The mark's two bytes.
        mark: [u8; 2],
    },
    /// A quote was opened and never closed, in the rest of the file or in [`RECORD_LIMIT`] bytes.
    OpenQuote(Quote),
    /// A record of more than [`RECORD_LIMIT`] bytes.
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
    /// Starts reading `source`: looks at its first bytes, and skips the byte order mark of UTF-8.
    pub(super) fn new(mut source: R) -> Result<Self, Broken> {
        let mut beginning = Vec::with_capacity(UTF8_MARK.len());
        (&mut source)
            .take(UTF8_MARK.len() as u64)
            .read_to_end(&mut beginning)
            .map_err(|error| Broken::Source { line: 1, error })?;
        match beginning.as_slice() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                return Err(Broken::Utf16 { mark: [beginning[0], beginning[1]] });
            }
            UTF8_MARK => beginning.clear(),
            _ => {}
        }
        Ok(Self {
            source: BufReader::with_capacity(READ_SIZE, Cursor::new(beginning).chain(Uninterrupted(source))),
            parser: csv_core::Reader::new(),
            place: Place { line: 1, after_cr: false },
            text: vec![0; FIRST_TEXT],
            ends: vec![0; FIRST_ENDS],
        })
    }

    /// The next record; none after the last. Lines with nothing on them are skipped.
    pub(super) fn read(&mut self) -> Result<Option<Record<'_>>, Broken> {
        if !self.skip_line_ends()? {
            return Ok(None);
        }
        let mut part = Part { line: self.place.line, ..Part::default() };
        while !self.read_part(&mut part)? {}
        Ok(Some(Record {
            line: part.line,
            last_line: part.last_line,
            stray_text: part.quotes.stray_text,
            text: &self.text[..part.written],
            ends: &self.ends[..part.fields],
        }))
    }

    /// Passes over line ends; whether anything comes after them.
    fn skip_line_ends(&mut self) -> Result<bool, Broken> {
        loop {
            let buffer = fill(&mut self.source, self.place)?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let blank = buffer.iter().take_while(|byte| is_line_end(**byte)).count();
            let ends_here = blank < buffer.len();
            self.place.pass(&buffer[..blank]);
            self.source.consume(blank);
            if ends_here {
                return Ok(true);
            }
        }
    }

    /// Parses on, to the end of the line at most; whether the record is complete.
    fn read_part(&mut self, part: &mut Part) -> Result<bool, Broken> {
        let buffer = fill(&mut self.source, self.place)?;
        let allowance = buffer.len().min(RECORD_LIMIT - part.taken);
        if allowance == 0 {
            part.quotes.check_closed()?;
        }
        if allowance == 0 && !buffer.is_empty() {
            return Err(Broken::TooLong { line: part.line });
        }
        // At the end of the source this is empty, which tells the parser so.
        let line = first_line(&buffer[..allowance]);
        let (result, taken, written, fields) =
            self.parser.read_record(line, &mut self.text[part.written..], &mut self.ends[part.fields..]);
        part.last_line = self.place.line;
        part.quotes.pass(&line[..taken], self.place.line);
        self.place.pass(&line[..taken]);
        self.source.consume(taken);
        part.taken += taken;
        part.written += written;
        part.fields += fields;
        match result {
            ReadRecordResult::InputEmpty => {}
            // Text and fields are no more than what was taken from the source, so its bound bounds them too.
            ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            ReadRecordResult::Record | ReadRecordResult::End => return Ok(true),
        }
        Ok(false)
    }
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const READ_SIZE: usize = 64 * 1024;
const FIRST_TEXT: usize = 4 * 1024;
const FIRST_ENDS: usize = 32;

/// A record that is being read.
#[derive(Default)]
struct Part {
    line: u64,
    last_line: u64,
    /// Bytes of the source.
    taken: usize,
    /// Bytes of text.
    written: usize,
    /// Complete fields.
    fields: usize,
    quotes: Quotes,
}

/// The quotes of a record, by the rules of RFC 4180 section 2 and the parser's: a quote opens only at a field's start, two
/// inside stand for one, and elsewhere it is a character like any other.
#[derive(Default)]
struct Quotes {
    state: QuoteState,
    field: usize,
    /// The line of the last quote that opened.
    line: u64,
    stray_text: Option<Quote>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    #[default]
    FieldStart,
    Plain,
    Inside,
    Closed,
}

impl Quotes {
    /// Moves on over `bytes`, all of this line.
    fn pass(&mut self, bytes: &[u8], line: u64) {
        use QuoteState::{Closed, FieldStart, Inside, Plain};
        for byte in bytes {
            self.state = match (self.state, byte) {
                (Inside, b'"') => Closed,
                (Inside, _) | (Closed, b'"') => Inside,
                (_, b'\n' | b'\r') => FieldStart,
                (_, b',') => {
                    self.field += 1;
                    FieldStart
                }
                (FieldStart, b'"') => {
                    self.line = line;
                    Inside
                }
                (Closed, _) => {
                    self.stray_text.get_or_insert(Quote { line: self.line, field: self.field });
                    Plain
                }
                (FieldStart | Plain, _) => Plain,
            };
        }
    }

    /// An error if the record cannot end here.
    fn check_closed(&self) -> Result<(), Broken> {
        match self.state {
            QuoteState::Inside => Err(Broken::OpenQuote(Quote { line: self.line, field: self.field })),
            _ => Ok(()),
        }
    }
}

/// Where in the file we are. A line ends with LF, CR LF or CR.
#[derive(Clone, Copy)]
struct Place {
    line: u64,
    after_cr: bool,
}

impl Place {
    /// Moves on over `bytes`.
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.line += u64::from(*byte == b'\r' || (*byte == b'\n' && !self.after_cr));
            self.after_cr = *byte == b'\r';
        }
    }
}

/// What the source has ready; empty only at its end.
fn fill<R: BufRead>(source: &mut R, place: Place) -> Result<&[u8], Broken> {
    source.fill_buf().map_err(|error| Broken::Source { line: place.line, error })
}

/// A source that an interrupted system call does not end.
struct Uninterrupted<R>(R);

impl<R: Read> Read for Uninterrupted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// The bytes up to the first line end, and that.
fn first_line(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().position(|byte| is_line_end(*byte)).map_or(bytes.len(), |end| end + 1);
    &bytes[..length]
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
