//! Importing a lot, and reading it back.

use super::*;
use crate::identity::{LotErrors, LotFault};

fn row_error(line: u64) -> RowError {
    RowError {
        line,
        column: None,
        fault: LotFault::Fields,
        found: String::from("something odd"),
        wanted: String::from("a proper row"),
    }
}

fn import_rows(path: &Path, rows: Vec<Result<Identity, Vec<RowError>>>) -> Result<Ledger, ImportError> {
    Ledger::import(path, &binding(), lot_of(rows), accept, now())
}

fn rows_of(outcome: Result<Ledger, ImportError>) -> LotErrors {
    match outcome.expect_err("the lot is refused") {
        ImportError::Rows(errors) => errors,
        other => panic!("{other}"),
    }
}

#[test]
fn a_lot_becomes_a_ledger() {
    let (directory, path) = scratch();
    let ledger = import(&path, 3);
    let lot = ledger.view().lot();
    assert_eq!((lot.devices, lot.source.as_str(), &lot.binding), (3, "lot.csv", &binding()));
    assert_eq!(lot.shape.columns, ["SerialNumber", "Version"]);
    assert_eq!((lot.digest.len(), lot.created_at.as_str()), (64, "2023-11-14T22:13:20.123Z"));
    assert_eq!(ledger.view().counts().unwrap().pending, 3);
    assert_eq!(ledger.view().open_devices(None, 9).unwrap()[2].identity, identity(3));
    drop(ledger);
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn all_errors_are_reported_and_nothing_is_left() {
    let (directory, path) = scratch();
    let twice = Identity { line: 9, ..identity(1) };
    let rows = vec![Ok(identity(1)), Err(vec![row_error(3), row_error(4)]), Ok(identity(4)), Ok(twice)];
    let check = |identity: &Identity| match identity.line {
        2 | 5 => Err(vec![row_error(identity.line)]),
        _ => Ok(()),
    };
    let errors = rows_of(Ledger::import(&path, &binding(), lot_of(rows), check, now()));
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3, 4, 5, 9]);
    let last = errors.iter().last().unwrap();
    assert_eq!(last.found, "\"SN-0000001\", which is the key of line 2 too");
    assert_eq!((last.column.as_deref(), errors.count()), (Some("SerialNumber"), 5));
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn twenty_errors_of_a_kind_are_kept_and_the_others_counted() {
    let (_directory, path) = scratch();
    let rows = (2..12_502).map(|line| Err(vec![row_error(line)])).collect();
    let error = import_rows(&path, rows).unwrap_err();
    assert!(error.to_string().starts_with("12500 errors in the lot; the first is at line 2"), "{error}");
    let errors = rows_of(Err(error));
    assert_eq!((errors.iter().count(), errors.kinds()[0].more), (20, 12_480));
}

#[test]
fn a_lot_without_rows_is_refused() {
    let (directory, path) = scratch();
    assert_eq!(rows_of(import_rows(&path, vec![])).count(), 1);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn an_import_replaces_nothing() {
    let (directory, path) = scratch();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(problem(import_rows(&path, vec![Ok(identity(1))])), Problem::Exists));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn an_import_does_not_replace_what_appears_while_it_reads() {
    let (directory, path) = scratch();
    let check = |_: &Identity| {
        std::fs::write(&path, "precious").unwrap();
        Ok(())
    };
    let outcome = Ledger::import(&path, &binding(), lot(1), check, now());
    assert!(matches!(problem(outcome), Problem::Exists));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn an_import_cleans_up_after_one_that_was_killed() {
    let (directory, path) = scratch();
    for name in [".lot.ledger.building", ".lot.ledger.building-journal"] {
        std::fs::write(directory.path().join(name), "half a ledger").unwrap();
    }
    drop(import(&path, 1));
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn a_large_lot_is_imported_and_resumed() {
    let (_directory, path) = scratch();
    let rows =
        || LotRows { source: "lot.csv", shape: lot(0).shape, rows: (1..=100_000).map(identity).map(Ok) };
    let ledger = Ledger::import(&path, &binding(), rows(), accept, now()).unwrap();
    assert_eq!(ledger.view().counts().unwrap().pending, 100_000);
    drop(ledger);
    Ledger::resume(&path, &binding(), rows(), accept, now()).unwrap();
}

#[test]
fn the_same_lot_resumes_whatever_its_line_numbers() {
    let (_directory, path) = scratch();
    drop(import(&path, 3));
    let moved = (1..=3).map(|rank| Ok(Identity { line: rank * 10, ..identity(rank) })).collect();
    let ledger = Ledger::resume(&path, &binding(), lot_of(moved), accept, now()).unwrap();
    assert_eq!(ledger.view().counts().unwrap().total(), 3);
}

#[test]
fn open_or_import_does_what_is_right() {
    let (_directory, path) = scratch();
    for expected in [0, 1] {
        let mut ledger = Ledger::open_or_import(&path, &binding(), lot(2), accept, now()).unwrap();
        assert_eq!(ledger.view().counts().unwrap().issued(), expected);
        if expected == 0 {
            ledger.commit(vec![issued(1)], now()).unwrap();
        }
    }
}

#[test]
fn a_resumed_lot_is_checked_like_a_new_one() {
    let (_directory, path) = scratch();
    drop(import(&path, 2));
    let check = |identity: &Identity| Err(vec![row_error(identity.line)]);
    let errors = rows_of(Ledger::resume(&path, &binding(), lot(2), check, now()));
    assert_eq!(errors.count(), 2);
    let rows = vec![Ok(identity(1)), Err(vec![row_error(3)])];
    let errors = rows_of(Ledger::resume(&path, &binding(), lot_of(rows), accept, now()));
    assert_eq!(errors.iter().next().unwrap().line, 3);
}

#[test]
fn another_key_column_is_refused() {
    let (_directory, path) = scratch();
    drop(import(&path, 1));
    let mut other = lot(1);
    other.shape.key_column = 1;
    let message = problem(Ledger::resume(&path, &binding(), other, accept, now())).to_string();
    assert!(message.contains("its key column was SerialNumber, and is Version"), "{message}");
}

#[test]
fn another_binding_is_refused_part_by_part_once_something_was_issued() {
    let (_directory, path) = scratch();
    import(&path, 1).commit(vec![issued(1)], now()).unwrap();
    let other = || String::from("other");
    for (part, wanted) in [
        (BoundTo::Template, Binding { template: other(), ..binding() }),
        (BoundTo::Region, Binding { region: other(), ..binding() }),
        (BoundTo::Account, Binding { account: "other".into(), ..binding() }),
    ] {
        let problem = problem(Ledger::resume(&path, &wanted, lot(1), accept, now()));
        assert!(matches!(&problem, Problem::OtherBinding { what, .. } if *what == part), "{problem}");
        assert!(problem.to_string().contains("this run is for other; certificates"), "{problem}");
    }
}
