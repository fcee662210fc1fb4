//! The command as typed, with options from the environment, quoted for a shell so that it can be run again.

use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::wording::{clean, shell_word};

/// Options, by id, that are for one run alone: they name something that now exists, were carried out, or only affect
/// the display.
const FOR_ONE_RUN: [&str; 17] = [
    "ledger",
    "results",
    "summary_json",
    "junit",
    "prometheus",
    "reissue_unknown",
    "change_settings",
    "limit",
    "only",
    "only_file",
    "dry_run",
    "start_at",
    // The ledger has it; `auto/N` would ask a scheduler that is not there.
    "shard",
    "quiet",
    "verbose",
    "color",
    "help",
];

static COMMAND: OnceLock<String> = OnceLock::new();

/// Remembers the command line.
pub(super) fn remember(command: &Command, matches: &ArgMatches) {
    COMMAND.get_or_init(|| line(command, matches));
}

/// The command that repeats the run, without its ledger.
pub(super) fn again() -> &'static str {
    COMMAND.get().map_or("", String::as_str)
}

fn line(command: &Command, matches: &ArgMatches) -> String {
    let mut words = vec![String::from("fleetmint")];
    let (mut command, mut matches) = (command, matches);
    while let Some((name, below)) = matches.subcommand() {
        words.push(name.to_owned());
        (command, matches) = (command.find_subcommand(name).unwrap_or(command), below);
    }
    let given = |id: &str| {
        !FOR_ONE_RUN.contains(&id)
            && matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let (placed, named): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(|arg| given(arg.get_id().as_str()))
        .partition(|arg| arg.is_positional());
    for arg in placed.into_iter().chain(named) {
        let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let values = values.map(|value| shell_word(&clean(&value.to_string_lossy())));
        match arg.get_long() {
            None => words.extend(values),
            Some(long) if !arg.get_action().takes_values() => words.push(format!("--{long}")),
            Some(long) => {
                let mut values = values.peekable();
                if values.peek().is_none() {
                    words.push(format!("--{long}"));
                }
                words.extend(values.map(|value| format!("--{long}={value}")));
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_command_is_told_as_it_can_be_typed_again() {
        let command = Command::new("fleetmint").subcommand(
            Command::new("provision")
                .arg(Arg::new("lot"))
                .arg(Arg::new("emulator").long("emulator").num_args(0..=1).require_equals(true))
                .arg(Arg::new("params").long("param").action(clap::ArgAction::Append))
                .arg(Arg::new("timeout").long("timeout").default_value("20s"))
                .arg(Arg::new("limit").long("limit"))
                .arg(Arg::new("ledger").long("ledger")),
        );
        let typed = [
            "fleetmint",
            "provision",
            "--emulator",
            "--param",
            "A=x y",
            "--param=B=it's",
            "my lot.csv",
            "--limit",
            "2",
            "--ledger",
            "l",
        ];
        let matches = command.clone().get_matches_from(typed);
        let told = r"fleetmint provision 'my lot.csv' --emulator --param='A=x y' --param='B=it'\''s'";
        assert_eq!(line(&command, &matches), told);
    }
}
