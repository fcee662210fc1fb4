//! MQTT 3.1.1 as a server reads it: bytes to packets, and what topics and filters may look like.
//!
//! Owns framing, the checks that the packet library leaves out, and topic matching. Knows no connection and no state.
//!
//! rumqttc's parsers were written for a client that trusts its broker: they ignore reserved flags, take packet id 0 and
//! empty UNSUBSCRIBEs, want passwords in UTF-8, and cannot say what was wrong with another protocol level. So the fixed
//! header and CONNECT are read here, and the rest is checked around the library's own reading.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish, Subscribe, Unsubscribe};
use rumqttc::mqttbytes::{Error, QoS};

use super::scenario::{Limits, MAX_PAYLOAD, MAX_TOPIC};

/// A packet with the largest payload behind the longest topic and a packet id.
const MAX_REMAINING: usize = 2 + MAX_TOPIC as usize + 2 + MAX_PAYLOAD as usize;
/// An empty buffer that grew beyond this gives its memory back: thousands of connections idle most of their time.
const KEPT_BUFFER: usize = 4096;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// CONNECT.
    Connect(Connect),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    PubAck(PubAck),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect,
}

/// What matters of a CONNECT. User name, password and will were read and found well-formed; the service does not need the
/// first two here, and a will is taken and forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    /// The client id, possibly empty.
    pub(super) client_id: String,
    /// Whether the session starts clean.
    pub(super) clean_session: bool,
    /// The keep-alive that the client asks for, seconds.
    pub(super) keep_alive: u16,
}

/// Bytes that are no packet that a client may send. The connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The packet is larger than any the service takes.
    #[error("a packet of {0} bytes, more than the service's largest message")]
    TooLarge(usize),
    /// Another protocol or level than MQTT 3.1.1's.
    #[error("CONNECT is for another protocol than MQTT level 4")]
    ProtocolLevel,
    /// Anything else.
    #[error("{0}")]
    Packet(&'static str),
}

/// Reassembles packets from WebSocket messages: a packet may span messages, and a message may hold many.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet, if there is one.
    ///
    /// # Errors
    ///
    /// [`Malformed`] as soon as the bytes cannot become a packet; what follows them is meaningless.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Malformed> {
        let Some(frame) = Frame::parse(&self.buffer)? else {
            return Ok(None);
        };
        let length = frame.header + frame.remaining;
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        let bytes = self.buffer.split_to(length);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = BytesMut::new();
        }
        frame.decode(bytes).map(Some)
    }
}

/// The fixed header (MQTT 3.1.1 section 2.2).
struct Frame {
    kind: u8,
    flags: u8,
    /// Its length, bytes.
    header: usize,
    /// The length of what follows it, bytes.
    remaining: usize,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (kind, flags) = (first >> 4, first & 0x0f);
        check_flags(kind, flags)?;
        let mut remaining = 0_usize;
        for (at, &byte) in rest.iter().take(4).enumerate() {
            remaining |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return match remaining {
                    0..=MAX_REMAINING => Ok(Some(Self { kind, flags, header: at + 2, remaining })),
                    _ => Err(Malformed::TooLarge(remaining)),
                };
            }
        }
        if rest.len() < 4 {
            Ok(None)
        } else {
            Err(Malformed::Packet("a remaining length of more than four bytes"))
        }
    }

    fn decode(&self, mut bytes: BytesMut) -> Result<Incoming, Malformed> {
        let body = &bytes[self.header..];
        match self.kind {
            1 => Connect::parse(body).map(Incoming::Connect),
            8 => check_subscribe(body).and_then(|()| self.library(&mut bytes)),
            4 if body.len() != 2 => Err(Malformed::Packet("a PUBACK that is not a packet id")),
            12 | 14 if !body.is_empty() => Err(Malformed::Packet("a PINGREQ or DISCONNECT with a body")),
            12 => Ok(Incoming::PingReq),
            14 => Ok(Incoming::Disconnect),
            _ => self.library(&mut bytes),
        }
    }

    /// Lets the library read the packet, and checks what it does not.
    fn library(&self, bytes: &mut BytesMut) -> Result<Incoming, Malformed> {
        match Packet::read(bytes, MAX_REMAINING).map_err(|error| describe(self.kind, &error))? {
            Packet::Publish(publish) if publish.qos == QoS::AtMostOnce && self.flags & 0b1000 != 0 => {
                Err(Malformed::Packet("a PUBLISH at QoS 0 with DUP set"))
            }
            Packet::Publish(publish) => Ok(Incoming::Publish(publish)),
            Packet::PubAck(PubAck { pkid: 0 }) => Err(Malformed::Packet("packet id 0")),
            Packet::PubAck(ack) => Ok(Incoming::PubAck(ack)),
            Packet::Subscribe(subscribe) if subscribe.pkid == 0 => Err(Malformed::Packet("packet id 0")),
            Packet::Subscribe(subscribe) => Ok(Incoming::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) if unsubscribe.pkid == 0 => {
                Err(Malformed::Packet("packet id 0"))
            }
            Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.is_empty() => {
                Err(Malformed::Packet("an UNSUBSCRIBE without a filter"))
            }
            Packet::Unsubscribe(unsubscribe) => Ok(Incoming::Unsubscribe(unsubscribe)),
            _ => Err(Malformed::Packet("a packet that only a server sends")),
        }
    }
}

