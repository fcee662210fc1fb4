//! Lots that grow and are corrected, and ledgers that are bound again.

use super::*;
use crate::event::DeviceState;
use crate::shard::Shard;

use DeviceState::{Issued, Pending, Registered, Unknown};

/// Row number `rank` with other values.
fn changed(rank: u64) -> Identity {
    Identity { values: vec![identity(rank).key, String::from("hunter2")], ..identity(rank) }
}

fn resume(path: &Path, rows: Vec<Identity>) -> Result<Ledger, ImportError> {
    Ledger::resume(path, &binding(), lot_of(rows.into_iter().map(Ok).collect()), accept, now())
}

/// The states of the devices with their keys, in the order of their numbers.
pub(super) fn states(ledger: &Ledger) -> Vec<(String, DeviceState)> {
    let connection = &ledger.view().connection;
    let mut statement = connection.prepare("SELECT key, state FROM device ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
    rows.map(Result::unwrap).map(|(key, state)| (key, DeviceState::from_name(&state).unwrap())).collect()
}

/// A ledger with one device in each state: 1 pending, 2 rejected without and 3 with a certificate, 4 issued and
/// certainly not sent, 5 issued and possibly sent, 6 unknown, 7 registered.
fn one_of_each(path: &Path) {
    let changes = vec![
        rejected(2),
        issued(3),
        rejected(3),
        issued(4),
        left(4, Registration::NotSent),
        issued(5),
        issued(6),
        unknown(6),
        issued(7),
        registered(7),
    ];
    import(path, 7).commit(changes, now()).unwrap();
}

#[test]
fn rows_may_be_added_anywhere_and_in_any_order() {
    let (_directory, path) = scratch();
    import(&path, 3).commit(vec![issued(1), registered(1), issued(2)], now()).unwrap();
    let rows: Vec<Identity> = [5, 3, 1, 4, 2]
        .into_iter()
        .zip(2..)
        .map(|(rank, line)| Identity { line, ..identity(rank) })
        .collect();
    let ledger = resume(&path, rows.clone()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges { added: 2, moved: 3, ..LotChanges::default() });
    assert_eq!(ledger.view().lot().devices, 5);
    let keys: Vec<String> =
        ledger.view().open_devices(None, 9).unwrap().into_iter().map(|device| device.identity.key).collect();
    assert_eq!(keys, ["SN-0000002", "SN-0000003", "SN-0000005", "SN-0000004"]);
    drop(ledger);
    let again = resume(&path, rows).unwrap();
    assert_eq!(*again.lot_changes(), LotChanges::default(), "the grown lot is the lot now");
    again.view().check_integrity().unwrap();
}

#[test]
fn a_row_that_surely_is_not_registered_may_change() {
    let (_directory, path) = scratch();
    one_of_each(&path);
    let rows = (1..=7).map(|rank| if rank <= 4 { changed(rank) } else { identity(rank) });
    let ledger = resume(&path, rows.collect()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges { changed: 4, ..LotChanges::default() });
    let states: Vec<DeviceState> = states(&ledger).into_iter().map(|(_, state)| state).collect();
    assert_eq!(
        states,
        [Pending, Pending, Pending, Issued, Issued, Unknown, Registered],
        "what was rejected is open again"
    );
    let open = ledger.view().open_devices(None, 9).unwrap();
    assert!(open[..4].iter().all(|device| device.identity.values[1] == "hunter2"));
    assert!(
        matches!(&open[3].work, Work::Register { certificate, .. } if **certificate == certificate_of(4))
    );
    ledger.view().check_integrity().unwrap();
    assert_eq!(ledger.view().troubles().unwrap().len(), 2, "the rejections are forgotten");
}

fn certificate_of(number: i64) -> IssuedCertificate {
    certificate(number)
}

#[test]
fn a_row_that_is_or_may_be_registered_may_not_change() {
    for (rank, because) in [(5, Standing::Perhaps), (6, Standing::Perhaps), (7, Standing::Registered)] {
        let (_directory, path) = scratch();
        one_of_each(&path);
        let before = std::fs::read(&path).unwrap();
        let rows = (1..=8).map(|row| if row == rank || row == 1 { changed(row) } else { identity(row) });
        let Problem::OtherLot(refusal) = problem(resume(&path, rows.collect())) else { panic!("taken") };
        let line = rank + 1;
        let expected =
            RefusedRow { because, line, key: identity(rank).key, columns: vec![String::from("Version")] };
        assert_eq!(refusal.first, [expected]);
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        assert!(
            !refusal.to_string().contains("ledger"),
            "no advice leads to a second certificate: {refusal}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before, "nothing of it was taken");
    }
}

#[test]
fn a_row_that_is_gone_withdraws_a_device_that_surely_is_not_registered() {
    let (_directory, path) = scratch();
    one_of_each(&path);
    let ledger = resume(&path, (5..=7).map(identity).collect()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges { withdrawn: 4, ..LotChanges::default() });
    let counts = ledger.view().counts().unwrap();
    assert_eq!((counts.withdrawn, counts.total(), ledger.view().lot().devices), (4, 3, 3));
    assert_eq!(ledger.view().open_devices(None, 9).unwrap().len(), 1);
    drop(ledger);
    // And back again: the one that had a certificate returns without it.
    let ledger = resume(&path, (1..=7).map(identity).collect()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges { returned: 4, ..LotChanges::default() });
    let states: Vec<DeviceState> = states(&ledger).into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [Pending, Pending, Pending, Pending, Issued, Unknown, Registered]);
    assert!(matches!(ledger.view().open_devices(None, 9).unwrap()[3].work, Work::Create));
    ledger.view().check_integrity().unwrap();
}

#[test]
fn a_row_that_is_or_may_be_registered_may_not_go() {
    for (rank, because) in [(5, Standing::Perhaps), (6, Standing::Perhaps), (7, Standing::Registered)] {
        let (_directory, path) = scratch();
        one_of_each(&path);
        let rows = (1..=7).filter(|row| *row != rank).map(identity).collect();
        let Problem::OtherLot(refusal) = problem(resume(&path, rows)) else { panic!("taken") };
        let (line, key) = (rank + 1, identity(rank).key);
        assert_eq!(refusal.first, [RefusedRow { because, line, key, columns: Vec::new() }]);
    }
}

#[test]
fn refused_rows_are_named_up_to_a_number() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 30);
    ledger.commit((1..=30).flat_map(|device| [issued(device), registered(device)]).collect(), now()).unwrap();
    drop(ledger);
    let Problem::OtherLot(refusal) = problem(resume(&path, (1..=30).map(changed).collect())) else {
        panic!("taken")
    };
    assert_eq!((refusal.first.len(), refusal.registered, refusal.perhaps), (20, 30, 0));
    let message = refusal.to_string();
    assert!(
        message.starts_with(
            "the lot differs in the rows of 30 devices that are registered, and nothing was taken: \
             line 2 (key \"SN-0000001\") differs in Version; line 3"
        ) && message.ends_with("; and 10 more. Put these rows back as they were"),
        "{message}"
    );
}

