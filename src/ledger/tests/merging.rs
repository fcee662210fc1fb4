//! Merging the ledgers of shards.

use super::mending::states;
use super::*;
use crate::shard::Shard;
use std::path::PathBuf;

fn of_shard(index: u32, of: u32) -> Binding {
    Binding { shard: Shard::new(index, of), ..binding() }
}

/// The ledgers of three shards of a lot, each with its first device registered and its second issued.
fn shards(directory: &Path, devices: u64) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for index in 0..3 {
        let path = directory.join(format!("lot.{index}-of-3.ledger"));
        let mut ledger = Ledger::import(&path, &of_shard(index, 3), lot(devices), accept, now()).unwrap();
        ledger.begin_run(&serde_json::json!({ "version": "0" }), now()).unwrap();
        let number = |device: i64| i64::from(index) * 100 + device;
        let issue =
            |device| Change::Issued { device: DeviceId(device), certificate: certificate(number(device)) };
        ledger.commit(vec![issue(1), issue(2)], now()).unwrap();
        let thing = RegisteredThing {
            thing_name: format!("thing-{index}"),
            device_configuration: Default::default(),
        };
        ledger.commit(vec![Change::Registered { device: DeviceId(1), thing }], now()).unwrap();
        paths.push(path);
    }
    paths
}

fn refusal(parts: &[PathBuf], into: &Path) -> String {
    let refused = Ledger::merge(parts, into, now()).unwrap_err();
    assert!(!into.exists(), "nothing is left of a merge that was refused");
    refused.to_string()
}

#[test]
fn the_ledgers_of_all_shards_are_that_of_the_lot() {
    let (directory, path) = scratch();
    let mut parts = shards(directory.path(), 50);
    parts.rotate_left(1);
    let merged = Ledger::merge(&parts, &path, now()).unwrap();
    assert_eq!(merged, Merged { shards: 3, devices: 50 });
    let ledger = Ledger::resume(&path, &binding(), lot(50), accept, now()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges::default(), "it is the lot, row by row");
    ledger.view().check_integrity().unwrap();
    let counts = ledger.view().counts().unwrap();
    assert_eq!((counts.registered, counts.issued(), counts.pending, counts.total()), (3, 3, 44, 50));
    assert_eq!(ledger.view().runs().unwrap().len(), 4, "those of the shards, and the merge");
    let keys: Vec<_> = states(&ledger).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, (1..=50).map(|rank| identity(rank).key).collect::<Vec<_>>(), "in the lot's order");
    // Each open certificate has kept its device and its token.
    let open = ledger.view().open_devices(None, 100).unwrap();
    let mut tokens: Vec<_> = open
        .iter()
        .filter_map(|device| match &device.work {
            Work::Register { certificate, .. } => Some(certificate.ownership_token.expose().to_owned()),
            _ => None,
        })
        .collect();
    tokens.sort();
    assert_eq!(tokens, ["token 102", "token 2", "token 202"]);
}

#[test]
fn a_ledger_that_was_merged_goes_on_no_more() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 20);
    Ledger::merge(&parts, &path, now()).unwrap();
    let refused = problem(Ledger::resume(&parts[1], &of_shard(1, 3), lot(20), accept, now()));
    assert!(matches!(&refused, Problem::MergedAway { into } if into.ends_with("lot.ledger")), "{refused}");
    let reopened = Ledger::reopen(&parts[1]).unwrap_err().problem;
    assert!(matches!(reopened, Problem::MergedAway { .. }), "nor does anything else change it: {reopened}");
    let again = directory.path().join("again.ledger");
    assert!(
        refusal(&parts, &again).contains("it was merged into"),
        "a second one would have the same devices"
    );
    // The merged ledger can be used beside its parts, whatever its name.
    drop(Ledger::resume(&path, &binding(), lot(20), accept, now()).unwrap());
    let renamed = directory.path().join("renamed.ledger");
    std::fs::rename(&path, &renamed).unwrap();
    drop(Ledger::resume(&renamed, &binding(), lot(20), accept, now()).unwrap());
    let reopened = Ledger::reopen(&parts[1]).unwrap_err().problem;
    assert!(matches!(reopened, Problem::MergedAway { .. }), "{reopened}");
}

#[test]
fn parts_that_were_merged_protect_their_devices_from_a_new_ledger() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 20);
    Ledger::merge(&parts, &path, now()).unwrap();
    std::fs::rename(&path, tempfile::tempdir().unwrap().path().with_extension("ledger")).unwrap();
    let anew = problem(Ledger::import(&path, &binding(), lot(20), accept, now()));
    assert!(matches!(&anew, Problem::OtherMerged { into, .. } if into.ends_with("lot.ledger")), "{anew}");
    let shard = directory.path().join("new.ledger");
    let anew = problem(Ledger::import(&shard, &of_shard(0, 3), lot(20), accept, now()));
    assert!(matches!(anew, Problem::OtherMerged { .. }), "nor is a shard begun again: {anew}");
    assert!(!path.exists() && !shard.exists());
}

