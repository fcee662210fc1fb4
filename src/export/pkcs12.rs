//! PKCS #12 (RFC 7292): a device's certificate and private key in one file, protected by a password.
//!
//! Uses the form that OpenSSL 3 writes: the key encrypted with PBES2 (PBKDF2 with HMAC-SHA-256, AES-256-CBC; RFC
//! 8018), the whole authenticated with HMAC-SHA-256. The certificate is not secret and not encrypted. Rust's PKCS #12
//! writers depend on some thirty unreleased crates; here the primitives are aws-lc's, and the DER is written by
//! yasna.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair,
};
use aws_lc_rs::{hmac, pbkdf2, rand};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};
use zeroize::Zeroizing;

use super::{ExportError, Exported};
use crate::certificate::{PemBlock, Secret};
use crate::sealing::KeyForm;

/// PBKDF2 iterations: trying a password takes about a millisecond, and exporting a device as much longer.
const ITERATIONS: u32 = 10_000;
const SALT_BYTES: usize = 16;

const DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 1];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 3];
const SHROUDED_KEY_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 2];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113549, 1, 9, 20];
const LOCAL_KEY_ID: &[u64] = &[1, 2, 840, 113549, 1, 9, 21];
const PBES2: &[u64] = &[1, 2, 840, 113549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113549, 1, 5, 12];
const HMAC_SHA256: &[u64] = &[1, 2, 840, 113549, 2, 9];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
const SHA256_ID: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// The file for a device, named after its key; without a private key if only the device has it.
///
/// # Errors
/// [`ExportError::Sealed`] if its key is sealed; [`ExportError::NotPem`] if it cannot be read;
/// [`ExportError::Cryptography`] if the cryptographic library fails.
pub(super) fn keystore(exported: &Exported, password: &Secret<String>) -> Result<Vec<u8>, ExportError> {
    if exported.private_key.form == KeyForm::Age {
        return Err(ExportError::Sealed);
    }
    let device = &exported.device;
    let not_pem = |what| ExportError::NotPem { key: device.key.clone(), what };
    let certificate = PemBlock::read(&device.certificate_pem).map_err(|_| not_pem("certificate"))?;
    let encrypted = if exported.private_key.form == KeyForm::Absent {
        None
    } else {
        let key = pkcs8(exported.private_key.text.expose()).ok_or_else(|| not_pem("private key"))?;
        Some(encrypt(&key, password)?)
    };
    let attributes = Attributes { name: &device.key, id: digest_of(&certificate.der) };
    let bags = construct_der(|writer| {
        writer.write_sequence_of(|bags| {
            write_bag(bags.next(), CERTIFICATE_BAG, &attributes, |value| {
                value.write_sequence(|fields| {
                    write_oid(fields.next(), X509_CERTIFICATE);
                    fields.next().write_tagged(Tag::context(0), |der| der.write_bytes(&certificate.der));
                });
            });
            if let Some(encrypted) = &encrypted {
                write_bag(bags.next(), SHROUDED_KEY_BAG, &attributes, |value| encrypted.write(value));
            }
        });
    });
    let safe = construct_der(|writer| writer.write_sequence_of(|safe| write_data(safe.next(), &bags)));
    let salt = random::<SALT_BYTES>()?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*mac_key(password, &salt)), &safe);
    Ok(construct_der(|writer| {
        writer.write_sequence(|fields| {
            fields.next().write_u8(3);
            write_data(fields.next(), &safe);
            fields.next().write_sequence(|fields| {
                fields.next().write_sequence(|fields| {
                    write_algorithm(fields.next(), SHA256_ID);
                    fields.next().write_bytes(mac.as_ref());
                });
                fields.next().write_bytes(&salt);
                fields.next().write_u32(ITERATIONS);
            });
        });
    }))
}

/// The attributes that show people, and link the two bags, which certificate and key belong together.
struct Attributes<'a> {
    name: &'a str,
    id: Vec<u8>,
}

