//! The arguments of `load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::cli::args::{
    DeviceArgs, OutputArgs, ShardArgs, TargetArgs, TotalConnectionsArgs, connections, time, timeout,
};
use crate::cli::check::BeforeArgs;
use crate::engine::load::LEAST_MESSAGE;
use crate::metrics::threshold::Threshold;
use crate::rate::{Rate, RateLimit};
use crate::schedule::{Profile, Spacing};
use crate::service::{MAX_CLIENT_ID, MAX_PAYLOAD, MAX_TOPIC, MAX_TOPIC_SLASHES};

/// Load-test the account's quotas: offer connections, certificates or devices at a rate, whatever comes back.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    #[command(subcommand)]
    pub(super) scenario: LoadCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LoadCommand {
    /// Open connections at a rate, hold them, close them.
    Connect(ConnectArgs),
    /// Have certificates issued at a rate, and leave them unregistered.
    Create(CreateArgs),
    /// Take devices from nothing to a registered thing at a rate.
    Provision(CreateArgs),
    /// Publish messages at a rate on held connections, each to its own topic, and wait until they come back.
    Publish(PublishArgs),
}

const AFTER: &str = "\
Examples:
  fleetmint load connect --emulator=load --rate 20/s --for 30s --hold 5s
  fleetmint load create --emulator=load --devices 6000 --rate 50/s --for 2m --threshold 'rejected<0.1%'
  fleetmint load publish --emulator=load --profile \"ramp 1..200/s 60s; hold 200/s 5m\" --warmup 60s

Arrivals are due at instants computed in advance; one that finds no free connection waits, and is missed after \
--max-wait. Service time is from the send to the reply; response time is from the due instant to the reply, waiting \
included. Nothing is retried: a refusal is a result.

Profiles:
  \"ramp 1..200/s 60s; hold 200/s 5m; step 200..500/s by 50 every 30s; pause 10s\"

Thresholds:
  register_thing.p99<500ms, create_certificate.service.max<2s, connect.tls.p99<1s,
  rejected<0.1%, missed=0, publish.accepted>=95/s, lateness.p99<5ms

Exit codes: 2 a threshold was missed, 4 stopped early; else as elsewhere.";

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct ConnectArgs {
    /// How long each connection is held open; 0s is churn.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(super) hold: Duration,

    #[command(flatten)]
    pub(super) offer: OfferArgs,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct PublishArgs {
    /// The QoS: at most once (0) or at least once (1).
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(super) qos: u8,

    /// The size of each message, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = message_size)]
    pub(super) payload_size: usize,

    /// The prefix of topics; a slash and the client id follow. iot:Publish and iot:Receive on topic/PREFIX/*, and iot:Subscribe
    /// on topicfilter/PREFIX/* must be allowed.
    #[arg(long, value_name = "PREFIX", default_value = "fleetmint/load", value_parser = topic_prefix)]
    pub(super) topic_prefix: String,

    #[command(flatten)]
    pub(super) offer: OfferArgs,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) devices: DeviceArgs,

    /// After the test, take out of the account again what it has made: things, certificates, and policies that the template
    /// carries. `fleetmint cleanup` says how.
    #[arg(long, help_heading = "Devices")]
    pub(super) cleanup: bool,

    #[command(flatten)]
    pub(super) offer: OfferArgs,
}

