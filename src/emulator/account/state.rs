//! The account's entire state as plain data, and the life cycle of certificates and tokens.
//!
//! Maps are ordered, so that the same history gives the same state, byte for byte. The state holds no private key and
//! no token in the clear. A device takes less than 1 KB besides its certificate, hence the packed types.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::change::{Key, Touched};
use super::fingerprint::Fingerprint;
use super::packed::{Attributes, CertificatePem, Names};
use super::random::Random;
use crate::template::PrincipalType;

/// The account's entire state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Certificates by certificate id.
    pub certificates: BTreeMap<Fingerprint, Certificate>,
    /// Tokens by their fingerprint.
    pub tokens: BTreeMap<Fingerprint, Token>,
    /// Things by name.
    pub things: BTreeMap<String, Thing>,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Thing types by name.
    pub thing_types: BTreeMap<String, ThingType>,
    /// Thing groups by name.
    pub thing_groups: BTreeMap<String, ThingGroup>,
    /// Billing groups by name.
    pub billing_groups: BTreeMap<String, BillingGroup>,
    /// Provisioning templates by name.
    pub templates: BTreeMap<String, ProvisioningTemplate>,
    /// The certificates of CreateProvisioningClaim, by certificate id.
    pub claims: BTreeMap<Fingerprint, Claim>,
    /// Detachments that were accepted but have not taken effect, by an increasing number.
    pub detaching: BTreeMap<u64, Detachment>,
    /// Counts of what has happened so far.
    pub counters: Counters,
    /// When tokens lapse, soonest first.
    #[serde(skip)]
    pub(super) lapses: BTreeSet<(SystemTime, Fingerprint)>,
    pub(super) random: Random,
}

/// A certificate of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, PEM.
    pub pem: CertificatePem,
    /// Its status.
    pub status: CertificateStatus,
    /// When it was made.
    pub created: SystemTime,
    /// When its status last changed.
    pub modified: SystemTime,
    /// Names of the things it is attached to.
    pub things: Names,
    /// Names of the policies attached to it.
    pub policies: Names,
    /// Whether the service made it or only registered it.
    pub origin: Origin,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The service made it.
    Made,
    /// RegisterCertificateWithoutCA: mode `SNI_ONLY`.
    Registered,
}

/// A certificate's status, spelled as in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateStatus {
    /// Created, not yet registered.
    PendingActivation,
    /// In use.
    Active,
    /// Registered, but not in use.
    Inactive,
    /// Revoked.
    Revoked,
}

/// An ownership token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The certificate that it proves ownership of.
    pub certificate_id: Fingerprint,
    /// The token is valid before this instant.
    pub expires: SystemTime,
    /// How many registrations it was used for.
    pub uses: u32,
}

/// A thing of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Thing {
    /// Its type.
    pub type_name: Option<Box<str>>,
    /// Its attributes.
    pub attributes: Attributes,
    /// The groups it is in.
    pub groups: Names,
    /// Its billing group.
    pub billing_group: Option<Box<str>>,
    /// Its software packages with their versions.
    pub package_versions: Attributes,
    /// The certificates attached to it, ordered by id. Registering a name again adds one; the old ones stay.
    pub principals: Box<[Attachment]>,
    /// Counts the changes of type and attributes, from 1.
    pub version: u64,
}

/// A certificate attached to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The certificate's id.
    pub certificate_id: Fingerprint,
    /// Whether the certificate is attached exclusively to this thing.
    #[serde(with = "principal_type")]
    pub kind: PrincipalType,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The versions of its document.
    pub documents: Versions,
}

/// A thing type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingType {
    /// Its description.
    pub description: Option<String>,
    /// The attributes that the service indexes.
    pub searchable: Vec<String>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was deprecated. No thing may be given a deprecated type.
    pub deprecated: Option<SystemTime>,
}

/// A group of things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingGroup {
    /// Its parent group.
    pub parent: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its attributes.
    pub attributes: Attributes,
    /// Names of the policies attached to it.
    pub policies: Names,
    /// When it was made.
    pub created: SystemTime,
    /// Counts its changes, from 1.
    pub version: u64,
}

/// A billing group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingGroup {
    /// Its description.
    pub description: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// Counts its changes, from 1.
    pub version: u64,
}

/// A provisioning template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisioningTemplate {
    /// The versions of its body.
    pub bodies: Versions,
    /// Its description.
    pub description: Option<String>,
    /// Whether devices may register with it.
    pub enabled: bool,
    /// The role that the service would assume.
    pub role_arn: String,
    /// The function that decides on each registration.
    pub hook: Option<Hook>,
    /// `FLEET_PROVISIONING` or `JITP`.
    pub kind: String,
}

/// A pre-provisioning hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The function's ARN.
    pub target_arn: String,
    /// The version of its input format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_version: Option<String>,
}

