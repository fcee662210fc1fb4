//! What the reader says of good lots, bad lots and no lots at all.

mod header;

use std::io;

use proptest::prelude::*;

use super::super::LotDigest;
use super::*;

const SEED_FLOW: &[u8] = include_bytes!("../../../../fixtures/lots/seed-flow.csv");
const EXCEL: &[u8] = include_bytes!("../../../../fixtures/lots/excel.csv");
const RAGGED: &[u8] = include_bytes!("../../../../fixtures/lots/ragged.csv");
const INVALID_UTF8: &[u8] = include_bytes!("../../../../fixtures/lots/invalid-utf8.csv");
const DUPLICATE_KEYS: &[u8] = include_bytes!("../../../../fixtures/lots/duplicate-keys.csv");
const MANY_ERRORS: &[u8] = include_bytes!("../../../../fixtures/lots/many-errors.csv");

fn open(lot: &[u8]) -> LotReader<&[u8]> {
    LotReader::new(lot, None).unwrap()
}

fn header_errors(lot: &[u8], key_column: Option<&str>) -> Vec<String> {
    match LotReader::new(lot, key_column) {
        Ok(reader) => panic!("a good header: {:?}", reader.shape()),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Every row's errors in words, and the good rows' lines.
fn sort_out(lot: &[u8]) -> (Vec<u64>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for row in open(lot) {
        match row {
            Ok(identity) => good.push(identity.line),
            Err(errors) => bad.extend(errors.iter().map(ToString::to_string)),
        }
    }
    (good, bad)
}

#[test]
fn the_seed_flow_lot_is_read() {
    let reader = open(SEED_FLOW);
    let shape = reader.shape().clone();
    assert_eq!(
        shape.columns,
        ["MacAddress", "DeviceId", "DeviceKey", "DeviceType", "Environment", "SerialNumber", "Version"]
    );
    assert_eq!(shape.key_column, 5);
    let devices: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(devices.len(), 12);
    assert_eq!(devices[0].line, 2);
    assert_eq!(devices[0].key, "123456789012");
    assert_eq!(
        devices[0].values,
        ["AA:BB:CC:DD:EE:01", "TWOK_9999999999", "ABCDEFG", "H", "DEV", "123456789012", "1.0.1"]
    );
    assert_eq!(devices[11].line, 13);
}

#[test]
fn a_spreadsheets_file_is_fine() {
    let devices: Vec<_> = open(EXCEL).map(Result::unwrap).collect();
    let lines: Vec<_> = devices.iter().map(|device| (device.line, device.key.as_str())).collect();
    assert_eq!(lines, [(2, "123456789101"), (3, "123456789102"), (6, "123456789103"), (7, "123456789104")]);
    assert_eq!(devices[1].values[2], "A,B\"C");
    assert_eq!(devices[1].values[4], "line one\r\nline two");
    assert_eq!(devices[2].values[4], "Zürich");
    assert_eq!(devices[3].values[2], "");
    assert_eq!(devices[3].values[4], "a\nb");
}

#[test]
fn duplicate_keys_are_not_found_here() {
    let (good, bad) = sort_out(DUPLICATE_KEYS);
    assert_eq!((good.len(), bad.len()), (5, 0));
}

#[test]
fn bad_lots_name_line_and_column() {
    let (good, bad) = sort_out(RAGGED);
    assert_eq!(good, [2, 4, 6]);
    assert_eq!(
        bad,
        [
            "line 3: found 8 fields; wanted 7, as in the header",
            "line 5: found 6 fields; wanted 7, as in the header"
        ]
    );
    let (good, bad) = sort_out(INVALID_UTF8);
    assert_eq!(good, [2, 4]);
    assert_eq!(
        bad,
        [
            "line 3, column Environment: found byte 0xFC at position 2, where it is not UTF-8; wanted text in UTF-8 (in a \
             spreadsheet, save as \"CSV UTF-8\")"
        ]
    );
}

#[test]
fn all_errors_are_found_at_once() {
    let (good, bad) = sort_out(MANY_ERRORS);
    assert_eq!(good, [2, 14, 15]);
    let utf8 = "where it is not UTF-8; wanted text in UTF-8 (in a spreadsheet, save as \"CSV UTF-8\")";
    let wanted = [
        "line 3: found 8 fields; wanted 7, as in the header".to_owned(),
        "line 4: found 5 fields; wanted 7, as in the header".to_owned(),
        "line 5, column SerialNumber: found an empty key; wanted a value that identifies the device".to_owned(),
        "line 6, column SerialNumber: found a key of nothing but white space, \"\\u{20}\\u{20}\\u{20}\"; wanted a value that identifies \
         the device"
            .to_owned(),
        "line 7, column SerialNumber: found a control character in the key \"12\\u{0}3\"; wanted a key without line \
         ends, tabs or other control characters"
            .to_owned(),
        "line 8, column SerialNumber: found a control character in the key \"12\\n3\"; wanted a key without line ends, \
         tabs or other control characters"
            .to_owned(),
        format!("line 10, column DeviceKey: found byte 0xFF at position 2, {utf8}"),
        "line 11, column Environment: found a value of 4097 characters; wanted at most 4096 characters, the service's \
         limit for a parameter's value"
            .to_owned(),
        format!("line 13, column Environment: found byte 0xC3 at position 1, {utf8}"),
        "line 13, column SerialNumber: found an empty key; wanted a value that identifies the device".to_owned(),
        "line 16, column Environment: found a quote that opens here and is not closed; nothing after it could be read; \
         wanted a closing quote, within 1048576 bytes"
            .to_owned(),
    ];
    assert_eq!(bad, wanted);
}

#[test]
fn what_is_no_lot_is_told_so() {
    let empty = "line 1: found an empty file; wanted a header that names the template's parameters, then a row for each \
                 device";
    for nothing in ["", "\n", "\r\n\r\n\n", "\u{feff}", "\u{feff}\r\n"] {
        assert_eq!(header_errors(nothing.as_bytes(), None), [empty], "{nothing:?}");
    }
    assert_eq!(
        header_errors(b"PK\x03\x04", None),
        [
            "line 1: found a zip archive, such as an .xlsx or .ods workbook; wanted CSV: save the sheet as \"CSV UTF-8\"; \
             commas, semicolons and tabs are all read"
        ]
    );
}

#[test]
fn a_lot_without_rows_is_an_error_at_its_end() {
    for (lot, line) in [("DeviceId", 1), ("DeviceId,x\r\n\r\n", 1), ("\n\nDeviceId\n", 3)] {
        let mut reader = open(lot.as_bytes());
        let errors = reader.next().unwrap().unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(
            errors[0].to_string(),
            format!("line {line}: found a header and no rows; wanted a row for each device below the header")
        );
        assert!(reader.next().is_none() && reader.next().is_none());
    }
    // A lot of bad rows is not an empty one.
    assert_eq!(open(b"DeviceId\na,\n").count(), 1);
}

#[test]
fn invisible_characters_are_named_in_headers_and_in_keys_of_new_devices() {
    let plain = "wanted the name of a template parameter, in plain text";
    assert_eq!(
        header_errors("Serial\u{200b}Number,Site\u{a0}, Line".as_bytes(), None),
        [
            format!("line 1: found a character that cannot be seen, number 7 of the name \"Serial\\u{{200b}}Number\" of column 1; {plain}"),
            format!("line 1: found a character that cannot be seen, number 5 of the name \"Site\\u{{a0}}\" of column 2; {plain}"),
            "line 1: found a space at an end of the name \"\\u{20}Line\" of column 3; wanted the name of a template parameter, with \
             nothing between it and the delimiters"
                .to_owned(),
        ]
    );
    let mut reader = open("SerialNumber\n1\u{a0}\n 2\n\u{202e}3\n#N/A\n4 5\n".as_bytes());
    let faults: Vec<_> = reader.by_ref().map(|row| new_key_fault(&row.unwrap(), "SerialNumber")).collect();
    let said: Vec<_> = faults.iter().map(|fault| fault.as_ref().map(ToString::to_string)).collect();
    assert_eq!(
        said,
        [
            Some("line 2, column SerialNumber: found a character that cannot be seen, number 2 of the key \"1\\u{a0}\"; wanted a key in plain text".to_owned()),
            Some("line 3, column SerialNumber: found a space at an end of the key \"\\u{20}2\"; wanted a key without white space around it".to_owned()),
            Some("line 4, column SerialNumber: found a character that cannot be seen, number 1 of the key \"\\u{202e}3\"; wanted a key in plain text".to_owned()),
            Some("line 5, column SerialNumber: found the key \"#N/A\", which is a spreadsheet's error; wanted a value that identifies the device".to_owned()),
            None,
        ]
    );
    // For devices that a ledger has already.
    assert_eq!(reader.doubts().count(), 4);
}

#[test]
fn a_spreadsheets_damage_is_counted_or_refused() {
    let lot =
        b"SerialNumber,Mac,Note\n1-Mar,1.2E+12,=\"hunter2\"\n=\"0420005\",#REF!,'x\n0420006,3/1/2024,5.0\n";
    let mut reader = open(lot);
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 3);
    let doubts: Vec<_> = reader.doubts().iter().map(ToString::to_string).collect();
    assert_eq!(doubts.len(), 5);
    assert_eq!(
        doubts[0],
        "line 2, column SerialNumber: found \"1-Mar\", which looks like a date that a spreadsheet has made of it; wanted the value \
         as it was (in a spreadsheet, import the column as text)"
    );
    assert!(!doubts.concat().contains("hunter2"));
    let format = LotFormat { doubtful: Doubtful::Refused, ..LotFormat::default() };
    let rows: Vec<_> = LotReader::with_format(&lot[..], &format).unwrap().map(|row| row.is_ok()).collect();
    assert_eq!(rows, [false, false, true]);
}

#[test]
fn blank_rows_are_not_devices() {
    let (good, bad) = sort_out(b"DeviceId,Note,x\n,,\n1,a,b\n   \n , ,\t\n\"\",,\n,,,,,,\n2,c,d\n,,");
    assert_eq!((good, bad), (vec![3, 8], vec![]));
    assert_eq!(
        sort_out(b"DeviceId\n,\n").1,
        ["line 1: found a header and no rows; wanted a row for each device below the header"]
    );
}

#[test]
fn the_delimiter_binds_nothing() {
    let digest = |lot: &[u8]| {
        let reader = open(lot);
        let mut digest = LotDigest::new(reader.shape());
        reader.for_each(|row| digest.row(&row.unwrap()));
        digest.finish()
    };
    let wanted = digest(b"DeviceId,Note\n1,a\n");
    let utf16: Vec<u8> =
        "\u{feff}DeviceId\tNote\r\n1\ta\r\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
    for lot in [&b"sep=;\nDeviceId;Note\n1;a\n"[..], b"DeviceId|Note\n1|a\n", &utf16] {
        assert_eq!(digest(lot), wanted);
    }
}

#[test]
fn a_quote_left_open_does_not_swallow_rows_in_silence() {
    let stray =
        "wanted a delimiter or the end of the line there; a quote inside a quoted value is written twice";
    // The second quote is taken for the end of the first: as many fields as there should be.
    let (good, bad) = sort_out(b"DeviceId,Note\n1,\"a\n2,b\n3,\"c\"\n4,d\n");
    assert_eq!(good, [5]);
    assert_eq!(
        bad,
        [format!(
            "line 2, column Note: found text after a closing quote, in a row that goes on to line 4 (is the quote left open \
             that opens here?); {stray}"
        )]
    );
    let (good, bad) = sort_out(b"DeviceId,Note\n1,\"a\" b\n2,5\" disk\n");
    assert_eq!(good, [3]);
    assert_eq!(bad, [format!("line 2, column Note: found text after a closing quote; {stray}")]);
    assert_eq!(
        header_errors(b"\"DeviceId\"x\n1\n", None),
        [format!("line 1: found text after a closing quote; {stray}")]
    );
    // Here it is the number of fields that gives it away.
    let (good, bad) = sort_out(b"DeviceId,Note\n1,\"a\n2,b\",c\n3,d\n");
    assert_eq!(good, [4]);
    assert_eq!(
        bad,
        [
            "line 2: found 3 fields in a row that goes on to line 3 (is a quote left open?); wanted 2, as in the header"
        ]
    );
    let (_, bad) = sort_out(b"DeviceId,Note\n  x\n");
    assert_eq!(bad, ["line 2: found 1 field; wanted 2, as in the header"]);
}

#[test]
fn limits_count_characters() {
    let row = |value: &str| format!("DeviceId,Note\n1,{value}\n");
    assert_eq!(sort_out(row(&"é".repeat(4096)).as_bytes()).0, [2]);
    assert_eq!(sort_out(row(&"é".repeat(4097)).as_bytes()).1.len(), 1);
    assert_eq!(sort_out(format!("DeviceId,{}\n1,2", "é".repeat(2048)).as_bytes()).0, [2]);
}

#[test]
fn a_secret_that_is_too_long_is_not_shown() {
    let (_, bad) = sort_out(
        format!("DeviceId,DeviceKey\n1,{}\n{},x\n", "hunter2".repeat(1000), "k".repeat(5000)).as_bytes(),
    );
    assert_eq!(bad.len(), 2);
    assert!(bad.iter().all(|error| !error.contains("hunter2") && error.len() < 200), "{bad:?}");
    let (_, bad) = sort_out(format!("DeviceId\n{}\0\n", "k".repeat(1000)).as_bytes());
    assert!(bad[0].contains("\"kkkkkkkkkkkkkkkkkkkkkkkk…kkkkkkkkkkk\\u{0} (1001 characters)\""), "{bad:?}");
}

#[test]
fn a_row_too_large_for_one_message_is_told() {
    let columns: Vec<_> = (0..33).map(|n| format!("P{n}")).collect();
    let lot = |value: &str| {
        let values = vec![value; columns.len()];
        format!("DeviceId,{}\n1,{}\n", columns.join(","), values.join(","))
    };
    let (good, bad) = sort_out(lot(&"v".repeat(4096)).as_bytes());
    assert!(good.is_empty());
    assert_eq!(bad.len(), 1);
    let beginning = "line 2: found parameters that make a RegisterThing message of more than ";
    assert!(bad[0].starts_with(beginning), "{}", bad[0]);
    assert!(
        bad[0].ends_with(" bytes; wanted at most 131072 bytes, the service's limit for a message"),
        "{}",
        bad[0]
    );
    // The limit is on JSON: a line end takes two bytes there, a NUL six.
    assert_eq!(sort_out(lot(&"v".repeat(1000)).as_bytes()).1.len(), 0);
    assert_eq!(sort_out(lot(&format!("\"{}\"", "\n".repeat(1980))).as_bytes()).1.len(), 0);
    assert_eq!(sort_out(lot(&format!("\"{}\"", "\n".repeat(1990))).as_bytes()).1.len(), 1);
    assert_eq!(sort_out(lot(&"\0".repeat(1000)).as_bytes()).1.len(), 1);
}

#[test]
fn keys_may_be_any_visible_text() {
    let (good, bad) = sort_out("DeviceId\n a b \n../..\n🔑\n\"a\"\"b,c\"\n".as_bytes());
    assert_eq!((good.len(), bad.len()), (4, 0));
    // NEL and DEL are control characters, a no-break space alone is white space.
    let (_, bad) = sort_out("DeviceId\na\u{85}b\na\u{7f}b\n\u{a0}\n\ta\n".as_bytes());
    assert_eq!(bad.len(), 4);
}

#[test]
fn a_source_that_fails_is_told_and_ends_it() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let wanted = |line| {
        format!(
            "line {line}: found a read error: the disk is gone; wanted a file that can be read to its end"
        )
    };
    let mut reader = LotReader::new((&b"DeviceId\n1\n2"[..]).chain(Failing), None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().key, "1");
    assert_eq!(reader.next().unwrap().unwrap_err()[0].to_string(), wanted(3));
    assert!(reader.next().is_none());
    for beginning in ["", "De", "DeviceId"] {
        let errors = LotReader::new(beginning.as_bytes().chain(Failing), None).err().unwrap();
        assert_eq!(errors[0].to_string(), wanted(1));
    }
}

