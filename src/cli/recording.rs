//! `--results`: a results file that grows with the run.

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::exit::{Exit, Fatal};
use crate::metrics::Interval;
use crate::results::{Footer, Header, ResultsError, ResultsWriter};
use crate::wording;

/// How many seconds may be queued for the disk before the run waits.
const BACKLOG: usize = 64;

/// A results file being written.
pub(super) struct Recording {
    writing: JoinHandle<Result<ResultsWriter, ResultsError>>,
}

impl Recording {
    /// Writes each second sent to it to a new file, on a thread that may wait for the disk. The instant of second 0
    /// may be known only once that second is over; `second_zero` is called then. A run never ends because the disk is
    /// full: write errors are reported when the file is finished.
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

    /// Finishes the file, after every sender is dropped.
    pub(super) async fn finish(self, footer: &Footer) -> Result<(), Fatal> {
        let written = match self.writing.await {
            Ok(writer) => writer.and_then(|writer| writer.finish(footer)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        written.map_err(unwritable)
    }
}

/// The error for results that cannot be written.
pub(super) fn unwritable(error: ResultsError) -> Fatal {
    Fatal::new(Exit::LedgerUnusable, format!("--results: {error}"))
}

/// The program and its version.
pub(super) fn tool() -> String {
    format!("fleetmint {}", env!("CARGO_PKG_VERSION"))
}

/// The name of this machine, if the system provides it.
pub(super) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(wording::plain(name.trim())).filter(|name| !name.is_empty())
}

/// The command line for a POSIX shell. No option takes a secret; anything that still looks like one is removed.
pub(super) fn command_line() -> String {
    let words = std::env::args_os().enumerate().map(|(at, word)| {
        let word = wording::clean(&word.to_string_lossy());
        if at == 0 { String::from("fleetmint") } else { wording::shell_word(&word) }
    });
    words.collect::<Vec<_>>().join(" ")
}
