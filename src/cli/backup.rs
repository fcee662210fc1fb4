//! `fleetmint backup`: a copy of a ledger that may be in use.

use std::path::PathBuf;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::speech::{print, warn};
use crate::ledger::View;
use crate::wording::number;

/// Copy a ledger, whole and of one instant, even while a run is writing it. (A plain copy of the file alone may lack what the
/// run has written last.)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fleetmint backup lot.ledger lot-monday.ledger")]
pub(super) struct BackupArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// The copy: a new file, mode 0600.
    #[arg(value_name = "FILE")]
    pub(super) copy: PathBuf,
}

pub(super) fn run(args: &BackupArgs) -> Result<Exit, Fatal> {
    let ledger = View::open(&args.ledger).map_err(ledger_error)?;
    ledger.backup(&args.copy).map_err(ledger_error)?;
    // A backup that turns out to be damaged when it is needed is useless.
    let copy = View::open(&args.copy).map_err(ledger_error)?;
    copy.check_integrity().map_err(ledger_error)?;
    let status = copy.status().map_err(ledger_error)?;
    print(&format!(
        "{}: {} of {} registered, checked\n",
        args.copy.display(),
        status.counts.registered,
        number(status.counts.total(), "device", "devices")
    ));
    if status.holds_plain_keys {
        warn("warning: the copy holds private keys in plain text: guard it as you would the keys");
    }
    Ok(Exit::Complete)
}
