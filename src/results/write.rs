//! Writing a results file while the run goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::line::{FORMAT, HeaderLine, IntervalLine, Line, Shown};
use super::{Footer, Header, Problem, ResultsError, VERSION};
use crate::metrics::Interval;

/// A results file that is being written.
///
/// Each line is handed to the operating system at once: what a crash leaves is a file that ends early.
#[derive(Debug)]
pub struct ResultsWriter {
    path: PathBuf,
    file: File,
    /// The kinds of failure that have an example in the file.
    shown: Shown,
}

impl ResultsWriter {
    /// Begins a new file at `path` with its header.
    ///
    /// # Errors
    /// If a file of that name exists, since results are never overwritten; if it cannot be written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, ResultsError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| {
            let is_there = error.kind() == io::ErrorKind::AlreadyExists;
            let problem = if is_there { Problem::Exists } else { Problem::Io(error) };
            ResultsError { file: path.to_owned(), problem }
        })?;
        let mut writer = Self { path: path.to_owned(), file, shown: Shown::new() };
        let header =
            HeaderLine { format: FORMAT.to_owned(), version: VERSION.into(), header: header.clone() };
        writer.write(&Line::Header(Box::new(header)))?;
        Ok(writer)
    }

    /// Adds a second; they come in order.
    ///
    /// # Errors
    /// If it cannot be written, because the disk is full, say. The file then ends early.
    pub fn interval(&mut self, interval: &Interval) -> Result<(), ResultsError> {
        let line = IntervalLine::new(interval, &mut self.shown);
        self.write(&Line::Interval(Box::new(line)))
    }

    /// Ends the file; when this returns it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self, footer: &Footer) -> Result<(), ResultsError> {
        self.write(&Line::Footer(Box::new(footer.clone())))?;
        self.file.sync_all().map_err(|error| self.error(error))
    }

    fn write(&mut self, line: &Line) -> Result<(), ResultsError> {
        let mut text = serde_json::to_vec(line).expect("a line is plain data, its map keys texts");
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| self.error(error))
    }

    fn error(&self, error: io::Error) -> ResultsError {
        ResultsError { file: self.path.clone(), problem: Problem::Io(error) }
    }
}
