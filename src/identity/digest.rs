//! What makes two lots the same lot: a digest of names, key column and values, not of the file's bytes.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Identity, LotShape};

/// A SHA-256 over a lot's header, key column and rows, fed row by row.
///
/// Files that differ only in quoting, byte order mark, line ends or blank lines have the same digest. Every text is fed with
/// its length before it, so that no two lots look alike; all numbers are 64 bits, big-endian:
/// `"fleetmint lot 1\n"`, the number of columns, each column's name, the key column from 0; then for each row the number of
/// its values and each value.
pub struct LotDigest {
    context: Context,
}

impl LotDigest {
    /// The digest of a lot of this shape, before any row.
    pub fn new(shape: &LotShape) -> Self {
        let mut digest = Self { context: Context::new(&SHA256) };
        digest.context.update(b"fleetmint lot 1\n");
        digest.texts(&shape.columns);
        digest.number(shape.key_column);
        digest
    }

    /// Adds the next row. Its line does not count.
    pub fn row(&mut self, identity: &Identity) {
        self.values(&identity.values);
    }

    /// Adds the next row, of which only the values are at hand.
    pub fn values(&mut self, values: &[String]) {
        self.texts(values);
    }

    /// The digest: 64 lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        hex::encode(self.context.finish())
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len());
        for text in texts {
            self.number(text.len());
            self.context.update(text.as_bytes());
        }
    }

    fn number(&mut self, number: usize) {
        self.context.update(&(number as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::LotReader;
    use super::*;

    fn digest(lot: &[u8], key_column: Option<&str>) -> String {
        let reader = LotReader::new(lot, key_column).unwrap();
        let mut digest = LotDigest::new(reader.shape());
        reader.for_each(|row| digest.row(&row.unwrap()));
        digest.finish()
    }

    #[test]
    fn the_seed_flow_lot_has_the_digest_that_python_computes() {
        // By Python's csv, struct and hashlib, from the description of `LotDigest`.
        let wanted = "c861e005840d19a43e5c7b01eb6a9826394e5eef850b0cb0d3cf07d5af634fa8";
        assert_eq!(digest(include_bytes!("../../fixtures/lots/seed-flow.csv"), None), wanted);
    }

    #[test]
    fn the_same_lot_in_other_clothes_has_the_same_digest() {
        let plain = digest(b"DeviceId,Note\n1,a b\n2,\n", None);
        for other in [
            "DeviceId,Note\r\n1,a b\r\n2,\r\n",
            "\u{feff}\"DeviceId\",\"Note\"\n\n\"1\",\"a b\"\n\n2,\"\"",
            "\n\rDeviceId,\"Note\"\r1,a b\r2,",
        ] {
            assert_eq!(digest(other.as_bytes(), None), plain, "{other:?}");
        }
    }

    #[test]
    fn another_lot_has_another_digest() {
        let lots: [(&str, Option<&str>); 9] = [
            ("DeviceId,Note\n1,a\n2,b\n", None),
            ("DeviceId,Note\n1,a\n2,b\n", Some("Note")),
            ("DeviceId,Nota\n1,a\n2,b\n", None),
            ("DeviceId,Note\n2,b\n1,a\n", None),
            ("DeviceId,Note\n1,a\n", None),
            ("DeviceId,Note\n1,a2\n,b\n", Some("Note")),
            ("DeviceId,Note\n1a,\n2,b\n", None),
            ("DeviceId\n1\n2\n", None),
            ("DeviceId,Note,\"\"\"\"\n1,a,\n2,b,\n", None),
        ];
        let digests: std::collections::BTreeSet<_> = lots
            .map(|(lot, key)| {
                let reader = LotReader::new(lot.as_bytes(), key).unwrap();
                let mut digest = LotDigest::new(reader.shape());
                reader.flatten().for_each(|row| digest.row(&row));
                digest.finish()
            })
            .into();
        assert_eq!(digests.len(), lots.len());
    }
}
