//! `fleetmint report`: results files as text, JSON, a page, and HdrHistogram logs.

use std::path::PathBuf;

use super::exit::{Exit, Fatal};
use super::outputs::Place;
use super::settings::usage;
use super::speech::{print, say, warn};
use crate::report::{self, CompileError, HlogError, Report, SameVerb};
use crate::results::Problem;

const MERGING: &str = "\
Examples:
  fleetmint report run.jsonl
  fleetmint report one.jsonl two.jsonl --html report.html --json report.json

Several files are merged: histograms and counters are added, so that percentiles are those of one run with all samples. \
Runs are aligned by the clocks of their machines, to the second; pauses between them are cut out. Thresholds are judged by \
the merged figures. Runs of different verbs are shown one after the other, and not merged.";

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
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Fatal> {
    let places = Places::check(args)?;
    let groups = report::by_verb(&args.results).map_err(unreadable)?;
    if groups.len() > 1 {
        places.refuse_several(&groups)?;
        let mut exit = Exit::Complete;
        for (nth, group) in groups.iter().enumerate() {
            let report = report::compile(&group.files).map_err(unreadable)?;
            let heading = format!("{}== {} ==\n\n", if nth == 0 { "" } else { "\n" }, group.verb);
            print(&(heading + &report::render_report(&report)));
            // One verb that is not whole is enough.
            if judged(&report) != Exit::Complete {
                exit = Exit::Stopped;
            }
        }
        return Ok(exit);
    }
    let report = report::compile(&args.results).map_err(unreadable)?;
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
    if args.html.is_none() && args.json.is_none() && args.hlog.is_none() {
        print(&report::render_report(&report));
    }
    Ok(judged(&report))
}

/// A shard that was lost is a failure: its part of the job was not done.
fn judged(report: &Report) -> Exit {
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
            hlog: args.hlog.is_some(),
        })
    }

    /// Refuses to combine runs of several verbs into one report.
    fn refuse_several(&self, groups: &[SameVerb]) -> Result<(), Fatal> {
        let asked = [(self.json.is_some(), "--json"), (self.html.is_some(), "--html"), (self.hlog, "--hlog")];
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