#[test]
fn a_merge_that_was_interrupted_is_repeated() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 20);
    Ledger::merge(&parts, &path, now()).unwrap();
    let interrupt = || {
        for part in &parts {
            let part = rusqlite::Connection::open(part).unwrap();
            part.execute("UPDATE run SET outcome = 'merging' WHERE outcome = 'merged'", []).unwrap();
        }
    };
    // As after a crash just after the merged ledger got its name, and just before.
    interrupt();
    let again = directory.path().join("again.ledger");
    assert!(refusal(&parts, &again).contains("it was merged into"));
    let reopened = Ledger::reopen(&parts[0]).unwrap_err().problem;
    assert!(matches!(reopened, Problem::MergedAway { .. }), "{reopened}");
    std::fs::remove_file(&path).unwrap();
    let reopened = Ledger::reopen(&parts[0]).unwrap_err().problem;
    assert!(matches!(reopened, Problem::MergeUnfinished { .. }), "{reopened}");
    let anew = problem(Ledger::import(&path, &binding(), lot(20), accept, now()));
    assert!(matches!(anew, Problem::OtherMerged { .. }), "{anew}");
    Ledger::merge(&parts, &again, now()).unwrap();
    let whole = Ledger::resume(&again, &binding(), lot(20), accept, now()).unwrap();
    let outcomes: Vec<_> = whole.view().runs().unwrap().into_iter().filter_map(|run| run.outcome).collect();
    assert_eq!(outcomes, [MERGE_OUTCOME], "of three runs that have not ended, and no other merge");
}

#[test]
fn a_lot_that_grew_is_merged_once_every_shard_has_seen_it() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 20);
    // Some shards get no new row.
    for (index, part) in (0..).zip(&parts) {
        let ledger = Ledger::resume(part, &of_shard(index, 3), lot(21), accept, now()).unwrap();
        drop(ledger);
        if index == 0 {
            assert!(refusal(&parts, &path).contains("lot (by its digest)"), "the others have an older lot");
        }
    }
    assert_eq!(Ledger::merge(&parts, &path, now()).unwrap(), Merged { shards: 3, devices: 21 });
    let ledger = Ledger::resume(&path, &binding(), lot(21), accept, now()).unwrap();
    assert_eq!(*ledger.lot_changes(), LotChanges::default());
}

#[test]
fn what_is_no_whole_is_refused_by_name() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 30);
    let two = [parts[0].clone(), parts[2].clone()];
    assert!(refusal(&two, &path).contains("the ledger of shard 1/3 is missing"), "{}", refusal(&two, &path));
    let copy = directory.path().join("copy.ledger");
    std::fs::copy(&parts[2], &copy).unwrap();
    let twice = [parts[0].clone(), parts[1].clone(), parts[2].clone(), copy.clone()];
    assert!(refusal(&twice, &path).contains("shard 2/3, and so is"), "{}", refusal(&twice, &path));
    std::fs::remove_file(copy).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other.ledger");
    drop(Ledger::import(&other, &of_shard(1, 3), lot(31), accept, now()).unwrap());
    let grown = [parts[0].clone(), other, parts[2].clone()];
    assert!(refusal(&grown, &path).contains("lot (by its digest)"), "{}", refusal(&grown, &path));
    let alone = tempfile::tempdir().unwrap();
    let whole = alone.path().join("whole.ledger");
    drop(import(&whole, 30));
    let whole = [whole];
    assert!(refusal(&whole, &path).contains("is no shard's"), "{}", refusal(&whole, &path));
    assert!(refusal(&[], &path).contains("missing"));
}

#[test]
fn two_shards_with_one_thing_are_refused() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 30);
    let mut ledger = Ledger::resume(&parts[2], &of_shard(2, 3), lot(30), accept, now()).unwrap();
    let thing =
        RegisteredThing { thing_name: String::from("thing-0"), device_configuration: Default::default() };
    ledger.commit(vec![Change::Registered { device: DeviceId(2), thing }], now()).unwrap();
    drop(ledger);
    let refused = refusal(&parts, &path);
    assert!(refused.contains("thing-0") && refused.contains("of another shard"), "{refused}");
}

#[test]
fn a_shard_in_use_is_waited_for() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 30);
    let held = Ledger::reopen(&parts[1]).unwrap();
    let refused = Ledger::merge(&parts, &path, now()).unwrap_err();
    assert!(matches!(refused.problem, Problem::InUse { .. }) && refused.ledger == parts[1], "{refused}");
    drop(held);
    Ledger::merge(&parts, &path, now()).unwrap();
}

#[test]
fn a_lot_is_not_cut_in_two_ways() {
    let (directory, path) = scratch();
    let parts = shards(directory.path(), 40);
    let whole = problem(Ledger::import(&path, &binding(), lot(40), accept, now()));
    assert!(matches!(whole, Problem::OtherCut { .. }) && !path.exists(), "{whole}");
    let other = directory.path().join("lot.0-of-4.ledger");
    let refused = problem(Ledger::import(&other, &of_shard(0, 4), lot(40), accept, now()));
    assert!(refused.to_string().contains("shard 0/3") && !other.exists(), "{refused}");
    // The other way round.
    let elsewhere = tempfile::tempdir().unwrap();
    drop(import(&elsewhere.path().join("lot.ledger"), 40));
    let shard = elsewhere.path().join("lot.1-of-3.ledger");
    let refused = problem(Ledger::import(&shard, &of_shard(1, 3), lot(40), accept, now()));
    assert!(refused.to_string().contains("the whole lot"), "{refused}");
    // A ledger that was there first is refused too when it is reopened beside another.
    std::fs::copy(&parts[0], elsewhere.path().join("lot.0-of-3.ledger")).unwrap();
    let refused =
        problem(Ledger::resume(&elsewhere.path().join("lot.ledger"), &binding(), lot(40), accept, now()));
    assert!(matches!(refused, Problem::OtherCut { .. }), "{refused}");
    // The next shard of the same division is accepted.
    drop(Ledger::resume(&parts[1], &of_shard(1, 3), lot(40), accept, now()).unwrap());
}
