//! The policies that a template carries, which go last.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{left, start, states};
use crate::harness::{column, signal};
use crate::verify::lab::{Lab, TEMPLATE, arn, ids, json_of};

/// What each device's policy would be, were it shared by all.
const ALIKE: &str = r#"{
  "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "ACTIVE"}},
    "alike": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {
      "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}}}
  }
}"#;

#[tokio::test]
async fn a_shared_policy_goes_with_the_last_of_its_devices() {
    let lab = Lab::with_template(ALIKE, "detach_lag = \"200ms\"", "").await;
    let before = lab.holdings();
    let ledger = lab.provision(5).await;
    assert_eq!(lab.holdings().2, before.2 + 1);
    // A rehearsal promises no more than what is done.
    let only = ["--json", "--only", "SN000001"];
    let rehearsed = json_of(&lab.run("cleanup", &ledger, &only).await.expect_code(3));
    let some = json_of(
        &lab.run("cleanup", &ledger, &["--yes", "--json", "--only", "SN000001"]).await.expect_code(3),
    );
    assert_eq!((&rehearsed["tally"], left(&rehearsed)), (&some["tally"], left(&some)));
    assert!(left(&some)[0].1.ends_with("is attached to it"), "{some}");
    assert_eq!(lab.holdings(), (before.0 + 4, before.1 + 4, before.2 + 1));
    let rehearsed = json_of(&lab.run("cleanup", &ledger, &["--json"]).await.expect_code(0));
    let all = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(0));
    assert_eq!((&rehearsed["tally"], &all["tally"]["policies"]), (&all["tally"], &json!(1)));
    assert_eq!(lab.holdings(), before);
    lab.close().await;
}

#[tokio::test]
async fn policies_of_one_document_go_however_often_the_template_has_it() {
    let twice = ALIKE.replace(
        "\"alike\": {",
        r#""again": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {
      "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}}},
    "alike": {"#,
    );
    let lab = Lab::with_template(&twice, "", "").await;
    let before = lab.holdings();
    let ledger = lab.provision(2).await;
    lab.run("verify", &ledger, &[]).await.expect_code(0);
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!((lab.holdings(), states(&ledger)), (before, vec![String::from("removed 2")]));
    lab.close().await;
}

/// Kills a cleanup when it has come to the policies.
async fn kill_at_policies(lab: &Lab, ledger: &Path) {
    let mut child = start(lab, ledger);
    while lab.asked("ListTargetsForPolicy").0 == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    signal(&child, "KILL");
    tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    let waiting = column(ledger, "SELECT count(*) FROM finding WHERE outcome = 'policies'");
    assert_eq!(waiting, ["8"]);
    // What it had asked for may still be done.
    let mut seen = None;
    while seen.replace(lab.holdings()) != Some(lab.holdings()) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// So that there is time to kill it.
const SLOW: &str = "quotas = { burst = \"100ms\", control_plane = { ListTargetsForPolicy = \"5/s\" } }";

#[tokio::test]
async fn what_a_killed_run_has_kept_is_still_listed_by_the_next() {
    let lab = Lab::with_template(TEMPLATE, SLOW, "").await;
    let ledger = lab.provision(8).await;
    let document = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Deny", "Action": "*", "Resource": "*" }] });
    let body = json!({ "policyDocument": document.to_string() });
    lab.ask("POST", "/policies/Theirs", None, &body).await;
    lab.ask("PUT", "/target-policies/Theirs", None, &json!({ "target": arn(&ids(&ledger)[4]) })).await;
    kill_at_policies(&lab, &ledger).await;
    let expected = [(String::from("SN000005"), String::from("policy Theirs: the template does not have it"))];
    let rehearsed = json_of(&lab.run("cleanup", &ledger, &["--json"]).await.expect_code(3));
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    assert_eq!((left(&rehearsed), left(&said)), (expected.to_vec(), expected.to_vec()));
    assert_eq!((&said["tally"]["kept"], &said["tally"]["removed"]), (&json!(1), &json!(7)));
    assert_eq!(column(&ledger, "SELECT count(*) FROM finding WHERE outcome = 'kept'"), ["1"]);
    lab.close().await;
}

#[tokio::test]
async fn policies_of_other_devices_are_not_this_runs() {
    let lab = Lab::with_template(TEMPLATE, SLOW, "").await;
    let before = lab.holdings();
    let ledger = lab.provision(8).await;
    kill_at_policies(&lab, &ledger).await;
    let there = lab.holdings().2;
    let only = json_of(
        &lab.run("cleanup", &ledger, &["--yes", "--json", "--only", "SN000003"]).await.expect_code(0),
    );
    let gone = (there - lab.holdings().2) as u64;
    assert!(gone <= 1 && only["tally"]["policies"] == gone && only["tally"]["removed"] == 1, "{only}");
    assert_eq!(column(&ledger, "SELECT count(*) FROM finding WHERE outcome = 'policies'"), ["7"]);
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!(lab.holdings(), before);
    lab.close().await;
}

#[tokio::test]
async fn the_shards_of_a_whole_ledger_are_verified_and_cleaned_up_one_by_one() {
    let lab = Lab::new("").await;
    let before = lab.holdings();
    let ledger = lab.provision(12).await;
    let number = |value: &Value| value.as_u64().unwrap();
    let mut devices = 0;
    for shard in ["0/3", "1/3", "2/3"] {
        let report = json_of(&lab.run("verify", &ledger, &["--json", "--shard", shard]).await.expect_code(0));
        assert_eq!(report["head"]["scope"]["shard"], shard);
        let said = json_of(
            &lab.run("cleanup", &ledger, &["--yes", "--json", "--shard", shard]).await.expect_code(0),
        );
        assert_eq!(report["counts"]["sound"], said["tally"]["removed"]);
        devices += number(&report["counts"]["chosen"]);
    }
    assert_eq!((devices, lab.holdings()), (12, before));
    lab.close().await;
}

#[tokio::test]
async fn the_ledger_of_a_shard_is_found_by_its_name_and_no_other_is_taken() {
    let lab = Lab::new("").await;
    let before = lab.holdings();
    let lot = lab.scratch.lot("lot.csv", 10);
    for shard in ["0/2", "1/2"] {
        lab.run("provision", &lot, &["--template", "LOT", "--shard", shard]).await.expect_code(0);
    }
    let ledger = lab.scratch.path("lot.ledger");
    for shard in ["0/2", "1/2"] {
        let report = json_of(&lab.run("verify", &ledger, &["--json", "--shard", shard]).await.expect_code(0));
        assert_eq!(report["counts"]["sound"], report["counts"]["registered"]);
        assert_eq!(report["head"]["scope"]["shard"], shard);
    }
    let own = lab.scratch.path("lot.0-of-2.ledger");
    lab.run("cleanup", &own, &["--yes", "--shard", "1/2"])
        .await
        .expect_code(64)
        .expect_err(&["--shard", "the ledger is of shard 0/2"]);
    lab.run("cleanup", &own, &["--yes"]).await.expect_code(0);
    lab.run("cleanup", &ledger, &["--yes", "--shard", "1/2"]).await.expect_code(0);
    assert_eq!(lab.holdings(), before);
    lab.close().await;
}
