//! What the account has from the start besides templates, and what happens to a template that names something else.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::Deserializer;

/// Whether what a template names must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resources {
    /// A registration that names an unknown policy, thing type, group or billing group is refused, as the service does.
    Declared,
    /// They come into being when they are first named.
    Assumed,
}

/// A policy and its document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPolicy {
    /// What templates call it.
    pub name: String,
    /// JSON; `None` allows everything.
    pub document: Option<String>,
    /// Where to read the document instead; [`Scenario::read`](super::Scenario::read) puts its text in the other's place.
    pub file: Option<PathBuf>,
}

impl NamedPolicy {
    /// What the built-in template attaches.
    pub(super) fn built_in() -> Self {
        Self { name: String::from("TwokDevicePolicy"), document: None, file: None }
    }
}

/// The thing type of the built-in template.
pub(super) const BUILT_IN_TYPE: &str = "TwokDevice";

/// The policies of the scenario, and the built-in template's where the scenario has none of that name.
pub(super) fn policies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedPolicy>, D::Error> {
    let mut policies = Vec::<NamedPolicy>::deserialize(deserializer)?;
    let built_in = NamedPolicy::built_in();
    if !policies.iter().any(|policy| policy.name == built_in.name) {
        policies.insert(0, built_in);
    }
    Ok(policies)
}

/// The thing types of the scenario, and the built-in template's.
pub(super) fn thing_types<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut types = Vec::<String>::deserialize(deserializer)?;
    if !types.iter().any(|name| name == BUILT_IN_TYPE) {
        types.insert(0, String::from(BUILT_IN_TYPE));
    }
    Ok(types)
}
