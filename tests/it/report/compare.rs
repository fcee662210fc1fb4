//! `report NEW --baseline OLD`.

use std::path::{Path, PathBuf};

use fleetmint::metrics::threshold::Demand;
use fleetmint::report::{self, Change, ChangeVerdict, Outcome, Report, Request};
use serde_json::Value;

use super::samples::Sample;
use super::schema;
use crate::harness::{Scratch, Transcript, expect_text, fleetmint, run};

fn sample(folder: &Path, name: &str, seed: u64, slowness: f64) -> PathBuf {
    let begins_s = seed as f64 * 1_000.0;
    let thresholds = &[];
    Sample { seed, slowness, begins_s, seconds: 40, thresholds, ..Sample::default() }.write(folder, name).0
}

fn compared(new: &Path, old: &Path, thresholds: &[Demand]) -> Report {
    let (files, baseline) = ([new.to_owned()], [old.to_owned()]);
    Request { files: &files, baseline: &baseline, thresholds, title: None }.compile().unwrap()
}

fn figure<'a>(report: &'a Report, name: &str) -> &'a Change {
    let figures = &report.comparison.as_ref().unwrap().figures;
    figures.iter().find(|change| change.figure == name).unwrap_or_else(|| panic!("{name} in {figures:?}"))
}

#[test]
fn a_slower_service_is_told_from_chance() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let old = sample(&folder, "old.jsonl", 1, 1.0);
    let slower = compared(&sample(&folder, "slower.jsonl", 2, 1.15), &old, &[]);
    for name in ["register_thing.response.p50", "register_thing.service.mean"] {
        let change = figure(&slower, name);
        assert_eq!(change.verdict, ChangeVerdict::Worse, "{change:?}");
        assert!(change.change.unwrap() > 0.1 && change.noise.unwrap() < 0.1, "{change:?}");
    }
    let faster = compared(&old, &folder.join("slower.jsonl"), &[]);
    assert_eq!(figure(&faster, "register_thing.response.p50").verdict, ChangeVerdict::Better);
}

/// Chance alone: of many figures of many pairs of runs hardly any is called a change.
#[test]
fn chance_is_hardly_ever_called_a_change() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let files: Vec<_> = (1..7).map(|seed| sample(&folder, &format!("{seed}.jsonl"), seed, 1.0)).collect();
    let (mut called, mut all) = (0, 0);
    for pair in files.windows(2) {
        let report = compared(&pair[0], &pair[1], &[]);
        for change in &report.comparison.unwrap().figures {
            all += 1;
            called += usize::from(matches!(change.verdict, ChangeVerdict::Worse | ChangeVerdict::Better));
        }
    }
    // The figures of a pair depend on each other, so one unlucky pair has several.
    assert!(all > 50 && called * 10 <= all, "{called} of {all}");
}

#[test]
fn the_same_files_give_the_same_comparison_and_short_ones_none() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let (old, new) = (sample(&folder, "old.jsonl", 1, 1.0), sample(&folder, "new.jsonl", 2, 1.0));
    assert_eq!(compared(&new, &old, &[]), compared(&new, &old, &[]));
    let short =
        Sample { seconds: 5, seed: 3, begins_s: 9.0, ..Sample::default() }.write(&folder, "short.jsonl").0;
    let report = compared(&new, &short, &[]);
    assert_eq!(report.comparison.as_ref().unwrap().blocks, 0);
    assert_eq!(figure(&report, "register_thing.response.p50").verdict, ChangeVerdict::Untested);
}

#[test]
fn thresholds_on_changes_decide_verdict_and_exit_code() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let (old, new) = (sample(&folder, "old.jsonl", 1, 1.0), sample(&folder, "new.jsonl", 2, 1.15));
    let judged = |text: &str| compared(&new, &old, &[text.parse().unwrap()]).verdict.outcome;
    assert_eq!(judged("register_thing.p50<+40%"), Outcome::Pass);
    assert_eq!(judged("register_thing.p50<+3%"), Outcome::Fail);
    let command = |threshold: &str| {
        let mut command = fleetmint();
        command.arg("report").arg(&new).arg("--baseline").arg(&old).args(["--threshold", threshold]);
        command
    };
    run(&mut command("register_thing.p50<+40%")).expect_code(0);
    let missed = run(&mut command("register_thing.p50<+3%")).expect_code(2);
    expect_text("report-missed-change", &scratch, &missed.err, &[]);
    // Without a baseline there is nothing to have changed.
    let mut refused = Transcript::default();
    let mut alone = fleetmint();
    alone.arg("report").arg(&new).args(["--threshold", "register_thing.p50<+3%"]);
    refused.add("a change without a baseline", &run(&mut alone).expect_code(64));
    run(fleetmint().arg("report").arg(&new).args(["--threshold", "register_thing.p50<1us"])).expect_code(2);
    let other = Sample { verb: "provision", seconds: 5, seed: 9, ..Sample::default() }
        .write(&folder, "other.jsonl")
        .0;
    let said = run(fleetmint().arg("report").arg(&new).arg("--baseline").arg(&other)).expect_code(64);
    refused.add("a baseline of another verb", &said);
    expect_text("report-baseline-refused", &scratch, &refused, &[]);
}

#[test]
fn text_page_markdown_and_json_have_every_figure() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let (old, new) = (sample(&folder, "old.jsonl", 1, 1.0), sample(&folder, "new.jsonl", 2, 1.15));
    let report = compared(&new, &old, &["register_thing.p99<+10%".parse().unwrap()]);
    let (text, page, markdown) =
        (report::render_report(&report), report::render_html(&report), report::render_markdown(&report));
    for change in &report.comparison.as_ref().unwrap().figures {
        for shown in [&text, &page, &markdown] {
            assert!(shown.contains(&change.figure), "{} in {shown}", change.figure);
        }
    }
    expect_text("report-compared", &scratch, &text, &[]);
    expect_text("report-compared-markdown", &scratch, &markdown, &[]);
    let method = "Noise is what a paired permutation test finds: both sides are cut into blocks of equal length, here 40, the \
                  two blocks at the same place are swapped or not by the toss of a coin, and every figure is computed anew; \
                  99 % of 999 such reshuffles change it by no more than its noise. About one figure in 100 seems to change \
                  although nothing did.";
    assert!(super::words(&page).contains(method), "{}", super::words(&page));
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schema/report-v1.json")).unwrap();
    assert_eq!(schema::errors(&schema, &serde_json::to_value(&report).unwrap()), Vec::<String>::new());
}
