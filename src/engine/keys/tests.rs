//! The engine with keys of both kinds, against a scripted service.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rcgen::{CertificateParams, Issuer, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::*;
use crate::call::Call;
use crate::certificate::{IssuedCertificate, SigningRequest, samples};
use crate::engine::{Clock, Connections, End, Outcome, Plan, Rates, Stop, run};
use crate::event::{Change, DeviceId, DialPhases, Registration};
use crate::failure::{Cause, Failure, RetryPolicy, Stage};
use crate::identity::{Identity, LotShape, ParameterPlan, RowError};
use crate::ledger::{Binding, Ledger, LedgerError, LotRows, Work};
use crate::sealing::KeyOpener;
use crate::transport::{Connection, Connector, Dial, Lost, Patience, Reply, Verdict};

/// What the service does with a request for a certificate instead of answering it.
#[derive(Debug, Clone, Copy)]
enum Trick {
    /// Certifies some other key.
    OtherKey,
    /// Sends the private key along.
    PrivateKeyToo,
    /// Sends something that is not a certificate.
    NoCertificate,
    /// Acts, but does not answer.
    Silence,
    /// Refuses for good.
    Refuse,
}

#[derive(Default)]
struct State {
    tricks: VecDeque<Trick>,
    requests: Vec<(Call, Value)>,
    dials: u32,
    issued: u64,
    /// The ledger to look into when a request comes.
    ledger: Option<PathBuf>,
}

#[derive(Clone, Default)]
struct Service(Arc<Mutex<State>>);

struct ServiceConnection(Service);

impl Service {
    fn with_tricks(tricks: impl IntoIterator<Item = Trick>) -> Self {
        let service = Self::default();
        service.0.lock().unwrap().tricks = tricks.into_iter().collect();
        service
    }

    /// The signing requests received, in order.
    fn signing_requests(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let of_csr = state.requests.iter().filter(|(call, _)| *call == Call::CreateCertificateFromCsr);
        of_csr.map(|(_, request)| request["certificateSigningRequest"].as_str().unwrap().to_owned()).collect()
    }

    fn count(&self, wanted: Call) -> usize {
        self.0.lock().unwrap().requests.iter().filter(|(call, _)| *call == wanted).count()
    }

    fn answer(&self, call: Call, request: &Value) -> Result<(Verdict, Value), Cause> {
        let mut state = self.0.lock().unwrap();
        state.requests.push((call, request.clone()));
        if call == Call::RegisterThing {
            let name = format!("thing-{}", request["parameters"]["Key"].as_str().unwrap());
            return Ok((Verdict::Accepted, json!({ "thingName": name })));
        }
        state.issued += 1;
        let mut reply = samples::reply(state.issued);
        let certify_with = |reply: &mut Value, request: &str| {
            let certificate = certify(request);
            reply["certificateId"] = samples::id_of(&certificate).as_str().into();
            reply["certificatePem"] = certificate.into();
        };
        if call != Call::CreateKeysAndCertificate {
            let pem = request["certificateSigningRequest"].as_str().unwrap();
            state.ledger.as_deref().inspect(|ledger| assert_durable(ledger, pem));
            certify_with(&mut reply, pem);
            reply.as_object_mut().unwrap().remove("privateKey");
        }
        match state.tricks.pop_front() {
            None => {}
            Some(Trick::OtherKey) => {
                let other = keys::prepare(KeyType::P256).unwrap();
                certify_with(&mut reply, &other.request.pem);
            }
            Some(Trick::PrivateKeyToo) => reply["privateKey"] = samples::PRIVATE_KEY.into(),
            Some(Trick::NoCertificate) => {
                reply["certificatePem"] =
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into();
            }
            Some(Trick::Silence) => return Err(Cause::NoReply { after: Duration::from_secs(1) }),
            Some(Trick::Refuse) => return Ok((Verdict::Rejected, json!({"statusCode": 400}))),
        }
        Ok((Verdict::Accepted, reply))
    }
}

/// A text that occurs only in a private key that the service made.
fn secret() -> &'static str {
    samples::PRIVATE_KEY.lines().nth(1).unwrap()
}

/// Checks that a request is in the ledger before it is sent.
fn assert_durable(ledger: &Path, request: &str) {
    let view = Ledger::open_read_only(ledger).unwrap();
    let is_it = |work: &Work| matches!(work, Work::Certify { request: held } if held.pem == request);
    let open = view.open_devices(None, 99).unwrap();
    assert!(open.iter().any(|device| is_it(&device.work)), "a request was sent whose key could be lost");
}

impl Connector for Service {
    type Connection = ServiceConnection;

    async fn dial(&self) -> Dial<ServiceConnection> {
        self.0.lock().unwrap().dials += 1;
        Dial { phases: DialPhases::default(), outcome: Ok(ServiceConnection(self.clone())) }
    }
}

