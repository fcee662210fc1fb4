//! `fleetmint export`: keys and certificates as files.

use super::args::ExportArgs;
use super::exit::{Exit, Fatal};
use super::speech::{print, say};
use crate::export;
use crate::ledger::Ledger;

pub(super) fn run(args: &ExportArgs) -> Exit {
    match write(args) {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

fn write(args: &ExportArgs) -> Result<Exit, Fatal> {
    let unusable = |error: &dyn std::fmt::Display| Fatal::new(Exit::LedgerUnusable, error);
    let ledger = Ledger::open_read_only(&args.ledger).map_err(|error| unusable(&error))?;
    let summary = export::export(&ledger, &args.out).map_err(|error| unusable(&error))?;
    print(&format!("{} devices exported to {}\n", summary.exported, args.out.display()));
    if summary.left_out > 0 {
        say(format_args!("{} devices are not registered and were left out", summary.left_out));
    }
    Ok(Exit::Complete)
}
