//! What a device receives: certificates, private keys, tokens, things.
//!
//! Owns the types whose misuse would lose or leak a key, and the check that a certificate, its id and its key belong
//! together. Does not know how they arrive or where they are stored.

mod evidence;
mod pem;
#[cfg(test)]
pub(crate) mod samples;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use evidence::{Evidence, Flaw};
pub use pem::{NotOnePemBlock, PemBlock};

/// A value that must never be printed: it has no `Display`, its `Debug` hides the content, and its memory is zeroed
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Wipe>(T);

/// A value that can be zeroed in memory.
pub trait Wipe {
    /// Overwrites the value with zeros, spare capacity included. Copies left elsewhere when it grew are not reached.
    fn wipe(&mut self);
}

impl Wipe for String {
    fn wipe(&mut self) {
        // Cleared first: zeroize goes through characters one by one but spare capacity as a block, and a device has 2
        // KB of secrets.
        self.clear();
        self.zeroize();
    }
}

impl<T: Wipe> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. A review should look at every call.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Wipe> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A certificate's id: the service uses the lower-case hexadecimal SHA-256 of the certificate's DER, 64 characters.
///
/// The client only checks the pattern in the API model, `(0x)?[a-fA-F0-9]+` with 64 digits, and keeps the text
/// unchanged.
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

/// A private key as the ledger stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredKey {
    /// PEM, in plain text.
    Plain(Secret<String>),
    /// Encrypted; only the holders of the recipients' identities can read it.
    Sealed(SealedKey),
    /// Never here: the device made it and keeps it.
    Elsewhere,
    /// Was here, and was purged.
    Purged {
        /// When, RFC 3339.
        at: String,
    },
}

impl From<Secret<String>> for StoredKey {
    fn from(pem: Secret<String>) -> Self {
        Self::Plain(pem)
    }
}

/// A private key, encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// An age file, armored (<https://age-encryption.org/v1>), whose content is the key's PEM.
    pub age: String,
    /// The age recipients that it is encrypted to, in the order given.
    pub recipients: Arc<[String]>,
}

/// A certificate that the service issued and that has no thing yet. `K` is the form of its private key:
///
/// - [`StoredKey`]: the form in the ledger. No other can be recorded, so a key that has to be sealed is sealed.
/// - `Secret<String>`: PEM in plain text, as in CreateKeysAndCertificate's reply; the only copy.
/// - `()`: none, as in CreateCertificateFromCsr's reply; the ledger already has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate<K = StoredKey> {
    /// The certificate's id in the account.
    pub certificate_id: CertificateId,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key.
    pub private_key: K,
    /// Proves to RegisterThing that we own the certificate; valid for one hour after issuance.
    pub ownership_token: Secret<String>,
}

impl<K> IssuedCertificate<K> {
    /// The same certificate with its private key in another form.
    pub fn map_key<L>(self, change: impl FnOnce(K) -> L) -> IssuedCertificate<L> {
        IssuedCertificate {
            certificate_id: self.certificate_id,
            certificate_pem: self.certificate_pem,
            private_key: change(self.private_key),
            ownership_token: self.ownership_token,
        }
    }
}

/// The argument of CreateCertificateFromCsr: a PKCS #10 certification request (RFC 2986), PEM. Not secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// The request, label `CERTIFICATE REQUEST`.
    pub pem: String,
}

/// A key pair that was made here and has no certificate yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedKey<K = StoredKey> {
    /// The private key; `Secret<String>` while it is in plain text, as in [`IssuedCertificate`].
    pub private_key: K,
    /// Holds the public key, signed with the private key. Because of it, a sealed key need not be opened again.
    pub request: SigningRequest,
}

/// RegisterThing's reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredThing {
    /// The thing that the template created or found; empty if the template has no thing.
    pub thing_name: String,
    /// The template's `DeviceConfiguration`, flattened; empty if the template has none.
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
            private_key: StoredKey::from(Secret::new(String::from("hunter2"))),
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
