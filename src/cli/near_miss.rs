//! What the user probably meant by a command line with a common mistake.

use std::ffi::OsString;
use std::path::Path;

use clap::Error;
use clap::error::{ContextKind, ContextValue};

use crate::emulator::scenario::Scenario;

/// The error, with what was probably meant.
pub(super) fn explained(mut error: Error, typed: &[OsString]) -> Error {
    if let Some(scenario) = detached_scenario(typed) {
        let tip = format!("a scenario follows an equals sign: --emulator={scenario}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
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

    #[test]
    fn a_scenario_after_a_blank_is_noticed() {
        let typed = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            detached_scenario(&words).map(str::to_owned)
        };
        assert_eq!(typed(&["x", "--emulator", "throttled"]).as_deref(), Some("throttled"));
        assert_eq!(typed(&["x", "--emulator", "my.toml"]).as_deref(), Some("my.toml"));
        for words in [&["x", "--emulator", "lot.csv"][..], &["x", "--emulator"], &["--emulator", "--keys"]] {
            assert_eq!(typed(words), None, "{words:?}");
        }
    }
}
