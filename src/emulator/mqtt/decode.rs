//! Decodes packets from bytes: the fixed header, and the body of each packet that a client sends.

use bytes::Bytes;

use super::properties::{self, Property, split_properties};
use super::{
    Connect, Filter, Incoming, MAX_REMAINING, Malformed, Publish, QoS, Subscribe, Unsubscribe, Version,
};

/// The fixed header (section 2.1).
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    /// The header's length, bytes.
    header: usize,
    /// The length of the rest of the packet, bytes.
    remaining: usize,
}

impl Frame {
    /// The header at the beginning of `bytes`; `None` until it is complete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
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

    /// The length of the whole packet, bytes.
    pub(super) fn length(&self) -> usize {
        self.header + self.remaining
    }

    /// Decodes the packet in `bytes`.
    pub(super) fn decode(&self, bytes: Bytes, version: Version) -> Result<Incoming, Malformed> {
        let body = bytes.slice(self.header..);
        match self.kind {
            1 => connect(&body).map(Incoming::Connect),
            3 => publish(&body, self.flags, version).map(Incoming::Publish),
            4 => puback(&body, version).map(Incoming::PubAck),
            8 => subscribe(&body, version).map(Incoming::Subscribe),
            10 => unsubscribe(&body, version).map(Incoming::Unsubscribe),
            12 if body.is_empty() => Ok(Incoming::PingReq),
            12 => Err(Malformed::Packet("a PINGREQ with a body")),
            14 => disconnect(&body, version).map(|()| Incoming::Disconnect),
            _ => Err(Malformed::Packet("a packet that only a server sends")),
        }
    }
}

/// Checks the reserved flags (section 2.1.3), and refuses packets that a client limited to QoS 0 and 1 never sends.
fn check_flags(kind: u8, flags: u8) -> Result<(), Malformed> {
    let wanted = match kind {
        3 if flags & 0b0110 == 0b0110 => return Err(Malformed::Packet("a PUBLISH at QoS 3")),
        3 if flags & 0b1110 == 0b1000 => {
            return Err(Malformed::Packet("a PUBLISH at QoS 0 with DUP set"));
        }
        3 => flags,
        8 | 10 => 0b0010,
        1 | 4 | 12 | 14 => 0,
        5..=7 => {
            return Err(Malformed::Packet("a packet of the QoS 2 exchange, which the service does not have"));
        }
        15 => return Err(Malformed::Packet("an AUTH, without an authentication method to go on with")),
        2 | 9 | 11 | 13 => return Err(Malformed::Packet("a packet that only a server sends")),
        _ => return Err(Malformed::Packet("a packet of a reserved type")),
    };
    if flags == wanted {
        Ok(())
    } else {
        Err(Malformed::Packet("reserved flags are set in the fixed header"))
    }
}

/// Decodes a CONNECT (section 3.1).
fn connect(body: &[u8]) -> Result<Connect, Malformed> {
    const SHORT: Malformed = Malformed::Packet("a CONNECT that is cut short");
    let (name, rest) = split_field(body)?;
    let (&level, rest) = rest.split_first().ok_or(SHORT)?;
    // Level 3 is MQTT 3.1, whose protocol name is MQIsdp.
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        _ => return Err(Malformed::ProtocolLevel),
    };
    let (&[flags, high, low], rest) = rest.split_first_chunk::<3>().ok_or(SHORT)?;
    check_connect_flags(flags, version)?;
    let (properties, rest) = properties_of(version, rest, properties::IN_CONNECT)?;
    let (client_id, rest) = split_text(rest)?;
    let has = |flag: u8| flags & flag != 0;
    let rest = if has(0b0100) {
        let (_, rest) = properties_of(version, rest, properties::IN_WILL)?;
        split_field(split_text(rest)?.1)?.1
    } else {
        rest
    };
    let rest = if has(0b1000_0000) { split_text(rest)?.1 } else { rest };
    let rest = if has(0b0100_0000) { split_field(rest)?.1 } else { rest };
    if !rest.is_empty() {
        return Err(Malformed::Packet("a CONNECT with bytes after its last field"));
    }
    let number = |id| properties.iter().find(|property| property.id == id).map(|property| property.number);
    let receive_maximum = number(properties::RECEIVE_MAXIMUM).unwrap_or(u16::MAX.into());
    let maximum_packet_size = number(properties::MAXIMUM_PACKET_SIZE).unwrap_or(u32::MAX);
    if receive_maximum == 0 || maximum_packet_size == 0 {
        return Err(Malformed::Packet("a receive maximum or a maximum packet size of 0"));
    }
    Ok(Connect {
        version,
        client_id: client_id.to_owned(),
        clean_session: has(0b0010),
        keep_alive: u16::from_be_bytes([high, low]),
        receive_maximum: u16::try_from(receive_maximum).unwrap_or(u16::MAX),
        maximum_packet_size,
    })
}

fn check_connect_flags(flags: u8, version: Version) -> Result<(), Malformed> {
    let will = flags & 0b0100 != 0;
    let will_details = flags & 0b0011_1000;
    let (user_name, password) = (flags & 0b1000_0000 != 0, flags & 0b0100_0000 != 0);
    if flags & 1 != 0
        || (!will && will_details != 0)
        || will_details & 0b1_1000 == 0b1_1000
        // MQTT 5 allows a password without a user name (section 3.1.2.9).
        || (password && !user_name && version == Version::V311)
    {
        return Err(Malformed::Packet("a CONNECT whose flags contradict each other"));
    }
    Ok(())
}

