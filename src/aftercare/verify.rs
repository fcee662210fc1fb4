//! Checks that every registered device is in the account what its template and its row say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::inspection::{Difference, Expected, Wanted, WantedThing, differences};
use super::look::{Looker, Subject};
use super::round::{Books, Trouble, go_through};
use super::{Ended, Setting, Shared};
use crate::control_plane::AskError;
use crate::event::DeviceState;
use crate::ledger::{Finding, Ledger, MadeDevice, MadeKind, MadeScope, RunId, RunInfo, Undone};
use crate::shard::Shard;

/// The verb under which the ledger records the findings.
pub const VERB: &str = "verify";
/// The outcome of a device that is as it should be.
pub const SOUND: &str = "sound";
/// The outcome of a device that is not as it should be.
pub const DIFFERS: &str = "differs";
/// The outcome of a device in which nothing seems wrong, and of which no value was there to compare with.
pub const NOT_COMPARED: &str = "not_compared";

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Only devices with one of these keys; empty for any.
    pub keys: std::collections::HashSet<String>,
    /// Only devices of this shard; `None` for any.
    pub shard: Option<Shard>,
    /// Skip devices that were checked in this run or a later one.
    pub since: Option<RunId>,
}

impl Plan {
    /// The devices that the plan chooses.
    pub fn scope(&self) -> MadeScope {
        MadeScope {
            verb: VERB,
            keys: self.keys.clone(),
            shard: self.shard,
            not_since: self.since,
            ..MadeScope::of(MadeKind::Registered)
        }
    }
}

/// Where a verification of a ledger's devices goes on, for `scope`: the first of its runs that have not completed. One
/// that began anew goes on with nothing from before it; `None` if a new verification is to begin.
pub fn unfinished(runs: &[RunInfo], begin: Begin, scope: &Value) -> Option<RunId> {
    let settings = |run: &RunInfo| -> Value { serde_json::from_str(&run.settings).unwrap_or_default() };
    let is_of_verb = |run: &&RunInfo| {
        let settings = settings(run);
        settings["verb"] == VERB && settings["only"].is_null() && settings["shard"] == *scope
    };
    let of_verb: Vec<&RunInfo> = runs.iter().filter(is_of_verb).collect();
    let open: Vec<_> =
        of_verb.into_iter().rev().take_while(|run| run.outcome.as_deref() != Some("complete")).collect();
    let anew = open.iter().find(|run| settings(run)["anew"] == true);
    let first = match begin {
        Begin::WhereStopped => anew.or(open.last()),
        Begin::Anew => anew,
    };
    first.map(|run| RunId(run.id))
}

/// Where a verification begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Where the last one stopped, if it did.
    WhereStopped,
    /// With the first device; but one that began so and was stopped goes on, so that it can come to its end.
    Anew,
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
    /// Checks and records one device; returns whether it is anything but sound.
    async fn inspect(&self, device: MadeDevice) -> Result<bool, Trouble> {
        let Some(certificate) = device.certificate() else {
            // Cannot happen: opening the ledger has checked that every registered device has a certificate.
            return Ok(true);
        };
        let (wanted, why_not) = self.setting.expectation.of(&device, Some(&certificate.id));
        let recorded = device.thing_name.as_deref();
        let is_known = wanted.as_ref().is_some_and(|wanted| !wanted.is_nothing_known());
        let wanted = wanted.unwrap_or_else(|| unknown(recorded.is_some()));
        let subject = Subject { thing: recorded, certificates: &[certificate], wanted: Some(&wanted) };
        let (found, is_compared, why_not) = match self.looker.look(&subject).await {
            // Another run would get the same answer.
            Err(error @ AskError::Rejected { .. }) => (Vec::new(), false, Some(error.to_string())),
            seen => (differences(&wanted, recorded, certificate.id.as_str(), &seen?), is_known, why_not),
        };
        let details = details(&device, &wanted, why_not, &found);
        let outcome = match (found.is_empty(), is_compared) {
            (true, true) => SOUND,
            (true, false) => NOT_COMPARED,
            (false, _) => DIFFERS,
        };
        let finding = Finding { device: device.id, outcome: outcome.to_owned(), details };
        self.books.note(Undone { finding, gone: Vec::new() }).await?;
        Ok(outcome != SOUND)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: i64, own: Value, outcome: Option<&str>) -> RunInfo {
        let mut settings = json!({ "verb": VERB, "only": null });
        settings.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        RunInfo {
            id,
            started_at: String::new(),
            ended_at: None,
            pid: 1,
            settings: settings.to_string(),
            outcome: outcome.map(String::from),
            summary: None,
        }
    }

    #[test]
    fn a_run_goes_on_where_the_one_before_was_stopped_and_not_before_one_that_began_anew() {
        let plain = |id| run(id, json!({}), Some("drained"));
        let anew = |id| run(id, json!({"anew": true}), None);
        let done = |id| run(id, json!({}), Some("complete"));
        let first = |runs: &[RunInfo], begin| unfinished(runs, begin, &Value::Null).map(|run| run.0);
        for (runs, where_stopped, begun_anew) in [
            (vec![], None, None),
            (vec![done(1)], None, None),
            (vec![done(1), plain(2), plain(3)], Some(2), None),
            // What runs before it found is looked at again, and it is not begun a second time.
            (vec![plain(1), anew(2)], Some(2), Some(2)),
            (vec![plain(1), anew(2), plain(3)], Some(2), Some(2)),
            (vec![anew(1), done(2)], None, None),
            (vec![plain(1), run(2, json!({"only": 1}), Some("complete"))], Some(1), None),
            (vec![plain(1), run(2, json!({"shard": "0/2"}), Some("complete"))], Some(1), None),
        ] {
            assert_eq!(first(&runs, Begin::WhereStopped), where_stopped, "{runs:?}");
            assert_eq!(first(&runs, Begin::Anew), begun_anew, "{runs:?}");
        }
    }
}
