//! Certificates for tests: one of fixtures/issued with varying serial numbers. The signature is not updated.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{CertificateId, IssuedCertificate, PemBlock, Secret};

/// The private key of all of them.
pub(crate) const PRIVATE_KEY: &str = include_str!("../../fixtures/issued/p256.key");

/// The position of the last eight bytes of the serial number.
const SERIAL_END: std::ops::Range<usize> = 27..35;

/// The certificate with this number, its key, and the token `token NUMBER`.
pub(crate) fn issued(number: u64) -> IssuedCertificate<Secret<String>> {
    let mut der = PemBlock::read(include_str!("../../fixtures/issued/p256.pem")).unwrap().der;
    der[SERIAL_END].copy_from_slice(&number.to_be_bytes());
    let certificate_pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&*der));
    IssuedCertificate {
        certificate_id: id_of(&certificate_pem),
        certificate_pem,
        private_key: Secret::new(PRIVATE_KEY.to_owned()),
        ownership_token: Secret::new(format!("token {number}")),
    }
}

/// The id of a certificate.
pub(crate) fn id_of(certificate_pem: &str) -> CertificateId {
    let der = PemBlock::read(certificate_pem).unwrap().der;
    let digits = digest(&SHA256, &der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    digits.try_into().unwrap()
}

/// CreateKeysAndCertificate's reply with that certificate.
pub(crate) fn reply(number: u64) -> serde_json::Value {
    let issued = issued(number);
    serde_json::json!({
        "certificateId": issued.certificate_id.as_str(),
        "certificatePem": issued.certificate_pem,
        "privateKey": issued.private_key.expose(),
        "certificateOwnershipToken": issued.ownership_token.expose(),
    })
}
