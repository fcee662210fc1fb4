//! `fleetmint cleanup`, as a user runs it: what the ledger made goes, and nothing else.

mod policies;
mod refused;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{column, signal};
use crate::verify::lab::{Lab, TEMPLATE, arn, ids, json_of};

pub fn states(ledger: &Path) -> Vec<String> {
    column(ledger, "SELECT state || ' ' || count(*) FROM device GROUP BY state ORDER BY state")
}

pub fn left(said: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut left: Vec<_> =
        said["left"].as_array().unwrap().iter().map(|it| (text(&it["key"]), text(&it["what"]))).collect();
    left.sort();
    left
}

/// What belongs to nobody's ledger: a thing with a certificate and a policy of its own.
async fn strangers(lab: &Lab) -> (usize, usize, usize) {
    let certificate = lab.ask("POST", "/keys-and-certificate?setAsActive=true", None, &Value::Null).await;
    let arn = certificate["certificateArn"].as_str().unwrap();
    lab.ask("POST", "/things/stranger", None, &json!({})).await;
    lab.ask("PUT", "/things/stranger/principals", Some(arn), &Value::Null).await;
    lab.ask("PUT", "/target-policies/Shared", None, &json!({ "target": arn })).await;
    lab.holdings()
}

#[tokio::test]
async fn a_ledgers_devices_go_and_nothing_else_does() {
    let lab = Lab::new("detach_lag = \"300ms\"").await;
    let before = strangers(&lab).await;
    let ledger = lab.provision(12).await;
    let full = lab.holdings();
    assert_eq!((full.0 - before.0, full.1 - before.1, full.2 - before.2), (12, 12, 12));

    // Without --yes nothing is touched, in the account or in the ledger.
    let said = json_of(&lab.run("cleanup", &ledger, &["--json"]).await.expect_code(0));
    assert_eq!(
        said["tally"],
        json!({"removed": 12, "kept": 0, "left_alone": 0, "certificates": 12, "things": 12, "policies": 12})
    );
    assert_eq!((&said["dry_run"], lab.holdings()), (&json!(true), full));
    assert_eq!((states(&ledger), lab.asked("DetachPolicy").0), (vec![String::from("registered 12")], 0));
    assert_eq!(column(&ledger, "SELECT count(*) FROM finding"), ["0"]);

    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(0));
    assert_eq!(
        said["tally"],
        json!({"removed": 12, "kept": 0, "left_alone": 0, "certificates": 12, "things": 12, "policies": 12})
    );
    assert_eq!(lab.holdings(), before);
    lab.state(|state| assert_eq!(state.things["stranger"].principals.len(), 1));
    assert_eq!(states(&ledger), ["removed 12"]);
    let mut status = crate::harness::fleetmint();
    crate::harness::run(status.arg("status").arg(&ledger))
        .expect_code(0)
        .expect_out(&["12 removed: taken out of the account again", "retry"]);

    // Again there is nothing to do; and a lot that was removed is not provisioned behind anybody's back.
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    let lot = lab.scratch.path("lot.csv");
    let again = lab.run("provision", &lot, &["--template", "LOT"]).await.expect_code(3);
    again.expect_out(&["nothing to do", "12 removed"]).expect_err(&["fleetmint retry", "--state removed"]);
    let mut retry = crate::harness::fleetmint();
    crate::harness::run(retry.arg("retry").arg(&ledger).args(["--state", "removed"])).expect_code(0);
    lab.run("provision", &lot, &["--template", "LOT"]).await.expect_code(0);
    assert_eq!((states(&ledger), lab.holdings()), (vec![String::from("registered 12")], full));
    lab.run("verify", &ledger, &[]).await.expect_code(0);
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!(lab.holdings(), before);
    lab.close().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of changes, and what becomes of each")]
