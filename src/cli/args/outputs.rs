//! What a run writes besides its ledger, and how it is watched and ended.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{ScrapeAddress, timeout};

/// What a run writes besides its ledger, and how it is watched and ended.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(in crate::cli) struct OutputArgs {
    /// Serve live metrics for Prometheus at http://ADDR/metrics during the run; a port alone means 127.0.0.1.
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) prometheus: Option<ScrapeAddress>,

    /// Write the summary as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) summary_json: Option<PathBuf>,

    /// How long the devices in flight may take after the first Ctrl-C or SIGTERM; then the run stops at once. Kubernetes kills
    /// after 30 s.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = timeout)]
    pub(in crate::cli) drain_timeout: Duration,

    /// Write what happened in each second to a new results file, for `report` and for merging.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) results: Option<PathBuf>,
}
