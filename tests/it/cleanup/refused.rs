//! An account that refuses a step.

use fleetmint::emulator::scenario::Faults;
use serde_json::json;

use super::{left, states};
use crate::harness::column;
use crate::verify::lab::{Lab, TEMPLATE, json_of};

/// What others change after such a run must not be taken for its doing.
#[tokio::test]
async fn a_device_whose_first_step_is_not_permitted_has_not_begun() {
    let lab = Lab::new("deny = [\"iot:DetachPolicy\"]").await;
    let ledger = lab.provision(5).await;
    let before = lab.holdings();
    lab.run("cleanup", &ledger, &["--yes"])
        .await
        .expect_code(77)
        .expect_err(&["DetachPolicy is not permitted"]);
    assert_eq!(lab.holdings(), before);
    assert_eq!(column(&ledger, "SELECT DISTINCT outcome FROM finding"), ["left_alone"]);
    lab.close().await;
}

#[tokio::test]
async fn a_step_that_is_refused_keeps_one_device_and_the_next_run_finishes_it() {
    // The same requests in the same order, to learn which is DeleteCertificate: DeleteThing and those for the policy follow.
    let lab = Lab::with_template(TEMPLATE, "", "").await;
    let ledger = lab.provision(1).await;
    let before = lab.emulator.counters().control_requests;
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    let all = lab.emulator.counters().control_requests - before;
    let of_policies = ["DeletePolicy", "ListTargetsForPolicy", "ListPolicyVersions"];
    let behind = 1 + of_policies.iter().map(|operation| lab.asked(operation).0).sum::<u64>();
    lab.close().await;

    let lab = Lab::with_template(TEMPLATE, "", "").await;
    let ledger = lab.provision(1).await;
    let rule = json!({ "on": "control_plane", "fault": "http_status", "status": 400, "after": all - behind - 1, "max": 1 });
    lab.emulator.set_faults(serde_json::from_value::<Faults>(json!({ "rules": [rule] })).unwrap());
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    let left = left(&said);
    assert!(left.len() == 1 && left[0].1.starts_with("its certificate: DeleteCertificate: "), "{left:?}");
    assert_eq!((&said["tally"]["kept"], lab.holdings().0), (&json!(1), 1));
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!((lab.holdings().0, states(&ledger)), (0, vec![String::from("removed 1")]));
    lab.close().await;
}
