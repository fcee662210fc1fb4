//! A lot: the table of device identities, row by row.
//!
//! Reads and checks rows, says what makes two lots the same, and which parameters a row becomes. Opens no file and keeps no row,
//! so it is the ledger, which has an index, that finds keys that occur twice.

mod damage;
mod digest;
mod encoding;
mod fault;
mod generated;
mod header;
mod parameters;
mod reader;
mod records;

use std::fmt;

use crate::service::MAX_PAYLOAD;

pub use digest::LotDigest;
pub use encoding::Encoding;
pub use fault::{ERRORS_OF_A_KIND, FaultErrors, LotErrors, LotFault, RowError};
pub use generated::{GeneratedLot, MADE_UP, MADE_UP_TO_CALIBRATE, NotAPattern, Pattern, is_made_up};
pub use header::KEY_COLUMNS;
pub use parameters::{EmptyCells, ParameterError, ParameterPlan, SentColumns, parse_constant};
pub use reader::{Doubtful, LotFormat, LotReader, new_key_fault};
pub use records::{Delimiter, RECORD_LIMIT};

/// One device of the lot.
///
/// Its `Debug` shows the line and the key but no other value: some are secrets (a `DeviceKey`).
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

/// Whether `text` has more than `limit` characters. Counts them only if it might.
fn is_longer_than(text: &str, limit: usize) -> bool {
    text.len() > limit && text.chars().nth(limit).is_some()
}

/// What is wrong with parameters that exceed what the service accepts in one message.
fn payload_fault<'a>(
    line: u64,
    parameters: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Option<RowError> {
    // A byte takes at most six in JSON: almost every row is so far from the limit that it need not be measured.
    let at_most: usize = parameters.clone().map(|(name, value)| 6 * (name.len() + value.len() + 1)).sum();
    if at_most + JSON_FRAME.len() <= MAX_PAYLOAD {
        return None;
    }
    let bytes = least_payload(parameters);
    (bytes > MAX_PAYLOAD).then(|| RowError {
        line,
        column: None,
        fault: LotFault::Parameters,
        found: format!("parameters that make a RegisterThing message of more than {bytes} bytes"),
        wanted: format!("at most {MAX_PAYLOAD} bytes, the service's limit for a message"),
    })
}

const JSON_FRAME: &str = r#"{"certificateOwnershipToken":"","parameters":{}}"#;

/// The fewest bytes that RegisterThing's payload can take with these parameters: compact JSON, an empty token.
///
/// What exceeds [`MAX_PAYLOAD`] by this measure can never be sent; the token makes it some hundred bytes more.
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
