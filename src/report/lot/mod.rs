//! The lot report: what a verification found out about every device, for the records.
//!
//! Owns its contents and the CSV; [`html`](super::html) owns the page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use super::wording::count;
use crate::certificate::PemBlock;
use crate::ledger::{Counts, LotInfo, MadeDevice};
use crate::wording::harmless_cell;

/// The version of the lot report's schema: raised when a field changes its meaning or is removed, not when one is
/// added.
pub const LOT_REPORT_SCHEMA: u32 = 1;
/// The most exceptions that the page and the JSON list; the CSV has all of them.
pub const MOST_EXCEPTIONS: usize = 1_000;
/// The most devices that the page lists one by one, with their hashes; the CSV has all of them.
pub const MOST_LISTED: usize = 5_000;

/// What the ledger calls a device that is as it should be, and one of which nothing could be compared.
const SOUND: &str = "sound";
const NOT_COMPARED: &str = "not_compared";

/// The origin of a lot report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReportHead {
    /// The tool and its version.
    pub tool: String,
    /// The ledger's file, as given.
    pub ledger: String,
    /// The caller's identity according to STS; `None` if STS was not asked.
    pub verified_by: Option<String>,
    /// The machine that ran the verification.
    pub host: Option<String>,
    /// When the report was made, RFC 3339.
    pub made_at: String,
    /// How the verification ended: `complete`, or why it stopped.
    pub end: String,
    /// Whether the template has a pre-provisioning hook.
    pub has_hook: bool,
    /// What could not be queried or compared at all; empty if everything could.
    pub remarks: Vec<String>,
    /// Which of the ledger's devices the report is about.
    pub scope: LotScope,
}

/// Which of a ledger's devices a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LotScope {
    /// How many devices were chosen by their keys; `None` for any key.
    pub keys: Option<u64>,
    /// The part of the lot, such as `0/4`; `None` for all of it.
    pub shard: Option<String>,
}

impl LotScope {
    /// The scope in words; `None` if it is the whole lot.
    pub fn said(&self) -> Option<String> {
        let shard = self.shard.as_ref().map(|shard| format!("shard {shard}"));
        let keys = self.keys.map(|keys| match keys {
            1 => String::from("1 device, chosen by its key"),
            _ => format!("{} devices, chosen by their keys", count(keys)),
        });
        let said: Vec<_> = [keys, shard].into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join(", of "))
    }
}

/// The lot that a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotFacts {
    /// The name of its file.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// The provisioning template.
    pub template: String,
    /// The region.
    pub region: String,
    /// What identifies the account: the endpoint's host, or `localhost`.
    pub account: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// Devices by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LotCounts {
    /// All devices of the ledger.
    pub devices: u64,
    /// Registered devices of the ledger.
    pub registered: u64,
    /// Registered devices that the report is about: the sum of the next four.
    pub chosen: u64,
    /// Registered devices that were checked and found as they should be.
    pub sound: u64,
    /// Registered devices that were checked and found to differ.
    pub differ: u64,
    /// Registered devices in which nothing seems wrong, and of which no value was there to compare with.
    pub not_compared: u64,
    /// Registered devices that were not checked.
    pub not_looked_at: u64,
    /// Registered devices that were checked, except for something that cannot be checked.
    pub partly_checked: u64,
    /// Certificates that were tried by connecting, whatever came of it.
    pub connected: u64,
    /// Devices that the service refused.
    pub rejected: u64,
    /// Devices that may be registered.
    pub unknown: u64,
    /// Devices that are not provisioned yet.
    pub open: u64,
    /// Devices that were removed from the account again.
    pub removed: u64,
}

/// A registered device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotDevice {
    /// Its key.
    pub key: String,
    /// Its thing; `None` if the template has no thing.
    pub thing_name: Option<String>,
    /// Its certificate's id.
    pub certificate_id: String,
    /// SHA-256 of the DER of the certificate in the ledger, hexadecimal.
    pub certificate_sha256: String,
    /// When the ledger recorded its registration, RFC 3339.
    pub registered_at: String,
    /// When it was last checked, RFC 3339; `None` if never.
    pub verified_at: Option<String>,
    /// What came of it.
    pub result: LotResult,
    /// How it differs from what it should be.
    pub reasons: Vec<String>,
    /// What cannot be checked.
    pub not_checkable: Vec<String>,
    /// The result of connecting with its certificate; `None` if that was not tried.
    pub connected: Option<String>,
}

