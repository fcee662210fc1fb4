//! Files that are asked for and cannot be written.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{Scratch, fleetmint, run};

/// An operator whose nightly job asks for a report in a folder that a colleague has moved: nothing may be spent on a run
/// whose results go nowhere.
#[test]
fn a_place_that_cannot_be_written_is_known_before_anything_is_sent() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    std::fs::create_dir(scratch.path("folder")).unwrap();
    let (moved, folder) = (scratch.path("moved/x"), scratch.path("folder"));
    for place in [moved.to_str().unwrap(), folder.to_str().unwrap(), "/dev/full"] {
        for option in ["--summary-json", "--results"] {
            let refused = run(fleetmint().arg("provision").arg(&lot).args(["--emulator", option, place]));
            refused.expect_code(74).expect_err(&[option, place]);
        }
        let load = ["load", "create", "--emulator", "--devices", "9", "--rate", "9/s", "--for", "1s"];
        let ledger = scratch.path("load.ledger");
        let refused = run(fleetmint()
            .args(load)
            .arg("--ledger")
            .arg(&ledger)
            .args(["--threshold", "missed=0"])
            .args(["--junit", place]));
        refused.expect_code(74).expect_err(&["--junit", place]);
        let find = ["find-limit", "connect", "--emulator", "--max-rate", "4/s", "--json", place];
        run(fleetmint().args(find)).expect_code(74).expect_err(&["--json", place]);
    }
    assert_eq!(scratch.files(), ["folder", "lot.csv"], "no ledger was made, and nothing was left");
}

/// What is there already stays as it was until there is something to write.
#[test]
fn a_summary_of_yesterday_is_kept_until_there_is_a_new_one() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let summary = scratch.write("summary.json", "yesterday");
    let provision = |args: &[&str]| {
        run(fleetmint()
            .arg("provision")
            .arg(&lot)
            .args(["--emulator", "--summary-json"])
            .arg(&summary)
            .args(args))
    };
    provision(&["--seal-to", "nobody"]).expect_code(64);
    assert_eq!(std::fs::read(&summary).unwrap(), b"yesterday");
    provision(&[]).expect_code(0);
    assert_eq!(crate::harness::summary(&summary)["devices"]["registered"], 3);
}

/// Whoever writes a report of results to a full disk, or to a folder that was moved.
#[test]
fn a_report_that_cannot_be_written_is_known_before_anything_is_read() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("folder")).unwrap();
    let (moved, folder) = (scratch.path("moved/x"), scratch.path("folder"));
    for place in [moved.to_str().unwrap(), folder.to_str().unwrap(), "/dev/full"] {
        for option in ["--html", "--json"] {
            let refused = run(fleetmint().args(["report", "absent.jsonl", option, place]));
            refused.expect_code(74).expect_err(&[option, place]);
        }
    }
    assert_eq!(scratch.files(), ["folder"]);
}

/// Whoever has a full disk behind `>`: a result that nobody got is no success.
#[test]
fn standard_output_that_takes_nothing_is_said() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).arg("--emulator");
    run(command.args(["--summary-json", "-"]).stdout(full())).expect_code(74).expect_err(&["--summary-json"]);
    assert_eq!(scratch.files(), ["lot.csv"], "nothing was sent");
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator").stdout(full()))
        .expect_code(74)
        .expect_err(&["standard output"]);
    for verb in ["status", "export"] {
        let mut command = fleetmint();
        command.arg(verb).arg(scratch.path("lot.ledger"));
        if verb == "export" {
            command.args(["--format", "csv", "--out", "-"]);
        }
        let said = run(command.stdout(full()));
        assert!(!matches!(said.code, Some(0)), "{verb}: {}", said.err);
    }
}

/// What a network file system without locks, or without shared memory, does to a process, in its way.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static int lacks(char what) { const char *lacked = getenv("LACKS"); return lacked && *lacked == what; }
int flock(int fd, int how) {
    if (lacks('l')) { errno = ENOLCK; return -1; }
    return syscall(SYS_flock, fd, how);
}
static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (lacks('m') && fd >= 0 && (flags & MAP_SHARED)) { errno = ENODEV; return MAP_FAILED; }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(at, length, protection, flags, fd, offset);
}
"#;

/// The shim, compiled; `None` where there is no compiler, or no such way in.
fn shim(scratch: &Scratch) -> Option<PathBuf> {
    let (source, library) = (scratch.write("shim.c", SHIM), scratch.path("shim.so"));
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    (cfg!(all(target_os = "linux", target_pointer_width = "64"))
        && compiled.is_ok_and(|status| status.success()))
    .then_some(library)
}

/// Whoever keeps the ledger on a share, so that a colleague sees it too.
#[test]
fn a_ledger_on_a_share_without_locks_or_shared_memory_is_refused_before_anything_is_sent() {
    let scratch = Scratch::new();
    let Some(shim) = shim(&scratch) else { return };
    let lot = scratch.lot("lot.csv", 2);
    let load = ["load", "create", "--emulator", "--devices", "9", "--rate", "9/s", "--for", "1s", "--ledger"];
    for lacks in ["locks", "memory"] {
        let lacking = |command: &mut Command| {
            let refused = run(command.env("LD_PRELOAD", &shim).env("LACKS", lacks));
            let refused = refused.expect_code(74).expect_err(&["put the ledger on a local disk"]);
            assert!(!refused.err.contains("bound by") && refused.out.is_empty(), "{}", refused.out);
        };
        lacking(fleetmint().arg("provision").arg(&lot).arg("--emulator"));
        lacking(fleetmint().args(load).arg(scratch.path("load.ledger")));
        assert_eq!(scratch.files().iter().filter(|name| name.ends_with("ledger")).count(), 0, "{lacks}");
    }
    // A ledger that was made elsewhere and copied there.
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator").args(["--limit", "1"])).expect_code(0);
    for lacks in ["locks", "memory"] {
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg("--emulator").env("LD_PRELOAD", &shim).env("LACKS", lacks);
        run(&mut command).expect_code(74).expect_err(&["put the ledger on a local disk"]);
    }
}
