//! Results files: what a run measured, second by second, so that it can be looked at, merged and compared later.
//!
//! Owns the file format, version 1: JSON Lines; the first line a header, then a line for each second, the last line a
//! footer. A run that crashed leaves a file without a footer, whose seconds are all good. Written and read in constant memory.
//! Computes nothing: adding up is [`crate::metrics`]', showing is the reports'.

mod line;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::metrics::Slowest;
use crate::metrics::threshold::Judgement;

pub use read::{Ending, Extent, Results, extent};
pub use write::ResultsWriter;

/// The version of the format: raised when a field changes its meaning or goes away, not when one is added.
pub const VERSION: u32 = 1;

/// What the run was, known before it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The program and its version, such as `fleetmint 0.1.0`.
    pub tool: String,
    /// What it did, such as `provision` or `load publish`.
    pub verb: String,
    /// The command line, without secrets.
    pub command: String,
    /// What the command meant, by name; no secret.
    #[serde(default)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The instant of second 0, by which files of one test on several machines are aligned.
    #[serde(with = "crate::instant::serde_text")]
    pub started_at: SystemTime,
    /// The schedule of arrivals, in words; `None` if the run had none.
    #[serde(default)]
    pub offered: Option<String>,
    /// Rate limits by operation name, per second.
    #[serde(default)]
    pub limits: BTreeMap<String, f64>,
    /// The warm-up before second 0, in seconds; what ended in it is in no figure and no line.
    #[serde(default)]
    pub warm_up_s: f64,
    /// Where it worked; `None` in files from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// The lot, whole even for a shard: the first 16 digits of its digest. `None` for made-up devices, without a ledger, and
    /// in files from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lot: Option<String>,
}

/// Where a run worked: without this, its figures say little to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Site {
    /// The endpoint's address.
    pub endpoint: String,
    /// The region that requests were signed for.
    pub region: String,
    /// The machine that fleetmint ran on, if the system names it.
    #[serde(default)]
    pub host: Option<String>,
    /// Whether the endpoint was an emulator, and not AWS.
    pub is_emulator: bool,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Footer {
    /// `complete`, `drained`, `aborted`, `stopped`, or another end that the command has.
    pub end: String,
    /// Why, in words, and what to do; empty if the name says everything.
    #[serde(default)]
    pub detail: String,
    /// From second 0 to the end, in seconds.
    pub elapsed_s: f64,
    /// The devices of the run's ledger by state, over all its runs; `None` without a ledger.
    #[serde(default)]
    pub devices: Option<Devices>,
    /// How the thresholds were judged.
    #[serde(default)]
    pub thresholds: Vec<Judgement>,
    /// The slowest attempts.
    #[serde(default, with = "line::slowest")]
    pub slowest: Slowest,
    /// What limited the run; `None` if that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// The service's own limits by operation name, per second, as far as the run established them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found_per_s: BTreeMap<String, f64>,
}

/// What limited a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// `quota`, `connections`, `service`, or `nothing` if the measured times do not tell.
    pub by: String,
    /// In words, with the figures that show it.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub hint: String,
}

/// Devices by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Devices {
    /// All.
    pub total: u64,
    /// Confirmed by the service.
    pub registered: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Maybe registered, and nothing can settle it.
    pub unknown: u64,
    /// Maybe registered; the next run may settle it. Older files count these as unknown.
    #[serde(default)]
    pub unsettled: u64,
    /// Surely not registered yet.
    pub pending: u64,
}

/// Why a results file cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("results file {}: {problem}", .file.display())]
pub struct ResultsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a results file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file of that name exists.
    #[error("the file exists, and is left as it is; choose another name, or move it away")]
    Exists,
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("not a results file of fleetmint: {0}")]
    NotResults(String),
    /// The file has a format that this version does not know.
    #[error(
        "its format is version {found}, and this fleetmint reads version {VERSION}; use the fleetmint that wrote it, or a newer one"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// A line is damaged.
    #[error("line {line}{}: {what}; the lines before it are good, `head -n {} FILE` keeps them", in_column(.column), .line - 1)]
    Damaged {
        /// Its number, from 1.
        line: u64,
        /// The column, from 1, where that is known.
        column: Option<usize>,
        /// What is wrong, with the name of the field.
        what: String,
    },
}

fn in_column(column: &Option<usize>) -> String {
    column.map_or(String::new(), |column| format!(", column {column}"))
}

#[cfg(test)]
mod tests;
