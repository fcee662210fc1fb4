//! The checker: what must be true of a ledger and an account together, whatever has happened.
//!
//! Reads the ledger's tables and the account's state, and shares nothing with the engine. All checks hold at any time
//! at which nothing is under way, in the middle of a lot as well as at its end.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmint::emulator::account::{Certificate, CertificateStatus, State};
use fleetmint::emulator::mint::READY_KEYS;
use rcgen::PublicKeyData;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::witness::Notes;

/// What the ledger says of a device.
struct Device {
    key: String,
    state: String,
    registration: Option<String>,
    thing: Option<String>,
    stage: Option<String>,
    cause: Option<String>,
    failure: Option<String>,
    certificates: Vec<Owned>,
}

/// A certificate in the ledger.
pub struct Owned {
    pub id: String,
    pub pem: String,
    pub private_key: String,
    pub token: Option<String>,
    pub is_retired: bool,
}

/// The columns of `credential` that make an [`Owned`]. The view `certificate` has the same, but works the PEM out in SQL: most
/// of what a simulation would take.
pub const OWNED: &str = "lower(hex(certificate_id)) AS id, certificate, private_key, private_key_label, retired_at,
    (SELECT ownership_token FROM token WHERE token.device = credential.device AND retired_at IS NULL) AS token";

impl Owned {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let pem = |column: &str, label: Option<String>| {
            Ok::<_, rusqlite::Error>(match row.get_ref(column)? {
                ValueRef::Blob(der) => {
                    let label = label.unwrap_or_default();
                    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
                }
                other => String::from(other.as_str_or_null()?.unwrap_or_default()),
            })
        };
        Ok(Self {
            id: row.get("id")?,
            pem: pem("certificate", Some(String::from("CERTIFICATE")))?,
            private_key: pem("private_key", row.get("private_key_label")?)?,
            token: row.get("token")?,
            is_retired: row.get::<_, Option<String>>("retired_at")?.is_some(),
        })
    }
}

/// Both sides, side by side.
pub struct Check<'a> {
    pub ledger: &'a Connection,
    pub account: &'a State,
    pub notes: &'a Notes,
    /// Runs that were cut off, or stopped by their disk, so far.
    pub cut_off: u64,
    /// Whether a control plane answers, always: then no registered device is without the name of its thing.
    pub names_every_thing: bool,
    pub devices: u64,
    /// How many keys were made so far, by whom it may be.
    pub keys_made: u64,
}

type Wrong = Vec<String>;

