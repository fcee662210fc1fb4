//! MQTT 3.1.1 and 5 from a server's side: decodes and encodes packets, and validates topics and filters.
//!
//! Owns framing, and what a well-formed packet is. Knows no connection and no state beyond the protocol version.
//! Nothing is shared with the client, whose packets come from a library: each side notices the other's mistakes.
//! Sources: OASIS MQTT 3.1.1 and 5.0; section numbers in comments are those of 5.0, and match 3.1.1 for what both
//! versions have.

use bytes::{Bytes, BytesMut};

mod decode;
mod encode;
mod properties;
mod topic;

pub(super) use encode::{TOPIC_ALIASES, encode};
pub(super) use topic::{matches, valid_filter, valid_topic};

use super::scenario::{Limits, MAX_PAYLOAD, MAX_TOPIC};

/// The most bytes that may follow a packet's fixed header: the largest payload, the longest topic, a packet id, and
/// some properties.
pub(super) const MAX_REMAINING: usize = 2 + MAX_TOPIC as usize + 2 + MAX_PAYLOAD as usize + MAX_PROPERTIES;
/// The most bytes of properties that a packet may have besides a payload of the largest size.
const MAX_PROPERTIES: usize = 8 * 1024;
/// An empty buffer larger than this is released: thousands of connections are idle most of the time.
const KEPT_BUFFER: usize = 4096;

/// A connection's protocol version, from its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    #[default]
    V311,
    /// MQTT 5.
    V5,
}

/// The quality of service of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::enum_variant_names, reason = "the standard's own names")]
pub(super) enum QoS {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2, which the service does not support.
    ExactlyOnce,
}

/// A reason code of MQTT 5 (section 2.4). For MQTT 3.1.1 it is mapped to the closest code.
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

    /// A SUBACK's code for the granted QoS.
    pub(super) fn granted(qos: QoS) -> Self {
        Self(qos as u8)
    }
}

/// A packet that a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    Connect(Connect),
    Publish(Publish),
    /// A PUBACK with its packet id.
    PubAck(u16),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect,
}

/// A packet that the server sends.
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
    /// A DISCONNECT, in MQTT 5 only: in 3.1.1 the server cannot send one, and nothing is sent.
    Disconnect(Reason),
}

/// The relevant parts of a CONNECT. User name, password and will are checked for well-formedness; the first two are not
/// used, and a will is accepted and ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) version: Version,
    /// The client id, possibly empty.
    pub(super) client_id: String,
    /// Whether the client asks for a clean session.
    pub(super) clean_session: bool,
    /// The keep-alive that the client requests, seconds.
    pub(super) keep_alive: u16,
    /// How many unacknowledged QoS 1 messages the client accepts.
    pub(super) receive_maximum: u16,
    /// The largest packet that the client accepts, bytes.
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
    /// The connection's terms, which only MQTT 5 clients are told; `None` in a refusal.
    pub(super) terms: Option<Terms>,
}

/// What a CONNACK of MQTT 5 says about the connection (section 3.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// How many unacknowledged QoS 1 messages the server accepts.
    pub(super) receive_maximum: u16,
    /// The largest packet that the server accepts, bytes.
    pub(super) maximum_packet_size: u32,
    /// The id that the server assigned to a client without one.
    pub(super) assigned_client_id: Option<String>,
    /// The keep-alive that replaces the client's, seconds; `None` if the client's holds.
    pub(super) server_keep_alive: Option<u16>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    /// The topic; empty if `alias` stands for it.
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    /// The packet id; 0 for QoS 0.
    pub(super) id: u16,
    pub(super) is_duplicate: bool,
    /// A topic alias, a number that stands for the topic (MQTT 5).
    pub(super) alias: Option<u16>,
    /// The properties that are forwarded to the receivers, as they were in the packet (MQTT 5).
    pub(super) properties: Bytes,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribe {
    pub(super) id: u16,
    pub(super) filters: Vec<Filter>,
    /// Whether it has a subscription identifier (MQTT 5), which the service does not support.
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

/// Bytes that are not a packet that a client may send. The connection cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The packet is larger than the service accepts.
    #[error("a packet of {0} bytes, more than the service's largest message")]
    TooLarge(usize),
    /// The protocol or level is neither MQTT 3.1.1's nor MQTT 5's.
    #[error("CONNECT is for another protocol than MQTT 3.1.1 or 5")]
    ProtocolLevel,
    /// Any other error.
    #[error("{0}")]
    Packet(&'static str),
}

/// Reassembles packets from a byte stream or from WebSocket messages: a packet may span messages, and a message may
/// hold several packets. Packets after a CONNECT are decoded in its protocol version.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    version: Version,
}

impl Decoder {
    /// Appends received bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete packet; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Malformed`] as soon as the bytes cannot become a packet. Whatever follows them is meaningless.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Malformed> {
        let Some(frame) = decode::Frame::parse(&self.buffer)? else {
            return Ok(None);
        };
        if self.buffer.len() < frame.length() {
            // Memory is allocated as bytes arrive, not because a header announces them.
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
