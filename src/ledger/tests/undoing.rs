//! What was created for devices, and how its removal is recorded.

use super::*;
use crate::event::DeviceState::{Pending, Registered, Rejected, Removed};

fn scope(of: MadeKind) -> MadeScope {
    MadeScope { verb: "cleanup", ..MadeScope::of(of) }
}

fn devices(ledger: &Ledger, scope: MadeScope) -> Vec<MadeDevice> {
    let count = ledger.view().count_made(&scope).unwrap();
    let mut devices = ledger.view().made_devices(scope).unwrap();
    let mut all = Vec::new();
    // Pages of one device, to show that none is skipped or repeated.
    while let Some(device) = ledger.view().next_made(&mut devices, 1).unwrap().pop() {
        all.push(device);
    }
    assert_eq!(all.len() as u64, count);
    all
}

fn numbers(ledger: &Ledger, of: MadeKind) -> Vec<i64> {
    devices(ledger, scope(of)).iter().map(|device| device.id.0).collect()
}

fn found(device: i64, outcome: &str, gone: Vec<CredentialId>) -> Undone {
    let finding =
        Finding { device: DeviceId(device), outcome: outcome.into(), details: serde_json::json!({}) };
    Undone { finding, gone }
}

fn rows_of(device: &MadeDevice) -> Vec<CredentialId> {
    device.certificates.iter().map(|certificate| certificate.row).collect()
}

/// 1 registered; 2 lapsed and issued again; 3 rejected with a certificate; 4 untouched; 5 lapsed.
fn ledger() -> Ledger {
    let mut ledger = in_memory(5);
    let way =
        vec![issued(1), registered(1), issued(2), lapsed(2), issued(3), rejected(3), issued(5), lapsed(5)];
    ledger.commit(way, now()).unwrap();
    let again = Change::Issued { device: DeviceId(2), certificate: certificate(20) };
    ledger.commit(vec![again], now()).unwrap();
    ledger
}

#[test]
fn devices_are_chosen_by_what_was_made_for_them() {
    let ledger = ledger();
    assert_eq!(numbers(&ledger, MadeKind::Registered), [1]);
    assert_eq!(numbers(&ledger, MadeKind::OnceRegistered), [1]);
    assert_eq!(numbers(&ledger, MadeKind::Certified), [1, 2, 3, 5]);
    let all = devices(&ledger, scope(MadeKind::Certified));
    assert_eq!(all[0].thing_name.as_deref(), Some("thing-1"));
    assert_eq!(all[0].certificate().unwrap().id, certificate(1).certificate_id);
    let second: Vec<_> = all[1].certificates.iter().map(|it| (it.id.clone(), it.is_in_use)).collect();
    assert_eq!(second, [(certificate(2).certificate_id, false), (certificate(20).certificate_id, true)]);
    assert!(all[3].certificate().is_none() && all[3].certificates.len() == 1);
    let keys = [identity(3).key].into();
    assert_eq!(devices(&ledger, MadeScope { keys, ..scope(MadeKind::Certified) })[0].id, DeviceId(3));
}

