//! `fleetmint purge-keys`: removes exported private keys from a ledger.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::speech::{print, say};
use crate::ledger::{KeyCounts, Ledger};
use crate::wording::number;

/// Erase the exported private keys from the ledger, so that it can be kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fleetmint purge-keys lot.ledger")]
pub(super) struct PurgeKeysArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,
}

pub(super) fn run(args: &PurgeKeysArgs) -> Result<Exit, Fatal> {
    let may_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.yes && !may_ask {
        let message =
            "purge-keys cannot be undone and there is no terminal to ask on; pass --yes if you mean it";
        return Err(Fatal::new(Exit::Usage, message));
    }
    let mut ledger = Ledger::reopen(&args.ledger).map_err(ledger_error)?;
    let before = ledger.view().key_counts().map_err(ledger_error)?;
    if before.exported > 0 && !args.yes && !is_confirmed(args, &before) {
        say("nothing was purged");
        return Ok(Exit::Complete);
    }
    let after = ledger.purge_exported_keys(SystemTime::now()).map_err(ledger_error)?;
    if let Some(sink) = ledger.view().keys_sink().map_err(ledger_error)? {
        say(format_args!("note: the keys sink in {} still has the keys, sealed", sink.display()));
    }
    ledger.close().map_err(ledger_error)?;
    print(&format!("{}\n", outcome(&before, &after)));
    Ok(Exit::Complete)
}

/// Asks on the terminal. Anything other than yes means no.
fn is_confirmed(args: &PurgeKeysArgs, counts: &KeyCounts) -> bool {
    eprint!(
        "Blank the private keys of {} in {}? Only what was exported has them then. [y/N] ",
        number(counts.exported, "device", "devices"),
        args.ledger.display()
    );
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn outcome(before: &KeyCounts, after: &KeyCounts) -> String {
    let mut outcome = format!(
        "{} private keys purged, {} kept because they were not exported",
        after.purged.saturating_sub(before.purged),
        after.not_exported
    );
    if before.purged > 0 {
        outcome += &format!(" ({} had been purged before)", before.purged);
    }
    outcome
}
