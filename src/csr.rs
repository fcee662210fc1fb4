//! Certification requests of devices that keep their keys: read and checked before the service is asked.
//!
//! Accepts a request in any common wrapping: PEM, PEM on one line as in a table cell, bare base64, or DER. Sources:
//! RFC 2986 (PKCS #10), RFC 7468, RFC 8017, RFC 5480; for the kinds of keys, AWS IoT API Reference,
//! CreateCertificateFromCsr.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::SigningRequest;
use crate::service::{MAX_SIGNING_REQUEST, MIN_RSA_BITS};

/// The longest RSA key whose signature can be checked here, in bits.
const MAX_RSA_BITS: usize = 8192;

/// A request that may be sent to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRequest {
    /// The request, in RFC 7468 PEM.
    pub request: SigningRequest,
    /// Identifies its public key: the beginning of the SHA-256 of the SubjectPublicKeyInfo.
    pub key: [u8; 16],
}

/// Why a text is not a request that may be sent. Repeats nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// Empty.
    #[error("no request")]
    Empty,
    /// A private key, which must never leave the device.
    #[error("a private key: nobody but the device should have it")]
    PrivateKey,
    /// A certificate.
    #[error("a certificate, which is what the request is to become")]
    Certificate,
    /// Neither PEM nor base64 nor DER.
    #[error("text that is neither PEM nor base64")]
    Wrapping,
    /// Not the ASN.1 of a request.
    #[error("something else than a PKCS #10 request")]
    Structure,
    /// Longer than the service accepts.
    #[error("a request of {0} characters")]
    TooLong(usize),
    /// An RSA key that is too short or too long.
    #[error("a request for an RSA key of {0} bits")]
    RsaBits(usize),
    /// Neither RSA nor one of the three curves.
    #[error("a request for a key that is neither RSA nor on a NIST curve")]
    KeyKind,
    /// Signed with SHA-1, or with an algorithm that does not match the key.
    #[error("a request that is signed with another algorithm")]
    Algorithm,
    /// The signature was not made with the request's key.
    #[error("a request whose signature is not by its own key")]
    Signature,
}

impl RequestFault {
    /// What is expected instead.
    pub fn wanted(&self) -> &'static str {
        match self {
            Self::Empty | Self::PrivateKey | Self::Certificate | Self::Wrapping | Self::Structure => {
                "a PKCS #10 certification request, in PEM (BEGIN CERTIFICATE REQUEST)"
            }
            Self::TooLong(_) => "at most 4096 characters, the service's limit",
            Self::RsaBits(_) => "2048 to 8192 bits",
            Self::KeyKind => "an RSA key, or one on P-256, P-384 or P-521",
            Self::Algorithm => "RSA PKCS #1 or ECDSA, with SHA-256, SHA-384 or SHA-512",
            Self::Signature => "the proof that the device has the key: a request that the device itself made",
        }
    }
}

/// Reads a request and checks it against what the service certifies.
///
/// # Errors
/// [`RequestFault`] if it is not a request, is not signed with its own key, or is for a key that the service does not
/// certify.
pub fn check(text: &[u8]) -> Result<CheckedRequest, RequestFault> {
    let der = unwrap(text)?;
    let request = SigningRequest { pem: pem(&der) };
    let characters = request.pem.len();
    if characters > MAX_SIGNING_REQUEST {
        return Err(RequestFault::TooLong(characters));
    }
    let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| RequestFault::Structure)?;
    if !rest.is_empty() {
        return Err(RequestFault::Structure);
    }
    let info = &parsed.certification_request_info;
    let bits = &info.subject_pki.subject_public_key.data;
    let signed_with = parsed.signature_algorithm.algorithm.to_id_string();
    let verifier = verifier(KeyKind::of(&info.subject_pki)?, &signed_with).ok_or(RequestFault::Algorithm)?;
    UnparsedPublicKey::new(verifier, bits)
        .verify(info.raw, &parsed.signature_value.data)
        .map_err(|_| RequestFault::Signature)?;
    let key = digest(&SHA256, info.subject_pki.raw).as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
    Ok(CheckedRequest { request, key })
}