async fn what_another_client_has_changed_is_kept_or_left_alone_and_listed() {
    let lab = Lab::new("").await;
    let before = strangers(&lab).await;
    let ledger = lab.provision(7).await;
    let ids = ids(&ledger);
    let none = Value::Null;
    // 1: a thing altered; 2: a certificate deactivated; 3: a policy detached; 4: another certificate on the thing; 5: another
    // policy on the certificate; 6: the certificate on another thing; 7: nothing.
    let patch = json!({ "attributePayload": { "attributes": { "site": "south" }, "merge": true } });
    lab.ask("PATCH", "/things/DEVICE_000001", None, &patch).await;
    lab.ask("PUT", &format!("/certificates/{}?newStatus=INACTIVE", ids[1]), None, &none).await;
    lab.ask("POST", "/target-policies/Shared", None, &json!({ "target": arn(&ids[2]) })).await;
    let other = lab.ask("POST", "/keys-and-certificate?setAsActive=true", None, &none).await;
    let other = other["certificateArn"].as_str().unwrap();
    lab.ask("PUT", "/things/DEVICE_000004/principals", Some(other), &none).await;
    let document = json!({ "policyDocument": "{\"Version\": \"2012-10-17\", \"Statement\": [{\"Effect\": \"Deny\", \"Action\": \"*\", \"Resource\": \"*\"}]}" });
    lab.ask("POST", "/policies/Theirs", None, &document).await;
    lab.ask("PUT", "/target-policies/Theirs", None, &json!({ "target": arn(&ids[4]) })).await;
    lab.ask("PUT", "/things/stranger/principals", Some(&arn(&ids[5])), &none).await;

    let expected = [
        (
            "SN000001",
            "thing DEVICE_000001: it has version 2: it was there before, or another client has changed it",
        ),
        (
            "SN000002",
            "left alone: its certificate is INACTIVE, and was ACTIVE: another client has changed it",
        ),
        ("SN000003", "left alone: another client has detached policy Shared from its certificate"),
        (
            "SN000004",
            &format!("thing DEVICE_000004: {other} is attached to it, which this ledger does not have"),
        ),
        ("SN000005", "policy Theirs: the template does not have it"),
        ("SN000006", "thing stranger: this ledger does not have it; its certificate was attached to it"),
    ]
    .map(|(key, what)| (key.to_owned(), what.to_owned()));
    let rehearsed = json_of(&lab.run("cleanup", &ledger, &["--json"]).await.expect_code(3));
    assert_eq!(left(&rehearsed), expected);
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    assert_eq!(left(&said), expected);
    assert_eq!(
        said["tally"],
        json!({"removed": 1, "kept": 4, "left_alone": 2, "certificates": 5, "things": 3, "policies": 5})
    );
    assert_eq!(states(&ledger), ["registered 2", "removed 5"]);
    lab.state(|state| {
        let things: Vec<_> = state.things.keys().map(String::as_str).collect();
        assert_eq!(things, ["DEVICE_000001", "DEVICE_000002", "DEVICE_000003", "DEVICE_000004", "stranger"]);
        // Left alone is left alone: attached, with what policies it has.
        let second = state.certificate(&ids[1]).unwrap();
        assert_eq!((second.things.iter().count(), second.policies.iter().count()), (1, 2));
        assert_eq!(state.certificate(&ids[2]).unwrap().policies.iter().count(), 1);
        assert_eq!(state.things["DEVICE_000004"].principals.len(), 1);
        assert!(state.policies.contains_key("Theirs") && state.policies.contains_key("Shared"));
    });
    // What was kept is looked at again, and still kept; what was never the ledger's was told once.
    let again = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    assert_eq!(left(&again), expected[..4]);
    // Whoever asks for it gets the changed ones too.
    lab.run("cleanup", &ledger, &["--yes", "--changed"]).await.expect_code(3);
    assert_eq!(states(&ledger), ["removed 7"]);
    // Once nothing of others is on it any more, what was kept for that goes.
    lab.ask("DELETE", "/things/DEVICE_000004/principals", Some(other), &none).await;
    let last = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    assert_eq!(last["tally"]["things"], 1);
    lab.state(|state| assert_eq!(state.things.keys().collect::<Vec<_>>(), ["DEVICE_000001", "stranger"]));
    let holdings = lab.holdings();
    assert_eq!((holdings.0 - before.0, holdings.1 - before.1, holdings.2 - before.2), (1, 1, 1));
    lab.close().await;
}

