//! Output on stdout and stderr. A reader that has gone away is ignored: a run continues without its terminal.
//!
//! The standard macros panic if a stream is closed, and such a panic could end a run. They would also write into the
//! progress lines; output from here appears above these.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whether only warnings and errors are written.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Whether stderr is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// The error of the last result that could not be printed.
static LOST_OUTPUT: Mutex<Option<io::Error>> = Mutex::new(None);

/// The progress lines, while there are any. Global because there is one terminal.
static IN_PLACE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes a line to stderr, unless quiet.
pub(super) fn say(words: impl Display) {
    if !is_quiet() {
        write_line("INFO", words);
    }
}

/// Writes a line to stderr, even when quiet.
pub(super) fn warn(words: impl Display) {
    write_line("WARN", words);
}

fn write_line(level: &str, words: impl Display) {
    let line = if is_json() { json(level, &words.to_string()) } else { words.to_string() };
    // In one write, so that lines of several threads do not mix.
    let _ = above(|| io::stderr().write_all((line + "\n").as_bytes()));
}

/// A line in the JSON format of the log.
fn json(level: &str, message: &str) -> String {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).expect("the year has four digits");
    json!({ "timestamp": now, "level": level, "message": message, "target": "fleetmint" }).to_string()
}

/// Prints a result to stdout unchanged. A failure is reported [at the end](lost_output).
pub(super) fn print(text: &str) {
    let printed = above(|| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            *LOST_OUTPUT.lock().expect("no code panics while it holds this lock") = Some(error);
        }
        _ => {}
    }
}

/// Why a result could not be printed; `None` if all were, or if the reader has gone away.
pub(super) fn lost_output() -> Option<io::Error> {
    LOST_OUTPUT.lock().expect("no code panics while it holds this lock").take()
}

/// From now on, only writes warnings and errors.
pub(super) fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Whether only warnings and errors are written.
pub(super) fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// From now on, writes a JSON object per line to stderr.
pub(super) fn speak_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Whether stderr is a JSON object per line.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// From now on, all output appears above these lines.
pub(super) fn speak_above(lines: &ProgressBar) {
    *in_place() = Some(lines.clone());
}

/// From now on, there are no lines to write above.
pub(super) fn speak_plainly() {
    *in_place() = None;
}

/// Writes logs to stderr line by line, above the progress lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn above<T>(write: impl FnOnce() -> T) -> T {
    // The lock is released first: writing may block on a stopped terminal.
    let lines = in_place().clone();
    match lines {
        Some(lines) => lines.suspend(write),
        None => write(),
    }
}

fn in_place() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    IN_PLACE.lock().expect("no code panics while it holds this lock")
}
