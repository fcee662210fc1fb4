//! `fleetmint status`: where a ledger's devices stand.

use std::io::Write;
use std::path::PathBuf;

use super::exit::{self, Exit, Fatal};
use crate::ledger::Ledger;
use crate::report::{StatusReport, render_status};

/// Say where a ledger's devices stand, what went wrong, and what to do next.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fleetmint status lot.ledger\n  fleetmint status lot.ledger --json")]
pub(super) struct StatusArgs {
    /// The ledger of a provisioning run; a run may be writing it.
    pub(super) ledger: PathBuf,

    /// Say it as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Fatal> {
    let view = Ledger::open_read_only(&args.ledger).map_err(exit::ledger)?;
    let status = view.status().map_err(exit::ledger)?;
    let report = StatusReport::new(&args.ledger, view.lot(), &status);
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).expect("a status is plain data") + "\n",
        false => render_status(&report),
    };
    let mut stdout = std::io::stdout().lock();
    // A reader that went away is none of our business.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(Exit::Complete)
}
