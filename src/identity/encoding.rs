//! A lot's bytes as UTF-8, or what the file is instead of a table of text.
//!
//! UTF-16 is read if a byte order mark says so, as spreadsheets write it. Files of other kinds are recognised by their first
//! bytes.

use std::io::{self, Cursor, ErrorKind, Read};

/// The encoding of a lot's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with a byte order mark or without.
    Utf8,
    /// UTF-16, with the byte order mark that says so.
    Utf16,
}

/// A kind of file that is recognised but not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    /// What kind it is.
    pub(super) found: &'static str,
    /// How to turn it into a file that is read.
    pub(super) wanted: &'static str,
}

/// A source as UTF-8, without its byte order mark.
pub(super) struct Utf8Source<R> {
    source: io::Chain<Cursor<Vec<u8>>, Uninterrupted<R>>,
    transcoder: Option<Transcoder>,
}

/// How many bytes at the beginning are looked at.
const LOOKED_AT: u64 = 256;

impl<R: Read> Utf8Source<R> {
    /// Looks at the first bytes of a source.
    ///
    /// # Errors
    /// If it is something other than text.
    pub(super) fn new(source: R) -> Result<Self, Foreign> {
        let mut source = Uninterrupted { source, failure: None };
        let mut first = Vec::new();
        if let Err(error) = (&mut source).take(LOOKED_AT).read_to_end(&mut first) {
            // Reported where it belongs: after what could be read.
            source.failure = Some(error);
        }
        let (mark, transcoder) = match first.as_slice() {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Err(UTF_32),
            [0xff, 0xfe, ..] => (2, Some(Transcoder::new(u16::from_le_bytes))),
            [0xfe, 0xff, ..] => (2, Some(Transcoder::new(u16::from_be_bytes))),
            [0xef, 0xbb, 0xbf, ..] => (3, None),
            _ => (0, None),
        };
        first.drain(..mark);
        if let (None, Some(foreign)) = (&transcoder, recognise(&first)) {
            return Err(foreign);
        }
        Ok(Self { source: Cursor::new(first).chain(source), transcoder })
    }

    pub(super) fn encoding(&self) -> Encoding {
        if self.transcoder.is_some() { Encoding::Utf16 } else { Encoding::Utf8 }
    }
}

impl<R: Read> Read for Utf8Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.transcoder {
            None => self.source.read(buffer),
            Some(transcoder) => transcoder.read(&mut self.source, buffer),
        }
    }
}

/// UTF-16 on its way to UTF-8.
struct Transcoder {
    /// Makes a unit of two bytes in the source's order.
    unit: fn([u8; 2]) -> u16,
    /// What was decoded and has not been handed out.
    text: Cursor<Vec<u8>>,
    /// The first byte of a unit, and the first unit of a surrogate pair, whose second halves are still to come.
    byte: Option<u8>,
    surrogate: Option<u16>,
    /// What ends the text after what was decoded.
    fault: Option<io::Error>,
}

impl Transcoder {
    fn new(unit: fn([u8; 2]) -> u16) -> Self {
        Self { unit, text: Cursor::default(), byte: None, surrogate: None, fault: None }
    }

    fn read(&mut self, source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.text.read(buffer)? {
                0 if !buffer.is_empty() => {}
                read => return Ok(read),
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let mut bytes = [0; 8 * 1024];
            let read = source.read(&mut bytes)?;
            if read == 0 {
                let is_whole = self.byte.take().is_none() && self.surrogate.take().is_none();
                return if is_whole { Ok(0) } else { Err(broken_utf16()) };
            }
            self.decode(&bytes[..read]);
        }
    }

    fn decode(&mut self, bytes: &[u8]) {
        let mut text = std::mem::take(&mut self.text).into_inner();
        text.clear();
        for byte in bytes {
            let Some(first) = self.byte.take() else {
                self.byte = Some(*byte);
                continue;
            };
            let unit = (self.unit)([first, *byte]);
            let pair = self.surrogate.take();
            match char::decode_utf16(pair.into_iter().chain([unit])).next() {
                Some(Ok(character)) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                Some(Err(_)) if pair.is_none() && (0xd800..0xdc00).contains(&unit) => {
                    self.surrogate = Some(unit)
                }
                _ => {
                    self.fault = Some(broken_utf16());
                    break;
                }
            }
        }
        self.text = Cursor::new(text);
    }
}

fn broken_utf16() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "UTF-16 text with half a character in it")
}

/// A source that retries interrupted system calls.
struct Uninterrupted<R> {
    source: R,
    /// How it failed, if that has not been reported.
    failure: Option<io::Error>,
}

impl<R: Read> Read for Uninterrupted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

const UTF_32: Foreign =
    Foreign { found: "UTF-32 text", wanted: "text in UTF-8, or in UTF-16 with a byte order mark" };
const SHEET: &str = "CSV: save the sheet as \"CSV UTF-8\"; commas, semicolons and tabs are all read";
const UNPACKED: &str =
    "the CSV in it: unpack the file first, or pipe what is unpacked into - (standard input)";

/// The first bytes of other kinds of files. Sources: the formats' specifications, as collected for file(1).
const SIGNATURES: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a zip archive, such as an .xlsx or .ods workbook", SHEET),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an .xls workbook", SHEET),
    (b"\x1f\x8b", "a gzip file", UNPACKED),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACKED),
    (b"BZh", "a bzip2 file", UNPACKED),
    (b"\xfd7zXZ\0", "an xz file", UNPACKED),
    (b"SQLite format 3\0", "an SQLite database, such as a ledger", "the CSV that the ledger was made from"),
    (b"PAR1", "a Parquet file", "CSV: export the table as CSV"),
    (b"%PDF-", "a PDF", SHEET),
];

