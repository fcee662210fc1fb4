//! Properties of MQTT 5 (section 2.2.2): their ids, their types, and which packets may have them.

use super::Malformed;
use super::decode::{split_field, split_text, split_variable};

pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
pub(super) const CONTENT_TYPE: u8 = 0x03;
pub(super) const RESPONSE_TOPIC: u8 = 0x08;
pub(super) const CORRELATION_DATA: u8 = 0x09;
pub(super) const SUBSCRIPTION_ID: u8 = 0x0b;
pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
pub(super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(super) const WILL_DELAY: u8 = 0x18;
pub(super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(super) const SERVER_REFERENCE: u8 = 0x1c;
pub(super) const REASON_STRING: u8 = 0x1f;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const WILDCARD_AVAILABLE: u8 = 0x28;
pub(super) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
pub(super) const SHARED_AVAILABLE: u8 = 0x2a;

/// The properties that a client may send in a CONNECT.
pub(super) const IN_CONNECT: &[u8] = &[
    SESSION_EXPIRY,
    AUTHENTICATION_METHOD,
    AUTHENTICATION_DATA,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RECEIVE_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    USER_PROPERTY,
    MAXIMUM_PACKET_SIZE,
];
pub(super) const IN_WILL: &[u8] = &[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    WILL_DELAY,
    USER_PROPERTY,
];
pub(super) const IN_PUBLISH: &[u8] = &[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    TOPIC_ALIAS,
    USER_PROPERTY,
];
pub(super) const IN_PUBACK: &[u8] = &[REASON_STRING, USER_PROPERTY];
pub(super) const IN_SUBSCRIBE: &[u8] = &[SUBSCRIPTION_ID, USER_PROPERTY];
pub(super) const IN_UNSUBSCRIBE: &[u8] = &[USER_PROPERTY];
pub(super) const IN_DISCONNECT: &[u8] = &[SESSION_EXPIRY, REASON_STRING, USER_PROPERTY, SERVER_REFERENCE];

/// One property.
pub(super) struct Property<'a> {
    pub(super) id: u8,
    /// The value of a numeric property; 0 for any other.
    pub(super) number: u32,
    /// The id and value, as they were in the packet.
    pub(super) raw: &'a [u8],
}

/// Splits the properties off the beginning of `bytes`. Returns them and the rest.
pub(super) fn split_properties<'a>(
    bytes: &'a [u8],
    allowed: &[u8],
) -> Result<(Vec<Property<'a>>, &'a [u8]), Malformed> {
    const SHORT: Malformed = Malformed::Packet("properties that are cut short");
    let (length, rest) = split_variable(bytes)?;
    let (mut list, rest) = rest.split_at_checked(length as usize).ok_or(SHORT)?;
    let mut properties: Vec<Property<'_>> = Vec::new();
    while let Some((&id, value)) = list.split_first() {
        if !allowed.contains(&id) {
            return Err(Malformed::Packet("a property that its packet may not have"));
        }
        if id != USER_PROPERTY && properties.iter().any(|known| known.id == id) {
            return Err(Malformed::Packet("a property that is there twice"));
        }
        let (number, after) = split_value(id, value)?;
        let raw = &list[..list.len() - after.len()];
        properties.push(Property { id, number, raw });
        list = after;
    }
    Ok((properties, rest))
}

fn split_value(id: u8, value: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    const SHORT: Malformed = Malformed::Packet("a property that is cut short");
    match id {
        PAYLOAD_FORMAT | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
            let (&byte, rest) = value.split_first().ok_or(SHORT)?;
            if byte > 1 {
                return Err(Malformed::Packet("a property that is neither 0 nor 1"));
            }
            Ok((byte.into(), rest))
        }
        RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => {
            let (bytes, rest) = value.split_first_chunk::<2>().ok_or(SHORT)?;
            Ok((u16::from_be_bytes(*bytes).into(), rest))
        }
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | MAXIMUM_PACKET_SIZE => {
            let (bytes, rest) = value.split_first_chunk::<4>().ok_or(SHORT)?;
            Ok((u32::from_be_bytes(*bytes), rest))
        }
        SUBSCRIPTION_ID => split_variable(value),
        CORRELATION_DATA | AUTHENTICATION_DATA => Ok((0, split_field(value)?.1)),
        USER_PROPERTY => Ok((0, split_text(split_text(value)?.1)?.1)),
        _ => Ok((0, split_text(value)?.1)),
    }
}
