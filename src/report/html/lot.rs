//! The lot report's page.

use maud::{Markup, html};

use super::super::lot::{LotCounts, LotDevice, LotReport, LotResult, MOST_LISTED};
use super::super::wording::count;
use super::tables::scrolling;
use super::{n, page::date, shell};
use crate::ledger::Account;

/// The page of a lot report.
pub fn render_lot_html(report: &LotReport) -> String {
    let title = format!("Lot {}", report.lot.source);
    shell(&title, &body(report))
}

fn body(report: &LotReport) -> Markup {
    let is_emulated = Account::from(report.lot.account.as_str()).is_emulated();
    html! {
        a.skip href="#main" { "To the report" }
        header {
            p.over { "fleetmint lot report" }
            h1 { (report.lot.source) }
            p.verdict { (badge(&report.counts)) @if is_emulated { " " span.badge.emulator { "EMULATOR" } } " " (verdict(report)) }
            (figures(&report.counts))
        }
        main id="main" {
            (exceptions(report))
            (kinds("differences", "What differs", &report.differences))
            (kinds("unchecked", "What is not checkable", &report.not_checkable))
            (about(report))
            (devices(report))
        }
        footer { div {
            "Made with " (report.head.tool) ". Schema " (report.schema)
            ". This page holds all it shows: it loads nothing and sends nothing."
        } }
    }
}

fn badge(counts: &LotCounts) -> Markup {
    let (class, word) = match (counts.differ, counts.not_compared + counts.not_looked_at) {
        (0, 0) => ("pass", "PASS"),
        (0, _) => ("incomplete", "INCOMPLETE"),
        _ => ("fail", "FAIL"),
    };
    html! { span.badge.(class) { (word) } }
}

fn verdict(report: &LotReport) -> String {
    let LotCounts { chosen, differ, not_compared, not_looked_at, .. } = report.counts;
    let verdict = match (differ, not_compared, not_looked_at) {
        (0, 0, 0) => format!("All {} registered devices are as they should be.", count(chosen)),
        (0, 0, left) => {
            format!("No difference so far; {} registered devices were not looked at.", count(left))
        }
        (0, not_compared, _) => format!(
            "No difference, but of {} registered devices there was nothing to compare with.",
            count(not_compared)
        ),
        (differ, ..) => {
            format!("{} of {} registered devices are not as they should be.", count(differ), count(chosen))
        }
    };
    match report.head.scope.said() {
        Some(scope) => format!("Only {scope}. {verdict}"),
        None => verdict,
    }
}

fn figures(counts: &LotCounts) -> Markup {
    let figures = [
        ("As they should be", "sound", counts.sound, false),
        ("Differ", "differ", counts.differ, counts.differ > 0),
        ("Not compared", "not_compared", counts.not_compared, counts.not_compared > 0),
        ("Not looked at", "not_looked_at", counts.not_looked_at, counts.not_looked_at > 0),
        ("Rejected", "rejected", counts.rejected, counts.rejected > 0),
        ("Unknown", "unknown", counts.unknown, counts.unknown > 0),
    ];
    html! {
        dl.figures {
            @for (name, place, number, is_bad) in figures {
                div { dt { (name) } dd.big.bad[is_bad] { (n(&format!("/counts/{place}"), number)) } }
            }
        }
    }
}

fn exceptions(report: &LotReport) -> Markup {
    let more = report.counts.differ.saturating_sub(report.exceptions.len() as u64);
    html! {
        section aria-labelledby="exceptions" {
            h2 id="exceptions" { "Exceptions" }
            @if report.exceptions.is_empty() { p.note { "None." } } @else {
                (scrolling("Exceptions", &html! { table {
                    thead { tr {
                        th.text scope="col" { "Device" } th.text scope="col" { "Thing" } th.text scope="col" { "Reasons" }
                        th.text scope="col" { "Certificate" }
                    } }
                    tbody { @for device in &report.exceptions {
                        tr {
                            th scope="row" { (device.key) }
                            td.text { (device.thing_name.as_deref().unwrap_or("none")) }
                            td.text { @for reason in &device.reasons { div { (reason) } } }
                            td.text { code { (device.certificate_id) } }
                        }
                    } }
                } }))
                @if more > 0 { p.note { "And " (count(more)) " more, which the CSV has." } }
            }
        }
    }
}

