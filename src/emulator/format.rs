//! Payload formats: the account speaks JSON, and the `cbor` topics carry the same content in CBOR.
//!
//! Owns the translation (RFC 8949). Source: AWS IoT Developer Guide, "Device provisioning MQTT API".

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

/// The format of a topic's payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Cbor,
}

impl Format {
    /// The format of a request topic.
    pub(super) fn of(topic: &str) -> Self {
        if topic.ends_with("/cbor") { Format::Cbor } else { Format::Json }
    }

    /// A request as JSON. Invalid CBOR becomes invalid JSON, because the account refuses both in the same words. An
    /// empty payload stays empty.
    pub(super) fn decode(self, payload: &[u8]) -> Cow<'_, [u8]> {
        if self == Format::Json || payload.is_empty() {
            return Cow::Borrowed(payload);
        }
        let mut rest = payload;
        match ciborium::from_reader::<Value, _>(&mut rest) {
            Ok(value) if rest.is_empty() => Cow::Owned(value.to_string().into_bytes()),
            _ => Cow::Borrowed(b"not CBOR"),
        }
    }

    /// A JSON answer, converted to this format.
    pub(super) fn encode(self, json: Bytes) -> Bytes {
        if self == Format::Json {
            return json;
        }
        let mut out = Vec::with_capacity(json.len());
        let value = serde_json::from_slice::<Value>(&json);
        match value.map(|value| ciborium::into_writer(&value, &mut out)) {
            Ok(Ok(())) => out.into(),
            // A payload that a fault has corrupted is no longer JSON, and is sent as it is.
            _ => json,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CBOR: &str = "$aws/certificates/create/cbor";

    #[test]
    fn requests_are_translated_and_what_is_no_cbor_is_no_json() {
        let format = Format::of(CBOR);
        // {"certificateOwnershipToken": "t", "parameters": {"A": "1"}} (RFC 8949 section 3.1).
        let payload = b"\xa2\x78\x19certificateOwnershipToken\x61t\x6aparameters\xa1\x61A\x611";
        let request: Value = serde_json::from_slice(&format.decode(payload)).unwrap();
        assert_eq!(request, json!({"certificateOwnershipToken": "t", "parameters": {"A": "1"}}));
        assert_eq!(&*format.decode(b""), b"");
        for wrong in [
            &b"{}"[..],
            b"\xa1\x61A",
            b"\xa0\xa0",
            b"\xa1\x01\x02",
            b"\xa1\x61A\x41x",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(serde_json::from_slice::<Value>(&format.decode(wrong)).is_err(), "{wrong:x?}");
        }
        assert_eq!(&*Format::of("a/json").decode(b"{}"), b"{}");
    }

    #[test]
    fn answers_are_translated_with_their_numbers_as_numbers() {
        let encoded = Format::of(CBOR).encode(Bytes::from_static(br#"{"statusCode":400}"#));
        assert_eq!(&encoded[..], b"\xa1\x6astatusCode\x19\x01\x90");
        assert_eq!(Format::of("a/json").encode(Bytes::from_static(b"{}")), "{}");
    }
}