#[test]
fn a_key_that_stands_in_a_lot_twice_is_still_an_error() {
    for twice in [1, 9] {
        let (_directory, path) = scratch();
        drop(import(&path, 2));
        let rows =
            [1, 2, 9, twice].into_iter().zip(2..).map(|(rank, line)| Identity { line, ..identity(rank) });
        let Err(ImportError::Rows(errors)) = resume(&path, rows.collect()) else { panic!("taken") };
        assert_eq!(errors.count(), 1);
        let first = if twice == 1 { 2 } else { 4 };
        let found = &errors.iter().next().unwrap().found;
        assert!(found.ends_with(&format!("which is the key of line {first} too")), "{found}");
    }
}

fn columns(names: &[&str], rows: Vec<Vec<&str>>) -> LotRows<'static, Rows> {
    let shape = LotShape { columns: names.iter().map(|name| (*name).to_owned()).collect(), key_column: 0 };
    let key_at = names.iter().position(|name| *name == "SerialNumber").unwrap();
    let identity = |(values, line): (Vec<&str>, u64)| Identity {
        line,
        key: values[key_at].to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let rows: Vec<_> = rows.into_iter().zip(2..).map(identity).map(Ok).collect();
    LotRows { source: "lot.csv", shape: LotShape { key_column: key_at, ..shape }, rows: rows.into_iter() }
}

