//! Certificates.

use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::pem::{Pem, parse_x509_pem};

use super::Answer;
use super::page::{page_by_age, seconds};
use super::reply::ApiError;
use super::request::{Call, Material};
use crate::emulator::account::{
    Certificate, CertificateStatus, Deletion, Fingerprint, Origin, RegistryError,
};
use crate::emulator::pem::encode;

pub(super) fn create_keys(call: &mut Call<'_>) -> Answer {
    let Material::Keys(minted) = std::mem::replace(&mut call.material, Material::None) else {
        return Err(ApiError::internal("no key was made"));
    };
    let mut reply = take_in(call, &minted.certificate_id, &minted.certificate_pem)?;
    reply["keyPair"] = key_pair(&minted.certificate_pem, minted.private_key_pem.expose())?;
    Ok(reply)
}

pub(super) fn create_from_csr(call: &mut Call<'_>) -> Answer {
    let Material::Certified(certified) = std::mem::replace(&mut call.material, Material::None) else {
        return Err(ApiError::internal("no certificate was made"));
    };
    take_in(call, &certified.certificate_id, &certified.certificate_pem)
}

/// Adds a certificate that was made for this call to the account.
fn take_in(call: &mut Call<'_>, id: &str, pem: &str) -> Answer {
    let status =
        if call.query.flag("setAsActive")? { CertificateStatus::Active } else { CertificateStatus::Inactive };
    let id: Fingerprint = id.parse().map_err(|_| ApiError::internal("the new certificate has no id"))?;
    call.account.put(id, Certificate::new(pem, status, call.now));
    Ok(json!({
        "certificateArn": call.owner.arn("cert", id),
        "certificateId": id,
        "certificatePem": pem,
    }))
}

/// The key pair of a new certificate, in the form that answers use.
pub(super) fn key_pair(certificate_pem: &str, private_key_pem: &str) -> Answer {
    let pem = parse(certificate_pem)?;
    let certificate = pem.parse_x509().map_err(|_| ApiError::internal("the new certificate is none"))?;
    let public = encode("PUBLIC KEY", certificate.public_key().raw);
    Ok(json!({"PublicKey": public, "PrivateKey": private_key_pem}))
}

pub(super) fn register(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        certificate_pem: String,
        status: Option<String>,
    }
    let input: Input = call.input()?;
    let status = match input.status.as_deref() {
        None | Some("INACTIVE") => CertificateStatus::Inactive,
        Some("ACTIVE") => CertificateStatus::Active,
        Some(other) => {
            return Err(ApiError::certificate_state(format!(
                "A certificate cannot be registered as {other}."
            )));
        }
    };
    let id = register_pem(call, &input.certificate_pem, status)?;
    Ok(json!({"certificateArn": call.owner.arn("cert", id), "certificateId": id}))
}

/// Registers a certificate that the service did not make.
pub(super) fn register_pem(
    call: &mut Call<'_>,
    text: &str,
    status: CertificateStatus,
) -> Result<Fingerprint, ApiError> {
    let pem = parse(text)?;
    if pem.label != "CERTIFICATE" || pem.parse_x509().is_err() {
        return Err(ApiError::certificate("The PEM is not an X.509 certificate."));
    }
    let id = Fingerprint::of(&pem.contents);
    if call.account.state().certificates.contains_key(&id) {
        return Err(RegistryError::AlreadyExists("The certificate", id.to_string()).into());
    }
    let certificate = Certificate { origin: Origin::Registered, ..Certificate::new(text, status, call.now) };
    call.account.put(id, certificate);
    Ok(id)
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let id = call.certificate_id()?;
    let certificate = call.account.state().find::<Certificate>(&id)?;
    let mut description = shown(call, id, certificate);
    for (key, value) in [
        ("certificatePem", json!(certificate.pem)),
        ("ownedBy", json!(call.owner.scenario.account_id)),
        ("lastModifiedDate", json!(seconds(certificate.modified))),
        ("customerVersion", json!(1)),
        ("transferData", json!({})),
        ("generationId", json!(super::things::id_of("generation", &id.to_string()))),
    ] {
        description[key] = value;
    }
    if let Some(validity) = validity(certificate) {
        description["validity"] = validity;
    }
    Ok(json!({ "certificateDescription": description }))
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let certificates = &call.account.state().certificates;
    let items = certificates.iter().map(|(id, certificate)| (certificate.created, *id));
    page_by_age(call, "certificates", items, |id| shown(call, id, &certificates[&id]))
}

fn shown(call: &Call<'_>, id: Fingerprint, certificate: &Certificate) -> Value {
    json!({
        "certificateArn": call.owner.arn("cert", id),
        "certificateId": id,
        "status": certificate.status,
        "certificateMode": match certificate.origin {
            Origin::Made => "DEFAULT",
            Origin::Registered => "SNI_ONLY",
        },
        "creationDate": seconds(certificate.created),
    })
}

/// Sets one of the statuses that a caller may set; the others are reserved to the service.
pub(super) fn update(call: &mut Call<'_>) -> Answer {
    let status = match call.query.text("newStatus") {
        Some("ACTIVE") => CertificateStatus::Active,
        Some("INACTIVE") => CertificateStatus::Inactive,
        Some("REVOKED") => CertificateStatus::Revoked,
        _ => return Err(ApiError::invalid("newStatus must be ACTIVE, INACTIVE or REVOKED.")),
    };
    let id = call.certificate_id()?;
    call.account.update_certificate(call.now, id, status)?;
    Ok(json!({}))
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let deletion = if call.query.flag("forceDelete")? { Deletion::Forced } else { Deletion::Plain };
    let id = call.certificate_id()?;
    call.account.delete_certificate(id, deletion)?;
    Ok(json!({}))
}

fn parse(text: &str) -> Result<Pem, ApiError> {
    match parse_x509_pem(text.as_bytes()) {
        Ok((_, pem)) => Ok(pem),
        Err(_) => Err(ApiError::certificate("The certificate is not PEM.")),
    }
}

fn validity(certificate: &Certificate) -> Option<Value> {
    let (_, pem) = parse_x509_pem(certificate.pem.to_string().as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some(json!({"notBefore": validity.not_before.timestamp(), "notAfter": validity.not_after.timestamp()}))
}
