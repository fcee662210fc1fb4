//! `fleetmint retry`: rejected, unknown and removed devices back to pending.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ValueEnum;

use super::exit::{self, Exit, Fatal};
use super::speech::{print, say, warn};
use crate::ledger::{GivenUp, Ledger, Retry};

/// What it means to reissue unknown devices, in full.
const WARNING: &str = "\
an unknown device may be registered already, with the certificate that the ledger has. It gets another one, and may
then own two: the first stays active in the account until it is found and deleted there. The ledger keeps it, retired.";

/// Return rejected, unknown or removed devices to pending, so that the next provision takes them up again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fleetmint retry lot.ledger --state rejected\n  fleetmint retry lot.ledger --state rejected --key SN000009"
)]
pub(super) struct RetryArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Which devices to return to pending.
    #[arg(long, value_enum)]
    pub(super) state: GivenUpState,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// Only devices with this cause, as `status --json` names it.
    #[arg(long)]
    pub(super) cause: Option<String>,

    /// Required for unknown devices: each gets another certificate, and may then own two.
    #[arg(long)]
    pub(super) reissue_unknown: bool,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,
}

/// A state that a device can be returned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GivenUpState {
    Rejected,
    Unknown,
    Removed,
}

/// Returns all unknown devices of a ledger that a run is about to take up. Whoever typed the flag was told what it means.
pub(super) fn reissue_unknown(ledger: &mut Ledger) -> Result<(), Fatal> {
    let all = Retry { from: GivenUp::Unknown, keys: Vec::new(), cause: None };
    let returned = ledger.retry(&all, SystemTime::now()).map_err(exit::ledger)?;
    if returned.devices > 0 {
        warn(format_args!("warning: {WARNING}"));
        say(format_args!("{} unknown devices are pending again", returned.devices));
    }
    Ok(())
}

pub(super) fn run(args: &RetryArgs) -> Result<Exit, Fatal> {
    let retry = meaning(args)?;
    let mut ledger = Ledger::reopen(&args.ledger).map_err(exit::ledger)?;
    let devices = ledger.view().count_retry(&retry).map_err(exit::ledger)?;
    let state = retry.from.state().name();
    if devices == 0 {
        print(&format!("nothing to do: no {state} device to return to pending\n"));
        return Ok(Exit::Complete);
    }
    if retry.from == GivenUp::Unknown && !args.yes && !is_agreed(devices) {
        say("nothing was changed");
        return Ok(Exit::Interrupted);
    }
    let returned = ledger.retry(&retry, SystemTime::now()).map_err(exit::ledger)?;
    ledger.close().map_err(exit::ledger)?;
    print(&format!(
        "{} {state} devices are pending again, {} certificates of theirs retired\n",
        returned.devices, returned.certificates_retired
    ));
    say("run the same provision command again to take them up: fleetmint status shows what it needs");
    Ok(Exit::Complete)
}

/// What was typed, if it goes together, and whoever has to be asked can be.
fn meaning(args: &RetryArgs) -> Result<Retry, Fatal> {
    let usage = |message: &str| Err(Fatal::new(Exit::Usage, message));
    let from = match (args.state, args.reissue_unknown) {
        (GivenUpState::Rejected, false) => GivenUp::Rejected,
        (GivenUpState::Removed, false) => GivenUp::Removed,
        (GivenUpState::Rejected | GivenUpState::Removed, true) => {
            return usage("--reissue-unknown: is for --state unknown; others need no such consent");
        }
        (GivenUpState::Unknown, true) => GivenUp::Unknown,
        (GivenUpState::Unknown, false) => {
            return usage(&format!("--state unknown: {WARNING} If that is wanted, add --reissue-unknown"));
        }
    };
    if from == GivenUp::Unknown && !args.yes && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return usage("--reissue-unknown: there is no terminal to ask on; add --yes if you are sure");
    }
    Ok(Retry { from, keys: args.keys.clone(), cause: args.cause.clone() })
}

/// Asks on the terminal.
fn is_agreed(devices: u64) -> bool {
    warn(format_args!("warning: {WARNING}"));
    eprint!("return {devices} unknown devices to pending? Type yes to go on: ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("yes")
}
