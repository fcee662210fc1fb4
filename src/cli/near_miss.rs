//! What the user probably meant by a command line with a common mistake.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use crate::emulator::scenario::Scenario;

/// What other tools call an option, and what it is called here.
const SYNONYMS: [(&str, &str); 18] = [
    ("--aws-profile", "--profile"),
    ("--claim-certificate", "--claim-cert"),
    ("--concurrency", "--connections"),
    ("--count", "--devices"),
    ("--csv", "--lot"),
    ("--duration", "--for"),
    ("--host", "--endpoint"),
    ("--length", "--for"),
    ("--output", "--out"),
    ("--parallel", "--connections"),
    ("--qps", "--rate"),
    ("--rps", "--rate"),
    ("--server", "--endpoint"),
    ("--template-name", "--template"),
    ("--threads", "--connections"),
    ("--time", "--for"),
    ("--users", "--connections"),
    ("--workers", "--connections"),
];

/// The error, with what was probably meant. `command` is that of the whole command line.
pub(super) fn explained(mut error: Error, typed: &[OsString], command: &Command) -> Error {
    let scenario = detached_scenario(typed)
        .map(|scenario| format!("a scenario follows an equals sign: --emulator={scenario}"));
    let tip = scenario.or_else(|| {
        synonym(&error, typed, command).map(|meant| format!("'{meant}' is what it is called here"))
    });
    if let Some(tip) = tip {
        // Instead of a guess by spelling.
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The option for which another tool's name was typed, if the verb has it.
fn synonym(error: &Error, typed: &[OsString], command: &Command) -> Option<&'static str> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let words = typed.iter().skip(1).filter_map(|word| word.to_str());
    let verb = words.fold(command, |verb, word| verb.find_subcommand(word).unwrap_or(verb));
    let has = |name: &str| verb.get_arguments().any(|arg| arg.get_long() == name.strip_prefix("--"));
    SYNONYMS.iter().find(|(other, meant)| other == unknown && has(meant)).map(|(_, meant)| *meant)
}

/// A scenario separated from `--emulator` by a blank, which makes it a different argument.
fn detached_scenario(typed: &[OsString]) -> Option<&str> {
    let words: Vec<&str> = typed.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let after = words.windows(2).find(|pair| pair[0] == "--emulator").map(|pair| pair[1])?;
    let is_scenario = after.ends_with(".toml") || Scenario::find(Path::new(after)).is_ok();
    (!after.starts_with('-') && is_scenario).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_scenario_after_a_blank_is_noticed() {
        let noticed = |words: &[&str]| detached_scenario(&typed(words)).map(str::to_owned);
        assert_eq!(noticed(&["x", "--emulator", "throttled"]).as_deref(), Some("throttled"));
        assert_eq!(noticed(&["x", "--emulator", "my.toml"]).as_deref(), Some("my.toml"));
        for words in [&["x", "--emulator", "lot.csv"][..], &["x", "--emulator"], &["--emulator", "--keys"]] {
            assert_eq!(noticed(words), None, "{words:?}");
        }
    }

    #[test]
    fn an_option_by_another_tools_name_is_known_where_the_verb_has_it() {
        let meant = |words: &[&str]| {
            let command = crate::cli::command();
            let typed = typed(words);
            let error = command.clone().try_get_matches_from(&typed).unwrap_err();
            synonym(&error, &typed, &command)
        };
        assert_eq!(meant(&["fleetmint", "load", "provision", "--duration", "10s"]), Some("--for"));
        assert_eq!(meant(&["fleetmint", "load", "provision", "--duration=10s"]), Some("--for"));
        assert_eq!(meant(&["fleetmint", "provision", "lot.csv", "--workers", "9"]), Some("--connections"));
        assert_eq!(meant(&["fleetmint", "provision", "lot.csv", "--duration", "9s"]), None);
        assert_eq!(meant(&["fleetmint", "status", "--conections", "9"]), None);
    }

    #[test]
    fn each_synonym_is_of_use_to_a_verb() {
        let command = crate::cli::command();
        let has = |verb: &Command, name: &str| {
            verb.get_arguments().any(|arg| arg.get_long() == name.strip_prefix("--"))
        };
        for (other, meant) in SYNONYMS {
            let fits = |verb: &Command| has(verb, meant) && !has(verb, other);
            let mut verbs =
                command.get_subcommands().flat_map(|verb| [verb].into_iter().chain(verb.get_subcommands()));
            assert!(verbs.any(fits), "{other} never leads to {meant}");
        }
    }
}
