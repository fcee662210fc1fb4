//! `--results`: a results file that grows with the run.

use std::path::Path;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::exit::{Exit, Fatal};
use crate::metrics::Interval;
use crate::results::{Footer, Header, ResultsError, ResultsWriter};
use crate::wording;

/// How many seconds may wait for the disk; the run then waits with them.
const BACKLOG: usize = 64;

/// A results file that is being written.
pub(super) struct Recording {
    writing: JoinHandle<Result<ResultsWriter, ResultsError>>,
}

impl Recording {
    /// Begins a new file, and writes the seconds that are sent, on a thread that may wait for the disk. A run is never
    /// ended for want of room for them: what could not be written is said when the file is finished.
    pub(super) fn start(file: &Path, header: &Header) -> Result<(Self, mpsc::Sender<Interval>), Fatal> {
        let mut writer = ResultsWriter::create(file, header).map_err(unwritable)?;
        let (sender, mut intervals) = mpsc::channel(BACKLOG);
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(interval) = intervals.blocking_recv() {
                writer.interval(&interval)?;
            }
            Ok(writer)
        });
        Ok((Self { writing }, sender))
    }

    /// Ends the file, once every sender is gone.
    pub(super) async fn finish(self, footer: &Footer) -> Result<(), Fatal> {
        let written = match self.writing.await {
            Ok(writer) => writer.and_then(|writer| writer.finish(footer)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        written.map_err(unwritable)
    }
}

fn unwritable(error: ResultsError) -> Fatal {
    Fatal::new(Exit::Usage, format!("--results: {error}"))
}

/// The program and its version.
pub(super) fn tool() -> String {
    format!("fleetmint {}", env!("CARGO_PKG_VERSION"))
}

/// The command line for a POSIX shell. No option takes a secret; what looks like one all the same is taken out.
pub(super) fn command_line() -> String {
    let words = std::env::args_os().enumerate().map(|(at, word)| {
        let word = wording::clean(&word.to_string_lossy());
        match at {
            0 => String::from("fleetmint"),
            _ => quoted(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
