//! Files that are asked for and cannot be written.

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
