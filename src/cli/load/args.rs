//! What was typed after `load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::{KeyArgs, connections, timeout};
use crate::cli::prometheus::ScrapeAddress;
use crate::cli::target::TargetArgs;
use crate::engine::load::LEAST_MESSAGE;
use crate::identity::Pattern;
use crate::metrics::threshold::Threshold;
use crate::provisioning::MAX_PAYLOAD;
use crate::rate::{Rate, RateLimit};
use crate::schedule::{MAX_TIME, Profile, Spacing};

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
Arrivals are due at instants computed in advance; one that finds no free connection waits, and after --max-wait is
missed. Service time is from the send to the reply; response time is from the due instant to the reply, so that waiting
is in it. Nothing is tried again: a refusal is a result.
Profiles: \"ramp 1..200/s 60s; hold 200/s 5m; step 200..500/s by 50 every 30s; pause 10s\".
Thresholds: register_thing.p99<500ms, create_certificate.service.max<2s, connect.tls.p99<1s, rejected<0.1%, missed=0,
publish.accepted>=95/s, lateness.p99<5ms. Exit codes: 2 a threshold was missed, 4 stopped early; else as elsewhere.";

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
    /// Deliver at most once (0) or at least once (1).
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(super) qos: u8,

    /// How many bytes each message has.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = message_size)]
    pub(super) payload_size: usize,

    /// What topics begin with; a slash and the client id follow. iot:Publish and iot:Receive on topic/PREFIX/*, and iot:Subscribe
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

    #[command(flatten)]
    pub(super) offer: OfferArgs,
}

/// What is offered, and what becomes of the figures: the same for every scenario. A profile is a load's here, so that AWS's
/// has another name.
#[derive(Debug, Args)]
#[command(mut_arg("profile", |profile| profile.long("aws-profile")))]
pub(super) struct OfferArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// Offer this many arrivals a second, such as 50/s. With --for.
    #[arg(
        long,
        value_name = "RATE",
        requires = "time",
        required_unless_present = "profile_text",
        help_heading = "Load"
    )]
    pub(super) rate: Option<Rate>,

    /// Offer them for this long, such as 2m.
    #[arg(long = "for", id = "time", value_name = "TIME", requires = "rate", value_parser = time, help_heading = "Load")]
    pub(super) time: Option<Duration>,

    /// Offer a rate that changes, such as "ramp 1..200/s 60s; hold 200/s 5m".
    #[arg(
        long = "profile",
        id = "profile_text",
        value_name = "PROFILE",
        conflicts_with = "rate",
        help_heading = "Load"
    )]
    pub(super) profile: Option<Profile>,

    /// How arrivals lie between each other: as even as the rate, or as chance has it.
    #[arg(long, value_enum, default_value_t = SpacingName::Uniform, help_heading = "Load")]
    pub(super) spacing: SpacingName,

    /// Leave out of all figures what is due in this first part of the profile.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time, help_heading = "Load")]
    pub(super) warmup: Duration,

    /// Draw Poisson arrivals and {hex:N} of generated devices from this number [default: 1].
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, help_heading = "Load")]
    pub(super) seed: u64,

    /// How many connections to open before the first arrival is due.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections, help_heading = "Load")]
    pub(super) connections: usize,

    /// How many connections at most: more than --connections are opened while an arrival finds none free.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = connections, help_heading = "Load")]
    pub(super) max_connections: usize,

    /// How long an arrival waits for a free connection before it is given up, and counted as missed [default: --timeout].
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Load")]
    pub(super) max_wait: Option<Duration>,

    /// Limit of the connects that are no arrivals [default: 500/s; unlimited on loopback].
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    pub(super) connect_rate: Option<RateLimit>,

    /// How long a connection attempt, and a reply, may take.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout, help_heading = "Load")]
    pub(super) timeout: Duration,

    /// What MQTT client ids begin with; the rest is unique per connection attempt.
    #[arg(long, value_name = "PREFIX", default_value = "fleetmint", help_heading = "Load")]
    pub(super) client_id_prefix: String,

    /// Demand something of the figures, such as 'register_thing.p99<500ms', 'rejected<0.1%' or 'missed=0'. Repeatable.
    #[arg(long = "threshold", value_name = "THRESHOLD", help_heading = "Results")]
    pub(super) thresholds: Vec<Threshold>,

    /// Stop as soon as a threshold is surely missed.
    #[arg(long, requires = "thresholds", help_heading = "Results")]
    pub(super) abort_on_threshold: bool,

    /// Write the thresholds' outcome as JUnit XML, for CI.
    #[arg(long, value_name = "FILE", requires = "thresholds", help_heading = "Results")]
    pub(super) junit: Option<PathBuf>,

    /// Serve live metrics for Prometheus at http://ADDR/metrics while the test goes on; a port alone is this machine's.
    #[arg(long, value_name = "ADDR", help_heading = "Results")]
    pub(super) prometheus: Option<ScrapeAddress>,

    /// Write what happened in each second to a new results file, for `report` and for merging.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) results: Option<PathBuf>,

    /// Write the summary as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) summary_json: Option<PathBuf>,
}

