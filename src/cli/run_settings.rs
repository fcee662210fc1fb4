//! The recorded settings of a run that later commands need.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::retyped;
use crate::ledger::RunInfo;
use crate::sealing::Sealer;

/// The settings that a run of this or an earlier version recorded.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RunSettings {
    /// The command to repeat the run, without its ledger and the options that were for that run alone.
    pub(super) command: Option<String>,
    /// The age recipients of the run's private keys; `None` in runs from before sealing existed.
    pub(super) seal_to: Option<Vec<String>>,
    /// The ledger that this one was merged into.
    pub(super) merged_into: Option<String>,
    /// Parameters of every device, by name.
    pub(super) parameters: Option<Vec<(String, String)>>,
}

impl RunSettings {
    /// The settings of a run; the default if they cannot be read.
    pub(super) fn of(run: &RunInfo) -> Self {
        serde_json::from_str(&run.settings).unwrap_or_default()
    }
}

/// The settings to record for a run, including those specific to the verb.
pub(super) fn kept(sealer: Option<&Sealer>, own: Value) -> Map<String, Value> {
    let Value::Object(mut settings) = own else { unreachable!("settings are an object") };
    settings.insert(String::from("version"), env!("CARGO_PKG_VERSION").into());
    settings.insert(String::from("command"), retyped::again().into());
    settings.insert(String::from("seal_to"), sealer.map_or(&[][..], Sealer::recipients).into());
    settings
}

/// The settings for a results file. It has the rest in other fields, and parameters concern only the lot.
pub(super) fn published(mut settings: Map<String, Value>) -> Map<String, Value> {
    settings.retain(|name, _| !matches!(name.as_str(), "version" | "parameters" | "command"));
    settings
}
