//! `fleetmint export`: keys and certificates as files.

use std::path::Path;

use super::args::{CertifiedState, ExportArgs, FormatName};
use super::exit::{Exit, Fatal};
use crate::event::DeviceState;
use crate::export::{self, ExportError, ExportPlan, Format};
use crate::ledger::{Ledger, RunId, Selection};

pub(super) fn run(args: &ExportArgs) -> Exit {
    match write(args) {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

fn write(args: &ExportArgs) -> Result<Exit, Fatal> {
    if args.out == Path::new("-") {
        return Err(Fatal::new(Exit::Usage, "--out: private keys are never written to stdout; name a file"));
    }
    let view = Ledger::open_read_only(&args.ledger).map_err(super::exit::ledger)?;
    let plan = ExportPlan { selection: selection(args), format: format(args), out: &args.out };
    let summary = export::export(&view, &plan).map_err(refused)?;
    println!("{} devices exported to {}", summary.exported, args.out.display());
    if summary.left_out > 0 && plan.selection == Selection::default() {
        eprintln!("{} devices are not registered and were left out", summary.left_out);
    } else if summary.left_out > 0 {
        eprintln!("{} devices were not chosen, or have no certificate, and were left out", summary.left_out);
    }
    if plan.selection.states.iter().any(|state| *state != DeviceState::Registered) {
        eprintln!("note: only certificates of registered devices are surely good for anything");
    }
    Ok(Exit::Complete)
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
    match error {
        ExportError::Ledger(error) => super::exit::ledger(error),
        ExportError::Namespace { .. } => Fatal::new(Exit::Usage, format!("--nvs-namespace: {error}")),
        error => Fatal::new(Exit::LedgerUnusable, error),
    }
}