#[test]
fn a_key_that_is_no_good_is_taken_neither_with_a_new_row_nor_at_first() {
    let (_directory, path) = scratch();
    drop(import(&path, 1));
    let blank =
        Identity { line: 3, key: String::from("SN-2 "), values: vec![String::from("SN-2 "), String::new()] };
    assert!(matches!(resume(&path, vec![identity(1), blank]), Err(ImportError::Rows(_))));
}

#[test]
fn columns_in_another_order_change_nothing() {
    let (_directory, path) = scratch();
    import(&path, 2).commit(vec![issued(1), registered(1)], now()).unwrap();
    let swapped =
        || columns(&["Version", "SerialNumber"], vec![vec!["1.1", "SN-0000001"], vec!["1.2", "SN-0000002"]]);
    let ledger = Ledger::resume(&path, &binding(), swapped(), accept, now()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges::default());
    let lot = ledger.view().lot();
    assert_eq!((lot.shape.columns.as_slice(), lot.shape.key_column), (&swapped().shape.columns[..], 1));
    let open = ledger.view().open_devices(None, 9).unwrap();
    assert_eq!(open[0].identity.values, ["1.2", "SN-0000002"], "values follow their columns");
    let mut exported = Vec::new();
    let keep = |device: CertifiedDevice| -> Result<(), LedgerError> {
        exported.push(device.values);
        Ok(())
    };
    ledger.view().for_each_certified(&Selection::default(), keep).unwrap();
    assert_eq!(exported, [["1.1", "SN-0000001"]], "those of registered devices too");
    ledger.view().check_integrity().unwrap();
}

#[test]
fn a_new_column_changes_every_row() {
    let wider = || {
        columns(
            &["SerialNumber", "Version", "Site"],
            vec![vec!["SN-0000001", "1.1", ""], vec!["SN-0000002", "1.2", "B"]],
        )
    };
    let (_directory, path) = scratch();
    drop(import(&path, 2));
    let ledger = Ledger::resume(&path, &binding(), wider(), accept, now()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges { changed: 2, ..LotChanges::default() });
    drop(ledger);
    let (_directory, path) = scratch();
    import(&path, 2).commit(vec![issued(2), registered(2)], now()).unwrap();
    let Problem::OtherLot(refusal) = problem(Ledger::resume(&path, &binding(), wider(), accept, now()))
    else {
        panic!("taken")
    };
    assert_eq!((refusal.registered, refusal.first[0].columns.as_slice()), (1, &[String::from("Site")][..]));
}

#[test]
fn a_lost_column_changes_every_row_and_withdrawn_ones_keep_up() {
    let (_directory, path) = scratch();
    drop(import(&path, 3));
    let narrow = || columns(&["SerialNumber"], vec![vec!["SN-0000001"], vec!["SN-0000003"]]);
    let ledger = Ledger::resume(&path, &binding(), narrow(), accept, now()).unwrap();
    let expected = LotChanges { changed: 2, withdrawn: 1, moved: 1, ..LotChanges::default() };
    assert_eq!(*ledger.lot_changes(), expected);
    drop(ledger);
    let back = columns(&["SerialNumber"], vec![vec!["SN-0000001"], vec!["SN-0000002"], vec!["SN-0000003"]]);
    let ledger = Ledger::resume(&path, &binding(), back, accept, now()).unwrap();
    assert_eq!(ledger.lot_changes().returned, 1);
    assert_eq!(ledger.view().open_devices(None, 9).unwrap().len(), 3, "each has as many values as columns");
}

