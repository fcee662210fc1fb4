//! Client packets, whole, split, malformed and random, and the server's packets as a client library reads them.

use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
    decode_as(Version::V311, bytes)
}

fn decode_as(version: Version, bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
    let mut decoder = Decoder { version, ..Decoder::default() };
    decoder.push(bytes);
    decoder.next()
}

fn connect_bytes(name: &[u8], level: u8, flags: u8, tail: &[u8]) -> Vec<u8> {
    let name_length = u8::try_from(name.len()).unwrap();
    let body = [&[0, name_length], name, &[level, flags, 0, 30], tail].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

/// One of each packet that a client sends, encoded by a client library.
fn samples() -> Vec<Vec<u8>> {
    let qos = rumqttc::mqttbytes::QoS::AtLeastOnce;
    let mut connect = v4::Connect::new("device");
    connect.set_login("?SDK=Test&Version=1", "secret");
    connect.last_will = Some(v4::LastWill::new("gone", "bye", qos, false));
    let mut publish = v4::Publish::new("a/b", qos, "payload");
    publish.pkid = 7;
    let filter = |path: &str| v4::SubscribeFilter::new(path.to_owned(), qos);
    let mut subscribe = v4::Subscribe::new_many([filter("a/+"), filter("b/#")]);
    subscribe.pkid = 8;
    let unsubscribe = v4::Unsubscribe { pkid: 9, topics: vec![String::from("a/+"), String::from("b/#")] };
    let packets = [
        v4::Packet::Connect(connect),
        v4::Packet::Publish(publish),
        v4::Packet::PubAck(v4::PubAck::new(3)),
        v4::Packet::Subscribe(subscribe),
        v4::Packet::Unsubscribe(unsubscribe),
        v4::Packet::PingReq,
        v4::Packet::Disconnect,
    ];
    let written = packets.iter().map(|packet| {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        bytes.to_vec()
    });
    written.collect()
}

fn filter(path: &str) -> Filter {
    Filter { path: path.to_owned(), qos: QoS::AtLeastOnce, is_no_local: false }
}

#[test]
fn a_stream_decodes_the_same_however_it_is_cut() {
    let stream = samples().concat();
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
    let publish = Publish {
        topic: String::from("a/b"),
        payload: Bytes::from_static(b"payload"),
        qos: QoS::AtLeastOnce,
        id: 7,
        is_duplicate: false,
        alias: None,
        properties: Bytes::new(),
    };
    assert_eq!(whole[1], Incoming::Publish(publish));
    let filters = vec![filter("a/+"), filter("b/#")];
    assert_eq!(whole[3], Incoming::Subscribe(Subscribe { id: 8, filters, has_subscription_id: false }));
}

#[test]
fn a_connect_is_taken_with_everything_that_clients_put_in_it() {
    let wanted = Connect { client_id: String::from("device"), keep_alive: 10, ..Connect::default() };
    assert_eq!(decode(&samples()[0]), Ok(Some(Incoming::Connect(wanted))));
    // A password is binary (MQTT 3.1.1 section 3.1.3.5).
    let password = connect_bytes(b"MQTT", 4, 0b1100_0010, b"\0\x01a\0\x01u\0\x02\xff\xfe");
    assert!(matches!(decode(&password), Ok(Some(Incoming::Connect(_)))));
}

#[test]
fn a_connect_of_mqtt_5_says_what_the_client_takes() {
    // Receive maximum 10, maximum packet size 4096, a user property; a will with a delay; a password without a user name.
    let properties = b"\x0f\x21\0\x0a\x27\0\0\x10\0\x26\0\x01k\0\x01v";
    let tail = [&properties[..], b"\0\x01a\x05\x18\0\0\0\x05\0\x01t\0\0\0\x01p"].concat();
    let bytes = connect_bytes(b"MQTT", 5, 0b0100_0110, &tail);
    let wanted = Connect {
        version: Version::V5,
        client_id: String::from("a"),
        keep_alive: 30,
        receive_maximum: 10,
        maximum_packet_size: 4096,
        ..Connect::default()
    };
    assert_eq!(decode(&bytes), Ok(Some(Incoming::Connect(wanted))));
}

#[test]
fn a_publish_of_mqtt_5_keeps_what_is_for_its_receivers() {
    // A topic alias, a content type and correlation data.
    let properties = b"\x0b\x23\0\x02\x03\0\x01c\x09\0\x01x";
    let body = [b"\0\x01a\0\x07", &properties[..], b"payload"].concat();
    let bytes = [&[0x32, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
    let Ok(Some(Incoming::Publish(publish))) = decode_as(Version::V5, &bytes) else { panic!("{bytes:x?}") };
    assert_eq!((publish.id, publish.alias, &publish.payload[..]), (7, Some(2), &b"payload"[..]));
    assert_eq!(&publish.properties[..], b"\x03\0\x01c\x09\0\x01x");
}

#[test]
fn packets_of_mqtt_5_that_break_its_rules_are_refused() {
    for bytes in [
        &[0x30, 5, 0, 1, b'a', 2, 0x11][..], // a property of CONNECT in PUBLISH, cut short
        &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0], // the same property twice
        &[0x30, 6, 0, 1, b'a', 2, 1, 2],     // a payload format that is neither 0 nor 1
        &[0x30, 5, 0, 1, b'a', 9, 1],        // properties longer than the packet
        &[0x30, 3, 0, 0, 0],                 // neither topic nor alias
        &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0b1100_0001], // reserved options
        &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0b0011_0001], // retain handling 3
        &[0x82, 3, 0, 1, 0],                 // no filter
        &[0xf0, 0],                          // AUTH
        &[0xe0, 3, 0, 1, 0x24],              // a property of CONNACK in DISCONNECT
        &[0x40, 4, 0, 1, 0, 5],              // PUBACK with properties cut short
    ] {
        let verdict = decode_as(Version::V5, bytes);
        assert!(matches!(verdict, Err(Malformed::Packet(_))), "{bytes:02x?} {verdict:?}");
    }
    for (properties, what) in
        [(&b"\x03\x21\0\0"[..], "receive maximum 0"), (b"\x05\x27\0\0\0\0", "packet size 0")]
    {
        let bytes = connect_bytes(b"MQTT", 5, 2, &[properties, b"\0\x01a"].concat());
        assert!(matches!(decode(&bytes), Err(Malformed::Packet(_))), "{what}");
    }
}

