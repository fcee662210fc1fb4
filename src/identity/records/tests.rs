//! Where records start and end, and where reading stops.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

type Row = (u64, u64, Vec<Vec<u8>>);

fn read_all<R: Read>(source: R) -> (Vec<Row>, Option<Broken>) {
    let mut rows = Vec::new();
    let mut reader = match RecordReader::new(source, Some(Delimiter::Comma)) {
        Ok(reader) => reader,
        Err(broken) => return (rows, Some(broken)),
    };
    loop {
        match reader.read() {
            Ok(Some(record)) => {
                let Extent { line, last_line, .. } = record.extent;
                rows.push((line, last_line, record.fields().map(<[u8]>::to_vec).collect()));
            }
            Ok(None) => return (rows, None),
            Err(broken) => return (rows, Some(broken)),
        }
    }
}

/// Hands out its bytes a few at a time, with interruptions.
struct Dribble<'a> {
    bytes: &'a [u8],
    size: usize,
    interrupts: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupts = !self.interrupts;
        if self.interrupts {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = self.size.min(buffer.len());
        (&mut self.bytes).take(count as u64).read(buffer)
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let cases: [(&str, &[(u64, u64)]); 10] = [
        ("a\nb\n", &[(1, 1), (2, 2)]),
        ("a\nb", &[(1, 1), (2, 2)]),
        ("a\r\nb\r\nc", &[(1, 1), (2, 2), (3, 3)]),
        ("a\rb\rc\r", &[(1, 1), (2, 2), (3, 3)]),
        ("\u{feff}a\r\n\r\nb\r\n", &[(1, 1), (3, 3)]),
        ("\n\n\r\n\ra\n\n\nb\n\n", &[(5, 5), (8, 8)]),
        ("\"a\nb\"\n\"c\r\nd\r\n\"\r\ne", &[(1, 2), (3, 5), (6, 6)]),
        ("\"a\rb\"\nc", &[(1, 2), (3, 3)]),
        ("a,\"x\n\",\"\ny\"\nb,,", &[(1, 3), (4, 4)]),
        ("\u{feff}\n \n\"\"\nx\n , \t,\"\"\r\n,,\ny", &[(4, 4), (7, 7)]),
    ];
    for (text, lines) in cases {
        for size in [1, 2, 3, 7, 1000] {
            let (rows, broken) = read_all(Dribble { bytes: text.as_bytes(), size, interrupts: false });
            assert!(broken.is_none(), "{text:?}: {broken:?}");
            let found: Vec<_> = rows.iter().map(|(line, last, _)| (*line, *last)).collect();
            assert_eq!(found, lines, "{text:?} in reads of {size}");
        }
    }
}