fn kinds(id: &str, title: &str, kinds: &std::collections::BTreeMap<String, u64>) -> Markup {
    if kinds.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            (scrolling(title, &html! { table {
                thead { tr { th scope="col" { "Kind" } th scope="col" { "Devices" } } }
                tbody { @for (kind, number) in kinds {
                    tr { th scope="row" { (kind.replace('_', " ")) } td { (count(*number)) } }
                } }
            } }))
        }
    }
}

fn about(report: &LotReport) -> Markup {
    let between =
        report.verified_between.as_ref().map_or(String::from("nothing was looked at"), |[first, last]| {
            format!("{} to {}", date(first), date(last))
        });
    let by = report.head.verified_by.as_deref().unwrap_or("not known: STS was not asked");
    let rows = [
        ("Lot", report.lot.source.clone()),
        ("SHA-256 of the lot", report.lot.digest.clone()),
        ("Ledger", report.head.ledger.clone()),
        ("Devices", count(report.counts.devices)),
        ("Registered", count(report.counts.registered)),
        ("This report is of", report.head.scope.said().unwrap_or_default()),
        ("Template", report.lot.template.clone()),
        ("Region", report.lot.region.clone()),
        ("Account", report.lot.account.clone()),
        ("Looked at", between),
        ("By", by.to_owned()),
        ("On", report.head.host.clone().unwrap_or_default()),
        ("Ended", report.head.end.clone()),
        ("Report made", date(&report.head.made_at)),
        ("SHA-256 of the CSV", report.csv_sha256.clone().unwrap_or_default()),
    ];
    html! {
        section aria-labelledby="about" {
            h2 id="about" { "What, who and when" }
            dl.settings {
                @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) { dt { (name) } dd { (value) } }
            }
            @if report.head.has_hook {
                p.note { "The template has a pre-provisioning hook: what it can change is not checkable, and no difference." }
            }
            @for remark in &report.head.remarks { p.note { (remark) } }
        }
    }
}

/// Up to so many devices are shown, and printed, without being asked for.
const MOST_OPEN: usize = 100;

fn devices(report: &LotReport) -> Markup {
    html! {
        section aria-labelledby="devices" {
            h2 id="devices" { "Devices and certificates" }
            @if report.devices.is_empty() {
                p.note { "More than " (count(MOST_LISTED as u64)) " devices, or none: the CSV has them, each with its hash." }
            } @else {
                details.listed open[report.devices.len() <= MOST_OPEN] {
                    summary { (count(report.devices.len() as u64)) (if report.devices.len() == 1 { " device" } else { " devices" }) }
                    p.note { "The hash is the SHA-256 of the certificate, DER, as the ledger has it." }
                    (scrolling("Devices", &html! { table {
                        thead { tr {
                            th.text scope="col" { "Device" } th.text scope="col" { "Thing" } th.text scope="col" { "Result" }
                            th.text scope="col" { "Looked at" } th.text scope="col" { "SHA-256 of the certificate" }
                        } }
                        tbody { @for device in &report.devices { (device_row(device)) } }
                    } }))
                }
            }
        }
    }
}

fn device_row(device: &LotDevice) -> Markup {
    html! {
        tr {
            th scope="row" { (device.key) }
            td.text { (device.thing_name.as_deref().unwrap_or("none")) }
            @match device.result {
                LotResult::NotLookedAt => td.text { "not looked at" },
                LotResult::Sound => td.text.good { "✓ as it should be" },
                LotResult::NotCompared => td.text.bad { "? not compared" },
                LotResult::Differs => td.text.bad { "✗ differs" },
            }
            td.text { (device.verified_at.as_deref().map(date).unwrap_or_default()) }
            td.text { code { (device.certificate_sha256) } }
        }
    }
}
