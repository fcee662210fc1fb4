//! Certificate signing requests (PKCS#10, RFC 2986), which a client sends to have its own key certified.
//!
//! Owns which requests are valid: their form, their key, and the proof that the client has the private key. Takes
//! nothing but the key from a request: the certificate's names are the service's. Source: AWS IoT API Reference,
//! CreateCertificateFromCsr.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest request, characters of PEM.
const MAX_CHARACTERS: usize = 4096;
/// The shortest RSA key, bits.
const MIN_RSA_BITS: usize = 2048;
/// The longest RSA key that the emulator can check, bits.
const MAX_RSA_BITS: usize = 8192;

/// Why a signing request is refused. `Display` is for its sender, and repeats nothing of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// The request is longer than the service accepts.
    #[error("the request has {0} characters; at most {MAX_CHARACTERS} are allowed")]
    TooLong(usize),
    /// The text is not a PEM block with a request's label.
    #[error("not PEM with the label CERTIFICATE REQUEST")]
    NotPem,
    /// The contents are not a request in ASN.1.
    #[error("not a PKCS#10 certification request")]
    NotARequest,
    /// The RSA key is too short or too long.
    #[error("an RSA key of {0} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed")]
    RsaBits(usize),
    /// The key is neither RSA nor on a NIST curve.
    #[error("a key that is neither RSA nor on NIST P-256, P-384 or P-521")]
    KeyAlgorithm,
    /// The signature algorithm is one that the emulator does not accept, such as SHA-1.
    #[error(
        "signed with an algorithm that does not go with the key; RSA PKCS#1 or ECDSA with SHA-256, SHA-384 or SHA-512 is wanted"
    )]
    SignatureAlgorithm,
    /// The request is not signed with its own key.
    #[error("the signature is not by the request's key")]
    Signature,
}

/// A key whose owner proved to have its private half.
pub(in crate::emulator) struct CertifiedKey {
    /// The bits of the subject public key.
    bits: Vec<u8>,
    /// Only the algorithm's identifiers are used.
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for CertifiedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// The key of a signing request, if the request is valid.
pub(in crate::emulator) fn key_of(pem: &str) -> Result<CertifiedKey, CsrError> {
    let characters = pem.chars().count();
    if characters > MAX_CHARACTERS {
        return Err(CsrError::TooLong(characters));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CsrError::NotPem)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::NotARequest)?;
    if !rest.is_empty() {
        return Err(CsrError::NotARequest);
    }
    let info = &request.certification_request_info;
    let kind = Kind::of(&info.subject_pki)?;
    let signed_with = request.signature_algorithm.algorithm.to_id_string();
    let verifier = kind.verifier(&signed_with).ok_or(CsrError::SignatureAlgorithm)?;
    let bits = &info.subject_pki.subject_public_key.data;
    UnparsedPublicKey::new(verifier, bits)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| CsrError::Signature)?;
    Ok(CertifiedKey { bits: bits.to_vec(), algorithm: kind.algorithm() })
}

/// The kinds of key that the service certifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    P521,
}

impl Kind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Result<Self, CsrError> {
        match key.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => check_rsa(key),
            "1.2.840.10045.2.1" => {
                let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                match curve.map(|curve| curve.to_id_string()).as_deref() {
                    Some("1.2.840.10045.3.1.7") => Ok(Kind::P256),
                    Some("1.3.132.0.34") => Ok(Kind::P384),
                    Some("1.3.132.0.35") => Ok(Kind::P521),
                    _ => Err(CsrError::KeyAlgorithm),
                }
            }
            _ => Err(CsrError::KeyAlgorithm),
        }
    }

    /// The verifier for a signature algorithm: clients may choose the hash. RFC 4055 section 5 and RFC 5758 section 3.2
    /// define the identifiers.
    fn verifier(self, signed_with: &str) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self, signed_with) {
            (Kind::Rsa, "1.2.840.113549.1.1.11") => &RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, "1.2.840.113549.1.1.12") => &RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, "1.2.840.113549.1.1.13") => &RSA_PKCS1_2048_8192_SHA512,
            (Kind::P256, "1.2.840.10045.4.3.2") => &ECDSA_P256_SHA256_ASN1,
            (Kind::P256, "1.2.840.10045.4.3.3") => &ECDSA_P256_SHA384_ASN1,
            (Kind::P256, "1.2.840.10045.4.3.4") => &ECDSA_P256_SHA512_ASN1,
            (Kind::P384, "1.2.840.10045.4.3.2") => &ECDSA_P384_SHA256_ASN1,
            (Kind::P384, "1.2.840.10045.4.3.3") => &ECDSA_P384_SHA384_ASN1,
            (Kind::P384, "1.2.840.10045.4.3.4") => &ECDSA_P384_SHA512_ASN1,
            (Kind::P521, "1.2.840.10045.4.3.2") => &ECDSA_P521_SHA256_ASN1,
            (Kind::P521, "1.2.840.10045.4.3.3") => &ECDSA_P521_SHA384_ASN1,
            (Kind::P521, "1.2.840.10045.4.3.4") => &ECDSA_P521_SHA512_ASN1,
            _ => return None,
        })
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Kind::Rsa => &PKCS_RSA_SHA256,
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
            Kind::P384 => &PKCS_ECDSA_P384_SHA384,
            Kind::P521 => &PKCS_ECDSA_P521_SHA512,
        }
    }
}