#[test]
fn a_long_lot_streams_through() {
    /// Makes rows as they are asked for.
    struct Rows {
        made: u32,
        row: io::Cursor<Vec<u8>>,
    }
    impl Read for Rows {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.row.position() == self.row.get_ref().len() as u64 && self.made < 200_000 {
                self.made += 1;
                self.row = io::Cursor::new(format!("S{:08},\"a\nb\",c\r\n", self.made).into_bytes());
            }
            self.row.read(buffer)
        }
    }
    let rows = Rows { made: 0, row: io::Cursor::new(b"SerialNumber,Note,x\n".to_vec()) };
    let (mut count, mut last) = (0_u64, 0);
    for row in LotReader::new(rows, None).unwrap() {
        let identity = row.unwrap();
        assert_eq!(identity.line, 2 + 2 * count);
        (count, last) = (count + 1, identity.line);
    }
    assert_eq!((count, last), (200_000, 400_000));
}

/// How a table is written down.
#[derive(Debug, Clone, Copy)]
struct Dress {
    quotes: csv::QuoteStyle,
    line_end: &'static str,
    blank_lines: usize,
    mark: &'static str,
    last_line_end: bool,
}

fn dress() -> impl Strategy<Value = Dress> {
    let quotes = prop::sample::select(vec![
        csv::QuoteStyle::Always,
        csv::QuoteStyle::Necessary,
        csv::QuoteStyle::NonNumeric,
    ]);
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (quotes, line_end, 0..3_usize, prop::sample::select(vec!["", "\u{feff}"]), any::<bool>()).prop_map(
        |(quotes, line_end, blank_lines, mark, last_line_end)| Dress {
            quotes,
            line_end,
            blank_lines,
            mark,
            last_line_end,
        },
    )
}