fn write_bag(
    writer: DERWriter<'_>,
    kind: &[u64],
    attributes: &Attributes<'_>,
    value: impl FnOnce(DERWriter<'_>),
) {
    writer.write_sequence(|fields| {
        write_oid(fields.next(), kind);
        fields.next().write_tagged(Tag::context(0), value);
        fields.next().write_set_of(|set| {
            set.next().write_sequence(|fields| {
                write_oid(fields.next(), FRIENDLY_NAME);
                fields.next().write_set_of(|set| set.next().write_bmp_string(attributes.name));
            });
            set.next().write_sequence(|fields| {
                write_oid(fields.next(), LOCAL_KEY_ID);
                fields.next().write_set_of(|set| set.next().write_bytes(&attributes.id));
            });
        });
    });
}

/// A `ContentInfo` of plain data.
fn write_data(writer: DERWriter<'_>, content: &[u8]) {
    writer.write_sequence(|fields| {
        write_oid(fields.next(), DATA);
        fields.next().write_tagged(Tag::context(0), |data| data.write_bytes(content));
    });
}

/// An algorithm with NULL parameters.
fn write_algorithm(writer: DERWriter<'_>, algorithm: &[u64]) {
    writer.write_sequence(|fields| {
        write_oid(fields.next(), algorithm);
        fields.next().write_null();
    });
}

fn write_oid(writer: DERWriter<'_>, id: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(id));
}

/// A private key, encrypted: `EncryptedPrivateKeyInfo` (RFC 5958 section 3).
struct EncryptedKey {
    salt: [u8; SALT_BYTES],
    iv: [u8; 16],
    content: Vec<u8>,
}

fn encrypt(private_key: &[u8], password: &Secret<String>) -> Result<EncryptedKey, ExportError> {
    // With capacity for the padding, so that it does not reallocate and leave a copy.
    let mut content = Zeroizing::new(Vec::with_capacity(private_key.len() + 16));
    content.extend_from_slice(private_key);
    let (salt, iv) = (random::<SALT_BYTES>()?, random::<16>()?);
    let mut key = Zeroizing::new([0; 32]);
    let iterations = NonZeroU32::new(ITERATIONS).expect("it is not zero");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.expose().as_bytes(), &mut *key);
    let cipher = UnboundCipherKey::new(&AES_256, &*key).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    let context = EncryptionContext::Iv128(FixedLength::from(&iv));
    cipher
        .and_then(|cipher| cipher.less_safe_encrypt(&mut *content, context))
        .map_err(|_| ExportError::Cryptography)?;
    // The content is encrypted now, hence not secret.
    Ok(EncryptedKey { salt, iv, content: std::mem::take(&mut *content) })
}

impl EncryptedKey {
    fn write(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|fields| {
            fields.next().write_sequence(|fields| {
                write_oid(fields.next(), PBES2);
                fields.next().write_sequence(|fields| {
                    fields.next().write_sequence(|fields| {
                        write_oid(fields.next(), PBKDF2);
                        fields.next().write_sequence(|fields| {
                            fields.next().write_bytes(&self.salt);
                            fields.next().write_u32(ITERATIONS);
                            write_algorithm(fields.next(), HMAC_SHA256);
                        });
                    });
                    fields.next().write_sequence(|fields| {
                        write_oid(fields.next(), AES_256_CBC);
                        fields.next().write_bytes(&self.iv);
                    });
                });
            });
            fields.next().write_bytes(&self.content);
        });
    }
}

/// A private key as PKCS #8, converted from PKCS #1 or SEC 1 if necessary.
fn pkcs8(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let block = PemBlock::read(pem).ok()?;
    match block.label {
        "PRIVATE KEY" => Some(block.der),
        "RSA PRIVATE KEY" => {
            let pair = RsaKeyPair::from_der(&block.der).ok()?;
            let wrapped: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Some(Zeroizing::new(wrapped.as_ref().to_vec()))
        }
        "EC PRIVATE KEY" => {
            let curves = [
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                &ECDSA_P521_SHA512_ASN1_SIGNING,
            ];
            let pair =
                curves.iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, &block.der).ok())?;
            Some(Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec()))
        }
        _ => None,
    }
}

/// The HMAC key, derived as in RFC 7292 appendix B; with SHA-256 one block is enough.
fn mac_key(password: &Secret<String>, salt: &[u8]) -> Zeroizing<[u8; 32]> {
    const BLOCK: usize = 64;
    /// "If ID=3, then the pseudorandom bits being produced are to be used as an integrity key for MACing."
    const INTEGRITY: u8 = 3;
    // A BMPString with its terminator.
    let units = password.expose().encode_utf16().chain([0]);
    let password: Zeroizing<Vec<u8>> = Zeroizing::new(units.flat_map(u16::to_be_bytes).collect());
    let mut hashed = Zeroizing::new(vec![INTEGRITY; BLOCK]);
    for part in [salt, &password] {
        hashed.extend(part.iter().cycle().take(part.len().next_multiple_of(BLOCK)));
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&digest_of(&hashed));
    for _ in 1..ITERATIONS {
        let next = digest_of(&*key);
        key.copy_from_slice(&next);
    }
    key
}

fn digest_of(content: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(content);
    context.finish().as_ref().to_vec()
}

fn random<const N: usize>() -> Result<[u8; N], ExportError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| ExportError::Cryptography)?;
    Ok(bytes)
}
