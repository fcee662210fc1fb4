//! Transitions, conflicts, receipts, and what is read back.

use super::*;
use crate::event::DeviceState;

/// Brings device 1 to `state`.
fn device_in(state: DeviceState) -> Ledger {
    let mut ledger = in_memory(2);
    let way = match state {
        DeviceState::Pending => vec![],
        DeviceState::Issued => vec![issued(1)],
        DeviceState::Registered => vec![issued(1), registered(1)],
        DeviceState::Rejected => vec![rejected(1)],
        DeviceState::Unknown => vec![issued(1), unknown(1)],
        DeviceState::Withdrawn | DeviceState::Removed => unreachable!("no change of a run leads there"),
    };
    ledger.commit(way, now()).unwrap();
    ledger
}

fn state_of(ledger: &Ledger, device: i64) -> DeviceState {
    rows::find_device(&ledger.view().connection, DeviceId(device)).unwrap().state
}

#[test]
fn every_transition_is_legal_or_an_error() {
    use DeviceState::{Issued, Pending, Registered, Rejected, Unknown};
    type Case = (fn() -> Change, &'static [DeviceState], Option<DeviceState>);
    let changes: [Case; 7] = [
        (|| prepared(1), &[Pending], None),
        (|| issued(1), &[Pending], Some(Issued)),
        (|| registered(1), &[Issued], Some(Registered)),
        (|| rejected(1), &[Pending, Issued], Some(Rejected)),
        (|| unknown(1), &[Issued], Some(Unknown)),
        (|| lapsed(1), &[Issued], Some(Pending)),
        (|| left(1, Registration::NotSent), &[Pending, Issued], None),
    ];
    for from in [Pending, Issued, Registered, Rejected, Unknown] {
        for (change, legal, to) in &changes {
            let mut ledger = device_in(from);
            let outcome = ledger.commit(vec![issued(2), change()], now());
            if legal.contains(&from) {
                assert!(matches!(outcome.unwrap()[..], [Receipt::Issued(_), _]));
                assert_eq!(state_of(&ledger, 1), to.unwrap_or(from));
            } else {
                let problem = outcome.unwrap_err().problem;
                assert!(
                    matches!(&problem, Problem::IllegalTransition { state, .. } if *state == from),
                    "{problem}"
                );
                assert_eq!(
                    (state_of(&ledger, 1), state_of(&ledger, 2)),
                    (from, Pending),
                    "the batch is not written"
                );
                ledger.commit(vec![issued(2)], now()).expect("a refused batch does not poison the ledger");
            }
            integrity::check(&ledger.view().connection).expect("every row has its digest");
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let mut ledger = in_memory(1);
    let problem = ledger.commit(vec![issued(2)], now()).unwrap_err().problem;
    assert!(matches!(problem, Problem::NoSuchDevice { device: DeviceId(2) }), "{problem}");
}

#[test]
fn receipts_come_in_order_and_prove_the_certificate() {
    let mut ledger = in_memory(3);
    let receipts = ledger.commit(vec![issued(2), rejected(1), issued(3)], now()).unwrap();
    let [Receipt::Issued(second), Receipt::Done, Receipt::Issued(third)] = &receipts[..] else {
        panic!("{receipts:?}")
    };
    assert_eq!((&**second, &**third), (&certificate(2), &certificate(3)));
    assert!(!format!("{receipts:?}").contains("key "));
}

#[test]
fn a_certificate_is_never_given_to_a_second_device() {
    let mut ledger = in_memory(3);
    let again = Change::Issued { device: DeviceId(2), certificate: certificate(1) };
    let receipts = ledger.commit(vec![issued(1), again, issued(3)], now()).unwrap();
    let [Receipt::Issued(_), Receipt::Conflict(conflict), Receipt::Issued(_)] = &receipts[..] else {
        panic!("{receipts:?}")
    };
    assert_eq!((conflict.device, conflict.holder.as_str()), (DeviceId(2), "SN-0000001"));
    assert!(matches!(conflict.contested, Contested::Certificate(_)));
    assert_eq!(state_of(&ledger, 2), DeviceState::Pending);
    assert_eq!(ledger.view().counts().unwrap().issued(), 2);
}

#[test]
fn a_certificate_that_was_given_up_does_not_come_back() {
    let mut ledger = in_memory(1);
    ledger.commit(vec![issued(1), lapsed(1)], now()).unwrap();
    let receipts = ledger.commit(vec![issued(1)], now()).unwrap();
    assert!(matches!(&receipts[..], [Receipt::Conflict(conflict)] if conflict.holder == "SN-0000001"));
    let fresh = Change::Issued { device: DeviceId(1), certificate: certificate(9) };
    assert!(matches!(ledger.commit(vec![fresh], now()).unwrap()[..], [Receipt::Issued(_)]));
}

#[test]
fn a_thing_name_is_never_given_to_a_second_device() {
    let mut ledger = in_memory(2);
    let Change::Registered { thing, .. } = registered(1) else { unreachable!() };
    let again = Change::Registered { device: DeviceId(2), thing };
    let receipts = ledger.commit(vec![issued(1), issued(2), registered(1), again], now()).unwrap();
    let Some(Receipt::Conflict(conflict)) = receipts.last() else { panic!("{receipts:?}") };
    assert_eq!(conflict.contested, Contested::Thing(String::from("thing-1")));
    assert_eq!(
        conflict.to_string(),
        "thing thing-1, given to device number 2, is already that of the device with key \"SN-0000001\""
    );
    let open = ledger.view().open_devices(None, 9).unwrap();
    let [OpenDevice { id: DeviceId(2), work: Work::Register { certificate, .. }, .. }] = &open[..] else {
        panic!("{open:?}")
    };
    assert_eq!(certificate.ownership_token.expose(), "token 2", "nothing of the conflict was written");
}

#[test]
fn a_thing_that_is_named_as_another_row_is_that_rows() {
    let mut ledger = in_memory(2);
    let named = |device, name: &str| Change::Registered {
        device: DeviceId(device),
        thing: RegisteredThing { thing_name: name.to_owned(), device_configuration: Default::default() },
    };
    let receipts = ledger.commit(vec![issued(1), issued(2), named(2, "SN-0000001")], now()).unwrap();
    let Some(Receipt::Conflict(conflict)) = receipts.last() else { panic!("{receipts:?}") };
    assert_eq!(conflict.holder, "SN-0000001");
    let receipts = ledger.commit(vec![named(2, "SN-0000002"), named(1, "SN-0000001")], now()).unwrap();
    assert!(matches!(receipts[..], [Receipt::Done, Receipt::Done]), "its own key is its own name");
}

#[test]
fn a_key_that_is_another_rows_thing_by_its_own_values_is_no_conflict() {
    let row = |rank: u64, name: &str| {
        let identity = identity(rank);
        Ok(Identity { values: vec![identity.key.clone(), name.to_owned()], ..identity })
    };
    let rows = lot_of(vec![row(1, "SN-0000002"), row(2, "SN-0000001")]);
    let mut ledger = Ledger::in_memory(&binding(), rows, accept, now()).unwrap();
    let thing = |name: &str| RegisteredThing {
        thing_name: name.to_owned(),
        device_configuration: Default::default(),
    };
    let change = Change::Registered { device: DeviceId(1), thing: thing("SN-0000002") };
    let receipts = ledger.commit(vec![issued(1), change], now()).unwrap();
    assert!(matches!(receipts[..], [Receipt::Issued(_), Receipt::Done]), "{receipts:?}");
}

#[test]
fn devices_without_a_thing_are_not_taken_for_one_another() {
    let mut ledger = in_memory(2);
    let nameless = |device| Change::Registered {
        device: DeviceId(device),
        thing: RegisteredThing { thing_name: String::new(), device_configuration: Default::default() },
    };
    let receipts = ledger.commit(vec![issued(1), nameless(1), issued(2), nameless(2)], now()).unwrap();
    assert!(!receipts.iter().any(|receipt| matches!(receipt, Receipt::Conflict(_))));
    ledger
        .view()
        .for_each_certified::<LedgerError>(&Selection::default(), |device| {
            assert_eq!(device.thing.unwrap().thing_name, "");
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_issued_device_may_be_registered_unless_we_know_better() {
    let mut ledger = in_memory(2);
    ledger.commit(vec![issued(1), issued(2)], now()).unwrap();
    let counts = ledger.view().counts().unwrap();
    assert_eq!((counts.issued_may_sent, counts.issued_not_sent), (2, 0));
    ledger.commit(vec![left(1, Registration::NotSent)], now()).unwrap();
    let counts = ledger.view().counts().unwrap();
    assert_eq!((counts.issued_may_sent, counts.issued_not_sent), (1, 1));
    let open = ledger.view().open_devices(None, 9).unwrap();
    let Work::Register { registration, issued_at, .. } = &open[0].work else { panic!("{open:?}") };
    assert_eq!((*registration, *issued_at), (Registration::NotSent, now()));
}

#[test]
fn open_devices_come_in_pages() {
    let mut ledger = in_memory(7);
    ledger
        .commit(vec![rejected(1), issued(3), issued(4), registered(4), issued(6), unknown(6)], now())
        .unwrap();
    let ids = |after: Option<i64>, limit| -> Vec<i64> {
        let page = ledger.view().open_devices(after.map(DeviceId), limit).unwrap();
        page.iter().map(|device| device.id.0).collect()
    };
    assert_eq!(ids(None, 2), [2, 3]);
    assert_eq!(ids(Some(3), 2), [5, 7]);
    assert_eq!(ids(Some(7), 2), Vec::<i64>::new());
    assert_eq!(ids(Some(1), usize::MAX), [2, 3, 5, 7]);
    let page = ledger.view().open_devices(None, 1).unwrap();
    assert_eq!(page[0].identity, identity(2));
    assert!(matches!(page[0].work, Work::Create));
}

#[test]
fn registered_devices_stream_with_all_they_need_and_no_token() {
    let mut ledger = in_memory(3);
    ledger.commit(vec![issued(3), issued(1), registered(3), registered(1)], now()).unwrap();
    let mut seen = Vec::new();
    ledger
        .view()
        .for_each_certified::<LedgerError>(&Selection::default(), |device| {
            assert_eq!(device.private_key, plain(&format!("key {}", device.id.0)));
            let thing = device.thing.unwrap();
            assert_eq!(thing.device_configuration["url"], "mqtt://x");
            seen.push((device.id.0, thing.thing_name, device.certificate_pem, device.registered_at.unwrap()));
            Ok(())
        })
        .unwrap();
    let expected = |id: i64| {
        (id, format!("thing-{id}"), format!("certificate {id}"), String::from("2023-11-14T22:13:20.123Z"))
    };
    assert_eq!(seen, [expected(1), expected(3)]);
    let tokens: i64 = ledger
        .view()
        .connection
        .query_row("SELECT count(*) FROM certificate WHERE ownership_token IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tokens, 0);
}

#[test]
fn failures_are_grouped_by_state_stage_and_cause() {
    let mut ledger = in_memory(5);
    ledger.commit(vec![rejected(4), rejected(2), left(1, Registration::NotSent)], now()).unwrap();
    let troubles = ledger.view().troubles().unwrap();
    let [first, second] = &troubles[..] else { panic!("{troubles:?}") };
    assert_eq!(
        (first.state, first.devices, first.example_key.as_str()),
        (DeviceState::Rejected, 2, "SN-0000002")
    );
    assert_eq!((first.stage.as_str(), first.cause.as_str()), ("register_thing", "no_reply"));
    assert_eq!(first.example, failure().to_string());
    assert_eq!((second.state, second.devices), (DeviceState::Pending, 1));
}

#[test]
fn runs_are_remembered_and_mark_their_changes() {
    let mut ledger = in_memory(1);
    let first = ledger.begin_run(&serde_json::json!({"connections": 10}), now()).unwrap();
    ledger.commit(vec![issued(1)], now()).unwrap();
    ledger.end_run(first, "interrupted", &serde_json::json!({"schema": 1}), now()).unwrap();
    let second = ledger.begin_run(&serde_json::json!({}), now()).unwrap();
    ledger.commit(vec![registered(1)], now()).unwrap();
    let runs = ledger.view().runs().unwrap();
    assert_eq!((runs[0].id, runs[0].outcome.as_deref()), (first.0, Some("interrupted")));
    assert_eq!((runs[1].id, runs[1].ended_at.as_deref()), (second.0, None));
    let marks: (i64, i64) = ledger
        .view()
        .connection
        .query_row("SELECT device.run, certificate.run FROM device, certificate", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(marks, (second.0, first.0));
}

#[test]
fn the_views_for_people_answer() {
    let mut ledger = in_memory(3);
    ledger.commit(vec![issued(1), rejected(2)], now()).unwrap();
    let connection = &ledger.view().connection;
    let issued: (String, String) = connection
        .query_row("SELECT key, certificate_id FROM devices WHERE state = 'issued'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(issued, (String::from("SN-0000001"), format!("{:064x}", 1)));
    let status: (i64, i64, i64, i64) = connection
        .query_row("SELECT devices, pending, issued, rejected FROM lot_status", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    assert_eq!(status, (3, 1, 1, 1));
}

#[test]
fn what_no_legal_change_leads_to_is_not_read() {
    let tamper = |sql: &str| {
        let mut ledger = in_memory(2);
        ledger.commit(vec![issued(1)], now()).unwrap();
        ledger.view().connection.execute_batch(sql).unwrap();
        ledger.view().open_devices(None, 9).unwrap_err().problem
    };
    for sql in [
        "UPDATE credential SET retired_at = 'x'",
        "UPDATE device SET state = 'pending', registration = NULL WHERE id = 1",
        "DELETE FROM token",
        "UPDATE credential SET issued_at = 'yesterday'",
        "UPDATE credential SET certificate_id = 'abc'",
        "UPDATE device SET parameter_values = '[\"secret\"]' WHERE id = 2",
        "UPDATE device SET parameter_values = 'secret' WHERE id = 2",
    ] {
        let problem = tamper(sql);
        assert!(matches!(problem, Problem::Damaged { .. }), "{sql}: {problem}");
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}

#[test]
fn no_room_is_a_clear_error_and_the_last_write() {
    let mut ledger = in_memory(1_000);
    ledger.commit((1..=10).map(issued).collect(), now()).unwrap();
    let pages: i64 =
        ledger.view().connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    ledger.view().connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let error = ledger.commit((11..=1_000).map(issued).collect(), now()).unwrap_err();
    assert!(matches!(error.problem, Problem::Full), "{error}");
    let error = ledger.commit(vec![registered(1)], now()).unwrap_err();
    assert!(matches!(error.problem, Problem::Poisoned), "{error}");
    assert!(ledger.begin_run(&serde_json::json!({}), now()).is_err());
    assert_eq!(
        ledger.view().counts().unwrap().issued(),
        10,
        "reading goes on, and shows no half of the batch"
    );
}

#[test]
fn a_ledger_can_be_handed_to_another_thread() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<Ledger>();
    assert_send::<View>();
    assert_send::<LedgerError>();
}