#[test]
fn a_lot_that_has_not_changed_writes_nothing() {
    let (_directory, path) = scratch();
    one_of_each(&path);
    let commits = |ledger: &Ledger| schema::read_commits(&ledger.view().connection).unwrap();
    let before = commits(&Ledger::reopen(&path).unwrap());
    let ledger = resume(&path, (1..=7).map(identity).collect()).unwrap();
    assert_eq!((commits(&ledger), *ledger.lot_changes()), (before, LotChanges::default()));
}

fn content(recipients: &[&str]) -> Content {
    Content {
        parameters: [(String::from("Site"), String::from("hunter2"))].into(),
        key_source: String::from("aws"),
        recipients: recipients.iter().map(|recipient| (*recipient).to_owned()).collect(),
        ..Content::default()
    }
}

fn bound_to(content: Content) -> Binding {
    Binding { content: Some(content), ..binding() }
}

#[test]
fn a_ledger_in_which_nothing_was_issued_is_bound_to_its_lot_alone() {
    let (_directory, path) = scratch();
    import(&path, 2).commit(vec![rejected(1)], now()).unwrap();
    let elsewhere = Binding {
        region: String::from("us-east-1"),
        account: "other".into(),
        template: String::from("new"),
        content: Some(content(&[])),
        ..binding()
    };
    let mut ledger = Ledger::resume(&path, &elsewhere, lot(2), accept, now()).unwrap();
    assert!(ledger.lot_changes().bound_anew);
    assert_eq!(ledger.view().lot().binding, elsewhere);
    assert_eq!(states(&ledger)[0].1, Pending, "what was refused elsewhere may not be here");
    ledger.commit(vec![issued(2)], now()).unwrap();
    drop(ledger);
    let refused = problem(Ledger::resume(&path, &binding(), lot(2), accept, now()));
    assert!(matches!(refused, Problem::OtherBinding { what: BoundTo::Account, .. }), "{refused}");
    Ledger::resume(&path, &elsewhere, lot(2), accept, now()).unwrap();
}

#[test]
fn a_key_made_here_binds_as_a_certificate_does() {
    let (_directory, path) = scratch();
    import(&path, 1).commit(vec![prepared(1)], now()).unwrap();
    let elsewhere = Binding { region: String::from("us-east-1"), ..binding() };
    let refused = problem(Ledger::resume(&path, &elsewhere, lot(1), accept, now()));
    assert!(matches!(refused, Problem::OtherBinding { what: BoundTo::Region, .. }), "{refused}");
}

#[test]
fn other_settings_are_refused_until_they_are_changed_on_purpose() {
    let (_directory, path) = scratch();
    let mut ledger = Ledger::import(&path, &bound_to(content(&[])), lot(3), accept, now()).unwrap();
    ledger.commit(vec![issued(1), registered(1)], now()).unwrap();
    drop(ledger);
    let other = Content { key_source: String::from("local"), parameters: [].into(), ..content(&[]) };
    let refused = problem(Ledger::resume(&path, &bound_to(other.clone()), lot(3), accept, now()));
    assert!(matches!(refused, Problem::OtherContent { .. }), "{refused}");
    assert_eq!(
        refused.to_string(),
        "its identities were made with other settings (parameter Site, who makes the keys); use those again, \
         or change them for the devices that are still to come"
    );
    let mut ledger = Ledger::resume(&path, &binding(), lot(3), accept, now()).unwrap();
    ledger.change_content(&other).unwrap();
    assert_eq!(states(&ledger)[0].1, Registered);
    drop(ledger);
    Ledger::resume(&path, &bound_to(other), lot(3), accept, now()).unwrap();
}

