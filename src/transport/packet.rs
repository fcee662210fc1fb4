//! MQTT 3.1.1 packets that a server may send.
//!
//! Owns the checks before the codec. rumqttc's decoder never panics on hostile bytes (the tests here try), but it
//! accepts packets that a server must not send: clients' packets, wrong flags, trailing bytes, oversize lengths
//! spread over time. Knows nothing of the order of packets.

use bytes::Bytes;
use rumqttc::mqttbytes::v4::{ConnAck, PubAck, Publish, SubAck, SubscribeReasonCode};
use rumqttc::mqttbytes::{Error, FixedHeader, QoS, check};

use crate::failure::Cause;
use crate::service::{MAX_PAYLOAD, MAX_TOPIC};

/// The largest remaining length accepted, in bytes: a PUBLISH with everything at its limit.
pub(super) const MAX_REMAINING: usize = 2 + MAX_TOPIC + 2 + MAX_PAYLOAD;

/// A packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// CONNACK with its return code.
    ConnAck(u8),
    /// SUBACK with its packet id and return codes.
    SubAck { id: u16, codes: Vec<SubscribeReasonCode> },
    /// PUBACK with its packet id.
    PubAck(u16),
    /// PUBLISH at QoS 0 or 1.
    Publish(Publish),
    /// PINGRESP.
    PingResp,
}

/// The length of the packet at the start of `bytes`; `None` until its header is complete.
///
/// Refuses a packet as early as possible, so that nothing is buffered for one that will not be accepted.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<FixedHeader>, Cause> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    check_first_byte(first)?;
    match check(bytes.iter(), MAX_REMAINING) {
        Ok(header) => Ok(Some(header)),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(Error::PayloadSizeLimitExceeded(length)) => Err(garbled(format!(
            "a packet of {length} bytes, more than the {MAX_REMAINING} that can be right"
        ))),
        Err(error) => Err(garbled(error.to_string())),
    }
}

/// Reads one whole packet, framed by [`frame`].
pub(super) fn read(header: FixedHeader, bytes: Bytes) -> Result<Incoming, Cause> {
    let first = bytes[0];
    let body = bytes.len() - header_length(&bytes);
    let refuse = |error: Error| garbled(format!("a malformed {}: {error}", name(first)));
    match (first >> 4, body) {
        (2, 2) => match ConnAck::read(header, bytes) {
            Ok(ack) => Ok(Incoming::ConnAck(ack.code as u8)),
            // rumqttc knows only the specification's codes; AWS also has a 7.
            Err(Error::InvalidConnectReturnCode(code)) => Ok(Incoming::ConnAck(code)),
            Err(error) => Err(refuse(error)),
        },
        (3, _) => Publish::read(header, bytes).map_err(refuse).and_then(|publish| match publish.qos {
            QoS::ExactlyOnce => Err(garbled("a PUBLISH at QoS 2, which was not asked for")),
            _ => Ok(Incoming::Publish(publish)),
        }),
        (4, 2) => PubAck::read(header, bytes).map(|ack| Incoming::PubAck(ack.pkid)).map_err(refuse),
        (9, 3..) => SubAck::read(header, bytes)
            .map(|ack| Incoming::SubAck { id: ack.pkid, codes: ack.return_codes })
            .map_err(refuse),
        (13, 0) => Ok(Incoming::PingResp),
        _ => Err(garbled(format!("a {} with {body} bytes after its header", name(first)))),
    }
}

/// Checks a packet's type and flags (MQTT 3.1.1 section 2.2).
fn check_first_byte(first: u8) -> Result<(), Cause> {
    match first {
        0x20 | 0x40 | 0x90 | 0xd0 => Ok(()),
        0x30..=0x3f if first & 0b0110 != 0b0110 => Ok(()),
        0x30..=0x3f => Err(garbled("a PUBLISH at QoS 3, which does not exist")),
        0x50 | 0x62 | 0x70 | 0xb0 => Err(garbled(format!("a {} that answers nothing", name(first)))),
        0x10 | 0x82 | 0xa2 | 0xc0 | 0xe0 => {
            Err(garbled(format!("a {}, which only a client may send", name(first))))
        }
        _ => Err(garbled(format!("byte 0x{first:02x} where an MQTT packet should start"))),
    }
}

/// The header's length: one byte of type and flags, and the remaining length with its continuation bits.
fn header_length(bytes: &[u8]) -> usize {
    1 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1
}

fn name(first: u8) -> &'static str {
    const NAMES: [&str; 16] = [
        "packet of type 0",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "packet of type 15",
    ];
    NAMES[usize::from(first >> 4)]
}

