//! A lot: the CSV of device identities, row by row.
//!
//! Owns reading and checking rows, what makes two lots the same, and the parameters that a row becomes. Opens no file and
//! keeps no row; so keys that stand in the lot twice are the ledger's to find, which has an index.

mod digest;
mod generated;
mod parameters;
mod reader;
mod records;

use std::fmt;

pub use digest::LotDigest;
pub use generated::{GeneratedLot, MADE_UP, NotAPattern, Pattern};
pub use parameters::{ParameterError, ParameterPlan, parse_constant};
pub use reader::{KEY_COLUMNS, LotReader};
pub use records::RECORD_LIMIT;

/// The longest name of a template parameter, in characters. Source: AWS IoT API reference, RegisterThing, `parameters`.
pub const NAME_LIMIT: usize = 2048;

/// The longest value of a template parameter, in characters. Source: AWS IoT API reference, RegisterThing, `parameters`.
pub const VALUE_LIMIT: usize = 4096;

/// The largest RegisterThing payload, in bytes. Source: AWS IoT Core quotas, "message size".
pub const PAYLOAD_LIMIT: usize = 128 * 1024;

/// One device of the lot.
///
/// Its `Debug` shows the line and the key but none of the other values, for some of them are secrets (a `DeviceKey`).
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The line of the file on which its row starts, from 1.
    pub line: u64,
    /// What identifies it: its value in the key column.
    pub key: String,
    /// Its values, in the order of the lot's columns, the key included.
    pub values: Vec<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("line", &self.line)
            .field("key", &self.key)
            .field("values", &format_args!("({} of them)", self.values.len()))
            .finish()
    }
}

/// What all rows of a lot have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotShape {
    /// The header: names of the template parameters, all different, none empty.
    pub columns: Vec<String>,
    /// Which column is the key: an index into `columns`.
    pub key_column: usize,
}

/// One thing wrong with a lot.
///
/// Reads `line 7, column SerialNumber: found …; wanted …`; whoever opened the file puts its name before that. Shows no
/// value longer than 40 characters in full, no value at all of any column but the key, and no control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The line on which the row starts, or the open quote stands, from 1.
    pub line: u64,
    /// Column name as the header has it, where one column is to blame.
    pub column: Option<String>,
    /// What was found.
    pub found: String,
    /// What was wanted, and where it is not plain, what to do.
    pub wanted: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {}", Excerpt(column))?;
        }
        write!(f, ": found {}; wanted {}", self.found, self.wanted)
    }
}

impl std::error::Error for RowError {}

/// A text of the lot as it may be shown to people: control characters escaped, and its beginning only if it is long.
struct Excerpt<'a>(&'a str);

/// A text up to this many characters is shown in full.
const SHOWN_IN_FULL: usize = 40;

/// Of a longer text this many characters are shown.
const SHOWN_OF_MORE: usize = 24;

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_long = self.0.chars().nth(SHOWN_IN_FULL).is_some();
        let shown = if is_long { SHOWN_OF_MORE } else { SHOWN_IN_FULL };
        for character in self.0.chars().take(shown) {
            match is_unprintable(character) {
                true => write!(f, "{}", character.escape_default())?,
                false => write!(f, "{character}")?,
            }
        }
        match is_long {
            true => write!(f, "… ({} characters)", self.0.chars().count()),
            false => Ok(()),
        }
    }
}

/// Whether a terminal would act on `character` rather than show it: control characters, line and paragraph separators,
/// and the marks that turn the direction of writing.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether `text` has more than `limit` characters; looks at them one by one only if it might.
fn is_longer_than(text: &str, limit: usize) -> bool {
    text.len() > limit && text.chars().nth(limit).is_some()
}

/// What is wrong with parameters that alone are more than the service takes in one message.
fn payload_fault<'a>(
    line: u64,
    parameters: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Option<RowError> {
    // No byte takes more than six in JSON: almost every row is far from the limit and need not be looked at closely.
    let at_most: usize = parameters.clone().map(|(name, value)| 6 * (name.len() + value.len() + 1)).sum();
    if at_most + JSON_FRAME.len() <= PAYLOAD_LIMIT {
        return None;
    }
    let bytes = least_payload(parameters);
    (bytes > PAYLOAD_LIMIT).then(|| RowError {
        line,
        column: None,
        found: format!("parameters that make a RegisterThing message of more than {bytes} bytes"),
        wanted: format!("at most {PAYLOAD_LIMIT} bytes, the service's limit for a message"),
    })
}

const JSON_FRAME: &str = r#"{"certificateOwnershipToken":"","parameters":{}}"#;

/// The fewest bytes that RegisterThing's payload can take with these parameters: compact JSON, an empty token.
///
/// What exceeds [`PAYLOAD_LIMIT`] by this measure can never be sent; the token makes it some hundred bytes more.
fn least_payload<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    // Four quotes and a colon for each pair, and a comma between two.
    let pair = |(name, value)| json_length(name) + json_length(value) + 6;
    let pairs: usize = parameters.map(pair).sum();
    JSON_FRAME.len() + pairs.saturating_sub(1)
}

/// The fewest bytes that `text` takes inside a JSON string. Source: RFC 8259 section 7.
fn json_length(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
            0x00..=0x1f => 6,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_error_reads_well() {
        let error = RowError {
            line: 7,
            column: Some(String::from("SerialNumber")),
            found: String::from("an empty key"),
            wanted: String::from("a key"),
        };
        assert_eq!(error.to_string(), "line 7, column SerialNumber: found an empty key; wanted a key");
        let error = RowError { column: None, ..error };
        assert_eq!(error.to_string(), "line 7: found an empty key; wanted a key");
        let error = RowError { column: Some("é\n".repeat(100)), ..error };
        assert_eq!(
            error.to_string(),
            format!(
                "line 7, column {}… (200 characters): found an empty key; wanted a key",
                "é\\n".repeat(12)
            )
        );
    }

    #[test]
    fn an_excerpt_is_short_and_has_no_control_characters() {
        for (text, shown) in [
            ("", ""),
            ("plain é 🔑", "plain é 🔑"),
            ("a\r\n\t\0\u{1b}[31m\u{85}", "a\\r\\n\\t\\u{0}\\u{1b}[31m\\u{85}"),
            ("\u{202e}abc\u{2028}", "\\u{202e}abc\\u{2028}"),
            (&"x".repeat(40), &"x".repeat(40)),
            (&"ü".repeat(41), &format!("{}… (41 characters)", "ü".repeat(24))),
        ] {
            assert_eq!(Excerpt(text).to_string(), shown);
        }
    }

    #[test]
    fn an_identity_does_not_show_its_values() {
        let identity = Identity { line: 2, key: String::from("K1"), values: vec![String::from("hunter2")] };
        let shown = format!("{identity:?}");
        assert!(shown.contains("K1") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_least_payload_is_what_serde_json_writes() {
        let cases: [&[(&str, &str)]; 3] = [
            &[("A", "b")],
            &[("é", "\"\\\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}"), ("", "")],
            &[("a", "🔑"), ("b", "/")],
        ];
        for parameters in cases {
            let map: serde_json::Map<_, _> =
                parameters.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
            let payload = serde_json::json!({"certificateOwnershipToken": "", "parameters": map});
            assert_eq!(least_payload(parameters.iter().copied()), payload.to_string().len());
        }
    }
}
