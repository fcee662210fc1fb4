//! MQTT 3.1.1 as a server reads it: bytes to packets, and what topics and filters may look like.
//!
//! Owns framing and the checks that the packet library leaves out. Knows no connection and no state.
//!
//! rumqttc's parsers were written for a client that trusts its broker: they ignore reserved flags, take packet id 0 and
//! empty UNSUBSCRIBEs, want passwords in UTF-8, and cannot say what was wrong with another protocol level. So the fixed
//! header and CONNECT are read here, and the rest is checked around the library's own reading.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish, Subscribe, Unsubscribe};
use rumqttc::mqttbytes::{Error, QoS};

mod connect;
mod topic;

pub(super) use connect::Connect;
pub(super) use topic::{matches, valid_filter, valid_topic};

use super::scenario::{Limits, MAX_PAYLOAD, MAX_TOPIC};
use connect::split_field;

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
mod tests;
