//! The emulator's TLS: for clients that sign requests, and for devices with a certificate of the account.
//!
//! Owns which of the two a client gets, and the check of a device's certificate. Source: AWS IoT Developer Guide,
//! "Device communication protocols" and "Transport security".

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{Acceptor, NoServerSessionStorage};
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio_rustls::server::TlsStream;

use rustls_pki_types::{CertificateDer, UnixTime};

use super::account::Principal;
use super::mint::TlsIdentity;
use super::service::Service;
use super::socket::Tcp;

/// The ALPN name of MQTT with a client certificate, which is required for it on the port for WebSockets.
const MUTUAL_ALPN: &[u8] = b"x-amzn-mqtt-ca";
/// The other ALPN name that clients use for MQTT, on its own port.
const MQTT_ALPN: &[u8] = b"mqtt";

/// The port that a client connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// For HTTPS and WebSockets, and for MQTT over mutual TLS with ALPN: 443 on the service.
    Web,
    /// For MQTT over mutual TLS: 8883 on the service.
    Mqtt,
}

/// The result of a successful handshake.
pub(super) enum Welcome {
    /// A client that will speak HTTP.
    Web(TlsStream<Tcp>),
    /// A device that will speak MQTT.
    Device(TlsStream<Tcp>, Principal),
}

/// TLS for both kinds of clients.
pub(super) struct Tls {
    web: Arc<ServerConfig>,
    mutual: Arc<ServerConfig>,
}

impl Tls {
    /// TLS with the server's certificate. Devices' certificates are looked up in the account of `service`.
    ///
    /// # Errors
    /// The error of rustls if it cannot use the certificate or the key.
    pub(super) fn new(identity: &TlsIdentity, service: &Arc<Service>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(default_provider());
        let versions = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()
        };
        let (chain, key) = (&identity.cert_chain_der, &identity.key_der);
        // No ALPN here: clients that offer http/1.1 and clients that offer nothing are both accepted.
        let mut web = versions()?.with_no_client_auth().with_single_cert(chain.clone(), key.clone_key())?;
        web.ticketer = Ticketer::new()?;
        let verifier =
            Arc::new(DeviceVerifier { service: Arc::clone(service), provider: Arc::clone(&provider) });
        let mut mutual = versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        mutual.alpn_protocols = vec![MUTUAL_ALPN.to_vec(), MQTT_ALPN.to_vec()];
        // Resuming a session would skip the check of the certificate.
        mutual.session_storage = Arc::new(NoServerSessionStorage {});
        mutual.send_tls13_tickets = 0;
        Ok(Self { web: Arc::new(web), mutual: Arc::new(mutual) })
    }

    /// Performs the handshake with a client that connected to `port`. `None` if that fails, or if a device does not
    /// name the host in SNI, which the service requires.
    pub(super) async fn accept(&self, port: Port, stream: TcpStream) -> Option<Welcome> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), Tcp::new(stream)).await.ok()?;
        let hello = start.client_hello();
        let names_mutual = hello.alpn().into_iter().flatten().any(|offered| offered == MUTUAL_ALPN);
        if port == Port::Web && !names_mutual {
            return start.into_stream(Arc::clone(&self.web)).await.ok().map(Welcome::Web);
        }
        hello.server_name()?;
        let stream = start.into_stream(Arc::clone(&self.mutual)).await.ok()?;
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        let principal = Principal::Certificate(certificate_id(certificate));
        Some(Welcome::Device(stream, principal))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The id of a certificate: lower-case hexadecimal SHA-256 of its DER.
fn certificate_id(certificate: &CertificateDer<'_>) -> String {
    hex::encode(digest(&SHA256, certificate).as_ref())
}

/// Accepts certificates that are active in the account, whoever signed them: an account may register certificates that
/// it did not issue.
struct DeviceVerifier {
    service: Arc<Service>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for DeviceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let id = certificate_id(certificate);
        if self.service.account(|account| account.is_active(&id)) {
            Ok(ClientCertVerified::assertion())
        } else {
            tracing::debug!(id, "the certificate of a device is unknown or not active");
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
