//! Certificate ids as the ledger stores them, and the detection of an id that comes twice.
//!
//! Ids come in random order, so an index on them would be written in as many places as a commit has certificates.
//! Instead, one word of each known id is kept in memory; the rows are only searched when a word comes again.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::error::Problem;
use crate::certificate::CertificateId;

/// An id on its way into a column: as bytes, if it has the service's usual form.
pub(super) enum KeptId<'a> {
    Bytes([u8; 32]),
    Text(&'a str),
}

impl<'a> KeptId<'a> {
    pub(super) fn of(id: &'a CertificateId) -> Self {
        from_hex(id.as_str()).map_or(Self::Text(id.as_str()), Self::Bytes)
    }

    fn as_value(&self) -> ValueRef<'_> {
        match self {
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }
    }
}

impl rusqlite::ToSql for KeptId<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.as_value()))
    }
}

/// The id stored in a column.
pub(super) fn restore(value: ValueRef<'_>) -> Result<CertificateId, Problem> {
    let text = match value {
        ValueRef::Blob(bytes) => to_hex(bytes),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => return Err(Problem::damaged("a certificate has no id")),
    };
    CertificateId::try_from(text).map_err(|error| Problem::damaged(error.to_string()))
}

/// The ids in the ledger, one word of each.
#[derive(Debug, Default)]
pub(super) struct KnownIds(HashSet<u64, BuildHasherDefault<AsItIs>>);

impl KnownIds {
    pub(super) fn load(connection: &Connection) -> Result<Self, Problem> {
        let mut known = Self::default();
        let mut statement = connection.prepare("SELECT certificate_id FROM credential")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            known.0.insert(word(row.get_ref(0)?));
        }
        Ok(known)
    }

    /// Adds `id`; `false` if it may have been there before.
    pub(super) fn insert(&mut self, id: &KeptId<'_>) -> bool {
        self.0.insert(word(id.as_value()))
    }
}

/// Folds an id into a word. Ids are digests and so random already; folding also helps with ids that are not.
fn word(value: ValueRef<'_>) -> u64 {
    let bytes = match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes,
        _ => &[],
    };
    let fold = |word: u64, part: &[u8]| {
        let part = part.iter().fold(0, |part, byte| part << 8 | u64::from(*byte));
        (word ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    };
    bytes.chunks(8).fold(0, fold)
}

/// A hasher that returns the word itself.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        unreachable!("{} bytes that are not a word", bytes.len())
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// The bytes of 64 lower-case hexadecimal digits; `None` for any other text, which could not be restored exactly.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut id = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != id.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(id)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_comes_back(text in "(0x)?([0-9a-f]{64}|[0-9a-fA-F]{64})") {
            let id = CertificateId::try_from(text.clone()).unwrap();
            prop_assert_eq!(restore(KeptId::of(&id).as_value()).unwrap(), id);
            prop_assert_eq!(from_hex(&text).is_some(), text.len() == 64 && text == text.to_lowercase());
        }
    }

    #[test]
    fn ids_that_differ_anywhere_are_told_apart() {
        let mut known = KnownIds::default();
        for at in 0..64 {
            let id = format!("{}1{}", "0".repeat(at), "0".repeat(63 - at));
            assert!(known.insert(&KeptId::of(&id.clone().try_into().unwrap())), "{id}");
            assert!(!known.insert(&KeptId::of(&id.clone().try_into().unwrap())), "{id}");
        }
    }
}
