//! Results files as HdrHistogram interval logs, for HdrHistogram's own tools.
//!
//! The format is version 1.3 of `HistogramLogWriter`, <https://github.com/HdrHistogram/HdrHistogram>: a line per
//! interval with its start and length in seconds, its largest value, and the histogram. Values are microseconds.
//! Written in constant memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::Operation;
use crate::instant;
use crate::metrics::{Interval, Latency};
use crate::results::{self, Results, ResultsError};

/// Why no logs were written.
#[derive(Debug, thiserror::Error)]
pub enum HlogError {
    /// A results file cannot be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A log cannot be written.
    #[error("{} could not be written: {error}", .file.display())]
    Unwritable {
        /// The folder or the log.
        file: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Writes a log for each operation with latencies in `files`, as `OPERATION.hlog` into `folder`, which is created if
/// necessary; existing logs of those names are replaced. Service and response times share a log, under the tags
/// `service` and `response`. Intervals are in the order of `files`, each with its wall-clock time. Returns the number
/// of logs.
///
/// # Errors
/// If a file cannot be read, or a log cannot be written.
pub fn write_hlogs(files: &[PathBuf], folder: &Path) -> Result<usize, HlogError> {
    let unwritable = |error| HlogError::Unwritable { file: folder.to_owned(), error };
    fs::create_dir_all(folder).map_err(unwritable)?;
    let mut starts = Vec::with_capacity(files.len());
    for file in files {
        starts.push((results::extent(file)?.header.started_at, file));
    }
    starts.sort();
    let mut logs =
        Logs { folder, started_at: starts.first().map_or(UNIX_EPOCH, |(at, _)| *at), open: BTreeMap::new() };
    for (started_at, file) in starts {
        for interval in Results::open(file)? {
            logs.interval(started_at, &interval?)?;
        }
    }
    logs.finish()
}

struct Logs<'a> {
    folder: &'a Path,
    /// The earliest start of all files.
    started_at: SystemTime,
    open: BTreeMap<&'static str, Log>,
}

struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Logs<'_> {
    fn interval(&mut self, started_at: SystemTime, interval: &Interval) -> Result<(), HlogError> {
        let at = epoch_s(started_at) + interval.second as f64;
        for operation in Operation::ALL {
            let metrics = interval.metrics.operation(operation);
            for (tag, latency) in [("service", &metrics.service), ("response", &metrics.response)] {
                if latency.count() > 0 {
                    self.log(operation.name())?.line(at, tag, latency)?;
                }
            }
        }
        Ok(())
    }

    fn log(&mut self, operation: &'static str) -> Result<&mut Log, HlogError> {
        if !self.open.contains_key(operation) {
            let log = Log::create(self.folder.join(format!("{operation}.hlog")), self.started_at)?;
            self.open.insert(operation, log);
        }
        Ok(self.open.get_mut(operation).expect("it was inserted just above"))
    }

    fn finish(self) -> Result<usize, HlogError> {
        let count = self.open.len();
        for mut log in self.open.into_values() {
            log.file.flush().map_err(|error| log.error(error))?;
        }
        Ok(count)
    }
}

impl Log {
    fn create(path: PathBuf, started_at: SystemTime) -> Result<Self, HlogError> {
        let file = File::create(&path);
        let file = file.map_err(|error| HlogError::Unwritable { file: path.clone(), error })?;
        let mut log = Self { path, file: BufWriter::new(file) };
        let at = epoch_s(started_at);
        log.write(format_args!(
            "#[Logged with fleetmint {}; values in microseconds]\n#[Histogram log format version 1.3]\n\
             #[StartTime: {at:.3} (seconds since epoch), {}]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            env!("CARGO_PKG_VERSION"),
            instant::to_text(started_at),
        ))?;
        Ok(log)
    }

    fn line(&mut self, at: f64, tag: &str, latency: &Latency) -> Result<(), HlogError> {
        let (max, text) = (latency.figures().max as f64, latency.encode());
        self.write(format_args!("Tag={tag},{at:.3},1.000,{max:.3},{text}\n"))
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), HlogError> {
        self.file.write_fmt(text).map_err(|error| self.error(error))
    }

    fn error(&self, error: io::Error) -> HlogError {
        HlogError::Unwritable { file: self.path.clone(), error }
    }
}

fn epoch_s(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
