//! `FLEETMINT_*`: an environment variable for every option, except those that confirm or may do harm.

use std::ffi::OsString;

use clap::{Arg, Command};

/// Options that are only accepted on the command line: they confirm, or may do harm.
const ONLY_TYPED: [&str; 4] = ["yes", "reissue-unknown", "reissue", "change-settings"];

/// Options, by id, whose variable has another name: two verbs have a `--profile` with different meanings.
const RENAMED: [(&str, &str); 2] = [("profile", "AWS_PROFILE"), ("profile_text", "LOAD_PROFILE")];

/// Adds environment variables to the command. The options in `typed` take precedence: a variable that conflicts with
/// one is ignored.
pub(super) fn read(command: Command, typed: &[OsString]) -> Command {
    let overruled = overruled(&command, typed);
    let command = command.mut_args(|arg| {
        let is_left_alone = overruled.contains(&arg.get_id().to_string());
        match variable(&arg).filter(|_| !is_left_alone) {
            // An empty variable counts as unset.
            Some(name) if std::env::var_os(&name).is_none_or(|value| !value.is_empty()) => {
                arg.env(name).hide_env_values(true)
            }
            _ => arg,
        }
    });
    command.mut_subcommands(|verb| read(verb, typed))
}

/// The variable of an option, if it has one.
fn variable(arg: &Arg) -> Option<String> {
    let long =
        arg.get_long().filter(|long| !ONLY_TYPED.contains(long) && !["help", "version"].contains(long))?;
    let renamed = RENAMED.into_iter().find(|(id, _)| arg.get_id() == id).map(|(_, name)| name.to_owned());
    let name = renamed.unwrap_or_else(|| long.to_uppercase().replace('-', "_"));
    Some(format!("FLEETMINT_{name}"))
}

/// The options that conflict with one that was typed.
fn overruled(command: &Command, typed: &[OsString]) -> Vec<String> {
    let id = |arg: &Arg| arg.get_id().to_string();
    let mut ids = Vec::new();
    for arg in command.get_arguments() {
        let others: Vec<_> = command.get_arg_conflicts_with(arg).into_iter().collect();
        if is_typed(arg, typed) {
            ids.extend(others.iter().map(|other| id(other)));
        } else if others.iter().any(|other| is_typed(other, typed)) {
            ids.push(id(arg));
        }
    }
    ids
}

fn is_typed(arg: &Arg, typed: &[OsString]) -> bool {
    let words = typed.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    words.into_iter().any(|word| match word.strip_prefix("--") {
        Some(long) => long.split('=').next() == arg.get_long(),
        None => arg.get_short().is_some_and(|short| word.starts_with('-') && word[1..].contains(short)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_counts_more_than_what_it_conflicts_with() {
        let command = Command::new("x")
            .arg(Arg::new("emulator").long("emulator").num_args(0..=1).conflicts_with("endpoint"))
            .arg(Arg::new("endpoint").long("endpoint"))
            .arg(Arg::new("quiet").long("quiet").short('q').conflicts_with("loud"))
            .arg(Arg::new("loud").long("loud"));
        let overruled =
            |words: &[&str]| overruled(&command, &words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(overruled(&["--emulator=x"]), ["endpoint"]);
        assert_eq!(overruled(&["--endpoint", "h"]), ["emulator"]);
        assert_eq!(overruled(&["-q"]), ["loud"]);
        assert!(overruled(&["--", "--emulator"]).is_empty());
    }

    #[test]
    fn what_confirms_has_no_variable() {
        let named = |id: &'static str, long: &'static str| variable(&Arg::new(id).long(long));
        assert_eq!(named("yes", "yes"), None);
        assert_eq!(named("connect_rate", "connect-rate").as_deref(), Some("FLEETMINT_CONNECT_RATE"));
        assert_eq!(named("profile", "aws-profile").as_deref(), Some("FLEETMINT_AWS_PROFILE"));
        assert_eq!(named("profile_text", "profile").as_deref(), Some("FLEETMINT_LOAD_PROFILE"));
        assert_eq!(variable(&Arg::new("lot")), None);
    }
}
