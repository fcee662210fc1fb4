//! Builds the answers as they go on the wire.
//!
//! Owns the field names of the replies, in lowerCamelCase as AWS documents them. Decides nothing.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::scenario::{ErrorTexts, Refusal};
use super::{Certified, Minted};

/// The account's answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which response topic it goes to.
    pub verdict: Verdict,
    /// JSON. An accepted CreateKeysAndCertificate holds the private key.
    pub payload: Bytes,
}

/// Which response topic an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `accepted`.
    Accepted,
    /// `rejected`.
    Rejected,
}

impl Verdict {
    /// The last segment of the response topic.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Accepted => "accepted",
            Verdict::Rejected => "rejected",
        }
    }
}

/// Omits the payload, which may hold a private key.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.verdict.name(), self.payload.len())
    }
}

/// A refusal, and a detail of what caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::emulator) struct Refused {
    pub(in crate::emulator) refusal: Refusal,
    pub(in crate::emulator) detail: String,
}

impl Refused {
    pub(super) fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, detail: detail.into() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedReply<'a> {
    certificate_id: &'a str,
    certificate_pem: &'a str,
    private_key: &'a str,
    certificate_ownership_token: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertifiedReply<'a> {
    certificate_ownership_token: &'a str,
    certificate_id: &'a str,
    certificate_pem: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RegisteredReply<'a> {
    device_configuration: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RejectedReply<'a> {
    status_code: u16,
    error_code: &'a str,
    error_message: &'a str,
}

impl Answer {
    pub(super) fn created(minted: &Minted, token: &str) -> Self {
        let reply = CreatedReply {
            certificate_id: &minted.certificate_id,
            certificate_pem: &minted.certificate_pem,
            private_key: minted.private_key_pem.expose(),
            certificate_ownership_token: token,
        };
        Self { verdict: Verdict::Accepted, payload: json(&reply, 4096) }
    }

    pub(super) fn certified(certified: &Certified, token: &str) -> Self {
        let reply = CertifiedReply {
            certificate_ownership_token: token,
            certificate_id: &certified.certificate_id,
            certificate_pem: &certified.certificate_pem,
        };
        Self { verdict: Verdict::Accepted, payload: json(&reply, 2048) }
    }

    pub(super) fn registered(device_configuration: &Map<String, Value>, thing_name: Option<&str>) -> Self {
        let reply = RegisteredReply { device_configuration, thing_name };
        Self { verdict: Verdict::Accepted, payload: json(&reply, 256) }
    }

    pub(super) fn refused(refused: &Refused, texts: &ErrorTexts) -> Self {
        let text = texts.text(refused.refusal);
        let reply = RejectedReply {
            status_code: text.status,
            error_code: &text.code,
            error_message: &text.message.replace("{detail}", &refused.detail),
        };
        Self { verdict: Verdict::Rejected, payload: json(&reply, 256) }
    }
}

/// `capacity` is an estimate that saves the buffer from growing.
fn json(reply: &impl Serialize, capacity: usize) -> Bytes {
    let mut buffer = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut buffer, reply)
        .expect("strings and numbers are always JSON, and memory takes every write");
    buffer.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Secret;

    #[test]
    fn replies_are_as_documented() {
        let minted = Minted {
            certificate_pem: "-----BEGIN\n".into(),
            certificate_id: "0f".into(),
            private_key_pem: Secret::new("key\n".into()),
        };
        assert_eq!(
            Answer::created(&minted, "ey=").payload,
            concat!(
                r#"{"certificateId":"0f","certificatePem":"-----BEGIN\n","#,
                r#""privateKey":"key\n","certificateOwnershipToken":"ey="}"#
            )
        );
        // The seed's own reply.
        assert_eq!(
            Answer::registered(&Map::new(), Some("TWOK_9999999999")).payload,
            r#"{"deviceConfiguration":{},"thingName":"TWOK_9999999999"}"#
        );
        assert_eq!(Answer::registered(&Map::new(), None).payload, r#"{"deviceConfiguration":{}}"#);
        let refused = Refused::new(Refusal::MissingParameter, "Serial\"Number");
        assert_eq!(
            Answer::refused(&refused, &ErrorTexts::default()).payload,
            concat!(
                r#"{"statusCode":400,"errorCode":"InvalidRequestException","#,
                r#""errorMessage":"Parameter Serial\"Number has neither a value nor a default."}"#
            )
        );
    }

    #[test]
    fn an_answer_does_not_show_its_payload() {
        let answer = Answer { verdict: Verdict::Accepted, payload: Bytes::from_static(b"private") };
        assert_eq!(format!("{answer:?}"), "Answer(accepted, 7 bytes)");
    }
}
