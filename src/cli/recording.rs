//! `--results`: a results file that grows with the run.

use std::path::PathBuf;
use std::time::SystemTime;

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
    /// Writes the seconds that are sent to a new file, on a thread that may wait for the disk. When second 0 began may only
    /// be known when it is over; `second_zero` is asked then. A run is never ended for want of room: what could not be
    /// written is said when the file is finished.
    pub(super) fn start(
        file: PathBuf,
        mut header: Header,
        second_zero: impl FnOnce() -> Option<SystemTime> + Send + 'static,
    ) -> (Self, mpsc::Sender<Interval>) {
        let (sender, mut intervals) = mpsc::channel(BACKLOG);
        let writing = tokio::task::spawn_blocking(move || {
            let mut next = intervals.blocking_recv();
            if let Some(began) = second_zero() {
                header.started_at = began;
            }
            let mut writer = ResultsWriter::create(&file, &header)?;
            while let Some(interval) = next {
                writer.interval(&interval)?;
                next = intervals.blocking_recv();
            }
            Ok(writer)
        });
        (Self { writing }, sender)
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

/// The end of a command whose results cannot be written.
pub(super) fn unwritable(error: ResultsError) -> Fatal {
    Fatal::new(Exit::LedgerUnusable, format!("--results: {error}"))
}

/// The program and its version.
pub(super) fn tool() -> String {
    format!("fleetmint {}", env!("CARGO_PKG_VERSION"))
}

/// The name of this machine, where the system tells it.
pub(super) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(wording::plain(name.trim())).filter(|name| !name.is_empty())
}

/// The command line for a POSIX shell. No option takes a secret; what looks like one all the same is taken out.
pub(super) fn command_line() -> String {
    let words = std::env::args_os().enumerate().map(|(at, word)| {
        let word = wording::clean(&word.to_string_lossy());
        if at == 0 { String::from("fleetmint") } else { wording::shell_word(&word) }
    });
    words.collect::<Vec<_>>().join(" ")
}
