//! `fleetmint status`: the state of a ledger's devices.

use std::path::{Path, PathBuf};

use super::exit::{self, Exit, Fatal};
use super::next;
use super::outputs::Place;
use super::speech::{print, say};
use crate::ledger::{Ledger, View};
use crate::report::{StatusReport, render_status};
use crate::wording::{harmless_cell, number};

/// Show where a ledger's devices stand, what went wrong, and what to do next.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fleetmint status lot.ledger\n  fleetmint status lot.ledger --json\n  fleetmint status lot.ledger --rejected rejected.csv"
)]
pub(super) struct StatusArgs {
    /// The ledger of a provisioning run; a run may be writing it.
    pub(super) ledger: PathBuf,

    /// Print it as JSON.
    #[arg(long)]
    pub(super) json: bool,

    /// Write the rejected devices, each with the reason, as a table to this file, `-` for stdout. Cells that a spreadsheet would
    /// run as a formula begin with an apostrophe.
    #[arg(long, value_name = "FILE")]
    pub(super) rejected: Option<PathBuf>,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Fatal> {
    let view = Ledger::open_read_only(&args.ledger).map_err(exit::ledger)?;
    if let Some(file) = &args.rejected {
        return list_rejected(&view, file);
    }
    let status = view.status().map_err(exit::ledger)?;
    let next = next::steps(&args.ledger, view.lot(), &status);
    let report = StatusReport::new(&args.ledger, view.lot(), &status, next);
    let text = if args.json {
        serde_json::to_string_pretty(&report).expect("a status is plain data") + "\n"
    } else {
        render_status(&report)
    };
    print(&text);
    Ok(Exit::Complete)
}

fn list_rejected(view: &View, file: &Path) -> Result<Exit, Fatal> {
    let place = Place::check("--rejected", file.to_owned())?;
    let columns =
        view.lot().shape.columns.iter().map(|column| harmless_cell(&format!("parameters.{column}")));
    let own = ["line", "key", "reason", "stage", "cause", "rejected_at"].map(str::to_owned);
    let mut table = csv::Writer::from_writer(Vec::new());
    let add = |table: &mut csv::Writer<Vec<u8>>, row: Vec<String>| {
        table.write_record(row).expect("memory takes every row, and all have as many cells");
    };
    add(&mut table, own.into_iter().chain(columns).collect());
    let mut devices = 0_u64;
    view.for_each_rejected(|device| {
        devices += 1;
        let own = [
            device.line.to_string(),
            device.key,
            device.failure,
            device.stage,
            device.cause,
            device.rejected_at,
        ];
        add(&mut table, own.into_iter().chain(device.values).map(|cell| harmless_cell(&cell)).collect());
        Ok(())
    })
    .map_err(exit::ledger)?;
    let text = table.into_inner().expect("memory takes every row");
    place.write(&String::from_utf8(text).expect("every cell is a text"))?;
    if !place.is_stdout() {
        say(format_args!("{} in {}", number(devices, "rejected device", "rejected devices"), file.display()));
    }
    Ok(Exit::Complete)
}