pub(super) fn garbled(detail: impl Into<String>) -> Cause {
    Cause::Garbled { detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use rumqttc::mqttbytes::v4::Packet;

    use super::*;

    fn read_one(bytes: &[u8]) -> Result<Option<Incoming>, Cause> {
        match frame(bytes)? {
            None => Ok(None),
            Some(header) => read(header, Bytes::copy_from_slice(&bytes[..header.frame_length()])).map(Some),
        }
    }

    fn refusal(bytes: &[u8]) -> String {
        match read_one(bytes) {
            Err(Cause::Garbled { detail }) => detail,
            other => panic!("{bytes:02x?}: {other:?}"),
        }
    }

    #[test]
    fn what_a_server_may_send_is_read() {
        assert_eq!(read_one(&[0x20, 2, 0, 0]), Ok(Some(Incoming::ConnAck(0))));
        assert_eq!(read_one(&[0x20, 2, 0, 7]), Ok(Some(Incoming::ConnAck(7))));
        assert_eq!(read_one(&[0x40, 2, 1, 2]), Ok(Some(Incoming::PubAck(0x102))));
        assert_eq!(read_one(&[0xd0, 0]), Ok(Some(Incoming::PingResp)));
        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
        assert_eq!(read_one(&[0x90, 4, 0, 1, 1, 0x80]), Ok(Some(Incoming::SubAck { id: 1, codes })));
        let Ok(Some(Incoming::Publish(publish))) = read_one(&[0x3a, 6, 0, 1, b't', 0, 9, b'x']) else {
            panic!()
        };
        assert_eq!((publish.topic.as_str(), publish.pkid, &publish.payload[..]), ("t", 9, &b"x"[..]));
        assert!(publish.dup);
        for cut in 0..8 {
            assert_eq!(read_one(&[0x3a, 6, 0, 1, b't', 0, 9, b'x'][..cut]), Ok(None));
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_refused_by_name() {
        for (bytes, what) in [
            (&[0x00][..], "byte 0x00 where an MQTT packet should start"),
            (b"HTTP", "byte 0x48"),
            (&[0xf0], "byte 0xf0"),
            (&[0x10], "CONNECT, which only a client may send"),
            (&[0x82], "SUBSCRIBE, which only a client"),
            (&[0xc0], "PINGREQ, which only a client"),
            (&[0xe0], "DISCONNECT, which only a client"),
            (&[0x62], "PUBREL that answers nothing"),
            (&[0xb0], "UNSUBACK that answers nothing"),
            (&[0x36], "QoS 3"),
            (&[0x34, 5, 0, 1, b't', 0, 1], "QoS 2"),
            (&[0x32, 5, 0, 1, b't', 0, 0], "malformed PUBLISH: Packet id Zero"),
            (&[0x32, 3, 0, 1, b't'], "malformed PUBLISH"),
            (&[0x30, 3, 0, 9, b't'], "malformed PUBLISH"),
            (&[0x30, 3, 0, 1, 0xff], "malformed PUBLISH: Topic is not UTF-8"),
            (&[0x30, 0], "malformed PUBLISH"),
            (&[0x20, 3, 0, 0, 0], "CONNACK with 3 bytes"),
            (&[0x20, 0], "CONNACK with 0 bytes"),
            (&[0x40, 3, 0, 1, 0], "PUBACK with 3 bytes"),
            (&[0x90, 2, 0, 1], "SUBACK with 2 bytes"),
            (&[0x90, 3, 0, 1, 0x55], "malformed SUBACK"),
            (&[0xd0, 1, 0], "PINGRESP with 1 bytes"),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], "remaining length"),
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], "a packet of 268435455 bytes"),
        ] {
            let said = refusal(bytes);
            assert!(said.contains(what), "{bytes:02x?}: {said}");
        }
    }

    #[test]
    fn the_largest_reply_is_taken_and_one_byte_more_is_not() {
        let topic = "t".repeat(MAX_TOPIC);
        for (extra, is_taken) in [(0, true), (1, false)] {
            let mut publish = Publish::new(&topic, QoS::AtLeastOnce, vec![b'x'; MAX_PAYLOAD + extra]);
            publish.pkid = 1;
            let mut bytes = BytesMut::new();
            publish.write(&mut bytes).unwrap();
            assert_eq!(read_one(&bytes).is_ok(), is_taken);
            assert_eq!(frame(&bytes[..5]).is_ok(), is_taken, "known from the header alone");
        }
    }

    /// Valid packets with a few bytes changed: neither the guard nor the codec behind it may panic.
    fn near_packets() -> impl Strategy<Value = Vec<u8>> {
        let valid = prop::sample::select(vec![
            vec![0x20, 2, 0, 0],
            vec![0x90, 6, 0, 1, 1, 1, 1, 1],
            vec![0x40, 2, 0, 1],
            vec![0x32, 12, 0, 4, b'$', b'a', b'w', b's', 0, 7, b'{', b'}', b'{', b'}'],
            vec![0xd0, 0],
        ]);
        (valid, proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 0_usize..4)
            .prop_map(|(mut bytes, changes, cut)| {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes.truncate(bytes.len().saturating_sub(cut));
                bytes
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn no_bytes_make_it_panic(bytes in prop_oneof![near_packets(), proptest::collection::vec(any::<u8>(), 0..64)]) {
            let _ = read_one(&bytes);
            let _ = Packet::read(&mut BytesMut::from(&bytes[..]), MAX_REMAINING);
        }
    }
}
