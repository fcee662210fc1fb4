//! What the service hands out: certificates, private keys, tokens, things.
//!
//! Owns the types whose misuse would lose or leak a key. Knows nothing of how they arrive or where they are stored.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A value that must never be printed: it has no `Display`, its `Debug` says only that it is there, and its memory is
/// zeroed when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes charge of `value`.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A certificate's id: the service gives the lower-case hexadecimal SHA-256 of the certificate's DER, 64 characters.
///
/// The client only checks the pattern that the API model states, `(0x)?[a-fA-F0-9]+` with 64 digits, and keeps the text
/// as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateId(String);

impl CertificateId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that is not a certificate id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate id is 64 hexadecimal digits, not {length} characters of other text")]
pub struct NotACertificateId {
    length: usize,
}

impl TryFrom<String> for CertificateId {
    type Error = NotACertificateId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text))
        } else {
            Err(NotACertificateId { length: text.chars().count() })
        }
    }
}

impl From<CertificateId> for String {
    fn from(id: CertificateId) -> Self {
        id.0
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What CreateKeysAndCertificate answered: the only copy of the private key in existence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Names the certificate in the account.
    pub certificate_id: CertificateId,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub private_key: Secret<String>,
    /// Proves to RegisterThing that we own the certificate; valid for one hour from issuance.
    pub ownership_token: Secret<String>,
}

/// What RegisterThing answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredThing {
    /// The thing that the template made or found.
    pub thing_name: String,
    /// The template's `DeviceConfiguration`, flat; empty if the template has none.
    pub device_configuration: BTreeMap<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let issued = IssuedCertificate {
            certificate_id: "a".repeat(64).try_into().unwrap(),
            certificate_pem: String::from("pem"),
            private_key: Secret::new(String::from("hunter2")),
            ownership_token: Secret::new(String::from("hunter2")),
        };
        assert!(!format!("{issued:?} {issued:#?}").contains("hunter2"));
    }

    #[test]
    fn a_certificate_id_is_64_hexadecimal_digits() {
        assert!(CertificateId::try_from("0F".repeat(32)).is_ok());
        assert!(CertificateId::try_from(format!("0x{}", "0f".repeat(32))).is_ok());
        for wrong in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert!(CertificateId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
