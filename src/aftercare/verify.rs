//! Checks that every registered device is in the account what its template and its row say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::inspection::{Difference, Expected, Wanted, WantedThing, differences};
use super::look::{Looker, Subject};
use super::round::{Books, Trouble, go_through};
use super::{Ended, Setting, Shared};
use crate::event::DeviceState;
use crate::ledger::{Finding, Ledger, MadeDevice, MadeKind, MadeScope, RunId, RunInfo, Undone};

/// The verb under which the ledger records the findings.
pub const VERB: &str = "verify";
/// The outcome of a device that is as it should be.
pub const SOUND: &str = "sound";
/// The outcome of a device that is not as it should be.
pub const DIFFERS: &str = "differs";

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Only devices with one of these keys; empty for any.
    pub keys: std::collections::HashSet<String>,
    /// Skip devices that were checked in this run or a later one.
    pub since: Option<RunId>,
}

impl Plan {
    /// The devices that the plan chooses.
    pub fn scope(&self) -> MadeScope {
        MadeScope {
            verb: VERB,
            of: MadeKind::Registered,
            keys: self.keys.clone(),
            since_run: None,
            not_since: self.since,
        }
    }
}

/// The first run of the verification that is still in progress: the first one after the last that completed, ignoring
/// runs over a few chosen devices. `None` if a new verification is to begin.
pub fn unfinished(runs: &[RunInfo]) -> Option<RunId> {
    let is_of_verb = |run: &&RunInfo| {
        let settings: Value = serde_json::from_str(&run.settings).unwrap_or_default();
        settings["verb"] == VERB && settings["only"].is_null()
    };
    let of_verb: Vec<&RunInfo> = runs.iter().filter(is_of_verb).collect();
    let open = of_verb.iter().rev().take_while(|run| run.outcome.as_deref() != Some("complete"));
    open.last().map(|run| RunId(run.id))
}

/// Checks every device that `plan` chooses, and records the findings.
pub async fn run(plan: &Plan, ledger: Ledger, setting: &Setting) -> (Ended, Ledger) {
    let shared = Shared::new(ledger);
    let (books, keeper) = Books::open(&shared, VERB, setting.clock);
    let inspector = Arc::new(Inspector {
        looker: Looker::new(setting.control_plane.clone()),
        setting: setting.clone(),
        books,
    });
    let act = |device| {
        let inspector = inspector.clone();
        async move { inspector.inspect(device).await }
    };
    let ended = go_through(&shared, plan.scope(), setting, act).await;
    drop(inspector);
    let problem = keeper.close().await;
    (problem.map_or(ended, Ended::Ledger), shared.into_ledger().await)
}

struct Inspector {
    looker: Looker,
    setting: Setting,
    books: Books,
}

impl Inspector {
    /// Checks and records one device; returns whether it differs.
    async fn inspect(&self, device: MadeDevice) -> Result<bool, Trouble> {
        let Some(certificate) = device.certificate() else {
            // Cannot happen: opening the ledger has checked that every registered device has a certificate.
            return Ok(true);
        };
        let (wanted, why_not) = self.setting.expectation.of(&device, Some(&certificate.id));
        let recorded = device.thing_name.as_deref();
        let wanted = wanted.unwrap_or_else(|| unknown(recorded.is_some()));
        let subject = Subject { thing: recorded, certificates: &[certificate], wanted: Some(&wanted) };
        let seen = self.looker.look(&subject).await?;
        let found = differences(&wanted, recorded, certificate.id.as_str(), &seen);
        let details = details(&device, &wanted, why_not, &found);
        let outcome = if found.is_empty() { SOUND } else { DIFFERS };
        let finding = Finding { device: device.id, outcome: outcome.to_owned(), details };
        self.books.note(Undone { finding, gone: Vec::new() }).await?;
        Ok(!found.is_empty())
    }
}

/// What is expected of a device whose template is missing or cannot be evaluated for its row: only that its parts
/// belong together.
fn unknown(has_thing: bool) -> Wanted {
    let thing = WantedThing {
        name: Expected::NotCheckable,
        type_name: Expected::NotCheckable,
        attributes: Expected::NotCheckable,
        groups: Expected::NotCheckable,
        billing_group: Expected::NotCheckable,
    };
    Wanted {
        thing: has_thing.then_some(thing),
        status: Expected::Known("ACTIVE"),
        policies: vec![Expected::NotCheckable],
    }
}

fn details(device: &MadeDevice, wanted: &Wanted, why_not: Option<String>, found: &[Difference]) -> Value {
    let found: Vec<_> = found
        .iter()
        .map(|difference| json!({"kind": difference.kind(), "what": difference.to_string()}))
        .collect();
    let mut details = json!({
        "thing": device.thing_name,
        "certificate": device.certificate().map(|certificate| certificate.id.as_str()),
        "registered_at": device.updated_at.as_ref().filter(|_| device.state == DeviceState::Registered),
        "differences": found,
        "not_checkable": wanted.not_checkable(),
    });
    if let Some(why) = why_not {
        details["why_not_checkable"] = why.into();
    }
    details
}