/// The request in a text that was [checked](check), in PEM.
///
/// # Errors
/// [`RequestFault`] if there is none.
pub fn read(text: &[u8]) -> Result<SigningRequest, RequestFault> {
    unwrap(text).map(|der| SigningRequest { pem: pem(&der) })
}

const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(LABELS[0], der), config)
}

/// The DER of a request, without its wrapping.
fn unwrap(text: &[u8]) -> Result<Vec<u8>, RequestFault> {
    /// The first byte of every request in DER, a SEQUENCE; in text it is the digit 0.
    const SEQUENCE: u8 = 0x30;
    let Ok(text) = std::str::from_utf8(text) else {
        return if text.first() == Some(&SEQUENCE) { Ok(text.to_vec()) } else { Err(RequestFault::Wrapping) };
    };
    // In a one-line cell, line ends are often written as escapes.
    let text = text.replace("\\r", "\n").replace("\\n", "\n");
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Err(RequestFault::Empty);
    } else if text.contains("PRIVATE KEY") {
        return Err(RequestFault::PrivateKey);
    } else if text.contains("BEGIN CERTIFICATE-----") {
        return Err(RequestFault::Certificate);
    }
    let body = match text.split_once("-----BEGIN ") {
        None => text,
        Some(_) => LABELS.iter().find_map(|label| enclosed(text, label)).ok_or(RequestFault::Wrapping)?,
    };
    let base64: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    BASE64_STANDARD.decode(base64).map_err(|_| RequestFault::Wrapping)
}

/// The text between the BEGIN and END lines of a PEM block; `None` unless there is exactly one block.
fn enclosed<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
    (!rest.contains("-----BEGIN")).then_some(body)
}

/// The kinds of keys that the service certifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Result<Self, RequestFault> {
        if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
            let bits = rsa.key_size();
            let is_certified = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits);
            return if is_certified { Ok(Self::Rsa) } else { Err(RequestFault::RsaBits(bits)) };
        }
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        match curve.map(|curve| curve.to_id_string()).as_deref() {
            Some("1.2.840.10045.3.1.7") => Ok(Self::P256),
            Some("1.3.132.0.34") => Ok(Self::P384),
            Some("1.3.132.0.35") => Ok(Self::P521),
            _ => Err(RequestFault::KeyKind),
        }
    }
}

