//! The scenarios that come with fleetmint, by name.
//!
//! Owns the list. The files are in `fixtures/scenarios`, and describe themselves.

use std::path::Path;

use super::{Scenario, ScenarioError};

/// Each scenario's name and text; the default scenario has no text of its own.
const BUILT_IN: [(&str, &str); 10] = [
    ("default", ""),
    ("aws-defaults", include_str!("../../../fixtures/scenarios/aws-defaults.toml")),
    ("calm", include_str!("../../../fixtures/scenarios/calm.toml")),
    ("faults", include_str!("../../../fixtures/scenarios/faults.toml")),
    ("flaky", include_str!("../../../fixtures/scenarios/flaky.toml")),
    ("hostile", include_str!("../../../fixtures/scenarios/hostile.toml")),
    ("load", include_str!("../../../fixtures/scenarios/load.toml")),
    ("slow", include_str!("../../../fixtures/scenarios/slow.toml")),
    ("strict", include_str!("../../../fixtures/scenarios/strict.toml")),
    ("throttled", include_str!("../../../fixtures/scenarios/throttled.toml")),
];

impl Scenario {
    /// The names of the scenarios that come with fleetmint.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.into_iter().map(|(name, _)| name)
    }

    /// The scenario of that name that comes with fleetmint; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.into_iter().find(|(known, _)| *known == name)?;
        Self::from_toml(text).ok()
    }

    /// The built-in scenario of that name, or else the one in that file. Write `./name` for a file with the name of a
    /// built-in scenario.
    ///
    /// # Errors
    /// [`ScenarioError`] for an error in the file, or in reading a file.
    pub fn find(name_or_file: &Path) -> Result<Self, ScenarioError> {
        let name = name_or_file.to_str().unwrap_or_default();
        match Self::named(name) {
            Some(scenario) => Ok(scenario),
            None if is_a_name(name_or_file) && !name_or_file.exists() => Err(ScenarioError::NoSuchScenario {
                name: name.to_owned(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            }),
            None => Self::read(name_or_file),
        }
    }
}

/// Whether this looks like a scenario's name rather than a file's.
fn is_a_name(path: &Path) -> bool {
    path.extension().is_none() && path.components().count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_the_file_of_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios");
        for name in Scenario::names() {
            let file = folder.join(format!("{name}.toml"));
            assert_eq!(Scenario::find(Path::new(name)), Scenario::read(&file), "{name}");
            assert_eq!(Scenario::find(&file), Scenario::read(&file), "{name}");
        }
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, Scenario::names().count());
    }

    #[test]
    fn a_name_that_is_none_is_told_the_names() {
        let error = Scenario::find(Path::new("aws-default")).unwrap_err().to_string();
        assert!(error.contains("`aws-default`") && error.contains("aws-defaults, calm, faults"), "{error}");
        let error = Scenario::find(Path::new("nothing.toml")).unwrap_err().to_string();
        assert!(error.contains("nothing.toml cannot be read"), "{error}");
    }
}
