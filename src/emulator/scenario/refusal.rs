//! Why the emulated account refuses, and the words it uses.
//!
//! Owns the list of refusals and their default texts, the one place for guesses at AWS's wording. Only the status codes
//! and the texts marked below were ever observed; a client must act on the status code alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

/// Why a request is refused. The names are the keys of the scenario's `[errors]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request exceeds a quota.
    Throttled,
    /// The payload is not JSON, not an object, or has a field of the wrong type.
    InvalidPayload,
    /// The certificate signing request is missing, malformed, of an unsupported kind, or not signed by its key.
    InvalidCsr,
    /// The ownership token is missing or empty.
    EmptyToken,
    /// The ownership token was not issued by this account, or its certificate is gone.
    UnknownToken,
    /// The ownership token has expired.
    ExpiredToken,
    /// The ownership token has already registered.
    UsedToken,
    /// There is no provisioning template of that name.
    UnknownTemplate,
    /// The provisioning template exists, but is not enabled.
    DisabledTemplate,
    /// The pre-provisioning hook denied the registration, failed, or took too long.
    HookDenied,
    /// A parameter that the template refers to has neither value nor default.
    MissingParameter,
    /// The template cannot be evaluated with these parameters.
    TemplateFailed,
    /// A name or value is outside the registry's limits.
    InvalidName,
    /// Something that the template names does not exist, or cannot be used for this device.
    RegistrationFailed,
    /// The policy document is malformed.
    MalformedPolicy,
    /// The thing exists, and an override says `FAIL`.
    ResourceConflict,
    /// The template's `CertificateId` is not the token's certificate.
    CertificateMismatch,
    /// The service has this operation, but the emulator does not.
    NotEmulated,
    /// A fault of the scenario: the service is unavailable.
    Unavailable,
    /// The emulator has failed.
    Internal,
}

/// The text of a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorText {
    /// The rejection's `statusCode`.
    pub status: u16,
    /// The rejection's `errorCode`.
    pub code: String,
    /// The rejection's `errorMessage`. `{detail}` in it is replaced by what caused the refusal.
    pub message: String,
}

/// The text of each refusal: the defaults, overridden by the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorTexts(BTreeMap<Refusal, ErrorText>);

impl Refusal {
    /// All refusals.
    pub const ALL: [Refusal; 20] = [
        Refusal::Throttled,
        Refusal::InvalidPayload,
        Refusal::InvalidCsr,
        Refusal::EmptyToken,
        Refusal::UnknownToken,
        Refusal::ExpiredToken,
        Refusal::UsedToken,
        Refusal::UnknownTemplate,
        Refusal::DisabledTemplate,
        Refusal::HookDenied,
        Refusal::MissingParameter,
        Refusal::TemplateFailed,
        Refusal::InvalidName,
        Refusal::RegistrationFailed,
        Refusal::MalformedPolicy,
        Refusal::ResourceConflict,
        Refusal::CertificateMismatch,
        Refusal::NotEmulated,
        Refusal::Unavailable,
        Refusal::Internal,
    ];

