//! A run from its first word to its exit code: what all verbs that send something have in common.
//!
//! Signals, progress, scrapes, the results file, the ledger's record of the run, the summary, and which of several bad ends
//! the exit code tells. What is particular to a verb is its [`Job`].

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::junit;
use super::outputs::{Outputs, Place};
use super::progress::{Progress, View};
use super::recording::{self, Recording};
use super::run_settings;
use super::signals::{self, Wheel};
use super::speech::{print, say, warn};
use super::target::Site;
use crate::engine::Stop;
use crate::exposition::Reading;
use crate::ledger::{Counts, Ledger};
use crate::metrics::Interval;
use crate::results::{Footer, Header};

/// What is particular to a verb.
pub(super) trait Job {
    /// Where it stands, for those who watch.
    type Snapshot: Clone + Send + Sync + 'static;

    /// As results name it, such as `load create`.
    fn verb(&self) -> &'static str;
    /// What was asked for, as the ledger and the results keep it: no secret.
    fn settings(&self) -> Map<String, Value>;
    /// What a results file says of it besides.
    fn offer(&self) -> Offer {
        Offer::default()
    }
    /// Where it stands before it begins.
    fn before(&self) -> Self::Snapshot;
    /// When the second 0 of its results was, where that is not the instant at which it began.
    fn second_zero(_: &Self::Snapshot) -> Option<SystemTime> {
        None
    }
    /// What people see of it.
    fn view(&self) -> impl FnMut(&Self::Snapshot) -> View + Send + 'static;
    /// What Prometheus sees of it.
    fn reading(&self) -> impl Fn(&Self::Snapshot) -> Reading + Send + Sync + 'static;
    /// Does it.
    async fn run(self, ledger: Option<Ledger>, reins: Reins<Self::Snapshot>) -> Result<Done, Fatal>;
}

/// The load that a run offers, for its results file.
#[derive(Default)]
pub(super) struct Offer {
    /// The schedule of arrivals, in words.
    pub(super) schedule: Option<String>,
    /// How much of it is warm-up.
    pub(super) warm_up: Duration,
    /// Rate limits by operation name, per second.
    pub(super) limits: Vec<(String, f64)>,
}

/// How a run is watched and stopped.
pub(super) struct Reins<S> {
    pub(super) stop: Stop,
    pub(super) progress: watch::Sender<S>,
    /// What happened in each second, if anyone wants to know.
    pub(super) intervals: Option<mpsc::Sender<Interval>>,
}

/// What came of a run.
pub(super) struct Done {
    pub(super) exit: Exit,
    /// Its ledger, if it had one that still can be written.
    pub(super) ledger: Option<Ledger>,
    /// What the ledger keeps of it.
    pub(super) kept: Value,
    pub(super) summary: Shown,
    /// How it ended, for the results file.
    pub(super) footer: Footer,
    pub(super) elapsed: Duration,
    /// What is said of the end on stderr, line by line.
    pub(super) words: Vec<String>,
}

/// A summary as a text for people and as JSON.
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) json: String,
}

impl Shown {
    pub(super) fn new(text: String, summary: &impl Serialize) -> Self {
        let json = serde_json::to_string_pretty(summary).expect("a summary is plain data") + "\n";
        Self { text, json }
    }
}

/// Runs a job to its exit code. Everything that can be refused before has been: from here on something is sent.
pub(super) async fn conduct<J: Job>(
    job: J,
    ledger: Option<Ledger>,
    site: Site,
    outputs: Outputs,
) -> Result<Exit, Fatal> {
    let exit = conduct_open(job, ledger, outputs).await;
    site.close().await;
    exit
}

/// The same, and leaves the site open.
pub(super) async fn conduct_open<J: Job>(
    job: J,
    mut ledger: Option<Ledger>,
    outputs: Outputs,
) -> Result<Exit, Fatal> {
    let Outputs { scrapes, summary, results, junit, drain_timeout } = outputs;
    let (verb, settings) = (job.verb(), job.settings());
    let kept = Value::Object(settings.clone());
    let run = ledger.as_mut().map(|ledger| ledger.begin_run(&kept, SystemTime::now()));
    let run = run.transpose().map_err(ledger_error)?;
    let (progress, snapshots) = watch::channel(job.before());
    let seen = snapshots.clone();
    let recording = results.map(|file| {
        Recording::start(file, header(verb, settings, job.offer()), move || J::second_zero(&seen.borrow()))
    });
    let (recording, intervals) = recording.unzip();

    let wheel = Wheel::default();
    let live = Progress::start();
    let mut beside = JoinSet::new();
    beside.spawn(signals::steer(wheel.clone(), drain_timeout));
    beside.spawn(live.clone().follow(snapshots.clone(), job.view()));
    beside.spawn(scrapes.serve(snapshots, job.reading()));
    let done = job.run(ledger, Reins { stop: wheel.stop(), progress, intervals }).await;
    beside.shutdown().await;
    live.finish();

    let Done { exit, ledger, kept, summary: shown, footer, elapsed, words } = done?;
    if let (Some(mut ledger), Some(run)) = (ledger, run) {
        let ended = ledger.end_run(run, &footer.end, &kept, SystemTime::now());
        ended.and_then(|()| ledger.close()).map_err(ledger_error)?;
    }
    let printed = print_summary(summary.as_ref(), &shown);
    for line in &words {
        if exit == Exit::Complete { say(line) } else { warn(line) }
    }
    let recorded = match recording {
        Some(recording) => recording.finish(&footer).await,
        None => Ok(()),
    };
    let judged = junit.map_or(Ok(()), |place| place.write(&junit::xml(verb, &footer.thresholds, elapsed)));
    Ok(unless_worse(exit, [printed, recorded, judged]))
}

/// How a run ended matters more than that a file about it could not be written; all is said.
fn unless_worse(exit: Exit, written: impl IntoIterator<Item = Result<(), Fatal>>) -> Exit {
    let unwritten = written.into_iter().filter_map(Result::err).map(Fatal::report);
    unwritten.fold(exit, |exit, worse| if exit == Exit::Complete { worse } else { exit })
}

/// Prints the summary where it was asked for: text to stdout, unless the JSON goes there.
pub(super) fn print_summary(place: Option<&Place>, shown: &Shown) -> Result<(), Fatal> {
    if !place.is_some_and(Place::is_stdout) {
        print(&shown.text);
    }
    place.map_or(Ok(()), |place| place.write(&shown.json))
}

fn header(verb: &str, settings: Map<String, Value>, offer: Offer) -> Header {
    Header {
        tool: recording::tool(),
        verb: verb.to_owned(),
        command: recording::command_line(),
        settings: run_settings::published(settings).into_iter().collect(),
        started_at: SystemTime::now(),
        offered: offer.schedule,
        limits: offer.limits.into_iter().collect(),
        warm_up_s: offer.warm_up.as_secs_f64(),
    }
}

/// The devices of a run's ledger by state.
pub(super) fn counts(ledger: Option<&Ledger>) -> Result<Option<Counts>, Fatal> {
    ledger.map(|ledger| ledger.view().counts()).transpose().map_err(ledger_error)
}
