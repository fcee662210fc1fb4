//! A lot: the CSV of device identities, row by row.
//!
//! Owns reading and checking rows, and the parameters that a row becomes. Opens no file and keeps no row.

use std::io::Read;

/// One device of the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The line of the file on which its row starts, from 1.
    pub line: u64,
    /// What identifies it: its value in the key column.
    pub key: String,
    /// Its values, in the order of the lot's columns, the key included.
    pub values: Vec<String>,
}

/// What all rows of a lot have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotShape {
    /// The header: names of the template parameters.
    pub columns: Vec<String>,
    /// Which column is the key.
    pub key_column: usize,
}

/// Reads a lot as a stream: memory stays flat however long the file is.
pub struct LotReader<R> {
    shape: LotShape,
    source: R,
}

/// One thing wrong with a lot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {found}; wanted {wanted}")]
pub struct RowError {
    /// Line, from 1.
    pub line: u64,
    /// Column name, where one is to blame.
    pub column: Option<String>,
    /// What was found.
    pub found: String,
    /// What was wanted.
    pub wanted: String,
}

impl<R: Read> LotReader<R> {
    /// Reads the header.
    pub fn new(_source: R, _key_column: Option<&str>) -> Result<Self, Vec<RowError>> {
        unimplemented!()
    }

    /// What all rows have in common.
    pub fn shape(&self) -> &LotShape {
        &self.shape
    }
}

impl<R: Read> Iterator for LotReader<R> {
    type Item = Result<Identity, Vec<RowError>>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = &self.source;
        None
    }
}
