//! A run from its start to its exit code: what all verbs that send something have in common.
//!
//! Signals, progress, scrapes, the results file, the ledger's record of the run, the summary, and which of several
//! errors determines the exit code. The part that is specific to a verb is its [`Job`].

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
use crate::identity::is_made_up;
use crate::ledger::{Counts, Ledger, LotInfo};
use crate::metrics::Interval;
use crate::results::{Footer, Header};

/// The part of a run that is specific to a verb.
pub(super) trait Job {
    /// The progress of the run.
    type Snapshot: Clone + Send + Sync + 'static;

    /// The verb's name in results files, such as `load create`.
    fn verb(&self) -> &'static str;
    /// The settings for the ledger and the results file; no secrets.
    fn settings(&self) -> Map<String, Value>;
    /// The offered load, for the results file.
    fn offer(&self) -> Offer {
        Offer::default()
    }
    /// The progress before the run begins.
    fn before(&self) -> Self::Snapshot;
    /// The instant of second 0 in the results file; `None` if it is the instant at which the run began.
    fn second_zero(_: &Self::Snapshot) -> Option<SystemTime> {
        None
    }
    /// Turns snapshots into what the terminal shows.
    fn view(&self) -> impl FnMut(&Self::Snapshot) -> View + Send + 'static;
    /// Turns snapshots into what Prometheus scrapes.
    fn reading(&self) -> impl Fn(&Self::Snapshot) -> Reading + Send + Sync + 'static;
    /// Does the work.
    async fn run(self, ledger: Option<Ledger>, reins: Reins<Self::Snapshot>) -> Result<Done, Fatal>;
}

/// The load that a run offers, for its results file.
#[derive(Default)]
pub(super) struct Offer {
    /// The schedule of arrivals, in words.
    pub(super) schedule: Option<String>,
    /// How much of the schedule is warm-up.
    pub(super) warm_up: Duration,
    /// Rate limits by operation name, per second.
    pub(super) limits: Vec<(String, f64)>,
}

/// How a run is watched and stopped.
pub(super) struct Reins<S> {
    pub(super) stop: Stop,
    pub(super) progress: watch::Sender<S>,
    /// What happened in each second, if anyone listens.
    pub(super) intervals: Option<mpsc::Sender<Interval>>,
}

/// The result of a run.
pub(super) struct Done {
    pub(super) exit: Exit,
    /// The ledger, if there is one and it can still be written.
    pub(super) ledger: Option<Ledger>,
    /// What the ledger records about the run.
    pub(super) kept: Value,
    pub(super) summary: Shown,
    /// How it ended, for the results file.
    pub(super) footer: Footer,
    pub(super) elapsed: Duration,
    /// What is said about the end on stderr, line by line.
    pub(super) words: Vec<String>,
}

/// A summary as text and as JSON, and as a page if there is one.
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) json: String,
    pub(super) page: Option<String>,
}

impl Shown {
    pub(super) fn new(text: String, summary: &impl Serialize) -> Self {
        let json = serde_json::to_string_pretty(summary).expect("a summary is plain data") + "\n";
        Self { text, json, page: None }
    }
}

/// Runs a job to its exit code. All checks are done: from here on something is sent.
pub(super) async fn conduct<J: Job>(
    job: J,
    ledger: Option<Ledger>,
    site: Site,
    outputs: Outputs,
) -> Result<Exit, Fatal> {
    let exit = conduct_open(job, ledger, &site, outputs).await;
    site.close().await;
    exit
}

/// Runs a job to its exit code, and leaves the site open.
pub(super) async fn conduct_open<J: Job>(
    job: J,
    mut ledger: Option<Ledger>,
    site: &Site,
    outputs: Outputs,
) -> Result<Exit, Fatal> {
    let Outputs { scrapes, summary, results, junit, page, drain_timeout } = outputs;
    let (verb, settings) = (job.verb(), job.settings());
    let lot = ledger.as_ref().and_then(|ledger| lot(ledger.view().lot()));
    let kept = Value::Object(settings.clone());
    let run = ledger.as_mut().map(|ledger| ledger.begin_run(&kept, SystemTime::now()));
    let run = run.transpose().map_err(ledger_error)?;
    let (progress, snapshots) = watch::channel(job.before());
    let seen = snapshots.clone();
    let recording = results.map(|file| {
        Recording::start(file, header(verb, settings, job.offer(), site, lot), move || {
            J::second_zero(&seen.borrow())
        })
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
    let paged = page.zip(shown.page).map_or(Ok(()), |(place, page)| place.write(&page));
    Ok(unless_worse(exit, [printed, recorded, judged, paged]))
}

/// The exit code, considering errors in writing files: how the run ended takes precedence. Reports all errors.
fn unless_worse(exit: Exit, written: impl IntoIterator<Item = Result<(), Fatal>>) -> Exit {
    let unwritten = written.into_iter().filter_map(Result::err).map(Fatal::report);
    unwritten.fold(exit, |exit, worse| if exit == Exit::Complete { worse } else { exit })
}

/// Prints the summary: JSON to its place, and text to stdout unless the JSON goes there.
pub(super) fn print_summary(place: Option<&Place>, shown: &Shown) -> Result<(), Fatal> {
    if !place.is_some_and(Place::is_stdout) {
        print(&shown.text);
    }
    place.map_or(Ok(()), |place| place.write(&shown.json))
}

fn header(
    verb: &str,
    settings: Map<String, Value>,
    offer: Offer,
    site: &Site,
    lot: Option<String>,
) -> Header {
    Header {
        tool: recording::tool(),
        verb: verb.to_owned(),
        command: recording::command_line(),
        settings: run_settings::published(settings).into_iter().collect(),
        started_at: SystemTime::now(),
        offered: offer.schedule,
        limits: offer.limits.into_iter().collect(),
        warm_up_s: offer.warm_up.as_secs_f64(),
        site: Some(site.told()),
        lot,
    }
}

/// What a results file calls a lot; `None` for made-up devices.
fn lot(lot: &LotInfo) -> Option<String> {
    /// Enough to tell lots apart.
    const DIGITS: usize = 16;
    (!is_made_up(&lot.source)).then(|| lot.digest.chars().take(DIGITS).collect())
}

/// The devices of a run's ledger by state.
pub(super) fn counts(ledger: Option<&Ledger>) -> Result<Option<Counts>, Fatal> {
    ledger.map(|ledger| ledger.view().counts()).transpose().map_err(ledger_error)
}
