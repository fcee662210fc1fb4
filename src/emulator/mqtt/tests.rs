//! Packets as clients send them, whole, cut, malformed and random.

use proptest::prelude::*;
use rumqttc::mqttbytes::v4::{self, SubscribeFilter};

use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next()
}

fn connect_bytes(name: &[u8], level: u8, flags: u8, tail: &[u8]) -> Vec<u8> {
    let name_length = u8::try_from(name.len()).unwrap();
    let body = [&[0, name_length], name, &[level, flags, 0, 30], tail].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

/// One of each packet that a client sends.
fn samples() -> Vec<Packet> {
    let mut connect = v4::Connect::new("device");
    connect.set_login("?SDK=Test&Version=1", "secret");
    connect.last_will = Some(v4::LastWill::new("gone", "bye", QoS::AtLeastOnce, false));
    let mut publish = Publish::new("a/b", QoS::AtLeastOnce, "payload");
    publish.pkid = 7;
    let filter = |path: &str| SubscribeFilter::new(path.to_owned(), QoS::AtLeastOnce);
    let mut subscribe = Subscribe::new_many([filter("a/+"), filter("b/#")]);
    subscribe.pkid = 8;
    let unsubscribe = Unsubscribe { pkid: 9, topics: vec![String::from("a/+"), String::from("b/#")] };
    vec![
        Packet::Connect(connect),
        Packet::Publish(publish),
        Packet::PubAck(PubAck::new(3)),
        Packet::Subscribe(subscribe),
        Packet::Unsubscribe(unsubscribe),
        Packet::PingReq,
        Packet::Disconnect,
    ]
}

#[test]
fn a_stream_decodes_the_same_however_it_is_cut() {
    let stream: Vec<u8> = samples().iter().flat_map(|packet| encode(packet).to_vec()).collect();
    let decoded = |size: usize| {
        let mut decoder = Decoder::default();
        let mut packets = Vec::new();
        for piece in stream.chunks(size) {
            decoder.push(piece);
            while let Some(packet) = decoder.next().unwrap() {
                packets.push(packet);
            }
        }
        packets
    };
    let whole = decoded(stream.len());
    assert_eq!(whole.len(), samples().len());
    for size in 1..20 {
        assert_eq!(decoded(size), whole, "{size}");
    }
}

#[test]
fn a_connect_is_taken_with_everything_that_clients_put_in_it() {
    let wanted = Connect { client_id: String::from("device"), clean_session: true, keep_alive: 10 };
    assert_eq!(decode(&encode(&samples()[0])), Ok(Some(Incoming::Connect(wanted))));
    // A password is binary (MQTT 3.1.1 section 3.1.3.5).
    let password = connect_bytes(b"MQTT", 4, 0b1100_0010, b"\0\x01a\0\x01u\0\x02\xff\xfe");
    assert!(matches!(decode(&password), Ok(Some(Incoming::Connect(_)))));
}

#[test]
fn another_protocol_level_is_told_from_garbage() {
    for (name, level) in [(&b"MQIsdp"[..], 3), (b"MQTT", 5), (b"MQTT", 0x84), (b"HTTP", 4)] {
        let bytes = connect_bytes(name, level, 2, b"\0\x01a");
        assert_eq!(decode(&bytes), Err(Malformed::ProtocolLevel));
    }
}

#[test]
fn a_connect_that_contradicts_itself_is_refused() {
    for (flags, tail) in [
        (0b0000_0011, &b"\0\x01a"[..]),       // reserved bit
        (0b0010_0010, b"\0\x01a"),            // will retain without a will
        (0b0001_1110, b"\0\x01a\0\x01t\0\0"), // will at QoS 3
        (0b0100_0010, b"\0\x01a\0\x01p"),     // password without a user name
        (0b0000_0010, b"\0\x02a"),            // client id longer than the packet
        (0b0000_0010, b"\0\x01\xff"),         // client id not UTF-8
        (0b0000_0010, b"\0\x01a\0"),          // bytes left over
    ] {
        let verdict = decode(&connect_bytes(b"MQTT", 4, flags, tail));
        assert!(matches!(verdict, Err(Malformed::Packet(_))), "{flags:08b} {verdict:?}");
    }
}

#[test]
fn what_the_library_would_let_pass_is_refused() {
    for bytes in [
        &[0x80, 6, 0, 1, 0, 1, b'a', 1][..], // SUBSCRIBE with the wrong flags
        &[0x82, 6, 0, 1, 0, 1, b'a', 5],     // SUBSCRIBE with reserved bits beside the QoS
        &[0x82, 6, 0, 1, 0, 1, b'a', 3],     // SUBSCRIBE at QoS 3
        &[0x82, 6, 0, 0, 0, 1, b'a', 1],     // SUBSCRIBE with packet id 0
        &[0x82, 2, 0, 1],                    // SUBSCRIBE without a filter
        &[0xa2, 2, 0, 1],                    // UNSUBSCRIBE without a filter
        &[0xa2, 5, 0, 0, 0, 1, b'a'],        // UNSUBSCRIBE with packet id 0
        &[0x36, 5, 0, 1, b'a', 0, 1],        // PUBLISH at QoS 3
        &[0x38, 3, 0, 1, b'a'],              // PUBLISH at QoS 0 with DUP
        &[0x32, 5, 0, 1, b'a', 0, 0],        // PUBLISH with packet id 0
        &[0x40, 2, 0, 0],                    // PUBACK of packet id 0
        &[0x40, 3, 0, 1, 0],                 // PUBACK with more
        &[0xc0, 1, 0],                       // PINGREQ with a body
        &[0x20, 2, 0, 0],                    // CONNACK
        &[0x62, 2, 0, 1],                    // PUBREL
        &[0x00, 0],                          // reserved types
        &[0xf0, 0],
        &[0xc0, 0x80, 0x80, 0x80, 0x80, 1], // remaining length of five bytes
        &[0x30, 0],                         // PUBLISH of nothing
    ] {
        let verdict = decode(bytes);
        assert!(matches!(verdict, Err(Malformed::Packet(_))), "{bytes:02x?} {verdict:?}");
    }
}

#[test]
fn an_oversized_packet_is_refused_by_its_header_alone() {
    assert!(matches!(decode(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Malformed::TooLarge(_))));
    let mut publish =
        Publish::new("t".repeat(MAX_TOPIC as usize), QoS::AtLeastOnce, vec![0; MAX_PAYLOAD as usize]);
    publish.pkid = 1;
    assert!(matches!(decode(&encode(&Packet::Publish(publish))), Ok(Some(Incoming::Publish(_)))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }

    #[test]
    fn random_bodies_of_every_packet_do_not_panic(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
        let length = u8::try_from(body.len()).unwrap();
        let _ = decode(&[&[first, length], body.as_slice()].concat());
    }

    #[test]
    fn flipped_bits_and_cut_tails_do_not_panic(
        sample in 0..7_usize, flips in prop::collection::vec((0..64_usize, 0..8_u8), 0..4), cut in 0..64_usize,
    ) {
        let mut bytes = encode(&samples()[sample]).to_vec();
        let length = bytes.len();
        for (at, bit) in flips {
            bytes[at % length] ^= 1 << bit;
        }
        bytes.truncate(length.saturating_sub(cut % length));
        let _ = decode(&bytes);
    }
}
