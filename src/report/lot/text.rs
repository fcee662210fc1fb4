//! The lot report as text.

use std::fmt::Write as _;

use super::{LotCounts, LotReport};
use crate::report::wording::count;

/// The most exceptions that the text lists.
const MOST_SHOWN: usize = 10;

/// The report as text for a terminal, ending in a newline.
pub fn render_lot_report(report: &LotReport) -> String {
    let mut text = String::new();
    let LotCounts { registered, chosen, sound, differ, not_compared, not_looked_at, .. } = report.counts;
    let LotCounts { partly_checked, connected, .. } = report.counts;
    line!(
        text,
        "{} of {} registered devices are as template {} and their rows say",
        count(sound),
        count(chosen),
        report.lot.template
    );
    if let Some(scope) = report.head.scope.said() {
        line!(text, "only {scope}: the ledger has {} registered devices", count(registered));
    }
    for (number, what) in [
        (differ, "not as they should be"),
        (not_compared, "not compared: there was nothing to compare with"),
        (not_looked_at, "not looked at"),
        (partly_checked, "with properties that are not checkable"),
        (connected, "tried with a connection of their own"),
    ] {
        if number > 0 {
            line!(text, "{:>9} {what}", count(number));
        }
    }
    for (kind, number) in &report.differences {
        line!(text, "{:>9} {}", count(*number), kind.replace('_', " "));
    }
    if !report.not_checkable.is_empty() {
        let names: Vec<_> = report.not_checkable.keys().map(String::as_str).collect();
        line!(text, "not checkable: {}", names.join(", "));
    }
    for remark in &report.head.remarks {
        line!(text, "note: {remark}");
    }
    for device in report.exceptions.iter().take(MOST_SHOWN) {
        line!(text, "{}: {}", crate::wording::Excerpt(&device.key), device.reasons.join("; "));
    }
    let more = (differ as usize).saturating_sub(MOST_SHOWN);
    if more > 0 {
        line!(text, "… and {} more", count(more as u64));
    }
    text
}
