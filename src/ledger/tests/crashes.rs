//! What is left after a crash, or without a part of the file.

use super::*;

/// Copies a ledger's files as a crash at this moment would leave them into a directory of their own.
fn crash(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let (directory, copy) = scratch();
    for suffix in ["", "-wal", ".lock"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(with(path), with(&copy)).unwrap();
    }
    (directory, copy)
}

fn log_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

#[test]
fn whatever_had_a_receipt_survives_a_crash() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 40);
    for device in 1..=40 {
        ledger.commit(vec![issued(device)], now()).unwrap();
        let (_copy, left) = crash(&path);
        let survivor = Ledger::resume(&left, &binding(), lot(40), accept, now()).unwrap();
        let open = survivor.view().open_devices(None, 99).unwrap();
        for found in open {
            match found.work {
                Work::Register { certificate: held, registration, .. } => {
                    assert!(found.id.0 <= device);
                    assert_eq!(*held, certificate(found.id.0));
                    assert_eq!(registration, Registration::MaySent);
                }
                Work::Create => assert!(found.id.0 > device),
                Work::Certify { .. } => panic!("no key was prepared"),
            }
        }
    }
}

#[test]
fn an_unfinished_commit_leaves_nothing() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 3);
    ledger.commit(vec![issued(1)], now()).unwrap();
    let connection = &ledger.view().connection;
    connection.execute_batch("BEGIN; UPDATE device SET line = 77").unwrap();
    connection.cache_flush().unwrap();
    let (_copy, left) = crash(&path);
    let survivor = Ledger::reopen(&left).unwrap();
    assert_eq!(survivor.view().open_devices(None, 1).unwrap()[0].identity, identity(1));
}

#[test]
fn a_ledger_without_its_last_commits_is_refused() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 3);
    for device in 1..=3 {
        ledger.commit(vec![issued(device)], now()).unwrap();
    }
    let log = std::fs::read(log_of(&path)).unwrap();
    let mut damaged = log.clone();
    damaged[log.len() / 2] ^= 1;
    for content in [None, Some(&log[..log.len() - 1]), Some(&log[..0]), Some(&damaged)] {
        let (_copy, left) = crash(&path);
        match content {
            None => std::fs::remove_file(log_of(&left)).unwrap(),
            Some(content) => std::fs::write(log_of(&left), content).unwrap(),
        }
        for _ in 0..2 {
            let problem = Ledger::reopen(&left).unwrap_err().problem;
            assert!(matches!(problem, Problem::LostCommits { noted: 3, .. }), "{problem}");
            assert!(matches!(View::open(&left).unwrap_err().problem, Problem::LostCommits { .. }));
        }
        std::fs::write(log_of(&left), &log).unwrap();
        let _ = std::fs::remove_file(format!("{}-shm", left.display()));
        let whole = Ledger::reopen(&left).expect("the log was put back");
        assert_eq!(whole.view().counts().unwrap().issued(), 3);
    }
}

#[test]
fn a_new_ledger_does_not_answer_for_one_that_is_gone() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 1);
    ledger.commit(vec![issued(1)], now()).unwrap();
    let (directory, left) = crash(&path);
    std::fs::remove_file(&left).unwrap();
    std::fs::remove_file(log_of(&left)).unwrap();
    drop(import(&left, 1));
    assert_eq!(names(directory.path()), ["lot.ledger"]);
}

#[test]
fn a_view_follows_the_run_that_writes() {
    let (_directory, path) = scratch();
    let mut ledger = import(&path, 2);
    let view = View::open(&path).unwrap();
    ledger.commit(vec![issued(1)], now()).unwrap();
    assert_eq!(view.counts().unwrap().issued(), 1);
    drop(ledger);
    assert_eq!(view.counts().unwrap().issued(), 1);
}
