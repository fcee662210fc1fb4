//! Whether results cover all shards of a job, each once.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compile::CompileError;
use super::model::Run;
use crate::results::{Ending, Extent, Header};
use crate::shard::Shard;

/// The setting that tells which shard a run was.
const SHARD: &str = "shard";
/// The setting that the arrivals of a load test are drawn from.
const SEED: &str = "seed";

/// The shards that a report has results of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardReport {
    /// The number of shards of the job.
    pub of: u32,
    /// The numbers of the shards without results, from 0.
    pub missing: Vec<u32>,
    /// The shards that did not complete.
    pub ended_early: Vec<EarlyShard>,
}

/// A shard that did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyShard {
    /// Its number, from 0.
    pub shard: u32,
    /// How it ended; `no end` if its file records none.
    pub end: String,
    /// How many devices it left open; 0 if it had none.
    pub open: u64,
}

impl ShardReport {
    /// Whether all shards are there and complete.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.ended_early.is_empty()
    }

    /// The report as sentences; the first gives the number of shards.
    pub fn sentences(&self) -> Vec<String> {
        let there = self.of as usize - self.missing.len();
        let mut said = vec![format!("{there} of {} shards", self.of)];
        said.extend(self.missing.iter().map(|shard| format!("shard {shard}/{} is missing", self.of)));
        said.extend(self.ended_early.iter().map(|EarlyShard { shard, end, open }| {
            let left = if *open > 0 { format!(", {open} devices open") } else { String::new() };
            format!("shard {shard}/{} ended early ({}){left}", self.of, end.replace('_', " "))
        }));
        said
    }
}

/// Which shards these results belong to; `None` if they are of whole jobs.
///
/// # Errors
/// If they are of different jobs, or a load test's shard occurs twice: a shard's load is not offered again.
pub(super) fn of<'a>(
    runs: impl Iterator<Item = (&'a Path, &'a Extent)>,
) -> Result<Option<ShardReport>, CompileError> {
    let mut found: Vec<(Option<Shard>, PathBuf, &Extent)> = Vec::new();
    for (file, extent) in runs {
        let shard = shard_of(extent);
        if let Some((_, first, other)) = found.first()
            && job(other) != job(extent)
        {
            return Err(other_cut((first, other), (file, extent)));
        }
        let twice = found.iter().find(|(other, ..)| shard.is_some() && *other == shard);
        if let (Some(shard), Some((_, first, _))) = (shard, twice)
            && extent.header.verb.starts_with("load")
        {
            return Err(CompileError::ShardTwice { shard, first: first.clone(), second: file.to_path_buf() });
        }
        found.push((shard, file.to_path_buf(), extent));
    }
    let Some(of) = found.iter().find_map(|(shard, ..)| shard.map(|shard| shard.of)) else { return Ok(None) };
    let mut report = ShardReport { of, missing: Vec::new(), ended_early: Vec::new() };
    let last = |index| found.iter().rev().find(|(shard, ..)| shard.is_some_and(|shard| shard.index == index));
    for index in 0..of {
        // The last run of a shard says how it ended: a repeated task resumes where it stopped.
        match last(index) {
            None => report.missing.push(index),
            Some((_, _, extent)) => report.ended_early.extend(early(index, extent)),
        }
    }
    // Between the runs of a shard rows may come and go; its last run has the lot that all shards have.
    let mut with_lot = (0..of).filter_map(last).filter(|(_, _, extent)| extent.header.lot.is_some());
    if let Some((_, first, one)) = with_lot.next()
        && let Some((_, file, other)) = with_lot.find(|(_, _, other)| other.header.lot != one.header.lot)
    {
        return Err(other_cut((first, one), (file, other)));
    }
    Ok(Some(report))
}

fn other_cut((first, one): (&Path, &Extent), (file, other): (&Path, &Extent)) -> CompileError {
    CompileError::OtherCut(first.to_path_buf(), said(one), file.to_path_buf(), said(other))
}

/// What the shards of one job have in common: their number, and the load that they divide. Whole jobs may differ.
fn job(extent: &Extent) -> Option<(u32, Option<&str>, Option<&serde_json::Value>)> {
    let Header { offered, settings, .. } = &extent.header;
    shard_of(extent).map(|shard| (shard.of, offered.as_deref(), settings.get(SEED)))
}

fn said(extent: &Extent) -> String {
    let Some(shard) = shard_of(extent) else { return String::from("a whole job") };
    let Header { offered, settings, lot, .. } = &extent.header;
    let offered = offered.as_ref().map_or(String::new(), |offered| {
        let seed = settings.get(SEED).map_or(String::new(), |seed| format!(" (seed {seed})"));
        format!(" of {offered}{seed}")
    });
    let lot = lot.as_ref().map_or(String::new(), |lot| format!(", lot {lot}"));
    format!("shard {shard}{offered}{lot}")
}

fn shard_of(extent: &Extent) -> Option<Shard> {
    parse(extent.header.settings.get(SHARD)?.as_str()?)
}

fn parse(text: &str) -> Option<Shard> {
    let (index, of) = text.split_once('/')?;
    Shard::new(index.parse().ok()?, of.parse().ok()?)
}

impl Run {
    /// Which shard it was; `None` if it was a whole job.
    pub(super) fn shard(&self) -> Option<Shard> {
        parse(self.settings.get(SHARD)?)
    }
}

fn early(shard: u32, extent: &Extent) -> Option<EarlyShard> {
    match &extent.ending {
        Ending::CutOff => Some(EarlyShard { shard, end: String::from("no end"), open: 0 }),
        Ending::Footer(footer) if footer.end == "complete" => None,
        Ending::Footer(footer) => {
            let open = footer
                .devices
                .as_ref()
                .map_or(0, |devices| devices.total.saturating_sub(devices.registered + devices.rejected));
            Some(EarlyShard { shard, end: footer.end.clone(), open })
        }
    }
}
