//! The digest of a lot, until the lot's own module offers it.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256};

use crate::identity::{Identity, LotShape};

/// SHA-256 over columns, key column and values, each with its length before it.
pub(super) struct LotDigest(Context);

impl LotDigest {
    pub(super) fn new(shape: &LotShape) -> Self {
        let mut digest = Self(Context::new(&SHA256));
        digest.texts(&shape.columns);
        digest.number(shape.key_column as u64);
        digest
    }

    pub(super) fn row(&mut self, identity: &Identity) {
        self.texts(&identity.values);
    }

    pub(super) fn finish(self) -> String {
        self.0.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all that is written to it");
            text
        })
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        for text in texts {
            self.number(text.len() as u64);
            self.0.update(text.as_bytes());
        }
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }
}
