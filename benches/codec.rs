//! What the bytes of one device cost: building its requests, parsing its replies, and the MQTT packets around them;
//! beside `serde_json::Value`, which most scripts use.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fleetmint::certificate::{Secret, SigningRequest};
use fleetmint::provisioning;
use rumqttc::QoS;
use rumqttc::mqttbytes::check;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish};

const PARAMETERS: [(&str, &str); 7] = [
    ("MacAddress", "AA:BB:CC:DD:EE:01"),
    ("DeviceId", "TWOK_9999999999"),
    ("DeviceKey", "ABCDEFG"),
    ("DeviceType", "H"),
    ("Environment", "DEV"),
    ("SerialNumber", "123456789012"),
    ("Version", "1.0.1"),
];

fn requests(c: &mut Criterion) {
    let request = SigningRequest { pem: pem("CERTIFICATE REQUEST", 6) };
    let mut group = c.benchmark_group("build a CreateCertificateFromCsr request");
    group.throughput(Throughput::Bytes(provisioning::csr_request(&request).payload.len() as u64));
    group.bench_function("fleetmint", |bencher| {
        bencher.iter(|| provisioning::csr_request(black_box(&request)));
    });
    group.bench_function("serde_json::Value", |bencher| {
        bencher
            .iter(|| serde_json::json!({"certificateSigningRequest": black_box(&request.pem)}).to_string());
    });
    group.finish();

    let token = Secret::new("t".repeat(464));
    let mut group = c.benchmark_group("build a RegisterThing request");
    let size = provisioning::register_request(&token, PARAMETERS).payload.len();
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_function("fleetmint", |bencher| {
        bencher.iter(|| provisioning::register_request(black_box(&token), PARAMETERS));
    });
    group.bench_function("serde_json::Value", |bencher| {
        bencher.iter(|| register_by_value(black_box(token.expose())));
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let issued = issued();
    let registered = br#"{"deviceConfiguration":{},"thingName":"TWOK_9999999999"}"#.as_slice();
    let rejected =
        br#"{"statusCode":429,"errorCode":"TooManyRequests","errorMessage":"Rate exceeded"}"#.as_slice();
    let mut group = c.benchmark_group("parse a reply");
    for (name, payload) in [("issued", issued.as_bytes()), ("registered", registered), ("rejected", rejected)]
    {
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("{name}/fleetmint"), |bencher| {
            bencher.iter(|| match name {
                "issued" => drop(black_box(provisioning::parse_issued(payload))),
                "registered" => drop(black_box(provisioning::parse_registered(payload))),
                _ => drop(black_box(provisioning::parse_rejected(payload))),
            });
        });
        group.bench_function(format!("{name}/serde_json::Value"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(payload)));
        });
    }
    group.finish();
}

