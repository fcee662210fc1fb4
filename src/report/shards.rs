//! Whether results are those of all shards of a job, each once.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compile::CompileError;
use crate::results::{Ending, Extent};
use crate::shard::Shard;

/// The setting of a run that says which shard it was.
const SHARD: &str = "shard";

/// The shards that a report has the results of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardReport {
    /// Of how many.
    pub of: u32,
    /// The numbers of those without results, from 0.
    pub missing: Vec<u32>,
    /// Those that did not come to their end.
    pub ended_early: Vec<EarlyShard>,
}

/// A shard that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyShard {
    /// Its number, from 0.
    pub shard: u32,
    /// How it ended; `no end` if its file has none.
    pub end: String,
    /// How many devices it left open, if it had any.
    pub open: u64,
}

impl ShardReport {
    /// Whether all shards are there, and came to their end.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.ended_early.is_empty()
    }

    /// What is to be said of them, a sentence each; the first one is how many there are.
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

/// What shards these results are of; `None` if they are of whole jobs.
///
/// # Errors
/// If the jobs were cut otherwise, or a load test's shard is there twice: it is not offered again.
pub(super) fn of<'a>(
    runs: impl Iterator<Item = (&'a Path, &'a Extent)>,
) -> Result<Option<ShardReport>, CompileError> {
    let mut found: Vec<(Option<Shard>, PathBuf, &Extent)> = Vec::new();
    for (file, extent) in runs {
        let shard = shard_of(extent);
        if let Some((other, first, _)) = found.first()
            && other.map(|shard| shard.of) != shard.map(|shard| shard.of)
        {
            let said = |shard: Option<Shard>| {
                shard.map_or(String::from("a whole job"), |shard| format!("shard {shard}"))
            };
            return Err(CompileError::OtherCut(first.clone(), said(*other), file.to_path_buf(), said(shard)));
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
    for index in 0..of {
        // The last run of a shard says how it ended: a task that was done again goes on where it stopped.
        let last = found.iter().rev().find(|(shard, ..)| shard.is_some_and(|shard| shard.index == index));
        match last {
            None => report.missing.push(index),
            Some((_, _, extent)) => report.ended_early.extend(early(index, extent)),
        }
    }
    Ok(Some(report))
}

fn shard_of(extent: &Extent) -> Option<Shard> {
    let (index, of) = extent.header.settings.get(SHARD)?.as_str()?.split_once('/')?;
    Shard::new(index.parse().ok()?, of.parse().ok()?)
}

fn early(shard: u32, extent: &Extent) -> Option<EarlyShard> {
    match &extent.ending {
        Ending::CutOff => Some(EarlyShard { shard, end: String::from("no end"), open: 0 }),
        // What a search or a test comes to is its own affair.
        Ending::Footer(footer) if ["complete", "threshold_lost"].contains(&footer.end.as_str()) => None,
        Ending::Footer(footer) => {
            let open = footer
                .devices
                .as_ref()
                .map_or(0, |devices| devices.total.saturating_sub(devices.registered + devices.rejected));
            Some(EarlyShard { shard, end: footer.end.clone(), open })
        }
    }
}
