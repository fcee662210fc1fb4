//! `fleetmint report`: results files as text, JSON, a page, and HdrHistogram logs.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Fatal};
use super::outputs::Place;
use super::speech::{print, say};
use crate::report::{self, CompileError, HlogError, Report};
use crate::results::Problem;

const MERGING: &str = "\
Examples:
  fleetmint report run.jsonl
  fleetmint report one.jsonl two.jsonl --html report.html --json report.json

Several files are merged: histograms and counters are added, so that percentiles are those of one run with all samples. \
Runs are aligned by the clocks of their machines, to the second; pauses between them are cut out. Thresholds are judged by \
the merged figures.";

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
    let report = report::compile(&args.results).map_err(unreadable)?;
    if let Some(folder) = &args.hlog {
        let logs = report::write_hlogs(&args.results, folder).map_err(|error| match error {
            HlogError::Unwritable { .. } => Fatal::new(Exit::LedgerUnusable, format!("--hlog: {error}")),
            HlogError::Results(_) => Fatal::new(Exit::LedgerUnusable, error),
        })?;
        say(format_args!("{logs} HdrHistogram logs in {}", folder.display()));
    }
    if let Some(file) = &args.html {
        write("--html", file, &report::render_html(&report))?;
        say(format_args!("the page: {}", file.display()));
    }
    if let Some(file) = &args.json {
        write("--json", file, &json(&report))?;
    }
    if args.html.is_none() && args.json.is_none() && args.hlog.is_none() {
        print(&report::render_report(&report));
    }
    Ok(Exit::Complete)
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report is plain data") + "\n"
}

fn write(option: &'static str, file: &Path, text: &str) -> Result<(), Fatal> {
    Place::check(option, file.to_owned())?.write(text)
}

/// A file that is not there or something else was named wrongly; one that is damaged is unusable.
fn unreadable(error: CompileError) -> Fatal {
    let exit = match &error {
        CompileError::Results(results) => match results.problem {
            Problem::Damaged { .. } => Exit::LedgerUnusable,
            _ => Exit::Usage,
        },
        CompileError::Twice(..) => Exit::Usage,
    };
    Fatal::new(exit, error)
}
