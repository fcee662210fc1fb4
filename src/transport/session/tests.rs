//! The session against bytes written by hand, divided into pieces in every way.

use proptest::prelude::*;
use rumqttc::mqttbytes::v4::Packet;

use super::*;
use crate::call::Call;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CREATED: &str = "$aws/certificates/create/json/accepted";
const REGISTERED: &str = "$aws/provisioning-templates/T/provision/json/accepted";

fn session(now: Instant) -> Session {
    Session::new(String::from("me-1"), Arc::new(Topics::new("T")), KEEP_ALIVE, now)
}

/// A session that has subscribed, and whose next packet id is 2.
fn open(now: Instant) -> Session {
    let mut session = session(now);
    session.take_output(now);
    assert_eq!(receive(&mut session, &[0x20, 2, 0, 0], now), Ok(Some(Event::Connected)));
    session.subscribe();
    session.take_output(now);
    assert_eq!(receive(&mut session, &[0x90, 6, 0, 1, 1, 1, 1, 1], now), Ok(Some(Event::Subscribed)));
    session
}

fn receive(session: &mut Session, bytes: &[u8], now: Instant) -> Result<Option<Event>, Cause> {
    session.feed(Bytes::copy_from_slice(bytes));
    session.next_event(now)
}

fn publish(topic: &str, payload: &str, id: u16) -> Vec<u8> {
    let mut bytes = vec![0x32, u8::try_from(4 + topic.len() + payload.len()).unwrap(), 0];
    bytes.push(u8::try_from(topic.len()).unwrap());
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

fn accepted(payload: &'static str) -> Option<Event> {
    Some(Event::Replied { verdict: Verdict::Accepted, payload: Bytes::from_static(payload.as_bytes()) })
}

fn sent(session: &mut Session, now: Instant) -> Vec<Packet> {
    let mut bytes = BytesMut::from(&session.take_output(now)[..]);
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        packets.push(Packet::read(&mut bytes, usize::MAX).unwrap());
    }
    packets
}

/// MQTT 3.1.1 sections 3.1 and 3.8, byte by byte.
#[test]
fn connect_and_subscribe_are_what_the_specification_says() {
    let now = Instant::now();
    let mut session = session(now);
    assert_eq!(
        &session.take_output(now)[..],
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04me-1",
        "clean session, keep-alive 30 s, no user name"
    );
    receive(&mut session, &[0x20, 2, 0, 0], now).unwrap();
    session.subscribe();
    let bytes = session.take_output(now);
    assert_eq!(bytes[0], 0x82);
    let Packet::Subscribe(subscribe) = Packet::read(&mut BytesMut::from(&bytes[..]), 1000).unwrap() else {
        panic!()
    };
    let filters: Vec<_> = subscribe.filters.iter().map(|filter| (filter.path.as_str(), filter.qos)).collect();
    assert_eq!(
        filters,
        [
            (CREATED, QoS::AtLeastOnce),
            ("$aws/certificates/create/json/rejected", QoS::AtLeastOnce),
            (REGISTERED, QoS::AtLeastOnce),
            ("$aws/provisioning-templates/T/provision/json/rejected", QoS::AtLeastOnce),
        ]
    );
}

#[test]
fn every_suback_code_is_looked_at() {
    let filters = Topics::new("T");
    let refused = [
        &filters.create.accepted,
        &filters.create.rejected,
        &filters.register.accepted,
        &filters.register.rejected,
    ];
    for (index, filter) in refused.into_iter().enumerate() {
        let mut bytes = [0x90, 6, 0, 1, 1, 0, 1, 0];
        bytes[4 + index] = 0x80;
        let refusal = Cause::SubscriptionRefused { filter: filter.clone() };
        assert_eq!(suback(&bytes), Err(refusal));
    }
    assert_eq!(suback(&[0x90, 6, 0, 1, 0, 0, 0, 0]), Ok(Some(Event::Subscribed)), "QoS 0 is a grant");
    for (bytes, what) in [
        (&[0x90, 3, 0, 1, 1][..], "1 return codes for 4 filters"),
        (&[0x90, 7, 0, 1, 1, 1, 1, 1, 1], "5 return codes for 4 filters"),
        (&[0x90, 6, 0, 9, 1, 1, 1, 1], "another SUBSCRIBE"),
        (&[0x90, 6, 0, 1, 1, 2, 1, 1], "grants QoS 2"),
        (&[0x90, 6, 0, 1, 1, 3, 1, 1], "malformed SUBACK"),
    ] {
        let Err(Cause::Garbled { detail }) = suback(bytes) else { panic!("{bytes:?}") };
        assert!(detail.contains(what), "{detail}");
    }
}

fn suback(bytes: &[u8]) -> Result<Option<Event>, Cause> {
    let now = Instant::now();
    let mut session = session(now);
    receive(&mut session, &[0x20, 2, 0, 0], now)?;
    session.subscribe();
    receive(&mut session, bytes, now)
}

