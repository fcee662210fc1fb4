//! `fleetmint emulate`: the emulator as a server of its own.

use std::io::Write;
use std::path::Path;

use super::args::EmulateArgs;
use super::ca_file::CaFile;
use super::exit::{Exit, Fatal};
use super::speech::say;
use super::{open_files, settings, signals};
use crate::emulator::Emulator;
use crate::emulator::scenario::Scenario;

/// Fewer clients than this may be fewer than someone who tests with the emulator expects.
const FEW_CLIENTS: u64 = 1_000;

pub(super) async fn run(args: &EmulateArgs) -> Exit {
    match serve(args).await {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

async fn serve(args: &EmulateArgs) -> Result<Exit, Fatal> {
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
