//! The device certificate authority: makes certificates as CreateKeysAndCertificate does.
//!
//! Owns the form of device certificates: X.509 v3, signed by RSA 2048 with SHA-256, with names and dates as decoded
//! from a certificate that the service once issued; and the format of keys, PKCS#1 or SEC1. Only [`Keys::Recycled`]
//! departs from that: an RSA signature would be half of the emulator's work for a device.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SerialNumber,
};
use time::OffsetDateTime;
use time::macros::datetime;
use x509_parser::asn1_rs::{FromDer, Integer, OctetString, Sequence};
use zeroize::Zeroizing;

use super::super::account::{Certified, Minted};
use super::super::scenario::Keys;
use super::MintError;
use super::csr::{self, CsrError};
use crate::certificate::Secret;
use crate::emulator::pem;

/// The service's issuer has a single attribute, an organizational unit, with this text.
const ISSUER: &str = "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US";
const SUBJECT: &str = "AWS IoT Certificate";
/// The end of a certificate's validity (Developer Guide, "X.509 client certificates").
const NOT_AFTER: OffsetDateTime = datetime!(2049-12-31 23:59:59 UTC);
/// How long before it was made a certificate becomes valid, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(120);
/// The start of the authority's own certificate, early enough for any plausible clock.
const AUTHORITY_NOT_BEFORE: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
pub(super) const SERIAL_BYTES: usize = 20;

/// Signs device certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    /// The key and authority of [`Keys::Recycled`], made when first needed.
    recycled: OnceLock<Recycled>,
}

/// Why a signing request got no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertifyError {
    /// The request is invalid.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The certificate could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// One key pair for all devices, and a separate authority that signs with P-256, at a tenth of the cost of RSA. It has
/// the same name as the other authority.
struct Recycled {
    key: DeviceKey,
    issuer: Issuer<'static, KeyPair>,
}

/// A device's key pair.
struct DeviceKey {
    pair: KeyPair,
    private_key_pem: Secret<String>,
}

impl Authority {
    /// A new authority: an RSA 2048 key and a self-signed certificate. Takes as long as making one RSA key.
    ///
    /// # Errors
    /// [`MintError`] if the machine has no entropy or no memory left.
    pub fn generate() -> Result<Self, MintError> {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256)
            .map_err(MintError::in_step("making the authority's key"))?;
        let params = authority_params(serial()?);
        let certificate =
            params.self_signed(&key).map_err(MintError::in_step("signing the authority's certificate"))?;
        let certificate_pem = pem::encode("CERTIFICATE", certificate.der());
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, recycled: OnceLock::new() })
    }

    /// The authority with this key, PKCS#8, and this certificate.
    ///
    /// # Errors
    /// [`MintError`] if the key is not an RSA key.
    pub fn restore(key: &[u8], certificate_pem: String) -> Result<Self, MintError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), &PKCS_RSA_SHA256)
            .map_err(MintError::in_step("reading the authority's key"))?;
        Ok(Self {
            issuer: Issuer::new(authority_params(serial()?), key),
            certificate_pem,
            recycled: OnceLock::new(),
        })
    }

    /// The authority's key, PKCS#8.
    pub fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// The authority's own certificate, PEM, which device certificates chain to.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A new certificate, valid from two minutes before `now`, with a key as `keys` says.
    ///
    /// # Errors
    /// [`MintError`] if the machine has no entropy or no memory left, or `now` is outside the years 0 to 9999.
    pub fn mint(&self, keys: Keys, now: SystemTime) -> Result<Minted, MintError> {
        match keys {
            Keys::Rsa2048 => certify(&DeviceKey::rsa()?, &self.issuer, now),
            Keys::P256 => certify(&DeviceKey::p256()?, &self.issuer, now),
            Keys::Recycled => {
                let Recycled { key, issuer } = self.recycled()?;
                certify(key, issuer, now)
            }
        }
    }

    fn recycled(&self) -> Result<&Recycled, MintError> {
        if let Some(recycled) = self.recycled.get() {
            return Ok(recycled);
        }
        let signer = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(MintError::in_step("making the key that signs for load"))?;
        let recycled =
            Recycled { key: DeviceKey::rsa()?, issuer: Issuer::new(authority_params(serial()?), signer) };
        // Two threads may get here at once: the first key stays, and the other is dropped.
        Ok(self.recycled.get_or_init(|| recycled))
    }

    /// A new certificate for the key of a signing request, PEM, otherwise like those of [`Authority::mint`]. The same
    /// request again gets another certificate. Takes a millisecond of a core, for the authority's RSA signature.
    ///
    /// # Errors
    /// [`CertifyError::Csr`] if the request is invalid; [`CertifyError::Mint`] in the cases in which
    /// [`Authority::mint`] fails.
    pub fn certify_request(&self, csr_pem: &str, now: SystemTime) -> Result<Certified, CertifyError> {
        let key = csr::key_of(csr_pem)?;
        Ok(sign(&key, &self.issuer, now, serial()?)?)
    }
}

