//! How much is reported, and how: options of every verb.

use clap::{ArgAction, Args, ColorChoice, ValueEnum};

/// How much is said, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(in crate::cli) struct MannerArgs {
    /// Report errors only: no progress, no notes. Results are still printed.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(in crate::cli) quiet: bool,

    /// Say more: summaries with the steps of connecting, and a log on stderr; twice, a detailed one.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(in crate::cli) verbose: u8,

    /// When to use colours; `auto` is on a terminal.
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(in crate::cli) color: ColorChoice,

    /// How to write to stderr: as text, or as a JSON object per line, progress and errors included.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(in crate::cli) log_format: LogFormat,
}

/// How stderr is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    #[default]
    Text,
    Json,
}
