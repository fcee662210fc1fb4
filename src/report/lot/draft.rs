//! The lot report as it is made: device by device, from the ledger, with the table of all of them.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::{
    LOT_REPORT_SCHEMA, LotCounts, LotDevice, LotFacts, LotReport, LotReportHead, LotResult, MOST_EXCEPTIONS,
    MOST_LISTED,
};
use crate::certificate::PemBlock;
use crate::ledger::{Counts, LotInfo, MadeDevice};
use crate::wording::harmless_cell;

/// What the ledger calls a device that is as it should be, and one of which nothing could be compared.
const SOUND: &str = "sound";
const NOT_COMPARED: &str = "not_compared";

impl LotResult {
    fn of(made: &MadeDevice) -> Self {
        match made.finding.as_ref().map(|finding| finding.outcome.as_str()) {
            None => Self::NotLookedAt,
            Some(SOUND) => Self::Sound,
            Some(NOT_COMPARED) => Self::NotCompared,
            Some(_) => Self::Differs,
        }
    }
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
                account: lot.binding.account.to_string(),
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
