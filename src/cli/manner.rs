//! How much is reported and in which colours. Settled once, before anything is reported.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{ColorChoice, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::args::{LogFormat, MannerArgs};
use super::exit::{Exit, Fatal};
use super::speech;
use crate::report::Detail;

#[derive(Debug, Clone, Copy)]
struct Manner {
    verbose: u8,
    color: ColorChoice,
}

/// Global because there is one stderr.
static MANNER: OnceLock<Manner> = OnceLock::new();

/// Settles how things are reported, from the arguments. Logs go to stderr, and only if FLEETMINT_LOG or `-v` asks for
/// them: progress and summary suffice otherwise.
///
/// # Errors
/// If FLEETMINT_LOG is not a valid filter.
pub(super) fn settle(args: &MannerArgs) -> Result<(), Fatal> {
    let MannerArgs { quiet, verbose, color, log_format } = *args;
    MANNER.get_or_init(|| Manner { verbose, color });
    if quiet {
        speech::be_quiet();
    }
    if log_format == LogFormat::Json {
        speech::speak_json();
    }
    let typed = std::env::var("FLEETMINT_LOG").unwrap_or_default();
    let filter = match verbose {
        _ if !typed.is_empty() => filter(&typed)?,
        0 => EnvFilter::new("off"),
        1 => EnvFilter::new("fleetmint=info"),
        _ => EnvFilter::new("fleetmint=debug"),
    };
    // Without this, a log that cannot be written would panic while reporting that.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| speech::Log)
        .with_ansi(has_colours())
        .log_internal_errors(false);
    match log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}

/// The filter in FLEETMINT_LOG. A level alone applies only to fleetmint: libraries that handle credentials log too.
fn filter(typed: &str) -> Result<EnvFilter, Fatal> {
    let ours = |part: &str| match part.trim().parse::<LevelFilter>() {
        Ok(level) => format!("fleetmint={level}"),
        Err(_) => part.trim().to_owned(),
    };
    let directives: Vec<_> = typed.split(',').map(ours).collect();
    EnvFilter::builder().parse(directives.join(",")).map_err(|_| {
        let message = format!(
            "FLEETMINT_LOG is {typed:?}; wanted error, warn, info, debug, trace or off, or a filter such as \
             fleetmint::engine=debug"
        );
        Fatal::new(Exit::Usage, message)
    })
}

/// The colours of help and usage errors, which are needed before the command line is parsed.
pub(super) fn color_of_help(typed: &[OsString]) -> ColorChoice {
    let mut words = typed.iter().filter_map(|word| word.to_str());
    let after = |word: &str| word.strip_prefix("--color=").map(str::to_owned);
    let value = match words.find(|word| *word == "--color" || word.starts_with("--color=")) {
        Some("--color") => words.next().map(str::to_owned),
        Some(word) => after(word),
        None => std::env::var("FLEETMINT_COLOR").ok(),
    };
    value.and_then(|value| ColorChoice::from_str(&value, true).ok()).unwrap_or(ColorChoice::Auto)
}

/// How detailed summaries are.
pub(super) fn detail() -> Detail {
    if MANNER.get().is_some_and(|manner| manner.verbose > 0) { Detail::Full } else { Detail::Brief }
}

/// Whether stderr is coloured. Following <https://no-color.org>, any non-empty NO_COLOR disables colours, unless the
/// command line says otherwise.
pub(super) fn has_colours() -> bool {
    match MANNER.get().map_or(ColorChoice::Auto, |manner| manner.color) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::io::stderr().is_terminal()
        }
    }
}
