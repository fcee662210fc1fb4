//! `fleetmint export`: keys and certificates as files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;
use zeroize::Zeroizing;

use super::exit::{Exit, Fatal};
use super::speech::{print, say};
use crate::event::DeviceState;
use crate::export::{self, DEFAULT_NAMESPACE, ExportError, ExportPlan, ExportSummary, Format};
use crate::ledger::{Ledger, RunId, Selection};
use crate::sealing::{IdentityError, KeyOpener, OpenError};

const FORMATS: &str = "\
Examples:
  fleetmint export lot.ledger --out identities
  fleetmint export lot.ledger --format csv --out identities.csv --since-run 2

Formats: pem is a folder a device with certificate.pem and private.key, and manifest.csv. jsonl and csv are one file
with a device a line, and FILE.manifest.csv. nvs is as pem, with an nvs.csv in each folder for Espressif's
nvs_partition_gen. mass-mfg is as pem, with config.csv and values.csv for ESP-IDF's mfg_gen.py (--fileid file_id).
Start Espressif's tools in the exported directory: they look for the files from there.";

/// Write the certificates and keys of a ledger's registered devices to files.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct ExportArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// What to write: a directory that is not there or empty; for jsonl and csv a file that is not there.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) out: PathBuf,

    /// Open sealed keys with the identities in this age identity file. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Write sealed keys as they are, as age files.
    #[arg(long, conflicts_with = "identity")]
    pub(super) sealed: bool,

    /// What to write it as.
    #[arg(long, value_enum, default_value_t = FormatName::Pem)]
    pub(super) format: FormatName,

    /// Only devices in this state. Repeatable.
    #[arg(long = "state", value_enum, value_name = "STATE", default_values_t = [CertifiedState::Registered])]
    pub(super) states: Vec<CertifiedState>,

    /// Only devices that came to their state in run N or later; `status` lists the runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) since_run: Option<i64>,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// The NVS namespace of the entries, for nvs and mass-mfg.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
    pub(super) nvs_namespace: String,
}

/// The name of an export's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatName {
    Pem,
    Jsonl,
    Csv,
    Nvs,
    MassMfg,
}

/// A state whose devices may have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CertifiedState {
    Registered,
    Issued,
    Unknown,
    Rejected,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Fatal> {
    if args.out == Path::new("-") {
        return Err(Fatal::new(Exit::Usage, "--out: private keys are never written to stdout; name a file"));
    }
    let opener = opener(args)?;
    // To write down what was exported; and no run is to register devices behind the export's back.
    let mut ledger = Ledger::reopen(&args.ledger).map_err(super::exit::ledger)?;
    let plan =
        ExportPlan { selection: selection(args), format: format(args), out: &args.out, opener: &opener };
    let summary = export::export(ledger.view(), &plan).map_err(refused)?;
    record(&mut ledger, &args.out, &summary)?;
    print(&format!("{} devices exported to {}\n", summary.exported, args.out.display()));
    say_left_out(&plan, &summary);
    Ok(Exit::Complete)
}

fn say_left_out(plan: &ExportPlan<'_>, summary: &ExportSummary) {
    let others = summary.left_out - summary.purged;
    if others > 0 && plan.selection == Selection::default() {
        say(format_args!("{others} devices are not registered and were left out"));
    } else if others > 0 {
        say(format_args!("{others} devices were not chosen, or have no certificate, and were left out"));
    }
    if summary.purged > 0 {
        let purged = summary.purged;
        say(format_args!(
            "{purged} devices were left out, for their private keys were purged from the ledger"
        ));
    }
    if plan.selection.states.iter().any(|state| *state != DeviceState::Registered) {
        say("note: only certificates of registered devices are surely good for anything");
    }
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

fn selection(args: &ExportArgs) -> Selection {
    let mut states: Vec<DeviceState> = Vec::new();
    for state in args.states.iter().map(|state| state_of(*state)) {
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Selection { states, since_run: args.since_run.map(RunId), keys: args.keys.clone() }
}

fn state_of(state: CertifiedState) -> DeviceState {
    match state {
        CertifiedState::Registered => DeviceState::Registered,
        CertifiedState::Issued => DeviceState::Issued,
        CertifiedState::Unknown => DeviceState::Unknown,
        CertifiedState::Rejected => DeviceState::Rejected,
    }
}

fn format(args: &ExportArgs) -> Format {
    match args.format {
        FormatName::Pem => Format::Pem,
        FormatName::Jsonl => Format::Jsonl,
        FormatName::Csv => Format::Csv,
        FormatName::Nvs => Format::Nvs { namespace: args.nvs_namespace.clone() },
        FormatName::MassMfg => Format::MassMfg { namespace: args.nvs_namespace.clone() },
    }
}

fn refused(error: ExportError) -> Fatal {
    let usage = |error: &ExportError| matches!(error, ExportError::Sealed);
    match error {
        ExportError::Ledger(error) => super::exit::ledger(error),
        ExportError::Key {
            error: OpenError::NoIdentity { .. } | OpenError::OtherIdentity { .. }, ..
        } => {
            let advice = "--identity FILE opens them; --sealed writes the .age files as they are";
            Fatal::new(Exit::Usage, format!("{error}; {advice}"))
        }
        ExportError::Namespace { .. } => Fatal::new(Exit::Usage, format!("--nvs-namespace: {error}")),
        error if usage(&error) => Fatal::new(Exit::Usage, error),
        error => Fatal::new(Exit::LedgerUnusable, error),
    }
}
