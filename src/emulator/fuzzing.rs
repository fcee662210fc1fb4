//! Entry points for fuzzing the emulator's parsers.

use std::time::SystemTime;

use bytes::BytesMut;

use super::control;
use super::format::Format;
use super::http;
use super::mint;
use super::mqtt::{Decoder, Incoming, Malformed};
use super::verify::{Realm, SignedRequest, claimed_access_key, is_signed, verify, verify_header};

/// What a client sends on an MQTT connection. It must parse into the same packets however it is split.
pub(crate) fn mqtt(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let connect: &[u8] = if size & 1 == 0 { CONNECT_3_1_1 } else { CONNECT_5 };
    let pieces: Vec<_> = data.chunks(usize::from(size / 2).max(1)).collect();
    assert_eq!(packets(connect, &[data]), packets(connect, &pieces), "the pieces do not matter");
}

/// The shortest CONNECTs.
const CONNECT_3_1_1: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";
const CONNECT_5: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";

fn packets(connect: &[u8], pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Malformed>) {
    let mut decoder = Decoder::default();
    decoder.push(connect);
    assert!(matches!(decoder.next(), Ok(Some(Incoming::Connect(_)))), "it is one");
    let mut packets = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(malformed) => return (packets, Some(malformed)),
            }
        }
    }
    (packets, None)
}

/// A request's head, signature and query.
pub(crate) fn http_request(data: &[u8]) {
    let mut buffer = BytesMut::new();
    let mut stream = data;
    // Reading from a slice never waits, but the time limits need a runtime with a clock.
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it needs no IO");
    let Ok(head) = clock.block_on(http::read_head(&mut stream, &mut buffer)) else { return };
    let request = SignedRequest { method: &head.method, target: &head.target, headers: &head.headers };
    let realm = Realm {
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session_token: Some("t"),
        has_expired: false,
        region: "us-east-1",
        services: &["iotdevicegateway", "iot"],
    };
    let now = SystemTime::now();
    assert!(verify(&request, &realm, now).is_err(), "nobody guesses a signature");
    assert!(verify_header(&request, stream, &realm, now).is_err(), "nobody guesses a signature");
    let _ = (claimed_access_key(&request), is_signed(&request, "host"), head.body_length());
    control::fuzz(&head.target, stream);
}

/// A request in CBOR. If it translates to JSON, that must survive the way to CBOR and back.
pub(crate) fn cbor(data: &[u8]) {
    let format = Format::of("$aws/certificates/create/cbor");
    let json = format.decode(data);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&json) {
        let again = format.encode(json.to_vec().into());
        let back: serde_json::Value =
            serde_json::from_slice(&format.decode(&again)).expect("what was encoded is CBOR");
        assert!(is_same(&back, &value), "{back} is not {value}");
    }
}

/// Whether two values are the same, but for the last digit of a float: reading JSON rounds it.
fn is_same(left: &serde_json::Value, right: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (left, right) {
        (Number(left), Number(right)) if left.is_f64() && right.is_f64() => {
            let (left, right) = (left.as_f64().unwrap_or_default(), right.as_f64().unwrap_or_default());
            left == right || (left - right).abs() <= left.abs() * 4.0 * f64::EPSILON
        }
        (Array(left), Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Object(left), Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| is_same(value, other)))
        }
        _ => left == right,
    }
}

/// A certification request.
pub(crate) fn signing_request(text: &str) {
    let _ = mint::key_of(text);
}