fn certify(key: &DeviceKey, issuer: &Issuer<'static, KeyPair>, now: SystemTime) -> Result<Minted, MintError> {
    let Certified { certificate_pem, certificate_id } = sign(&key.pair, issuer, now, serial()?)?;
    Ok(Minted { certificate_pem, certificate_id, private_key_pem: key.private_key_pem.clone() })
}

/// A device certificate for `key`, valid from two minutes before `now`.
pub(super) fn sign(
    key: &impl PublicKeyData,
    issuer: &Issuer<'static, KeyPair>,
    now: SystemTime,
    serial: SerialNumber,
) -> Result<Certified, MintError> {
    let certificate = device_params(now, serial)?
        .signed_by(key, issuer)
        .map_err(MintError::in_step("signing a device certificate"))?;
    Ok(Certified {
        certificate_pem: pem::encode("CERTIFICATE", certificate.der()),
        certificate_id: hex::encode(digest(&SHA256, certificate.der()).as_ref()),
    })
}

impl DeviceKey {
    /// A new key in PKCS#1, `RSA PRIVATE KEY`, as the service writes it.
    fn rsa() -> Result<Self, MintError> {
        let pair =
            KeyPair::generate_for(&PKCS_RSA_SHA256).map_err(MintError::in_step("making an RSA key"))?;
        let pkcs1 = Zeroizing::new(pkcs1_of_pkcs8(pair.serialized_der())?);
        let private_key_pem = Secret::new(pem::encode("RSA PRIVATE KEY", &pkcs1));
        Ok(Self { pair, private_key_pem })
    }

    /// A new key in SEC1, `EC PRIVATE KEY`, which names the curve (RFC 5915).
    fn p256() -> Result<Self, MintError> {
        let step = "making a P-256 key";
        let failed = |detail: &dyn ToString| MintError { step, detail: detail.to_string() };
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(MintError::in_step(step))?;
        let same = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.serialized_der())
            .map_err(|error| failed(&error))?;
        let sec1 = same.private_key().as_der().map_err(|error| failed(&error))?;
        let private_key_pem = Secret::new(pem::encode("EC PRIVATE KEY", sec1.as_ref()));
        Ok(Self { pair, private_key_pem })
    }
}

/// Extracts the PKCS#1 key from PKCS#8. A `PrivateKeyInfo` is a version, an algorithm and an octet string, which for
/// RSA holds the PKCS#1 key (RFC 5958 section 2, RFC 8017 appendix A.1.2).
fn pkcs1_of_pkcs8(pkcs8: &[u8]) -> Result<Vec<u8>, MintError> {
    let step = "unwrapping an RSA key from PKCS#8";
    let failed = |what: &str| MintError { step, detail: what.to_owned() };
    let (_, info) = Sequence::from_der(pkcs8).map_err(|_| failed("no sequence"))?;
    let (rest, _version) = Integer::from_der(&info.content).map_err(|_| failed("no version"))?;
    let (rest, _algorithm) = Sequence::from_der(rest).map_err(|_| failed("no algorithm"))?;
    let (_, key) = OctetString::from_der(rest).map_err(|_| failed("no key"))?;
    Ok(key.as_ref().to_vec())
}

