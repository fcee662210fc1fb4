//! What is asked of a report in more than one place.

use std::collections::BTreeMap;

use super::model::{OperationReport, Report, Run};
use super::under_way::{self, Span};
use crate::metrics::threshold::Judgement;
use crate::results::Devices;
use crate::schedule::{Profile, Stage};

impl Report {
    /// The operation of this name; `None` if there were no attempts.
    pub(super) fn operation(&self, name: &str) -> Option<&OperationReport> {
        self.operations.iter().find(|one| one.operation == name)
    }

    /// The devices of the ledgers by state: of each shard, as its last run left them. `None` if runs are of different
    /// lots: nothing says which of them go on with which.
    pub fn devices(&self) -> Option<Devices> {
        let mut last: BTreeMap<Option<&String>, Devices> = BTreeMap::new();
        for run in &self.runs {
            if let Some(devices) = run.devices {
                let before = last.insert(run.settings.get("shard"), devices);
                if before.is_some_and(|before| before.total != devices.total) {
                    return None;
                }
            }
        }
        last.into_values().reduce(|sum, devices| Devices {
            total: sum.total + devices.total,
            registered: sum.registered + devices.registered,
            rejected: sum.rejected + devices.rejected,
            unknown: sum.unknown + devices.unknown,
            unsettled: sum.unsettled + devices.unsettled,
            pending: sum.pending + devices.pending,
        })
    }

    /// The highest sum of a rate over the runs that were under way at the same time; `None` if one of them has none.
    pub(super) fn most_under_way(&self, per_s: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let span = |run: &Run| {
            let begins_s = run.begins_at_s as f64;
            Span { begins_s, ends_s: begins_s + run.elapsed_s, per_s: per_s(run) }
        };
        under_way::most(&self.runs.iter().map(span).collect::<Vec<_>>())
    }

    /// All thresholds: of the runs, and of what changed since the baseline.
    pub fn judgements(&self) -> impl Iterator<Item = &Judgement> {
        let changes = self.comparison.iter().flat_map(|comparison| &comparison.thresholds);
        self.thresholds.iter().chain(changes)
    }

    /// Whether one of the runs was against an emulator.
    pub fn is_emulated(&self) -> bool {
        self.runs.iter().any(|run| run.site.as_ref().is_some_and(|site| site.is_emulator))
    }

    /// The parts of the load profile on the timeline, if there is one for all runs.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let [run] = &self.runs[..] else { return Vec::new() };
        let profile = run.settings.get("profile").and_then(|text| text.parse::<Profile>().ok());
        let stages = profile.iter().flat_map(Profile::stages);
        let moved = stages.map(|stage| Stage {
            begins_s: stage.begins_s - run.warm_up_s,
            ends_s: stage.ends_s - run.warm_up_s,
            ..stage
        });
        moved.filter(|stage| stage.ends_s > 0.0 && stage.begins_s < self.elapsed_s).collect()
    }
}