impl Connection for ServiceConnection {
    async fn exchange(self, call: Call, payload: Bytes, _: impl Patience) -> Result<(Reply, Self), Lost> {
        let request = serde_json::from_slice(&payload).unwrap();
        let service = Duration::from_millis(1);
        match self.0.answer(call, &request) {
            Ok((verdict, payload)) => {
                let payload = Bytes::from(payload.to_string());
                Ok((Reply { verdict, payload, service, redelivered: 0 }, self))
            }
            Err(cause) => {
                let failure = Failure::new(Stage::Call(Call::CreateCertificateFromCsr), cause);
                Err(Lost { failure, service, redelivered: 0 })
            }
        }
    }

    async fn idle(&mut self) -> Failure {
        std::future::pending().await
    }

    async fn close(self) {}
}

/// The public key of a request, for rcgen to certify.
struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        // A P-256 point is 65 bytes.
        if self.0.len() == 65 { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_RSA_SHA256 }
    }
}

fn certify(request: &str) -> String {
    let (_, pem) = parse_x509_pem(request.as_bytes()).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    let key = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
    let issuer = Issuer::new(CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
    CertificateParams::default().signed_by(&RequestedKey(key), &issuer).unwrap().pem()
}

type Rows = std::vec::IntoIter<Result<Identity, Vec<RowError>>>;

fn lot(devices: u64) -> LotRows<'static, Rows> {
    let identity = |rank: u64| {
        let key = format!("SN{rank}");
        Ok(Identity { line: rank + 1, values: vec![key.clone()], key })
    };
    let shape = LotShape { columns: vec![String::from("Key")], key_column: 0 };
    LotRows { source: "lot.csv", shape, rows: (1..=devices).map(identity).collect::<Vec<_>>().into_iter() }
}

fn binding() -> Binding {
    Binding { template: "t".into(), region: "r".into(), account: "a".into(), ..Binding::default() }
}

fn import(path: &Path, devices: u64) -> Ledger {
    Ledger::import(path, &binding(), lot(devices), |_| Ok(()), now()).unwrap()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn local(key_type: KeyType) -> KeyPolicy {
    KeyPolicy { source: KeySource::Local(key_type), ..KeyPolicy::default() }
}

async fn provision(service: &Service, ledger: Ledger, keys: KeyPolicy) -> Outcome {
    let plan = Plan {
        connections: Connections::Fixed(3),
        rates: Rates::UNLIMITED,
        publishes_per_connection: None,
        parameters: ParameterPlan::new(&lot(1).shape, &[]).unwrap(),
        keys,
        exchange_timeout: Duration::from_secs(1),
        retry: RetryPolicy { base: Duration::ZERO, ..RetryPolicy::default() },
        token_lifetime: Duration::from_secs(3600),
        certificate_lifetime: Duration::from_secs(4_000),
        clock: Clock::new(now),
        seed: 1,
        ..Plan::default()
    };
    run(plan, service.clone(), ledger, Stop::never(), ()).await
}

/// Keys and certificates of the registered devices.
fn registered(ledger: &Ledger) -> Vec<(StoredKey, String)> {
    let mut devices = Vec::new();
    let keep = |device: crate::ledger::CertifiedDevice| {
        devices.push((device.private_key, device.certificate_pem));
        Ok::<_, LedgerError>(())
    };
    ledger.view().for_each_certified(&crate::ledger::Selection::default(), keep).unwrap();
    devices
}

fn assert_matches(key: &Secret<String>, certificate: &str) {
    let pair = rcgen::KeyPair::from_pem(key.expose()).unwrap();
    let request = CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    keys::check_certificate(&SigningRequest { pem: request }, certificate).unwrap();
}

#[tokio::test]
async fn keys_made_here_are_durable_before_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lot.ledger");
    for (key_type, devices) in [(KeyType::P256, 9), (KeyType::Rsa2048, 3)] {
        let service = Service::default();
        service.0.lock().unwrap().ledger = Some(path.clone());
        let outcome = provision(&service, import(&path, devices), local(key_type)).await;
        assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
        let found = registered(&outcome.ledger);
        assert_eq!(found.len() as u64, devices);
        for (key, certificate) in &found {
            let StoredKey::Plain(key) = key else { panic!("{key:?}") };
            assert_matches(key, certificate);
        }
        let mut requests = service.signing_requests();
        requests.sort();
        requests.dedup();
        assert_eq!(
            (requests.len() as u64, service.count(Call::CreateKeysAndCertificate)),
            (devices, 0),
            "a key each"
        );
        drop(outcome);
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_key_is_an_anomaly_and_the_key_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_tricks([Trick::OtherKey, Trick::NoCertificate]);
    let ledger = import(&directory.path().join("lot.ledger"), 1);
    let outcome = provision(&service, ledger, local(KeyType::P256)).await;
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    let requests = service.signing_requests();
    assert!(requests.len() == 3 && requests.iter().all(|request| *request == requests[0]));
    assert_eq!(service.0.lock().unwrap().dials, 3, "a connection with an anomaly is not used again");
    for cause in ["anomaly", "garbled"] {
        assert_eq!(outcome.metrics.failures[&("create_certificate_from_csr", cause)].count, 1, "{cause}");
    }
    let counts = outcome.metrics.operation(crate::event::Operation::CreateCertificate).counts;
    assert_eq!((counts.attempts, counts.accepted, counts.dropped), (3, 1, 2));
}

#[tokio::test]
async fn a_private_key_in_the_wrong_reply_is_refused_and_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_tricks([Trick::PrivateKeyToo]);
    let ledger = import(&directory.path().join("lot.ledger"), 1);
    let outcome = provision(&service, ledger, local(KeyType::P256)).await;
    let garbled = &outcome.metrics.failures[&("create_certificate_from_csr", "garbled")];
    assert!(!format!("{garbled:?}").contains(secret()));
    assert_eq!(registered(&outcome.ledger).len(), 1);
}

