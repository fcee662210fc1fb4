//! What is said and printed. A reader that went away is none of our business: a run goes on without its terminal.
//!
//! The standard macros panic where a stream is closed, and a panic in the wrong place would cost a run. They would also
//! write into the lines that progress keeps in place; what is said here appears above them.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whether only what went wrong is said.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Whether stderr is for programs.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// Why the last result that was not printed was not.
static LOST_OUTPUT: Mutex<Option<io::Error>> = Mutex::new(None);

/// The lines that stay in place, while there are any. There is one terminal, so there is one of these.
static IN_PLACE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says a line on stderr, unless only what went wrong is wanted.
pub(super) fn say(words: impl Display) {
    if !is_quiet() {
        write_line("INFO", words);
    }
}

/// Says a line on stderr that must not be missed.
pub(super) fn warn(words: impl Display) {
    write_line("WARN", words);
}

fn write_line(level: &str, words: impl Display) {
    let line = if is_json() { json(level, &words.to_string()) } else { words.to_string() };
    // In one write, so that lines of several threads do not mix.
    let _ = above(|| io::stderr().write_all((line + "\n").as_bytes()));
}

/// A line as the log has them.
fn json(level: &str, message: &str) -> String {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).expect("the year has four digits");
    json!({ "timestamp": now, "level": level, "message": message, "target": "fleetmint" }).to_string()
}

/// Prints a result to stdout, as it is. What could not be printed is told [at the end](lost_output).
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

/// Why a result could not be printed; `None` where all was, or its reader went away.
pub(super) fn lost_output() -> Option<io::Error> {
    LOST_OUTPUT.lock().expect("no code panics while it holds this lock").take()
}

/// From now on, only what must not be missed is said.
pub(super) fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Whether only what must not be missed is said.
pub(super) fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// From now on, what is said on stderr is a JSON object a line.
pub(super) fn speak_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Whether what is said on stderr is a JSON object a line.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// From now on, everything that is said appears above these lines.
pub(super) fn speak_above(lines: &ProgressBar) {
    *in_place() = Some(lines.clone());
}

/// No lines stay in place any more.
pub(super) fn speak_plainly() {
    *in_place() = None;
}

/// Writes logs as they are said: line by line, on stderr.
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
    // The lock is not held meanwhile: what is written may block on a terminal that was stopped.
    let lines = in_place().clone();
    match lines {
        Some(lines) => lines.suspend(write),
        None => write(),
    }
}

fn in_place() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    IN_PLACE.lock().expect("no code panics while it holds this lock")
}
