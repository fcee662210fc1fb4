//! What the ledger keeps of a run's settings, as far as a later command asks for it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::retyped;
use crate::ledger::RunInfo;
use crate::sealing::Sealer;

/// What a run wrote down of its settings, this version's or an older one's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RunSettings {
    /// The command to type again, but for its ledger and what was for one run alone.
    pub(super) command: Option<String>,
    /// The age recipients of the run's private keys; `None` in runs from before sealing existed.
    pub(super) seal_to: Option<Vec<String>>,
    /// Parameters of every device, by name.
    pub(super) parameters: Option<Vec<(String, String)>>,
}

impl RunSettings {
    /// Those of a run; nothing where they cannot be read.
    pub(super) fn of(run: &RunInfo) -> Self {
        serde_json::from_str(&run.settings).unwrap_or_default()
    }
}

/// What the ledger is to keep of every run's settings, with what is the verb's own.
pub(super) fn kept(sealer: Option<&Sealer>, own: Value) -> Map<String, Value> {
    let Value::Object(mut settings) = own else { unreachable!("settings are an object") };
    settings.insert(String::from("version"), env!("CARGO_PKG_VERSION").into());
    settings.insert(String::from("command"), retyped::again().into());
    settings.insert(String::from("seal_to"), sealer.map_or(&[][..], Sealer::recipients).into());
    settings
}

/// What a results file has of them: the rest it says elsewhere, and parameters are the lot's own affair.
pub(super) fn published(mut settings: Map<String, Value>) -> Map<String, Value> {
    settings.retain(|name, _| !matches!(name.as_str(), "version" | "parameters" | "command"));
    settings
}
