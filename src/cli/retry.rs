//! `fleetmint retry`: returns rejected, unknown and removed devices to pending, and registered ones that need a new
//! certificate.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ValueEnum;

use super::exit::{self, Exit, Fatal};
use super::rework::{self, AccountArgs};
use super::settings::usage;
use super::speech::{print, say, warn};
use crate::ledger::{GivenUp, Ledger, Retry};
use crate::wording::number;

/// What it means to reissue unknown devices.
const WARNING: &str = "\
an unknown device may be registered already, with the certificate that the ledger has. It gets another one, and may
then own two: the first stays active in the account until it is found and deleted there. The ledger keeps it, retired.";

/// Return rejected, unknown or removed devices to pending, so that the next provision takes them up again; or registered ones, to
/// be given another certificate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fleetmint retry lot.ledger --state rejected
  fleetmint retry lot.ledger --state rejected --key SN000009
  fleetmint retry lot.ledger --state registered --key SN000009 --reissue

The last one is for a device whose board or key was lost. Its certificate is made inactive in the account first, where these \
credentials may do that (iot:UpdateCertificate); the ledger keeps it beside the new one.")]
pub(super) struct RetryArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Which devices to return to pending.
    #[arg(long, value_enum)]
    pub(super) state: RetriedState,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// Only devices with this cause, as `status --json` names it.
    #[arg(long)]
    pub(super) cause: Option<String>,

    /// Required for unknown devices: each gets another certificate, and may then own two.
    #[arg(long)]
    pub(super) reissue_unknown: bool,

    /// Needed for registered devices, which are named by --key: each gets another certificate.
    #[arg(long, conflicts_with_all = ["reissue_unknown", "cause"])]
    pub(super) reissue: bool,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,

    #[command(flatten)]
    pub(super) account: AccountArgs,
}

/// A state that a device can be returned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RetriedState {
    Rejected,
    Unknown,
    Removed,
    Registered,
}

/// Returns all unknown devices of a ledger to pending, before a run. The user asked for it with a flag whose help
/// explains it.
pub(super) fn reissue_unknown(ledger: &mut Ledger) -> Result<(), Fatal> {
    let all = Retry { from: GivenUp::Unknown, keys: Vec::new(), cause: None };
    let returned = ledger.retry(&all, SystemTime::now()).map_err(exit::ledger)?;
    if returned.devices > 0 {
        warn(format_args!("warning: {WARNING}"));
        say(format_args!("{} unknown devices are pending again", returned.devices));
    }
    Ok(())
}

pub(super) async fn run(args: RetryArgs) -> Result<Exit, Fatal> {
    let Some(from) = args.given_up()? else {
        let ledger = Ledger::reopen(&args.ledger).map_err(exit::ledger)?;
        let agree = |warning: &str| args.yes || is_agreed(warning, "give them another certificate");
        return rework::run(ledger, &args.keys, args.account, agree).await;
    };
    let retry = Retry { from, keys: args.keys, cause: args.cause };
    let mut ledger = Ledger::reopen(&args.ledger).map_err(exit::ledger)?;
    let devices = ledger.view().count_retry(&retry).map_err(exit::ledger)?;
    let state = from.state().name();
    if devices == 0 {
        print(&format!("nothing to do: no {state} device to return to pending\n"));
        return Ok(Exit::Complete);
    }
    let wanted = format!("return {} to pending", number(devices, "unknown device", "unknown devices"));
    if from == GivenUp::Unknown && !args.yes && !is_agreed(WARNING, &wanted) {
        say("nothing was changed");
        return Ok(Exit::Interrupted);
    }
    let returned = ledger.retry(&retry, SystemTime::now()).map_err(exit::ledger)?;
    ledger.close().map_err(exit::ledger)?;
    print(&format!(
        "{} pending again, {} retired\n",
        number(returned.devices, &format!("{state} device is"), &format!("{state} devices are")),
        number(returned.certificates_retired, "certificate", "certificates")
    ));
    say("run the same provision command again to take them up: fleetmint status shows what it needs");
    Ok(Exit::Complete)
}

impl RetryArgs {
    /// The state to return devices from, after checking the arguments and asking the user if necessary; `None` for
    /// registered devices.
    fn given_up(&self) -> Result<Option<GivenUp>, Fatal> {
        let from = match (self.state, self.reissue_unknown) {
            (RetriedState::Unknown, true) => Some(GivenUp::Unknown),
            (RetriedState::Unknown, false) => {
                return Err(usage(
                    "--state unknown",
                    format!("{WARNING} If that is wanted, add --reissue-unknown"),
                ));
            }
            (_, true) => {
                return Err(usage(
                    "--reissue-unknown",
                    "is for --state unknown; no others need that consent",
                ));
            }
            (RetriedState::Rejected, false) => Some(GivenUp::Rejected),
            (RetriedState::Removed, false) => Some(GivenUp::Removed),
            (RetriedState::Registered, false) => None,
        };
        match (from, self.reissue) {
            (None, true) if self.keys.is_empty() => {
                return Err(usage(
                    "--key",
                    "is missing: name the registered devices that are to be certified anew",
                ));
            }
            (None, false) => {
                return Err(usage(
                    "--state registered",
                    "such devices have a certificate that works. If they are to get another one, add --reissue",
                ));
            }
            (Some(_), true) => return Err(usage("--reissue", "is for --state registered")),
            _ => {}
        }
        let asks = matches!(from, None | Some(GivenUp::Unknown)) && !self.yes;
        if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let option = if from.is_none() { "--reissue" } else { "--reissue-unknown" };
            return Err(usage(option, "there is no terminal to ask on; add --yes if you are sure"));
        }
        Ok(from)
    }
}

/// Asks on the terminal.
fn is_agreed(warning: &str, wanted: &str) -> bool {
    warn(format_args!("warning: {warning}"));
    eprint!("{wanted}? Type yes to go on: ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("yes")
}
