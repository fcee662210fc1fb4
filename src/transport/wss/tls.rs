//! Which authorities to trust, and what a failed handshake means.
//!
//! Owns the TLS configuration that all connections share. The provider, aws-lc-rs, is passed explicitly, so that no
//! process-wide default is needed or changed.

use std::io;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::rustls::client::{Resumption, WantsClientCert};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{CertificateError, ClientConfig, ConfigBuilder, Error, RootCertStore};

use super::super::link::broken;
use super::{Claim, ClaimError, SettingsError, TlsResumption};
use crate::failure::Cause;
use crate::service::{MQTT_ALPN, MQTT_PORT};
use crate::wording::clean;

/// Extra certificate authorities that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No certificate was found.
    #[error(
        "no certificate found; wanted PEM with at least one BEGIN CERTIFICATE, or one certificate in DER"
    )]
    Empty,
    /// A PEM block is damaged.
    #[error("certificate {number} is damaged PEM: {detail}")]
    Pem {
        /// Its position, from 1.
        number: usize,
        /// What is wrong.
        detail: String,
    },
    /// A certificate cannot be used as a root.
    #[error("certificate {number} cannot be used as a certificate authority: {detail}")]
    Certificate {
        /// Its position, from 1.
        number: usize,
        /// What is wrong.
        detail: String,
    },
    /// The endpoint's host cannot be a name in a certificate.
    #[error("the endpoint's host cannot be the name in a certificate; wanted a DNS name or an address")]
    Unnameable,
}

/// TLS 1.2 and 1.3, public roots and `extra_roots`, session resumption as given, no client certificate, no ALPN: AWS
/// lists ALPN as not applicable to signed WebSockets.
pub(super) fn client_config(
    extra_roots: &[u8],
    resumption: TlsResumption,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = trusting(extra_roots)?.with_no_client_auth();
    if resumption == TlsResumption::Off {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// TLS with a claim certificate. With ALPN, except on the port that only MQTT uses (AWS IoT Developer Guide, "Device
/// communication protocols").
pub(super) fn claim_config(
    extra_roots: &[u8],
    resumption: TlsResumption,
    claim: &Claim,
    port: u16,
) -> Result<Arc<ClientConfig>, SettingsError> {
    let mut config = trusting(extra_roots)?
        .with_client_auth_cert(claim.chain.clone(), claim.key.clone_key())
        .map_err(|error| ClaimError::Unusable(clean(&error.to_string())))?;
    if port != MQTT_PORT {
        config.alpn_protocols = vec![MQTT_ALPN.to_vec()];
    }
    if resumption == TlsResumption::Off {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// TLS 1.2 and 1.3 that trusts the public roots and `extra_roots`.
fn trusting(extra_roots: &[u8]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TrustError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if !extra_roots.is_empty() {
        for (index, certificate) in read_certificates(extra_roots)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| TrustError::Certificate {
                number: index + 1,
                detail: clean(&error.to_string()),
            })?;
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(roots))
}

/// Checks early whether `extra_roots` can be used as [`WssSettings::extra_roots`](super::WssSettings).
///
/// # Errors
/// [`TrustError`], which says what is wrong with which certificate.
pub fn check_authorities(extra_roots: &[u8]) -> Result<(), TrustError> {
    if extra_roots.is_empty() {
        Err(TrustError::Empty)
    } else {
        client_config(extra_roots, TlsResumption::Shared).map(drop)
    }
}

/// The certificates in PEM or DER. Other PEM blocks, such as keys, are skipped.
fn read_certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    /// The first byte of every certificate in DER: a SEQUENCE.
    const SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let damaged = |error: rustls_pki_types::pem::Error| TrustError::Pem {
            number: certificates.len() + 1,
            detail: clean(&error.to_string()),
        };
        let certificate = certificate.map_err(damaged)?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(TrustError::Empty) } else { Ok(certificates) }
}

/// The cause for a failed handshake.
pub(super) fn failed(error: &io::Error) -> Cause {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return broken(error);
    };
    let meaning = match tls {
        // An authority recreated under its old name shows as a bad signature.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the server's certificate is not signed by a trusted authority"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the server's certificate is not valid yet",
        Error::InvalidMessage(_) => "the server does not speak TLS on this port",
        _ => "refused",
    };
    Cause::Tls { detail: format!("{meaning} ({})", clean(&tls.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap()
    }

    #[test]
    fn roots_come_in_pem_and_der() {
        let (one, two) = (authority(), authority());
        assert_eq!(read_certificates(one.der()).unwrap(), [one.der().clone()]);
        let pem = format!("# comment\n{}{}", one.pem(), two.pem());
        assert_eq!(read_certificates(pem.as_bytes()).unwrap(), [one.der().clone(), two.der().clone()]);
        assert!(client_config(pem.as_bytes(), TlsResumption::Shared).is_ok());
        assert!(client_config(b"", TlsResumption::Off).is_ok());
    }

    #[test]
    fn what_is_no_root_is_told() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (bytes, what) in [
            (&b"hello"[..], "no certificate found"),
            (key.as_bytes(), "no certificate found"),
            (
                b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
                "certificate 1 is damaged PEM",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 cannot be used",
            ),
            (b"\x30\x00", "certificate 1 cannot be used"),
        ] {
            let error = client_config(bytes, TlsResumption::Shared).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