fn check_rsa(key: &SubjectPublicKeyInfo<'_>) -> Result<Kind, CsrError> {
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Err(CsrError::NotARequest) };
    let leading = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &rsa.modulus[leading..];
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match modulus.len() * 8 - unused {
        MIN_RSA_BITS..=MAX_RSA_BITS => Ok(Kind::Rsa),
        bits => Err(CsrError::RsaBits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P521_SHA256, PKCS_ED25519, PKCS_RSA_SHA384, PKCS_RSA_SHA512,
    };

    use super::*;
    use crate::emulator::pem;

    /// By OpenSSL, of a key of 1024 bits.
    const RSA_1024: &str = include_str!("../../../fixtures/csr/rsa1024.csr");
    /// By OpenSSL, of a key of 2048 bits, signed with SHA-1.
    const RSA_2048_SHA1: &str = include_str!("../../../fixtures/csr/rsa2048-sha1.csr");
    /// By OpenSSL, of a P-256 key, with a subject and a requested extension.
    const P256_OPENSSL: &str = include_str!("../../../fixtures/csr/p256.csr");
    /// By OpenSSL, on secp256k1.
    const SECP256K1: &str = include_str!("../../../fixtures/csr/secp256k1.csr");

    fn request(algorithm: &'static SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        (key, der)
    }

    fn check(der: &[u8]) -> Result<CertifiedKey, CsrError> {
        key_of(&pem::encode("CERTIFICATE REQUEST", der))
    }

    #[test]
    fn every_kind_of_key_that_the_service_takes_is_taken_as_it_is() {
        for algorithm in [
            &PKCS_RSA_SHA256,
            &PKCS_RSA_SHA384,
            &PKCS_RSA_SHA512,
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ECDSA_P521_SHA256,
            &PKCS_ECDSA_P521_SHA512,
        ] {
            let (key, der) = request(algorithm);
            let certified = check(&der).ok().unwrap();
            assert_eq!(certified.subject_public_key_info(), key.subject_public_key_info(), "{algorithm:?}");
        }
    }

    #[test]
    fn requests_of_openssl_are_judged_by_their_key_and_hash() {
        assert!(key_of(P256_OPENSSL).is_ok());
        assert_eq!(key_of(RSA_1024).err(), Some(CsrError::RsaBits(1024)));
        assert_eq!(key_of(RSA_2048_SHA1).err(), Some(CsrError::SignatureAlgorithm));
        assert_eq!(key_of(SECP256K1).err(), Some(CsrError::KeyAlgorithm));
        assert_eq!(check(&request(&PKCS_ED25519).1).err(), Some(CsrError::KeyAlgorithm));
    }

    #[test]
    fn a_request_that_was_tampered_with_is_not_signed_by_its_key() {
        let (_, mut der) = request(&PKCS_ECDSA_P256_SHA256);
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(check(&der).err(), Some(CsrError::Signature));
        // Another client's key under this client's signature.
        let ((_, mut ours), (theirs, _)) =
            (request(&PKCS_ECDSA_P256_SHA256), request(&PKCS_ECDSA_P256_SHA256));
        let at = ours.windows(2).position(|window| window == [0x00, 0x04]).unwrap() + 1;
        ours[at..at + 65].copy_from_slice(theirs.der_bytes());
        assert_eq!(check(&ours).err(), Some(CsrError::Signature));
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        let (_, der) = request(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(key_of("").err(), Some(CsrError::NotPem));
        assert_eq!(key_of(&pem::encode("CERTIFICATE", &der)).err(), Some(CsrError::NotPem));
        assert_eq!(check(&der[..der.len() - 1]).err(), Some(CsrError::NotARequest));
        assert_eq!(check(&[&der[..], &[0]].concat()).err(), Some(CsrError::NotARequest));
        let pem = pem::encode("CERTIFICATE REQUEST", &der);
        let padded = |length: usize| format!("{}{pem}", " \n".repeat((length - pem.len()).div_ceil(2)));
        assert!(key_of(&padded(MAX_CHARACTERS - 2)).is_ok());
        assert!(matches!(key_of(&padded(MAX_CHARACTERS + 2)).err(), Some(CsrError::TooLong(4097..))));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        /// Whatever is changed in a good request, it is refused or has the same key, and nothing panics.
        #[test]
        fn any_byte_may_be_wrong(at in 0_usize..10_000, byte: u8) {
            let (_, der) = pem_der();
            let mut wrong = der.clone();
            let at = at % wrong.len();
            wrong[at] = byte;
            if let (Ok(ours), Ok(wrongs)) = (check(der), check(&wrong)) {
                proptest::prop_assert_eq!(ours.bits, wrongs.bits);
            }
        }
    }

    fn pem_der() -> &'static (KeyPair, Vec<u8>) {
        static REQUEST: std::sync::OnceLock<(KeyPair, Vec<u8>)> = std::sync::OnceLock::new();
        REQUEST.get_or_init(|| request(&PKCS_ECDSA_P256_SHA256))
    }
}
