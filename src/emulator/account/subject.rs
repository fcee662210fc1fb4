//! The subject of a certificate, as templates refer to it.

use std::collections::BTreeMap;

use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME, OID_X509_DN_QUALIFIER, OID_X509_ORGANIZATION_NAME,
    OID_X509_ORGANIZATIONAL_UNIT, OID_X509_SERIALNUMBER, OID_X509_STATE_OR_PROVINCE_NAME, Oid,
};
use x509_parser::pem::parse_x509_pem;

const FIELDS: [(&str, Oid<'static>); 7] = [
    ("CommonName", OID_X509_COMMON_NAME),
    ("SerialNumber", OID_X509_SERIALNUMBER),
    ("Country", OID_X509_COUNTRY_NAME),
    ("Organization", OID_X509_ORGANIZATION_NAME),
    ("OrganizationalUnit", OID_X509_ORGANIZATIONAL_UNIT),
    ("DistinguishedNameQualifier", OID_X509_DN_QUALIFIER),
    ("StateName", OID_X509_STATE_OR_PROVINCE_NAME),
];

/// The fields that the subject of a certificate, PEM, has.
pub(super) fn of(pem: &str) -> BTreeMap<&'static str, String> {
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return BTreeMap::new() };
    let Ok(certificate) = pem.parse_x509() else { return BTreeMap::new() };
    let field = |(name, oid): &(&'static str, Oid<'static>)| {
        let value = certificate.subject().iter_by_oid(oid).next()?.as_str().ok()?;
        Some((*name, value.to_owned()))
    };
    FIELDS.iter().filter_map(field).collect()
}
