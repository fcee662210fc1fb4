//! What the bytes of one device cost: building its requests, parsing its replies, and the MQTT packets around them;
//! beside `serde_json::Value`, which most scripts use.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fleetmint::certificate::Secret;
use fleetmint::provisioning;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};

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
    let token = Secret::new("t".repeat(464));
    let mut group = c.benchmark_group("build a RegisterThing request");
    let size = provisioning::register_request(&token, PARAMETERS).len();
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_function("fleetmint", |bencher| {
        bencher.iter(|| provisioning::register_request(black_box(&token), PARAMETERS));
    });
    group.bench_function("serde_json::Value", |bencher| {
        bencher.iter(|| {
            let parameters: serde_json::Map<String, serde_json::Value> =
                PARAMETERS.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
            serde_json::json!({"certificateOwnershipToken": black_box(token.expose()), "parameters": parameters})
                .to_string()
        });
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

/// An accepted reply of CreateKeysAndCertificate, of about the size that the service sends.
fn issued() -> String {
    let pem = |label: &str, lines| {
        let body =
            format!("{}\n", "MIIDWTCCAkGgAwIBAgIUJ2Zk0x8m3QvXl5l6Y1c9bN7hQkEwDQYJKoZIhvcNAQEL").repeat(lines);
        format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
    };
    serde_json::json!({
        "certificateId": "0f".repeat(32),
        "certificatePem": pem("CERTIFICATE", 19),
        "privateKey": pem("RSA PRIVATE KEY", 25),
        "certificateOwnershipToken": "ey".repeat(232),
    })
    .to_string()
}

criterion_group!(benches, requests, replies, packets);
criterion_main!(benches);