impl Check<'_> {
    /// Everything that is wrong.
    pub fn run(&self) -> Wrong {
        let devices = self.read_devices();
        let mut wrong = Wrong::new();
        if devices.len() as u64 != self.devices {
            wrong.push(format!("the ledger has {} devices of {}", devices.len(), self.devices));
        }
        for device in devices.values() {
            self.check_device(device, &mut |what| wrong.push(format!("{}: {what}", device.key)));
        }
        self.check_twins(&devices, &mut wrong);
        self.check_account(&devices, &mut wrong);
        self.check_secrets(&mut wrong);
        let refused_creating =
            devices.values().filter(|device| device.state == "rejected" && device.certificates.is_empty());
        if refused_creating.count() as u64 > self.notes.creations_refused {
            wrong.push(String::from(
                "more devices were rejected without a certificate than the service rejected",
            ));
        }
        wrong
    }

    fn check_device(&self, device: &Device, wrong: &mut dyn FnMut(String)) {
        for owned in &device.certificates {
            if let Err(what) = check_pair(&owned.id, &owned.pem, &owned.private_key) {
                wrong(what);
            }
            let known = self.account.certificate(&owned.id);
            if owned.is_retired && known.is_some_and(is_used) {
                wrong(format!("its certificate {} was retired, and is in use in the account", owned.id));
            }
            if (owned.is_retired || device.state == "registered") && owned.token.is_some() {
                wrong(format!("the token of {} is kept without need", owned.id));
            }
        }
        let in_use: Vec<&Owned> = device.certificates.iter().filter(|owned| !owned.is_retired).collect();
        let known = |owned: &Owned| self.account.certificate(&owned.id);
        let is_registered = in_use.iter().any(|owned| known(owned).is_some_and(is_used))
            || self.account.things.contains_key(&device.key);
        let has_cause = device.stage.is_some() && device.cause.is_some() && device.failure.is_some();
        match (device.state.as_str(), &in_use[..]) {
            ("pending", []) if !is_registered => {}
            ("issued", [owned]) if owned.token.is_some() => {
                if device.registration.as_deref() == Some("not_sent") && is_registered {
                    wrong(String::from("its registration was surely not sent, and the account has it"));
                }
            }
            ("registered", [owned]) => self.check_registered(device, owned, wrong),
            ("rejected", [] | [_]) if !is_registered => {
                let refused = |owned: &&Owned| self.registrations(&owned.id).1 > 0;
                if !has_cause {
                    wrong(String::from("rejected without a cause"));
                }
                if !in_use.iter().all(refused) {
                    wrong(String::from("rejected, and the service never did so"));
                }
            }
            ("unknown", [owned]) => {
                if !has_cause {
                    wrong(String::from("unknown without a cause"));
                }
                if self.registrations(&owned.id).0 == 0 && self.cut_off == 0 {
                    wrong(String::from("unknown, and nothing was ever published that could make it so"));
                }
            }
            (state, in_use) => wrong(format!(
                "{state} with {} certificates in use; registered in the account: {is_registered}",
                in_use.len()
            )),
        }
    }

    fn check_registered(&self, device: &Device, owned: &Owned, wrong: &mut dyn FnMut(String)) {
        // A reply that lost its thing name cannot be told from that of a template without a thing, but by the account.
        let is_named = device.thing.as_deref().map(|thing| thing == device.key);
        if !is_named.unwrap_or(!self.names_every_thing) {
            wrong(format!("registered as {:?}", device.thing));
        }
        let Some(thing) = self.account.things.get(&device.key) else {
            return wrong(String::from("registered, and the account has no such thing"));
        };
        if !thing.certificate_ids().map(|id| id.to_string()).eq([owned.id.clone()]) {
            wrong(format!("registered with {}, and its thing has {:?}", owned.id, thing.principals));
        }
        let status = self.account.certificate(&owned.id).map(|certificate| certificate.status);
        if status != Some(CertificateStatus::Active) {
            wrong(format!("registered with {}, which is {status:?}", owned.id));
        }
    }

    /// No two devices have anything that belongs to one.
    fn check_twins(&self, devices: &BTreeMap<i64, Device>, wrong: &mut Wrong) {
        let mut seen = BTreeSet::new();
        let mut owners: BTreeMap<&str, u64> = BTreeMap::new();
        for device in devices.values() {
            let certificates = device.certificates.iter().flat_map(|owned| [&owned.id, &owned.pem]);
            for text in certificates.chain(&device.thing) {
                if !seen.insert(text.clone()) {
                    wrong.push(format!("{}: shares a thing or certificate with another", device.key));
                }
            }
            let keys: BTreeSet<&str> =
                device.certificates.iter().map(|owned| owned.private_key.as_str()).collect();
            keys.into_iter().for_each(|key| *owners.entry(key).or_default() += 1);
        }
        // The ready-made keys go round: one comes again only after all others.
        let most = self.keys_made.div_ceil(READY_KEYS as u64);
        if owners.values().any(|owners| *owners > most) {
            wrong.push(format!("a key belongs to more than {most} devices, of {} keys made", self.keys_made));
        }
    }

    /// Everything in the account is some device's, or about to expire.
    fn check_account(&self, devices: &BTreeMap<i64, Device>, wrong: &mut Wrong) {
        let mut owners: BTreeMap<&str, &Device> = BTreeMap::new();
        for device in devices.values() {
            owners.extend(device.certificates.iter().map(|owned| (owned.id.as_str(), device)));
        }
        let with_token: BTreeSet<_> =
            self.account.tokens.values().map(|token| &token.certificate_id).collect();
        for (id, certificate) in &self.account.certificates {
            // The service deletes an unused certificate together with its token.
            let is_expiring = !is_used(certificate) && with_token.contains(id);
            match owners.get(id.to_string().as_str()) {
                None if !is_expiring => wrong.push(format!("certificate {id} is nobody's, and stays")),
                Some(device) if certificate.things.iter().any(|thing| thing != device.key) => {
                    wrong.push(format!(
                        "{}: its certificate is attached to {:?}",
                        device.key, certificate.things
                    ));
                }
                _ => {}
            }
        }
        let keys: BTreeSet<&String> = devices.values().map(|device| &device.key).collect();
        for (name, thing) in &self.account.things {
            let is_active = |id| {
                self.account.certificates.get(&id).is_some_and(|it| it.status == CertificateStatus::Active)
            };
            if thing.certificate_ids().filter(|id| is_active(*id)).count() > 1 {
                wrong.push(format!("thing {name} has several active certificates"));
            }
            if !keys.contains(name) {
                wrong.push(format!("thing {name} is nobody's"));
            }
        }
    }

    /// No private key and no token in anything that people read.
    fn check_secrets(&self, wrong: &mut Wrong) {
        let texts =
            "SELECT failure FROM device UNION ALL SELECT settings FROM run UNION ALL SELECT summary FROM run
                     UNION ALL SELECT outcome FROM run";
        let mut query = self.ledger.prepare(texts).unwrap();
        let texts = query.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        for text in texts.filter_map(Result::unwrap) {
            if let Some(secret) = find_secret(&text) {
                wrong.push(format!("{secret} in a text of the ledger"));
            }
        }
    }

    /// How often a registration with this certificate was published, and how often refused.
    fn registrations(&self, certificate: &str) -> (u64, u64) {
        self.notes.registrations.get(certificate).map_or((0, 0), |seen| (seen.published, seen.refused))
    }

    fn read_devices(&self) -> BTreeMap<i64, Device> {
        let mut devices = BTreeMap::new();
        let sql = "SELECT id, key, state, registration, thing_name, failure_stage, failure_cause, failure FROM device";
        each(self.ledger, sql, |row| {
            let device = Device {
                key: row.get(1)?,
                state: row.get(2)?,
                registration: row.get(3)?,
                thing: row.get(4)?,
                stage: row.get(5)?,
                cause: row.get(6)?,
                failure: row.get(7)?,
                certificates: Vec::new(),
            };
            devices.insert(row.get(0)?, device);
            Ok(())
        });
        let sql = format!("SELECT {OWNED}, device FROM credential");
        each(self.ledger, &sql, |row| {
            devices.get_mut(&row.get("device")?).unwrap().certificates.push(Owned::read(row)?);
            Ok(())
        });
        devices
    }
}

