//! Everything the account knows, as plain data.
//!
//! Owns the records, and the life of certificates and tokens: they come, and lapse. Maps are ordered, so that the same
//! history gives the same state, byte for byte. Holds no private key and no token: the service keeps neither in clear.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Certified;
use super::change::{Key, Touched};
use super::random::Random;

/// Everything the account knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// By certificate id.
    pub certificates: BTreeMap<String, Certificate>,
    /// By the SHA-256 of the token, lower-case hexadecimal.
    pub tokens: BTreeMap<String, Token>,
    /// By name.
    pub things: BTreeMap<String, Thing>,
    /// By name.
    pub policies: BTreeMap<String, Policy>,
    /// What has happened so far.
    pub counters: Counters,
    /// When tokens lapse, soonest first.
    pub(super) lapses: BTreeSet<(SystemTime, String)>,
    pub(super) random: Random,
}

/// A certificate of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, PEM.
    pub pem: String,
    /// Where it stands.
    pub status: CertificateStatus,
    /// When it was made.
    pub created: SystemTime,
    /// Names of the things it is attached to.
    pub things: BTreeSet<String>,
    /// Names of the policies attached to it.
    pub policies: BTreeSet<String>,
}

/// Where a certificate stands; written as the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateStatus {
    /// Made, not yet registered.
    PendingActivation,
    /// In use.
    Active,
    /// Registered, not in use.
    Inactive,
    /// Withdrawn.
    Revoked,
}

/// An ownership token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The certificate it proves ownership of.
    pub certificate_id: String,
    /// It is valid before this instant.
    pub expires: SystemTime,
    /// How many registrations it has made.
    pub uses: u64,
}

/// A thing of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Thing {
    /// Its type.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The groups it is in.
    pub groups: BTreeSet<String>,
    /// Its billing group.
    pub billing_group: Option<String>,
    /// Ids of the certificates attached to it. Registering a name again adds one; the old ones stay.
    pub principals: BTreeSet<String>,
    /// Counts the changes of type and attributes, from 1.
    pub version: u64,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Its document, where a template gave one; a policy that was only named has none here.
    pub document: Option<String>,
}

/// What has happened so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Certificates made.
    pub certificates_created: u64,
    /// Certificates deleted because nobody registered them in time.
    pub certificates_lapsed: u64,
    /// Registrations accepted.
    pub registered: u64,
    /// Rejections of every kind, throttles included.
    pub rejected: u64,
    /// CreateKeysAndCertificate requests over the quota.
    pub throttled_create_keys: u64,
    /// CreateCertificateFromCsr requests over the quota.
    pub throttled_create_from_csr: u64,
    /// RegisterThing requests over the quota.
    pub throttled_register: u64,
    /// RegisterThing requests with `Parameters` in capitals, taken or not: a warning to whoever sends them.
    pub capitalised_parameters: u64,
}

impl State {
    /// Nothing at all, and randomness that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            certificates: BTreeMap::new(),
            tokens: BTreeMap::new(),
            things: BTreeMap::new(),
            policies: BTreeMap::new(),
            counters: Counters::default(),
            lapses: BTreeSet::new(),
            random: Random::new(seed),
        }
    }

    /// Takes a new certificate in, with the token that was issued for it.
    pub(super) fn admit_certificate(
        &mut self,
        now: SystemTime,
        lifetime: Duration,
        token_digest: String,
        certified: Certified,
        touched: &mut Touched,
    ) {
        touched.add(Key::Token, &token_digest);
        touched.add(Key::Certificate, &certified.certificate_id);
        // Only a clock at the end of its range gets here, and nothing outlives that.
        let expires = now.checked_add(lifetime).unwrap_or(now);
        self.lapses.insert((expires, token_digest.clone()));
        let token = Token { certificate_id: certified.certificate_id.clone(), expires, uses: 0 };
        self.tokens.insert(token_digest, token);
        let certificate = Certificate {
            pem: certified.certificate_pem,
            status: CertificateStatus::PendingActivation,
            created: now,
            things: BTreeSet::new(),
            policies: BTreeSet::new(),
        };
        self.certificates.insert(certified.certificate_id, certificate);
        self.counters.certificates_created += 1;
    }

    /// Forgets the tokens that have lapsed by `now`, and their certificates where nobody uses them.
    pub(super) fn expire(&mut self, now: SystemTime, touched: &mut Touched) {
        while self.lapses.first().is_some_and(|(expires, _)| *expires <= now) {
            let Some((_, digest)) = self.lapses.pop_first() else { continue };
            let Some(token) = self.tokens.remove(&digest) else { continue };
            touched.add(Key::Token, &digest);
            let unused = |certificate: &Certificate| certificate.is_unused();
            if self.certificates.get(&token.certificate_id).is_some_and(unused) {
                touched.add(Key::Certificate, &token.certificate_id);
                self.certificates.remove(&token.certificate_id);
                self.counters.certificates_lapsed += 1;
            }
        }
    }
}

impl Certificate {
    /// Neither active nor attached to anything: the service deletes such a one when its token lapses.
    fn is_unused(&self) -> bool {
        self.status != CertificateStatus::Active && self.things.is_empty() && self.policies.is_empty()
    }
}
