//! Lots as people have them: out of spreadsheets, copied together, in other alphabets' encodings.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use fleetmint::identity::{Identity, LotShape, RowError};
use fleetmint::ledger::{Binding, Ledger, LotRows};

use crate::harness::{Said, Scratch, Transcript, column, expect_text, fleetmint, run};

/// A file of `fixtures/field/lots`, in a directory of its own.
fn field(name: &str) -> (Scratch, PathBuf) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/field/lots").join(name);
    let scratch = Scratch::new();
    let lot = scratch.write(name, std::fs::read(&file).unwrap());
    (scratch, lot)
}

fn provision(lot: &Path, args: &[&str]) -> Said {
    run(fleetmint().arg("provision").arg(lot).arg("--emulator").args(args))
}

/// That these lots are refused, as the snapshot says, and that nothing stands beside them.
#[track_caller]
fn refused(snapshot: &str, lots: &[&str]) {
    let (scratch, mut said) = (Scratch::new(), Transcript::default());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/field/lots");
    for name in lots {
        let lot = scratch.write(name, std::fs::read(folder.join(name)).unwrap());
        said.add(name, &provision(&lot, &[]).expect_code(65));
        assert_eq!(scratch.files(), [*name]);
        std::fs::remove_file(lot).unwrap();
    }
    expect_text(snapshot, &scratch, &said, &[]);
}

#[track_caller]
fn taken(name: &str, args: &[&str], devices: usize) -> Said {
    let (scratch, lot) = field(name);
    let said = provision(&lot, args).expect_code(0);
    let ledger = scratch.path(name).with_extension("ledger");
    let registered = column(&ledger, "SELECT key FROM device WHERE state = 'registered'");
    assert_eq!(registered.len(), devices, "{}", said.err);
    said
}

/// Whoever copies a header out of a web page: the column had a name that nobody could type.
#[test]
fn a_no_break_space_in_the_header_is_named() {
    refused("lots-no-break-space-in-header", &["nbsp_header.csv"]);
}

/// Whoever writes a blank after the comma: the column was dropped in silence.
#[test]
fn a_blank_after_the_comma_in_the_header_is_named() {
    refused("lots-blanks-in-header", &["space_header.csv"]);
}

/// The same with what a text editor shows as nothing at all.
#[test]
fn a_zero_width_space_and_a_byte_order_mark_inside_a_header_are_named() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "Serial\u{200b}Number,\u{feff}DeviceId\n1,2\n");
    let refused = provision(&lot, &["--key-column", "SerialNumber"]);
    expect_text("lots-nothing-visible-in-header", &scratch, &refused, &[]);
}

/// Whoever scans or copies keys: a certificate was spent on a thing that nobody finds again.
#[test]
fn white_space_and_invisible_characters_in_keys_are_named() {
    refused("lots-blanks-in-keys", &["nbsp_key.csv", "zwsp_key.csv", "space_key.csv", "twins.csv"]);
}

/// The same with marks that turn the direction of writing, and with a soft hyphen.
#[test]
fn bidirectional_marks_and_soft_hyphens_in_keys_are_named() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,\u{202e}1,m\nB,2\u{ad}3,m\n");
    expect_text("lots-marks-in-keys", &scratch, &provision(&lot, &[]), &[]);
}

/// The operator who mistypes a template's name: the answer was that it is what it should be.
#[test]
fn a_message_shows_the_blank_that_is_the_fault() {
    let (scratch, lot) = field("good.csv");
    let mut refused = Transcript::default();
    refused.add("a template", &provision(&lot, &["--template", "KETTLE "]));
    refused.add("a column", &provision(&lot, &["--key-column", "SerialNumber\u{a0}"]));
    expect_text("lots-blanks-in-arguments", &scratch, &refused, &[]);
}

/// Whoever exports from a spreadsheet in Europe, or from a database: there was no option to read it.
#[test]
fn semicolons_tabs_bars_and_sep_lines_are_read() {
    taken("semi.csv", &[], 1).expect_err(&["columns separated by semicolons"]);
    taken("tab.csv", &[], 1).expect_err(&["columns separated by tabs"]);
    taken("sep.csv", &[], 1);
    taken("sepcomma.csv", &["--delimiter", ","], 1);
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "DeviceId|SerialNumber|MacAddress\nA|1|m\n");
    provision(&lot, &["--delimiter", "|"]).expect_code(0);
    provision(&lot, &[]).expect_code(0).expect_err(&["vertical bars"]);
}