/// The contents of the authority's own certificate.
pub(super) fn authority_params(serial: SerialNumber) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(DnType::OrganizationalUnitName, ISSUER);
    params.serial_number = Some(serial);
    params.not_before = AUTHORITY_NOT_BEFORE;
    params.not_after = NOT_AFTER;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn device_params(now: SystemTime, serial: SerialNumber) -> Result<CertificateParams, MintError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(DnType::CommonName, SUBJECT);
    params.serial_number = Some(serial);
    params.not_before = not_before(now)?;
    params.not_after = NOT_AFTER;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The start of a certificate's validity, in whole seconds as certificates have it.
fn not_before(now: SystemTime) -> Result<OffsetDateTime, MintError> {
    let out_of_range =
        || MintError { step: "dating a certificate", detail: "the clock is out of range".into() };
    let since_epoch =
        now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| out_of_range())?.saturating_sub(BACKDATED);
    let seconds = i64::try_from(since_epoch.as_secs()).map_err(|_| out_of_range())?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| out_of_range())
}

fn name(kind: DnType, text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(kind, text);
    name
}

/// A random serial number.
fn serial() -> Result<SerialNumber, MintError> {
    let mut bytes = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|error| MintError { step: "drawing a serial number", detail: error.to_string() })?;
    Ok(serial_of(bytes))
}

