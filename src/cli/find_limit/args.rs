//! The arguments of `find-limit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::{DeviceArgs, ScrapeAddress, TargetArgs, connections, timeout};
use crate::rate::Rate;

/// Find the highest rate that the service sustains: of connections, certificates or registrations.
#[derive(Debug, Args)]
pub(in crate::cli) struct FindLimitArgs {
    #[command(subcommand)]
    pub(super) sought: FindCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum FindCommand {
    /// Find how many connections can be opened per second.
    Connect(Box<SearchArgs>),
    /// Find how many certificates can be issued per second. Each uses up a device, which is left unregistered.
    Create(Box<CreateArgs>),
    /// Find how many devices can be registered per second. Certificates are issued first; each registration uses up a device,
    /// and its thing remains.
    Register(Box<RegisterArgs>),
}

const AFTER: &str = "\
Examples:
  fleetmint find-limit connect --emulator=throttled
  fleetmint find-limit create --emulator=throttled --devices 4000 --json finding.json

The rate is doubled until the service throttles, refuses, stops answering, hangs up or slows down. What it still accepts \
under overload shows where the limit is. The search then narrows it down from below, spending the burst before each \
measurement, and holds the rate that it reports once more, for longer. That rate is within 5 % of one that breaks.

Exit codes: 0 the limit was found, or --max-rate was sustained; 4 the search ended before that (what is known is \
printed); 5 interrupted; else as elsewhere.";

/// What bounds a search, and where it is done.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct SearchArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// The first rate to try.
    #[arg(long, value_name = "RATE", default_value = "2/s", help_heading = "Search")]
    pub(super) start_rate: Rate,

    /// Try no rate above this one.
    #[arg(long, value_name = "RATE", default_value = "1000/s", help_heading = "Search")]
    pub(super) max_rate: Rate,

    /// Consider a rate too high if the p99 of the service time exceeds this. Three times the usual p50 always is.
    #[arg(long, value_name = "TIME", value_parser = timeout, help_heading = "Search")]
    pub(super) max_p99: Option<Duration>,

    /// The most connections.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = connections, help_heading = "Search")]
    pub(super) max_connections: usize,

    /// How long a connection attempt, and a reply, may take; anything later counts as unanswered.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = timeout, help_heading = "Search")]
    pub(super) timeout: Duration,

    /// Draw {hex:N} of made-up devices from this number [default: 1].
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, help_heading = "Search")]
    pub(super) seed: u64,

    /// Serve live metrics for Prometheus at http://ADDR/metrics during the search; a port alone means 127.0.0.1.
    #[arg(long, value_name = "ADDR", help_heading = "Results")]
    pub(super) prometheus: Option<ScrapeAddress>,

    /// How long what is in flight may take after the first Ctrl-C or SIGTERM; then the search stops at once.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = timeout, help_heading = "Results")]
    pub(super) drain_timeout: Duration,

    /// Write the finding and its evidence as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) json: Option<PathBuf>,

    /// Write the finding and its evidence as an HTML page to this file, `-` for stdout; it needs no network.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) devices: DeviceArgs,

    #[command(flatten)]
    pub(super) search: SearchArgs,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    pub(super) devices: DeviceArgs,

    /// The rate at which to have certificates issued for registrations; halved if that is throttled [default: 8/s; 100/s on
    /// loopback].
    #[arg(long, value_name = "RATE", help_heading = "Search")]
    pub(super) issue_rate: Option<Rate>,

    #[command(flatten)]
    pub(super) search: SearchArgs,
}
