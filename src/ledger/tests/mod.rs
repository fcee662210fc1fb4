//! The ledger as a whole.

mod changes;
mod crashes;
mod giving_back;
mod importing;
mod keys;
mod mending;
mod merging;
mod opening;
mod sinks;
mod undoing;
mod upgrading;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::call::Call;
use crate::certificate::{
    IssuedCertificate, PreparedKey, RegisteredThing, Secret, SigningRequest, StoredKey,
};
use crate::event::{Change, DeviceId, Registration};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::LotShape;

pub(super) type Rows = std::vec::IntoIter<Result<Identity, Vec<RowError>>>;

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
}

pub(super) fn binding() -> Binding {
    Binding {
        template: String::from("fleet"),
        region: String::from("eu-west-1"),
        account: "123456789012".into(),
        ..Binding::default()
    }
}

/// Row number `rank`, from 1; the header is on line 1.
pub(super) fn identity(rank: u64) -> Identity {
    let key = format!("SN-{rank:07}");
    Identity { line: rank + 1, values: vec![key.clone(), format!("1.{rank}")], key }
}

pub(super) fn lot_of(rows: Vec<Result<Identity, Vec<RowError>>>) -> LotRows<'static, Rows> {
    let columns = vec![String::from("SerialNumber"), String::from("Version")];
    LotRows { source: "lot.csv", shape: LotShape { columns, key_column: 0 }, rows: rows.into_iter() }
}

pub(super) fn lot(devices: u64) -> LotRows<'static, Rows> {
    lot_of((1..=devices).map(identity).map(Ok).collect())
}

pub(super) fn accept(_: &Identity) -> Result<(), Vec<RowError>> {
    Ok(())
}

pub(super) fn import(path: &Path, devices: u64) -> Ledger {
    Ledger::import(path, &binding(), lot(devices), accept, now()).unwrap()
}

pub(super) fn in_memory(devices: u64) -> Ledger {
    Ledger::in_memory(&binding(), lot(devices), accept, now()).unwrap()
}

/// A different certificate for every `number`.
pub(super) fn certificate(number: i64) -> IssuedCertificate {
    IssuedCertificate {
        certificate_id: format!("{number:064x}").try_into().unwrap(),
        certificate_pem: format!("certificate {number}"),
        private_key: Secret::new(format!("key {number}")).into(),
        ownership_token: Secret::new(format!("token {number}")),
    }
}

pub(super) fn failure() -> Failure {
    let after = Duration::from_secs(20);
    Failure::new(Stage::Call(Call::RegisterThing), Cause::NoReply { after })
}

pub(super) fn issued(device: i64) -> Change {
    Change::Issued { device: DeviceId(device), certificate: certificate(device) }
}

pub(super) fn plain(key: &str) -> StoredKey {
    StoredKey::Plain(Secret::new(key.to_owned()))
}

/// A key made here for device number `device`.
pub(super) fn prepared(device: i64) -> Change {
    let request = SigningRequest { pem: format!("request {device}") };
    let key = PreparedKey { private_key: plain(&format!("own key {device}")), request };
    Change::KeyPrepared { device: DeviceId(device), key }
}

pub(super) fn certified(device: i64, number: i64) -> Change {
    Change::Certified { device: DeviceId(device), certificate: certificate(number).map_key(|_| ()) }
}

pub(super) fn registered(device: i64) -> Change {
    let thing = RegisteredThing {
        thing_name: format!("thing-{device}"),
        device_configuration: [(String::from("url"), serde_json::json!("mqtt://x"))].into(),
    };
    Change::Registered { device: DeviceId(device), thing }
}

pub(super) fn rejected(device: i64) -> Change {
    Change::Rejected { device: DeviceId(device), failure: failure() }
}

pub(super) fn unknown(device: i64) -> Change {
    Change::Unknown { device: DeviceId(device), failure: failure() }
}

pub(super) fn lapsed(device: i64) -> Change {
    Change::TokenLapsed { device: DeviceId(device) }
}

pub(super) fn left(device: i64, registration: Registration) -> Change {
    Change::Left { device: DeviceId(device), registration, failure: Some(failure()) }
}

/// The names in a directory, sorted.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A temporary directory, removed after the test, and the path of a ledger in it.
pub(super) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lot.ledger");
    (directory, path)
}

/// The problem with a ledger.
pub(super) fn problem<T>(outcome: Result<T, ImportError>) -> Problem {
    match outcome.err().expect("the ledger is refused") {
        ImportError::Ledger(error) => error.problem,
        rows => panic!("{rows}"),
    }
}
