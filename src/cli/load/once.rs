//! A shard's load is offered once: a task that a scheduler starts again does not offer it a second time.
//!
//! The scheduler may say that it was started before; its results or its ledger show it.

use serde_json::{Map, Value};

use crate::cli::exit::{Exit, Fatal, ledger as ledger_error};
use crate::cli::settings::usage;
use crate::cli::shard::Part;
use crate::ledger::{RunInfo, View};
use std::path::Path;

/// The settings of a run that make it the same test.
const TEST: [&str; 5] = ["verb", "profile", "spacing", "seed", "shard"];

/// Refuses a shard that was started before, by its scheduler or its results. One that has no ledger needs results: they
/// show the next one that this one began.
pub(super) fn refuse_restart(part: Part, results: Option<&Path>, has_ledger: bool) -> Result<(), Fatal> {
    if part.shard.is_none() {
        return Ok(());
    }
    if let Some(why) = part.restart() {
        return Err(again(&why));
    }
    match results.map(|file| part.own_output(file.to_owned())) {
        Some(own) if own.exists() => Err(again(&format!("there are results of it, {}", own.display()))),
        None if !has_ledger => Err(usage(
            "--results",
            "is missing: a shard's figures are put together from it, and a task that is started again knows by it that \
             the load was offered",
        )),
        _ => Ok(()),
    }
}

/// Refuses a shard whose ledger has a run of the same test that offered anything, or crashed.
pub(super) fn refuse_known(own: &Map<String, Value>, view: &View) -> Result<(), Fatal> {
    if !own.contains_key("shard") {
        return Ok(());
    }
    let runs = view.runs().map_err(ledger_error)?;
    match runs.iter().find(|run| is_same(own, run) && has_offered(run)) {
        None => Ok(()),
        Some(run) => Err(again(&format!(
            "the ledger {} has a run of it, begun at {}",
            view.path().display(),
            run.started_at
        ))),
    }
}

fn is_same(own: &Map<String, Value>, run: &RunInfo) -> bool {
    let settings: Value = serde_json::from_str(&run.settings).unwrap_or_default();
    TEST.iter().all(|name| settings.get(name) == own.get(*name))
}

fn has_offered(run: &RunInfo) -> bool {
    let summary: Value =
        run.summary.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    summary["arrivals"]["scheduled"].as_u64() != Some(0)
}

fn again(why: &str) -> Fatal {
    Fatal::new(
        Exit::Usage,
        format!(
            "this shard of the load test was begun before: {why}. A load test is not run again: what its first task offered \
             counts, and `report` names a shard that ended early. For a new test give new --results and a new --ledger"
        ),
    )
}
