//! Whether a certificate, its id and its private key belong together.
//!
//! Owns that check. A reply passes it before a certificate counts as issued, and a ledger's content before it is
//! exported. Parses and compares; the only arithmetic is deriving the public point of an elliptic-curve key.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, KeyPair,
};
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::pem::{NotOnePemBlock, PemBlock};
use super::{CertificateId, Secret};

/// The facts in a certificate that its id and private key are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    sha256: [u8; 32],
    public_key: Vec<u8>,
}

/// What is wrong with a certificate or key, worded to follow its name. Reveals nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not one PEM block, or its content is not X.509.
    #[error("is not a certificate in PEM")]
    NotACertificate,
    /// Not one PEM block with the label of a private key.
    #[error("is not a private key in PEM")]
    NotAPrivateKey,
    /// Something follows the PEM block.
    #[error("has text after its END line")]
    TextAfterEnd,
    /// Another PEM block follows.
    #[error("has a second PEM block after the first")]
    SecondBlock,
    /// A kind of key that devices do not use.
    #[error("is for a key that is neither RSA nor on the curves P-256, P-384 and P-521")]
    UnknownKind,
    /// Does not parse as a private key of the certificate's kind.
    #[error("does not parse as a private key of the certificate's kind")]
    OtherKind,
    /// A private key, but not the certificate's.
    #[error("is not the private key of the certificate")]
    OtherKey,
}

impl Evidence {
    /// Reads a certificate: one PEM block (RFC 7468 section 5) that holds one certificate, with nothing after it.
    ///
    /// # Errors
    /// [`Flaw`] if it is anything else.
    pub fn of(certificate_pem: &str) -> Result<Self, Flaw> {
        let block = read_block(certificate_pem, Flaw::NotACertificate)?;
        if block.label != "CERTIFICATE" {
            return Err(Flaw::NotACertificate);
        }
        // The extensions concern only the service and the peers that verify the certificate.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, certificate) = parser.parse(&block.der).map_err(|_| Flaw::NotACertificate)?;
        if !rest.is_empty() {
            return Err(Flaw::NotACertificate);
        }
        let sha256 = digest(&SHA256, &block.der);
        Ok(Self {
            sha256: sha256.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// The certificate's public key: the DER of the `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether `id` is the certificate's: the SHA-256 of its DER.
    pub fn has_id(&self, id: &CertificateId) -> bool {
        let digits = id.as_str();
        let digits = digits.strip_prefix("0x").unwrap_or(digits).as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        digits.len() == 2 * self.sha256.len()
            && digits.chunks(2).zip(self.sha256).all(|(pair, byte)| {
                digit(pair[0]) == Some(u32::from(byte >> 4)) && digit(pair[1]) == Some(u32::from(byte & 15))
            })
    }

    /// Checks that `private_key` is the certificate's: one PEM block, PKCS #1, SEC 1 or PKCS #8, with nothing after
    /// it. For RSA, only the moduli and public exponents are compared.
    ///
    /// # Errors
    /// [`Flaw`] if it is anything else.
    pub fn check_key(&self, private_key: &Secret<String>) -> Result<(), Flaw> {
        let block = read_block(private_key.expose(), Flaw::NotAPrivateKey)?;
        if !block.label.ends_with("PRIVATE KEY") {
            return Err(Flaw::NotAPrivateKey);
        }
        let (_, info) = SubjectPublicKeyInfo::from_der(&self.public_key).map_err(|_| Flaw::UnknownKind)?;
        let is_own = match info.parsed() {
            Ok(PublicKey::RSA(public)) => {
                let [modulus, exponent] = rsa_public_parts(&block).ok_or(Flaw::OtherKind)?;
                [modulus, exponent] == [public.modulus, public.exponent].map(without_zeros)
            }
            Ok(PublicKey::EC(point)) => key_pair(&block, point.data())?.public_key().as_ref() == point.data(),
            _ => return Err(Flaw::UnknownKind),
        };
        if is_own { Ok(()) } else { Err(Flaw::OtherKey) }
    }
}

/// Reads `text` as exactly one PEM block; fails with `otherwise` if it is not PEM at all.
fn read_block(text: &str, otherwise: Flaw) -> Result<PemBlock<'_>, Flaw> {
    PemBlock::read(text).map_err(|wrong| match wrong {
        NotOnePemBlock::Malformed => otherwise,
        NotOnePemBlock::TextAfterEnd => Flaw::TextAfterEnd,
        NotOnePemBlock::SecondBlock => Flaw::SecondBlock,
    })
}

/// The modulus and public exponent of an RSA private key (RFC 8017 appendix A.1.2); `None` if it does not parse
/// completely.
fn rsa_public_parts<'b>(block: &'b PemBlock<'_>) -> Option<[&'b [u8]; 2]> {
    let key = match block.label {
        "RSA PRIVATE KEY" => &block.der[..],
        "PRIVATE KEY" => pkcs8_content(&block.der)?,
        _ => return None,
    };
    let (mut rest, []) = element(key, Tag::Sequence)? else { return None };
    let mut numbers = [&[][..]; 9];
    for number in &mut numbers {
        (*number, rest) = integer(rest)?;
    }
    let [version, modulus, exponent, secrets @ ..] = numbers;
    let is_whole = version.is_empty() && rest.is_empty() && secrets.iter().all(|secret| !secret.is_empty());
    is_whole.then_some([modulus, exponent])
}

/// The key inside a PKCS #8 wrapper, after the version and the algorithm (RFC 5958 section 2).
fn pkcs8_content(der: &[u8]) -> Option<&[u8]> {
    let (info, []) = element(der, Tag::Sequence)? else { return None };
    let (_version, rest) = integer(info)?;
    let (_algorithm, rest) = element(rest, Tag::Sequence)?;
    element(rest, Tag::OctetString).map(|(key, _attributes)| key)
}

/// The content of the DER element at the start of `der`, and what follows it.
fn element(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (rest, element) = Any::from_der(der).ok()?;
    (element.class() == Class::Universal && element.tag() == tag).then_some((element.data, rest))
}

/// The non-negative number at the start of `der`, without leading zeros, and what follows it.
fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, rest) = element(der, Tag::Integer)?;
    (*bytes.first()? < 0x80).then_some((without_zeros(bytes), rest))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// An elliptic-curve key pair, on the curve whose uncompressed points have the length of `like`.