/// What is offered, and what becomes of the figures: the same for every scenario. A profile is a load's here, so that AWS's
/// has another name.
#[derive(Debug, Args)]
#[command(mut_arg("profile", |profile| profile.long("aws-profile")))]
#[command(mut_arg("total_connections", |total| total.conflicts_with("max_connections")))]
#[group(skip)]
#[command(group = ArgGroup::new("offered").args(["rate", "profile_text"]).required(true))]
pub(super) struct OfferArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// Offer this many arrivals a second, such as 50/s. With --for.
    #[arg(long, value_name = "RATE", requires = "time", help_heading = "Load")]
    pub(super) rate: Option<Rate>,

    /// Offer them for this long, such as 2m.
    #[arg(long = "for", id = "time", value_name = "TIME", requires = "rate", value_parser = time, help_heading = "Load")]
    pub(super) time: Option<Duration>,

    /// Offer a rate that changes, such as "ramp 1..200/s 60s; hold 200/s 5m".
    #[arg(long = "profile", id = "profile_text", value_name = "PROFILE", help_heading = "Load")]
    pub(super) profile: Option<Profile>,

    /// How arrivals are spaced: evenly, or at random (a Poisson process).
    #[arg(long, value_enum, default_value_t = SpacingName::Uniform, help_heading = "Load")]
    pub(super) spacing: SpacingName,

    /// Leave arrivals that are due in this first part of the profile out of all figures.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time, help_heading = "Load")]
    pub(super) warmup: Duration,

    /// Draw Poisson arrivals and {hex:N} of generated devices from this number [default: 1].
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, help_heading = "Load")]
    pub(super) seed: u64,

    /// How many connections to open before the first arrival is due.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections, help_heading = "Load")]
    pub(super) connections: usize,

    /// The most connections: more than --connections are opened while arrivals find none free.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = connections, help_heading = "Load")]
    pub(super) max_connections: usize,

    /// How long an arrival waits for a free connection before it is given up, and counted as missed [default: --timeout].
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Load")]
    pub(super) max_wait: Option<Duration>,

    /// Limit of the connects that are not arrivals [default: 500/s; unlimited on loopback].
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    pub(super) connect_rate: Option<RateLimit>,

    /// How long a connection attempt, and a reply, may take.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout, help_heading = "Load")]
    pub(super) timeout: Duration,

    #[command(flatten)]
    pub(super) shard: ShardArgs,

    #[command(flatten)]
    pub(super) total: TotalConnectionsArgs,

    /// A demand on the figures, such as 'register_thing.p99<500ms', 'rejected<0.1%' or 'missed=0'. Repeatable.
    #[arg(long = "threshold", value_name = "THRESHOLD", help_heading = "Results")]
    pub(super) thresholds: Vec<Threshold>,

    /// Stop as soon as a threshold is surely missed.
    #[arg(long, requires = "thresholds", help_heading = "Results")]
    pub(super) abort_on_threshold: bool,

    /// Write the thresholds' outcome as JUnit XML, for CI.
    #[arg(long, value_name = "FILE", requires = "thresholds", help_heading = "Results")]
    pub(super) junit: Option<PathBuf>,

    #[command(flatten)]
    pub(super) before: BeforeArgs,

    #[command(flatten)]
    pub(super) outputs: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SpacingName {
    Uniform,
    Poisson,
}

impl From<SpacingName> for Spacing {
    fn from(name: SpacingName) -> Self {
        match name {
            SpacingName::Uniform => Spacing::Uniform,
            SpacingName::Poisson => Spacing::Poisson,
        }
    }
}

/// The longest prefix of a topic, in bytes.
const MAX_PREFIX: usize = 120;

fn message_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ LEAST_MESSAGE..=MAX_PAYLOAD) => Ok(size),
        _ => Err(format!("wanted {LEAST_MESSAGE} to {MAX_PAYLOAD} bytes")),
    }
}

/// A slash and the client id follow; the rest of the service's limits is the prefix's, in round numbers.
fn topic_prefix(text: &str) -> Result<String, String> {
    const { assert!(MAX_PREFIX + 1 + MAX_CLIENT_ID <= MAX_TOPIC) };
    let is_plain = |c: char| !c.is_control() && !matches!(c, '#' | '+');
    let is_right = (1..=MAX_PREFIX).contains(&text.len())
        && text.chars().all(is_plain)
        && text.matches('/').count() < MAX_TOPIC_SLASHES
        && !text.starts_with(['$', '/'])
        && !text.ends_with('/');
    if is_right {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "wanted 1 to {MAX_PREFIX} bytes with at most {} slashes, none at either end, without # or +, not beginning with $",
            MAX_TOPIC_SLASHES - 1
        ))
    }
}
