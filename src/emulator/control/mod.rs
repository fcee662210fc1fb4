//! The control plane: what the account's owner asks of it over HTTPS, in AWS's rest-json.
//!
//! Owns the operations, their parameters and the shape of their answers. Knows no socket; what may be done to the account is
//! the account's matter. Source: AWS IoT API Reference, as of botocore's service model `iot` 2015-05-28.

mod path;
mod reply;
mod service_quotas;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::account::{
    Account, Certificate, CertificateStatus, Deletion, RegistryError, no_certificate, no_thing,
};
use super::scenario::{Scenario, TemplateSource};

pub(super) use path::{NoOperation, Operation, Query};
pub(super) use reply::{ApiError, forbidden, refused, success};
pub(super) use service_quotas::QuotaOperation;

/// The most that a list operation returns at once, and what it returns if nobody says.
const MAX_RESULTS: usize = 250;

/// What an operation is asked with, besides its path.
pub(super) struct Asked<'a> {
    pub(super) query: Query,
    /// The header `x-amzn-principal`.
    pub(super) principal: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Whose control plane it is.
pub(super) struct Owner<'a> {
    pub(super) scenario: &'a Scenario,
    /// Where the emulator listens.
    pub(super) port: u16,
    /// What clients are told to dial.
    pub(super) host: &'a str,
}

type Answer = Result<Value, ApiError>;

impl Operation {
    /// Performs it; JSON to answer with.
    pub(super) fn perform(&self, owner: &Owner<'_>, account: &mut Account, asked: &Asked<'_>) -> Answer {
        owner.check_permission(self.action())?;
        match self {
            Operation::DescribeThing(name) => owner.describe_thing(account, name),
            Operation::DeleteThing(name) => {
                let version = asked.query.number("expectedVersion")?;
                done(account.delete_thing(name, version))
            }
            Operation::ListThingPrincipals(name) => owner.list_thing_principals(account, name, asked),
            Operation::DetachThingPrincipal(name) => {
                let principal = owner.certificate_of(asked.principal)?;
                done(account.detach_thing_principal(name, principal))
            }
            Operation::ListPrincipalThings => owner.list_principal_things(account, asked),
            Operation::DescribeCertificate(id) => owner.describe_certificate(account, id),
            Operation::UpdateCertificate(id) => {
                let status = new_status(asked.query.text("newStatus"))?;
                done(account.update_certificate(id, status))
            }
            Operation::DeleteCertificate(id) => {
                let forced = asked.query.flag("forceDelete")?;
                let deletion = if forced { Deletion::Forced } else { Deletion::Plain };
                done(account.delete_certificate(id, deletion))
            }
            Operation::ListAttachedPolicies(target) => owner.list_attached_policies(account, target, asked),
            Operation::DetachPolicy(name) => {
                let target = target_of(asked.body)?;
                let certificate = owner.certificate_of(Some(&target))?;
                done(account.detach_policy(name, certificate))
            }
            Operation::DescribeEndpoint => owner.describe_endpoint(asked),
            Operation::DescribeProvisioningTemplate(name) => owner.describe_template(name),
        }
    }
}

impl Owner<'_> {
    /// That the scenario does not deny an action.
    fn check_permission(&self, action: &str) -> Result<(), ApiError> {
        if self.scenario.deny.iter().any(|denied| denied == action) {
            Err(ApiError::access_denied(&self.scenario.account_id, action))
        } else {
            Ok(())
        }
    }

    fn arn(&self, resource: &str, name: &str) -> String {
        format!("arn:aws:iot:{}:{}:{resource}/{name}", self.scenario.region, self.scenario.account_id)
    }

    /// The id in a certificate's ARN.
    fn certificate_of<'p>(&self, principal: Option<&'p str>) -> Result<&'p str, ApiError> {
        let principal = principal.ok_or_else(|| ApiError::invalid("A principal is required."))?;
        let prefix = self.arn("cert", "");
        principal.strip_prefix(prefix.as_str()).ok_or_else(|| {
            ApiError::invalid(format!(
                "The principal is not the ARN of a certificate of this account: {prefix}…"
            ))
        })
    }

    fn describe_thing(&self, account: &Account, name: &str) -> Answer {
        let thing = account.state().things.get(name).ok_or_else(|| no_thing(name))?;
        let mut reply = json!({
            "defaultClientId": name,
            "thingName": name,
            "thingId": thing_id(name),
            "thingArn": self.arn("thing", name),
            "attributes": thing.attributes,
            "version": thing.version,
        });
        for (key, value) in [("thingTypeName", &thing.type_name), ("billingGroupName", &thing.billing_group)]
        {
            if let Some(value) = value {
                reply[key] = json!(value);
            }
        }
        Ok(reply)
    }

    fn list_thing_principals(&self, account: &Account, name: &str, asked: &Asked<'_>) -> Answer {
        let thing = account.state().things.get(name).ok_or_else(|| no_thing(name))?;
        let page = Page::of(&thing.principals, &asked.query)?;
        Ok(page.reply("principals", |id| json!(self.arn("cert", id))))
    }

    fn list_principal_things(&self, account: &Account, asked: &Asked<'_>) -> Answer {
        let id = self.certificate_of(asked.principal)?;
        let certificate = account.state().certificates.get(id).ok_or_else(|| no_certificate(id))?;
        Ok(Page::of(&certificate.things, &asked.query)?.reply("things", |name| json!(name)))
    }

    fn list_attached_policies(&self, account: &Account, target: &str, asked: &Asked<'_>) -> Answer {
        let id = self.certificate_of(Some(target))?;
        let certificate = account.state().certificates.get(id).ok_or_else(|| no_certificate(id))?;
        let page = Page::named(&certificate.policies, &asked.query, "marker", "pageSize", "nextMarker")?;
        Ok(page.reply("policies", |name| json!({"policyName": name, "policyArn": self.arn("policy", name)})))
    }

    fn describe_certificate(&self, account: &Account, id: &str) -> Answer {
        let certificate = account.state().certificates.get(id).ok_or_else(|| no_certificate(id))?;
        let mut description = json!({
            "certificateArn": self.arn("cert", id),
            "certificateId": id,
            "status": certificate.status,
            "certificatePem": certificate.pem,
            "ownedBy": self.scenario.account_id,
            "creationDate": seconds(certificate.created),
            "certificateMode": "DEFAULT",
        });
        if let Some(validity) = validity(certificate) {
            description["validity"] = validity;
        }
        Ok(json!({ "certificateDescription": description }))
    }

    fn describe_endpoint(&self, asked: &Asked<'_>) -> Answer {
        match asked.query.text("endpointType") {
            None | Some("iot:Data-ATS" | "iot:Data") => {
                Ok(json!({ "endpointAddress": format!("{}:{}", self.host, self.port) }))
            }
            Some(_) => {
                Err(ApiError::invalid("Of endpoints the emulator has iot:Data-ATS and iot:Data only."))
            }
        }
    }

    fn describe_template(&self, name: &str) -> Answer {
        let not_found = || RegistryError::NotFound("Provisioning template", name.to_owned());
        let template = self.scenario.templates.iter().find(|template| template.name == name);
        let template = template.ok_or_else(not_found)?;
        let TemplateSource::Body(body) = &template.source else { return Err(not_found().into()) };
        Ok(json!({
            "templateArn": self.arn("provisioningtemplate", name),
            "templateName": name,
            "templateBody": body,
            "enabled": true,
            "defaultVersionId": 1,
            "type": "FLEET_PROVISIONING",
        }))
    }
}