/// The reserved flags (MQTT 3.1.1 section 2.2.2), and the packets that a client of QoS 0 and 1 has no use for.
fn check_flags(kind: u8, flags: u8) -> Result<(), Malformed> {
    let wanted = match kind {
        3 if flags & 0b0110 != 0b0110 => flags,
        3 => return Err(Malformed::Packet("a PUBLISH at QoS 3")),
        8 | 10 => 0b0010,
        1 | 4 | 12 | 14 => 0,
        5..=7 => {
            return Err(Malformed::Packet("a packet of the QoS 2 exchange, which the service does not have"));
        }
        2 | 9 | 11 | 13 => return Err(Malformed::Packet("a packet that only a server sends")),
        _ => return Err(Malformed::Packet("a packet of a reserved type")),
    };
    if flags == wanted {
        Ok(())
    } else {
        Err(Malformed::Packet("reserved flags are set in the fixed header"))
    }
}

/// The reserved bits of each requested QoS (MQTT 3.1.1 section 3.8.3), which the library masks out.
fn check_subscribe(body: &[u8]) -> Result<(), Malformed> {
    let mut rest = body.get(2..).ok_or(Malformed::Packet("a SUBSCRIBE without a packet id"))?;
    while !rest.is_empty() {
        let (_, after) = split_field(rest)?;
        let (&options, after) = after.split_first().ok_or(Malformed::Packet("a filter without a QoS"))?;
        if options > 2 {
            return Err(Malformed::Packet("a requested QoS that is not 0, 1 or 2"));
        }
        rest = after;
    }
    Ok(())
}

fn describe(kind: u8, error: &Error) -> Malformed {
    Malformed::Packet(match (error, kind) {
        (Error::TopicNotUtf8, _) => "a topic or filter that is not UTF-8",
        (Error::PacketIdZero, _) => "packet id 0",
        (Error::EmptySubscription, _) => "a SUBSCRIBE without a filter",
        (_, 3) => "a PUBLISH that is cut short",
        (_, 8) => "a SUBSCRIBE that is cut short",
        (_, 10) => "an UNSUBSCRIBE that is cut short",
        _ => "a packet that is cut short",
    })
}

impl Connect {
    /// Reads a CONNECT's body (MQTT 3.1.1 section 3.1).
    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (name, rest) = split_field(body)?;
        let (&level, mut rest) =
            rest.split_first().ok_or(Malformed::Packet("a CONNECT that is cut short"))?;
        // Level 3 is MQTT 3.1, named MQIsdp; level 5 puts properties where we would look for the client id.
        if (name, level) != (b"MQTT", 4) {
            return Err(Malformed::ProtocolLevel);
        }
        if rest.len() < 3 {
            return Err(Malformed::Packet("a CONNECT that is cut short"));
        }
        let flags = rest.get_u8();
        let keep_alive = rest.get_u16();
        check_connect_flags(flags)?;
        let (client_id, rest) = split_text(rest)?;
        let rest = if flags & 0b0100 == 0 { rest } else { split_field(split_text(rest)?.1)?.1 };
        let rest = if flags & 0b1000_0000 == 0 { rest } else { split_text(rest)?.1 };
        let rest = if flags & 0b0100_0000 == 0 { rest } else { split_field(rest)?.1 };
        if !rest.is_empty() {
            return Err(Malformed::Packet("a CONNECT with bytes after its last field"));
        }
        Ok(Self { client_id: client_id.to_owned(), clean_session: flags & 0b0010 != 0, keep_alive })
    }
}

