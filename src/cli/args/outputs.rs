//! What a run writes besides its ledger.

use std::path::PathBuf;

use clap::Args;

use super::ScrapeAddress;

/// What a run writes besides its ledger, and where it may be watched.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(in crate::cli) struct OutputArgs {
    /// Serve live metrics for Prometheus at http://ADDR/metrics during the run; a port alone is this machine's.
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) prometheus: Option<ScrapeAddress>,

    /// Write the summary as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) summary_json: Option<PathBuf>,

    /// Write what happened in each second to a new results file, for `report` and for merging.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) results: Option<PathBuf>,
}
