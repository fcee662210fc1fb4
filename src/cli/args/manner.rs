//! How much is said, and in which colours: options of every verb.

use clap::{ArgAction, Args, ColorChoice};

/// How much is said, and in which colours.
#[derive(Debug, Args)]
#[command(next_help_heading = "Manner")]
pub(in crate::cli) struct MannerArgs {
    /// Say only what went wrong: no progress, no notes. Results are printed all the same.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(in crate::cli) quiet: bool,

    /// Say more: the steps of connecting in summaries, and what the program does (twice: in detail) on stderr.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(in crate::cli) verbose: u8,

    /// When to use colours: where there is a terminal, always, or never.
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(in crate::cli) color: ColorChoice,
}
