//! What was rejected, as those who mend the rows need it.

use std::time::SystemTime;

use fleetmint::call::Call;
use fleetmint::event::Change;
use fleetmint::failure::{Cause, Failure, Stage};
use fleetmint::identity::LotReader;
use fleetmint::ledger::{Binding, Ledger, LotRows};

use crate::harness::{Scratch, expect_text, fleetmint, run};

/// A ledger whose devices were all rejected, each for a reason of its own.
fn rejected(scratch: &Scratch, lot: &str) -> std::path::PathBuf {
    let path = scratch.path("lot.ledger");
    let reader = LotReader::new(lot.as_bytes(), None).unwrap();
    let shape = reader.shape().clone();
    let rows = LotRows { source: "lot.csv", shape, rows: reader };
    let binding =
        Binding { template: "T".into(), region: "r".into(), account: "a".into(), ..Binding::default() };
    let mut ledger = Ledger::import(&path, &binding, rows, |_| Ok(()), SystemTime::now()).unwrap();
    let reject = |(nth, device): (usize, fleetmint::ledger::OpenDevice)| {
        let cause = Cause::Rejected {
            status_code: 400,
            error_code: String::from("InvalidRequest"),
            error_message: format!("reason {nth}"),
        };
        Change::Rejected { device: device.id, failure: Failure::new(Stage::Call(Call::RegisterThing), cause) }
    };
    let changes = ledger.view().open_devices(None, 99).unwrap().into_iter().enumerate().map(reject).collect();
    ledger.commit(changes, SystemTime::now()).unwrap();
    ledger.close().unwrap();
    path
}

/// The operator who has to mend two hundred rows, and was told of one of them.
#[test]
fn every_rejected_row_is_listed_with_its_reason() {
    let scratch = Scratch::new();
    let ledger = rejected(&scratch, "DeviceId,Site\nD1,x\n\"D,2\",y\n");
    let list = scratch.path("rejected.csv");
    run(fleetmint().arg("status").arg(&ledger).arg("--rejected").arg(&list))
        .expect_code(0)
        .expect_err(&["2 rejected devices in"]);
    let mut reader = csv::Reader::from_path(&list).unwrap();
    let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let wanted =
        ["line", "key", "reason", "stage", "cause", "rejected_at", "parameters.DeviceId", "parameters.Site"];
    assert_eq!(header, wanted);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    for (nth, key, site) in [(0, "D1", "x"), (1, "D,2", "y")] {
        let row = &rows[nth];
        assert_eq!((&row[0], &row[1], &row[7]), (&*(nth + 2).to_string(), key, site));
        assert!(row[2].contains(&format!("reason {nth}")) && &row[4] == "rejected", "{row:?}");
    }
    // The same on stdout; nothing where nothing was rejected is a header alone.
    let said = run(fleetmint().arg("status").arg(&ledger).args(["--rejected", "-"])).expect_code(0);
    assert_eq!(said.out, std::fs::read_to_string(&list).unwrap());
}

/// Whoever opens the list with a double click: a cell must not be run.
#[test]
fn a_list_for_people_holds_no_formulas() {
    let scratch = Scratch::new();
    let ledger = rejected(&scratch, "DeviceId,Site\n=1+1,+49\n-rf,@x\n");
    let said = run(fleetmint().arg("status").arg(&ledger).args(["--rejected", "-"])).expect_code(0);
    let mut reader = csv::Reader::from_reader(said.out.as_bytes());
    for row in reader.records().map(Result::unwrap) {
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{row:?}");
        assert!(row[1].starts_with('\'') && row[7].starts_with('\''), "{row:?}");
    }
}

/// Whoever shares a machine: a link in a shared folder would have a file of ours written over.
#[test]
fn a_link_is_not_written_through() {
    let scratch = Scratch::new();
    let ledger = rejected(&scratch, "DeviceId\nD1\n");
    let precious = scratch.write("precious", "precious");
    let link = scratch.path("link.csv");
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    let refused = run(fleetmint().arg("status").arg(&ledger).arg("--rejected").arg(&link));
    expect_text("rejected-to-a-link", &scratch, &refused, &[]);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

/// The operator who read "2 x … attribute site", mended that, and met the other reason the next day.
#[test]
fn each_reason_is_counted_by_itself() {
    let scratch = Scratch::new();
    let ledger = rejected(&scratch, "DeviceId,Site\nD1,x\nD2,y\n");
    let said = run(fleetmint().arg("status").arg(&ledger)).expect_code(0);
    said.expect_out(&["1 rejected, rejected at register_thing, D1: ", "reason 0", ", D2: ", "reason 1"]);
    let said = run(fleetmint().arg("status").arg("--json").arg(&ledger)).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let causes: Vec<_> = status["causes"].as_array().unwrap().iter().map(|cause| &cause["devices"]).collect();
    assert_eq!(causes, [1, 1]);

    let many: String = (0..60).map(|n| format!("E{n},x\n")).collect();
    let more = Scratch::new();
    let ledger = rejected(&more, &format!("DeviceId,Site\n{many}"));
    let said = run(fleetmint().arg("status").arg(&ledger)).expect_code(0);
    said.expect_out(&[
        "40 rejected, rejected at register_thing, for 40 further reasons (--rejected lists them)",
    ]);
}
