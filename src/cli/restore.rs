//! `fleetmint restore`: a lost ledger, made anew from its lot and its keys sink.

use std::path::PathBuf;
use std::time::SystemTime;

use super::args::TypedShard;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::lot::{LotReading, ledger_of};
use super::lot_args::{Empty, LotArgs, RequestArgs, SoughtDelimiter, delimiter};
use super::requests::RequestSource;
use super::shard::Part;
use super::speech::{print, say, warn};
use crate::ledger::LostLedger;
use crate::wording::number;

const AFTER: &str = "\
Examples:
  fleetmint restore lot.csv --from-sink /mnt/keys
  fleetmint restore lot.csv --from-sink /mnt/keys --shard 3/4

Then give the lost run's command again. It settles what is not known, with the control plane where that can be asked, and goes on. \
The sink has every certificate and every sealed key; reworks that had only begun, and what `verify` found, are not in it.";

/// Make a lost ledger anew from its lot and its keys sink.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct RestoreArgs {
    /// The lot that the ledger was made from, as the last run had it.
    #[arg(value_name = "LOT.csv")]
    lot: PathBuf,

    /// The directory that was the run's --keys-sink.
    #[arg(long, value_name = "DIR")]
    from_sink: PathBuf,

    /// The ledger to make, under the lost one's file name [default: beside the lot, LOT.ledger].
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// The shard whose ledger was lost.
    #[arg(long, value_name = "I/N")]
    shard: Option<TypedShard>,

    /// What separates the lot's columns: `,` `;` `tab` `|`, or `auto`.
    #[arg(long, value_name = "CHARACTER", default_value = "auto", value_parser = delimiter)]
    delimiter: SoughtDelimiter,

    #[command(flatten)]
    requests: RequestArgs,
}

pub(super) fn run(args: RestoreArgs) -> Result<Exit, Fatal> {
    let part = Part::of(args.shard)?;
    let ledger = ledger_of(&args.lot, args.ledger, part)?;
    let lost = LostLedger::read(&ledger, &args.from_sink).map_err(ledger_error)?;
    if lost.cut_off > 0 {
        let lines = number(lost.cut_off, "line", "lines");
        say(format_args!("{lines} of the sink were cut off by a crash; the ledger had nothing of them"));
    }
    let reading = LotArgs {
        delimiter: args.delimiter,
        key_column: Some(lost.key_column.clone()),
        sent_columns: Vec::new(),
        empty: Empty::Send,
        strict: false,
        params: Vec::new(),
    };
    let reading = LotReading::new(reading, RequestSource::new(args.requests)?)?;
    let restored = reading.read(&args.lot, &ledger)?.restore(&ledger, &lost, SystemTime::now())?;
    print(&format!(
        "{}: {} registered, {} to be settled, {} in all\n",
        ledger.display(),
        number(restored.registered, "device", "devices"),
        restored.unsettled,
        number(restored.certificates, "certificate", "certificates"),
    ));
    if restored.left_out > 0 {
        let devices = number(restored.left_out, "device", "devices");
        warn(format_args!(
            "note: the lot lacks {devices} of the sink; the sink has none of them as registered"
        ));
    }
    if restored.unsettled > 0 {
        warn(
            "note: the next run asks the control plane whether those were registered; without one they stay unknown",
        );
    }
    Ok(Exit::Complete)
}
