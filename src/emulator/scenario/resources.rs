//! The account's resources at the start, other than templates, and what happens if a template names one that is
//! missing.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::Deserializer;

/// Whether the resources that a template names must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resources {
    /// A registration that names an unknown policy, thing type, group or billing group is refused, as the service does.
    Declared,
    /// These resources are created when they are first named.
    Assumed,
}

/// A policy and its document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPolicy {
    /// The policy's name, as templates refer to it.
    pub name: String,
    /// The policy's document, JSON; `None` allows everything.
    pub document: Option<String>,
    /// A file to read the document from instead; [`Scenario::read`](super::Scenario::read) replaces `document` by its
    /// text.
    pub file: Option<PathBuf>,
}

impl NamedPolicy {
    /// The policy that the built-in template attaches.
    pub(super) fn built_in() -> Self {
        Self { name: String::from("TwokDevicePolicy"), document: None, file: None }
    }
}

/// The thing type of the built-in template.
pub(super) const BUILT_IN_TYPE: &str = "TwokDevice";

/// The scenario's policies, with the built-in template's added unless the scenario has one of that name.
pub(super) fn policies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedPolicy>, D::Error> {
    let mut policies = Vec::<NamedPolicy>::deserialize(deserializer)?;
    let built_in = NamedPolicy::built_in();
    if !policies.iter().any(|policy| policy.name == built_in.name) {
        policies.insert(0, built_in);
    }
    Ok(policies)
}

/// The scenario's thing types, with the built-in template's added.
pub(super) fn thing_types<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut types = Vec::<String>::deserialize(deserializer)?;
    if !types.iter().any(|name| name == BUILT_IN_TYPE) {
        types.insert(0, String::from(BUILT_IN_TYPE));
    }
    Ok(types)
}
