//! CONNECT, read field by field.
//!
//! Owns what a well-formed CONNECT is (MQTT 3.1.1 section 3.1). What the service takes is the session's matter.

use bytes::Buf;

use super::Malformed;

/// What matters of a CONNECT. User name, password and will were read and found well-formed; the service does not need the
/// first two here, and a will is taken and forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Connect {
    /// The client id, possibly empty.
    pub(in super::super) client_id: String,
    /// Whether the session starts clean.
    pub(in super::super) clean_session: bool,
    /// The keep-alive that the client asks for, seconds.
    pub(in super::super) keep_alive: u16,
}

impl Connect {
    /// Reads a CONNECT's body (MQTT 3.1.1 section 3.1).
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
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
pub(super) fn split_field(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
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