#[test]
fn parameters_do_not_change_while_it_is_open_whether_they_were_used() {
    let (_directory, path) = scratch();
    let mut ledger = Ledger::import(&path, &bound_to(content(&[])), lot(3), accept, now()).unwrap();
    ledger.commit(vec![issued(1), issued(2), unknown(2)], now()).unwrap();
    let other = Content { parameters: [].into(), ..content(&[]) };
    let refused = ledger.change_content(&other).unwrap_err().problem;
    assert!(matches!(refused, Problem::Unsettled { devices: 2 }), "{refused}");
    ledger.change_content(&Content { key_type: Some(String::from("p256")), ..content(&[]) }).unwrap();
}

#[test]
fn a_sealed_ledger_never_takes_a_plain_key() {
    let (_directory, path) = scratch();
    let sealed = bound_to(content(&["age1one"]));
    let mut ledger = Ledger::import(&path, &sealed, lot(2), accept, now()).unwrap();
    for plain in [issued(1), prepared(1)] {
        let refused = ledger.commit(vec![plain], now()).unwrap_err().problem;
        assert!(matches!(refused, Problem::PlainKey { device: DeviceId(1) }), "{refused}");
    }
    let refused = ledger.change_content(&content(&[])).unwrap_err().problem;
    assert!(matches!(refused, Problem::Unsealing), "{refused}");
    ledger.change_content(&content(&["age1two"])).unwrap();
    assert_eq!(states(&ledger), [(identity(1).key, Pending), (identity(2).key, Pending)]);
}