#[test]
fn an_open_quote_is_found_where_it_stands() {
    let cases: [(&str, u64, usize); 7] = [
        ("\"", 1, 0),
        ("a,b\nc,\"d\n", 2, 1),
        ("a,b\nc,\"d\ne,f\ng,h\n", 2, 1),
        ("a,b\r\n\r\n\"x\r\ny\",\"z\r\n\r\n", 4, 1),
        ("a\n\"\"\"\n\n", 2, 0),
        ("a\n\"b\n\",\"c\n\",\"\n", 4, 2),
        ("\"a\"\"", 1, 0),
    ];
    for (text, wanted_line, wanted_field) in cases {
        match read_all(Dribble { bytes: text.as_bytes(), size: 2, interrupts: false }).1 {
            Some(Broken::OpenQuote(Quote { line, field })) => {
                assert_eq!((line, field), (wanted_line, wanted_field), "{text:?}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    for closed in ["a,\"b\"", "a,\"b\"\"\"", "a,b\"", "a,\"\"", "\"b\"c\"", "a\"\n"] {
        assert!(read_all(closed.as_bytes()).1.is_none(), "{closed:?}");
    }
}

#[test]
fn text_after_a_closing_quote_is_found() {
    type Wanted<'a> = &'a [Option<(u64, usize)>];
    let cases: [(&str, Wanted<'_>); 6] = [
        ("a,\"b\"c\nd", &[Some((1, 1)), None]),
        ("\"a\" ,b", &[Some((1, 0))]),
        ("a,\"b\nc,\"d\ne", &[Some((1, 1)), None]),
        ("\"a\nb\",\"c\n\"d,\"e\"f", &[Some((2, 1))]),
        ("\"a\"\"b\",c\"d\"e,\"\",\"\"\"\"", &[None]),
        ("\"a\"\r\n\"b\"\r\"c\"", &[None, None, None]),
    ];
    for (text, wanted) in cases {
        let mut reader = RecordReader::new(text.as_bytes(), Some(Delimiter::Comma)).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.read().unwrap() {
            found.push(record.extent.stray_text.map(|quote| (quote.line, quote.field)));
        }
        assert_eq!(found, wanted, "{text:?}");
    }
}

#[test]
fn an_endless_record_is_not_read_to_its_end() {
    let taken = Cell::new(0);
    struct Counted<'a, R>(R, &'a Cell<usize>);
    impl<R: Read> Read for Counted<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.set(self.1.get() + count);
            Ok(count)
        }
    }
    let beginnings: [(&[u8], u8); 4] =
        [(b"a\nb,", b'x'), (b"a\nb,", b','), (b"a\nb,\"", b'x'), (b"a\nb,\"", b'\n')];
    for (beginning, byte) in beginnings {
        taken.set(0);
        let (rows, broken) = read_all(Counted(beginning.chain(io::repeat(byte)), &taken));
        assert_eq!(rows.len(), 1);
        match broken {
            Some(Broken::TooLong { line: 2 }) => assert!(!beginning.ends_with(b"\"")),
            Some(Broken::OpenQuote(Quote { line: 2, field: 1 })) => assert!(beginning.ends_with(b"\"")),
            other => panic!("{other:?}"),
        }
        assert!(taken.get() <= RECORD_LIMIT + 2 * READ_SIZE, "{}", taken.get());
    }
}

#[test]
fn the_limit_is_the_limit() {
    let longest = vec![b'x'; RECORD_LIMIT - 1];
    let (rows, broken) = read_all((&longest[..]).chain(&b"\na"[..]));
    assert!(broken.is_none() && rows.len() == 2);
    assert_eq!(rows[0].2, std::slice::from_ref(&longest));
    let (rows, broken) = read_all((&longest[..]).chain(&b"x\na"[..]));
    assert!(rows.is_empty() && matches!(broken, Some(Broken::TooLong { line: 1 })));
    let (rows, broken) = read_all((&b"x"[..]).chain(&vec![b','; RECORD_LIMIT - 1][..]));
    assert!(broken.is_none());
    assert_eq!(rows[0].2.len(), RECORD_LIMIT);
}

/// The header's fields and the delimiter, or how reading it failed.
fn header(text: &str, delimiter: Option<Delimiter>) -> Result<(Vec<String>, Delimiter), Broken> {
    let mut reader = RecordReader::new(text.as_bytes(), delimiter).unwrap();
    let fields = reader.read_header()?.map_or_else(Vec::new, |record| {
        record.fields().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
    });
    Ok((fields, reader.delimiter()))
}

#[test]
fn the_delimiter_is_the_only_one_in_the_header() {
    for (text, fields, delimiter) in [
        ("a,b\n1;2,3", &["a", "b"][..], Delimiter::Comma),
        ("a;b\n1,2;3", &["a", "b"], Delimiter::Semicolon),
        ("a\tb", &["a", "b"], Delimiter::Tab),
        ("a|b|c", &["a", "b", "c"], Delimiter::Pipe),
        ("a\n1;2", &["a"], Delimiter::Comma),
        ("\"a,b\";\"c|d\"\n", &["a,b", "c|d"], Delimiter::Semicolon),
        ("sep=;\r\na;b\r\n", &["a", "b"], Delimiter::Semicolon),
        ("sep=,\na,b;c\n", &["a", "b;c"], Delimiter::Comma),
        ("SEP=\t\na\tb\n", &["a", "b"], Delimiter::Tab),
        ("\"sep=|\"\na|b\n", &["a", "b"], Delimiter::Pipe),
        (";;\n\na;b", &["a", "b"], Delimiter::Semicolon),
        ("sep=;", &[], Delimiter::Semicolon),
        ("sep=abcdef,x", &["sep=abcdef", "x"], Delimiter::Comma),
    ] {
        let found = header(text, None).unwrap();
        assert_eq!(
            (found.0.as_slice(), found.1),
            (&fields.iter().map(ToString::to_string).collect::<Vec<_>>()[..], delimiter),
            "{text:?}"
        );
    }
    let (fields, _) = header("a,b;c", Some(Delimiter::Semicolon)).unwrap();
    assert_eq!(fields, ["a,b", "c"]);
    let (fields, _) = header("sep=;\na;b", Some(Delimiter::Semicolon)).unwrap();
    assert_eq!(fields, ["a", "b"]);
}

#[test]
fn a_delimiter_that_is_not_clear_is_not_guessed() {
    match header("a,b;c\td", None) {
        Err(Broken::Ambiguous { line: 1, found }) => {
            assert_eq!(found, [Delimiter::Comma, Delimiter::Semicolon, Delimiter::Tab]);
        }
        other => panic!("{other:?}"),
    }
    for (text, delimiter, named) in [
        ("sep=;\na;b", Some(Delimiter::Comma), ";"),
        ("sep=:\na:b", None, ":"),
        ("sep=,\na,b", Some(Delimiter::Tab), ","),
    ] {
        match header(text, delimiter) {
            Err(Broken::Separator { line: 1, found, wanted }) => {
                assert_eq!((found.as_str(), wanted), (named, delimiter), "{text:?}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The csv crate reads the same records out of any bytes, blank ones aside, up to an open quote, of which it knows nothing.
    #[test]
    fn the_csv_crate_agrees(
        bytes in proptest::collection::vec(prop::sample::select(&b"\"\"\",,\r\n\na b\0\xff\xc3"[..]), 0..60),
        size in 1..9_usize,
    ) {
        let (ours, broken) = read_all(Dribble { bytes: &bytes, size, interrupts: false });
        // Zero bytes at the start may look like UTF-16, which is named before a record is read.
        prop_assume!(!matches!(broken, Some(Broken::Foreign(_))));
        let mut theirs: Vec<Vec<Vec<u8>>> = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(&bytes[..])
            .byte_records()
            .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect())
            .collect();
        if let Some(broken) = broken {
            prop_assert!(matches!(broken, Broken::OpenQuote(_)), "{:?}", broken);
            theirs.pop();
        }
        theirs.retain(|fields| fields.iter().flatten().any(|byte| !matches!(byte, b' ' | b'\t')));
        let ours: Vec<_> = ours.into_iter().map(|(_, _, fields)| fields).collect();
        prop_assert_eq!(ours, theirs);
    }
}