fn check_connect_flags(flags: u8) -> Result<(), Malformed> {
    let will = flags & 0b0100 != 0;
    let will_details = flags & 0b0011_1000;
    let (user_name, password) = (flags & 0b1000_0000 != 0, flags & 0b0100_0000 != 0);
    if flags & 1 != 0
        || (!will && will_details != 0)
        || will_details & 0b1_1000 == 0b1_1000
        || (password && !user_name)
    {
        return Err(Malformed::Packet("a CONNECT whose flags contradict each other"));
    }
    Ok(())
}

/// A length of two bytes, and that many bytes.
fn split_field(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    const SHORT: Malformed = Malformed::Packet("a field that is longer than its packet");
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(SHORT)?;
    rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(SHORT)
}

/// A field that is text (MQTT 3.1.1 section 1.5.3).
fn split_text(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (field, rest) = split_field(bytes)?;
    match std::str::from_utf8(field) {
        Ok(text) if !text.contains('\0') => Ok((text, rest)),
        _ => Err(Malformed::Packet("a text that is not UTF-8, or holds U+0000")),
    }
}

/// Whether the service lets anyone publish to `topic`: no wildcards, within its limits (MQTT 3.1.1 section 4.7).
pub(super) fn valid_topic(topic: &str, limits: &Limits) -> bool {
    within_limits(topic, limits) && !topic.contains(['+', '#'])
}

/// Whether the service lets anyone subscribe to `filter`: wildcards fill whole levels, `#` only the last
/// (MQTT 3.1.1 section 4.7.1).
pub(super) fn valid_filter(filter: &str, limits: &Limits) -> bool {
    let mut levels = filter.split('/').rev();
    let last = levels.next().unwrap_or_default();
    let whole = |level: &str| level == "+" || !level.contains(['+', '#']);
    within_limits(filter, limits) && (last == "#" || whole(last)) && levels.all(whole)
}

fn within_limits(text: &str, limits: &Limits) -> bool {
    !text.is_empty()
        && text.len() <= limits.topic_bytes as usize
        && !text.contains('\0')
        && text.split('/').count() <= limits.topic_levels as usize
}

/// Whether `filter` selects `topic`; both are valid. A filter that starts with a wildcard selects no topic that starts with
/// `$` (MQTT 3.1.1 section 4.7.2).
///
/// Not the library's, which panics if a topic starts with a character beyond ASCII.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// A packet as one WebSocket message.
///
/// # Panics
///
/// Never: what the server sends fits MQTT's limit of 256 MB, and its packet ids are not 0.
pub(super) fn encode(packet: &Packet) -> Bytes {
    let mut out = BytesMut::with_capacity(packet.size());
    packet.write(&mut out, usize::MAX).expect("the server's own packets are well-formed");
    out.freeze()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn filters_select_as_the_standard_says() {
        for (filter, topic, selects) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "$aws/a", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "/finance", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("ü/+", "ü/ß", true),
        ] {
            assert_eq!(matches(filter, topic), selects, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_and_topics_keep_to_the_rules() {
        for filter in ["#", "+", "a/+/b", "a/#", "/", "+/#", "a//b", "1/2/3/4/5/6/7/8"] {
            assert!(valid_filter(filter, &Limits::default()), "{filter}");
        }
        for filter in ["", "a#", "#/a", "a+", "a/b+/c", "1/2/3/4/5/6/7/8/9", "a\0", &"a".repeat(257)] {
            assert!(!valid_filter(filter, &Limits::default()), "{filter}");
        }
        assert!(valid_topic("a/b", &Limits::default()));
        assert!(!valid_topic("a/+", &Limits::default()));
        assert!(!valid_topic("a/#", &Limits::default()));
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

        #[test]
        fn matching_agrees_with_a_plain_definition(filter in "[ab+]?(/[ab+]){0,3}(/#)?", topic in "[ab]?(/[ab]){0,4}") {
            prop_assume!(valid_filter(&filter, &Limits::default()) && valid_topic(&topic, &Limits::default()));
            fn plain(filter: &[&str], topic: &[&str]) -> bool {
                match (filter, topic) {
                    (["#"], _) | ([], []) => true,
                    ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && plain(filter, topic),
                    _ => false,
                }
            }
            let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
            prop_assert_eq!(matches(&filter, &topic), plain(&f, &t));
        }
    }
}
