//! What an account and a ledger show when they are laid side by side. Shares nothing with what a run counts or reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use fleetmint::emulator::account::{CertificateStatus, State};
use rusqlite::{Connection, OpenFlags};
use x509_parser::prelude::*;

/// A device of the ledger, with its certificate in use.
struct Row {
    device_id: String,
    state: String,
    thing_name: Option<String>,
    certificate_id: Option<String>,
    pem: Option<String>,
    key: Option<String>,
}

/// Asserts that every device of the lot became exactly one thing with exactly one active certificate, whose key the ledger
/// has, and that no certificate is unexplained. The lot is the harness's: the template names each thing after its DeviceId.
#[track_caller]
pub fn every_device_once(ledger: &Path, account: &State, devices: usize) {
    every_device_once_sealed(ledger, account, devices, |key| key);
}

/// The same of a ledger whose keys `open` makes readable.
#[track_caller]
pub fn every_device_once_sealed(
    ledger: &Path,
    account: &State,
    devices: usize,
    open: impl Fn(String) -> String,
) {
    let mut rows = read(ledger);
    rows.iter_mut().for_each(|row| row.key = row.key.take().map(&open));
    let expected: BTreeSet<String> = (1..=devices).map(|n| format!("DEVICE_{n:06}")).collect();
    let found: BTreeSet<String> = rows.iter().map(|row| row.device_id.clone()).collect();
    assert_eq!(rows.len(), devices, "the ledger has every row once");
    assert!(found == expected, "the ledger has the rows of the lot");
    let things: BTreeSet<String> = account.things.keys().cloned().collect();
    assert!(things == expected, "{} things for {devices} devices", things.len());
    for row in &rows {
        check_device(row, account);
    }
    let keys: BTreeSet<_> = rows.iter().map(|row| &row.key).collect();
    assert_eq!(keys.len(), devices, "no two devices share a key");
    every_certificate_is_explained(ledger, account);
}

/// Asserts that the account holds no certificate that the ledger does not know, but such as wait in vain to be registered
/// and are attached to nothing: the service deletes those after an hour.
#[track_caller]
pub fn every_certificate_is_explained(ledger: &Path, account: &State) {
    let known: BTreeSet<String> =
        crate::harness::column(ledger, "SELECT certificate_id FROM certificate").into_iter().collect();
    for (id, certificate) in &account.certificates {
        assert!(certificate.things.len() <= 1, "{id} is attached to {:?}", certificate.things);
        if !known.contains(&id.to_string()) {
            assert_eq!(certificate.status, CertificateStatus::PendingActivation, "{id} is unexplained");
            assert!(certificate.things.is_empty() && certificate.policies.is_empty(), "{id} is unexplained");
        }
    }
}

#[track_caller]
fn check_device(row: &Row, account: &State) {
    let name = &row.device_id;
    assert_eq!(row.state, "registered", "{name}");
    assert_eq!(row.thing_name.as_ref(), Some(name), "the recorded thing");
    let (Some(id), Some(pem), Some(key)) = (&row.certificate_id, &row.pem, &row.key) else {
        panic!("{name} is {} and has no certificate", row.state)
    };
    let thing = &account.things[name];
    let principals: Vec<String> = thing.certificate_ids().map(|id| id.to_string()).collect();
    assert_eq!(principals, [id.as_str()], "{name} has the recorded certificate alone");
    let certificate = account.certificate(id).expect("the account has the recorded certificate");
    assert_eq!(certificate.status, CertificateStatus::Active, "{name}'s certificate");
    assert_eq!(
        certificate.things.iter().collect::<Vec<_>>(),
        [name.as_str()],
        "{name}'s certificate is its own"
    );
    assert_eq!(certificate.pem.to_string(), **pem, "{name}'s certificate as it was issued");
    key_matches(id, pem, key);
}

/// Real cryptography: the key's public half is the certificate's, and the certificate is the one of that id.
#[track_caller]
pub fn key_matches(id: &str, pem: &str, key: &str) {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let hash: String =
        digest(&SHA256, &pem.contents).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, id, "the id is the certificate's hash");
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let (_, key) = parse_x509_pem(key.as_bytes()).unwrap();
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.contents).unwrap();
    assert_eq!(
        key.public_key().as_ref(),
        certificate.public_key().subject_public_key.data.as_ref(),
        "{id} and its key"
    );
}

/// How many devices are in each state, for the test's log.
pub fn states(ledger: &Path) -> BTreeMap<String, usize> {
    read(ledger).into_iter().fold(BTreeMap::new(), |mut states, row| {
        *states.entry(row.state).or_default() += 1;
        states
    })
}

fn read(ledger: &Path) -> Vec<Row> {
    let db = Connection::open_with_flags(ledger, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = db
        .prepare(
            "SELECT json_extract(parameter_values, '$[0]'), state, thing_name, certificate_id, certificate_pem, private_key
             FROM device LEFT JOIN certificate ON certificate.device = device.id AND retired_at IS NULL",
        )
        .unwrap();
    let rows = query.query_map([], |row| {
        Ok(Row {
            device_id: row.get(0)?,
            state: row.get(1)?,
            thing_name: row.get(2)?,
            certificate_id: row.get(3)?,
            pem: row.get(4)?,
            key: row.get(5)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}