#[test]
fn connack_codes_are_passed_on() {
    for code in [1, 2, 3, 4, 5, 7, 255] {
        let now = Instant::now();
        assert_eq!(receive(&mut session(now), &[0x20, 2, 0, code], now), Err(Cause::ConnectRefused { code }));
    }
}

#[test]
fn packets_out_of_turn_are_garbled() {
    let now = Instant::now();
    for (mut session, bytes, what) in [
        (session(now), &[0xd0, 0][..], "before CONNACK"),
        (open(now), &[0x20, 2, 0, 0], "second CONNACK"),
        (open(now), &[0x90, 6, 0, 1, 1, 1, 1, 1], "answers no SUBSCRIBE"),
    ] {
        let Err(Cause::Garbled { detail }) = receive(&mut session, bytes, now) else { panic!("{what}") };
        assert!(detail.contains(what), "{detail}");
    }
}

#[test]
fn a_reply_ends_the_exchange_before_after_or_without_its_puback() {
    let puback = [0x40, 2, 0, 2];
    let reply = publish(CREATED, "{}", 7);
    for pieces in [vec![&puback[..], &reply], vec![&reply, &puback], vec![&reply]] {
        let now = Instant::now();
        let mut session = open(now);
        session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
        session.feed(Bytes::from(pieces.concat()));
        assert_eq!(session.next_event(now), Ok(accepted("{}")));
        assert_eq!(session.next_event(now), Ok(None));
    }
}