fn done(result: Result<(), RegistryError>) -> Answer {
    result.map(|()| Value::Object(Map::new())).map_err(ApiError::from)
}

/// The states that a caller may give; the others are the service's (UpdateCertificate).
fn new_status(asked: Option<&str>) -> Result<CertificateStatus, ApiError> {
    match asked {
        Some("ACTIVE") => Ok(CertificateStatus::Active),
        Some("INACTIVE") => Ok(CertificateStatus::Inactive),
        Some("REVOKED") => Ok(CertificateStatus::Revoked),
        _ => Err(ApiError::invalid("newStatus must be ACTIVE, INACTIVE or REVOKED.")),
    }
}

fn target_of(body: &[u8]) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        target: Cow<'a, str>,
    }
    let body: Body<'_> = serde_json::from_slice(body)
        .map_err(|_| ApiError::invalid("The body must be a JSON object with a target."))?;
    Ok(body.target.into_owned())
}

/// One page of a list: what comes behind the token, in the order of the names.
struct Page<'a> {
    names: Vec<&'a String>,
    next: Option<(&'static str, String)>,
}

impl<'a> Page<'a> {
    fn of(all: &'a BTreeSet<String>, query: &Query) -> Result<Self, ApiError> {
        Self::named(all, query, "nextToken", "maxResults", "nextToken")
    }

    /// The parameters for the token and the size, and the field for the next token, have several names.
    fn named(
        all: &'a BTreeSet<String>,
        query: &Query,
        token: &'static str,
        size: &'static str,
        next: &'static str,
    ) -> Result<Self, ApiError> {
        let size = match query.number(size)? {
            None => MAX_RESULTS,
            Some(asked) => usize::try_from(asked)
                .ok()
                .filter(|asked| (1..=MAX_RESULTS).contains(asked))
                .ok_or_else(|| ApiError::invalid(format!("{size} must be from 1 to {MAX_RESULTS}.")))?,
        };
        // A token is the last name of the page before: so nothing that stays is left out, whatever comes and goes meanwhile.
        let after = query.text(token).map(read_token).transpose()?;
        let mut rest = all.iter().filter(|name| after.as_ref().is_none_or(|after| *name > after));
        let names: Vec<_> = rest.by_ref().take(size).collect();
        let more = rest.next().and(names.last());
        let next = more.map(|last| (next, URL_SAFE_NO_PAD.encode(last)));
        Ok(Self { names, next })
    }

    fn reply(self, field: &str, item: impl Fn(&str) -> Value) -> Value {
        let items: Vec<Value> = self.names.into_iter().map(|name| item(name)).collect();
        let mut reply = json!({ field: items });
        if let Some((field, token)) = self.next {
            reply[field] = token.into();
        }
        reply
    }
}

fn read_token(token: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| ApiError::invalid("The token is not one that this operation returned."))
}

/// A UUID by the thing's name. The service's is random; this one needs no memory.
fn thing_id(name: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    super::uuid::uuid(u128::from_be_bytes(bytes))
}

/// Timestamps in rest-json are seconds since 1970, with fractions.
fn seconds(instant: SystemTime) -> f64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1000.0
}

fn validity(certificate: &Certificate) -> Option<Value> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.pem.as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some(json!({"notBefore": validity.not_before.timestamp(), "notAfter": validity.not_after.timestamp()}))
}

#[cfg(test)]
mod tests;
