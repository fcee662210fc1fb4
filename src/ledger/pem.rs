//! PEM as stored in the ledger: as DER, a quarter shorter, if that restores exactly the same text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use zeroize::Zeroizing;

use super::error::Problem;
use super::ids;

/// The label of a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

const LABEL_BEGINS: &str = "-----BEGIN ";
const LABEL_ENDS: &str = "-----\n";
const LINE: usize = 64;

/// A PEM text on its way into a column.
#[derive(Debug)]
pub(super) enum Kept<'a> {
    /// Its DER, and the label that restores the text.
    Der { label: &'a str, der: Zeroizing<Vec<u8>> },
    /// The text itself, because it is not PEM, or not in the usual form.
    Text(&'a str),
}

impl<'a> Kept<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        read(text).map_or(Self::Text(text), |(label, der)| Self::Der { label, der })
    }

    /// Keeps a text as DER only if its label is `wanted`, for a column without a label beside it.
    pub(super) fn labelled(text: &'a str, wanted: &str) -> Self {
        match Self::of(text) {
            Self::Der { label, .. } if label != wanted => Self::Text(text),
            kept => kept,
        }
    }

    pub(super) fn label(&self) -> Option<&'a str> {
        match self {
            Self::Der { label, .. } => Some(label),
            Self::Text(_) => None,
        }
    }
}

impl rusqlite::ToSql for Kept<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Der { der, .. } => ValueRef::Blob(der),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The text stored in a column.
pub(super) fn restore(value: ValueRef<'_>, label: &str) -> Result<String, Problem> {
    match value {
        ValueRef::Blob(der) => Ok(write(label, der)),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Problem::damaged("a certificate or key is not text")),
        },
        _ => Err(Problem::damaged("a certificate or key is missing")),
    }
}

/// The label and DER of `text`, if [`write`] restores exactly `text` from them: lines of 64, each ended by a line feed.
fn read(text: &str) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let (label, rest) = text.strip_prefix(LABEL_BEGINS)?.split_once(LABEL_ENDS)?;
    let end = rest.strip_suffix(LABEL_ENDS)?.strip_suffix(label)?.strip_suffix("-----END ")?;
    let body = end.strip_suffix('\n')?;
    let mut joined = Zeroizing::new(Vec::with_capacity(body.len()));
    let mut lines = body.as_bytes().chunks(LINE + 1).peekable();
    while let Some(line) = lines.next() {
        let line = if lines.peek().is_some() { line.strip_suffix(b"\n")? } else { line };
        joined.extend_from_slice(line);
    }
    let is_whole = !joined.is_empty() && body.len() % (LINE + 1) != 0;
    // Decoding is strict: no spaces, no unusual padding, no leftover bits.
    let mut der = Zeroizing::new(vec![0; joined.len() / 4 * 3]);
    let length = BASE64_STANDARD.decode_slice(joined.as_slice(), &mut der).ok()?;
    der.truncate(length);
    is_whole.then_some((label, der))
}

/// PEM (RFC 7468) in the usual form. Allocated at once, so that growing leaves no copies of key parts in memory.
fn write(label: &str, der: &[u8]) -> String {
    let encoded = der.len().div_ceil(3) * 4;
    let mut text = String::with_capacity(encoded + encoded.div_ceil(LINE) + 2 * label.len() + 32);
    text.extend([LABEL_BEGINS, label, LABEL_ENDS]);
    for line in der.chunks(LINE / 4 * 3) {
        BASE64_STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, LABEL_ENDS]);
    text
}

/// Adds the SQL functions with which an upgrade turns PEM into DER: `pem_kept(text)`, `pem_label(text)` and
/// `id_kept(certificate_id)`.
pub(super) fn add_functions(connection: &Connection) -> Result<(), Problem> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("pem_kept", 1, flags, |arguments| {
        let text = arguments.get_raw(0);
        Ok(match text.as_str_or_null()?.map(Kept::of) {
            Some(Kept::Der { der, .. }) => Value::Blob(der.to_vec()),
            Some(Kept::Text(text)) => Value::Text(text.to_owned()),
            None => Value::Null,
        })
    })?;
    connection.create_scalar_function("pem_label", 1, flags, |arguments| {
        let text = arguments.get_raw(0).as_str_or_null()?;
        Ok(text.and_then(|text| Kept::of(text).label()).map(str::to_owned))
    })?;
    connection.create_scalar_function("id_kept", 1, flags, |arguments| {
        let text = arguments.get_raw(0).as_str()?;
        Ok(ids::from_hex(text).map_or_else(|| Value::Text(text.to_owned()), |id| Value::Blob(id.to_vec())))
    })?;
    Ok(())
}

/// Checks that what is kept as DER restores the same text.
#[cfg(all(any(test, fuzzing), feature = "emulator"))]
pub(crate) fn fuzz(text: &str) {
    if let Kept::Der { label, der } = Kept::of(text) {
        assert_eq!(write(label, &der), text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn der_gives_the_same_text_back(der in proptest::collection::vec(any::<u8>(), 1..300), label in "[A-Z ]{0,20}") {
            let text = write(&label, &der);
            let Kept::Der { label: found, der: kept } = Kept::of(&text) else { panic!("{text} is kept as text") };
            prop_assert_eq!((found, &*kept), (label.as_str(), &der));
            prop_assert_eq!(restore(ValueRef::Blob(&der), &label).unwrap(), text);
        }

        #[test]
        fn any_text_comes_back(text in "(-----BEGIN A-----\n)?[A-D\n=+]{0,140}(\n-----END [AB]-----\n?)?") {
            let back = match Kept::of(&text) {
                Kept::Der { label, der } => write(label, &der),
                Kept::Text(text) => text.to_owned(),
            };
            prop_assert_eq!(back, text);
        }

    }

    #[test]
    fn people_see_the_same_in_sqlite() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::ledger::schema::set_up(&connection).unwrap();
        crate::ledger::schema::create(&mut connection).unwrap();
        for length in 1..150_u8 {
            let der: Vec<u8> = (0..length).map(|at| at.wrapping_mul(167) ^ length).collect();
            let device = "INSERT INTO device (id, key, line, parameter_values) VALUES (?1, ?1, 2, '[]')";
            connection.execute(device, [length]).unwrap();
            let insert = "INSERT INTO credential (device, certificate_id, certificate, private_key, private_key_label, issued_at)
                          VALUES (?1, ?2, ?3, ?3, 'EC PRIVATE KEY', 'then')";
            connection.execute(insert, rusqlite::params![length, [7_u8; 32], der]).unwrap();
            let seen: (String, String, String) = connection
                .query_row(
                    "SELECT certificate_id, certificate_pem, private_key FROM certificate WHERE device = ?1",
                    [length],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .unwrap();
            assert_eq!(seen, ("07".repeat(32), write("CERTIFICATE", &der), write("EC PRIVATE KEY", &der)));
        }
    }

    #[test]
    fn other_forms_stay_as_they_came() {
        let usual = write("CERTIFICATE", &[1; 100]);
        assert!(matches!(Kept::of(&usual), Kept::Der { .. }));
        for other in [
            usual.replace('\n', "\r\n"),
            usual.trim_end().to_owned(),
            format!("{usual}\n"),
            format!("text before\n{usual}"),
            usual.replace("END CERTIFICATE", "END KEY"),
            usual.replace("AQEB", "AQE B"),
            String::new(),
        ] {
            assert!(matches!(Kept::of(&other), Kept::Text(text) if text == other), "{other}");
        }
        assert!(matches!(Kept::labelled(&usual, "PRIVATE KEY"), Kept::Text(_)));
    }
}
