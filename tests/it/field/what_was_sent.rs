//! Keys and certificates that the service made: nothing of what it sends is taken at its word.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fleetmint::call::Call;
use fleetmint::certificate::StoredKey;
use fleetmint::emulator::mint::Authority;
use fleetmint::emulator::scenario::Keys;
use fleetmint::engine::{self, Connections, End, Outcome, Plan, Rates, Stop};
use fleetmint::event::DialPhases;
use fleetmint::failure::{Failure, RetryPolicy};
use fleetmint::identity::{LotReader, ParameterPlan};
use fleetmint::ledger::{Binding, Ledger, LedgerError, LotRows, Selection};
use fleetmint::transport::{Connection, Connector, Dial, Lost, Patience, Reply, Verdict};
use serde_json::{Value, json};

const OTHER_RSA_KEY: &str = include_str!("../../../fixtures/issued/rsa-other.key");
const EC_KEY: &str = include_str!("../../../fixtures/issued/p256.key");
const OTHER_CERTIFICATE: &str = include_str!("../../../fixtures/issued/rsa.pem");

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::generate().unwrap());

/// A change that makes an honest reply a lie.
type Lie = fn(&mut Value);

/// A service that tells its lies first, one a certificate, and is honest from then on.
#[derive(Clone)]
struct Liar {
    lies: Arc<Mutex<VecDeque<Lie>>>,
    dials: Arc<Mutex<u32>>,
}

impl Connector for Liar {
    type Connection = Self;

    async fn dial(&self) -> Dial<Self> {
        *self.dials.lock().unwrap() += 1;
        Dial { phases: DialPhases::default(), outcome: Ok(self.clone()) }
    }
}

impl Connection for Liar {
    async fn exchange(self, call: Call, payload: Bytes, _: impl Patience) -> Result<(Reply, Self), Lost> {
        let reply = if call == Call::RegisterThing {
            let request: Value = serde_json::from_slice(&payload).unwrap();
            json!({ "thingName": request["parameters"]["DeviceId"] })
        } else {
            let minted = AUTHORITY.mint(Keys::Recycled, SystemTime::now()).unwrap();
            let mut reply = json!({
                "certificateId": minted.certificate_id,
                "certificatePem": minted.certificate_pem,
                "privateKey": minted.private_key_pem.expose(),
                "certificateOwnershipToken": minted.certificate_id,
            });
            if let Some(lie) = self.lies.lock().unwrap().pop_front() {
                lie(&mut reply);
            }
            reply
        };
        let payload = Bytes::from(reply.to_string());
        let service = Duration::from_millis(1);
        Ok((Reply { verdict: Verdict::Accepted, payload, service, redelivered: 0 }, self))
    }

    async fn idle(&mut self) -> Failure {
        std::future::pending().await
    }

    async fn close(self) {}
}

/// A run over one device, whose certificate comes after these lies; and how many connections it took.
async fn provision(lies: &[Lie]) -> (Outcome, u32) {
    let liar = Liar { lies: Arc::new(Mutex::new(lies.iter().copied().collect())), dials: Arc::default() };
    let reader = LotReader::new("DeviceId\nD1\n".as_bytes(), None).unwrap();
    let shape = reader.shape().clone();
    let parameters = ParameterPlan::new(&shape, &[]).unwrap();
    let binding =
        Binding { template: "T".into(), region: "r".into(), account: "a".into(), ..Binding::default() };
    let rows = LotRows { source: "lot.csv", shape, rows: reader };
    let ledger = Ledger::in_memory(&binding, rows, |_| Ok(()), SystemTime::now()).unwrap();
    let plan = Plan {
        connections: Connections::Fixed(1),
        rates: Rates::UNLIMITED,
        publishes_per_connection: None,
        parameters,
        exchange_timeout: Duration::from_secs(1),
        retry: RetryPolicy { base: Duration::ZERO, attempts: 40, ..RetryPolicy::default() },
        failure_budget: 1,
        seed: 1,
        ..Plan::default()
    };
    let outcome = engine::run(plan, liar.clone(), ledger, Stop::never(), ()).await;
    let dials = *liar.dials.lock().unwrap();
    (outcome, dials)
}

