//! Certificates for a simulation: real ones, from ready-made keys, and the same for the same seed.
//!
//! Keys cannot be made from a seed, so they are ready-made: a pool in `fixtures/keys`, large enough that swapping two
//! devices' keys is nearly always noticed. The authority signs with Ed25519, whose signatures are deterministic (RFC
//! 8032).

use std::sync::LazyLock;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PKCS_ED25519};

use super::super::account::random::Random;
use super::super::account::{Certified, Minted};
use super::authority::{SERIAL_BYTES, authority_params, serial_of, sign};
use super::{CertifyError, csr};
use crate::certificate::{PreparedKey, Secret, SigningRequest};

/// The number of ready-made keys.
pub const READY_KEYS: usize = 64;

/// P-256 keys in SEC1, each with its signing request.
const KEYS_PEM: &str = include_str!("../../../fixtures/keys/p256.pem");
/// The PKCS#8 bytes that precede the 32 bytes of an Ed25519 key (RFC 8410 section 7).
const ED25519_PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What all seeded mints share.
struct Ready {
    keys: Vec<ReadyKey>,
    issuer: Issuer<'static, KeyPair>,
}

struct ReadyKey {
    pair: KeyPair,
    prepared: PreparedKey<Secret<String>>,
}

static READY: LazyLock<Ready> = LazyLock::new(|| Ready { keys: read_keys(), issuer: issuer() });

/// Makes the certificates of one simulation.
#[derive(Debug)]
pub struct SeededMint {
    random: Random,
    /// The next ready-made key. Keys are used in rotation, so that one repeats only after all the others.
    next_key: u64,
}

impl SeededMint {
    /// A mint seeded by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { next_key: random.next(), random }
    }

    /// The next certificate and key, made at `now`.
    pub fn mint(&mut self, now: SystemTime) -> Minted {
        let key = ready(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        let certified = self.certify(&key.pair, now);
        Minted {
            certificate_pem: certified.certificate_pem,
            certificate_id: certified.certificate_id,
            private_key_pem: key.prepared.private_key.clone(),
        }
    }

    /// A certificate for the key of a signing request, PEM, made at `now`. The same request again gets another
    /// certificate.
    ///
    /// # Errors
    /// [`CertifyError::Csr`] if the request is invalid.
    pub fn certify_request(&mut self, csr_pem: &str, now: SystemTime) -> Result<Certified, CertifyError> {
        let key = csr::key_of(csr_pem)?;
        Ok(self.certify(&key, now))
    }

    fn certify(&mut self, key: &impl rcgen::PublicKeyData, now: SystemTime) -> Certified {
        let mut serial = [0; SERIAL_BYTES];
        self.random.fill(&mut serial);
        sign(key, &READY.issuer, now, serial_of(serial)).expect(
            "signing with Ed25519 needs no randomness, and a simulation stays in years that X.509 knows",
        )
    }
}

/// A ready-made key for a client that makes its own; `number` wraps around.
pub fn ready_key(number: u64) -> PreparedKey<Secret<String>> {
    ready(number).prepared.clone()
}

fn ready(number: u64) -> &'static ReadyKey {
    &READY.keys[(number % READY_KEYS as u64) as usize]
}

fn read_keys() -> Vec<ReadyKey> {
    let blocks: Vec<&str> = KEYS_PEM.split_inclusive("REQUEST-----\n").collect();
    let halves = blocks.chunks_exact(2).map(|pair| pair.concat());
    let keys = halves.map(|pair| {
        let (key, request) = pair.split_at(pair.find("-----BEGIN CERT").expect("a request follows each key"));
        ReadyKey {
            pair: KeyPair::from_pem(key).expect("the ready-made keys are P-256"),
            prepared: PreparedKey {
                private_key: Secret::new(key.to_owned()),
                request: SigningRequest { pem: request.to_owned() },
            },
        }
    });
    keys.collect()
}

fn issuer() -> Issuer<'static, KeyPair> {
    let pkcs8 = [&ED25519_PKCS8[..], &[7; 32]].concat();
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), &PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 key");
    Issuer::new(authority_params(serial_of([7; SERIAL_BYTES])), key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use rcgen::PublicKeyData as _;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_766_000_000)
    }

    #[test]
    fn certificates_differ_and_depend_on_the_seed_alone() {
        let (mut one, mut same, mut other) = (SeededMint::new(1), SeededMint::new(1), SeededMint::new(2));
        let first = one.mint(now());
        assert_eq!(first, same.mint(now()));
        assert_ne!(first.certificate_id, other.mint(now()).certificate_id);
        assert_ne!(first.certificate_id, one.mint(now()).certificate_id);
        let request = ready_key(3).request.pem;
        let certified = one.certify_request(&request, now()).unwrap();
        same.mint(now());
        assert_eq!(certified, same.certify_request(&request, now()).unwrap());
        assert_ne!(certified, one.certify_request(&request, now()).unwrap());
        assert!(one.certify_request("no request", now()).is_err());
    }

    #[test]
    fn every_ready_key_is_another_one_and_its_certificate_is_for_it() {
        let mut mint = SeededMint::new(1);
        let mut keys = BTreeSet::new();
        for number in 0..READY_KEYS as u64 {
            let PreparedKey { private_key, request } = ready_key(number);
            let public = KeyPair::from_pem(private_key.expose()).unwrap().subject_public_key_info();
            let certified = mint.certify_request(&request.pem, now()).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(certified.certificate_pem.as_bytes()).unwrap();
            assert_eq!(pem.parse_x509().unwrap().public_key().raw, public, "{number}");
            keys.insert(public);
        }
        assert_eq!(keys.len(), READY_KEYS);
    }
}
