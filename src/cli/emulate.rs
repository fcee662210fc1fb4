//! `fleetmint emulate`: the emulator as a server of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ca_file::CaFile;
use super::exit::{Exit, Fatal};
use super::speech::say;
use super::{open_files, settings, signals};
use crate::emulator::account::Minted;
use crate::emulator::scenario::Scenario;
use crate::emulator::{Emulator, EmulatorPlan};

/// Serve an emulator of the AWS IoT endpoint, for trials and tests.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetmint emulate\n  fleetmint emulate --scenario aws-defaults --state-dir account"
)]
pub(super) struct EmulateArgs {
    /// The address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub(super) listen: SocketAddr,

    /// What the emulated account is like: a file, or one of default, aws-defaults, calm, faults, flaky, hostile, load, slow, strict, throttled
    /// [default: as AWS documents it, without quotas].
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) scenario: Option<PathBuf>,

    /// Keep the account and the keys in this directory, across restarts and crashes; created if missing.
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,

    /// Where to write the emulator's CA certificate for clients [default: DIR/ca.pem with --state-dir, else a new
    /// temporary directory].
    #[arg(long, value_name = "PEM")]
    pub(super) ca_file: Option<PathBuf>,

    /// The address for MQTT with a device's or a claim's certificate [default: a free port at the address of --listen].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) mqtt_listen: Option<SocketAddr>,

    /// The address of the admin API: health, counts, reset, faults. Plain HTTP without a signature: loopback only, unless you
    /// trust everybody who reaches it.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<SocketAddr>,

    /// A further host name or address for the server's certificate, besides localhost, loopback and
    /// *.iot.REGION.amazonaws.com. Repeatable.
    #[arg(long = "name", value_name = "HOST")]
    pub(super) names: Vec<String>,

    /// The host that clients are told to dial, in the printed endpoint and by DescribeEndpoint, such as this container's name
    /// for other containers [default: localhost].
    #[arg(long, value_name = "HOST")]
    pub(super) advertise: Option<String>,

    /// Write a new claim certificate and its key into this directory: claim.pem and claim-key.pem.
    #[arg(long, value_name = "DIR")]
    pub(super) claim_dir: Option<PathBuf>,
}

/// Fewer clients than this may be fewer than someone who tests with the emulator expects.
const FEW_CLIENTS: u64 = 1_000;

pub(super) async fn run(args: &EmulateArgs) -> Result<Exit, Fatal> {
    let scenario = settings::scenario(args.scenario.as_deref())?;
    let clients = open_files::allow_plenty();
    if clients < FEW_CLIENTS {
        say(format_args!(
            "note: the limit of open files lets the emulator serve {clients} clients at a time; `ulimit -Hn` shows the most \
             that it can be raised to without privileges"
        ));
    }
    for address in [Some(args.listen), args.mqtt_listen, args.admin].into_iter().flatten() {
        warn_of_exposure(address, args.admin == Some(address));
    }
    let plan = EmulatorPlan {
        scenario: scenario.clone(),
        listen: args.listen,
        mqtt_listen: args.mqtt_listen,
        admin: args.admin,
        names: args.names.clone(),
        advertise: args.advertise.clone(),
        state_dir: args.state_dir.clone(),
    };
    let started = Emulator::launch(plan).await;
    let emulator = started.map_err(|error| Fatal::new(Exit::Unavailable, error))?;
    if let Some(directory) = &args.claim_dir {
        write_claim(directory, &emulator.issue_claim().await)?;
    }
    let ca_file = CaFile::place(args.ca_file.as_deref(), &emulator)?;
    // Before anyone can know that it runs, and send one.
    let interrupted = signals::interrupted();
    announce(&emulator, &scenario, &ca_file.path)?;
    let ended = tokio::select! {
        () = interrupted => Ok(Exit::Complete),
        failure = emulator.failure() => Err(Fatal::new(Exit::Unavailable, failure)),
    };
    emulator.shutdown().await;
    ended
}

/// Says what others can reach, where an address is not of this machine alone.
fn warn_of_exposure(address: SocketAddr, is_admin: bool) {
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    let what = if is_admin {
        "whoever reaches it can reset the emulator, change its faults and get claim certificates"
    } else {
        "whoever reaches it and knows the scenario's credentials, which are no secret, has the whole emulated account"
    };
    say(format_args!("note: {address} can be reached from other machines: {what}"));
}

/// The private key's file is for its owner alone.
fn write_claim(directory: &Path, claim: &Minted) -> Result<(), Fatal> {
    let failed =
        |error: io::Error| Fatal::new(Exit::Unavailable, format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    fs::write(directory.join("claim.pem"), &claim.certificate_pem).map_err(failed)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(directory.join("claim-key.pem")).map_err(failed)?;
    file.write_all(claim.private_key_pem.expose().as_bytes()).map_err(failed)
}

/// One JSON line on stdout: everything that a client needs.
fn announce(emulator: &Emulator, scenario: &Scenario, ca_file: &Path) -> Result<(), Fatal> {
    let credentials = scenario.client_credentials();
    let mut line = serde_json::json!({
        "endpoint": emulator.endpoint(),
        "mqtt_endpoint": emulator.mqtt_endpoint(),
        "region": scenario.region,
        "ca_file": ca_file,
        "access_key_id": credentials.access_key_id,
        "secret_access_key": credentials.secret_access_key.expose(),
        "template": settings::first_template(scenario),
    });
    if let Some(directory) = emulator.ca_file().and_then(Path::parent) {
        line["state_dir"] = serde_json::json!(directory);
    }
    if let Some(address) = emulator.admin_addr() {
        line["admin"] = format!("http://{address}").into();
    }
    if let Some(token) = &credentials.session_token {
        line["session_token"] = token.expose().as_str().into();
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Fatal::new(Exit::Unavailable, format!("stdout: {error}")))
}
