//! `fleetmint merge`: the ledgers of all shards into one of the whole lot.

use std::path::PathBuf;
use std::time::SystemTime;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::speech::{print, say};
use crate::ledger::{Ledger, View};
use crate::wording::number;

const AFTER: &str = "\
Examples:
  fleetmint merge lot.*-of-4.ledger -o lot.ledger
  fleetmint status lot.ledger

The shards' ledgers are proven to be those of all shards of one lot, and every row of the lot to be in one of them. They \
stay as they are, but no run takes them up any more: the new ledger goes on in their place.";

/// Put the ledgers of all shards of a lot together into one.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct MergeArgs {
    /// The ledgers of all shards.
    #[arg(required = true, value_name = "LEDGER")]
    ledgers: Vec<PathBuf>,

    /// The new ledger.
    #[arg(long, short = 'o', value_name = "LEDGER")]
    out: PathBuf,
}

pub(super) fn run(args: &MergeArgs) -> Result<Exit, Fatal> {
    let merged = Ledger::merge(&args.ledgers, &args.out, SystemTime::now()).map_err(ledger_error)?;
    let counts = View::open(&args.out).and_then(|view| view.counts()).map_err(ledger_error)?;
    print(&format!(
        "{} of {}: every row of the lot, each once; {} registered, {} open, {} rejected, {} unknown\n",
        number(u64::from(merged.shards), "shard", "shards"),
        number(merged.devices, "device", "devices"),
        counts.registered,
        counts.open(),
        counts.rejected,
        counts.unknown,
    ));
    say(format_args!("{} goes on in their place", args.out.display()));
    Ok(Exit::Complete)
}
