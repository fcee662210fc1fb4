//! The TLS identity of the server: an authority for clients to trust, and a certificate for the names they dial.
//!
//! Owns how these are made. As on the service, the authority is not the one that signs device certificates.

use std::collections::BTreeSet;
use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use time::macros::datetime;

use super::MintError;
use crate::emulator::pem;

const NOT_BEFORE: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
const NOT_AFTER: OffsetDateTime = datetime!(2049-12-31 23:59:59 UTC);

/// What a TLS server needs, and what its clients need to trust it.
pub struct TlsIdentity {
    /// The authority's certificate, PEM, for clients.
    pub ca_pem: String,
    /// The server's certificate. The authority's is left out, because clients have it.
    pub cert_chain_der: Vec<CertificateDer<'static>>,
    /// The server's private key, PKCS#8.
    pub key_der: PrivateKeyDer<'static>,
}

/// Omits the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

/// Signs the certificate of the one TLS server that it serves. It uses P-256, which is fast.
pub struct TlsAuthority {
    key: KeyPair,
    certificate_pem: String,
    server_key: KeyPair,
}

impl TlsAuthority {
    /// A new authority, with a key for its server.
    ///
    /// # Errors
    /// [`MintError`] if the machine has no entropy or no memory left.
    pub fn generate() -> Result<Self, MintError> {
        let key = || KeyPair::generate().map_err(MintError::in_step("making a TLS key"));
        let (key, server_key) = (key()?, key()?);
        let certificate = authority_params()
            .self_signed(&key)
            .map_err(MintError::in_step("signing the TLS authority's certificate"))?;
        Ok(Self { key, certificate_pem: pem::encode("CERTIFICATE", certificate.der()), server_key })
    }

    /// The authority with these keys, PKCS#8, and this certificate.
    ///
    /// # Errors
    /// [`MintError`] if the keys are invalid.
    pub fn restore(key: &[u8], certificate_pem: String, server_key: &[u8]) -> Result<Self, MintError> {
        let read = |key: &[u8]| KeyPair::try_from(key).map_err(MintError::in_step("reading a TLS key"));
        Ok(Self { key: read(key)?, certificate_pem, server_key: read(server_key)? })
    }

    /// The authority's own key, PKCS#8.
    pub fn key_der(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// The server's key, PKCS#8.
    pub fn server_key_der(&self) -> &[u8] {
        self.server_key.serialized_der()
    }

    /// The authority's certificate, PEM, which clients trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for a server at `localhost`, `127.0.0.1`, `::1` and `names`, which are DNS names or addresses.
    ///
    /// # Errors
    /// [`MintError`] if a name is neither, or if the machine has no entropy or no memory left.
    pub fn server_identity<N: AsRef<str>>(&self, names: &[N]) -> Result<TlsIdentity, MintError> {
        let params = authority_params();
        let server = server_params(names)?
            .signed_by(&self.server_key, &Issuer::from_params(&params, &self.key))
            .map_err(MintError::in_step("signing the TLS server certificate"))?;
        Ok(TlsIdentity {
            ca_pem: self.certificate_pem.clone(),
            cert_chain_der: vec![server.into()],
            key_der: PrivatePkcs8KeyDer::from(self.server_key.serialized_der().to_vec()).into(),
        })
    }
}

/// Omits the keys.
impl fmt::Debug for TlsAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAuthority").finish_non_exhaustive()
    }
}

fn authority_params() -> CertificateParams {
    let mut params = base("fleetmint emulator authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The contents of the server's certificate. Strict clients require the authority's key identifier (RFC 5280 section
/// 4.2.1.1).
fn server_params(names: &[impl AsRef<str>]) -> Result<CertificateParams, MintError> {
    let own = ["localhost", "127.0.0.1", "::1"];
    let names: BTreeSet<String> =
        own.into_iter().chain(names.iter().map(AsRef::as_ref)).map(str::to_owned).collect();
    let names =
        CertificateParams::new(Vec::from_iter(names)).map_err(MintError::in_step("naming the server"))?;
    let mut params = base("fleetmint emulator");
    params.subject_alt_names = names.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn base(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = NOT_BEFORE;
    params.not_after = NOT_AFTER;
    params
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::ServerName;
    use rustls_pki_types::pem::PemObject;
    use tokio_rustls::rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    };

    use super::*;

    fn server_identity(names: &[&str]) -> Result<TlsIdentity, MintError> {
        TlsAuthority::generate().unwrap().server_identity(names)
    }

    /// Shakes hands in memory; what the client says of the server's certificate.
    fn handshake(identity: &TlsIdentity, trusted_pem: &str, name: &str) -> Result<(), String> {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.cert_chain_der.clone(), identity.key_der.clone_key())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted_pem.as_bytes()).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets().map_err(|error| error.to_string())?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets().map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_client_that_trusts_the_authority_trusts_every_name() {
        let identity = server_identity(&["emulator.example", "192.0.2.7", "localhost"]).unwrap();
        for name in ["localhost", "127.0.0.1", "::1", "emulator.example", "192.0.2.7"] {
            assert_eq!(handshake(&identity, &identity.ca_pem, name), Ok(()), "{name}");
        }
        assert!(handshake(&identity, &identity.ca_pem, "other.example").is_err());
        let stranger = server_identity(&[]).unwrap();
        assert!(handshake(&identity, &stranger.ca_pem, "localhost").is_err());
    }

    #[test]
    fn a_name_that_is_none_is_an_error() {
        let error = TlsAuthority::generate().unwrap().server_identity(&["\u{1f4a9}"]).unwrap_err();
        assert_eq!(error.step, "naming the server");
    }

    #[test]
    fn a_restored_authority_is_trusted_like_the_one_it_was() {
        let before = TlsAuthority::generate().unwrap();
        let pem = before.certificate_pem().to_owned();
        let after = TlsAuthority::restore(before.key_der(), pem.clone(), before.server_key_der()).unwrap();
        let identity = after.server_identity(&["192.0.2.7"]).unwrap();
        assert_eq!(handshake(&identity, &pem, "192.0.2.7"), Ok(()));
        assert!(TlsAuthority::restore(b"key", pem, before.server_key_der()).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let identity = server_identity(&[]).unwrap();
        assert!(!format!("{identity:?}").contains("key"));
    }
}