const JSON: Foreign = Foreign {
    found: "JSON",
    wanted: "CSV; jq makes it of flat objects: jq -rs '(flatten | .[0] | keys_unsorted) as $k | $k, (flatten | .[] | [.[$k[]]]) \
             | @csv' LOT.jsonl > LOT.csv",
};
const PAGE: Foreign = Foreign {
    found: "an HTML or XML document",
    wanted: "CSV (was a login page saved in place of the download?)",
};
const BARE_UTF_16: Foreign = Foreign {
    found: "UTF-16 text without a byte order mark",
    wanted: "text in UTF-8, or in UTF-16 with a byte order mark (in a spreadsheet, save as \"CSV UTF-8\")",
};

/// What the file is, if it is something other than text with delimiters.
fn recognise(first: &[u8]) -> Option<Foreign> {
    for (signature, found, wanted) in SIGNATURES {
        if first.starts_with(signature) {
            return Some(Foreign { found, wanted });
        }
    }
    if is_bare_utf16(first) {
        return Some(BARE_UTF_16);
    }
    let mut marks = first.iter().filter(|byte| !byte.is_ascii_whitespace());
    match (marks.next(), marks.next()) {
        (Some(b'{'), Some(b'"' | b'}')) | (Some(b'['), Some(b'{' | b'[' | b'"' | b']')) => Some(JSON),
        (Some(b'<'), Some(b'!' | b'?' | b'h' | b'H')) => Some(PAGE),
        _ => None,
    }
}

/// Whether every second byte is NUL, as it is in UTF-16 of ASCII.
fn is_bare_utf16(first: &[u8]) -> bool {
    let first = &first[..first.len().min(16) & !1];
    let all =
        |half: usize, is_nul: bool| first.iter().skip(half).step_by(2).all(|byte| (*byte == 0) == is_nul);
    first.len() >= 4 && ((all(0, true) && all(1, false)) || (all(0, false) && all(1, true)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        let mut text = Vec::new();
        let mut source = Utf8Source::new(bytes).map_err(|foreign| format!("{foreign:?}"))?;
        source.read_to_end(&mut text).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(text).unwrap())
    }

    fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes_of).collect()
    }

    #[test]
    fn byte_order_marks_say_what_it_is() {
        for text in ["", "a", "Zürich,🔑\r\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), text);
            let marked = format!("\u{feff}{text}");
            assert_eq!(read(marked.as_bytes()).unwrap(), text);
            assert_eq!(read(&utf16(&marked, u16::to_le_bytes)).unwrap(), text);
            assert_eq!(read(&utf16(&marked, u16::to_be_bytes)).unwrap(), text);
        }
    }

    #[test]
    fn broken_utf16_ends_the_text_where_it_is_broken() {
        let mut half_a_pair = utf16("\u{feff}ab", u16::to_le_bytes);
        half_a_pair.extend([0x3d, 0xd8, b'c', 0]);
        for bytes in [half_a_pair, vec![0xff, 0xfe, b'a', 0, b'b'], vec![0xff, 0xfe, 0x00, 0xdc]] {
            assert_eq!(read(&bytes).unwrap_err(), "UTF-16 text with half a character in it");
        }
    }

    #[test]
    fn other_kinds_of_files_are_told_by_their_beginning() {
        for (bytes, kind) in [
            (&b"PK\x03\x04\x14\0"[..], ".xlsx"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x28\xb5\x2f\xfd", "Zstandard"),
            (b"BZh91AY", "bzip2"),
            (b"SQLite format 3\0", "SQLite"),
            (b"{\"SerialNumber\": \"1\"}\n", "JSON"),
            (b" [\n {\"SerialNumber\": \"1\"}]", "JSON"),
            (b"\xef\xbb\xbf{ \"a\":1}", "JSON"),
            (b"<!DOCTYPE html>", "HTML"),
            (b"<?xml version=\"1.0\"?>", "XML"),
            (b"S\0e\0r\0i\0", "UTF-16"),
            (b"\0S\0e\0r\0i", "UTF-16"),
            (b"\xff\xfe\0\0S\0\0\0", "UTF-32"),
        ] {
            let said = read(bytes).unwrap_err();
            assert!(said.contains(kind), "{kind}: {said}");
        }
        for text in ["{n},b\n", "[a],b\n", "<a>,b", "a", "PK,b", "a\0,b\n", "BZ"] {
            assert_eq!(read(text.as_bytes()).unwrap(), text);
        }
    }

    proptest! {
        /// Whatever the text and however it is handed out, what comes of its UTF-16 is its UTF-8.
        #[test]
        fn utf16_is_what_std_encodes(text in "\\PC{0,40}", size in 1..7_usize) {
            struct Dribble<'a>(&'a [u8], usize);
            impl Read for Dribble<'_> {
                fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                    let size = self.1.min(buffer.len());
                    self.0.read(&mut buffer[..size])
                }
            }
            let bytes = utf16(&format!("\u{feff}{text}"), u16::to_le_bytes);
            let mut decoded = String::new();
            Utf8Source::new(Dribble(&bytes, size)).unwrap().read_to_string(&mut decoded).unwrap();
            prop_assert_eq!(decoded, text);
        }
    }
}
