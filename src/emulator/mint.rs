//! Stand-in: keys and certificates.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::scenario::Scenario;

/// A key and its certificate.
#[derive(Debug)]
pub struct Minted {
    pub(super) certificate_id: String,
    pub(super) certificate_pem: String,
    pub(super) private_key_pem: String,
}

/// The emulator's CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a TLS server needs.
pub struct TlsIdentity {
    /// The CA.
    pub ca_pem: String,
    /// Leaf first.
    pub cert_chain_der: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key_der: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "stand-in CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for the server.
    pub fn server_certificate(&self, names: &[&str]) -> Result<TlsIdentity, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(TlsIdentity {
            ca_pem: self.pem.clone(),
            cert_chain_der: vec![leaf.der().clone()],
            key_der: PrivateKeyDer::try_from(key.serialize_der())
                .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?,
        })
    }
}

/// Makes keys.
pub struct Mint {
    authority: Authority,
}

impl Mint {
    /// Starts making keys.
    pub fn start(_: &Scenario) -> Result<Self, rcgen::Error> {
        Ok(Self { authority: Authority::new()? })
    }

    /// The CA.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A fresh key and certificate.
    pub async fn take(&self) -> Minted {
        let key = KeyPair::generate().expect("stand-in");
        let params = CertificateParams::new(vec![]).expect("stand-in");
        let leaf = params.signed_by(&key, &self.authority.issuer).expect("stand-in");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf.der());
        let certificate_id = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Minted { certificate_id, certificate_pem: leaf.pem(), private_key_pem: key.serialize_pem() }
    }
}
