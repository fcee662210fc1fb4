//! The report of results files as text, for a terminal of 80 columns.

use std::fmt::Write as _;

use super::compare;
use super::model::{OperationReport, Report, Run};
use super::terminal;
use super::verdict::{Outcome, Verdict};
use super::wording::{clock, count, latency, length, percent, rate};
use crate::metrics::threshold::Judgement;

/// The report as text, ending in a newline.
pub fn render_report(report: &Report) -> String {
    let mut text = String::new();
    verdict(&mut text, report);
    runs(&mut text, report);
    headline(&mut text, report);
    judgements(&mut text, "thresholds", &report.thresholds);
    compare::render(&mut text, report);
    operations(&mut text, report);
    phases(&mut text, report);
    slowest(&mut text, report);
    failures(&mut text, report);
    hints(&mut text, report);
    text
}

fn verdict(text: &mut String, report: &Report) {
    if let Some(title) = &report.title {
        line!(text, "{title}");
    }
    let Verdict { outcome, sentence } = &report.verdict;
    match outcome {
        Outcome::NotJudged => line!(text, "{sentence}"),
        outcome => line!(text, "{}: {sentence}", outcome.word()),
    }
    line!(text, "");
}

fn runs(text: &mut String, report: &Report) {
    for run in &report.runs {
        let Run { verb, started_at, elapsed_s, end, file, .. } = run;
        line!(text, "{verb}, {started_at}, {}, {end}  ({file})", length(*elapsed_s));
        if !run.detail.is_empty() {
            line!(text, "  {}", run.detail);
        }
        if let Some(offered) = &run.offered {
            line!(text, "  offered: {offered}");
        }
        if let Some(site) = &run.site {
            let emulator = if site.is_emulator { "EMULATOR " } else { "" };
            let host = site.host.as_ref().map_or(String::new(), |host| format!(", from {host}"));
            line!(text, "  {emulator}{}, {}{host}", site.endpoint, site.region);
        }
    }
}

fn headline(text: &mut String, report: &Report) {
    let headline = &report.headline;
    let Some(operation) = &headline.operation else { return };
    let offered =
        headline.offered_per_s.map_or(String::new(), |offered| format!(" of {} offered", rate(offered)));
    line!(
        text,
        "\n{operation}: {} accepted{offered}, {} not accepted; {}",
        rate(headline.accepted_per_s),
        percent(headline.failed_share),
        length(report.elapsed_s)
    );
    let Some(arrivals) = &report.arrivals else { return };
    line!(
        text,
        "arrivals: {} due, {} started, {} missed ({}); the generator was {} late at p99, {} at most",
        count(arrivals.counts.scheduled),
        count(arrivals.counts.started),
        count(arrivals.counts.missed),
        percent(arrivals.missed_share),
        latency(arrivals.lateness_us.p99),
        latency(arrivals.lateness_us.max)
    );
    if arrivals.counts.missed > 0 {
        line!(text, "missed arrivals are in no percentile: what was offered fared worse than shown below");
    }
}

/// Judgements of thresholds under a heading; nothing if there are none.
pub(super) fn judgements(text: &mut String, heading: &str, judgements: &[Judgement]) {
    if judgements.is_empty() {
        return;
    }
    line!(text, "\n{heading}");
    for threshold in judgements {
        let verdict = if threshold.passed { "pass" } else { "FAIL" };
        line!(text, "  {verdict}  {}, measured {}", threshold.threshold, threshold.shown);
    }
}

fn operations(text: &mut String, report: &Report) {
    let named: Vec<_> =
        report.operations.iter().map(|operation| (title(operation), &operation.summary)).collect();
    let named: Vec<_> = named.iter().map(|(title, summary)| (title.as_str(), *summary)).collect();
    terminal::operation_tables(text, &named);
}

fn title(operation: &OperationReport) -> String {
    operation.operation.replace('_', " ")
}

fn phases(text: &mut String, report: &Report) {
    let named: Vec<_> =
        report.dial_phases.iter().map(|phase| (phase.phase.as_str(), phase.count, &phase.us)).collect();
    terminal::phase_table(text, &named);
}

/// How many of the slowest attempts the text shows; the JSON has all of them.
const SLOWEST_SHOWN: usize = 5;

fn slowest(text: &mut String, report: &Report) {
    if report.slowest.is_empty() {
        return;
    }
    line!(text, "\nslowest");
    for slow in report.slowest.iter().take(SLOWEST_SHOWN) {
        line!(
            text,
            "{:>10} response, {} service: {} of {} at {}",
            latency(slow.response_us),
            latency(slow.service_us),
            slow.operation,
            slow.device,
            clock(slow.second)
        );
    }
}

fn failures(text: &mut String, report: &Report) {
    terminal::failures(text, &report.failures);
    for (counter, counted) in report.counters.counted() {
        line!(text, "{}: {}", counter.meaning().trim_end_matches('.'), count(counted));
    }
}

fn hints(text: &mut String, report: &Report) {
    line!(text, "\nwhat to make of it");
    for hint in &report.hints {
        paragraph(text, &format!("{}: {}", hint.finding, hint.advice));
    }
}

/// Writes a paragraph, wrapped and indented.
pub(super) fn paragraph(text: &mut String, words: &str) {
    for line in wrapped(words) {
        line!(text, "  {line}");
    }
}

/// The longest line of prose, without its indent.
const WIDTH: usize = 76;

/// The lines of a paragraph; all except the first are indented.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let last = lines.last_mut().expect("there is a first line");
        if last.chars().count() + 1 + word.chars().count() > WIDTH && !last.trim().is_empty() {
            lines.push(format!("  {word}"));
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_wrapped_between_words() {
        let lines = wrapped(&"word ".repeat(40));
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert_eq!(lines.concat().matches("word").count(), 40);
        assert_eq!(wrapped(&"x".repeat(200)).len(), 1);
    }
}