#[test]
fn what_is_gone_is_gone_for_good_and_what_was_registered_is_removed() {
    let mut ledger = ledger();
    let undone: Vec<_> = devices(&ledger, scope(MadeKind::Certified))
        .iter()
        .map(|device| found(device.id.0, "removed", rows_of(device)))
        .collect();
    ledger.record_undone("cleanup", &undone, now()).unwrap();
    let states: Vec<_> = mending::states(&ledger).into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [Removed, Removed, Rejected, Pending, Pending]);
    assert_eq!(numbers(&ledger, MadeKind::Certified), [0_i64; 0]);
    let counts = ledger.view().counts().unwrap();
    assert_eq!((counts.removed, counts.open()), (2, 2));
    ledger.view().check_integrity().unwrap();
    let left: i64 = ledger
        .view()
        .connection
        .query_row(
            "SELECT count(*) FROM credential WHERE deleted_at IS NULL OR retired_at IS NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn what_is_begun_or_kept_comes_again_and_what_is_left_alone_stays_as_it_is() {
    let mut ledger = ledger();
    let [device] = &devices(&ledger, scope(MadeKind::OnceRegistered))[..] else { panic!("there is one") };
    ledger.record_undone("cleanup", &[found(1, "begun", vec![])], now()).unwrap();
    assert_eq!(mending::states(&ledger)[0].1, Registered);
    for outcome in ["kept", "policies"] {
        ledger.record_undone("cleanup", &[found(1, outcome, rows_of(device))], now()).unwrap();
        assert_eq!(mending::states(&ledger)[0].1, Removed);
        let again = devices(&ledger, scope(MadeKind::OnceRegistered));
        assert_eq!(again[0].finding.as_ref().unwrap().outcome, outcome);
        assert_eq!((again[0].certificates.len(), again[0].thing_name.as_deref()), (0, Some("thing-1")));
    }
    ledger.record_undone("cleanup", &[found(1, "removed", vec![])], now()).unwrap();
    assert_eq!(numbers(&ledger, MadeKind::OnceRegistered), [0_i64; 0]);
}

#[test]
fn a_device_that_was_found_out_about_since_a_run_is_left_out() {
    let mut ledger = ledger();
    let first = ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.record_undone("cleanup", &[found(1, "sound", vec![])], now()).unwrap();
    let since = |run| MadeScope { not_since: Some(run), ..scope(MadeKind::Registered) };
    assert!(devices(&ledger, since(first)).is_empty());
    assert_eq!(devices(&ledger, since(RunId(first.0 + 1))).len(), 1);
    let by = |run| MadeScope { since_run: Some(run), ..scope(MadeKind::Registered) };
    assert!(devices(&ledger, by(first)).is_empty(), "no run is known to have registered it");
    ledger.commit(vec![issued(4), registered(4)], now()).unwrap();
    let brought: Vec<_> = devices(&ledger, by(first)).iter().map(|device| device.id.0).collect();
    assert_eq!(brought, [4]);
    // Findings of another verb do not matter to it.
    let other = MadeScope { verb: "verify", ..since(first) };
    assert_eq!(devices(&ledger, other).len(), 2);
}

#[test]
fn a_device_that_was_reworked_keeps_its_thing_and_its_earlier_certificate() {
    let mut ledger = ledger();
    let rework =
        Rework { key: identity(1).key, certificate: certificate(1).certificate_id, deactivated_at: None };
    ledger.rework(&[rework], now()).unwrap();
    let [device] = &devices(&ledger, scope(MadeKind::OnceRegistered))[..] else { panic!("there is one") };
    assert_eq!((device.state, device.thing_name.as_deref()), (Pending, Some("thing-1")));
    assert_eq!(device.certificates.len(), 1);
    ledger.record_undone("cleanup", &[found(1, "removed", rows_of(device))], now()).unwrap();
    assert_eq!(mending::states(&ledger)[0].1, Removed);
    assert_eq!(numbers(&ledger, MadeKind::OnceRegistered), [0_i64; 0]);
}

#[test]
fn a_removed_device_can_be_given_back_and_provisioned_anew() {
    let mut ledger = ledger();
    let [device] = &devices(&ledger, scope(MadeKind::OnceRegistered))[..] else { panic!("there is one") };
    ledger.record_undone("cleanup", &[found(1, "removed", rows_of(device))], now()).unwrap();
    let retry = Retry { from: GivenUp::Removed, keys: Vec::new(), cause: None };
    assert_eq!(ledger.retry(&retry, now()).unwrap().devices, 1);
    assert_eq!(mending::states(&ledger)[0].1, Pending);
    let again = Change::Issued { device: DeviceId(1), certificate: certificate(10) };
    ledger.commit(vec![again], now()).unwrap();
    ledger.commit(vec![registered(1)], now()).unwrap();
    assert_eq!(mending::states(&ledger)[0].1, Registered);
    assert_eq!(devices(&ledger, scope(MadeKind::Registered))[0].certificates.len(), 1);
    ledger.view().check_integrity().unwrap();
}