fn set(reply: &mut Value, field: &str, change: impl FnOnce(&str) -> String) {
    reply[field] = change(reply[field].as_str().unwrap()).into();
}

/// Every lie costs a connection and a certificate, and what is registered in the end is sound.
async fn assert_refused(lies: &[Lie], said: &str) {
    let (outcome, dials) = provision(lies).await;
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    let garbled = &outcome.metrics.failures[&("create_certificate", "garbled")];
    assert_eq!((garbled.count, dials), (lies.len() as u64, lies.len() as u32 + 1));
    assert!(garbled.example.to_string().contains(said), "{}", garbled.example);
    let mut kept = Vec::new();
    let keep = |device: fleetmint::ledger::CertifiedDevice| {
        kept.push(device);
        Ok::<_, LedgerError>(())
    };
    outcome.ledger.view().for_each_certified(&Selection::default(), keep).unwrap();
    let [device] = &kept[..] else { panic!("{kept:?}") };
    let StoredKey::Plain(key) = &device.private_key else { panic!("{:?}", device.private_key) };
    let evidence = fleetmint::certificate::Evidence::of(&device.certificate_pem).unwrap();
    assert!(evidence.has_id(&device.certificate_id) && evidence.check_key(key).is_ok());
}

/// Whoever builds the devices: such a device is paid for, shipped, and never connects.
#[tokio::test]
async fn a_key_of_another_certificate_is_not_taken() {
    let lies: [Lie; 3] = [
        |reply| reply["privateKey"] = OTHER_RSA_KEY.into(),
        |reply| reply["privateKey"] = EC_KEY.into(),
        |reply| reply["certificatePem"] = OTHER_CERTIFICATE.into(),
    ];
    assert_refused(&lies, "privateKey is not the private key of the certificate").await;
}

/// The same people; a sibling: a key that was cut on its way, or is no key at all.
#[tokio::test]
async fn a_key_that_does_not_parse_is_not_taken() {
    let lies: [Lie; 3] = [
        |reply| set(reply, "privateKey", |key| key.replacen("MII", "MIJ", 1)),
        |reply| {
            set(reply, "privateKey", |key| {
                [&key[..key.len() / 2], "\n-----END RSA PRIVATE KEY-----\n"].concat()
            })
        },
        |reply| set(reply, "privateKey", |key| key.replace("RSA PRIVATE", "ENCRYPTED PRIVATE")),
    ];
    assert_refused(&lies, "privateKey does not parse as a private key").await;
}

/// Whoever revokes or looks for a certificate by its id, and finds another one or none.
#[tokio::test]
async fn an_id_of_another_certificate_is_not_taken() {
    let lies: [Lie; 2] = [
        |reply| reply["certificateId"] = "0".repeat(64).into(),
        |reply| set(reply, "certificateId", |id| id.chars().rev().collect()),
    ];
    assert_refused(&lies, "certificateId is not the SHA-256 of the certificate").await;
}

/// Whoever parses the export with a stricter library, or with one that takes the last certificate of a file.
#[tokio::test]
async fn text_or_a_certificate_after_the_certificate_is_not_taken() {
    assert_refused(
        &[|reply| set(reply, "certificatePem", |pem| pem.to_owned() + "# x")],
        "has text after its END line",
    )
    .await;
    let lies: [Lie; 2] = [
        |reply| set(reply, "certificatePem", |pem| pem.to_owned() + OTHER_CERTIFICATE),
        |reply| set(reply, "privateKey", |key| key.to_owned() + OTHER_RSA_KEY),
    ];
    assert_refused(&lies, "certificatePem has a second PEM block").await;
}