#[test]
fn a_shard_has_its_rows_and_stays_what_it_is() {
    let (directory, _) = scratch();
    let mut keys = Vec::new();
    for index in 0..3 {
        let path = directory.path().join(format!("{index}.ledger"));
        let shard = Binding { shard: Some(Shard { index, of: 3 }), ..binding() };
        let ledger = Ledger::import(&path, &shard, lot(50), accept, now()).unwrap();
        assert_eq!(ledger.view().lot().digest.len(), 64);
        keys.extend(states(&ledger).into_iter().map(|(key, _)| key));
        drop(ledger);
        let ledger = Ledger::resume(&path, &shard, lot(55), accept, now()).unwrap();
        keys.extend(states(&ledger).into_iter().map(|(key, _)| key));
        drop(ledger);
        for other in [None, Some(Shard { index, of: 4 }), Some(Shard { index: index + 1, of: 5 })] {
            let refused = problem(Ledger::resume(
                &path,
                &Binding { shard: other, ..binding() },
                lot(50),
                accept,
                now(),
            ));
            assert!(matches!(refused, Problem::OtherBinding { what: BoundTo::Shard, .. }), "{refused}");
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 55, "together they have every row once");
}

#[test]
fn other_ledgers_of_the_same_devices_are_found() {
    let (directory, path) = scratch();
    let at = |name: &str| directory.path().join(name);
    let first = import(&path, 5);
    import(&at("pilot.ledger"), 3).commit(vec![issued(1), issued(2), registered(2)], now()).unwrap();
    drop(import(&at("nothing-done.ledger"), 3));
    let elsewhere = Binding { account: "other".into(), ..binding() };
    let mut other = Ledger::import(&at("elsewhere.ledger"), &elsewhere, lot(3), accept, now()).unwrap();
    other.commit(vec![issued(1)], now()).unwrap();
    std::fs::write(at("lot.csv"), "SerialNumber\n").unwrap();
    let found = first.view().overlaps(directory.path()).unwrap();
    let expected = Overlap { ledger: at("pilot.ledger"), devices: 2, example: identity(1).key };
    assert_eq!(found, [expected]);
    // From the other side too, where the other one has more devices.
    let pilot = Ledger::reopen(&at("pilot.ledger")).unwrap();
    assert_eq!(pilot.view().overlaps(directory.path()).unwrap(), []);
    drop(first);
    let mut first = Ledger::reopen(&path).unwrap();
    first.commit(vec![issued(3), issued(5)], now()).unwrap();
    let expected = Overlap { ledger: path, devices: 1, example: identity(3).key };
    assert_eq!(pilot.view().overlaps(directory.path()).unwrap(), [expected]);
}

#[test]
fn a_copy_of_a_ledger_in_use_is_a_ledger() {
    let (directory, path) = scratch();
    let mut ledger = import(&path, 3);
    ledger.commit(vec![issued(1), registered(1), issued(2)], now()).unwrap();
    let copy = directory.path().join("copy.ledger");
    ledger.view().backup(&copy).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let copied = Ledger::resume(&copy, &binding(), lot(3), accept, now()).unwrap();
    copied.view().check_integrity().unwrap();
    assert_eq!(states(&copied), states(&ledger));
    let refused = ledger.view().backup(&copy).unwrap_err();
    assert!(matches!(refused.problem, Problem::Exists) && refused.ledger == copy, "{refused}");
    std::os::unix::fs::symlink(directory.path().join("target"), directory.path().join("link")).unwrap();
    assert!(ledger.view().backup(&directory.path().join("link")).is_err());
    assert!(!directory.path().join("target").exists());
}

#[test]
fn a_lock_that_is_a_link_is_not_written_through() {
    let (directory, path) = scratch();
    drop(import(&path, 1));
    let (lock, target) = (directory.path().join("lot.ledger.lock"), directory.path().join("target"));
    for content in [None, Some("precious")] {
        if let Some(content) = content {
            std::fs::write(&target, content).unwrap();
        }
        std::os::unix::fs::symlink(&target, &lock).unwrap();
        let refused = Ledger::reopen(&path).unwrap_err().problem;
        assert!(matches!(&refused, Problem::LinkedLock { lock: named } if *named == lock), "{refused}");
        assert_eq!(std::fs::read_to_string(&target).ok().as_deref(), content);
        std::fs::remove_file(&lock).unwrap();
    }
}

#[test]
fn rework_keeps_both_certificates() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 2);
    ledger.commit(vec![issued(1), registered(1), issued(2)], now()).unwrap();
    let rework = |number: i64| Rework {
        key: identity(1).key,
        certificate: certificate(number).certificate_id,
        deactivated_at: Some(now()),
    };
    let refused = ledger.rework(&[rework(9)], now()).unwrap_err().problem;
    assert!(matches!(refused, Problem::NotThere(NotThere::Certificate { .. })), "{refused}");
    let refused = ledger.rework(&[Rework { key: identity(2).key, ..rework(2) }], now()).unwrap_err().problem;
    assert!(matches!(refused, Problem::NotThere(NotThere::State { .. })), "{refused}");
    ledger.rework(&[rework(1)], now()).unwrap();
    assert_eq!(states(&ledger)[0].1, Pending);
    let fresh = Change::Issued { device: DeviceId(1), certificate: certificate(10) };
    ledger.commit(vec![fresh, registered(1)], now()).unwrap();
    let sql = "SELECT group_concat(private_key || coalesce(' until ' || retired_at, '')) FROM certificate WHERE device = 1";
    let keys: String = ledger.view().connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(keys, "key 1 until 2023-11-14T22:13:20.123Z,key 10");
    let sql = "SELECT thing_name || registered_at || deactivated_at FROM rework";
    let before: String = ledger.view().connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(before, format!("thing-1{0}{0}", "2023-11-14T22:13:20.123Z"));
    ledger.view().check_integrity().unwrap();
}

#[test]
fn findings_are_the_last_ones_of_their_verb() {
    let mut ledger = in_memory(2);
    let finding = |outcome: &str| Finding {
        device: DeviceId(2),
        outcome: outcome.to_owned(),
        details: serde_json::json!({ "policy": "detached" }),
    };
    for outcome in ["sound", "differs"] {
        ledger.record_findings("verify", &[finding(outcome)], now()).unwrap();
    }
    ledger.record_findings("cleanup", &[finding("kept")], now()).unwrap();
    let mut found = Vec::new();
    let keep = |each: Found| -> Result<(), LedgerError> {
        found.push((each.key, each.finding));
        Ok(())
    };
    ledger.view().for_each_finding("verify", keep).unwrap();
    assert_eq!(found, [(identity(2).key, finding("differs"))]);
}
