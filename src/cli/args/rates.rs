//! The options for rates.

use clap::{Args, ValueEnum};

use crate::rate::RateLimit;

/// How fast to go, and where that comes from if it is not typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speed")]
pub(in crate::cli) struct RateArgs {
    /// Where rates come from that are not set: AWS's defaults as of 2024, or the account's Service Quotas.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = RateSource::Defaults)]
    pub(in crate::cli) rates: RateSource,

    /// Limit of connects, such as 10/s; `auto` finds what the service sustains [default: 500/s; unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(in crate::cli) connect_rate: Option<RateLimit>,

    /// Limit of CreateKeysAndCertificate, or with --keys local of CreateCertificateFromCsr [default: 10/s, local 20/s;
    /// unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(in crate::cli) create_rate: Option<RateLimit>,

    /// Limit of RegisterThing [default: 10/s; unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(in crate::cli) register_rate: Option<RateLimit>,
}

/// Where rates come from that are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum RateSource {
    /// AWS's defaults; on loopback there are no limits.
    Defaults,
    /// The account's applied quotas.
    Quotas,
}
