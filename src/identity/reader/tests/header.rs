//! What the reader says of headers.

use super::super::super::header::HEADER_ERRORS;
use super::*;

#[test]
fn the_key_column_is_the_one_named_or_the_first_default() {
    for (header, named, wanted) in [
        ("a,ThingName,DeviceId,SerialNumber", None, 3),
        ("a,ThingName,DeviceId", None, 2),
        ("a,ThingName", None, 1),
        ("a,SerialNumber", Some("a"), 0),
        ("\u{feff}SerialNumber,a", None, 0),
        ("\u{feff}\"SerialNumber\",a", None, 0),
    ] {
        let reader = LotReader::new(header.as_bytes(), named).unwrap();
        assert_eq!(reader.shape().key_column, wanted, "{header}");
    }
}

#[test]
fn a_missing_key_column_is_told_with_the_columns_there_are() {
    let default = "wanted a column that identifies a device: one of SerialNumber, DeviceId, ThingName, or another that is named";
    let many = (0..30).map(|n| format!("C{n}")).collect::<Vec<_>>();
    let listed = many[..20].join(", ");
    let many = many.join(",");
    for (header, key_column, wanted) in [
        ("a,b", None, format!("line 1: found the columns a, b in the header; {default}")),
        (
            "\na,\"Device;Id\"\n",
            Some("c "),
            "line 2: found the columns a, Device;Id in the header; wanted the column \"c\\u{20}\", which is to identify devices"
                .to_owned(),
        ),
        (
            "a,serial_number",
            None,
            format!(
                "line 1: found the columns a, serial_number in the header; {default}; serial_number is nearly SerialNumber"
            ),
        ),
        (
            "a,SerialNumber,MAC",
            Some("Mac"),
            "line 1: found the columns a, SerialNumber, MAC in the header; wanted the column \"Mac\", which is to identify \
             devices; MAC is nearly Mac"
                .to_owned(),
        ),
        ("Serial", None, format!("line 1: found the one column Serial in the header; {default}")),
        (&many, None, format!("line 1: found the columns {listed} and 10 more in the header; {default}")),
    ] {
        assert_eq!(header_errors(header.as_bytes(), key_column).last(), Some(&wanted));
    }
}

#[test]
fn bad_names_in_the_header_are_all_told() {
    let long = "é".repeat(2049);
    let header = [
        b"DeviceId,,DeviceId, ,\xffx,\"a\nb\",N\0,a,a,".as_slice(),
        long.as_bytes(),
        b",DeviceId,".as_slice(),
        &long.as_bytes()[2..],
        b",",
    ]
    .concat();
    let empty = "wanted the name of a template parameter (a delimiter at the end of the header makes one column too many)";
    let differ = "wanted names that differ: each is a template parameter";
    let control = "wanted the name of a template parameter, in plain text";
    let wanted = [
        format!("line 1: found no name for column 2; {empty}"),
        format!("line 1: found the name DeviceId in column 1 and in column 3; {differ}"),
        format!("line 1: found no name for column 4; {empty}"),
        "line 1: found in the name of column 5 byte 0xFF at position 1, where it is not UTF-8; wanted text in UTF-8 (in a \
         spreadsheet, save as \"CSV UTF-8\")"
            .to_owned(),
        format!("line 1: found a character that cannot be seen, number 2 of the name \"a\\nb\" of column 6; {control}"),
        format!("line 1: found a character that cannot be seen, number 2 of the name \"N\\u{{0}}\" of column 7; {control}"),
        format!("line 1: found the name a in column 8 and in column 9; {differ}"),
        "line 1: found 2049 characters in the name of column 10; wanted at most 2048 characters, the service's limit for \
         a parameter's name"
            .to_owned(),
        format!("line 1: found the name DeviceId in column 1 and in column 11; {differ}"),
        format!("line 1: found no name for column 13; {empty}"),
    ];
    assert_eq!(header_errors(&header, None), wanted);
}

#[test]
fn a_header_of_nothing_but_commas_has_an_end_of_errors() {
    let header = [&b"x"[..], &[b','; 100_000]].concat();
    assert_eq!(header_errors(&header, None).len(), HEADER_ERRORS);
}

#[test]
fn a_row_in_the_headers_place_is_told() {
    for row in ["0420001,KTL_0001", "KTL_0001;AA:BB:CC:00:00:01", "a\t12-34-56-78-9A-BC"] {
        let errors = header_errors(row.as_bytes(), None);
        assert!(
            errors[0].starts_with("line 1: found no header: the first row has the columns "),
            "{errors:?}"
        );
        assert!(
            errors[0]
                .ends_with("wanted a line above it that names the columns, such as SerialNumber,DeviceId")
        );
    }
}

#[test]
fn two_delimiters_in_the_header_are_not_guessed_at() {
    assert_eq!(
        header_errors(b"SerialNumber;Site,Line\n", None),
        [
            "line 1: found commas and semicolons in the header, each of which may separate the columns; wanted one delimiter, \
             or to be told which it is"
        ]
    );
    assert_eq!(
        header_errors(b"sep=:\nSerialNumber:Site\n", None),
        ["line 1: found a sep= line that names \":\"; wanted a comma, a semicolon, a tab or a vertical bar"]
    );
}

#[test]
fn an_open_quote_in_the_header_is_told() {
    assert_eq!(
        header_errors(b"DeviceId,\"Note\n1,2\n", None),
        [
            "line 1: found a quote that opens here and is not closed; nothing after it could be read; wanted a closing \
             quote, within 1048576 bytes"
        ]
    );
}
