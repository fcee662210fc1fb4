//! What can be wrong with a lot, in words, and how much of it is reported.

use std::fmt;

use crate::wording::{Excerpt, number};

/// One thing wrong with a lot.
///
/// Displayed as `line 7, column SerialNumber: found …; wanted …`; the caller, which opened the file, puts its name before that.
/// Shows values of the key column only, or those that a spreadsheet damaged, with every invisible character escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The line on which the row starts, or that has the open quote, from 1.
    pub line: u64,
    /// The column's name, as in the header, if one column is to blame.
    pub column: Option<String>,
    /// What kind of fault it is.
    pub fault: LotFault,
    /// What was found.
    pub found: String,
    /// What was wanted, and what to do if that is not obvious.
    pub wanted: String,
}

/// The kinds of faults. Errors of one kind are counted together and share their advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LotFault {
    /// The file is of another kind than CSV, which was recognised.
    Format,
    /// The source cannot be read to its end.
    Source,
    /// Bytes that are not text.
    Encoding,
    /// The header, or its `sep=` line, does not settle what separates the columns.
    Delimiter,
    /// The header is missing, or a row stands in its place.
    Header,
    /// The lot has no row.
    Rows,
    /// No column identifies devices.
    KeyColumn,
    /// Something is wrong with a column's name.
    ColumnName,
    /// A quote is never closed, or is followed by text.
    Quote,
    /// A row has too many or too few fields, or is too long.
    Fields,
    /// A value is too long.
    Value,
    /// A key is empty.
    NoKey,
    /// A key has invisible characters.
    Invisible,
    /// A spreadsheet wrote an error in place of a key.
    SpreadsheetError,
    /// A spreadsheet seems to have changed a value; an error only if such values are refused.
    SpreadsheetDamage,
    /// Another row has the same key.
    Duplicate,
    /// The service would not accept the row's parameters.
    Parameters,
    /// Something is wrong with the row's certification request.
    Request,
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

/// Everything that is wrong with a lot: the first errors of each kind, and how many there are.
///
/// Its memory does not grow with the lot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LotErrors {
    /// In the order of their first errors.
    kinds: Vec<FaultErrors>,
}

/// The errors of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultErrors {
    /// The kind.
    pub fault: LotFault,
    /// The first of them, at most [`ERRORS_OF_A_KIND`].
    pub first: Vec<RowError>,
    /// How many more there are.
    pub more: u64,
}

/// How many errors of a kind are kept: enough to see what is wrong.
pub const ERRORS_OF_A_KIND: usize = 20;

impl LotErrors {
    /// Adds errors.
    pub fn add(&mut self, errors: impl IntoIterator<Item = RowError>) {
        for error in errors {
            let place = self.kinds.iter().position(|kind| kind.fault == error.fault).unwrap_or_else(|| {
                self.kinds.push(FaultErrors { fault: error.fault, first: Vec::new(), more: 0 });
                self.kinds.len() - 1
            });
            let kind = &mut self.kinds[place];
            if kind.first.len() < ERRORS_OF_A_KIND {
                kind.first.push(error);
            } else {
                kind.more += 1;
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.first.len() as u64 + kind.more).sum()
    }

    /// By kind, in the order of the first error of each.
    pub fn kinds(&self) -> &[FaultErrors] {
        &self.kinds
    }

    /// The errors that are kept, kind by kind.
    pub fn iter(&self) -> impl Iterator<Item = &RowError> {
        self.kinds.iter().flat_map(|kind| &kind.first)
    }
}

impl From<Vec<RowError>> for LotErrors {
    fn from(errors: Vec<RowError>) -> Self {
        let mut all = Self::default();
        all.add(errors);
        all
    }
}

impl std::error::Error for LotErrors {}

impl fmt::Display for LotErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        write!(f, "{} in the lot", number(count, "error", "errors"))?;
        self.iter()
            .min_by_key(|error| error.line)
            .map_or(Ok(()), |first| write!(f, "; the first is at {first}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: u64, fault: LotFault) -> RowError {
        let column = Some(String::from("SerialNumber"));
        RowError { line, column, fault, found: String::from("an empty key"), wanted: String::from("a key") }
    }

    #[test]
    fn a_row_error_reads_well() {
        let error = error(7, LotFault::NoKey);
        assert_eq!(error.to_string(), "line 7, column SerialNumber: found an empty key; wanted a key");
        let error = RowError { column: None, ..error };
        assert_eq!(error.to_string(), "line 7: found an empty key; wanted a key");
        let error = RowError { column: Some("é\n".repeat(100)), ..error };
        assert_eq!(
            error.to_string(),
            format!(
                "line 7, column {}…{} (200 characters): found an empty key; wanted a key",
                "é\\n".repeat(12),
                "é\\n".repeat(6)
            )
        );
    }

    #[test]
    fn the_first_errors_of_each_kind_are_kept_and_the_others_counted() {
        let mut errors = LotErrors::default();
        assert!(errors.is_empty());
        errors.add((0..1_500).map(|line| error(line + 2, LotFault::Fields)));
        errors.add([error(1_600, LotFault::NoKey)]);
        errors.add([error(1_601, LotFault::Fields)]);
        let kinds: Vec<_> =
            errors.kinds().iter().map(|kind| (kind.fault, kind.first.len(), kind.more)).collect();
        assert_eq!(kinds, [(LotFault::Fields, 20, 1_481), (LotFault::NoKey, 1, 0)]);
        assert_eq!((errors.count(), errors.iter().count()), (1_502, 21));
    }
}
