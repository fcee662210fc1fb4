//! Made-up identities: for load tests, whose devices need only be different.
//!
//! Values are made from patterns such as `LOAD-{n:06}`. The same pattern, number and seed give the same value.

use std::fmt::Write;
use std::str::FromStr;

use super::{Identity, LotShape};
use crate::service::MAX_PARAMETER_VALUE;

/// The name that a ledger of made-up devices has in place of its lot's file.
pub const MADE_UP: &str = "devices made up for a load test";

/// How the name begins that a calibration's ledger has in place of its lot's file. What tells its devices from those of
/// other ledgers follows.
pub const MADE_UP_TO_CALIBRATE: &str = "devices made up for a calibration, ";

/// Whether a lot of this name is in no file.
pub fn is_made_up(source: &str) -> bool {
    source == MADE_UP || source.starts_with(MADE_UP_TO_CALIBRATE)
}

/// Text with placeholders that are filled in for each device: `{n}` is its number from 1, `{n:06}` the same with leading zeros,
/// and `{hex:8}` that many hexadecimal digits, drawn from the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number { width: usize },
    Hex { digits: usize },
}

/// Text that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: found {found:?}; wanted {{n}}, {{n:06}} or {{hex:8}}, with 1 to 32 digits")]
pub struct NotAPattern {
    /// The column of the text, in characters from 1.
    pub column: usize,
    /// The text between the braces there.
    pub found: String,
}

impl Pattern {
    /// The value of the device with this number.
    pub fn value(&self, number: u64, seed: u64) -> String {
        let mut value = String::new();
        for (place, piece) in self.pieces.iter().enumerate() {
            // Writing to memory does not fail.
            let _ = match piece {
                Piece::Text(text) => value.write_str(text),
                Piece::Number { width } => write!(value, "{number:0width$}"),
                Piece::Hex { digits } => {
                    let draw = |part: u64| mixed(seed ^ mixed(number ^ mixed(place as u64 ^ part << 32)));
                    let text = format!("{:016x}{:016x}", draw(0), draw(1));
                    value.write_str(&text[..*digits])
                }
            };
        }
        value
    }

    /// Whether every number gives a different value: only the number itself ensures that.
    pub fn is_unique(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Number { .. }))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input moves half the bits of the output.
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let inside = &rest[open + 1..];
            let close = inside.find('}');
            let place = &inside[..close.unwrap_or(inside.len())];
            let piece = close.and_then(|_| read_place(place)).ok_or_else(|| {
                let before = text.len() - rest.len() + open;
                let found = place.chars().take(40).collect();
                NotAPattern { column: text[..before].chars().count() + 1, found }
            })?;
            pieces.push(Piece::Text(rest[..open].to_owned()));
            pieces.push(piece);
            rest = &inside[place.len() + 1..];
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces })
    }
}

fn read_place(place: &str) -> Option<Piece> {
    let digits = |text: &str| text.parse().ok().filter(|digits| (1..=32).contains(digits));
    match place.split_once(':') {
        None if place == "n" => Some(Piece::Number { width: 0 }),
        Some(("n", width)) => Some(Piece::Number { width: digits(width.strip_prefix('0')?)? }),
        Some(("hex", count)) => Some(Piece::Hex { digits: digits(count)? }),
        _ => None,
    }
}

/// A lot that is made up: its columns with their patterns.
#[derive(Debug, Clone)]
pub struct GeneratedLot {
    /// Names and patterns; the first is the key, and [unique](Pattern::is_unique).
    pub columns: Vec<(String, Pattern)>,
    /// How many devices.
    pub devices: u64,
    /// What random digits are drawn from.
    pub seed: u64,
}

impl GeneratedLot {
    /// What all its rows have in common.
    pub fn shape(&self) -> LotShape {
        let columns = self.columns.iter().map(|(name, _)| name.clone()).collect();
        LotShape { columns, key_column: 0 }
    }

    /// Its rows, made as they are asked for.
    pub fn rows(self) -> impl Iterator<Item = Identity> {
        let Self { columns, devices, seed } = self;
        (1..=devices).map(move |number| {
            let values: Vec<_> = columns.iter().map(|(_, pattern)| pattern.value(number, seed)).collect();
            // The line that it would have in a file, below the header.
            Identity { line: number + 1, key: values[0].clone(), values }
        })
    }

    /// The longest value that a pattern can make must be one that the service accepts.
    pub fn is_short(&self) -> bool {
        let longest = |pattern: &Pattern| pattern.value(self.devices, self.seed).chars().count();
        self.columns.iter().all(|(_, pattern)| longest(pattern) <= MAX_PARAMETER_VALUE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_filled_in() {
        for (text, value) in [
            ("LOAD-{n:06}", "LOAD-000042"),
            ("{n}", "42"),
            ("a{n}b{n:03}c", "a42b042c"),
            ("plain", "plain"),
            ("ä{n}}", "ä42}"),
        ] {
            assert_eq!(pattern(text).value(42, 7), value, "{text}");
        }
        assert!(pattern("x{n:02}").is_unique() && !pattern("{hex:32}").is_unique());
    }

    #[test]
    fn hex_digits_follow_from_the_seed_and_differ_by_number_and_place() {
        let hex = pattern("{hex:8}-{hex:32}");
        assert_eq!(hex.value(1, 7), hex.value(1, 7));
        let values: BTreeSet<_> = (0..1_000).map(|number| hex.value(number, 7)).collect();
        assert_eq!(values.len(), 1_000);
        assert!(!values.contains(&hex.value(1, 8)));
        let value = hex.value(1, 7);
        let (short, long) = value.split_once('-').unwrap();
        assert!(short.len() == 8 && long.len() == 32 && !long.starts_with(short), "{value}");
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_column() {
        for (text, column) in [
            ("{}", 1),
            ("ab{m}", 3),
            ("ä{n:6}", 2),
            ("{n", 1),
            ("{n}{hex:33}", 4),
            ("{hex:0}", 1),
            ("{n:00}", 1),
        ] {
            let error = text.parse::<Pattern>().expect_err(text);
            assert_eq!(error.column, column, "{text}: {error}");
        }
    }

    #[test]
    fn a_lot_is_made_row_by_row() {
        let columns = vec![("Id".to_owned(), pattern("D{n:02}")), ("Mac".to_owned(), pattern("02:{n:02}"))];
        let lot = GeneratedLot { columns, devices: 3, seed: 1 };
        assert_eq!(lot.shape(), LotShape { columns: vec!["Id".into(), "Mac".into()], key_column: 0 });
        let rows: Vec<_> = lot.rows().map(|row| (row.line, row.key, row.values.join(","))).collect();
        assert_eq!(rows[2], (4, "D03".into(), "D03,02:03".into()));
        assert_eq!(rows.len(), 3);
    }
}
