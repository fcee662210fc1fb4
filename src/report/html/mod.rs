//! The report as one page: a file for current browsers that needs no network, no server and no script.
//!
//! Every number that is also in the JSON is in a `data` element with its exact value and its path in the JSON. All
//! text is escaped, and the page's own policy allows only its own style and script.

mod axis;
mod chart;
mod compare;
mod devices;
mod heat;
mod limit;
mod lot;
mod over_time;
mod page;
mod plots;
mod tables;
mod timeline;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::model::Report;
use super::wording;

pub use limit::render_limit_html;
pub use lot::render_lot_html;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The report as an HTML page.
pub fn render_html(report: &Report) -> String {
    shell(&page::title(report), &page::body(report))
}

/// A page with this title and body.
fn shell(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) " · fleetmint report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// A content security policy that allows only the page's own style and script, by their hashes.
fn policy() -> String {
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// A number from the JSON: its path there, its value, and the text shown.
fn number(place: &str, value: impl serde::Serialize, shown: &str) -> Markup {
    let value = serde_json::to_string(&value).expect("a number is plain data");
    html! { data value=(value) data-json=(place) { (shown) } }
}

/// A latency from the JSON, in microseconds.
fn us(place: &str, value: u64) -> Markup {
    number(place, value, &latency(value))
}

/// A count from the JSON.
fn n(place: &str, value: u64) -> Markup {
    number(place, value, &wording::count(value))
}

/// A latency as text, with the proper sign for micro.
fn latency(us: u64) -> String {
    wording::latency(us).replace(" us", " µs")
}

/// The name of an operation or a step as a title: `Register thing`.
fn title(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Text in which options such as `--rate` are not broken at their hyphens.
fn prose(text: &str) -> Markup {
    html! {
        @for (at, word) in text.split(' ').enumerate() {
            @if at > 0 { " " }
            @if word.starts_with("--") { span.option { (word) } } @else { (word) }
        }
    }
}
