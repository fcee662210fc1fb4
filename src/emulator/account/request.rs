//! Parses requests as they come from the wire.
//!
//! Owns what counts as a well-formed request. Unknown fields are tolerated. Errors never repeat the content, which may
//! be secret.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::scenario::Refusal;
use super::answer::Refused;
use crate::template::Parameters;

/// A RegisterThing request.
#[derive(Deserialize)]
pub(super) struct RegisterRequest<'a> {
    #[serde(rename = "certificateOwnershipToken", borrow, default)]
    pub(super) token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) parameters: Option<Parameters<'a>>,
    /// The seed's capitalised spelling, which AWS does not document.
    #[serde(rename = "Parameters", borrow, default)]
    pub(super) capitalised: Option<Parameters<'a>>,
}

/// A CreateCertificateFromCsr request.
#[derive(Deserialize)]
struct CsrRequest<'a> {
    #[serde(rename = "certificateSigningRequest", borrow, default)]
    csr: Option<Cow<'a, str>>,
}

/// Checks a CreateKeysAndCertificate request: documented as empty, sent as `{}` by the SDKs.
pub(super) fn check_create(payload: &[u8]) -> Result<(), Refused> {
    if payload.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<BTreeMap<Cow<'_, str>, IgnoredAny>>(payload)
        .map(drop)
        .map_err(|error| wrong(&error))
}

/// The signing request in a CreateCertificateFromCsr request.
pub(super) fn parse_csr(payload: &[u8]) -> Result<String, Refused> {
    check_object(payload)?;
    let request: CsrRequest<'_> = serde_json::from_slice(payload).map_err(|error| wrong(&error))?;
    match request.csr {
        Some(csr) if !csr.is_empty() => Ok(csr.into_owned()),
        _ => Err(Refused::new(Refusal::InvalidCsr, "none was given")),
    }
}

/// Parses a RegisterThing request.
pub(super) fn parse_register(payload: &[u8]) -> Result<RegisterRequest<'_>, Refused> {
    check_object(payload)?;
    serde_json::from_slice(payload).map_err(|error| wrong(&error))
}

/// Serde would also accept a list of the fields in order; only an object is allowed.
fn check_object(payload: &[u8]) -> Result<(), Refused> {
    match payload.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Refused::new(Refusal::InvalidPayload, "wanted a JSON object")),
    }
}

fn wrong(error: &serde_json::Error) -> Refused {
    let what =
        if error.is_data() { "a value of another type than wanted" } else { "something that is not JSON" };
    let place = format!("{what} at line {} column {}", error.line(), error.column());
    Refused::new(Refusal::InvalidPayload, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_request_is_empty_or_any_object() {
        for right in ["", "{}", " {} ", r#"{"test_data":1}"#, r#"{"a":{"b":[1,null]}}"#] {
            assert_eq!(check_create(right.as_bytes()), Ok(()), "{right}");
        }
        for wrong in [" ", "[]", "1", "null", "\"{}\"", "{", "{}{}", "{\"a\":}"] {
            let refused = check_create(wrong.as_bytes()).unwrap_err();
            assert_eq!(refused.refusal, Refusal::InvalidPayload, "{wrong}");
        }
        assert!(check_create(&[b'{', 0xff, b'}']).is_err());
    }

    #[test]
    fn a_register_request_has_a_token_and_strings() {
        let request =
            parse_register(br#"{"certificateOwnershipToken":"t","parameters":{"A":"1"},"x":0}"#).unwrap();
        assert_eq!(request.token.as_deref(), Some("t"));
        assert_eq!(request.parameters.unwrap()["A"], "1");
        assert!(request.capitalised.is_none());
        for wrong in [
            "",
            "null",
            r#"["t",{"A":"1"}]"#,
            r#"{"certificateOwnershipToken":1}"#,
            r#"{"parameters":["A"]}"#,
            r#"{"parameters":{"A":1}}"#,
            r#"{"parameters":{"A":null}}"#,
            r#"{"parameters":{"A":{"B":"C"}}}"#,
            r#"{"Parameters":{"A":true}}"#,
            r#"{"certificateOwnershipToken":"t","certificateOwnershipToken":"u"}"#,
        ] {
            let refused = parse_register(wrong.as_bytes()).err().unwrap();
            assert_eq!(refused.refusal, Refusal::InvalidPayload, "{wrong}");
        }
    }

    #[test]
    fn a_csr_request_has_a_csr() {
        assert_eq!(parse_csr(br#"{"certificateSigningRequest":"a\nb"}"#).unwrap(), "a\nb");
        for (wrong, refusal) in [
            ("{}", Refusal::InvalidCsr),
            (r#"{"certificateSigningRequest":""}"#, Refusal::InvalidCsr),
            (r#"{"certificateSigningRequest":null}"#, Refusal::InvalidCsr),
            (r#"{"certificateSigningRequest":1}"#, Refusal::InvalidPayload),
            (r#"["csr"]"#, Refusal::InvalidPayload),
            ("", Refusal::InvalidPayload),
        ] {
            assert_eq!(parse_csr(wrong.as_bytes()).unwrap_err().refusal, refusal, "{wrong}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_content() {
        let refused = parse_register(br#"{"parameters":{"DeviceKey":12345}}"#).err().unwrap();
        assert_eq!(refused.detail, "a value of another type than wanted at line 1 column 32");
    }
}
