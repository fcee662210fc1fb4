//! What was typed. What it means is `settings`'.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use super::find_limit::FindLimitArgs;
use super::load::LoadArgs;
use super::prometheus::ScrapeAddress;
use super::target::TargetArgs;
use crate::engine::CONNECTION_LIFETIME;
use crate::export::DEFAULT_NAMESPACE;
use crate::rate::RateLimit;

/// Mints device identities in AWS IoT Core.
#[derive(Debug, Parser)]
#[command(name = "fleetmint", version, about, propagate_version = true, after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Provision every device of a lot: a certificate and a thing for each row of a CSV.
    Provision(Box<ProvisionArgs>),
    /// Load-test the account's quotas: offer connections, certificates or devices at a rate, whatever comes back.
    Load(Box<LoadArgs>),
    /// Find the highest rate that the service bears: of connections, certificates or registrations.
    FindLimit(Box<FindLimitArgs>),
    /// Write the certificates and keys of a ledger's registered devices to files.
    Export(ExportArgs),
    /// Blank the private keys that were exported, so that the ledger can be kept.
    PurgeKeys(PurgeKeysArgs),
    /// Say where a ledger's devices stand, what went wrong, and what to do next.
    Status(StatusArgs),
    /// Return rejected or unknown devices to pending, so that the next provision takes them up again.
    Retry(RetryArgs),
    /// Show results files, one or several merged, as text, JSON, a page, or HdrHistogram logs.
    Report(ReportArgs),
    /// Serve an emulator of the AWS IoT endpoint, for trials and tests.
    Emulate(EmulateArgs),
}

const EXIT_CODES: &str = "\
Exit codes: 0 complete, 2 a threshold was missed, 3 some devices rejected or unknown, 4 stopped by a refusal or the failure budget,
5 interrupted (run it again to resume), 64 usage, 65 bad identities, 69 endpoint unreachable or not ready,
70 defect, 74 ledger unusable, 77 not permitted.";

const CREDENTIALS: &str = "\
Credentials come from where AWS's own tools find them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary
ones, AWS_SESSION_TOKEN; the profile that --profile or AWS_PROFILE names; web identity, container, instance metadata.
The first Ctrl-C or SIGTERM finishes what is in flight, a second one stops at once; the same command resumes.";

#[derive(Debug, clap::Args)]
#[command(after_help = CREDENTIALS)]
pub(super) struct ProvisionArgs {
    /// The lot: a CSV with a header; each column is a template parameter, each row a device.
    #[arg(value_name = "LOT.csv")]
    pub(super) lot: PathBuf,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// The provisioning template.
    #[arg(long, value_name = "NAME", required_unless_present = "emulator")]
    pub(super) template: Option<String>,

    /// Where the run's state and the private keys are kept [default: beside the lot, LOT.ledger].
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,

    /// How many connections, one device in flight on each [default: as many as the rates and the latency need, at most
    /// 1000].
    #[arg(long, value_name = "N", value_parser = connections)]
    pub(super) connections: Option<usize>,

    /// Where the rates come from that are not given: AWS's defaults as of 2024, or what Service Quotas says of the account.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = RateSource::Defaults)]
    pub(super) rates: RateSource,

    /// Limit of connects, such as 10/s; `auto` finds what the service bears [default: 500/s; unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(super) connect_rate: Option<RateLimit>,

    /// Limit of CreateKeysAndCertificate, or with --keys local of CreateCertificateFromCsr [default: 10/s, local 20/s;
    /// unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(super) create_rate: Option<RateLimit>,

    /// Limit of RegisterThing [default: 10/s; unlimited on loopback].
    #[arg(long, value_name = "RATE")]
    pub(super) register_rate: Option<RateLimit>,

    /// The column that identifies a device [default: SerialNumber, else DeviceId, else ThingName].
    #[arg(long, value_name = "COLUMN")]
    pub(super) key_column: Option<String>,

    /// Another template parameter for every device; {certificate_id} and {Column} expand. Repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<String>,

    #[command(flatten)]
    pub(super) keys: KeyArgs,

    /// How long a connection attempt, and a reply, may take.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout)]
    pub(super) timeout: Duration,

    /// How old a connection may get before it is replaced between two exchanges; the service ends it after 24 hours.
    #[arg(long, value_name = "TIME", default_value = "23h", value_parser = lifetime)]
    pub(super) connection_lifetime: Duration,

    /// What MQTT client ids begin with; the rest is unique per connection attempt.
    #[arg(long, value_name = "PREFIX", default_value = "fleetmint")]
    pub(super) client_id_prefix: String,

    /// Before the run, return all unknown devices to pending: each gets another certificate, and may then own two.
    #[arg(long)]
    pub(super) reissue_unknown: bool,

    /// Serve live metrics for Prometheus at http://ADDR/metrics while the run goes on; a port alone is this machine's.
    #[arg(long, value_name = "ADDR")]
    pub(super) prometheus: Option<ScrapeAddress>,

    /// Write the summary as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) summary_json: Option<PathBuf>,

    /// Write what happened in each second to a new results file, for `report`.
    #[arg(long, value_name = "FILE")]
    pub(super) results: Option<PathBuf>,
}

/// Where private keys come from, and who can read them.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// Who makes the private keys: AWS, which sends them, or this machine, which sends a signing request. A device that has
    /// a key from an earlier run keeps it.
    #[arg(long = "keys", value_name = "WHERE", value_enum, default_value_t = Keys::Aws)]
    pub(super) source: Keys,

    /// What kind of keys to make, with --keys local [default: p256].
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(super) key_type: Option<LocalKeyType>,

    /// Encrypt each private key to this age recipient before it is written anywhere; `export --identity` opens them.
    /// Repeatable: the identity of any one recipient is enough.
    #[arg(long, value_name = "RECIPIENT")]
    pub(super) seal_to: Vec<String>,
}

