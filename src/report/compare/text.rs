//! A comparison as text.

use std::fmt::Write as _;

use super::super::model::Report;
use super::super::wording::{latency, length, percent, rate, signed_percent};
use super::noise::{LEVEL, RESHUFFLES};
use super::{Change, Comparison, Unit, Verdict};

/// How it was told whether a change is more than noise.
pub(in crate::report) fn how(comparison: &Comparison) -> String {
    if comparison.blocks == 0 {
        return String::from("The runs are too short to tell a change from noise.");
    }
    format!(
        "Noise is what a paired permutation test finds: both sides are cut into blocks of equal length, here {}, the two \
         blocks at the same place are swapped or not by the toss of a coin, and every figure is computed anew; {} % of \
         {RESHUFFLES} such reshuffles change it by no more than its noise. About one figure in {} seems to change although \
         nothing did.",
        comparison.blocks,
        ((1.0 - LEVEL) * 100.0).round(),
        (1.0 / LEVEL).round()
    )
}

/// A figure's cells: name, baseline, new, change, noise, verdict.
pub(in crate::report) fn cells(change: &Change) -> [String; 6] {
    let value = |value: Option<f64>| match (change.unit, value) {
        (_, None) => String::from("-"),
        (Unit::Us, Some(us)) => latency(us.round() as u64),
        (Unit::PerS, Some(per_s)) => rate(per_s),
        (Unit::Share, Some(share)) => percent(share),
    };
    let unit = if change.unit == Unit::Share { "pp" } else { "%" };
    let changed =
        change.change.map_or(String::from("-"), |change| format!("{} {unit}", signed_percent(change)));
    let noise = change.noise.map_or(String::from("-"), |noise| {
        format!("±{} {unit}", signed_percent(noise).trim_start_matches('+'))
    });
    let verdict = match change.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Noise => "noise",
        Verdict::Untested => "not tested",
    };
    [change.figure.clone(), value(change.old), value(change.new), changed, noise, verdict.to_owned()]
}

/// Writes the comparison of `report`; nothing if there is none.
pub(in crate::report) fn render(text: &mut String, report: &Report) {
    let Some(comparison) = &report.comparison else { return };
    for run in &comparison.baseline {
        line!(
            text,
            "\nbaseline: {}, {}, {}  ({})",
            run.verb,
            run.started_at,
            length(run.elapsed_s),
            run.file
        );
    }
    line!(text, "\n{:<33}{:>10}{:>10}{:>10}{:>10}", "compared", "baseline", "new", "change", "noise");
    for change in &comparison.figures {
        let [figure, old, new, changed, noise, verdict] = cells(change);
        line!(text, "{figure:<33}{old:>10}{new:>10}{changed:>10}{noise:>10}  {verdict}");
    }
    super::super::text::paragraph(text, &how(comparison));
    super::super::text::judgements(text, "thresholds on changes", &comparison.thresholds);
}
