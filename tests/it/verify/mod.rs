//! `fleetmint verify`, as a user runs it, against what another client has made and changed by raw requests.

pub mod lab;
mod trials;
mod unknown;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Transcript, column, expect_text, run, signal};
use lab::{Lab, TEMPLATE, arn, ids, json_of, reasons};

fn own(name: &str) -> String {
    format!("/things/{name}")
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of changes, and what becomes of each")]
async fn what_another_client_made_right_is_sound_and_each_change_is_found() {
    let (factory, lab) = (Lab::new("").await, Lab::new("").await);
    let ledger = factory.provision(9).await;
    for (n, pem) in
        column(&ledger, "SELECT certificate_pem FROM certificate ORDER BY device").iter().enumerate()
    {
        lab.make_by_hand(n + 1, pem).await;
    }
    let page = lab.scratch.path("lot.html");
    let table = lab.scratch.path("lot.csv");
    let args = ["--report", page.to_str().unwrap(), "--csv", table.to_str().unwrap()];
    lab.run("verify", &ledger, &args)
        .await
        .expect_code(0)
        .expect_out(&["9 of 9 registered devices are as template LOT and their rows say"]);
    let table = std::fs::read_to_string(table).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    for id in ids(&ledger) {
        // AWS's certificate id is the SHA-256 of the certificate.
        assert_eq!(table.matches(&id).count(), 2, "{table}");
        assert!(page.contains(&id));
    }
    assert!(page.contains("arn:aws:sts") || page.contains("arn:aws:iam"), "who verified it");

    let ids = ids(&ledger);
    let none = Value::Null;
    let patch = json!({ "attributePayload": { "attributes": { "site": "south" }, "merge": true } });
    lab.ask("PATCH", &own("DEVICE_000001"), None, &patch).await;
    lab.ask("PUT", &format!("/certificates/{}?newStatus=INACTIVE", ids[1]), None, &none).await;
    lab.ask("POST", "/target-policies/Shared", None, &json!({ "target": arn(&ids[2]) })).await;
    lab.ask("POST", "/target-policies/own-4", None, &json!({ "target": arn(&ids[3]) })).await;
    lab.ask("PUT", "/target-policies/own-4", None, &json!({ "target": arn(&ids[4]) })).await;
    lab.ask("PUT", "/things/DEVICE_000006/principals", Some(&arn(&ids[6])), &none).await;
    lab.ask("DELETE", "/things/DEVICE_000008/principals", Some(&arn(&ids[7])), &none).await;
    let groups = json!({ "thingName": "DEVICE_000009", "thingGroupsToRemove": ["all"], "thingGroupsToAdd": ["other"] });
    lab.ask("PUT", "/thing-groups/updateThingGroupsForThing", None, &groups).await;
    let said = lab.run("verify", &ledger, &["--json"]).await.expect_code(3);
    let report = json_of(&said);
    let carried = "the policy whose document the template carries is not attached to the certificate";
    let expected = [
        ("SN000001", vec![String::from("attribute site: found south; wanted north")]),
        ("SN000002", vec![String::from("certificate: found INACTIVE; wanted ACTIVE")]),
        ("SN000003", vec![String::from("policy Shared is not attached to the certificate")]),
        ("SN000004", vec![String::from(carried)]),
        ("SN000005", vec![String::from("policy own-4 is attached, which the template does not have")]),
        ("SN000006", vec![format!("{} is attached to the thing too", arn(&ids[6]))]),
        ("SN000007", vec![String::from("the certificate is attached to thing DEVICE_000006 too")]),
        ("SN000008", vec![String::from("the certificate is not attached to thing DEVICE_000008")]),
        (
            "SN000009",
            vec![
                String::from("not in the thing group all"),
                String::from("in the thing group other, which the template does not name"),
            ],
        ),
    ];
    assert_eq!(reasons(&report), expected.map(|(key, reasons)| (key.to_owned(), reasons)));
    assert_eq!((&report["counts"]["differ"], &report["counts"]["sound"]), (&json!(9), &json!(0)));

    lab.ask("DELETE", &own("DEVICE_000008"), None, &none).await;
    lab.ask("DELETE", "/things/DEVICE_000006/principals", Some(&arn(&ids[5])), &none).await;
    let page = lab.scratch.path("one.html");
    let args = ["--json", "--only", "SN000008", "--report", page.to_str().unwrap()];
    let report = json_of(&lab.run("verify", &ledger, &args).await.expect_code(3));
    assert_eq!(reasons(&report)[0].1, ["there is no thing DEVICE_000008"]);
    // It is a report of one device, and says so.
    assert_eq!(report["head"]["scope"], json!({ "keys": 1, "shard": null }));
    assert_eq!((&report["counts"]["chosen"], &report["counts"]["registered"]), (&json!(1), &json!(9)));
    assert!(std::fs::read_to_string(page).unwrap().contains("Only 1 device, chosen by its key."));
    factory.close().await;
    lab.close().await;
}

#[tokio::test]
async fn lists_of_several_pages_are_read_to_their_end() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(1).await;
    let arn = arn(&ids(&ledger)[0]);
    for n in 0..255 {
        let name = format!("other-{n}");
        lab.ask("POST", &own(&name), None, &json!({})).await;
        lab.ask("PUT", &format!("/things/{name}/principals"), Some(&arn), &Value::Null).await;
    }
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(3));
    assert_eq!(report["differences"]["other_thing"], 255);
    assert_eq!(lab.asked("ListPrincipalThings"), (2, 0));
    lab.close().await;
}

