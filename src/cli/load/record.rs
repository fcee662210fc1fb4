//! The results file of a load test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::args::LoadCommand;
use crate::cli::exit::{Exit, Fatal};
use crate::cli::recording;
use crate::engine::load::{LoadEnd, LoadOutcome, LoadPlan, LoadSnapshot};
use crate::ledger::Counts;
use crate::metrics::Interval;
use crate::results::{Devices, Footer, Header, ResultsError, ResultsWriter};

/// A results file that grows with the test.
pub(super) struct Recording {
    writing: JoinHandle<Result<ResultsWriter, ResultsError>>,
}

/// Refuses a results file that is there already, before anything is sent.
pub(super) fn check_absent(file: Option<&Path>) -> Result<(), Fatal> {
    match file {
        Some(file) if file.exists() => {
            let message = format!("--results: {} is there already; choose another name", file.display());
            Err(Fatal::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

impl Recording {
    /// Writes the seconds as they come, on a thread that may wait for the disk.
    pub(super) fn start(
        file: PathBuf,
        header: Header,
        mut intervals: mpsc::Receiver<Interval>,
        snapshots: watch::Receiver<LoadSnapshot>,
    ) -> Self {
        let writing = tokio::task::spawn_blocking(move || {
            let first = intervals.blocking_recv();
            // When second 0 began is known once it is over.
            let since = snapshots.borrow().measuring_since;
            let started_at = since.map_or_else(SystemTime::now, |since| SystemTime::now() - since.elapsed());
            let mut writer = ResultsWriter::create(&file, &Header { started_at, ..header })?;
            let mut next = first;
            while let Some(interval) = next {
                writer.interval(&interval)?;
                next = intervals.blocking_recv();
            }
            Ok(writer)
        });
        Self { writing }
    }

    /// Ends the file.
    pub(super) async fn finish(self, footer: &Footer) -> Result<(), Fatal> {
        let written = match self.writing.await {
            Ok(writer) => writer.and_then(|writer| writer.finish(footer)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        written.map_err(|error| Fatal::new(Exit::Usage, format!("--results: {error}")))
    }
}

/// What the test is. The instant of second 0 is put in when it is known.
pub(super) fn header(command: &LoadCommand, plan: &LoadPlan) -> Header {
    let Value::Object(settings) = settings(command, plan) else { unreachable!("settings are an object") };
    Header {
        tool: recording::tool(),
        verb: command.verb().to_owned(),
        command: recording::command_line(),
        settings: settings.into_iter().collect::<BTreeMap<_, _>>(),
        started_at: SystemTime::now(),
        offered: Some(format!("{}, {}", plan.profile, plan.spacing.name())),
        limits: BTreeMap::new(),
        warm_up_s: plan.warm_up.as_secs_f64(),
    }
}

/// What was asked for, as the ledger and the results keep it: no secret.
pub(super) fn settings(command: &LoadCommand, plan: &LoadPlan) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "verb": command.verb(),
        "profile": plan.profile.to_string(),
        "spacing": plan.spacing.name(),
        "warm_up_s": plan.warm_up.as_secs_f64(),
        "connections": plan.connections,
        "max_connections": plan.max_connections,
        "max_wait_s": plan.max_wait.as_secs_f64(),
        "timeout_s": plan.exchange_timeout.as_secs_f64(),
        "seed": plan.seed,
        // The name under which `provision` looks for whether plain keys were spoken of.
        "seal_to": plan.keys.seal_to.as_ref().map_or(&[][..], crate::sealing::Sealer::recipients),
    })
}

/// How the test ended.
pub(super) fn footer(outcome: &LoadOutcome, counts: Option<Counts>) -> Footer {
    let detail = match &outcome.end {
        LoadEnd::Stopped(failure) => failure.to_string(),
        LoadEnd::Ledger(error) => error.to_string(),
        LoadEnd::Bug(detail) => detail.clone(),
        LoadEnd::OutOfDevices => String::from("there were fewer devices than arrivals"),
        LoadEnd::ThresholdLost => String::from("a threshold was surely missed"),
        LoadEnd::Complete | LoadEnd::Drained | LoadEnd::Aborted => String::new(),
    };
    Footer {
        end: outcome.end.name().to_owned(),
        detail,
        elapsed_s: seconds(outcome.measured),
        devices: counts.map(|counts| Devices {
            total: counts.total(),
            registered: counts.registered,
            rejected: counts.rejected,
            unknown: counts.unknown + counts.issued_may_sent,
            pending: counts.pending + counts.issued_not_sent,
        }),
        thresholds: outcome.judgements.clone(),
        slowest: outcome.slowest.clone(),
    }
}

/// To the microsecond.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}
