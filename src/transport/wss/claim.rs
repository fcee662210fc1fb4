//! Claim certificates: devices are shipped with them to provision themselves, and most fleets use them instead of a
//! signature.
//!
//! Source: AWS IoT Developer Guide, "Provisioning by claim".

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A claim certificate and its private key.
#[derive(Clone)]
pub struct Claim {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
}

/// Why a claim cannot be used. Never holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No certificate was found.
    #[error("no certificate found; wanted PEM with BEGIN CERTIFICATE")]
    NoCertificate,
    /// No private key was found.
    #[error(
        "no private key found; wanted PEM with BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY, not encrypted"
    )]
    NoKey,
    /// The certificate and the key do not match, or TLS cannot use their type.
    #[error("certificate and key cannot be used together: {0}")]
    Unusable(String),
}

impl Claim {
    /// Reads a certificate, followed by any intermediates, and a private key, both in PEM.
    ///
    /// # Errors
    /// [`ClaimError`] if either is missing. Whether they match is checked when a connector is created.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, ClaimError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(ClaimError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ClaimError::NoKey)?;
        Ok(Self { chain, key: Arc::new(key) })
    }
}

/// Does not show the key.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let pair = rcgen::generate_simple_self_signed(vec![String::from("claim")]).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        assert!(Claim::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
        let swapped = Claim::from_pem(key.as_bytes(), certificate.as_bytes()).unwrap_err();
        assert_eq!(swapped, ClaimError::NoCertificate);
        assert_eq!(Claim::from_pem(certificate.as_bytes(), b"").unwrap_err(), ClaimError::NoKey);
        let claim = Claim::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(!format!("{claim:?}").contains("key"));
    }
}
