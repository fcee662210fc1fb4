//! `fleetmint report`: results files as text, JSON, a page, and HdrHistogram logs.

use std::path::Path;

use super::args::ReportArgs;
use super::exit::{Exit, Fatal};
use super::speech::{print, say};
use crate::report::{self, CompileError, Report};
use crate::results::Problem;

pub(super) fn run(args: &ReportArgs) -> Exit {
    match report(args) {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

fn report(args: &ReportArgs) -> Result<Exit, Fatal> {
    let report = report::compile(&args.results).map_err(unreadable)?;
    if let Some(folder) = &args.hlog {
        let logs =
            report::write_hlogs(&args.results, folder).map_err(|error| Fatal::new(Exit::Usage, error))?;
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

fn write(option: &str, file: &Path, text: &str) -> Result<(), Fatal> {
    if file == Path::new("-") {
        print(text);
        return Ok(());
    }
    std::fs::write(file, text).map_err(|error| {
        Fatal::new(Exit::Usage, format!("{option}: {} could not be written: {error}", file.display()))
    })
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