/// Decodes a PUBLISH (section 3.3).
fn publish(body: &Bytes, flags: u8, version: Version) -> Result<Publish, Malformed> {
    let qos = qos(flags >> 1 & 0b11)?;
    let (topic, rest) = split_text(body)?;
    let (id, rest) = if qos == QoS::AtMostOnce { (0, rest) } else { split_id(rest)? };
    let (properties, rest) = properties_of(version, rest, properties::IN_PUBLISH)?;
    let alias = properties.iter().find(|property| property.id == properties::TOPIC_ALIAS);
    if topic.is_empty() && alias.is_none() {
        return Err(Malformed::Packet("a PUBLISH without a topic"));
    }
    let kept = properties.iter().filter(|property| property.id != properties::TOPIC_ALIAS);
    Ok(Publish {
        topic: topic.to_owned(),
        payload: body.slice(body.len() - rest.len()..),
        qos,
        id,
        is_duplicate: flags & 0b1000 != 0,
        alias: alias.map(|alias| u16::try_from(alias.number).unwrap_or_default()),
        properties: kept.flat_map(|property| property.raw).copied().collect(),
    })
}

/// Decodes a PUBACK (section 3.4). In MQTT 5 it may have a reason and properties; neither changes that the message was
/// received.
fn puback(body: &[u8], version: Version) -> Result<u16, Malformed> {
    let (id, rest) = split_id(body)?;
    let rest = match (version, rest) {
        (Version::V311, rest) => rest,
        (Version::V5, [] | [_]) => &[],
        (Version::V5, [_, rest @ ..]) => split_properties(rest, properties::IN_PUBACK)?.1,
    };
    if rest.is_empty() { Ok(id) } else { Err(Malformed::Packet("a PUBACK with bytes after its last field")) }
}

/// Decodes a SUBSCRIBE (section 3.8).
fn subscribe(body: &[u8], version: Version) -> Result<Subscribe, Malformed> {
    let (id, rest) = split_id(body)?;
    let (properties, mut rest) = properties_of(version, rest, properties::IN_SUBSCRIBE)?;
    let has_subscription_id = !properties.iter().all(|property| property.id != properties::SUBSCRIPTION_ID);
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let (path, after) = split_text(rest)?;
        let (&options, after) = after.split_first().ok_or(Malformed::Packet("a filter without a QoS"))?;
        // MQTT 3.1.1 has only the QoS here; MQTT 5 also has No Local, Retain As Published and Retain Handling, whose
        // value 3 is reserved.
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 || options & 0b0011_0000 == 0b0011_0000 {
            return Err(Malformed::Packet("a filter with options that are reserved"));
        }
        let is_no_local = options & 0b0100 != 0;
        filters.push(Filter { path: path.to_owned(), qos: qos(options & 0b11)?, is_no_local });
        rest = after;
    }
    if filters.is_empty() {
        return Err(Malformed::Packet("a SUBSCRIBE without a filter"));
    }
    Ok(Subscribe { id, filters, has_subscription_id })
}

/// Decodes an UNSUBSCRIBE (section 3.10).
fn unsubscribe(body: &[u8], version: Version) -> Result<Unsubscribe, Malformed> {
    let (id, rest) = split_id(body)?;
    let (_, mut rest) = properties_of(version, rest, properties::IN_UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let (path, after) = split_text(rest)?;
        filters.push(path.to_owned());
        rest = after;
    }
    if filters.is_empty() {
        return Err(Malformed::Packet("an UNSUBSCRIBE without a filter"));
    }
    Ok(Unsubscribe { id, filters })
}

/// Decodes a DISCONNECT (section 3.14).
fn disconnect(body: &[u8], version: Version) -> Result<(), Malformed> {
    let rest = match (version, body) {
        (Version::V311, rest) => rest,
        (Version::V5, [] | [_]) => &[],
        (Version::V5, [_, rest @ ..]) => split_properties(rest, properties::IN_DISCONNECT)?.1,
    };
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Malformed::Packet("a DISCONNECT with bytes after its last field"))
    }
}

/// Splits off the properties, if the version has them.
fn properties_of<'a>(
    version: Version,
    bytes: &'a [u8],
    allowed: &[u8],
) -> Result<(Vec<Property<'a>>, &'a [u8]), Malformed> {
    match version {
        Version::V311 => Ok((Vec::new(), bytes)),
        Version::V5 => split_properties(bytes, allowed),
    }
}

fn qos(bits: u8) -> Result<QoS, Malformed> {
    match bits {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err(Malformed::Packet("a QoS that is not 0, 1 or 2")),
    }
}

/// Splits off a packet id, which is never 0 (section 2.2.1).
fn split_id(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    match bytes.split_first_chunk::<2>() {
        None => Err(Malformed::Packet("a packet that ends before its packet id")),
        Some(([0, 0], _)) => Err(Malformed::Packet("packet id 0")),
        Some((id, rest)) => Ok((u16::from_be_bytes(*id), rest)),
    }
}

/// Splits off a field: a length of two bytes, and that many bytes.
pub(super) fn split_field(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    const SHORT: Malformed = Malformed::Packet("a field that is longer than its packet");
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(SHORT)?;
    rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(SHORT)
}

/// Splits off a text field (section 1.5.4).
pub(super) fn split_text(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (field, rest) = split_field(bytes)?;
    match std::str::from_utf8(field) {
        Ok(text) if !text.contains('\0') => Ok((text, rest)),
        _ => Err(Malformed::Packet("a text that is not UTF-8, or holds U+0000")),
    }
}

/// Splits off a variable byte integer (section 1.5.5).
pub(super) fn split_variable(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(Malformed::Packet("a number that is cut short, or has more than four bytes"))
}
