//! Which files can be opened, and by whom.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn reopen_problem(path: &Path) -> Problem {
    Ledger::reopen(path).expect_err("the ledger is refused").problem
}

#[test]
fn nobody_else_may_read_any_of_its_files() {
    let (directory, path) = scratch();
    let mut ledger = import(&path, 1);
    ledger.commit(vec![issued(1)], now()).unwrap();
    assert_eq!(
        names(directory.path()),
        ["lot.ledger", "lot.ledger-shm", "lot.ledger-wal", "lot.ledger.lock"]
    );
    for name in names(directory.path()) {
        let mode = std::fs::metadata(directory.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_ledger_that_others_may_read_is_made_private_again() {
    let (_directory, path) = scratch();
    drop(import(&path, 1));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _ledger = Ledger::reopen(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn it_is_durable_before_it_answers() {
    let (_directory, path) = scratch();
    let ledger = import(&path, 1);
    for (pragma, expected) in
        [("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1), ("fullfsync", 1)]
    {
        let found: i64 = ledger.view().connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        assert_eq!(found, expected, "{pragma}");
    }
    let mode: String =
        ledger.view().connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let (directory, path) = scratch();
    let ledger = import(&path, 1);
    let detour = directory.path().join("..").join(directory.path().file_name().unwrap()).join("lot.ledger");
    for path in [&path, &detour] {
        let problem = problem(Ledger::resume(path, &binding(), lot(1), accept, now()));
        assert!(
            matches!(problem, Problem::InUse { pid: Some(pid) } if pid == std::process::id()),
            "{problem}"
        );
    }
    assert_eq!(Ledger::open_read_only(&path).unwrap().counts().unwrap().pending, 1, "looking is allowed");
    ledger.close().unwrap();
    Ledger::resume(&path, &binding(), lot(1), accept, now()).unwrap();
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn what_is_not_there_is_missing() {
    let (directory, path) = scratch();
    assert!(matches!(reopen_problem(&path), Problem::Missing));
    assert!(matches!(View::open(&path).unwrap_err().problem, Problem::Missing));
    let elsewhere = directory.path().join("no").join("such.ledger");
    assert!(matches!(reopen_problem(&elsewhere), Problem::Denied { .. }));
    assert!(names(directory.path()).is_empty());
}

#[test]
fn what_is_not_a_ledger_is_refused_and_left_alone() {
    let (directory, path) = scratch();
    let foreign = directory.path().join("foreign");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let foreign = std::fs::read(foreign).unwrap();
    let text = b"SerialNumber,Version\n".repeat(200);
    for content in [&b""[..], &text, &foreign, b"x"] {
        std::fs::write(&path, content).unwrap();
        let problem = reopen_problem(&path);
        assert!(matches!(problem, Problem::NotALedger { .. }), "{problem}");
        assert!(matches!(View::open(&path).unwrap_err().problem, Problem::NotALedger { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert!(!path.with_extension("ledger.lock").exists());
}

#[test]
fn a_directory_is_not_a_ledger() {
    let (directory, _) = scratch();
    let problem = reopen_problem(directory.path());
    assert!(matches!(problem, Problem::Denied { .. }), "{problem}");
}

#[test]
fn a_newer_schema_is_refused() {
    let (_directory, path) = scratch();
    let ledger = import(&path, 1);
    ledger.view().connection.pragma_update(None, "user_version", 99).unwrap();
    drop(ledger);
    assert!(matches!(reopen_problem(&path), Problem::Newer { found: 99, known: schema::NEWEST }));
    assert!(matches!(View::open(&path).unwrap_err().problem, Problem::Newer { .. }));
}

#[test]
fn a_truncated_ledger_is_refused() {
    let (_directory, path) = scratch();
    drop(import(&path, 2_000));
    let whole = std::fs::read(&path).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 4096, 512, 100] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let problem = reopen_problem(&path);
        assert!(
            matches!(problem, Problem::Damaged { .. } | Problem::NotALedger { .. }),
            "{length}: {problem}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), &whole[..length], "{length}");
    }
}

#[test]
fn a_damaged_ledger_is_refused() {
    let (_directory, path) = scratch();
    drop(import(&path, 2_000));
    let whole = std::fs::read(&path).unwrap();
    let page_size = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    for page in 1..whole.len() / page_size {
        let mut damaged = whole.clone();
        damaged[page * page_size..page * page_size + 64].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        let problem = reopen_problem(&path);
        assert!(matches!(problem, Problem::Damaged { .. }), "page {page}: {problem}");
        assert!(problem.to_string().contains("is not repaired"), "{problem}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
}

#[test]
fn another_program_that_writes_it_is_named_as_the_reason() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 1);
    let shell = Connection::open(&path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.view().connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    let error = ledger.commit(vec![issued(1)], now()).unwrap_err();
    assert!(matches!(error.problem, Problem::Busy), "{error}");
}

#[test]
fn a_log_without_its_ledger_is_not_replayed_into_a_new_one() {
    let (directory, path) = scratch();
    let log = directory.path().join("lot.ledger-wal");
    std::fs::write(&log, "the last copy of a key").unwrap();
    let outcome = Ledger::open_or_import(&path, &binding(), lot(1), accept, now());
    assert!(matches!(problem(outcome), Problem::OrphanedLog { .. }));
    assert!(matches!(reopen_problem(&path), Problem::OrphanedLog { .. }));
    assert_eq!(names(directory.path()), ["lot.ledger-wal"]);
}

#[test]
fn errors_name_the_ledger() {
    let (_directory, path) = scratch();
    let message = Ledger::reopen(&path).unwrap_err().to_string();
    assert_eq!(message, format!("ledger {}: there is no such file; check the path", path.display()));
}
