//! The limit of open files: raised as far as it goes, and told where that is not far enough.

use std::process::Command;

use super::harness::{Said, Scratch, run};

/// The command after `ulimit` has done as it is told.
fn limited(ulimit: &str, args: &[&str]) -> Said {
    let script = format!("ulimit {ulimit} && exec \"$0\" \"$@\"");
    run(Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_fleetmint")]).args(args))
}

fn provision(ulimit: &str, connections: &str, scratch: &Scratch) -> Said {
    let lot = scratch.lot("lot.csv", 100);
    let scenario = scratch.write("p256.toml", "keys = \"p256\"\n");
    let emulator = format!("--emulator={}", scenario.display());
    limited(ulimit, &["provision", lot.to_str().unwrap(), &emulator, "--connections", connections])
}

#[test]
fn a_soft_limit_is_raised_to_what_the_connections_need() {
    let scratch = Scratch::new();
    provision("-S -n 40", "100", &scratch).expect_code(0).expect_out(&["100 of 100 devices registered"]);
}

#[test]
fn a_hard_limit_is_told_before_anything_is_sent() {
    let scratch = Scratch::new();
    // Both ends of each connection, and what else is open.
    let refused = provision("-n 150", "60", &scratch).expect_code(69).expect_err(&[
        "60 connections need 184 open files, and this process may have 150",
        "`ulimit -n 184`",
        "--connections 43",
    ]);
    assert_eq!(refused.out, "");
    provision("-n 150", "43", &scratch).expect_code(0);
}
