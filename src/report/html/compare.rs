//! The comparison with a baseline.

use maud::{Markup, html};

use super::super::compare::{self, Change, Comparison, Unit, Verdict};
use super::super::model::Report;
use super::super::wording::length;
use super::{number, tables};

/// The section; nothing without a baseline.
pub(super) fn section(report: &Report) -> Markup {
    let Some(comparison) = &report.comparison else { return html! {} };
    html! {
        section aria-labelledby="compared" {
            h2 id="compared" { "Compared with the baseline" }
            @for run in &comparison.baseline {
                p.note { (run.verb) ", " (super::page::date(&run.started_at)) ", " (length(run.elapsed_s)) ": " code { (run.command) } }
            }
            p { (summary(comparison)) }
            (tables::judgements("/comparison/thresholds", "Thresholds on changes", &comparison.thresholds))
            (tables::scrolling("Figures side by side", &table(comparison)))
            p.note.below { (compare::how(comparison)) }
        }
    }
}

fn summary(comparison: &Comparison) -> String {
    let of = |verdict| comparison.figures.iter().filter(|change| change.verdict == verdict).count();
    match (of(Verdict::Better), of(Verdict::Worse)) {
        _ if comparison.blocks == 0 => {
            String::from("Whether anything changed cannot be told: the runs are too short.")
        }
        (0, 0) => String::from("Nothing changed by more than noise."),
        (better, worse) => format!("By more than noise, {better} figures are better and {worse} worse."),
    }
}

fn table(comparison: &Comparison) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Figure" }
                @for head in ["Baseline", "New", "Change", "Noise"] { th scope="col" { (head) } }
                th.text.bar scope="col" { "Change, and noise as a band" }
                th.text scope="col" { "Verdict" }
            } }
            tbody { @for (at, change) in comparison.figures.iter().enumerate() { (row(at, change)) } }
        }
    }
}

fn row(at: usize, change: &Change) -> Markup {
    let [figure, old, new, changed, noise, verdict] =
        compare::cells(change).map(|text| text.replace(" us", " µs"));
    let place = |field: &str| format!("/comparison/figures/{at}/{field}");
    let value = |field: &str, value: Option<f64>, shown: &str| {
        html! { td { @match value { Some(value) => (number(&place(field), value, shown)), None => (shown) } } }
    };
    let class = match change.verdict {
        Verdict::Better => "text good",
        Verdict::Worse => "text bad",
        Verdict::Noise | Verdict::Untested => "text",
    };
    html! {
        tr {
            th scope="row" { (figure) }
            (value("old", change.old, &old))
            (value("new", change.new, &new))
            (value("change", change.change, &changed))
            (value("noise", change.noise, &noise))
            td.bar { (band(change)) }
            td class=(class) { (verdict) }
        }
    }
}

/// The largest change that the band shows; a larger one is at its edge.
const WIDEST: f64 = 0.5;
/// The same for shares, which are small.
const WIDEST_SHARE: f64 = 0.05;

fn band(change: &Change) -> Markup {
    let Some(changed) = change.change else { return html! {} };
    let widest = if change.unit == Unit::Share { WIDEST_SHARE } else { WIDEST };
    let place = |change: f64| format!("{:.2}%", 50.0 + (change / widest).clamp(-1.0, 1.0) * 49.0);
    let noise = change.noise.unwrap_or(0.0);
    let width = format!("{:.2}%", (noise / widest).min(1.0) * 98.0);
    html! {
        svg aria-hidden="true" {
            line.rail x1="0" x2="100%" y1="7" y2="7" {}
            rect.reach x=(place(-noise)) y="2" width=(width) height="10" rx="2" {}
            line.rail x1="50%" x2="50%" y1="0" y2="14" {}
            svg x=(place(changed)) { rect.mid x="-1.5" y="0" width="3" height="14" rx="1" {} }
        }
    }
}
