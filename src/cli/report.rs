//! `fleetmint report`: results files as text, JSON, a page, and HdrHistogram logs.

use std::path::PathBuf;

use super::exit::{Exit, Fatal};
use super::outputs::Place;
use super::settings::usage;
use super::speech::{print, say, warn};
use crate::metrics::threshold::Demand;
use crate::report::{self, CompileError, HlogError, Report, Request, SameVerb};
use crate::results::Problem;

const MERGING: &str = "\
Examples:
  fleetmint report run.jsonl
  fleetmint report one.jsonl two.jsonl --html report.html --json report.json
  fleetmint report new.jsonl --baseline old.jsonl --threshold 'register_thing.p99<+10%'

Several files are merged: histograms and counters are added, so that percentiles are those of one run with all samples. \
Runs are aligned by the clocks of their machines, to the second; pauses between them are cut out. Thresholds are judged by \
the merged figures. Runs of different verbs are shown one after the other, and not merged.

With --baseline each figure is shown beside the baseline's, with the change and whether it is more than noise. A --threshold \
whose bound has a sign is on the change: +10%, +5ms (latencies), +0.5pp (percentage points of a count's share).

Exit codes: 0 all is well; 2 a --threshold was missed; 4 a shard is missing or ended early; else as elsewhere.";

/// Show results files, one or several merged, as text, JSON, a page, or HdrHistogram logs.
#[derive(Debug, clap::Args)]
#[command(after_help = MERGING)]
pub(super) struct ReportArgs {
    /// Results files, as --results writes them.
    #[arg(value_name = "RESULTS", required = true)]
    pub(super) results: Vec<PathBuf>,

    /// Write the report as JSON to this file, `-` for stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write the report as an HTML page to this file, `-` for stdout; it needs no network.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Write an HdrHistogram interval log for each operation into this directory.
    #[arg(long, value_name = "DIR")]
    pub(super) hlog: Option<PathBuf>,

    /// Write the report as Markdown to this file, `-` for stdout: for the comment of a pull request.
    #[arg(long, value_name = "FILE")]
    pub(super) markdown: Option<PathBuf>,

    /// The title of the report.
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,

    /// Compare with this results file. Repeatable: several are merged.
    #[arg(long, value_name = "OLD")]
    pub(super) baseline: Vec<PathBuf>,