/// What the verification of a device came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LotResult {
    /// It was not checked.
    NotLookedAt,
    /// It is as it should be.
    Sound,
    /// Nothing seems wrong, and no value was there to compare with.
    NotCompared,
    /// It is not as it should be.
    Differs,
}

impl LotResult {
    fn of(made: &MadeDevice) -> Self {
        match made.finding.as_ref().map(|finding| finding.outcome.as_str()) {
            None => Self::NotLookedAt,
            Some(SOUND) => Self::Sound,
            Some(NOT_COMPARED) => Self::NotCompared,
            Some(_) => Self::Differs,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NotLookedAt => "not looked at",
            Self::Sound => "sound",
            Self::NotCompared => "not compared",
            Self::Differs => "differs",
        }
    }
}

/// A lot report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReport {
    /// [`LOT_REPORT_SCHEMA`].
    pub schema: u32,
    /// Its origin.
    pub head: LotReportHead,
    /// The lot.
    pub lot: LotFacts,
    /// The counts.
    pub counts: LotCounts,
    /// When the first and the last device were checked, RFC 3339.
    pub verified_between: Option<[String; 2]>,
    /// How often each kind of difference was found.
    pub differences: BTreeMap<String, u64>,
    /// How often each property could not be checked.
    pub not_checkable: BTreeMap<String, u64>,
    /// Devices that differ: the first [`MOST_EXCEPTIONS`].
    pub exceptions: Vec<LotDevice>,
    /// SHA-256 of the CSV of all devices, hexadecimal; `None` if no CSV was written.
    pub csv_sha256: Option<String>,
    /// The registered devices, if there are at most [`MOST_LISTED`].
    #[serde(skip)]
    pub devices: Vec<LotDevice>,
}

/// A lot report under construction: registered devices are added one at a time.
#[derive(Debug)]
pub struct LotReportDraft {
    report: LotReport,
    csv: csv::Writer<Vec<u8>>,
}

impl LotReportDraft {
    /// Begins a report on the ledger of `lot`, whose devices are in the states that `counts` gives.
    pub fn new(head: LotReportHead, lot: &LotInfo, counts: &Counts) -> Self {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(COLUMNS).expect("memory takes every row");
        let report = LotReport {
            schema: LOT_REPORT_SCHEMA,
            head,
            lot: LotFacts {
                source: lot.source.clone(),
                digest: lot.digest.clone(),
                template: lot.binding.template.clone(),
                region: lot.binding.region.clone(),
                account: lot.binding.account.clone(),
                imported_at: lot.created_at.clone(),
            },
            counts: LotCounts {
                devices: counts.total(),
                registered: counts.registered,
                rejected: counts.rejected,
                unknown: counts.unknown,
                open: counts.open(),
                removed: counts.removed,
                ..LotCounts::default()
            },
            verified_between: None,
            differences: BTreeMap::new(),
            not_checkable: BTreeMap::new(),
            exceptions: Vec::new(),
            csv_sha256: None,
            devices: Vec::new(),
        };
        Self { report, csv }
    }

    /// Adds a registered device with its latest finding.
    pub fn add(&mut self, made: &MadeDevice) {
        let Some(device) = lot_device(made) else { return };
        let report = &mut self.report;
        let counts = &mut report.counts;
        let finding = made.finding.as_ref();
        counts.chosen += 1;
        match device.result {
            LotResult::NotLookedAt => counts.not_looked_at += 1,
            LotResult::Sound => counts.sound += 1,
            LotResult::NotCompared => counts.not_compared += 1,
            LotResult::Differs => counts.differ += 1,
        }
        counts.partly_checked += u64::from(!device.not_checkable.is_empty());
        counts.connected += u64::from(device.connected.is_some());
        for property in &device.not_checkable {
            *report.not_checkable.entry(property.clone()).or_default() += 1;
        }
        for difference in
            finding.and_then(|finding| finding.details["differences"].as_array()).into_iter().flatten()
        {
            let kind = difference["kind"].as_str().unwrap_or_default().to_owned();
            *report.differences.entry(kind).or_default() += 1;
        }
        if let Some(at) = &device.verified_at {
            let between = report.verified_between.get_or_insert_with(|| [at.clone(), at.clone()]);
            if *at < between[0] {
                between[0].clone_from(at);
            }
            if *at > between[1] {
                between[1].clone_from(at);
            }
        }
        self.csv.write_record(row(&device)).expect("memory takes every row, and all have as many cells");
        if !device.reasons.is_empty() && report.exceptions.len() < MOST_EXCEPTIONS {
            report.exceptions.push(device.clone());
        }
        if report.counts.registered as usize <= MOST_LISTED {
            report.devices.push(device);
        }
    }

