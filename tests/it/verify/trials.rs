//! `--connect N`: certificates tried by connecting.

use std::time::Duration;

use serde_json::json;

use super::lab::{Lab, TEMPLATE, json_of, reasons};
use crate::harness::{column, signal};

#[tokio::test]
async fn new_certificates_are_tried_with_a_connection_of_their_own() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(6).await;
    let before = lab.emulator.counters();
    let report = json_of(&lab.run("verify", &ledger, &["--json", "--connect", "3"]).await.expect_code(0));
    assert_eq!(report["counts"]["connected"], 3);
    let after = lab.emulator.counters();
    assert_eq!((after.connected - before.connected, after.messages - before.messages), (3, 3));
    let told = column(&ledger, "SELECT json_extract(details, '$.connected') FROM finding WHERE device = 1");
    assert_eq!(told, ["connected as DEVICE_000001, published to meters/DEVICE_000001"]);
    // As many as were asked for, however they go into the lot.
    for number in ["4", "5", "9"] {
        let report =
            json_of(&lab.run("verify", &ledger, &["--json", "--connect", number]).await.expect_code(0));
        assert_eq!(report["counts"]["connected"], number.parse::<u64>().unwrap().min(6), "{number}");
    }
    // A policy that denies the connection is found by the connection alone.
    let deny = json!({ "policyDocument": json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Deny", "Action": "iot:Connect", "Resource": "*" }],
    }).to_string() });
    lab.ask("POST", "/policies/Shared/version?setAsDefault=true", None, &deny).await;
    let report = json_of(&lab.run("verify", &ledger, &["--json", "--connect", "1"]).await.expect_code(3));
    let reason = &reasons(&report)[0].1[0];
    assert!(reason.starts_with("its certificate could not be used: "), "{reason}");
    lab.close().await;
}

#[tokio::test]
async fn a_device_whose_key_is_not_here_is_not_counted_as_tried() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(3).await;
    let out = lab.scratch.path("out.jsonl");
    let mut command = crate::harness::fleetmint();
    command.arg("export").arg(&ledger).args(["--format", "jsonl", "--out"]).arg(&out);
    crate::harness::run(&mut command).expect_code(0);
    let mut command = crate::harness::fleetmint();
    crate::harness::run(command.arg("purge-keys").arg(&ledger).arg("--yes")).expect_code(0);
    let said = lab.run("verify", &ledger, &["--json", "--connect", "2"]).await.expect_code(0);
    assert_eq!(json_of(&said)["counts"]["connected"], 0);
    said.expect_err(&["only 0 of these devices have their key in the ledger"]);
    lab.close().await;
}

#[tokio::test]
async fn trials_are_stopped_by_ctrl_c_and_what_they_found_is_told() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(150).await;
    let (out, err) = (lab.scratch.path("out"), lab.scratch.path("err"));
    let mut child = lab
        .command("verify")
        .arg(&ledger)
        .args(["--json", "--connect", "150"])
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let tried = "SELECT count(*) FROM finding WHERE json_extract(details, '$.connected') IS NOT NULL";
    while column(&ledger, tried) == ["0"] {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", std::fs::read_to_string(&err).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal(&child, "INT");
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(5), "{}", std::fs::read_to_string(&err).unwrap());
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let connected = report["counts"]["connected"].as_u64().unwrap();
    assert!((1..150).contains(&connected), "{connected}");
    assert_eq!((&report["counts"]["sound"], &report["head"]["end"]), (&json!(150), &json!("drained")));
    assert_eq!(column(&ledger, "SELECT outcome FROM run ORDER BY id DESC LIMIT 1"), ["drained"]);
    lab.close().await;
}

#[tokio::test]
async fn trials_that_are_not_permitted_do_not_cost_the_report() {
    // No document in the template: only a trial reads policies.
    let start = TEMPLATE.find(",\n    \"own\"").unwrap();
    let template = format!("{}\n  }}\n}}", &TEMPLATE[..start]);
    let lab = Lab::with_template(&template, "deny = [\"iot:GetPolicy\"]", "").await;
    let ledger = lab.provision(3).await;
    lab.run("verify", &ledger, &[]).await.expect_code(0);
    let page = lab.scratch.path("lot.html");
    let args = ["--json", "--connect", "2", "--report", page.to_str().unwrap()];
    let said = lab.run("verify", &ledger, &args).await.expect_code(77).expect_err(&["GetPolicy", "allow it"]);
    assert_eq!((json_of(&said)["counts"]["sound"].as_u64(), page.exists()), (Some(3), true));
    assert_eq!(column(&ledger, "SELECT outcome FROM run ORDER BY id DESC LIMIT 1"), ["stopped"]);
    lab.close().await;
}
