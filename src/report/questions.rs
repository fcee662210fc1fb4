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

    /// The devices of the ledgers by state: of each shard, as its last run left them. `None` if one of these does not say, or
    /// a shard is missing; and if runs are of different lots: nothing says which of them go on with which.
    pub fn devices(&self) -> Option<Devices> {
        if self.shards.as_ref().is_some_and(|shards| !shards.missing.is_empty()) {
            return None;
        }
        let mut last: BTreeMap<Option<u32>, &Run> = BTreeMap::new();
        for run in &self.runs {
            let before = last.insert(run.shard().map(|shard| shard.index), run);
            if before.is_some_and(|before| !before.is_same_lot(run)) {
                return None;
            }
        }
        let devices = last.into_values().map(|run| run.devices).collect::<Option<Vec<_>>>()?;
        devices.into_iter().reduce(|sum, devices| Devices {
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

    /// The parts of the load profile on the timeline, each as long as all runs were in it, with what they offered together.
    /// Empty if they did not have one profile.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let mut profiles = self.runs.iter().map(|run| run.settings.get("profile"));
        let first = profiles.next().flatten();
        let Some(profile) = first.and_then(|text| text.parse::<Profile>().ok()) else { return Vec::new() };
        if profiles.any(|other| other != first) {
            return Vec::new();
        }
        let all = self.runs.iter().map(|run| run.stages(&profile));
        let stages =
            all.reduce(|sum, stages| sum.iter().zip(&stages).map(|(sum, one)| together(sum, one)).collect());
        stages.into_iter().flatten().filter(|stage| stage.ends_s > stage.begins_s.max(0.0)).collect()
    }
}

impl Run {
    fn is_same_lot(&self, other: &Run) -> bool {
        let totals = self.devices.zip(other.devices);
        self.lot == other.lot && totals.is_none_or(|(one, other)| one.total == other.total)
    }

    /// The parts of its profile on the timeline, and its own share of the rate.
    fn stages(&self, profile: &Profile) -> Vec<Stage> {
        let zero_s = self.begins_at_s as f64;
        let of = self.shard().map_or(1.0, |shard| f64::from(shard.of));
        let placed = profile.stages().map(|stage| Stage {
            begins_s: zero_s + stage.begins_s - self.warm_up_s,
            ends_s: zero_s + (stage.ends_s - self.warm_up_s).min(self.elapsed_s),
            rate: stage.rate.map(|rate| rate / of),
        });
        placed.collect()
    }
}

/// A part of a profile while both runs were in it.
fn together(one: &Stage, other: &Stage) -> Stage {
    Stage {
        begins_s: one.begins_s.max(other.begins_s),
        ends_s: one.ends_s.min(other.ends_s),
        rate: one.rate.zip(other.rate).map(|(one, other)| one + other),
    }
}