    /// Demand this of what was measured, or of how it changed since the baseline. Repeatable.
    #[arg(long, value_name = "THRESHOLD")]
    pub(super) threshold: Vec<Demand>,
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Fatal> {
    let places = Places::check(args)?;
    let groups = report::by_verb(&args.results).map_err(unreadable)?;
    check_baseline(args, &groups)?;
    if groups.len() > 1 {
        places.refuse_several(&groups)?;
        return several(args, &groups);
    }
    let report = request(args, &args.results).compile().map_err(unreadable)?;
    if let Some(folder) = &args.hlog {
        let logs = report::write_hlogs(&args.results, folder).map_err(|error| match error {
            HlogError::Unwritable { .. } => Fatal::new(Exit::LedgerUnusable, format!("--hlog: {error}")),
            HlogError::Results(_) => Fatal::new(Exit::LedgerUnusable, error),
        })?;
        say(format_args!("{logs} HdrHistogram logs in {}", folder.display()));
    }
    if let (Some(place), Some(file)) = (&places.html, &args.html) {
        place.write(&report::render_html(&report))?;
        say(format_args!("the page: {}", file.display()));
    }
    if let Some(place) = &places.json {
        place.write(&json(&report))?;
    }
    if let Some(place) = &places.markdown {
        place.write(&report::render_markdown(&report))?;
    }
    if !places.has_any() {
        print(&report::render_report(&report));
    }
    Ok(judged(args, &report))
}

fn request<'a>(args: &'a ReportArgs, files: &'a [PathBuf]) -> Request<'a> {
    Request { files, baseline: &args.baseline, thresholds: &args.threshold, title: args.title.as_deref() }
}

/// Shows runs of several verbs one after the other.
fn several(args: &ReportArgs, groups: &[SameVerb]) -> Result<Exit, Fatal> {
    let mut exit = Exit::Complete;
    for (nth, group) in groups.iter().enumerate() {
        let report = request(args, &group.files).compile().map_err(unreadable)?;
        let heading = format!("{}== {} ==\n\n", if nth == 0 { "" } else { "\n" }, group.verb);
        print(&(heading + &report::render_report(&report)));
        // One verb is enough; a missed threshold comes first, as within one verb.
        exit = match (exit, judged(args, &report)) {
            (Exit::ThresholdMissed, _) | (_, Exit::Complete) => exit,
            (_, worse) => worse,
        };
    }
    Ok(exit)
}

/// Refuses a baseline of another verb, and thresholds on changes without a baseline.
fn check_baseline(args: &ReportArgs, groups: &[SameVerb]) -> Result<(), Fatal> {
    if args.baseline.is_empty() {
        let is_change = |demand: &&Demand| matches!(demand, Demand::Change(_));
        return match args.threshold.iter().find(is_change) {
            Some(demand) => Err(usage(
                "--threshold",
                format!("{demand} is on a change: name what to compare with, --baseline OLD"),
            )),
            None => Ok(()),
        };
    }
    let old = report::by_verb(&args.baseline).map_err(unreadable)?;
    let verbs = |groups: &[SameVerb]| groups.iter().map(|group| group.verb.clone()).collect::<Vec<_>>();
    let (new, old) = (verbs(groups), verbs(&old));
    if new.len() != 1 || new != old {
        let (new, old) = (new.join(", "), old.join(", "));
        return Err(usage(
            "--baseline",
            format!("its runs are of {old}, the others of {new}: name runs of one verb"),
        ));
    }
    Ok(())
}

/// The exit code: a missed threshold comes before a lost shard, whose part of the job was not done.
fn judged(args: &ReportArgs, report: &Report) -> Exit {
    let shards = shards(report);
    let asked = |text: &str| args.threshold.iter().any(|demand| demand.to_string() == text);
    let missed = report.judgements().filter(|one| !one.passed && asked(&one.threshold));
    let missed: Vec<_> = missed.map(|one| format!("{}, measured {}", one.threshold, one.shown)).collect();
    if missed.is_empty() {
        return shards;
    }
    warn(format_args!("thresholds missed: {}", missed.join("; ")));
    Exit::ThresholdMissed
}

fn shards(report: &Report) -> Exit {
    let Some(shards) = &report.shards else { return Exit::Complete };
    let said = shards.sentences().join("; ");
    if shards.is_whole() {
        say(said);
        return Exit::Complete;
    }
    warn(format_args!("warning: {said}: the figures are not of the whole job"));
    Exit::Stopped
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report is plain data") + "\n"
}

/// Where reports are written; checked before anything is read.
struct Places {
    json: Option<Place>,
    html: Option<Place>,
    markdown: Option<Place>,
    hlog: bool,
}

impl Places {
    fn check(args: &ReportArgs) -> Result<Self, Fatal> {
        let place = |option, file: &Option<PathBuf>| {
            file.as_ref().map(|file| Place::check(option, file.clone())).transpose()
        };
        Ok(Self {
            json: place("--json", &args.json)?,
            html: place("--html", &args.html)?,
            markdown: place("--markdown", &args.markdown)?,
            hlog: args.hlog.is_some(),
        })
    }

    /// Whether the report goes to any of them.
    fn has_any(&self) -> bool {
        self.json.is_some() || self.html.is_some() || self.markdown.is_some() || self.hlog
    }

    /// Refuses to combine runs of several verbs into one report.
    fn refuse_several(&self, groups: &[SameVerb]) -> Result<(), Fatal> {
        let asked = [
            (self.json.is_some(), "--json"),
            (self.html.is_some(), "--html"),
            (self.markdown.is_some(), "--markdown"),
            (self.hlog, "--hlog"),
        ];
        let Some((_, option)) = asked.into_iter().find(|(is_asked, _)| *is_asked) else { return Ok(()) };
        let files = |group: &SameVerb| {
            let files: Vec<_> = group.files.iter().map(|file| file.display().to_string()).collect();
            format!("{} ({})", group.verb, files.join(", "))
        };
        let groups: Vec<_> = groups.iter().map(files).collect();
        Err(usage(
            option,
            format!(
                "these files are of several verbs, whose figures are not to be added up: {}; name those of one verb at a time",
                groups.join("; ")
            ),
        ))
    }
}

/// The error for an unreadable file: a usage error if it is missing or not a results file, unusable if it is damaged.
fn unreadable(error: CompileError) -> Fatal {
    let exit = match &error {
        CompileError::Results(results) => match results.problem {
            Problem::Damaged { .. } => Exit::LedgerUnusable,
            _ => Exit::Usage,
        },
        CompileError::Twice(..) | CompileError::ShardTwice { .. } | CompileError::OtherCut(..) => Exit::Usage,
    };
    Fatal::new(exit, error)
}
