//! Key pairs made here, and the certification requests for them.
//!
//! Owns the kinds of these keys, and the check that a certificate is for one. Does not know where keys are kept.

use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::certificate::{CertificateId, Evidence, Flaw, PreparedKey, Secret, SigningRequest};

/// The kinds of keys that can be made. The service accepts RSA of at least 2048 bits and the NIST curves P-256, P-384
/// and P-521 (API Reference, CreateCertificateFromCsr).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyType {
    /// ECDSA on NIST P-256; takes microseconds to make.
    #[default]
    P256,
    /// RSA of 2048 bits, for devices whose secure element or bootloader needs it. Making one occupies a core for a
    /// large part of a second: never do it on a thread that serves connections.
    Rsa2048,
}

impl KeyType {
    /// The kind's name on the command line and in the ledger: stable.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::P256 => "p256",
            KeyType::Rsa2048 => "rsa2048",
        }
    }
}

/// The subject of every request, the same that the service uses when it makes the key. The template decides which
/// device a certificate belongs to, and a subject could not be changed later.
const COMMON_NAME: &str = "AWS IoT Certificate";

/// The cryptographic library could not make a key: it ran out of randomness or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key pair could not be made: the cryptographic library failed")]
pub struct KeyNotMade;

impl From<rcgen::Error> for KeyNotMade {
    fn from(_: rcgen::Error) -> Self {
        // The details are dropped: they concern a private key.
        Self
    }
}

impl From<Unspecified> for KeyNotMade {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Makes a key pair and the PKCS #10 request for its certificate (RFC 2986).
///
/// # Errors
/// If the cryptographic library fails.
pub fn prepare(key_type: KeyType) -> Result<PreparedKey<Secret<String>>, KeyNotMade> {
    // Zeroed on drop; the library zeroes its own copy.
    let pair = Zeroizing::new(match key_type {
        KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    });
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    let request = SigningRequest { pem: params.serialize_request(&*pair)?.pem()? };
    Ok(PreparedKey { private_key: private_key_pem(pair.serialized_der()), request })
}

/// PKCS #8 in PEM (RFC 5958, RFC 7468 section 10). Our own encoder, because it leaves no copies behind.
fn private_key_pem(der: &[u8]) -> Secret<String> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
    const END: &str = "-----END PRIVATE KEY-----\n";
    const LINE: usize = 64;
    let mut body = Zeroizing::new(vec![0; der.len().div_ceil(3) * 4]);
    let length = STANDARD.encode_slice(der, &mut body).expect("the buffer was made for it");
    let lines = length.div_ceil(LINE);
    let mut pem = String::with_capacity(BEGIN.len() + length + lines + END.len());
    pem.push_str(BEGIN);
    for line in body[..length].chunks(LINE) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(END);
    Secret::new(pem)
}

/// Why a certificate does not match a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyMismatch {
    /// The request cannot be read.
    #[error("the certification request in the ledger is not a PKCS #10 request")]
    NoRequest,
    /// The certificate cannot be read.
    #[error("certificatePem is not an X.509 certificate")]
    NoCertificate,
    /// The certificate is for another key.
    #[error("the certificate's public key is not that of the certification request")]
    OtherKey,
}

/// Checks that a certificate is for the key pair of a request.
///
/// # Errors
/// If it is for another key, or one of the two cannot be read.
pub fn check_certificate(request: &SigningRequest, certificate_pem: &str) -> Result<(), KeyMismatch> {
    let wanted = public_key(request).ok_or(KeyMismatch::NoRequest)?;
    let certificate = Evidence::of(certificate_pem).map_err(|_| KeyMismatch::NoCertificate)?;
    if wanted == certificate.public_key() { Ok(()) } else { Err(KeyMismatch::OtherKey) }
}

/// Why a certificate, its id and its private key do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairMismatch {
    /// The certificate cannot be read.
    #[error("the certificate is not an X.509 certificate in PEM")]
    NoCertificate,
    /// The id is not the SHA-256 of the certificate's DER.
    #[error("its id is not the SHA-256 of the certificate")]
    OtherId,
    /// The private key cannot be read, or is not of the certificate's kind.
    #[error("the private key is not an RSA or EC key in PEM")]
    NoKey,
    /// The private key is not the certificate's.
    #[error("the private key is not that of the certificate")]
    OtherKey,
}

/// Checks that a certificate, its id and a private key belong together, as [`Evidence`] does.
///
/// # Errors
/// The first part that cannot be read or does not match.
pub fn check_pair(id: &str, certificate_pem: &str, private_key: &Secret<String>) -> Result<(), PairMismatch> {
    let evidence = Evidence::of(certificate_pem).map_err(|_| PairMismatch::NoCertificate)?;
    if !CertificateId::try_from(id.to_owned()).is_ok_and(|id| evidence.has_id(&id)) {
        return Err(PairMismatch::OtherId);
    }
    evidence.check_key(private_key).map_err(|flaw| match flaw {
        Flaw::OtherKey => PairMismatch::OtherKey,
        _ => PairMismatch::NoKey,
    })
}