/// The same, where a comma is a part of a name: nothing is guessed.
#[test]
fn two_delimiters_in_a_header_lead_to_the_option() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "DeviceId;SerialNumber;MacAddress;Site, floor\nA;1;m;x\n");
    expect_text("lots-two-delimiters", &scratch, &provision(&lot, &[]), &[]);
    provision(&lot, &["--delimiter", ";"]).expect_code(0);
}

/// Whoever saves as "Unicode text": the advice led to a file that was refused again.
#[test]
fn utf16_with_a_byte_order_mark_is_read() {
    taken("utf16le.csv", &[], 1).expect_err(&["UTF-16"]);
    taken("utf16be.csv", &[], 1);
    taken("utf16tab.txt", &[], 1).expect_err(&["columns separated by tabs"]);
}

/// A lot that is saved again in another form is the same lot.
#[test]
fn the_delimiter_and_the_encoding_bind_nothing() {
    let (scratch, lot) = field("good.csv");
    provision(&lot, &[]).expect_code(0);
    let text = std::fs::read_to_string(&lot).unwrap().replace(',', ";");
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for content in [text.into_bytes(), utf16] {
        let again = scratch.write("again.csv", content);
        let ledger = scratch.path("good.ledger").display().to_string();
        provision(&again, &["--ledger", &ledger]).expect_code(0).expect_out(&["nothing to do"]);
    }
}