    /// Finishes the report; returns it with the CSV of all its devices.
    pub fn finish(self) -> (LotReport, String) {
        let bytes = self.csv.into_inner().expect("memory takes every row");
        let csv = String::from_utf8(bytes).expect("every cell is a text");
        let csv_sha256 = Some(hex::encode(digest(&SHA256, csv.as_bytes())));
        (LotReport { csv_sha256, ..self.report }, csv)
    }
}

const COLUMNS: [&str; 10] = [
    "key",
    "thing_name",
    "certificate_id",
    "certificate_sha256",
    "registered_at",
    "verified_at",
    "result",
    "reasons",
    "not_checkable",
    "connected",
];

fn row(device: &LotDevice) -> Vec<String> {
    [
        &device.key,
        device.thing_name.as_ref().unwrap_or(&String::new()),
        &device.certificate_id,
        &device.certificate_sha256,
        &device.registered_at,
        device.verified_at.as_ref().unwrap_or(&String::new()),
        device.result.name(),
        &device.reasons.join("; "),
        &device.not_checkable.join("; "),
        device.connected.as_ref().unwrap_or(&String::new()),
    ]
    .map(harmless_cell)
    .to_vec()
}

fn lot_device(made: &MadeDevice) -> Option<LotDevice> {
    let certificate = made.certificate()?;
    let sha256 = PemBlock::read(&certificate.pem).map(|block| hex::encode(digest(&SHA256, &block.der)));
    let none = Value::Null;
    let details = made.finding.as_ref().map_or(&none, |finding| &finding.details);
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let differences = details["differences"].as_array().into_iter().flatten();
    let mut not_checkable = texts(&details["not_checkable"]);
    if let Some(why) = details["why_not_checkable"].as_str() {
        not_checkable.push(format!("because {why}"));
    }
    Some(LotDevice {
        key: made.identity.key.clone(),
        thing_name: made.thing_name.clone(),
        certificate_id: certificate.id.to_string(),
        certificate_sha256: sha256.unwrap_or_default(),
        registered_at: made.updated_at.clone().unwrap_or_default(),
        verified_at: made.finding.as_ref().map(|finding| finding.found_at.clone()),
        result: LotResult::of(made),
        reasons: differences
            .filter_map(|difference| difference["what"].as_str())
            .map(str::to_owned)
            .collect(),
        not_checkable,
        connected: details["connected"].as_str().map(str::to_owned),
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DeviceId, DeviceState};
    use crate::identity::{Identity, LotShape};
    use crate::ledger::{Binding, LastFinding, MadeCertificate};
    use serde_json::json;

    /// Fixture `p256.pem`; its SHA-256 by `openssl x509 -outform der | sha256sum`.
    const PEM: &str = include_str!("../../fixtures/issued/p256.pem");

    fn made(key: &str, finding: Option<(&str, Value)>) -> MadeDevice {
        MadeDevice {
            id: DeviceId(1),
            identity: Identity { line: 2, key: key.into(), values: vec![key.into()] },
            state: DeviceState::Registered,
            thing_name: Some(format!("thing-{key}")),
            updated_at: Some("2026-01-01T00:00:00.000Z".into()),
            run: None,
            certificates: vec![MadeCertificate::sample(PEM)],
            finding: finding.map(|(outcome, details)| LastFinding {
                outcome: outcome.into(),
                details,
                found_at: format!("2026-01-02T00:00:0{}.000Z", key.len()),
            }),
        }
    }

    fn report() -> (LotReport, String) {
        let head = LotReportHead {
            tool: "fleetmint 0".into(),
            ledger: "lot.ledger".into(),
            verified_by: Some("arn:aws:iam::1:user/q".into()),
            host: None,
            made_at: "2026-01-02T00:00:09Z".into(),
            end: "complete".into(),
            has_hook: true,
            remarks: vec![],
            scope: LotScope::default(),
        };
        let lot = LotInfo {
            source: "lot.csv".into(),
            digest: "d1".into(),
            shape: LotShape { columns: vec!["Key".into()], key_column: 0 },
            devices: 4,
            binding: Binding { template: "T".into(), ..Binding::default() },
            created_at: String::new(),
        };
        let counts = Counts { registered: 4, rejected: 1, ..Counts::default() };
        let mut draft = LotReportDraft::new(head, &lot, &counts);
        let details = json!({"differences": [], "not_checkable": ["attribute site"], "connected": "as a, published to b"});
        draft.add(&made("a", Some(("sound", details))));
        let differences =
            json!([{"kind": "certificate_status", "what": "certificate: found INACTIVE; wanted ACTIVE"}]);
        draft.add(&made("=bb", Some(("differs", json!({"differences": differences, "not_checkable": []})))));
        draft.add(&made("ccc", None));
        let details = json!({"differences": [], "not_checkable": ["thing name"]});
        draft.add(&made("d", Some(("not_compared", details))));
        draft.finish()
    }

    #[test]
    fn every_device_is_in_exactly_one_count_and_in_the_table() {
        let (report, csv) = report();
        assert_eq!(
            report.counts,
            LotCounts {
                devices: 5,
                registered: 4,
                chosen: 4,
                sound: 1,
                differ: 1,
                not_compared: 1,
                not_looked_at: 1,
                partly_checked: 2,
                connected: 1,
                rejected: 1,
                ..LotCounts::default()
            }
        );
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("key,thing_name,certificate_id,certificate_sha256,"));
        assert!(lines[1].starts_with("a,thing-a,"), "{}", lines[1]);
        assert!(lines[1].ends_with("sound,,attribute site,\"as a, published to b\""), "{}", lines[1]);
        assert!(lines[2].starts_with("'=bb,thing-=bb,"), "no formula: {}", lines[2]);
        assert!(lines[2].contains("differs,certificate: found INACTIVE; wanted ACTIVE"), "{}", lines[2]);
        assert!(lines[3].contains("not looked at"), "{}", lines[3]);
        assert!(lines[4].contains("not compared,,thing name"), "{}", lines[4]);
        assert_eq!(report.csv_sha256, Some(hex::encode(digest(&SHA256, csv.as_bytes()))));
        assert_eq!(
            report.verified_between.as_ref().unwrap(),
            &["2026-01-02T00:00:01.000Z", "2026-01-02T00:00:03.000Z"].map(String::from)
        );
    }

    #[test]
    fn the_text_says_what_differs_and_the_page_has_the_hashes() {
        let (report, _) = report();
        let text = render_lot_report(&report);
        for words in [
            "1 of 4 registered devices are as template T and their rows say",
            "1 not as they should be",
            "1 not compared: there was nothing to compare with",
            "not checkable: attribute site, thing name",
            "=bb: certificate: found INACTIVE; wanted ACTIVE",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let page = super::super::html::render_lot_html(&report);
        let sha256 = &report.devices[0].certificate_sha256;
        for words in [sha256.as_str(), "found INACTIVE", "? not compared", "arn:aws:iam::1:user/q", "lot.csv"]
        {
            assert!(page.contains(words), "{words}");
        }
    }

    #[test]
    fn a_report_of_some_devices_says_so() {
        let (mut report, _) = report();
        assert!(!render_lot_report(&report).contains("only"));
        report.head.scope = LotScope { keys: Some(2), shard: Some("1/4".into()) };
        let said = "2 devices, chosen by their keys, of shard 1/4";
        assert!(render_lot_report(&report).contains(&format!("only {said}: the ledger has 4")));
        let page = super::super::html::render_lot_html(&report);
        assert_eq!(page.matches(said).count(), 2, "in the verdict and in the table: {page}");
        assert_eq!(
            serde_json::to_value(&report).unwrap()["head"]["scope"],
            json!({"keys": 2, "shard": "1/4"})
        );
    }

    #[test]
    fn what_was_not_compared_is_no_pass() {
        let (mut report, _) = report();
        report.counts = LotCounts { registered: 2, chosen: 2, sound: 2, ..LotCounts::default() };
        let badge = |report: &LotReport, word| super::super::html::render_lot_html(report).contains(word);
        assert!(badge(&report, ">PASS<"));
        report.counts = LotCounts { sound: 1, not_compared: 1, ..report.counts };
        assert!(badge(&report, ">INCOMPLETE<") && !badge(&report, ">PASS<"));
    }
}
