//! The TLS identity of the wire door: an authority for clients to trust, and a certificate for the names they dial.
//!
//! Owns nothing but its making. It is a different authority from the devices', as it is with the service.

use std::collections::BTreeSet;
use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use time::macros::datetime;

use super::{Authority, MintError, pem};

const NOT_BEFORE: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
const NOT_AFTER: OffsetDateTime = datetime!(2049-12-31 23:59:59 UTC);

/// What a TLS server on loopback needs, and what its clients need to trust it.
pub struct TlsIdentity {
    /// The authority's certificate, PEM, for clients.
    pub ca_pem: String,
    /// The server's certificate, for its names; the authority's is not in it, as clients have that.
    pub cert_chain_der: Vec<CertificateDer<'static>>,
    /// The server's private key, PKCS#8.
    pub key_der: PrivateKeyDer<'static>,
}

/// The key is not shown.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new TLS authority, and from it a server certificate for `localhost`, `127.0.0.1`, `::1` and `names`, which are DNS
    /// names or addresses. P-256: fast.
    ///
    /// # Errors
    /// [`MintError`] if a name is neither, or the machine has no entropy or no memory left.
    pub fn server_certificate<N: AsRef<str>>(names: &[N]) -> Result<TlsIdentity, MintError> {
        let key = || KeyPair::generate().map_err(MintError::in_step("making a TLS key"));
        let (authority_key, server_key) = (key()?, key()?);
        let params = authority_params();
        let authority = params
            .self_signed(&authority_key)
            .map_err(MintError::in_step("signing the TLS authority's certificate"))?;
        let server = server_params(names)?
            .signed_by(&server_key, &Issuer::new(params, authority_key))
            .map_err(MintError::in_step("signing the TLS server certificate"))?;
        Ok(TlsIdentity {
            ca_pem: pem::encode("CERTIFICATE", authority.der()),
            cert_chain_der: vec![server.into()],
            key_der: PrivatePkcs8KeyDer::from(server_key.serialized_der().to_vec()).into(),
        })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = base("fleetmint emulator authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Strict clients want the authority's key identifier in it (RFC 5280 section 4.2.1.1).
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
        let identity =
            Authority::server_certificate(&["emulator.example", "192.0.2.7", "localhost"]).unwrap();
        for name in ["localhost", "127.0.0.1", "::1", "emulator.example", "192.0.2.7"] {
            assert_eq!(handshake(&identity, &identity.ca_pem, name), Ok(()), "{name}");
        }
        assert!(handshake(&identity, &identity.ca_pem, "other.example").is_err());
        let stranger = Authority::server_certificate::<&str>(&[]).unwrap();
        assert!(handshake(&identity, &stranger.ca_pem, "localhost").is_err());
    }

    #[test]
    fn a_name_that_is_none_is_an_error() {
        let error = Authority::server_certificate(&["\u{1f4a9}"]).unwrap_err();
        assert_eq!(error.step, "naming the server");
    }

    #[test]
    fn the_key_is_not_shown() {
        let identity = Authority::server_certificate::<&str>(&[]).unwrap();
        assert!(!format!("{identity:?}").contains("key"));
    }
}