#[tokio::test]
async fn certificates_that_were_never_registered_go_where_that_is_asked_for() {
    // The thing type does not exist any more: certificates are issued, and no thing is registered.
    let lab = Lab::with_template(&TEMPLATE.replace("\"Meter\"", "\"Nothing\""), "", "").await;
    let before = lab.holdings();
    let lot = lab.scratch.lot("lot.csv", 4);
    lab.run("provision", &lot, &["--template", "LOT", "--no-check"]).await.expect_code(3);
    let ledger = lab.scratch.path("lot.ledger");
    assert_eq!(lab.holdings().0, before.0 + 4);
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!(lab.holdings().0, before.0 + 4, "they are no ledger's registration");
    lab.run("cleanup", &ledger, &["--yes", "--orphans"]).await.expect_code(0);
    assert_eq!(lab.holdings(), before);
    assert_eq!(states(&ledger), ["rejected 4"]);
    lab.run("cleanup", &ledger, &["--yes", "--orphans"]).await.expect_code(0).expect_out(&["0 devices"]);
    lab.close().await;
}

#[tokio::test]
async fn throttles_make_it_slow_and_leave_nothing() {
    let quotas = "quotas = { burst = \"200ms\", control_plane = { DeleteCertificate = \"8/s\", DetachPolicy = \"8/s\", UpdateCertificate = \"8/s\" } }";
    let lab = Lab::new(quotas).await;
    let before = lab.holdings();
    let ledger = lab.provision(25).await;
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!((lab.holdings(), states(&ledger)), (before, vec![String::from("removed 25")]));
    assert!(lab.asked("DetachPolicy").1 + lab.asked("DeleteCertificate").1 > 0);
    lab.close().await;
}

fn start(lab: &Lab, ledger: &Path) -> Child {
    let mut command = lab.command("cleanup");
    command.arg(ledger).arg("--yes").stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Wherever it is killed, the next run finishes, and what is not the ledger's stays.
#[tokio::test]
async fn whenever_it_is_killed_the_next_run_finishes() {
    let lab = Lab::new("detach_lag = \"100ms\"").await;
    let before = strangers(&lab).await;
    let ledger = lab.provision(60).await;
    let mut kills = 0;
    // Killed when so many requests were made since it began: at a place of the work, not at a time.
    for requests in [1_u64, 90, 200, 310, 420, 500, 560, 600, 640, 680] {
        let mut child = start(&lab, &ledger);
        let begun = lab.emulator.counters().control_requests;
        let is_killed = loop {
            if lab.emulator.counters().control_requests - begun >= requests {
                signal(&child, "KILL");
                break true;
            }
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        kills += u32::from(is_killed);
        if !is_killed {
            break;
        }
    }
    assert!(kills >= 4, "{kills}");
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!((lab.holdings(), states(&ledger)), (before, vec![String::from("removed 60")]));
    lab.state(|state| {
        let stranger = &state.things["stranger"];
        let id = stranger.certificate_ids().next().unwrap();
        assert_eq!(state.certificates[&id].policies.iter().collect::<Vec<_>>(), ["Shared"]);
    });
    lab.close().await;
}

#[tokio::test]
async fn a_load_test_cleans_up_after_itself_and_after_nothing_else() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(3).await;
    let before = lab.holdings();
    for scenario in ["create", "provision"] {
        let made = lab.scratch.path(&format!("{scenario}.ledger"));
        let mut command = lab.command(&format!("load {scenario}"));
        command.args(["--template", "LOT", "--devices", "20", "--rate", "20/s", "--for", "1s", "--cleanup"]);
        command.args([
            "--key-pattern",
            "SN9{n:05}",
            "--column",
            "DeviceId=LOAD_{n}",
            "--column",
            "MacAddress=02:00:00:00:00:01",
        ]);
        command.args(["--key-column", "SerialNumber"]);
        command.arg("--ledger").arg(&made);
        tokio::task::spawn_blocking(move || crate::harness::run(&mut command)).await.unwrap().expect_code(0);
        assert_eq!(lab.holdings(), before, "{scenario}");
        assert!(states(&made)[0].starts_with("pending") || states(&made)[0].starts_with("removed"));
    }
    // In the ledger of a real lot, what was there before the test stays.
    let lot = lab.scratch.lot("lot.csv", 6);
    let mut command = lab.command("load provision");
    command.arg("--lot").arg(&lot).args(["--template", "LOT", "--rate", "3/s", "--for", "1s", "--cleanup"]);
    command.arg("--ledger").arg(&ledger);
    tokio::task::spawn_blocking(move || crate::harness::run(&mut command)).await.unwrap().expect_code(0);
    assert_eq!(
        (lab.holdings(), states(&ledger)),
        (before, vec![String::from("registered 3"), String::from("removed 3")])
    );
    lab.close().await;
}