const FORMATS: &str = "\
Formats: pem is a folder a device with certificate.pem and private.key, and manifest.csv. jsonl and csv are one file
with a device a line, and FILE.manifest.csv. nvs is as pem, with an nvs.csv in each folder for Espressif's
nvs_partition_gen. mass-mfg is as pem, with config.csv and values.csv for ESP-IDF's mfg_gen.py (--fileid file_id).
Start Espressif's tools in the exported directory: they look for the files from there.";

#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct ExportArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// What to write: a directory that is not there or empty; for jsonl and csv a file that is not there.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) out: PathBuf,

    /// Open sealed keys with the identities in this age identity file. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Write sealed keys as they are, as age files.
    #[arg(long, conflicts_with = "identity")]
    pub(super) sealed: bool,

    /// What to write it as.
    #[arg(long, value_enum, default_value_t = FormatName::Pem)]
    pub(super) format: FormatName,

    /// Only devices in this state. Repeatable.
    #[arg(long = "state", value_enum, value_name = "STATE", default_values_t = [CertifiedState::Registered])]
    pub(super) states: Vec<CertifiedState>,

    /// Only devices that came to their state in run N or later; `status` lists the runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) since_run: Option<i64>,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// The NVS namespace of the entries, for nvs and mass-mfg.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
    pub(super) nvs_namespace: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct PurgeKeysArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

/// The name of an export's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatName {
    Pem,
    Jsonl,
    Csv,
    Nvs,
    MassMfg,
}

/// A state whose devices may have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CertifiedState {
    Registered,
    Issued,
    Unknown,
    Rejected,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The ledger of a provisioning run; a run may be writing it.
    pub(super) ledger: PathBuf,

    /// Say it as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

const MERGING: &str = "\
Several files are merged: histograms and counters are added, so that percentiles are those of one run with all samples.
They are laid beside each other by the clocks of their machines, to the second; pauses in which no run was under way are
cut out. Thresholds are judged of all of them together.";

#[derive(Debug, clap::Args)]
#[command(after_help = MERGING)]
pub(super) struct ReportArgs {
    /// Results files, as --results writes them.
    #[arg(value_name = "RESULTS", required = true)]
    pub(super) results: Vec<PathBuf>,

    /// Write the report as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write the report as a page to this file, `-` for stdout: one file that needs no network.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Write an HdrHistogram interval log for each operation into this directory.
    #[arg(long, value_name = "DIR")]
    pub(super) hlog: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Which devices to return to pending.
    #[arg(long, value_enum)]
    pub(super) state: GivenUpState,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// Only devices with this cause, as `status --json` names it.
    #[arg(long)]
    pub(super) cause: Option<String>,

    /// Needed for unknown devices: each gets another certificate, and may then own two.
    #[arg(long)]
    pub(super) reissue_unknown: bool,

    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

/// A state that a device can be returned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GivenUpState {
    Rejected,
    Unknown,
}

#[derive(Debug, clap::Args)]
pub(super) struct EmulateArgs {
    /// The address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub(super) listen: SocketAddr,

    /// What the emulated account is like: a file, or one of default, aws-defaults, faults, load, strict, throttled
    /// [default: as AWS documents it, without quotas].
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) scenario: Option<PathBuf>,

    /// Keep the account and the keys in this directory, over restarts and crashes; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,

    /// Where to write the emulator's CA certificate for clients [default: DIR/ca.pem with --state-dir, else a new
    /// temporary directory].
    #[arg(long, value_name = "PEM")]
    pub(super) ca_file: Option<PathBuf>,
}

/// Who makes private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Keys {
    /// The service.
    Aws,
    /// This machine.
    Local,
}

/// Where rates come from that are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum RateSource {
    /// AWS's defaults; on loopback there are no limits.
    Defaults,
    /// The account's applied quotas.
    Quotas,
}

/// What kind of keys this machine makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LocalKeyType {
    /// ECDSA on P-256.
    P256,
    /// RSA, 2048 bits.
    Rsa2048,
}

pub(super) fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=100_000) => Ok(n),
        _ => Err(String::from("wanted a whole number from 1 to 100000")),
    }
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&time) => Ok(time),
        _ => Err(String::from("wanted a time from 10ms to 1h, such as 20s")),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (MIN_LIFETIME..=CONNECTION_LIFETIME).contains(&time) => Ok(time),
        _ => Err(String::from("wanted a time from 1s to 23h, such as 12h")),
    }
}

/// Less would be little else than dialling.
const MIN_LIFETIME: Duration = Duration::from_secs(1);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_emulator_takes_a_scenario_only_after_an_equals_sign() {
        let parse = |args: &[&str]| match Args::try_parse_from(args).map(|args| args.command) {
            Ok(Command::Provision(args)) => Ok((args.lot, args.target.emulator)),
            other => Err(format!("{other:?}")),
        };
        let lot = PathBuf::from("lot.csv");
        assert_eq!(
            parse(&["fleetmint", "provision", "--emulator", "lot.csv"]),
            Ok((lot.clone(), Some(None)))
        );
        let scenario = Some(Some(PathBuf::from("s.toml")));
        assert_eq!(parse(&["fleetmint", "provision", "lot.csv", "--emulator=s.toml"]), Ok((lot, scenario)));
        assert!(parse(&["fleetmint", "provision", "lot.csv"]).is_err());
    }
}