/// `bytes` as a serial number: positive and without a leading zero byte, so that its DER has the same number of bytes.
pub(super) fn serial_of(mut bytes: [u8; SERIAL_BYTES]) -> SerialNumber {
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use x509_parser::prelude::{ParsedExtension, X509Certificate};

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_766_000_000, 500)
    }

    /// The DER inside a PEM block of this label.
    fn der(label: &str, pem: &str) -> Vec<u8> {
        let body = pem.strip_prefix(&format!("-----BEGIN {label}-----\n")).unwrap();
        let body = body.strip_suffix(&format!("\n-----END {label}-----\n")).unwrap();
        assert!(body.lines().all(|line| line.len() <= 64));
        STANDARD.decode(body.replace('\n', "")).unwrap()
    }

    /// Checks the certificate's signature by the authority's key.
    fn verify(authority: &Authority, certificate: &X509Certificate<'_>) {
        let issuer = der("CERTIFICATE", authority.certificate_pem());
        let issuer = X509Certificate::from_der(&issuer).unwrap().1;
        assert_eq!(certificate.issuer(), issuer.subject());
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &*issuer.public_key().subject_public_key.data)
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
            .unwrap();
    }

    fn public_key(certificate: &X509Certificate<'_>) -> Vec<u8> {
        certificate.public_key().subject_public_key.data.to_vec()
    }

    /// The public key of a PKCS#1 private key.
    fn rsa_public_key(minted: &Minted) -> Vec<u8> {
        let pair = RsaKeyPair::from_der(&der("RSA PRIVATE KEY", minted.private_key_pem.expose())).unwrap();
        assert_eq!(pair.public_modulus_len(), 256);
        pair.public_key().as_ref().to_vec()
    }

    #[test]
    fn a_certificate_looks_like_the_services() {
        let authority = Authority::generate().unwrap();
        let minted = authority.mint(Keys::Rsa2048, now()).unwrap();
        let der = der("CERTIFICATE", &minted.certificate_pem);
        assert_eq!(minted.certificate_id, hex::encode(digest(&SHA256, &der).as_ref()));
        let certificate = X509Certificate::from_der(&der).unwrap().1;
        verify(&authority, &certificate);
        assert_eq!(public_key(&certificate), rsa_public_key(&minted));

        assert_eq!(certificate.version().0, 2, "v3");
        assert_eq!(certificate.raw_serial().len(), 20);
        assert_eq!(certificate.signature_algorithm.algorithm.to_id_string(), "1.2.840.113549.1.1.11");
        assert_eq!(certificate.issuer().iter_attributes().count(), 1);
        let unit = certificate.issuer().iter_organizational_unit().next().unwrap();
        assert_eq!(unit.as_str().unwrap(), ISSUER);
        assert_eq!(certificate.subject().to_string(), "CN=AWS IoT Certificate");
        assert_eq!(certificate.validity().not_before.timestamp(), 1_766_000_000 - 120);
        assert_eq!(certificate.validity().not_after.to_datetime(), NOT_AFTER);
        assert!(!certificate.is_ca());
        // The seed's certificate begins so too: a DER of 861 bytes.
        assert!(minted.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----\nMIIDWTCC"));
    }

    #[test]
    fn its_extensions_are_sensible() {
        let authority = Authority::generate().unwrap();
        let minted = authority.mint(Keys::P256, now()).unwrap();
        let der = der("CERTIFICATE", &minted.certificate_pem);
        let certificate = X509Certificate::from_der(&der).unwrap().1;
        let extensions = certificate.extensions_map().unwrap();
        assert_eq!(extensions.len(), 4, "basic constraints, key usage, both key identifiers");
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
        assert!(certificate.basic_constraints().unwrap().unwrap().critical);
        let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
            certificate.extensions().iter().any(|extension| wanted(extension.parsed_extension()))
        };
        assert!(has(|extension| matches!(extension, ParsedExtension::SubjectKeyIdentifier(_))));
        assert!(has(|extension| matches!(extension, ParsedExtension::AuthorityKeyIdentifier(_))));
    }

    #[test]
    fn a_p256_key_is_sec1_and_matches() {
        let authority = Authority::generate().unwrap();
        let minted = authority.mint(Keys::P256, now()).unwrap();
        let der_bytes = der("CERTIFICATE", &minted.certificate_pem);
        let certificate = X509Certificate::from_der(&der_bytes).unwrap().1;
        verify(&authority, &certificate);
        let sec1 = der("EC PRIVATE KEY", minted.private_key_pem.expose());
        // RFC 5915: version 1, the key, and the curve by name: OpenSSL cannot read one without.
        assert_eq!(&sec1[2..7], [0x02, 0x01, 0x01, 0x04, 0x20]);
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        assert!(sec1.windows(curve.len()).any(|window| window == curve));
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &sec1).unwrap();
        assert_eq!(pair.public_key().as_ref(), public_key(&certificate));
    }

    #[test]
    fn recycled_keys_are_one_and_their_certificates_many() {
        let authority = Authority::generate().unwrap();
        let [first, second] = [0; 2].map(|_| authority.mint(Keys::Recycled, now()).unwrap());
        assert_eq!(first.private_key_pem, second.private_key_pem);
        assert_ne!(first.certificate_id, second.certificate_id);
        let der = der("CERTIFICATE", &second.certificate_pem);
        assert_eq!(public_key(&X509Certificate::from_der(&der).unwrap().1), rsa_public_key(&second));
    }

    #[test]
    fn a_signing_request_gets_a_certificate_for_its_key_and_the_services_names() {
        let authority = Authority::generate().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new([String::from("device.example")]).unwrap();
        params.distinguished_name = name(DnType::CommonName, "what the client wants");
        let request = pem::encode("CERTIFICATE REQUEST", params.serialize_request(&key).unwrap().der());
        let [first, second] = [0; 2].map(|_| authority.certify_request(&request, now()).unwrap());
        assert_ne!(first.certificate_id, second.certificate_id);
        for certified in [first, second] {
            let der = der("CERTIFICATE", &certified.certificate_pem);
            assert_eq!(certified.certificate_id, hex::encode(digest(&SHA256, &der).as_ref()));
            let certificate = X509Certificate::from_der(&der).unwrap().1;
            verify(&authority, &certificate);
            assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
            assert_eq!(certificate.subject().to_string(), "CN=AWS IoT Certificate");
            assert!(certificate.subject_alternative_name().unwrap().is_none());
        }
        let refused = authority.certify_request("csr", now()).unwrap_err();
        assert_eq!(refused, CertifyError::Csr(CsrError::NotPem));
    }

    #[test]
    fn an_impossible_clock_is_an_error() {
        let authority = Authority::generate().unwrap();
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        for clock in [far, SystemTime::UNIX_EPOCH - Duration::from_secs(1)] {
            let error = authority.mint(Keys::P256, clock).unwrap_err();
            assert_eq!(error.to_string(), "dating a certificate failed: the clock is out of range");
        }
    }
}