/// One write per publish: the acknowledgement of the reply before goes with it.
#[test]
fn the_puback_goes_with_the_next_publish() {
    let now = Instant::now();
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
    session.take_output(now);
    assert_eq!(receive(&mut session, &publish(CREATED, "{}", 7), now), Ok(accepted("{}")));
    session.publish(Call::RegisterThing, Bytes::from_static(b"{\"a\":1}"));
    let packets = sent(&mut session, now);
    let [Packet::PubAck(ack), Packet::Publish(request)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(ack.pkid, 7);
    assert_eq!((request.pkid, request.qos, request.dup), (3, QoS::AtLeastOnce, false));
    assert_eq!(request.topic, "$aws/provisioning-templates/T/provision/json");
    assert_eq!(&request.payload[..], b"{\"a\":1}");
}

#[test]
fn replies_at_qos_0_are_not_acknowledged() {
    let now = Instant::now();
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
    session.take_output(now);
    let mut reply =
        vec![0x30, u8::try_from(2 + CREATED.len() + 2).unwrap(), 0, u8::try_from(CREATED.len()).unwrap()];
    reply.extend_from_slice(CREATED.as_bytes());
    reply.extend_from_slice(b"{}");
    assert_eq!(receive(&mut session, &reply, now), Ok(accepted("{}")));
    assert_eq!(session.pending_output(), 0);
}

#[test]
fn silence_says_whether_the_puback_was_seen() {
    let now = Instant::now();
    let after = Duration::from_secs(20);
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
    receive(&mut session, &[0x40, 2, 0, 9], now).unwrap();
    assert_eq!(session.silence(after), Cause::NoPuback { after }, "another id");
    receive(&mut session, &[0x40, 2, 0, 2], now).unwrap();
    assert_eq!(session.silence(after), Cause::NoReply { after });
}

#[test]
fn an_earlier_reply_alone_is_an_anomaly_after_its_grace() {
    let now = Instant::now();
    let mut session = open(now);
    for turn in [0, 1] {
        session.publish(Call::RegisterThing, Bytes::from_static(b"{}"));
        let arrived = receive(&mut session, &publish(REGISTERED, "thing", 7), now);
        assert_eq!(arrived, Ok(accepted("thing").filter(|_| turn == 0)));
    }
    let grace = super::super::inbox::GRACE;
    assert_eq!(session.deadline(), now + grace);
    assert_eq!(session.tick(now + grace - Duration::from_millis(1)), Ok(()));
    assert!(matches!(session.tick(now + grace), Err(Cause::Anomaly { .. })));
    assert!(matches!(session.silence(grace), Cause::Anomaly { .. }), "also if time runs out before");
    assert_eq!(session.take_redelivered(), 1);
}

#[test]
fn the_keep_alive_is_kept_and_a_silent_server_is_left() {
    let start = Instant::now();
    let mut session = open(start);
    let due = session.deadline();
    assert!(due < start + KEEP_ALIVE, "the keep-alive is an upper limit");
    session.tick(due - Duration::from_millis(1)).unwrap();
    assert_eq!(session.pending_output(), 0);
    session.tick(due).unwrap();
    assert_eq!(&session.take_output(due)[..], [0xc0, 0]);
    session.tick(due + Duration::from_secs(1)).unwrap();
    assert_eq!(session.pending_output(), 0, "one PINGREQ at a time");

    assert_eq!(receive(&mut session, &[0xd0, 0], due), Ok(None));
    let next = session.deadline();
    session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
    session.take_output(next);
    assert!(session.deadline() > next, "any packet keeps the connection alive");
    let again = session.deadline();
    session.tick(again).unwrap();
    session.take_output(again);
    let Err(Cause::Closed { detail }) = session.tick(again + KEEP_ALIVE) else { panic!() };
    assert!(detail.contains("no PINGRESP within 30s"), "{detail}");
}

#[test]
fn packet_ids_go_round_without_zero() {
    let mut session = open(Instant::now());
    session.last_id = u16::MAX;
    assert_eq!(session.next_id(), 1);
}

#[test]
fn nothing_is_kept_of_packets_that_were_read() {
    let now = Instant::now();
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
    session.take_output(now);
    for byte in publish(CREATED, "{}", 7) {
        session.feed(Bytes::copy_from_slice(&[byte]));
        session.next_event(now).unwrap();
    }
    session.take_output(now);
    assert_eq!((session.pieces.capacity(), session.arrived.len(), session.out.capacity()), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Frames need not match packets: any division of the same bytes gives the same events.
    #[test]
    fn any_division_into_pieces_gives_the_same_events(cuts in proptest::collection::vec(1_usize..90, 1..80)) {
        let now = Instant::now();
        let mut session = open(now);
        session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
        let mut stream = [&[0x40, 2, 0, 2][..], &publish(CREATED, "first", 7), &publish(CREATED, "first", 7)].concat();
        stream.extend_from_slice(&[0xd0, 0]);
        let (mut events, mut rest) = (Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            session.feed(Bytes::copy_from_slice(piece));
            while let Some(event) = session.next_event(now).unwrap() { events.push(event); }
            rest = after;
            if rest.is_empty() { break; }
        }
        prop_assert_eq!(events, vec![accepted("first").unwrap()]);
        prop_assert_eq!(session.take_redelivered(), 1);
    }

    /// Whatever the input, the session refuses it or goes on; it never panics and never keeps more than one packet.
    #[test]
    fn any_bytes_are_survived(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let now = Instant::now();
        let mut session = open(now);
        session.publish(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"));
        for piece in pieces {
            session.feed(Bytes::from(piece));
            if !matches!(session.next_event(now), Ok(None)) { break; }
        }
    }
}

#[test]
fn what_nothing_asked_for_is_put_up_with_until_it_is_a_flood() {
    const PINGRESP: [u8; 2] = [0xd0, 0];
    const PUBACK: [u8; 4] = [0x40, 2, 0, 99];
    let start = Instant::now();
    for packet in [&PINGRESP[..], &PUBACK] {
        let mut session = open(start);
        let mut now = start;
        // No harm is done while we send something in between.
        for _ in 0..3 {
            for _ in 0..MAX_UNASKED {
                assert_eq!(receive(&mut session, packet, now), Ok(None));
            }
            now += KEEP_ALIVE;
            session.tick(now).unwrap();
            session.take_output(now);
            assert_eq!(receive(&mut session, &PINGRESP, now), Ok(None), "the answer to our own");
        }
        let many = packet.repeat(MAX_UNASKED as usize);
        assert_eq!(receive(&mut session, &many, now), Ok(None));
        let Err(Cause::Garbled { detail }) = receive(&mut session, packet, now) else { panic!("{packet:?}") };
        assert!(detail.contains("a flood: more than 1000"), "{detail}");
    }
}

#[test]
fn an_acknowledgement_goes_with_the_next_request_and_does_not_wait_for_long() {
    let now = Instant::now();
    let later = now + Duration::from_millis(10);
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::new());
    sent(&mut session, now);
    receive(&mut session, &publish(CREATED, "1", 5), now).unwrap();
    assert!(!session.wants_output(), "a request may follow at once");
    session.publish(Call::RegisterThing, Bytes::new());
    assert!(session.wants_output());
    let packets = sent(&mut session, later);
    assert!(
        matches!(&packets[..], [Packet::PubAck(ack), Packet::Publish(_)] if ack.pkid == 5),
        "{packets:?}"
    );

    receive(&mut session, &publish(REGISTERED, "1", 6), later).unwrap();
    assert_eq!(session.deadline(), later + ACK_DELAY);
    session.tick(later + ACK_DELAY / 2).unwrap();
    assert!(!session.wants_output());
    session.tick(later + ACK_DELAY).unwrap();
    assert!(session.wants_output());
    assert!(matches!(&sent(&mut session, later)[..], [Packet::PubAck(ack)] if ack.pkid == 6));
    assert!(session.deadline() > later + ACK_DELAY, "nothing is due any more");
}

#[test]
fn many_acknowledgements_do_not_wait() {
    let now = Instant::now();
    let mut session = open(now);
    session.publish(Call::CreateKeysAndCertificate, Bytes::new());
    sent(&mut session, now);
    let reply = publish(CREATED, "1", 5);
    let mut received = 0;
    while !session.wants_output() {
        receive(&mut session, &reply, now).unwrap();
        received += 1;
        assert!(received <= MANY_ACKS, "it asks for a write before the buffer grows");
    }
    assert_eq!(session.pending_output(), 4 * received);
}