fn packets(c: &mut Criterion) {
    let payload = Bytes::from(issued());
    let mut publish =
        Publish::from_bytes("$aws/certificates/create/json/accepted", QoS::AtLeastOnce, payload);
    publish.pkid = 7;
    let mut encoded = BytesMut::new();
    publish.write(&mut encoded).expect("a packet of this size can be written");
    let mut group = c.benchmark_group("MQTT PUBLISH of an issued certificate");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("encode", |bencher| {
        let mut buffer = BytesMut::with_capacity(8192);
        bencher.iter(|| {
            buffer.clear();
            publish.write(&mut buffer)
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(
            || encoded.clone(),
            |mut bytes| Packet::read(&mut bytes, 1 << 20),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// All that is encoded and decoded for one device: two requests, their PUBACKs, two replies, our PUBACKs.
fn whole_device(c: &mut Criterion) {
    let from_server = FromServer::new();
    let mut group = c.benchmark_group("the codec path of one device");
    group.throughput(Throughput::Bytes(from_server.bytes() as u64));
    group.bench_function("fleetmint", |bencher| {
        bencher.iter(|| {
            from_server.exchange("$aws/certificates/create/json", provisioning::create_request().payload, 0);
            let payload = from_server.payload(&from_server.issued);
            let issued = provisioning::parse_issued(&payload).expect("a valid reply");
            let request = provisioning::register_request(&issued.ownership_token, PARAMETERS).payload;
            from_server.exchange("$aws/provisioning-templates/T/provision/json", request, 1);
            let payload = from_server.payload(&from_server.registered);
            (issued, provisioning::parse_registered(&payload).expect("a valid reply"))
        });
    });
    group.bench_function("serde_json::Value", |bencher| {
        bencher.iter(|| {
            from_server.exchange("$aws/certificates/create/json", Bytes::from_static(b"{}"), 0);
            let payload = from_server.payload(&from_server.issued);
            let issued: serde_json::Value = serde_json::from_slice(&payload).expect("a valid reply");
            let token = issued["certificateOwnershipToken"].as_str().expect("a token");
            let request = Bytes::from(register_by_value(token));
            from_server.exchange("$aws/provisioning-templates/T/provision/json", request, 1);
            let payload = from_server.payload(&from_server.registered);
            let registered: serde_json::Value = serde_json::from_slice(&payload).expect("a valid reply");
            (issued, registered)
        });
    });
    group.finish();
}

/// What the server sends, as packets.
struct FromServer {
    puback: BytesMut,
    issued: Bytes,
    registered: Bytes,
}

impl FromServer {
    fn new() -> Self {
        let publish = |topic: &str, payload: Vec<u8>| {
            let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload.into());
            publish.pkid = 7;
            let mut out = BytesMut::new();
            publish.write(&mut out).expect("a packet of this size can be written");
            out.freeze()
        };
        let registered = br#"{"deviceConfiguration":{},"thingName":"TWOK_9999999999"}"#.to_vec();
        Self {
            puback: BytesMut::from(&[0x40, 2, 0, 1][..]),
            issued: publish("$aws/certificates/create/json/accepted", issued().into_bytes()),
            registered: publish("$aws/provisioning-templates/T/provision/json/accepted", registered),
        }
    }

    fn bytes(&self) -> usize {
        2 * self.puback.len() + self.issued.len() + self.registered.len()
    }

    /// Encodes a request with the PUBACK before it, and decodes the PUBACK for it.
    fn exchange(&self, topic: &str, payload: Bytes, id: u16) -> BytesMut {
        let mut out = BytesMut::new();
        PubAck { pkid: 7 }.write(&mut out).expect("a packet of this size can be written");
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload);
        publish.pkid = id + 1;
        publish.write(&mut out).expect("a packet of this size can be written");
        black_box(Packet::read(&mut self.puback.clone(), 1 << 20).expect("a PUBACK"));
        out
    }

    /// Decodes a reply.
    fn payload(&self, packet: &Bytes) -> Bytes {
        let header = check(packet.iter(), 1 << 20).expect("a whole packet");
        Publish::read(header, packet.clone()).expect("a PUBLISH").payload
    }
}

fn register_by_value(token: &str) -> String {
    let parameters: serde_json::Map<String, serde_json::Value> =
        PARAMETERS.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
    serde_json::json!({"certificateOwnershipToken": token, "parameters": parameters}).to_string()
}

fn pem(label: &str, lines: usize) -> String {
    let body =
        format!("{}\n", "MIIDWTCCAkGgAwIBAgIUJ2Zk0x8m3QvXl5l6Y1c9bN7hQkEwDQYJKoZIhvcNAQEL").repeat(lines);
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

/// An accepted reply of CreateKeysAndCertificate, of about the size that the service sends.
fn issued() -> String {
    serde_json::json!({
        // `openssl x509 -in rsa.pem -outform der | sha256sum`
        "certificateId": "310abfb620d4ed5b94410bc3ff786c934abd673aa708fefbcb8fff16deb6a425",
        "certificatePem": include_str!("../fixtures/issued/rsa.pem"),
        "privateKey": include_str!("../fixtures/issued/rsa.key"),
        "certificateOwnershipToken": "ey".repeat(232),
    })
    .to_string()
}

criterion_group!(benches, requests, replies, packets, whole_device);
criterion_main!(benches);
