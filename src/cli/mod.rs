//! The command line: the only part that reads arguments and the environment, prints, handles signals and exits.
//!
//! Owns what people see and type. `args` is what was typed, `settings` what it means; one file per verb.

mod args;
mod ca_file;
mod emulate;
mod exit;
mod export;
mod find_limit;
mod load;
mod open_files;
mod progress;
mod prometheus;
mod provision;
mod purge_keys;
mod rates;
mod recording;
mod report;
mod retry;
mod settings;
mod signals;
mod speech;
mod status;
mod target;

pub use exit::Exit;

use clap::Parser;

use args::{Args, Command};

/// Runs the command that was typed, to its exit code.
pub fn main() -> Exit {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(Exit::Bug, &format!("cannot start the async runtime: {error}")),
    };
    runtime.block_on(async {
        match args.command {
            Command::Provision(args) => provision::run(*args).await,
            Command::Load(args) => load::run(*args).await,
            Command::FindLimit(args) => find_limit::run(*args).await,
            Command::Export(args) => export::run(&args),
            Command::PurgeKeys(args) => purge_keys::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Retry(args) => retry::run(&args),
            Command::Emulate(args) => emulate::run(&args).await,
        }
    })
}

/// Logs go to stderr, and only where FLEETMINT_LOG asks for them: the progress and the summary say what matters.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLEETMINT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| speech::Log);
    // A log that cannot be written would otherwise panic while saying so.
    log.log_internal_errors(false).init();
}
