//! `fleetmint export`: keys and certificates as files.

use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::args::ExportArgs;
use super::exit::{Exit, Fatal};
use super::speech::{print, say};
use crate::export::{self, ExportError, ExportSummary};
use crate::ledger::{Ledger, LedgerError};
use crate::sealing::{IdentityError, KeyOpener, OpenError};

pub(super) fn run(args: &ExportArgs) -> Exit {
    match write(args) {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

fn write(args: &ExportArgs) -> Result<Exit, Fatal> {
    let opener = opener(args)?;
    // To write down what was exported; and no run is to register devices behind the export's back.
    let mut ledger = Ledger::reopen(&args.ledger).map_err(unusable)?;
    let summary = export::export(ledger.view(), &args.out, &opener).map_err(refused)?;
    record(&mut ledger, &args.out, &summary)?;
    print(&format!("{} devices exported to {}\n", summary.exported, args.out.display()));
    let unregistered = summary.left_out - summary.purged;
    if unregistered > 0 {
        say(format_args!("{unregistered} devices are not registered and were left out"));
    }
    if summary.purged > 0 {
        say(format_args!(
            "{} devices were left out, for their private keys were purged from the ledger",
            summary.purged
        ));
    }
    Ok(Exit::Complete)
}

/// Lets the ledger know, so that it can tell which keys it need not keep.
fn record(ledger: &mut Ledger, out: &Path, summary: &ExportSummary) -> Result<(), Fatal> {
    let destination = out.canonicalize().unwrap_or_else(|_| out.to_path_buf());
    let recorded =
        ledger.record_export(&destination.display().to_string(), &summary.devices, SystemTime::now());
    recorded.map_err(|error| {
        let message = format!(
            "the export {} is whole, but the ledger could not write it down, and will not purge its keys: {error}",
            out.display()
        );
        Fatal::new(Exit::LedgerUnusable, message)
    })
}

fn opener(args: &ExportArgs) -> Result<KeyOpener, Fatal> {
    if args.sealed {
        return Ok(KeyOpener::pass_sealed_on());
    }
    let mut openers = KeyOpener::plain_only();
    for file in &args.identity {
        let wrong = |error: &dyn std::fmt::Display| {
            Fatal::new(Exit::Usage, format!("--identity: {}: {error}", file.display()))
        };
        let content = Zeroizing::new(std::fs::read(file).map_err(|error| wrong(&error))?);
        openers.add_identities(&content).map_err(|error: IdentityError| wrong(&error))?;
    }
    Ok(openers)
}

fn refused(error: ExportError) -> Fatal {
    let exit = match &error {
        ExportError::Key {
            error: OpenError::NoIdentity { .. } | OpenError::OtherIdentity { .. }, ..
        } => Exit::Usage,
        _ => Exit::LedgerUnusable,
    };
    Fatal::new(exit, error)
}

fn unusable(error: LedgerError) -> Fatal {
    Fatal::new(Exit::LedgerUnusable, error)
}
