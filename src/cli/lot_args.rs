//! How a lot is read, and what its rows become: typed.

use clap::Args;

/// How a lot is read, and what its rows become.
#[derive(Debug, Args)]
#[command(next_help_heading = "Lot")]
pub(super) struct LotArgs {
    /// The column that identifies a device [default: SerialNumber, else DeviceId, else ThingName].
    #[arg(long, value_name = "COLUMN")]
    pub(super) key_column: Option<String>,

    /// Another template parameter for every device; {certificate_id} and {Column} expand. Repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<String>,
}
