//! The seconds of several results files on one timeline.
//!
//! Files are aligned by their machines' wall clocks, to the second; pauses of more than [`LONGEST_PAUSE_S`] in which no
//! run was under way are cut out. Reads the files twice, in constant memory: first for their length, then for their
//! figures.

use std::fs::File;
use std::io::BufReader;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::compile::CompileError;
use crate::metrics::Interval;
use crate::results::{self, Ending, Extent, Results, ResultsError};

/// The longest pause between two runs that stays on the timeline, in seconds.
pub const LONGEST_PAUSE_S: f64 = 10.0;

/// A file and its position on the timeline.
pub(super) struct Placed {
    pub(super) file: PathBuf,
    pub(super) extent: Extent,
    pub(super) elapsed_s: f64,
    /// The position of its second 0, in seconds after the first run's.
    pub(super) begins_at_s: u64,
}

/// All files in the order of their start, and the timeline that they form.
pub(super) struct Placement {
    pub(super) runs: Vec<Placed>,
    pub(super) elapsed_s: f64,
    pub(super) cut_out_s: f64,
}

impl Placement {
    /// Places `files`, at least one.
    pub(super) fn of(files: &[PathBuf]) -> Result<Self, CompileError> {
        let mut found: Vec<(PathBuf, Extent)> = Vec::with_capacity(files.len());
        for file in files {
            let extent = results::extent(file)?;
            if let Some((first, _)) = found.iter().find(|(_, other)| *other == extent) {
                return Err(CompileError::Twice(first.clone(), file.clone()));
            }
            found.push((file.clone(), extent));
        }
        found.sort_by_key(|(_, extent)| extent.header.started_at);
        let first = found.first().map_or(SystemTime::UNIX_EPOCH, |(_, extent)| extent.header.started_at);
        let mut placement =
            Placement { runs: Vec::with_capacity(found.len()), elapsed_s: 0.0, cut_out_s: 0.0 };
        for (file, extent) in found {
            let elapsed_s = match &extent.ending {
                Ending::Footer(footer) => footer.elapsed_s,
                Ending::CutOff => extent.seconds as f64,
            };
            let since =
                extent.header.started_at.duration_since(first).unwrap_or(Duration::ZERO).as_secs_f64();
            let mut begins = since - placement.cut_out_s;
            let pause = begins - placement.elapsed_s;
            if pause > LONGEST_PAUSE_S {
                placement.cut_out_s += pause;
                begins = placement.elapsed_s;
            }
            placement.elapsed_s = placement.elapsed_s.max(begins + elapsed_s);
            placement.runs.push(Placed { file, extent, elapsed_s, begins_at_s: begins.round() as u64 });
        }
        Ok(placement)
    }

    /// How many seconds the timeline has.
    pub(super) fn seconds(&self) -> u64 {
        self.runs.iter().map(|run| run.begins_at_s + run.extent.seconds).max().unwrap_or(0)
    }

    /// Reads the files, second by second.
    pub(super) fn read(&self) -> Result<Seconds, ResultsError> {
        let open = |run: &Placed| Reader::open(&run.file, run.begins_at_s);
        Ok(Seconds { readers: self.runs.iter().map(open).collect::<Result<_, _>>()?, end: self.seconds() })
    }
}

/// A second of the timeline.
pub(super) struct Second {
    pub(super) second: u64,
    /// What the runs measured in it.
    pub(super) intervals: Vec<Interval>,
    pub(super) connections: u32,
    pub(super) in_flight: u32,
}

/// The seconds of all files, in order; those in which nothing was measured are left out.
pub(super) struct Seconds {
    readers: Vec<Reader>,
    end: u64,
}

impl Seconds {
    pub(super) fn next(&mut self) -> Result<Option<Second>, ResultsError> {
        let mut next = None;
        for reader in &mut self.readers {
            next = next.into_iter().chain(reader.next_second()?).min();
        }
        // A run that is still writing may have grown since its length was read; the rest is left for the next report.
        let Some(second) = next.filter(|second| *second < self.end) else { return Ok(None) };
        let intervals = self.readers.iter_mut().filter_map(|reader| reader.take(second)).collect();
        let sum = |of: fn(&Reader) -> u32| self.readers.iter().map(of).fold(0, u32::saturating_add);
        let (connections, in_flight) = (sum(|reader| reader.connections), sum(|reader| reader.in_flight));
        Ok(Some(Second { second, intervals, connections, in_flight }))
    }
}

/// Reads one file along the timeline.
struct Reader {
    intervals: Peekable<Results<BufReader<File>>>,
    begins_at_s: u64,
    /// As of the last second read; 0 after the end.
    connections: u32,
    in_flight: u32,
}

impl Reader {
    fn open(file: &Path, begins_at_s: u64) -> Result<Self, ResultsError> {
        let intervals = Results::open(file)?.peekable();
        Ok(Self { intervals, begins_at_s, connections: 0, in_flight: 0 })
    }

    /// The second of its next interval.
    fn next_second(&mut self) -> Result<Option<u64>, ResultsError> {
        if let Some(Err(error)) = self.intervals.next_if(Result::is_err) {
            return Err(error);
        }
        let next = self.intervals.peek();
        Ok(next.and_then(|next| next.as_ref().ok()).map(|interval| self.begins_at_s + interval.second))
    }

    fn take(&mut self, second: u64) -> Option<Interval> {
        let begins_at_s = self.begins_at_s;
        let is_due = |next: &Result<Interval, ResultsError>| {
            next.as_ref().is_ok_and(|interval| begins_at_s + interval.second == second)
        };
        if self.intervals.peek().is_none() {
            (self.connections, self.in_flight) = (0, 0);
        }
        let interval = self.intervals.next_if(is_due)?.ok()?;
        (self.connections, self.in_flight) = (interval.connections, interval.in_flight);
        Some(interval)
    }
}
