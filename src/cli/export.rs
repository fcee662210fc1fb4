//! `fleetmint export`: keys and certificates as files.

use super::args::ExportArgs;
use super::exit::{Exit, Fatal};
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
    println!("{} devices exported to {}", summary.exported, args.out.display());
    if summary.left_out > 0 {
        eprintln!("{} devices are not registered and were left out", summary.left_out);
    }
    Ok(Exit::Complete)
}
