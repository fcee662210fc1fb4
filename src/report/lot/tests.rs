//! A report of five devices, as figures, table, text and page.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::*;
use crate::event::{DeviceId, DeviceState};
use crate::identity::{Identity, LotShape};
use crate::ledger::{Binding, Counts, LastFinding, LotInfo, MadeCertificate, MadeDevice};

/// Fixture `p256.pem`; its SHA-256 by `openssl x509 -outform der | sha256sum`.
const PEM: &str = include_str!("../../../fixtures/issued/p256.pem");

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
    let details =
        json!({"differences": [], "not_checkable": ["attribute site"], "connected": "as a, published to b"});
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
    let issued = format!(
        "{},878d952dda6660d097c5d4e820b03d8a207470cc5ac30c958387ff789d1ab946,2026-01-01T00:00:00.000Z",
        "c0".repeat(32)
    );
    let rows = [
        String::from(
            "key,thing_name,certificate_id,certificate_sha256,registered_at,verified_at,result,reasons,not_checkable,connected",
        ),
        format!("a,thing-a,{issued},2026-01-02T00:00:01.000Z,sound,,attribute site,\"as a, published to b\""),
        // No formula.
        format!(
            "'=bb,thing-=bb,{issued},2026-01-02T00:00:03.000Z,differs,certificate: found INACTIVE; wanted ACTIVE,,"
        ),
        format!("ccc,thing-ccc,{issued},,not looked at,,,"),
        format!("d,thing-d,{issued},2026-01-02T00:00:01.000Z,not compared,,thing name,"),
    ];
    assert_eq!(csv.lines().collect::<Vec<_>>(), rows);
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
    assert_eq!(
        text,
        "1 of 4 registered devices are as template T and their rows say\n\
         \x20       1 not as they should be\n\
         \x20       1 not compared: there was nothing to compare with\n\
         \x20       1 not looked at\n\
         \x20       2 with properties that are not checkable\n\
         \x20       1 tried with a connection of their own\n\
         \x20       1 certificate status\n\
         not checkable: attribute site, thing name\n\
         =bb: certificate: found INACTIVE; wanted ACTIVE\n"
    );
    let page = crate::report::html::render_lot_html(&report);
    let sha256 = &report.devices[0].certificate_sha256;
    for words in [sha256.as_str(), "found INACTIVE", "? not compared", "arn:aws:iam::1:user/q", "lot.csv"] {
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
    let page = crate::report::html::render_lot_html(&report);
    assert_eq!(page.matches(said).count(), 2, "in the verdict and in the table: {page}");
    assert_eq!(serde_json::to_value(&report).unwrap()["head"]["scope"], json!({"keys": 2, "shard": "1/4"}));
}

#[test]
fn what_was_not_compared_is_no_pass() {
    let (mut report, _) = report();
    report.counts = LotCounts { registered: 2, chosen: 2, sound: 2, ..LotCounts::default() };
    let badge = |report: &LotReport, word| crate::report::html::render_lot_html(report).contains(word);
    assert!(badge(&report, ">PASS<"));
    report.counts = LotCounts { sound: 1, not_compared: 1, ..report.counts };
    assert!(badge(&report, ">INCOMPLETE<") && !badge(&report, ">PASS<"));
}