#[tokio::test]
async fn a_device_keeps_its_key_through_runs_of_either_kind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lot.ledger");
    // As after a crash between the commit of a key and its request.
    let mut ledger = import(&path, 4);
    let own = keys::prepare(KeyType::P256).unwrap();
    let request = own.request.pem.clone();
    let prepared = PreparedKey { private_key: own.private_key.clone().into(), request: own.request };
    ledger.commit(vec![Change::KeyPrepared { device: DeviceId(2), key: prepared }], now()).unwrap();
    drop(ledger);
    let service = Service::default();
    let ledger = Ledger::resume(&path, &binding(), lot(4), |_| Ok(()), now()).unwrap();
    let outcome = provision(&service, ledger, KeyPolicy::default()).await;
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    assert_eq!(
        (service.signing_requests(), service.count(Call::CreateKeysAndCertificate)),
        (vec![request], 3)
    );
    assert_eq!(registered(&outcome.ledger)[1].0, StoredKey::Plain(own.private_key));
}

#[tokio::test]
async fn a_lost_reply_asks_for_the_same_key_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_tricks([Trick::Silence, Trick::Silence]);
    let ledger = import(&directory.path().join("lot.ledger"), 1);
    let outcome = provision(&service, ledger, local(KeyType::P256)).await;
    let requests = service.signing_requests();
    assert!(requests.len() == 3 && requests.iter().all(|request| *request == requests[0]));
    assert_eq!(registered(&outcome.ledger).len(), 1);
}

#[tokio::test]
async fn a_stale_certificate_is_replaced_and_its_key_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = import(&directory.path().join("lot.ledger"), 1);
    let own = keys::prepare(KeyType::P256).unwrap();
    let request = own.request.pem.clone();
    let key = PreparedKey { private_key: own.private_key.into(), request: own.request };
    let certificate = IssuedCertificate {
        certificate_id: "f".repeat(64).try_into().unwrap(),
        certificate_pem: certify(&request),
        private_key: (),
        ownership_token: Secret::new(String::from("stale")),
    };
    let device = DeviceId(1);
    let changes = vec![
        Change::KeyPrepared { device, key },
        Change::Certified { device, certificate },
        Change::Left { device, registration: Registration::NotSent, failure: None },
    ];
    ledger.commit(changes, now() - Duration::from_secs(4000)).unwrap();
    let service = Service::default();
    let outcome = provision(&service, ledger, KeyPolicy::default()).await;
    assert_eq!(
        (service.signing_requests(), service.count(Call::CreateKeysAndCertificate)),
        (vec![request], 0)
    );
    assert_eq!(registered(&outcome.ledger).len(), 1);
}

#[tokio::test]
async fn a_refused_request_rejects_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_tricks([Trick::Refuse]);
    let ledger = import(&directory.path().join("lot.ledger"), 1);
    let outcome = provision(&service, ledger, local(KeyType::P256)).await;
    assert_eq!(outcome.ledger.view().counts().unwrap().rejected, 1);
    let refused = &outcome.metrics.failures[&("create_certificate_from_csr", "rejected")].example;
    assert!(refused.to_string().starts_with("CreateCertificateFromCsr: rejected with 400"), "{refused}");
    assert!(refused.hint().contains("another type of key"), "{}", refused.hint());
}

#[tokio::test]
async fn keys_are_sealed_before_the_ledger_gets_them() {
    let identity = age_identity();
    for source in [KeySource::Service, KeySource::Local(KeyType::P256)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lot.ledger");
        let policy =
            KeyPolicy { source, seal_to: Some(Sealer::new(&[&identity.1]).unwrap()), ..KeyPolicy::default() };
        let service = Service::default();
        let outcome = provision(&service, import(&path, 5), policy).await;
        assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
        let mut opener = KeyOpener::plain_only();
        opener.add_identities(identity.0.as_bytes()).unwrap();
        for (key, certificate) in registered(&outcome.ledger) {
            let opened = opener.open(&key).unwrap().text;
            match source {
                KeySource::Service => assert!(opened.expose().contains(secret())),
                KeySource::Device => unreachable!("neither of the two"),
                KeySource::Local(_) => assert_matches(&opened, &certificate),
            }
        }
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for plain in [b"PRIVATE KEY", secret().as_bytes()] {
                assert!(!bytes.windows(plain.len()).any(|window| window == plain));
            }
        }
    }
}

/// An identity of its own for the tests, and its recipient, as `age-keygen` printed them.
fn age_identity() -> (&'static str, &'static str) {
    (
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
        "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
    )
}
