//! Reading a results file, second by second.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::line::{FORMAT, Line};
use super::{Footer, Header, Problem, ResultsError, VERSION};
use crate::failure::Failure;
use crate::metrics::Interval;

/// Longer than any line of ours: sixteen full histograms and all kinds of failure.
const MAX_LINE: u64 = 16 << 20;
/// The last second that a file may have: ten years. Nothing beyond was written by a run.
const MAX_SECOND: u64 = 10 * 366 * 86_400;

/// A results file that is being read: an iterator over its seconds, in order.
#[derive(Debug)]
pub struct Results<R> {
    lines: Lines<R>,
    header: Header,
    examples: Vec<Failure>,
    last_second: Option<u64>,
    ending: Option<Ending>,
}

/// How a file ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// With its footer.
    Footer(Box<Footer>),
    /// Without a footer: the run crashed or still writes, or the file was cut off.
    CutOff,
}

impl Results<BufReader<File>> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If it cannot be read, is not a results file, or is of another version.
    pub fn open(path: &Path) -> Result<Self, ResultsError> {
        let file = File::open(path)
            .map_err(|error| ResultsError { file: path.to_owned(), problem: Problem::Io(error) })?;
        Results::read(path, BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: BufRead> Results<R> {
    /// Reads a file's content from `reader`; `name` is for errors only.
    ///
    /// # Errors
    /// As [`Results::open`].
    pub fn read(name: &Path, reader: R) -> Result<Self, ResultsError> {
        let mut lines = Lines { file: name.to_owned(), reader, line: 0, text: Vec::new() };
        let header = lines.header()?;
        Ok(Self { lines, header, examples: Vec::new(), last_second: None, ending: None })
    }

    /// What the run was.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the file ends; `None` until the iterator has ended.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The next second.
    fn advance(&mut self) -> Result<Option<Interval>, ResultsError> {
        if self.ending.is_some() {
            return Ok(None);
        }
        if !self.lines.advance()? {
            self.ending = Some(Ending::CutOff);
            return Ok(None);
        }
        match self.lines.parse()? {
            Line::Header(_) => {
                Err(self.lines.damaged("a second header; files are merged by naming them all, not by cat"))
            }
            Line::Interval(line) => {
                let interval =
                    line.into_interval(&mut self.examples).map_err(|wrong| self.lines.damaged(wrong))?;
                self.lines.check_order(&mut self.last_second, interval.second)?;
                Ok(Some(interval))
            }
            Line::Footer(footer) => {
                self.lines.check_footer(&footer)?;
                self.ending = Some(Ending::Footer(footer));
                Ok(None)
            }
        }
    }
}

impl<R: BufRead> Iterator for Results<R> {
    type Item = Result<Interval, ResultsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.ending = Some(Ending::CutOff);
        }
        next.transpose()
    }
}

/// How long a file is, and how it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// Its header.
    pub header: Header,
    /// The seconds from second 0 to the end of the last one in the file.
    pub seconds: u64,
    /// How it ends.
    pub ending: Ending,
}

/// Looks through a file without reading what it measured.
///
/// # Errors
/// As [`Results::open`]; and if a line is not even a line of such a file.
pub fn extent(path: &Path) -> Result<Extent, ResultsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Outline {
        Interval { second: u64 },
        Footer(Box<Footer>),
    }
    let Results { mut lines, header, mut last_second, .. } = Results::open(path)?;
    let mut ending = Ending::CutOff;
    while lines.advance()? {
        match lines.parse()? {
            Outline::Interval { second } => lines.check_order(&mut last_second, second)?,
            Outline::Footer(footer) => {
                lines.check_footer(&footer)?;
                ending = Ending::Footer(footer);
                break;
            }
        }
    }
    Ok(Extent { header, seconds: last_second.map_or(0, |second| second + 1), ending })
}

/// The whole lines of a file.
#[derive(Debug)]
struct Lines<R> {
    file: PathBuf,
    reader: R,
    /// The number of the line in `text`, from 1.
    line: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Whether there is one more line. A last one without a line end does not count: its writer did not finish it.
    fn advance(&mut self) -> Result<bool, ResultsError> {
        self.text.clear();
        self.line += 1;
        let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.text);
        let read = read.map_err(|error| self.error(Problem::Io(error)))?;
        if read as u64 == MAX_LINE {
            return Err(self.damaged("the line is longer than any that fleetmint writes"));
        }
        Ok(self.text.pop() == Some(b'\n'))
    }

    fn header(&mut self) -> Result<Header, ResultsError> {
        #[derive(Deserialize)]
        struct Start {
            header: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            format: String,
            version: u64,
        }
        let not_results = |what: &str| Problem::NotResults(what.to_owned());
        if !self.advance()? {
            return Err(self.error(not_results("it has no whole line; did its run end before it began?")));
        }
        let start: Result<Start, _> = serde_json::from_slice(&self.text);
        match start {
            Ok(Start { header }) if header.format != FORMAT => {
                Err(self.error(not_results("its first line says that it is something else")))
            }
            Ok(Start { header }) if header.version != u64::from(VERSION) => {
                Err(self.error(Problem::Version { found: header.version }))
            }
            Ok(_) => match self.parse()? {
                Line::Header(line) => Ok(line.header),
                _ => Err(self.error(not_results("its first line is no header"))),
            },
            Err(_) => Err(self.error(not_results("its first line is no header"))),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ResultsError> {
        serde_json::from_slice(&self.text).map_err(|error| {
            // The position is in our own words, which know the line.
            let what = error.to_string();
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            let column = (error.column() > 0).then(|| error.column());
            self.error(Problem::Damaged { line: self.line, column, what: what.to_owned() })
        })
    }

    fn check_order(&self, last: &mut Option<u64>, second: u64) -> Result<(), ResultsError> {
        if last.is_some_and(|last| second <= last) {
            return Err(self.damaged(format!("second: {second} comes after second {}", last.unwrap_or(0))));
        }
        if second > MAX_SECOND {
            return Err(self.damaged(format!("second: {second} is more than ten years after the start")));
        }
        *last = Some(second);
        Ok(())
    }

    fn check_footer(&mut self, footer: &Footer) -> Result<(), ResultsError> {
        if !(0.0..=MAX_SECOND as f64).contains(&footer.elapsed_s) {
            return Err(self.damaged(format!("elapsed_s: {} is no length of a run", footer.elapsed_s)));
        }
        if self.advance()? || !self.text.is_empty() {
            return Err(self.damaged("there is something after the footer"));
        }
        Ok(())
    }

    fn damaged(&self, what: impl Into<String>) -> ResultsError {
        self.error(Problem::Damaged { line: self.line, column: None, what: what.into() })
    }

    fn error(&self, problem: Problem) -> ResultsError {
        let problem = match problem {
            Problem::Io(error) if error.kind() == io::ErrorKind::IsADirectory => {
                Problem::NotResults(String::from("it is a directory"))
            }
            problem => problem,
        };
        ResultsError { file: self.file.clone(), problem }
    }
}
