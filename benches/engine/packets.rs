//! The packets of the exchanges, as bytes: prepared once, so that floor and server need not make any.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use fleetmint::certificate::Secret;
use fleetmint::provisioning::{self, Topics};
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, PubAck, Publish, SubAck, Subscribe};
use rumqttc::mqttbytes::v4::{SubscribeFilter, SubscribeReasonCode};
use rumqttc::mqttbytes::{Protocol, QoS};

pub(crate) const TEMPLATE: &str = "BENCH";
/// Digits that the server counts on in a reply, so that no two are equal.
pub(crate) const DIGITS: usize = 16;
const HOLE: &str = "0000000000000000";

pub(crate) fn topics() -> Topics {
    Topics::new(TEMPLATE)
}

/// A reply with a place where a number goes.
pub(crate) struct Numbered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) holes: Vec<usize>,
}

/// CreateKeysAndCertificate's accepted reply in a PUBLISH: 3.5 KB, with an RSA key. Each certificate has a serial number of its
/// own, so that no two are equal, and the id that goes with it. Its signature does not: nobody verifies it.
pub(crate) struct Issued {
    pub(crate) bytes: Vec<u8>,
    pub(crate) der: Vec<u8>,
    /// Where the id and the serial number's digits in the PEM are.
    pub(crate) id: usize,
    pub(crate) serial: usize,
}

/// Six bytes of the serial number, which are eight digits of base 64, on the first line.
const SERIAL: std::ops::Range<usize> = 18..24;
const CERTIFICATE: &str = include_str!("../../fixtures/issued/rsa.pem");
const KEY: &str = include_str!("../../fixtures/issued/rsa.key");

pub(crate) fn issued() -> Issued {
    let body: String = CERTIFICATE.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).expect("the fixture is PEM");
    let id = "f".repeat(64);
    let reply = serde_json::json!({
        "certificateId": id,
        "certificatePem": CERTIFICATE,
        "privateKey": KEY,
        "certificateOwnershipToken": format!("{HOLE}{}", "ey".repeat(224)),
    });
    let bytes = publish(&topics().create.accepted, reply.to_string().as_bytes(), 1).to_vec();
    let find =
        |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).expect("the reply has it");
    let first_line = b"BEGIN CERTIFICATE-----\\n";
    let serial = find(first_line) + first_line.len() + SERIAL.start / 3 * 4;
    Issued { id: find(id.as_bytes()), serial, der, bytes: bytes.clone() }
}

impl Issued {
    /// The digits of the serial number and of the id of the certificate with this number.
    pub(crate) fn digits(&self, number: u64) -> (String, String) {
        let mut der = self.der.clone();
        der[SERIAL].copy_from_slice(&number.to_be_bytes()[..6]);
        let id = digest(&SHA256, &der);
        (STANDARD.encode(&der[SERIAL]), id.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// RegisterThing's accepted reply in a PUBLISH.
pub(crate) fn registered() -> Numbered {
    let reply = format!(r#"{{"deviceConfiguration":{{}},"thingName":"thing-{HOLE}"}}"#);
    numbered(&topics().register.accepted, &reply)
}

fn numbered(topic: &str, reply: &str) -> Numbered {
    let bytes = publish(topic, reply.as_bytes(), 1).to_vec();
    let holes = bytes.windows(DIGITS).enumerate().filter(|(_, window)| *window == HOLE.as_bytes());
    Numbered { holes: holes.map(|(at, _)| at).collect(), bytes: bytes.clone() }
}

pub(crate) fn create_request() -> Bytes {
    publish(&topics().create.request, &provisioning::create_request().payload, 1)
}

pub(crate) fn register_request() -> Bytes {
    let token = Secret::new(format!("{HOLE}{}", "ey".repeat(224)));
    let values = row(1).into_iter();
    let parameters: Vec<(&str, String)> = COLUMNS.into_iter().zip(values).collect();
    let pairs = parameters.iter().map(|(name, value)| (*name, value.as_str()));
    publish(&topics().register.request, &provisioning::register_request(&token, pairs).payload, 2)
}

/// The columns of the lot that all of this is about.
pub(crate) const COLUMNS: [&str; 7] =
    ["MacAddress", "DeviceId", "DeviceKey", "DeviceType", "Environment", "SerialNumber", "Version"];

/// The lot's `number`th row.
pub(crate) fn row(number: u64) -> Vec<String> {
    let serial = format!("{number:012}");
    let id = format!("TWOK_{number:010}");
    ["AA:BB:CC:DD:EE:01", &id, "ABCDEFG", "H", "DEV", &serial, "1.0.1"].map(String::from).to_vec()
}

pub(crate) fn connect() -> Bytes {
    let connect = Connect {
        protocol: Protocol::V4,
        keep_alive: 30,
        client_id: String::from("floor"),
        clean_session: true,
        last_will: None,
        login: None,
    };
    written(|out| connect.write(out))
}

pub(crate) fn connack() -> Bytes {
    let ack = ConnAck { session_present: false, code: ConnectReturnCode::Success };
    written(|out| ack.write(out))
}

pub(crate) fn subscribe() -> Bytes {
    let topics = topics();
    let paths =
        [topics.create.accepted, topics.create.rejected, topics.register.accepted, topics.register.rejected];
    let filter = |path| SubscribeFilter { path, qos: QoS::AtLeastOnce };
    let subscribe = Subscribe { pkid: 1, filters: paths.into_iter().map(filter).collect() };
    written(|out| subscribe.write(out))
}

pub(crate) fn suback() -> Bytes {
    let code = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    written(|out| SubAck { pkid: 1, return_codes: vec![code; 4] }.write(out))
}

pub(crate) fn puback(id: u16) -> Bytes {
    written(|out| PubAck { pkid: id }.write(out))
}

fn publish(topic: &str, payload: &[u8], id: u16) -> Bytes {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    publish.pkid = id;
    written(|out| publish.write(out))
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut BytesMut) -> Result<usize, E>) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out).expect("a packet of this size can be written");
    out.freeze()
}