fn is_used(certificate: &Certificate) -> bool {
    certificate.status != CertificateStatus::PendingActivation || !certificate.things.is_empty()
}

fn each(ledger: &Connection, sql: &str, mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<()>) {
    let mut query = ledger.prepare(sql).unwrap();
    let mut rows = query.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        read(row).unwrap();
    }
}

/// Whether this is the key of this certificate, and this its id.
pub fn check_pair(id: &str, certificate_pem: &str, private_key_pem: &str) -> Result<(), String> {
    let (Some(certificate), Some(_)) = (der(certificate_pem), der(private_key_pem)) else {
        return Err(format!("the certificate {id} or its private key is lost"));
    };
    if hex(digest(&SHA256, &certificate).as_ref()) != id {
        return Err(format!("{id} is not the id of its certificate"));
    }
    let certified = certified_key(&certificate);
    match public_half(private_key_pem) {
        None => Err(format!("the private key of {id} is none")),
        key if key != certified => Err(format!("the private key of {id} belongs to another certificate")),
        _ => Ok(()),
    }
}

fn der(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

/// The public key that a certificate certifies.
fn certified_key(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// The public key of a private one.
fn public_half(pem: &str) -> Option<Vec<u8>> {
    rcgen::KeyPair::from_pem(pem).ok().map(|pair| pair.subject_public_key_info())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What secret a text shows, if any.
pub fn find_secret(text: &str) -> Option<&'static str> {
    // The beginning of every token: {"version":"20191023" in base64.
    let token = "eyJ2ZXJzaW9uIjoiMjAxOTEwMjMi";
    if text.contains("PRIVATE KEY-----") {
        Some("a private key")
    } else if text.contains(token) {
        Some("an ownership token")
    } else {
        None
    }
}