/// Whoever hands over the wrong file: each is named, with what makes of it a file that is read.
#[test]
fn files_that_are_not_csv_are_named() {
    let scratch = Scratch::new();
    let mut refused = Transcript::default();
    for (name, content) in [
        ("lot.xlsx", &b"PK\x03\x04\x14\0\x06\0"[..]),
        ("lot.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("lot.jsonl", b"{\"SerialNumber\":\"1\"}\n{\"SerialNumber\":\"2\"}\n"),
        ("lot.csv.zst", b"\x28\xb5\x2f\xfd\0\0"),
        ("lot.csv", b"<!DOCTYPE html><html>"),
        ("rows.csv", b"0420001,KTL_0001\n0420002,KTL_0002\n"),
    ] {
        refused.add(name, &provision(&scratch.write(name, content), &[]));
    }
    expect_text("lots-of-another-format", &scratch, &refused, &[]);
}

/// Whoever deletes rows in a spreadsheet: an error for each of 1,500 rows that are not there.
#[test]
fn rows_of_nothing_but_delimiters_are_blank() {
    taken("trail_rows.csv", &[], 2);
    taken("trail_blank.csv", &[], 2);
    let scratch = Scratch::new();
    let rows = ",,,\r\n".repeat(1_500) + " , ,\t,\r\n\"\",\"\",,\r\n";
    let lot = scratch.write("lot.csv", format!("SerialNumber,DeviceId,MacAddress,x\r\n1,A,m,\r\n{rows}"));
    provision(&lot, &[]).expect_code(0).expect_out(&["1 of 1"]);
}

/// The operator who has one fault 1,500 times: the others drowned in it.
#[test]
fn twenty_errors_of_a_kind_are_shown_and_the_others_counted() {
    let scratch = Scratch::new();
    let mut lot = String::from("SerialNumber,DeviceId\n");
    lot += &"1,A,surplus\n".repeat(1_500);
    lot += ",B\n";
    let lot = scratch.write("lot.csv", lot);
    let said = provision(&lot, &[]).expect_code(65);
    assert_eq!(said.err.matches("found 3 fields").count(), 20, "{}", said.err);
    expect_text("lots-many-errors-of-a-kind", &scratch, &said, &[]);
}

/// Whoever opens a lot in a spreadsheet: its errors became things.
#[test]
fn a_spreadsheets_errors_are_not_keys() {
    refused("lots-errors-of-a-spreadsheet", &["err.csv"]);
    let scratch = Scratch::new();
    let lot =
        scratch.write("lot.csv", "SerialNumber,DeviceId,MacAddress\n#NV,A,m\n########,B,m\nErr:502,C,m\n");
    expect_text("lots-errors-of-other-spreadsheets", &scratch, &provision(&lot, &[]), &[]);
}

/// The same for what a spreadsheet makes of numbers, dates and leading zeros: it may be meant, so it is said once.
#[test]
fn a_spreadsheets_damage_is_said_once_or_refused() {
    // The emulator does not take such a serial number for an attribute; the lot is taken all the same.
    let (_scratch, lot) = field("sci_two.csv");
    let said = provision(&lot, &[]).expect_code(3);
    assert_eq!(said.err.matches("warning").count(), 1, "{}", said.err);
    said.expect_err(&["2 values", r#"line 2, column SerialNumber: found "4.2E+14""#, "--strict"]);
    let (scratch, lot) = field("sci_two.csv");
    expect_text("lots-damage-strict", &scratch, &provision(&lot, &["--strict"]), &[]);
    assert_eq!(scratch.files(), ["sci_two.csv"]);
    // Of these five one is an error, and one is damaged in another column.
    let (scratch, lot) = field("xl.csv");
    expect_text("lots-damage-of-many-kinds", &scratch, &provision(&lot, &["--strict"]), &[]);
}

/// The same for a key that a statistics tool wrote as a number, and a date with slashes.
#[test]
fn fractions_and_dates_with_slashes_are_said_too() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "SerialNumber,DeviceId,MacAddress\n420005.0,A,m\n3/1/2024,B,m\n");
    expect_text("lots-fractions-and-dates", &scratch, &provision(&lot, &["--strict"]), &[]);
    provision(&lot, &[]).expect_code(0).expect_err(&["warning", "2 values"]);
}

/// Whoever pipes a lot in: it has no place to put a ledger beside.
#[test]
fn standard_input_is_a_lot_and_needs_a_ledger() {
    let (scratch, lot) = field("good.csv");
    let piped = |args: &[&str]| {
        let file = std::fs::File::open(&lot).unwrap();
        run(fleetmint().args(["provision", "-", "--emulator"]).args(args).stdin(Stdio::from(file)))
    };
    expect_text("lots-piped-without-ledger", &scratch, &piped(&[]), &[]);
    let ledger = scratch.path("piped.ledger").display().to_string();
    piped(&["--ledger", &ledger]).expect_code(0);
    piped(&["--ledger", &ledger]).expect_code(0).expect_out(&["nothing to do"]);
}

/// The operator whose ledger was made by an older version, with keys that would be refused today: the devices are there.
#[test]
fn keys_that_a_ledger_has_already_stay_valid_with_a_warning() {
    let scratch = Scratch::new();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/field/ledgers");
    scratch.write("lot.ledger", std::fs::read(old.join("odd-keys.db")).unwrap());
    let lot = scratch.write("lot.csv", std::fs::read(old.join("odd-keys.csv")).unwrap());
    provision(&lot, &["--key-column", "Label", "--keys", "local"])
        .expect_code(0)
        .expect_out(&["nothing to do"])
        .expect_err(&["warning", "2 values", r#""0420002\u{a0}""#, r##""#N/A""##]);
    // Without its ledger the same lot has keys of new devices.
    std::fs::remove_file(scratch.path("lot.ledger")).unwrap();
    expect_text("lots-odd-keys", &scratch, &provision(&lot, &["--key-column", "Label"]), &[]);
}

/// The operator whose ledger was made by a version that took a blank after the comma for a part of the name.
#[test]
fn columns_that_a_ledger_has_already_stay_valid_with_a_warning() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress, Note\nD1,S1,M1,x\nD2,S2,M2,y\n");
    let ledger = scratch.path("lot.ledger");
    expect_text("lots-blank-before-a-column", &scratch, &provision(&lot, &[]), &[]);

    // As that version would have made it.
    let columns = ["DeviceId", "SerialNumber", "MacAddress", " Note"].map(str::to_owned).to_vec();
    let row = |n: u64, note: &str| {
        let values = vec![format!("D{n}"), format!("S{n}"), format!("M{n}"), note.to_owned()];
        Ok::<_, Vec<RowError>>(Identity { line: n + 1, key: format!("S{n}"), values })
    };
    let rows = vec![row(1, "x"), row(2, "y")].into_iter();
    let lot_rows = LotRows { source: "lot.csv", shape: LotShape { columns, key_column: 1 }, rows };
    let binding = Binding {
        template: "TEMP_DEVICE".into(),
        region: "us-east-1".into(),
        account: "emulator".into(),
        ..Binding::default()
    };
    let made = Ledger::import(&ledger, &binding, lot_rows, |_| Ok(()), SystemTime::now()).unwrap();
    made.close().unwrap();
    provision(&lot, &[]).expect_code(0).expect_out(&["2 of 2 devices registered"]).expect_err(&[
        "warning",
        "1 value",
        r#""\u{20}Note""#,
    ]);
    let mut piped = fleetmint();
    piped.args(["provision", "-", "--emulator", "--ledger"]).arg(&ledger);
    run(piped.stdin(Stdio::from(std::fs::File::open(&lot).unwrap())))
        .expect_code(0)
        .expect_out(&["nothing to do"])
        .expect_err(&["warning"]);
}
