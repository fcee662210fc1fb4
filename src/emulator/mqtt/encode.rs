//! Encodes packets in the protocol version of their connection.

use bytes::{BufMut, Bytes, BytesMut};

use super::properties as property;
use super::{ConnAck, Packet, Publish, QoS, Reason, Terms, Version};

/// The highest topic alias that the service accepts from a client (Service Quotas, AWS IoT Core).
pub(in super::super) const TOPIC_ALIASES: u16 = 8;

/// A packet as it goes on the wire. `None` if it cannot be sent: a DISCONNECT in MQTT 3.1.1, or a text or packet that
/// is too long for MQTT.
pub(in super::super) fn encode(packet: &Packet, version: Version) -> Option<Bytes> {
    let is_v5 = version == Version::V5;
    let mut body = BytesMut::new();
    let first = match packet {
        Packet::ConnAck(connack) => {
            put_connack(&mut body, connack, version)?;
            0x20
        }
        Packet::Publish(publish) => {
            put_publish(&mut body, publish, version)?;
            0x30 | u8::from(publish.is_duplicate) << 3 | (publish.qos as u8) << 1
        }
        Packet::PubAck { id, reason } => {
            body.put_u16(*id);
            if is_v5 && *reason != Reason::SUCCESS {
                // The length of empty properties could be omitted, but not every client accepts that.
                body.put_slice(&[reason.0, 0]);
            }
            0x40
        }
        Packet::SubAck { id, reasons } => {
            body.put_u16(*id);
            if is_v5 {
                body.put_u8(0);
            }
            let failed = if is_v5 { |reason: Reason| reason.0 } else { |reason: Reason| reason.0.min(0x80) };
            body.extend(reasons.iter().map(|reason| failed(*reason)));
            0x90
        }
        Packet::UnsubAck { id, reasons } => {
            body.put_u16(*id);
            if is_v5 {
                body.put_u8(0);
                body.extend(reasons.iter().map(|reason| reason.0));
            }
            0xb0
        }
        Packet::PingResp => 0xd0,
        Packet::Disconnect(_) if !is_v5 => return None,
        Packet::Disconnect(reason) => {
            body.put_slice(&[reason.0, 0]);
            0xe0
        }
    };
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(first);
    put_variable(&mut out, body.len())?;
    out.extend_from_slice(&body);
    Some(out.freeze())
}

fn put_connack(body: &mut BytesMut, connack: &ConnAck, version: Version) -> Option<()> {
    // Sessions end with their connections here, so there is never one to resume.
    body.put_u8(0);
    match version {
        Version::V311 => body.put_u8(return_code(connack.reason)),
        Version::V5 => {
            body.put_u8(connack.reason.0);
            let mut properties = BytesMut::new();
            if let Some(terms) = &connack.terms {
                put_terms(&mut properties, terms)?;
            }
            put_variable(body, properties.len())?;
            body.extend_from_slice(&properties);
        }
    }
    Some(())
}

/// A CONNACK's return code in MQTT 3.1.1 (section 3.2.2.3 there). The service says 7 instead of 5 (AWS IoT Developer
/// Guide, "MQTT"). A code below 0x80 is used as it is, because a scenario can choose any.
fn return_code(reason: Reason) -> u8 {
    match reason {
        Reason(code @ 0..=0x7f) => code,
        Reason::UNSUPPORTED_VERSION => 1,
        Reason::CLIENT_ID_NOT_VALID => 2,
        Reason::NOT_AUTHORIZED => 7,
        _ => 3,
    }
}

fn put_terms(out: &mut BytesMut, terms: &Terms) -> Option<()> {
    // Sessions end with their connections, whatever the client requested.
    out.put_u8(property::SESSION_EXPIRY);
    out.put_u32(0);
    out.put_u8(property::RECEIVE_MAXIMUM);
    out.put_u16(terms.receive_maximum);
    out.put_u8(property::MAXIMUM_QOS);
    out.put_u8(1);
    // As on the service. Here a retained message is delivered to present subscribers, but not kept.
    out.put_u8(property::RETAIN_AVAILABLE);
    out.put_u8(1);
    out.put_u8(property::MAXIMUM_PACKET_SIZE);
    out.put_u32(terms.maximum_packet_size);
    if let Some(id) = &terms.assigned_client_id {
        out.put_u8(property::ASSIGNED_CLIENT_ID);
        put_text(out, id)?;
    }
    out.put_u8(property::TOPIC_ALIAS_MAXIMUM);
    out.put_u16(TOPIC_ALIASES);
    for (id, value) in [
        (property::WILDCARD_AVAILABLE, 1),
        (property::SUBSCRIPTION_IDS_AVAILABLE, 0),
        (property::SHARED_AVAILABLE, 0),
    ] {
        out.put_u8(id);
        out.put_u8(value);
    }
    if let Some(seconds) = terms.server_keep_alive {
        out.put_u8(property::SERVER_KEEP_ALIVE);
        out.put_u16(seconds);
    }
    Some(())
}

fn put_publish(body: &mut BytesMut, publish: &Publish, version: Version) -> Option<()> {
    body.reserve(publish.payload.len() + publish.topic.len() + publish.properties.len() + 8);
    put_text(body, &publish.topic)?;
    if publish.qos != QoS::AtMostOnce {
        body.put_u16(publish.id);
    }
    if version == Version::V5 {
        put_variable(body, publish.properties.len())?;
        body.extend_from_slice(&publish.properties);
    }
    body.extend_from_slice(&publish.payload);
    Some(())
}

fn put_text(out: &mut BytesMut, text: &str) -> Option<()> {
    out.put_u16(u16::try_from(text.len()).ok()?);
    out.put_slice(text.as_bytes());
    Some(())
}

/// Appends a variable byte integer (section 1.5.5).
fn put_variable(out: &mut BytesMut, mut value: usize) -> Option<()> {
    if value >= 1 << 28 {
        return None;
    }
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return Some(());
        }
        out.put_u8(low | 0x80);
    }
}
