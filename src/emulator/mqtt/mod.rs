//! MQTT 3.1.1 and 5 as a server reads and writes them: bytes to packets and back, and what topics and filters may look like.
//!
//! Owns framing and what a well-formed packet is. Knows no connection and no state beyond the protocol version. Nothing here
//! is shared with the client, whose packets come from a library: what one side gets wrong, the other notices. Sources: OASIS
//! MQTT 3.1.1 and 5.0; the section numbers in comments are those of 5.0, which are the same for what both have.

use bytes::{Bytes, BytesMut};

mod decode;
mod encode;
mod properties;
mod topic;

pub(super) use encode::{TOPIC_ALIASES, encode};
pub(super) use topic::{matches, valid_filter, valid_topic};

use super::scenario::{Limits, MAX_PAYLOAD, MAX_TOPIC};

/// A packet with the largest payload behind the longest topic, a packet id, and some properties.
pub(super) const MAX_REMAINING: usize = 2 + MAX_TOPIC as usize + 2 + MAX_PAYLOAD as usize + MAX_PROPERTIES;
/// The most bytes of properties that a packet may carry beside a payload of the largest size.
const MAX_PROPERTIES: usize = 8 * 1024;
/// An empty buffer that grew beyond this gives its memory back: thousands of connections idle most of their time.
const KEPT_BUFFER: usize = 4096;

/// The protocol of a connection, as its CONNECT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    #[default]
    V311,
    /// MQTT 5.
    V5,
}

/// How often a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::enum_variant_names, reason = "the standard's own names")]
pub(super) enum QoS {
    /// 0.
    AtMostOnce,
    /// 1.
    AtLeastOnce,
    /// 2, which the service does not have.
    ExactlyOnce,
}

/// A reason code of MQTT 5 (section 2.4). MQTT 3.1.1 gets what comes closest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason(pub(super) u8);

impl Reason {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    pub(super) const UNSPECIFIED: Self = Self(0x80);
    pub(super) const MALFORMED_PACKET: Self = Self(0x81);
    pub(super) const PROTOCOL_ERROR: Self = Self(0x82);
    pub(super) const UNSUPPORTED_VERSION: Self = Self(0x84);
    pub(super) const CLIENT_ID_NOT_VALID: Self = Self(0x85);
    pub(super) const NOT_AUTHORIZED: Self = Self(0x87);
    pub(super) const SERVER_UNAVAILABLE: Self = Self(0x88);
    pub(super) const SERVER_SHUTTING_DOWN: Self = Self(0x8b);
    pub(super) const KEEP_ALIVE_TIMEOUT: Self = Self(0x8d);
    pub(super) const SESSION_TAKEN_OVER: Self = Self(0x8e);
    pub(super) const TOPIC_FILTER_INVALID: Self = Self(0x8f);
    pub(super) const TOPIC_NAME_INVALID: Self = Self(0x90);
    pub(super) const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub(super) const PACKET_TOO_LARGE: Self = Self(0x95);
    pub(super) const QUOTA_EXCEEDED: Self = Self(0x97);
    pub(super) const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    pub(super) const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0x9e);
    pub(super) const MAXIMUM_CONNECT_TIME: Self = Self(0xa0);
    pub(super) const SUBSCRIPTION_IDS_NOT_SUPPORTED: Self = Self(0xa1);

    /// A SUBACK's code for what was granted.
    pub(super) fn granted(qos: QoS) -> Self {
        Self(qos as u8)
    }
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    Connect(Connect),
    Publish(Publish),
    /// With the packet id.
    PubAck(u16),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck {
        id: u16,
        reason: Reason,
    },
    SubAck {
        id: u16,
        reasons: Vec<Reason>,
    },
    UnsubAck {
        id: u16,
        reasons: Vec<Reason>,
    },
    PingResp,
    /// MQTT 5 only: 3.1.1 has none from the server, and gets nothing.
    Disconnect(Reason),
}

/// What matters of a CONNECT. User name, password and will were read and found well-formed; the service does not need the
/// first two here, and a will is taken and forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) version: Version,
    /// Possibly empty.
    pub(super) client_id: String,
    /// Whether the session starts clean.
    pub(super) clean_session: bool,
    /// The keep-alive that the client asks for, seconds.
    pub(super) keep_alive: u16,
    /// How many QoS 1 messages the client takes before it acknowledges one.
    pub(super) receive_maximum: u16,
    /// The largest packet that the client takes, bytes.
    pub(super) maximum_packet_size: u32,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            version: Version::V311,
            client_id: String::new(),
            clean_session: true,
            keep_alive: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
        }
    }
}

/// The answer to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnAck {
    pub(super) reason: Reason,
    /// What the connection may do, which only MQTT 5 is told. `None` with a refusal.
    pub(super) terms: Option<Terms>,
}

/// What a CONNACK of MQTT 5 says about the connection (section 3.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// How many QoS 1 messages the server takes before it acknowledges one.
    pub(super) receive_maximum: u16,
    /// The largest packet that the server takes, bytes.
    pub(super) maximum_packet_size: u32,
    /// The id that the server gave to a client without one.
    pub(super) assigned_client_id: Option<String>,
    /// The keep-alive that holds in place of the one the client asked for, seconds.
    pub(super) server_keep_alive: Option<u16>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    /// Empty where `alias` stands for it.
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    /// The packet id; 0 at QoS 0.
    pub(super) id: u16,
    pub(super) is_duplicate: bool,
    /// A number for the topic (MQTT 5).
    pub(super) alias: Option<u16>,
    /// The properties that go with the message to its receivers, as they stood in the packet (MQTT 5).
    pub(super) properties: Bytes,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribe {
    pub(super) id: u16,
    pub(super) filters: Vec<Filter>,
    /// Whether it wants messages to name the subscription (MQTT 5), which the service does not do.
    pub(super) has_subscription_id: bool,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) path: String,
    pub(super) qos: QoS,
    /// Whether the client's own messages are left out (MQTT 5).
    pub(super) is_no_local: bool,
}

/// An UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsubscribe {
    pub(super) id: u16,
    pub(super) filters: Vec<String>,
}

/// Bytes that are not a packet that a client may send. The connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The packet is larger than any the service takes.
    #[error("a packet of {0} bytes, more than the service's largest message")]
    TooLarge(usize),
    /// Another protocol or level than MQTT 3.1.1's and 5's.
    #[error("CONNECT is for another protocol than MQTT 3.1.1 or 5")]
    ProtocolLevel,
    /// Anything else.
    #[error("{0}")]
    Packet(&'static str),
}

/// Reassembles packets from a stream of bytes, or from WebSocket messages: a packet may span messages, and a message may hold
/// many. Everything after a CONNECT is read in its protocol version.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    version: Version,
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
        let Some(frame) = decode::Frame::parse(&self.buffer)? else {
            return Ok(None);
        };
        if self.buffer.len() < frame.length() {
            // Memory comes with the bytes, not with a header that promises some.
            return Ok(None);
        }
        let bytes = self.buffer.split_to(frame.length()).freeze();
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = BytesMut::new();
        }
        let packet = frame.decode(bytes, self.version)?;
        if let Incoming::Connect(connect) = &packet {
            self.version = connect.version;
        }
        Ok(Some(packet))
    }
}

#[cfg(test)]
mod tests;