/// The DER of a request's `SubjectPublicKeyInfo`.
fn public_key(request: &SigningRequest) -> Option<Vec<u8>> {
    let (_, pem) = parse_x509_pem(request.pem.as_bytes()).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    (pem.label == "CERTIFICATE REQUEST").then(|| parsed.certification_request_info.subject_pki.raw.to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use rcgen::Issuer;

    use super::*;

    fn pair_of(key: &PreparedKey<Secret<String>>) -> KeyPair {
        KeyPair::from_pem(key.private_key.expose()).unwrap()
    }

    /// A certificate for the private key of `key`, as an authority would sign it.
    fn certify(key: &PreparedKey<Secret<String>>) -> String {
        let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        CertificateParams::default().signed_by(&pair_of(key), &issuer).unwrap().pem()
    }

    #[test]
    fn a_request_is_signed_with_the_key_beside_it() {
        for key_type in [KeyType::P256, KeyType::Rsa2048] {
            let key = prepare(key_type).unwrap();
            let (_, pem) = parse_x509_pem(key.request.pem.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            let info = &request.certification_request_info;
            assert_eq!(info.subject.to_string(), "CN=AWS IoT Certificate");
            let public = &info.subject_pki.subject_public_key.data;
            assert_eq!(public.as_ref(), pair_of(&key).public_key_raw());
            let signature = &request.signature_value.data;
            match key_type {
                KeyType::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public),
                KeyType::Rsa2048 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public),
            }
            .verify(info.raw, signature)
            .unwrap();
            // The service takes 4096 characters at most.
            assert!(key.request.pem.len() <= 4096);
            assert!(!format!("{key:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn private_keys_are_pkcs8_in_lines_of_64() {
        let key = prepare(KeyType::P256).unwrap();
        let pem = key.private_key.expose();
        assert!(
            pem.starts_with("-----BEGIN PRIVATE KEY-----\n")
                && pem.ends_with("\n-----END PRIVATE KEY-----\n")
        );
        assert!(pem.lines().all(|line| line.len() <= 64));
        let (_, parsed) = parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(parsed.contents, pair_of(&key).serialize_der());
        assert_eq!(pem.capacity(), pem.len(), "it never moved, so that no copy is left");
    }

    #[test]
    fn certificate_id_and_key_are_of_one_making() {
        for (key_type, other_type) in [(KeyType::P256, KeyType::Rsa2048), (KeyType::Rsa2048, KeyType::P256)] {
            let (key, other) = (prepare(key_type).unwrap(), prepare(other_type).unwrap());
            let certificate = certify(&key);
            let (_, pem) = parse_x509_pem(certificate.as_bytes()).unwrap();
            let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pem.contents);
            let id: String = id.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(check_pair(&id, &certificate, &key.private_key), Ok(()));
            let (foreign, twin) = (&other.private_key, prepare(key_type).unwrap().private_key);
            assert_eq!(check_pair(&id, &certificate, foreign), Err(PairMismatch::NoKey), "{key_type:?}");
            assert_eq!(check_pair(&id, &certificate, &twin), Err(PairMismatch::OtherKey), "{key_type:?}");
            assert_eq!(
                check_pair(&"0".repeat(64), &certificate, &key.private_key),
                Err(PairMismatch::OtherId)
            );
            assert_eq!(check_pair(&id, &certificate, &certificate.clone().into()), Err(PairMismatch::NoKey));
            assert_eq!(check_pair(&id, "key", &key.private_key), Err(PairMismatch::NoCertificate));
        }
    }

    #[test]
    fn a_certificate_is_for_one_key_only() {
        let (key, other) = (prepare(KeyType::P256).unwrap(), prepare(KeyType::P256).unwrap());
        assert_eq!(check_certificate(&key.request, &certify(&key)), Ok(()));
        assert_eq!(check_certificate(&key.request, &certify(&other)), Err(KeyMismatch::OtherKey));
        let rsa = prepare(KeyType::Rsa2048).unwrap();
        assert_eq!(check_certificate(&rsa.request, &certify(&rsa)), Ok(()));
        for wrong in [
            "",
            "hunter2",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key.request.pem,
        ] {
            assert_eq!(check_certificate(&key.request, wrong), Err(KeyMismatch::NoCertificate));
        }
        let wrong = SigningRequest { pem: certify(&key) };
        assert_eq!(check_certificate(&wrong, &certify(&key)), Err(KeyMismatch::NoRequest));
    }
}