    /// The refusal's key in the scenario.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Throttled => "throttled",
            Refusal::InvalidPayload => "invalid_payload",
            Refusal::InvalidCsr => "invalid_csr",
            Refusal::EmptyToken => "empty_token",
            Refusal::UnknownToken => "unknown_token",
            Refusal::ExpiredToken => "expired_token",
            Refusal::UsedToken => "used_token",
            Refusal::UnknownTemplate => "unknown_template",
            Refusal::DisabledTemplate => "disabled_template",
            Refusal::HookDenied => "hook_denied",
            Refusal::MissingParameter => "missing_parameter",
            Refusal::TemplateFailed => "template_failed",
            Refusal::InvalidName => "invalid_name",
            Refusal::RegistrationFailed => "registration_failed",
            Refusal::MalformedPolicy => "malformed_policy",
            Refusal::ResourceConflict => "resource_conflict",
            Refusal::CertificateMismatch => "certificate_mismatch",
            Refusal::NotEmulated => "not_emulated",
            Refusal::Unavailable => "unavailable",
            Refusal::Internal => "internal",
        }
    }

    fn default_text(self) -> (u16, &'static str, &'static str) {
        match self {
            // The status codes 400, 403, 404, 429 and 500 are in AWS's older C library.
            Refusal::Throttled => (429, "ThrottlingException", "Rate exceeded"),
            Refusal::InvalidPayload => {
                (400, "InvalidPayload", "The payload is not a valid request: {detail}")
            }
            // The status for an invalid CSR is in AWS's older C library, the text is not.
            Refusal::InvalidCsr => {
                (400, "InvalidRequestException", "The certificate signing request is not valid: {detail}.")
            }
            // Code and message were observed on the wire: aws-iot-device-sdk-js-v2, issue 69.
            Refusal::EmptyToken => {
                (400, "InvalidCertificateOwnershipToken", "Certificate ownership token cannot be empty.")
            }
            Refusal::UnknownToken => {
                (400, "InvalidCertificateOwnershipToken", "Certificate ownership token is not valid.")
            }
            Refusal::ExpiredToken => {
                (400, "InvalidCertificateOwnershipToken", "Certificate ownership token has expired.")
            }
            Refusal::UsedToken => (
                400,
                "InvalidCertificateOwnershipToken",
                "Certificate ownership token has already been used.",
            ),
            Refusal::UnknownTemplate => {
                (404, "ResourceNotFoundException", "Provisioning template {detail} was not found.")
            }
            Refusal::DisabledTemplate => {
                (400, "InvalidRequestException", "Provisioning template {detail} is not enabled.")
            }
            // The code is documented (Developer Guide, "Pre-provisioning hooks"), and 403 is in AWS's older C library.
            Refusal::HookDenied => (403, "ACCESS_DENIED", "The pre-provisioning hook {detail}."),
            Refusal::MissingParameter => {
                (400, "InvalidRequestException", "Parameter {detail} has neither a value nor a default.")
            }
            Refusal::TemplateFailed => {
                (400, "InvalidRequestException", "The provisioning template cannot be evaluated: {detail}")
            }
            Refusal::InvalidName => (400, "InvalidRequestException", "{detail}"),
            // As documented for the REST operation of the same name.
            Refusal::RegistrationFailed => (400, "ResourceRegistrationFailureException", "{detail}."),
            Refusal::MalformedPolicy => (400, "MalformedPolicyException", "{detail}."),
            // The name is documented (Developer Guide, "Provisioning templates"), the status is not.
            Refusal::ResourceConflict => {
                (409, "ResourceConflictsException", "Thing {detail} already exists.")
            }
            Refusal::CertificateMismatch => (
                400,
                "InvalidRequestException",
                "CertificateId is not the certificate of the ownership token.",
            ),
            Refusal::NotEmulated => {
                (400, "UnsupportedOperation", "The emulator does not offer this operation.")
            }
            Refusal::Unavailable => {
                (503, "ServiceUnavailableException", "The service is temporarily unavailable.")
            }
            Refusal::Internal => (500, "InternalFailure", "{detail}"),
        }
    }
}

impl ErrorTexts {
    /// The text of `refusal`.
    ///
    /// # Panics
    /// Never: every refusal has a text.
    pub fn text(&self, refusal: Refusal) -> &ErrorText {
        self.0.get(&refusal).expect("every refusal has a default text, and none is ever removed")
    }
}

impl Default for ErrorTexts {
    fn default() -> Self {
        let text = |refusal: Refusal| {
            let (status, code, message) = refusal.default_text();
            ErrorText { status, code: code.to_owned(), message: message.to_owned() }
        };
        Self(Refusal::ALL.map(|refusal| (refusal, text(refusal))).into())
    }
}

/// A scenario's changes to one text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedText {
    #[serde(default, deserialize_with = "error_status")]
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
}

impl<'de> Deserialize<'de> for ErrorTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut texts = Self::default();
        for (refusal, changed) in BTreeMap::<Refusal, ChangedText>::deserialize(deserializer)? {
            let text = texts.0.get_mut(&refusal).expect("every refusal has a default text");
            text.status = changed.status.unwrap_or(text.status);
            text.code = changed.code.unwrap_or_else(|| std::mem::take(&mut text.code));
            text.message = changed.message.unwrap_or_else(|| std::mem::take(&mut text.message));
        }
        Ok(texts)
    }
}

fn error_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match i64::deserialize(deserializer)? {
        status @ 400..=599 => Ok(Some(status as u16)),
        other => Err(D::Error::invalid_value(Unexpected::Signed(other), &"a status from 400 to 599")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_an_error_status_and_a_name_that_parses() {
        let texts = ErrorTexts::default();
        for refusal in Refusal::ALL {
            assert!((400..600).contains(&texts.text(refusal).status), "{}", refusal.name());
            let table = format!("[{}]\nmessage = \"m\"", refusal.name());
            let changed: ErrorTexts = toml::from_str(&table).unwrap();
            assert_eq!(changed.text(refusal).message, "m");
            assert_eq!(changed.text(refusal).code, texts.text(refusal).code);
        }
    }

    #[test]
    fn the_seen_text_is_the_default() {
        let texts = ErrorTexts::default();
        let text = texts.text(Refusal::EmptyToken);
        assert_eq!(
            (text.status, text.code.as_str(), text.message.as_str()),
            (400, "InvalidCertificateOwnershipToken", "Certificate ownership token cannot be empty.")
        );
    }
}