/// The versions of a text, one of which is the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The versions by number, from 1.
    pub all: BTreeMap<u32, Version>,
    /// The number of the default version.
    pub default: u32,
    /// The last number assigned.
    last: u32,
    /// When any version, or the choice of the default, last changed.
    pub modified: SystemTime,
}

/// One version of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The text, JSON.
    pub text: Box<str>,
    /// When it was made.
    pub created: SystemTime,
}

/// When the certificate of a CreateProvisioningClaim ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The template that it is for.
    pub template: String,
    /// The claim is valid before this instant.
    pub expires: SystemTime,
}

/// A detachment that takes effect later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detachment {
    /// When it takes effect.
    pub due: SystemTime,
    /// What is detached.
    pub what: Detached,
}

/// What is detached from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detached {
    /// A certificate from a thing.
    Principal(String, Fingerprint),
    /// A policy from a certificate.
    Policy(String, Fingerprint),
    /// A policy from a thing group.
    GroupPolicy(String, String),
}

/// Counts of what has happened so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Certificates created with an ownership token.
    pub certificates_created: u64,
    /// Certificates deleted because they were not registered in time.
    pub certificates_lapsed: u64,
    /// Registrations accepted.
    pub registered: u64,
    /// Rejections of any kind, throttles included.
    pub rejected: u64,
    /// CreateKeysAndCertificate requests over the quota.
    pub throttled_create_keys: u64,
    /// CreateCertificateFromCsr requests over the quota.
    pub throttled_create_from_csr: u64,
    /// RegisterThing requests over the quota.
    pub throttled_register: u64,
    /// RegisterThing requests with a capitalised `Parameters`, whether used or ignored: their senders should be told.
    pub capitalised_parameters: u64,
}

impl State {
    /// An empty account, with randomness seeded by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            certificates: BTreeMap::new(),
            tokens: BTreeMap::new(),
            things: BTreeMap::new(),
            policies: BTreeMap::new(),
            thing_types: BTreeMap::new(),
            thing_groups: BTreeMap::new(),
            billing_groups: BTreeMap::new(),
            templates: BTreeMap::new(),
            claims: BTreeMap::new(),
            detaching: BTreeMap::new(),
            counters: Counters::default(),
            lapses: BTreeSet::new(),
            random: Random::new(seed),
        }
    }

    /// The certificate with this id, spelled as in the API.
    pub fn certificate(&self, id: &str) -> Option<&Certificate> {
        self.certificates.get(&id.parse().ok()?)
    }

    /// Builds the indexes, which are not stored because they follow from the rest.
    pub(in crate::emulator) fn index(&mut self) {
        self.lapses = self.tokens.iter().map(|(digest, token)| (token.expires, *digest)).collect();
    }

    /// Adds a new certificate with the token issued for it.
    pub(super) fn admit_certificate(
        &mut self,
        now: SystemTime,
        lifetime: Duration,
        (token_digest, id): (Fingerprint, Fingerprint),
        pem: &str,
        touched: &mut Touched,
    ) {
        touched.add(Key::Token(token_digest));
        touched.add(Key::Certificate(id));
        // Only a clock at the very end of its range gets here.
        let expires = now.checked_add(lifetime).unwrap_or(now);
        self.lapses.insert((expires, token_digest));
        self.tokens.insert(token_digest, Token { certificate_id: id, expires, uses: 0 });
        self.certificates.insert(id, Certificate::new(pem, CertificateStatus::PendingActivation, now));
        self.counters.certificates_created += 1;
    }

    /// Applies everything due by `now`: tokens lapse, along with their certificates if unused; claims end; detachments
    /// take effect.
    pub(super) fn expire(&mut self, now: SystemTime, touched: &mut Touched) {
        while self.lapses.first().is_some_and(|(expires, _)| *expires <= now) {
            let Some((_, digest)) = self.lapses.pop_first() else { continue };
            let Some(token) = self.tokens.remove(&digest) else { continue };
            touched.add(Key::Token(digest));
            let id = token.certificate_id;
            if self.certificates.get(&id).is_some_and(Certificate::is_unused) {
                touched.add(Key::Certificate(id));
                self.certificates.remove(&id);
                self.counters.certificates_lapsed += 1;
            }
        }
        for (id, _) in self.claims.extract_if(.., |_, claim| claim.expires <= now) {
            touched.add(Key::Claim(id));
            touched.add(Key::Certificate(id));
            self.certificates.remove(&id);
        }
        let due: Vec<_> = self.detaching.extract_if(.., |_, detachment| detachment.due <= now).collect();
        for (number, detachment) in due {
            touched.add(Key::Detachment(number));
            self.detach(&detachment.what, touched);
        }
    }

    /// Makes a detachment take effect.
    pub(super) fn detach(&mut self, what: &Detached, touched: &mut Touched) {
        match what {
            Detached::Principal(thing_name, id) => {
                if let Some(thing) = self.things.get_mut(thing_name) {
                    thing.principals = thing
                        .principals
                        .iter()
                        .filter(|principal| principal.certificate_id != *id)
                        .copied()
                        .collect();
                    touched.add(Key::Thing(thing_name.clone()));
                }
                if let Some(certificate) = self.certificates.get_mut(id) {
                    certificate.things.remove(thing_name);
                    touched.add(Key::Certificate(*id));
                }
            }
            Detached::Policy(policy, id) => {
                if let Some(certificate) = self.certificates.get_mut(id) {
                    certificate.policies.remove(policy);
                    touched.add(Key::Certificate(*id));
                }
            }
            Detached::GroupPolicy(policy, group_name) => {
                if let Some(group) = self.thing_groups.get_mut(group_name) {
                    group.policies.remove(policy);
                    touched.add(Key::ThingGroup(group_name.clone()));
                }
            }
        }
    }
}

