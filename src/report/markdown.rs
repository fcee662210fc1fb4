//! The report as Markdown, for the comment of a pull request: verdict, thresholds, figures.

use std::fmt::Write as _;

use super::compare;
use super::model::Report;
use super::verdict::Outcome;
use super::wording::{count, latency, length, percent, rate};
use crate::metrics::threshold::Judgement;

/// The report as Markdown, ending in a newline.
pub fn render_markdown(report: &Report) -> String {
    let mut text = String::new();
    heading(&mut text, report);
    judgements(&mut text, "Threshold", &report.thresholds);
    match &report.comparison {
        Some(comparison) => {
            judgements(&mut text, "Threshold on changes", &comparison.thresholds);
            compared(&mut text, comparison);
        }
        None => operations(&mut text, report),
    }
    hints(&mut text, report);
    text
}

fn heading(text: &mut String, report: &Report) {
    let title = report.title.as_deref().or(report.runs.first().map(|run| run.verb.as_str()));
    line!(text, "### {}\n", escaped(title.unwrap_or("fleetmint")));
    let emulator = if report.is_emulated() { " `EMULATOR`" } else { "" };
    let mark = match report.verdict.outcome {
        Outcome::Pass => "✅ **PASS**",
        Outcome::Fail => "❌ **FAIL**",
        Outcome::Incomplete => "⚠️ **INCOMPLETE**",
        Outcome::NotJudged => "ℹ️",
    };
    line!(text, "{mark}{emulator} {}\n", escaped(&report.verdict.sentence));
    for run in &report.runs {
        let site = run.site.as_ref().map_or(String::new(), |site| format!(", {}", escaped(&site.endpoint)));
        line!(text, "- `{}`, {}{site}", run.command.replace('`', "'"), length(run.elapsed_s));
    }
    line!(text, "");
}

fn judgements(text: &mut String, heading: &str, judgements: &[Judgement]) {
    if judgements.is_empty() {
        return;
    }
    line!(text, "| {heading} | Result | Measured |\n|---|---|---|");
    for Judgement { threshold, passed, shown, .. } in judgements {
        let result = if *passed { "✅ pass" } else { "❌ **fail**" };
        line!(text, "| `{}` | {result} | {} |", threshold.replace(['`', '|'], " "), escaped(shown));
    }
    line!(text, "");
}

fn operations(text: &mut String, report: &Report) {
    line!(
        text,
        "| Operation | Attempts | Accepted | Not accepted | p50 | p90 | p99 | Longest |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for operation in &report.operations {
        let counts = operation.summary.counts;
        let us = &operation.summary.response_us;
        let latencies = match counts.accepted {
            0 => [const { String::new() }; 4],
            _ => [us.p50, us.p90, us.p99, us.max].map(latency),
        };
        line!(
            text,
            "| {} | {} | {} | {} | {} |",
            operation.operation.replace('_', " "),
            count(counts.attempts),
            rate(operation.accepted_per_s),
            percent(counts.failed_share()),
            latencies.join(" | ")
        );
    }
    line!(text, "\nResponse times of the accepted, waiting included.");
}

fn compared(text: &mut String, comparison: &compare::Comparison) {
    line!(text, "| Figure | Baseline | New | Change | Noise | |\n|---|--:|--:|--:|--:|---|");
    for change in &comparison.figures {
        line!(text, "| {} |", compare::cells(change).join(" | "));
    }
    let how = compare::how(comparison);
    match comparison.blocks {
        0 => line!(text, "\n{how}"),
        _ => line!(text, "\n<details><summary>What is noise?</summary>\n\n{how}\n\n</details>"),
    }
}

fn hints(text: &mut String, report: &Report) {
    line!(text, "");
    for hint in &report.hints {
        line!(text, "- **{}**: {}", escaped(&hint.finding), escaped(&hint.advice));
    }
}

/// Text without anything that Markdown or HTML acts on.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '*' | '`' | '[' | ']' | '\\' | '_' | '#' | '!' => safe.extend(['\\', c]),
            '\n' | '\r' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_no_markup() {
        assert_eq!(escaped("a|b <img> [x](y)"), "a\\|b &lt;img&gt; \\[x\\](y)");
    }
}
