//! The devices that a load test or a search uses up.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::KeyArgs;
use crate::cli::lot_args::LotArgs;
use crate::identity::Pattern;

/// Whose certificates are asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Devices")]
#[group(skip)]
#[command(group = ArgGroup::new("taken").args(["lot", "devices"]).required(true))]
pub(in crate::cli) struct DeviceArgs {
    /// Use the devices of this CSV. Instead, --devices makes some up.
    #[arg(long, value_name = "LOT.csv", conflicts_with_all = ["key_pattern", "columns"])]
    pub(in crate::cli) lot: Option<PathBuf>,

    /// Make up this many devices; each arrival uses one. Instead, --lot takes them from a CSV.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(in crate::cli) devices: Option<u64>,

    /// The pattern of made-up devices' keys; {n:06} is the device's number in six digits.
    #[arg(long, value_name = "PATTERN", default_value = "LOAD-{n:06}")]
    pub(in crate::cli) key_pattern: Pattern,

    /// A further column of made-up devices; {n:06} and {hex:8} expand. Repeatable.
    #[arg(long = "column", value_name = "NAME=PATTERN")]
    pub(in crate::cli) columns: Vec<String>,

    /// The provisioning template.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) template: Option<String>,

    /// Where everything that is created is kept [default: load.ledger here, or LOT.load.ledger beside the lot].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) ledger: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) reading: LotArgs,

    #[command(flatten)]
    pub(in crate::cli) keys: KeyArgs,
}