impl Certificate {
    /// A certificate that the service has just made, attached to nothing.
    pub fn new(pem: &str, status: CertificateStatus, now: SystemTime) -> Self {
        Self {
            pem: CertificatePem::new(pem),
            status,
            created: now,
            modified: now,
            things: Names::default(),
            policies: Names::default(),
            origin: Origin::Made,
        }
    }

    /// Whether it is neither active nor attached to anything. The service deletes such a certificate when its token
    /// lapses.
    fn is_unused(&self) -> bool {
        self.status != CertificateStatus::Active && self.things.is_empty() && self.policies.is_empty()
    }
}

impl Thing {
    /// The ids of the certificates attached to it, in order.
    pub fn certificate_ids(&self) -> impl Iterator<Item = Fingerprint> {
        self.principals.iter().map(|principal| principal.certificate_id)
    }

    /// Attaches a certificate, or changes how it is attached.
    pub(in crate::emulator) fn attach(&mut self, certificate_id: Fingerprint, kind: PrincipalType) {
        let others = self.principals.iter().filter(|known| known.certificate_id != certificate_id).copied();
        let mut principals: Vec<_> = others.chain([Attachment { certificate_id, kind }]).collect();
        principals.sort_unstable_by_key(|principal| principal.certificate_id);
        self.principals = principals.into_boxed_slice();
    }
}

impl ThingType {
    /// A thing type with no details.
    pub fn new(now: SystemTime) -> Self {
        Self { description: None, searchable: Vec::new(), created: now, deprecated: None }
    }
}

impl ThingGroup {
    /// An empty group without a parent.
    pub fn new(now: SystemTime) -> Self {
        Self {
            parent: None,
            description: None,
            attributes: Attributes::default(),
            policies: Names::default(),
            created: now,
            version: 1,
        }
    }
}

impl BillingGroup {
    /// An empty billing group.
    pub fn new(now: SystemTime) -> Self {
        Self { description: None, created: now, version: 1 }
    }
}

impl ProvisioningTemplate {
    /// An enabled fleet provisioning template with this body.
    pub fn new(body: &str, role_arn: String, hook: Option<String>, now: SystemTime) -> Self {
        Self {
            bodies: Versions::first(body, now),
            description: None,
            enabled: true,
            role_arn,
            hook: hook.map(|target_arn| Hook { target_arn, payload_version: None }),
            kind: String::from("FLEET_PROVISIONING"),
        }
    }
}

impl Versions {
    /// A text with this first version.
    pub fn first(text: &str, now: SystemTime) -> Self {
        let version = Version { text: text.into(), created: now };
        Self { all: [(1, version)].into(), default: 1, last: 1, modified: now }
    }

    /// The text of the default version.
    pub fn current(&self) -> &str {
        self.all.get(&self.default).map_or("", |version| &version.text)
    }

    /// Adds a version. Returns its number.
    pub fn add(&mut self, text: &str, now: SystemTime) -> u32 {
        self.last += 1;
        self.all.insert(self.last, Version { text: text.into(), created: now });
        self.modified = now;
        self.last
    }

    /// When the first version was made: the creation date in lists.
    pub fn created(&self) -> SystemTime {
        self.all.values().next().map_or(self.modified, |version| version.created)
    }
}

/// Serialises the type as spelled in the API.
mod principal_type {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::template::PrincipalType;

    pub(super) fn serialize<S: Serializer>(kind: &PrincipalType, serializer: S) -> Result<S::Ok, S::Error> {
        (*kind == PrincipalType::Exclusive).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PrincipalType, D::Error> {
        let is_exclusive = bool::deserialize(deserializer)?;
        Ok(if is_exclusive { PrincipalType::Exclusive } else { PrincipalType::NonExclusive })
    }
}