fn key_pair(block: &PemBlock<'_>, like: &[u8]) -> Result<EcdsaKeyPair, Flaw> {
    let curve = match like.len() {
        65 => &ECDSA_P256_SHA256_ASN1_SIGNING,
        97 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        133 => &ECDSA_P521_SHA512_ASN1_SIGNING,
        _ => return Err(Flaw::UnknownKind),
    };
    EcdsaKeyPair::from_private_key_der(curve, &block.der).map_err(|_| Flaw::OtherKind)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A file of fixtures/issued, made by OpenSSL.
    macro_rules! issued {
        ($file:literal) => {
            include_str!(concat!("../../fixtures/issued/", $file))
        };
    }

    fn check(certificate: &str, key: &str) -> Result<(), Flaw> {
        Evidence::of(certificate).unwrap().check_key(&Secret::new(key.to_owned()))
    }

    #[test]
    fn each_key_is_of_its_own_certificate_and_of_no_other() {
        let families = [
            (issued!("rsa.pem"), vec![issued!("rsa.key"), issued!("rsa-pkcs8.key")]),
            (issued!("p256.pem"), vec![issued!("p256.key"), issued!("p256-pkcs8.key")]),
            (issued!("p384.pem"), vec![issued!("p384.key")]),
            (issued!("p521.pem"), vec![issued!("p521.key")]),
        ];
        for (of, (certificate, _)) in families.iter().enumerate() {
            for (family, (_, keys)) in families.iter().enumerate() {
                for key in keys {
                    let wanted = if of == family { Ok(()) } else { Err(Flaw::OtherKind) };
                    assert_eq!(check(certificate, key), wanted, "{of} {family}");
                }
            }
        }
        assert_eq!(check(issued!("rsa.pem"), issued!("rsa-other.key")), Err(Flaw::OtherKey));
        assert_eq!(check(issued!("p256.pem"), issued!("p256-other.key")), Err(Flaw::OtherKey));
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        assert_eq!(check(issued!("ed25519.pem"), issued!("ed25519.key")), Err(Flaw::UnknownKind));
        assert!(check(issued!("secp256k1.pem"), issued!("secp256k1.key")).is_err());
    }

    /// `openssl x509 -outform der | sha256sum`
    #[test]
    fn the_id_is_the_sha256_of_the_der() {
        let evidence = Evidence::of(issued!("p256.pem")).unwrap();
        let digits = "878d952dda6660d097c5d4e820b03d8a207470cc5ac30c958387ff789d1ab946";
        let id = |text: String| CertificateId::try_from(text).unwrap();
        for same in [digits.to_owned(), digits.to_uppercase(), format!("0x{digits}")] {
            assert!(evidence.has_id(&id(same)));
        }
        for other in [digits.replacen('8', "9", 1), digits.replace("946", "947"), "0".repeat(64)] {
            assert!(!evidence.has_id(&id(other)));
        }
    }

    #[test]
    fn a_certificate_is_one_block_with_nothing_after_it() {
        let pem = issued!("rsa.pem");
        for same in [
            format!("\n{pem}\r\n \n"),
            pem.replace('\n', "\r\n"),
            pem.replace('\n', "\r"),
            pem.replace("MII", "M I\tI"),
            pem.trim_end().to_owned(),
        ] {
            assert_eq!(Evidence::of(&same), Evidence::of(pem));
        }
        for (wrong, flaw) in [
            (format!("{pem}x"), Flaw::TextAfterEnd),
            (format!("{pem}subject=CN = x\n"), Flaw::TextAfterEnd),
            (format!("{pem}{pem}"), Flaw::SecondBlock),
            (format!("{pem}{}", issued!("rsa.key")), Flaw::SecondBlock),
            (format!("subject=CN = x\n{pem}"), Flaw::NotACertificate),
            (issued!("rsa.key").to_owned(), Flaw::NotACertificate),
            (pem.replace("END CERTIFICATE", "END TRUSTED CERTIFICATE"), Flaw::NotACertificate),
            (pem.replace("CERTIFICATE", "X509 CRL"), Flaw::NotACertificate),
            (pem.replace("-----\nMII", "-----\nProc-Type: 4\n\nMII"), Flaw::NotACertificate),
            (pem[..pem.len() / 2].to_owned(), Flaw::NotACertificate),
            (String::from("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), Flaw::NotACertificate),
            (String::new(), Flaw::NotACertificate),
        ] {
            assert_eq!(Evidence::of(&wrong), Err(flaw), "{wrong}");
        }
    }

    /// A PEM block of `der`.
    fn block(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn what_the_block_holds_is_read_to_its_end() {
        let pem = issued!("p256.pem");
        let mut der = read_block(pem, Flaw::NotACertificate).unwrap().der.to_vec();
        der.push(0);
        assert_eq!(Evidence::of(&block("CERTIFICATE", &der)), Err(Flaw::NotACertificate));
        let key = read_block(issued!("rsa.key"), Flaw::NotAPrivateKey).unwrap().der.to_vec();
        let longer = [&key[..], &[0]].concat();
        let shorter = &key[..key.len() - 1];
        for wrong in [&longer[..], shorter, &[], &[0x30, 0x00]] {
            let wrong = block("RSA PRIVATE KEY", wrong);
            assert!(check(issued!("rsa.pem"), &wrong).is_err(), "{wrong}");
        }
        assert_eq!(check(issued!("rsa.pem"), &block("RSA PRIVATE KEY", &key)), Ok(()));
    }

    #[test]
    fn a_key_is_one_block_with_the_label_of_what_it_is() {
        let key = issued!("rsa.key");
        for (wrong, flaw) in [
            (format!("{key}-- \nhunter2"), Flaw::TextAfterEnd),
            (format!("{key}{}", issued!("rsa.pem")), Flaw::SecondBlock),
            (issued!("rsa.pem").to_owned(), Flaw::NotAPrivateKey),
            (key.replace("RSA PRIVATE", "ENCRYPTED PRIVATE"), Flaw::OtherKind),
            (key.replace("RSA PRIVATE", "EC PRIVATE"), Flaw::OtherKind),
            (key.replace("RSA PRIVATE", "PRIVATE"), Flaw::OtherKind),
            (key.replace("MII", "MIJ"), Flaw::OtherKind),
            (key.replace("MII", "M*I"), Flaw::NotAPrivateKey),
        ] {
            assert_eq!(check(issued!("rsa.pem"), &wrong), Err(flaw));
        }
    }
}
