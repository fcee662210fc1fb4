//! The command line: the only part that reads arguments and the environment, prints, handles signals and exits.
//!
//! A verb is a file, and a line in the table below: its arguments, their meaning, and the work. Shared parts are
//! beside the verbs: `args` has common arguments, `settings`, `target`, `rates` and `devices` resolve them, and
//! `conduct` takes a run from its start to its exit code.

mod advice;
mod args;
mod backup;
mod ca_file;
mod calibrate;
mod check;
mod cleanup;
mod completions;
mod conduct;
mod devices;
mod dry_run;
mod emulate;
mod environment;
mod exit;
mod export;
mod find_limit;
mod fit;
mod junit;
mod load;
mod lot;
mod lot_args;
mod man;
mod manner;
mod merge;
mod near_miss;
mod next;
mod open_files;
mod outputs;
mod ownership;
mod progress;
mod prometheus;
mod provision;
mod purge_keys;
mod question;
mod rates;
mod recording;
mod report;
mod requests;
mod restore;
mod retry;
mod retyped;
mod rework;
mod run_settings;
mod scope;
mod settings;
mod shard;
mod signals;
mod speech;
mod status;
mod target;
mod template;
mod tended;
mod verify;

pub use exit::Exit;

use std::ffi::OsString;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine::Coalescing;
use args::MannerArgs;
use exit::Fatal;

/// Mints device identities in AWS IoT Core.
#[derive(Debug, Parser)]
#[command(
    name = "fleetmint",
    version,
    about,
    propagate_version = true,
    max_term_width = 100,
    after_help = format!("{}\nRuns on Linux and macOS, and on Windows in WSL.", Exit::table())
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    manner: MannerArgs,
}

/// The table of verbs; what is said of each is said of its arguments.
#[derive(Debug, Subcommand)]
enum Verb {
    Check(Box<check::CheckArgs>),
    Provision(Box<provision::ProvisionArgs>),
    Load(Box<load::LoadArgs>),
    FindLimit(Box<find_limit::FindLimitArgs>),
    Calibrate(Box<calibrate::CalibrateArgs>),
    Template(template::TemplateArgs),
    Verify(Box<verify::VerifyArgs>),
    Cleanup(Box<cleanup::CleanupArgs>),
    Export(export::ExportArgs),
    PurgeKeys(purge_keys::PurgeKeysArgs),
    Status(status::StatusArgs),
    Retry(retry::RetryArgs),
    Backup(backup::BackupArgs),
    Merge(merge::MergeArgs),
    Restore(restore::RestoreArgs),
    Report(report::ReportArgs),
    Emulate(emulate::EmulateArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Verb {
    /// How many threads serve the verb's connections; `None` for one per core. One thread handles thousands of
    /// devices per second unless an emulator shares it; a second would only add wake-ups. Load tests must open many
    /// connections quickly and stay punctual meanwhile.
    fn threads(&self) -> Option<usize> {
        match self {
            Verb::Provision(args) if args.target.emulator.is_none() => Some(1),
            _ => None,
        }
    }

    async fn run(self) -> Result<Exit, Fatal> {
        match self {
            Verb::Check(args) => check::run(*args).await,
            Verb::Provision(args) => provision::run(*args).await,
            Verb::Load(args) => load::run(*args).await,
            Verb::FindLimit(args) => find_limit::run(*args).await,
            Verb::Calibrate(args) => calibrate::run(*args).await,
            Verb::Template(args) => template::run(args).await,
            Verb::Verify(args) => verify::run(*args).await,
            Verb::Cleanup(args) => cleanup::run(*args).await,
            Verb::Export(args) => export::run(args).await,
            Verb::PurgeKeys(args) => purge_keys::run(&args),
            Verb::Status(args) => status::run(&args),
            Verb::Retry(args) => retry::run(args).await,
            Verb::Backup(args) => backup::run(&args),
            Verb::Merge(args) => merge::run(&args),
            Verb::Restore(args) => restore::run(args),
            Verb::Report(args) => report::run(&args),
            Verb::Emulate(args) => emulate::run(&args).await,
            Verb::Completions(args) => completions::run(&args, command()),
            Verb::Man(args) => man::run(&args, command()),
        }
    }
}

/// Runs the command and returns its exit code.
pub fn main() -> Exit {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let args = match parse(&typed) {
        Ok(args) => args,
        Err(error) => return exit::usage(&near_miss::explained(error, &typed, &command())),
    };
    if let Err(error) = manner::settle(&args.manner) {
        return error.report();
    }
    if SystemTime::now() < UNIX_EPOCH {
        let message = "this machine's clock says that it is before 1970: set it; what is signed and recorded carries the time";
        return Fatal::new(Exit::Unavailable, message).report();
    }
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Some(enough) = args.verb.threads() {
        threads.worker_threads(enough).on_thread_park(|| COALESCING.wait());
    }
    let runtime = match threads.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Fatal::new(Exit::Bug, format!("cannot start the async runtime: {error}")).report();
        }
    };
    let exit = runtime.block_on(args.verb.run()).unwrap_or_else(Fatal::report);
    match speech::lost_output() {
        Some(error) if exit == Exit::Complete => {
            Fatal::new(Exit::LedgerUnusable, format!("standard output cannot be written: {error}")).report()
        }
        _ => exit,
    }
}

fn parse(typed: &[OsString]) -> Result<Args, clap::Error> {
    let command = environment::read(Args::command(), typed).color(manner::color_of_help(typed));
    let matches = command.clone().try_get_matches_from(typed)?;
    retyped::remember(&command, &matches);
    Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command.clone()))
}

/// How long the thread that serves `provision`'s connections may let packets gather; see [`Verb::threads`].
static COALESCING: LazyLock<Coalescing> = LazyLock::new(Coalescing::default);

/// The whole command line as shown by help, completions and manual pages, regardless of the environment and
/// arguments.
fn command() -> Command {
    environment::read(Args::command(), &[])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_terminal_alone_breaks_the_paragraphs_of_help() {
        let mut commands = vec![Args::command()];
        while let Some(command) = commands.pop() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_prose = |line: &&str| line.len() > 80 && line.starts_with(char::is_alphanumeric);
            let mut lines = text.lines().zip(text.lines().skip(1));
            let broken = lines.find(|(line, next)| is_prose(line) && next.starts_with(char::is_alphanumeric));
            assert_eq!(broken, None, "the help of {}", command.get_name());
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_emulator_takes_a_scenario_only_after_an_equals_sign() {
        let parse = |args: &[&str]| match Args::try_parse_from(args).map(|args| args.verb) {
            Ok(Verb::Provision(args)) => Ok((args.lot, args.target.emulator)),
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
