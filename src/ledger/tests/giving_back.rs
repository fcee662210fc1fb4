//! Retry, and the status of runs.

use super::*;
use crate::call::Call;
use crate::event::DeviceState;

/// Devices 1 and 2 rejected, the second with a certificate; 3 unknown; 4 registered; 5 issued; 6 pending.
fn given_up(mut ledger: Ledger) -> Ledger {
    let unauthorized =
        Failure::new(Stage::Call(Call::RegisterThing), Cause::Closed { detail: String::from("gone") });
    let refused = Change::Rejected { device: DeviceId(2), failure: unauthorized };
    let changes =
        vec![rejected(1), issued(2), refused, issued(3), unknown(3), issued(4), registered(4), issued(5)];
    ledger.commit(changes, now()).unwrap();
    ledger
}

fn retry(from: GivenUp) -> Retry {
    Retry { from, keys: Vec::new(), cause: None }
}

fn states(ledger: &Ledger) -> Vec<DeviceState> {
    (1..=6)
        .map(|device| rows::find_device(&ledger.view().connection, DeviceId(device)).unwrap().state)
        .collect()
}

use DeviceState::{Issued, Pending, Registered, Rejected, Unknown};

#[test]
fn rejected_devices_are_pending_again_and_nothing_else_moves() {
    let mut ledger = given_up(in_memory(6));
    let returned = ledger.retry(&retry(GivenUp::Rejected), now()).unwrap();
    assert_eq!(returned, Returned { run: Some(RunId(1)), devices: 2, certificates_retired: 1 });
    assert_eq!(states(&ledger), [Pending, Pending, Unknown, Registered, Issued, Pending]);
    let open = ledger.view().open_devices(None, 9).unwrap();
    assert_eq!(open.len(), 4, "they read back as devices that a run can take up");
    assert!(matches!(open[1].work, Work::Create));
    let again = Change::Issued { device: DeviceId(2), certificate: certificate(20) };
    ledger.commit(vec![again, registered(2)], now()).unwrap();
    assert_eq!(ledger.view().troubles().unwrap().len(), 1, "their failures are gone");
}

#[test]
fn the_retired_certificate_keeps_its_key_and_loses_its_token() {
    let mut ledger = given_up(in_memory(6));
    ledger.retry(&retry(GivenUp::Unknown), now()).unwrap();
    assert_eq!(states(&ledger), [Rejected, Rejected, Pending, Registered, Issued, Pending]);
    let kept: (String, Option<String>, Option<String>) = ledger
        .view()
        .connection
        .query_row(
            "SELECT private_key, ownership_token, retired_at FROM certificate WHERE device = 3",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(kept, (String::from("key 3"), None, Some(String::from("2023-11-14T22:13:20.123Z"))));
    let receipts = ledger.commit(vec![issued(3)], now()).unwrap();
    assert!(matches!(receipts[..], [Receipt::Conflict(_)]), "it never comes back");
}

#[test]
fn history_says_what_was_returned() {
    let mut ledger = given_up(in_memory(6));
    ledger.retry(&retry(GivenUp::Rejected), now()).unwrap();
    let runs = ledger.view().runs().unwrap();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((run.outcome.as_deref(), run.ended_at.as_ref()), (Some(RETRY_OUTCOME), Some(&run.started_at)));
    let summary: serde_json::Value = serde_json::from_str(run.summary.as_ref().unwrap()).unwrap();
    let expected = serde_json::json!({
        "returned": 2, "certificates_retired": 1, "keys": ["SN-0000001", "SN-0000002"], "keys_left_out": 0
    });
    assert_eq!(summary, expected);
    assert_eq!(ledger.retry(&retry(GivenUp::Rejected), now()).unwrap(), Returned::default());
    assert_eq!(ledger.view().runs().unwrap().len(), 1, "nothing returned is no history");
}

#[test]
fn keys_and_causes_choose_and_mistakes_change_nothing() {
    let mut ledger = given_up(in_memory(6));
    let named = |keys: &[i64]| Retry {
        keys: keys.iter().map(|key| format!("SN-{key:07}")).collect(),
        ..retry(GivenUp::Rejected)
    };
    let caused = |cause: &str| Retry { cause: Some(cause.into()), ..retry(GivenUp::Rejected) };
    let mut refused = |retry: &Retry| ledger.retry(retry, now()).unwrap_err().to_string();
    assert!(refused(&named(&[1, 7])).contains("no device with key \"SN-0000007\""));
    for (key, state) in [(3, "unknown"), (4, "registered"), (5, "issued"), (6, "pending")] {
        assert!(refused(&named(&[1, key])).contains(&format!("is {state}, not rejected")));
    }
    assert!(refused(&caused("clsoed")).contains("closed, no_reply"));
    assert_eq!(states(&ledger), [Rejected, Rejected, Unknown, Registered, Issued, Pending]);
    assert!(ledger.view().runs().unwrap().is_empty());
    assert_eq!(ledger.retry(&caused("closed"), now()).unwrap().devices, 1);
    assert_eq!(states(&ledger)[..2], [Rejected, Pending]);
    assert_eq!(ledger.retry(&named(&[1]), now()).unwrap().devices, 1);
    assert_eq!(ledger.view().counts().unwrap().rejected, 0);
}

#[test]
fn a_ledger_that_contradicts_itself_is_not_touched() {
    let mut ledger = given_up(in_memory(6));
    ledger.view().connection.execute("UPDATE credential SET retired_at = 'x' WHERE device = 3", []).unwrap();
    let problem = ledger.retry(&retry(GivenUp::Unknown), now()).unwrap_err().problem;
    assert!(matches!(problem, Problem::Damaged { .. }), "{problem}");
    assert_eq!(states(&ledger)[2], Unknown);
}

#[test]
fn a_run_that_never_ended_is_running_while_its_process_has_the_ledger() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 2);
    let view = View::open(&path).unwrap();
    let standings =
        || -> Vec<RunStanding> { view.status().unwrap().runs.iter().map(|run| run.standing).collect() };
    let first = ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    assert_eq!(standings(), [RunStanding::Running]);
    assert_eq!(view.status().unwrap().writer, Some(Writer { pid: Some(std::process::id()) }));
    ledger.end_run(first, "complete", &serde_json::json!({}), now()).unwrap();
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    assert_eq!(standings(), [RunStanding::Ended, RunStanding::Running]);
    drop(ledger);
    assert_eq!(standings(), [RunStanding::Ended, RunStanding::Crashed]);
    assert_eq!(view.status().unwrap().writer, None);
}

#[test]
fn a_crashed_run_stays_crashed_while_another_process_has_the_ledger() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 1);
    ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.view.connection.execute("UPDATE run SET pid = 1", []).unwrap();
    let status = ledger.view().status().unwrap();
    assert_eq!(status.runs[0].standing, RunStanding::Crashed);
    assert!(status.writer.is_some());
}

#[test]
fn keys_in_plain_text_are_noticed() {
    let mut ledger = in_memory(2);
    let sealed = |_| {
        let recipients = [String::from("age1one")].into();
        crate::certificate::StoredKey::Sealed(crate::certificate::SealedKey {
            age: String::from("sealed"),
            recipients,
        })
    };
    let certificate = certificate(1).map_key(sealed);
    ledger.commit(vec![Change::Issued { device: DeviceId(1), certificate }], now()).unwrap();
    assert!(!ledger.view().status().unwrap().holds_plain_keys);
    ledger.commit(vec![issued(2)], now()).unwrap();
    assert!(ledger.view().status().unwrap().holds_plain_keys);
}
