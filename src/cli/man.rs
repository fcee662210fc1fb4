//! `fleetmint man`: manual pages.

use std::path::PathBuf;

use clap::Command;

use super::exit::{Exit, Fatal};
use super::speech::print;

/// Write the manual pages, one per verb, into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fleetmint man ~/.local/share/man/man1 && man fleetmint-provision")]
pub(super) struct ManArgs {
    /// The directory; created if missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(args: &ManArgs, command: Command) -> Result<Exit, Fatal> {
    let written = std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(command, &args.directory));
    written.map_err(|error| {
        let message = format!("the manual pages cannot be written to {}: {error}", args.directory.display());
        Fatal::new(Exit::LedgerUnusable, message)
    })?;
    print(&format!("manual pages in {}\n", args.directory.display()));
    Ok(Exit::Complete)
}