#[test]
fn acknowledgements_of_mqtt_5_may_be_short_or_long() {
    for bytes in [&[0x40, 2, 0, 9][..], &[0x40, 3, 0, 9, 0x10], &[0x40, 4, 0, 9, 0x10, 0]] {
        assert_eq!(decode_as(Version::V5, bytes), Ok(Some(Incoming::PubAck(9))));
    }
    for bytes in [&[0xe0, 0][..], &[0xe0, 1, 4], &[0xe0, 2, 0, 0], &[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]] {
        assert_eq!(decode_as(Version::V5, bytes), Ok(Some(Incoming::Disconnect)));
    }
}

#[test]
fn another_protocol_level_is_told_from_garbage() {
    for (name, level) in [(&b"MQIsdp"[..], 3), (b"MQTT", 6), (b"MQTT", 0x84), (b"HTTP", 4)] {
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
fn packets_that_break_the_rules_are_refused() {
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
        &[0xe0, 1, 0],                       // DISCONNECT with a body
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
fn an_oversized_packet_is_refused_by_its_header_alone_and_takes_no_memory() {
    assert!(matches!(decode(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Malformed::TooLarge(_))));
    let mut decoder = Decoder::default();
    decoder.push(&[0x30, 0x80, 0x80, 0x08]);
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.buffer.capacity() < 1024, "{}", decoder.buffer.capacity());
    let publish = Publish {
        topic: "t".repeat(MAX_TOPIC as usize),
        payload: vec![0; MAX_PAYLOAD as usize].into(),
        qos: QoS::AtLeastOnce,
        id: 1,
        is_duplicate: false,
        alias: None,
        properties: Bytes::new(),
    };
    let bytes = encode(&Packet::Publish(publish.clone()), Version::V311).unwrap();
    assert_eq!(decode(&bytes), Ok(Some(Incoming::Publish(publish))));
}

#[test]
fn what_mqtt_cannot_say_is_left_out() {
    let publish = |topic: &str| Publish {
        topic: topic.to_owned(),
        payload: Bytes::new(),
        qos: QoS::AtMostOnce,
        id: 0,
        is_duplicate: false,
        alias: None,
        properties: Bytes::new(),
    };
    assert!(encode(&Packet::Publish(publish(&"x".repeat(65_535))), Version::V5).is_some());
    assert_eq!(encode(&Packet::Publish(publish(&"x".repeat(65_536))), Version::V5), None);
    let endless = Publish { payload: vec![0; 1 << 28].into(), ..publish("a") };
    assert_eq!(encode(&Packet::Publish(endless), Version::V311), None);
    assert_eq!(encode(&Packet::Disconnect(Reason::QUOTA_EXCEEDED), Version::V311), None);
}

fn terms() -> Terms {
    Terms {
        receive_maximum: 100,
        maximum_packet_size: 149_504,
        assigned_client_id: Some(String::from("$GEN/x")),
        server_keep_alive: Some(1200),
    }
}

#[test]
fn a_library_for_clients_of_mqtt_5_reads_what_the_server_sends() {
    let read = |packet: Packet| {
        let mut bytes = BytesMut::from(&encode(&packet, Version::V5).unwrap()[..]);
        let read = v5::Packet::read(&mut bytes, None).unwrap();
        assert!(bytes.is_empty(), "{read:?}");
        read
    };
    let connack = ConnAck { reason: Reason::SUCCESS, terms: Some(terms()) };
    let v5::Packet::ConnAck(connack) = read(Packet::ConnAck(connack)) else { panic!("not a CONNACK") };
    let properties = connack.properties.unwrap();
    assert_eq!(connack.code, v5::ConnectReturnCode::Success);
    assert_eq!((properties.receive_max, properties.max_qos), (Some(100), Some(1)));
    assert_eq!((properties.max_packet_size, properties.topic_alias_max), (Some(149_504), Some(8)));
    assert_eq!(properties.assigned_client_identifier.as_deref(), Some("$GEN/x"));
    assert_eq!(properties.server_keep_alive, Some(1200));
    assert_eq!(properties.subscription_identifiers_available, Some(0));
    let refused = ConnAck { reason: Reason::NOT_AUTHORIZED, terms: None };
    let v5::Packet::ConnAck(refused) = read(Packet::ConnAck(refused)) else { panic!("not a CONNACK") };
    assert_eq!(refused.code, v5::ConnectReturnCode::NotAuthorized);
    let reasons = vec![Reason::granted(QoS::AtLeastOnce), Reason::NOT_AUTHORIZED];
    let v5::Packet::SubAck(suback) = read(Packet::SubAck { id: 5, reasons }) else { panic!("not a SUBACK") };
    assert_eq!((suback.pkid, suback.return_codes.len()), (5, 2));
    let reasons = vec![Reason::NO_SUBSCRIPTION_EXISTED];
    assert!(matches!(read(Packet::UnsubAck { id: 5, reasons }), v5::Packet::UnsubAck(_)));
    for reason in [Reason::SUCCESS, Reason::NOT_AUTHORIZED] {
        assert!(matches!(read(Packet::PubAck { id: 5, reason }), v5::Packet::PubAck(_)));
    }
    assert!(matches!(read(Packet::Disconnect(Reason::SESSION_TAKEN_OVER)), v5::Packet::Disconnect(_)));
    assert!(matches!(read(Packet::PingResp), v5::Packet::PingResp(_)));
    let publish = Publish {
        topic: String::from("a"),
        payload: Bytes::from_static(b"p"),
        qos: QoS::AtLeastOnce,
        id: 3,
        is_duplicate: true,
        alias: None,
        properties: Bytes::from_static(b"\x03\0\x01c"),
    };
    let v5::Packet::Publish(publish) = read(Packet::Publish(publish)) else { panic!("not a PUBLISH") };
    assert_eq!((publish.pkid, publish.dup, &publish.payload[..]), (3, true, &b"p"[..]));
    assert_eq!(publish.properties.unwrap().content_type.as_deref(), Some("c"));
}

#[test]
fn clients_of_mqtt_3_1_1_get_the_codes_that_they_know() {
    let connack = |reason| encode(&Packet::ConnAck(ConnAck { reason, terms: None }), Version::V311).unwrap();
    for (reason, code) in [
        (Reason::SUCCESS, 0),
        (Reason::UNSUPPORTED_VERSION, 1),
        (Reason::CLIENT_ID_NOT_VALID, 2),
        (Reason::SERVER_UNAVAILABLE, 3),
        (Reason::NOT_AUTHORIZED, 7),
        (Reason(42), 42),
    ] {
        assert_eq!(connack(reason)[..], [0x20, 2, 0, code]);
    }
    let reasons = vec![Reason::granted(QoS::AtMostOnce), Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED];
    let suback = encode(&Packet::SubAck { id: 1, reasons }, Version::V311).unwrap();
    assert_eq!(suback[..], [0x90, 4, 0, 1, 0, 0x80]);
    let reasons = vec![Reason::SUCCESS];
    assert_eq!(encode(&Packet::UnsubAck { id: 1, reasons }, Version::V311).unwrap()[..], [0xb0, 2, 0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), is_v5: bool) {
        let version = if is_v5 { Version::V5 } else { Version::V311 };
        let mut decoder = Decoder { version, ..Decoder::default() };
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }

    #[test]
    fn random_bodies_of_every_packet_do_not_panic(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
        let length = u8::try_from(body.len()).unwrap();
        for version in [Version::V311, Version::V5] {
            let _ = decode_as(version, &[&[first, length], body.as_slice()].concat());
        }
    }

    #[test]
    fn flipped_bits_and_cut_tails_do_not_panic(
        sample in 0..7_usize, flips in prop::collection::vec((0..64_usize, 0..8_u8), 0..4), cut in 0..64_usize,
    ) {
        let mut bytes = samples()[sample].clone();
        let length = bytes.len();
        for (at, bit) in flips {
            bytes[at % length] ^= 1 << bit;
        }
        bytes.truncate(length.saturating_sub(cut % length));
        let _ = decode(&bytes);
        let _ = decode_as(Version::V5, &bytes);
    }
}
