//! Certificates of paper: made in no time, the same for the same seed, and of no use to anyone.
//!
//! Owns their shape. They have no cryptography in them, but look like PEM, differ from each other, and key and
//! certificate of one pair say which pair they are of.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::account::Minted;
use super::super::account::random::Random;
use super::super::hex::hex;
use crate::certificate::Secret;

/// What a paper certificate says before the number of its pair.
pub const CERTIFICATE_MARK: &str = "fleetmint paper certificate ";

/// What a paper key says before the number of its pair. Its length is a multiple of three, so that it shows in base64 too.
pub const KEY_MARK: &str = "fleetmint paper key: ";

/// Makes paper certificates.
#[derive(Debug)]
pub struct PaperMint(Random);

impl PaperMint {
    /// A mint that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// The next pair.
    pub fn mint(&mut self) -> Minted {
        let pair = format!("{:016x}{:016x}", self.0.next(), self.0.next());
        let der = format!("{CERTIFICATE_MARK}{pair}");
        Minted {
            certificate_id: hex(digest(&SHA256, der.as_bytes()).as_ref()),
            certificate_pem: pem("CERTIFICATE", &der),
            private_key_pem: Secret::new(pem("EC PRIVATE KEY", &format!("{KEY_MARK}{pair}"))),
        }
    }
}

fn pem(label: &str, content: &str) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_differ_and_depend_on_the_seed_alone() {
        let (mut one, mut same, mut other) = (PaperMint::new(1), PaperMint::new(1), PaperMint::new(2));
        let first = one.mint();
        assert_eq!(first, same.mint());
        assert_ne!(first, other.mint());
        assert_ne!(first, one.mint());
    }

    #[test]
    fn a_key_shows_its_mark_in_base64() {
        let key = PaperMint::new(1).mint().private_key_pem;
        assert!(key.expose().contains(&STANDARD.encode(KEY_MARK)));
    }
}
