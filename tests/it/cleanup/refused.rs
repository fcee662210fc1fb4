//! An account that refuses a step.

use fleetmint::emulator::scenario::Faults;
use serde_json::json;

use super::{left, states};
use crate::harness::column;
use crate::verify::lab::{Lab, json_of};

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

/// The requests of a run over one device come in the same order each time: how many there are, and how many of these
/// operations.
async fn requests(verb: &str, args: &[&str], operations: &[&str]) -> (u64, u64) {
    let lab = Lab::new("").await;
    let ledger = lab.provision(1).await;
    let before = lab.emulator.counters().control_requests;
    lab.run(verb, &ledger, args).await.expect_code(0);
    let all = lab.emulator.counters().control_requests - before;
    let of_these = operations.iter().map(|operation| lab.asked(operation).0).sum();
    lab.close().await;
    (all, of_these)
}

/// A lab with one device, that rejects the request after so many, once.
async fn rejecting(after: u64) -> (Lab, std::path::PathBuf) {
    let lab = Lab::new("").await;
    let ledger = lab.provision(1).await;
    let rule =
        json!({ "on": "control_plane", "fault": "http_status", "status": 400, "after": after, "max": 1 });
    lab.emulator.set_faults(serde_json::from_value::<Faults>(json!({ "rules": [rule] })).unwrap());
    (lab, ledger)
}

/// What comes after a certificate is deleted.
const BEHIND: [&str; 4] = ["DeleteThing", "DeletePolicy", "ListTargetsForPolicy", "ListPolicyVersions"];

#[tokio::test]
async fn a_step_that_is_refused_keeps_one_device_and_the_next_run_finishes_it() {
    let (all, behind) = requests("cleanup", &["--yes"], &BEHIND).await;
    let (lab, ledger) = rejecting(all - behind - 1).await;
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    let left = left(&said);
    assert!(left.len() == 1 && left[0].1.starts_with("its certificate: DeleteCertificate: "), "{left:?}");
    assert_eq!((&said["tally"]["kept"], lab.holdings().0), (&json!(1), 1));
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    assert_eq!((lab.holdings().0, states(&ledger)), (0, vec![String::from("removed 1")]));
    lab.close().await;
}

#[tokio::test]
async fn a_question_that_is_rejected_leaves_one_device_alone() {
    let steps = ["DetachPolicy", "DetachThingPrincipal", "UpdateCertificate", "DeleteCertificate"]
        .into_iter()
        .chain(BEHIND);
    let (all, steps) = requests("cleanup", &["--yes"], &steps.collect::<Vec<_>>()).await;
    let (lab, ledger) = rejecting(all - steps - 1).await;
    let before = lab.holdings();
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    let left = left(&said);
    assert!(left.len() == 1 && left[0].1.starts_with("left alone: what the account has of it"), "{left:?}");
    assert_eq!(lab.holdings(), before);
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    lab.close().await;

    let (all, _) = requests("verify", &[], &[]).await;
    let (lab, ledger) = rejecting(all - 1).await;
    lab.run("verify", &ledger, &[]).await.expect_code(3);
    assert_eq!(column(&ledger, "SELECT outcome FROM finding"), ["not_compared"]);
    lab.run("verify", &ledger, &[]).await.expect_code(0);
    lab.close().await;
}
