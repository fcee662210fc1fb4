//! An operation's input: names, query, headers and body.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reply::ApiError;
use super::templates;
use crate::emulator::account::{Account, Certified, Fingerprint, Minted};
use crate::emulator::scenario::Scenario;
use crate::emulator::verify::{SignedRequest, is_signed, unescape};

/// The emulator whose control plane it is.
pub(in crate::emulator) struct Owner<'a> {
    pub(in crate::emulator) scenario: &'a Scenario,
    /// The port that the emulator listens on.
    pub(in crate::emulator) port: u16,
    /// The host that clients are told to dial.
    pub(in crate::emulator) host: &'a str,
    /// How long the emulator has been running.
    pub(in crate::emulator) age: Duration,
}

/// A call of an operation.
pub(super) struct Call<'a> {
    pub(super) owner: &'a Owner<'a>,
    pub(super) account: &'a mut Account,
    pub(super) now: SystemTime,
    /// The names in the path, in order.
    pub(super) names: Vec<String>,
    pub(super) query: Query,
    pub(super) signed: &'a SignedRequest<'a>,
    pub(super) body: &'a [u8],
    pub(super) material: Material,
}

/// What an operation needs that takes time to make.
pub(super) enum Needs {
    Nothing,
    /// A key pair and its certificate.
    Keys,
    /// A certificate for this signing request, PEM.
    Certificate(String),
}

/// What was made for an operation.
pub(super) enum Material {
    None,
    Keys(Minted),
    Certified(Certified),
}

/// What must be made for an operation before it reaches the account.
pub(super) fn needs(operation: &str, body: &[u8]) -> Result<Needs, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Csr {
        certificate_signing_request: String,
    }
    match operation {
        "CreateKeysAndCertificate" | "CreateProvisioningClaim" => Ok(Needs::Keys),
        "CreateCertificateFromCsr" => {
            let Csr { certificate_signing_request } = parse(body)?;
            Ok(Needs::Certificate(certificate_signing_request))
        }
        "RegisterThing" => templates::registration_needs(body),
        _ => Ok(Needs::Nothing),
    }
}

impl Call<'_> {
    /// The first name in the path.
    pub(super) fn name(&self) -> String {
        self.names.first().cloned().unwrap_or_default()
    }

    /// The number that follows the first name in the path.
    pub(super) fn version(&self) -> Result<u32, ApiError> {
        let number = self.names.get(1).and_then(|text| text.parse().ok());
        number.ok_or_else(|| ApiError::invalid("The version must be a whole number."))
    }

    /// The parsed body. An empty body counts as an empty object.
    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse(self.body)
    }

    /// A header's value, if the signature covers the header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.signed.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(str::trim).filter(|_| is_signed(self.signed, name))
    }

    /// The id of the certificate in the path.
    pub(super) fn certificate_id(&self) -> Result<Fingerprint, ApiError> {
        fingerprint(&self.name())
    }

    /// The id of the certificate whose ARN a header holds.
    pub(super) fn principal(&self, header: &str) -> Result<Fingerprint, ApiError> {
        let principal = self.header(header);
        self.certificate_of(principal.ok_or_else(|| ApiError::invalid("A principal is required."))?)
    }

    /// The id in a certificate's ARN.
    pub(super) fn certificate_of(&self, arn: &str) -> Result<Fingerprint, ApiError> {
        let prefix = self.owner.arn("cert", "");
        let id = arn.strip_prefix(prefix.as_str()).ok_or_else(|| {
            ApiError::invalid(format!(
                "The principal is not the ARN of a certificate of this account: {prefix}…"
            ))
        })?;
        fingerprint(id)
    }
}

fn fingerprint(id: &str) -> Result<Fingerprint, ApiError> {
    // No certificate has an id of any other form.
    id.parse().map_err(|_| ApiError::not_found(format!("Certificate {id} was not found.")))
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("The body is not what this operation takes: {error}.")))
}

/// Decodes a path segment. A name in a path is not empty.
pub(super) fn decode(segment: &str) -> Option<String> {
    let bytes = unescape(segment).filter(|bytes| !bytes.is_empty())?;
    String::from_utf8(bytes).ok()
}

/// A query's parameters, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// The parameters in a request's target, whose signature was already checked. Those that are not text are left out.
    pub(super) fn of_target(target: &str) -> Self {
        Self::of(target.split_once('?').map_or("", |(_, query)| query))
    }

    /// The parameters in a form body.
    pub(super) fn of_form(body: &[u8]) -> Self {
        Self::of(&String::from_utf8_lossy(body).replace('+', "%20"))
    }

    fn of(query: &str) -> Self {
        let text = |raw: &str| unescape(raw).and_then(|bytes| String::from_utf8(bytes).ok());
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            text(name).zip(text(value))
        });
        Self(pairs.collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = self.text(name).map(|text| {
            text.parse().map_err(|_| ApiError::invalid(format!("{name} must be a whole number.")))
        });
        number.transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::invalid(format!("{name} must be true or false."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_read() {
        let query = Query::of_target("/x?a=%2Bb&n=12&bad=x&on=true&off=false&%zz=1&empty");
        assert_eq!((query.text("a"), query.text("empty"), query.text("no")), (Some("+b"), Some(""), None));
        assert_eq!((query.number("n").unwrap(), query.number("no").unwrap()), (Some(12), None));
        assert!(query.number("bad").is_err());
        assert_eq!(
            (query.flag("on").unwrap(), query.flag("off").unwrap(), query.flag("no").unwrap()),
            (true, false, false)
        );
        assert!(query.flag("bad").is_err());
        assert_eq!(Query::of_target("/x").text(""), None);
        assert_eq!(Query::of_form(b"Action=a+b&Version=1").text("Action"), Some("a b"));
    }
}