/// The verifier for signatures by this kind of key with this algorithm; `None` if it is not accepted, as with SHA-1.
fn verifier(kind: KeyKind, algorithm: &str) -> Option<&'static dyn VerificationAlgorithm> {
    const RSA: &str = "1.2.840.113549.1.1.";
    const ECDSA: &str = "1.2.840.10045.4.3.";
    let rsa = |number: &str| -> Option<&'static dyn VerificationAlgorithm> {
        Some(match number {
            "11" => &RSA_PKCS1_2048_8192_SHA256,
            "12" => &RSA_PKCS1_2048_8192_SHA384,
            "13" => &RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        })
    };
    let ecdsa = |number: &str| -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (kind, number) {
            (KeyKind::P256, "2") => &ECDSA_P256_SHA256_ASN1,
            (KeyKind::P256, "3") => &ECDSA_P256_SHA384_ASN1,
            (KeyKind::P256, "4") => &ECDSA_P256_SHA512_ASN1,
            (KeyKind::P384, "2") => &ECDSA_P384_SHA256_ASN1,
            (KeyKind::P384, "3") => &ECDSA_P384_SHA384_ASN1,
            (KeyKind::P384, "4") => &ECDSA_P384_SHA512_ASN1,
            (KeyKind::P521, "2") => &ECDSA_P521_SHA256_ASN1,
            (KeyKind::P521, "3") => &ECDSA_P521_SHA384_ASN1,
            (KeyKind::P521, "4") => &ECDSA_P521_SHA512_ASN1,
            _ => return None,
        })
    };
    match kind {
        KeyKind::Rsa => algorithm.strip_prefix(RSA).and_then(rsa),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => algorithm.strip_prefix(ECDSA).and_then(ecdsa),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    // By OpenSSL.
    const P256: &str = include_str!("../fixtures/csr/p256.csr");

    fn made_here(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap()
    }

    #[test]
    fn requests_of_others_and_of_every_curve_are_taken() {
        let request = check(P256.as_bytes()).unwrap().request;
        assert_eq!(request.pem, P256.replace("\r\n", "\n"));
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512]
        {
            assert!(check(made_here(algorithm).as_bytes()).is_ok());
        }
        let rsa = crate::keys::prepare(crate::keys::KeyType::Rsa2048).unwrap();
        assert_eq!(check(rsa.request.pem.as_bytes()).map(|checked| checked.request), Ok(rsa.request));
    }

    #[test]
    fn every_wrapping_gives_the_same_request() {
        let wanted = check(P256.as_bytes()).unwrap();
        let body: String = P256.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(&body).unwrap();
        for text in [
            P256.replace('\n', "\r\n").into_bytes(),
            P256.replace('\n', "\\n").into_bytes(),
            P256.replace('\n', " ").into_bytes(),
            P256.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST").into_bytes(),
            format!("\u{feff}Subject: made by openssl req -text\n{P256}").into_bytes(),
            body.into_bytes(),
            der,
        ] {
            assert_eq!(check(&text), Ok(wanted.clone()), "{}", String::from_utf8_lossy(&text));
            assert_eq!(read(&text), Ok(wanted.request.clone()));
        }
    }

    #[test]
    fn what_the_service_would_refuse_is_named() {
        let changed = {
            let body: String = P256.lines().filter(|line| !line.starts_with('-')).collect();
            let mut der = BASE64_STANDARD.decode(body).unwrap();
            *der.last_mut().unwrap() ^= 1;
            der
        };
        let two = format!("{P256}{P256}");
        for (text, fault) in [
            (&b""[..], RequestFault::Empty),
            (b" \n", RequestFault::Empty),
            (b"hunter2!", RequestFault::Wrapping),
            (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", RequestFault::Wrapping),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", RequestFault::Certificate),
            (
                b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
                RequestFault::PrivateKey,
            ),
            (b"AAAA", RequestFault::Structure),
            (two.as_bytes(), RequestFault::Wrapping),
            (&changed, RequestFault::Signature),
            (include_bytes!("../fixtures/csr/rsa1024.csr"), RequestFault::RsaBits(1024)),
            (include_bytes!("../fixtures/csr/rsa2048-sha1.csr"), RequestFault::Algorithm),
            (include_bytes!("../fixtures/csr/secp256k1.csr"), RequestFault::KeyKind),
            (made_here(&rcgen::PKCS_ED25519).as_bytes(), RequestFault::KeyKind),
        ] {
            let found = check(text).unwrap_err();
            assert!(!found.to_string().contains("hunter2"));
            assert_eq!(found, fault, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn equal_keys_are_told_whatever_their_requests_say() {
        let pair = KeyPair::generate().unwrap();
        let request = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            check(params.serialize_request(&pair).unwrap().der()).unwrap()
        };
        let (one, other) = (request("one"), request("other"));
        assert!(one.key == other.key && one.request != other.request);
        assert_ne!(one.key, check(P256.as_bytes()).unwrap().key);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_text_makes_it_panic(
            text in "(\\PC|[\r\n]|-----BEGIN CERTIFICATE REQUEST-----|-----END CERTIFICATE REQUEST-----|MIIB){0,20}",
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(check(text.as_bytes()).is_err());
            prop_assert!(check(&bytes).is_err());
        }
    }
}
