//! What is said and printed. A reader that went away is none of our business: a run goes on without its terminal.
//!
//! The standard macros panic where a stream is closed, and a panic in the wrong place would cost a run.

use std::fmt::Display;
use std::io::Write;

/// Says a line on stderr.
pub(super) fn say(words: impl Display) {
    // In one write, so that lines of several threads do not mix.
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

/// Prints a result to stdout, as it is.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