#[tokio::test]
async fn a_throttled_run_is_slow_and_right_and_one_that_was_stopped_goes_on() {
    let quotas =
        "quotas = { control_plane = { DescribeCertificate = \"5/s\", ListThingPrincipals = \"6/s\" } }";
    let lab = Lab::new(quotas).await;
    let ledger = lab.provision(20).await;
    let mut command = lab.command("verify");
    command.arg(&ledger).arg("--json");
    let (out, err) = (lab.scratch.path("out"), lab.scratch.path("err"));
    let mut child = command
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let looked_at = || column(&ledger, "SELECT count(*) FROM finding")[0].parse::<u64>().unwrap();
    while looked_at() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", std::fs::read_to_string(&err).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(&child, "KILL");
    tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    let done = looked_at();
    let before = lab.asked("DescribeCertificate");
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(0));
    assert_eq!((&report["counts"]["sound"], &report["counts"]["not_looked_at"]), (&json!(20), &json!(0)));
    let after = lab.asked("DescribeCertificate");
    assert!(after.1 > 0, "it was throttled");
    let answered = (after.0 - after.1) - (before.0 - before.1);
    // Only what the first run had not looked at; a request of its last moment may have been answered after it.
    assert!((20 - done..=23 - done).contains(&answered), "{answered} and {done}");
    // Each run that came to its end is followed by a new one.
    lab.run("verify", &ledger, &["--only", "SN000001"]).await.expect_code(0);
    assert_eq!(column(&ledger, "SELECT count(*) FROM run WHERE outcome = 'complete'")[0], "3");
    lab.close().await;
}

const HOOKED: &str = r#"
[[templates]]
name = "LOT"
file = "template.json"
pre_provisioning_hook = "arn:aws:lambda:us-east-1:123456789012:function:hook"
[hooks]
"arn:aws:lambda:us-east-1:123456789012:function:hook" = ["sh", "-c", "cat > /dev/null; echo '{\"allowProvisioning\": true, \"parameterOverrides\": {\"Site\": \"moon\"}}'"]
"#;

#[tokio::test]
async fn what_a_hook_can_change_is_not_checkable_and_the_rest_is_checked() {
    let lab = Lab::with_template(TEMPLATE, "", HOOKED).await;
    let ledger = lab.provision(3).await;
    assert_eq!(
        lab.state(|state| state.things["DEVICE_000001"].attributes.get("site").map(String::from)).as_deref(),
        Some("moon")
    );
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(0));
    let not_checkable = report["not_checkable"].as_object().unwrap();
    let names: Vec<_> = not_checkable.keys().map(String::as_str).collect();
    assert_eq!(names, ["attribute mac", "attribute serial", "attribute site", "policies", "thing name"]);
    assert_eq!(report["counts"]["partly_checked"], 3);
    // What no parameter has a part in is as before.
    let patch =
        json!({ "attributePayload": { "attributes": { "maker": "them", "site": "mars" }, "merge": true } });
    lab.ask("PATCH", &own("DEVICE_000002"), None, &patch).await;
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(3));
    assert_eq!(
        reasons(&report),
        [(String::from("SN000002"), vec![String::from("attribute maker: found them; wanted us")])]
    );
    lab.close().await;
}

const THINGLESS: &str = r#"{
  "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "certificate": {"Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "INACTIVE"}},
    "shared": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "Shared"}}
  }
}"#;

#[tokio::test]
async fn devices_without_a_thing_are_looked_at_by_their_certificate() {
    let lab = Lab::with_template(THINGLESS, "", "").await;
    let ledger = lab.provision(2).await;
    lab.run("verify", &ledger, &[]).await.expect_code(0).expect_out(&["2 of 2"]);
    let id = &ids(&ledger)[1];
    lab.ask("PUT", &format!("/certificates/{id}?newStatus=ACTIVE"), None, &Value::Null).await;
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(3));
    assert_eq!(reasons(&report)[0].1, ["certificate: found ACTIVE; wanted INACTIVE"]);
    lab.close().await;
}

#[tokio::test]
async fn another_account_and_a_missing_permission_are_named() {
    let lab = Lab::new("deny = [\"iot:ListPrincipalThings\"]").await;
    let ledger = lab.provision(2).await;
    let mut refused = Transcript::default();
    refused.add("a permission that is missing", &lab.run("verify", &ledger, &[]).await);
    let mut command = crate::harness::fleetmint();
    command.arg("verify").arg(&ledger).args(["--endpoint", "x-ats.iot.us-east-1.amazonaws.com"]);
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    refused.add("another account", &run(&mut command));
    let mut command = crate::harness::fleetmint();
    refused.add("the built-in emulator", &run(command.arg("verify").arg(&ledger).arg("--emulator")));
    expect_text("verify-refused", &lab.scratch, &refused, &[]);
    lab.close().await;
}