/// Whose certificates are asked for.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeviceArgs {
    /// Take the devices of this CSV.
    #[arg(long, value_name = "LOT.csv", required_unless_present = "devices", conflicts_with_all = ["devices", "key_pattern", "columns"], help_heading = "Devices")]
    pub(in crate::cli) lot: Option<PathBuf>,

    /// Make up this many devices; each arrival takes one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000), help_heading = "Devices")]
    pub(in crate::cli) devices: Option<u64>,

    /// What keys of made-up devices look like; {n} or {n:06} is the device's number.
    #[arg(long, value_name = "PATTERN", default_value = "LOAD-{n:06}", help_heading = "Devices")]
    pub(in crate::cli) key_pattern: Pattern,

    /// Another column of made-up devices; {n:06} and {hex:8} expand. Repeatable.
    #[arg(long = "column", value_name = "NAME=PATTERN", help_heading = "Devices")]
    pub(in crate::cli) columns: Vec<String>,

    /// The column that identifies a device [default: SerialNumber, else DeviceId, else ThingName].
    #[arg(long, value_name = "COLUMN", help_heading = "Devices")]
    pub(in crate::cli) key_column: Option<String>,

    /// Another template parameter for every device; {certificate_id} and {Column} expand. Repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE", help_heading = "Devices")]
    pub(in crate::cli) params: Vec<String>,

    /// The provisioning template.
    #[arg(long, value_name = "NAME", help_heading = "Devices")]
    pub(in crate::cli) template: Option<String>,

    /// Where everything that the test creates is kept [default: load.ledger here, or LOT.load.ledger beside the lot].
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub(in crate::cli) ledger: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) keys: KeyArgs,
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

impl LoadCommand {
    /// What results call it.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            LoadCommand::Connect(_) => "load connect",
            LoadCommand::Create(_) => "load create",
            LoadCommand::Provision(_) => "load provision",
            LoadCommand::Publish(_) => "load publish",
        }
    }

    pub(super) fn offer(&self) -> &OfferArgs {
        match self {
            LoadCommand::Connect(args) => &args.offer,
            LoadCommand::Publish(args) => &args.offer,
            LoadCommand::Create(args) | LoadCommand::Provision(args) => &args.offer,
        }
    }

    pub(super) fn devices(&self) -> Option<&DeviceArgs> {
        match self {
            LoadCommand::Connect(_) | LoadCommand::Publish(_) => None,
            LoadCommand::Create(args) | LoadCommand::Provision(args) => Some(&args.devices),
        }
    }
}

impl OfferArgs {
    pub(super) fn max_wait(&self) -> Duration {
        self.max_wait.unwrap_or(self.timeout)
    }
}

fn message_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ LEAST_MESSAGE..=MAX_PAYLOAD) => Ok(size),
        _ => Err(format!("wanted {LEAST_MESSAGE} to {MAX_PAYLOAD} bytes")),
    }
}

/// AWS allows 256 bytes and 7 slashes in a topic (AWS IoT Core quotas); the client id takes up to 128, and one slash.
fn topic_prefix(text: &str) -> Result<String, String> {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '#' | '+');
    let is_right = (1..=120).contains(&text.len())
        && text.chars().all(is_plain)
        && text.matches('/').count() <= 6
        && !text.starts_with(['$', '/'])
        && !text.ends_with('/');
    match is_right {
        true => Ok(text.to_owned()),
        false => Err(String::from(
            "wanted 1 to 120 bytes with at most 6 slashes, none at either end, without # or +, not beginning with $",
        )),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= MAX_TIME => Ok(time),
        _ => Err(String::from("wanted a time of at most 366 days, such as 90s, 5m or 1h30m")),
    }
}
