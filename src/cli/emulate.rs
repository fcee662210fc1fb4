//! `fleetmint emulate`: the emulator as a server of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ca_file::CaFile;
use super::exit::{Exit, Fatal};
use super::speech::say;
use super::{open_files, settings, signals};
use crate::emulator::Emulator;
use crate::emulator::scenario::Scenario;

/// Serve an emulator of the AWS IoT endpoint, for trials and tests.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetmint emulate\n  fleetmint emulate --scenario aws-defaults --state-dir account"
)]
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
    let started = match &args.state_dir {
        Some(directory) => Emulator::start_in(directory, scenario.clone(), args.listen).await,
        None => Emulator::start(scenario.clone(), args.listen).await,
    };
    let emulator = started.map_err(|error| Fatal::new(Exit::Unavailable, error))?;
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

/// One JSON line on stdout: everything that a client needs.
fn announce(emulator: &Emulator, scenario: &Scenario, ca_file: &Path) -> Result<(), Fatal> {
    let credentials = settings::scenario_credentials(scenario);
    let mut line = serde_json::json!({
        "endpoint": emulator.endpoint(),
        "region": scenario.region,
        "ca_file": ca_file,
        "access_key_id": credentials.access_key_id,
        "secret_access_key": credentials.secret_access_key.expose(),
        "template": settings::first_template(scenario),
    });
    if let Some(directory) = emulator.ca_file().and_then(Path::parent) {
        line["state_dir"] = serde_json::json!(directory);
    }
    if let Some(token) = &credentials.session_token {
        line["session_token"] = token.expose().as_str().into();
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Fatal::new(Exit::Unavailable, format!("stdout: {error}")))
}