/// The table as a file, and the line on which each of its rows starts, by counting line ends in what precedes it.
fn write_down(table: &[Vec<String>], dress: Dress) -> (Vec<u8>, Vec<u64>) {
    let (mut file, mut lines) = (String::from(dress.mark), Vec::new());
    for row in table {
        let terminator = match dress.line_end {
            "\r\n" => csv::Terminator::CRLF,
            other => csv::Terminator::Any(other.as_bytes()[0]),
        };
        let mut writer = csv::WriterBuilder::new()
            .quote_style(dress.quotes)
            .terminator(terminator)
            .from_writer(Vec::new());
        writer.write_record(row).unwrap();
        lines.push(1 + file.replace("\r\n", "\n").matches(['\n', '\r']).count() as u64);
        file.push_str(std::str::from_utf8(&writer.into_inner().unwrap()).unwrap());
        file.push_str(&dress.line_end.repeat(dress.blank_lines));
    }
    if !dress.last_line_end {
        file.truncate(file.trim_end_matches(['\n', '\r']).len());
    }
    (file.into_bytes(), lines)
}

/// A header of distinct names and rows of any text; the keys, in the first column, are good keys.
fn table() -> impl Strategy<Value = Vec<Vec<String>>> {
    let value = || prop_oneof!["\\PC{0,6}", "[a\",\r\n \u{feff}]{0,6}", any::<String>()];
    (1..5_usize).prop_flat_map(move |columns| {
        let header: Vec<String> = (0..columns).map(|n| format!("c,\"{n}")).collect();
        let row = ("[!-~é🔑][ -~é🔑]{0,8}", proptest::collection::vec(value(), columns - 1))
            .prop_map(|(key, values)| std::iter::once(key).chain(values).collect());
        proptest::collection::vec(row, 1..6)
            .prop_map(move |rows: Vec<Vec<String>>| std::iter::once(header.clone()).chain(rows).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_the_csv_crate_writes_is_read_back(table in table(), dress in dress(), other in dress()) {
        let mut digests = Vec::new();
        for dress in [dress, other] {
            let (file, lines) = write_down(&table, dress);
            let reader = LotReader::new(&file[..], Some(&table[0][0])).unwrap();
            prop_assert_eq!(&reader.shape().columns, &table[0]);
            let mut digest = LotDigest::new(reader.shape());
            let mut rows = table.iter().zip(&lines).skip(1);
            for identity in reader {
                let identity = identity.unwrap();
                let (row, line) = rows.next().unwrap();
                prop_assert_eq!(&identity.values, row);
                prop_assert_eq!(&identity.key, &row[0]);
                prop_assert_eq!(identity.line, *line, "{:?}", String::from_utf8_lossy(&file));
                digest.row(&identity);
            }
            prop_assert!(rows.next().is_none());
            digests.push(digest.finish());
        }
        prop_assert_eq!(&digests[0], &digests[1]);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        beginning in prop::sample::select(vec![&b""[..], b"DeviceId,x\n", b"\xef\xbb\xbfDeviceId\r\n", b"\xff\xfe", b"\xef\xbb"]),
        rest in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(prop::sample::select(&b"\",\r\na \0\xff\xc3\xbf"[..]), 0..200),
        ],
    ) {
        let file = [beginning, &rest].concat();
        match LotReader::new(&file[..], None) {
            Err(errors) => prop_assert!(!errors.is_empty()),
            Ok(reader) => {
                let columns = reader.shape().columns.len();
                let mut line = 1;
                for row in reader {
                    let row_line = match &row {
                        Ok(identity) => {
                            prop_assert_eq!(identity.values.len(), columns);
                            prop_assert!(!identity.key.trim().is_empty());
                            identity.line
                        }
                        Err(errors) => {
                            for error in errors {
                                let shown = error.to_string();
                                prop_assert!(!shown.chars().any(char::is_control) && shown.len() < 400);
                            }
                            errors[0].line
                        }
                    };
                    prop_assert!(row_line >= line);
                    line = row_line;
                }
            }
        }
    }
}
