//! Provisioning templates, claims, and RegisterThing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::page::{TOKENS, page, seconds};
use super::reply::ApiError;
use super::request::{Call, Material, Needs, parse};
use crate::emulator::account::{
    Certificate, CertificateStatus, Certified, Claim, Fingerprint, Hook, ProvisioningTemplate, RegistryError,
    Version, Versions, evaluate,
};
use crate::emulator::scenario::{MissingParameter, is_template_name};
use crate::template::{CertificateFacts, CertificateSource, Parameters, Template, TemplateError};

/// How long a claim is valid (CreateProvisioningClaim).
const CLAIM_LIFETIME: Duration = Duration::from_secs(5 * 60);
const FLEET: &str = "FLEET_PROVISIONING";
const JITP: &str = "JITP";

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        template_name: String,
        template_body: String,
        provisioning_role_arn: String,
        description: Option<String>,
        #[serde(default)]
        enabled: bool,
        pre_provisioning_hook: Option<Hook>,
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let input: Input = call.input()?;
    let name = input.template_name;
    if !is_template_name(&name) {
        return Err(ApiError::invalid("templateName must be 1 to 36 letters, digits, _ or -."));
    }
    let kind = input.kind.unwrap_or_else(|| String::from(FLEET));
    if ![FLEET, JITP].contains(&kind.as_str()) {
        return Err(ApiError::invalid("type must be FLEET_PROVISIONING or JITP."));
    }
    check_body(&input.template_body, &kind)?;
    if call.account.state().templates.contains_key(&name) {
        return Err(RegistryError::AlreadyExists("Provisioning template", name).into());
    }
    let template = ProvisioningTemplate {
        bodies: Versions::first(&input.template_body, call.now),
        description: input.description,
        enabled: input.enabled,
        role_arn: input.provisioning_role_arn,
        hook: input.pre_provisioning_hook,
        kind,
    };
    put(call, &name, template)?;
    let mut reply = named(call, &name);
    reply["defaultVersionId"] = json!(1);
    Ok(reply)
}

fn check_body(body: &str, kind: &str) -> Result<(), ApiError> {
    let read = Template::parse(body).and_then(|template| match kind {
        FLEET => template.check_for_fleets(),
        _ => Ok(()),
    });
    read.map_err(wrong_body)
}

fn wrong_body(error: TemplateError) -> ApiError {
    ApiError::invalid(format!("The template body is not valid: {error}."))
}

fn put(call: &mut Call<'_>, name: &str, template: ProvisioningTemplate) -> Result<(), ApiError> {
    call.account.put_template(name, template).map_err(wrong_body)
}

fn named(call: &Call<'_>, name: &str) -> Value {
    json!({"templateArn": call.owner.arn("provisioningtemplate", name), "templateName": name})
}

fn shown(call: &Call<'_>, name: &str, template: &ProvisioningTemplate) -> Value {
    let mut reply = named(call, name);
    reply["creationDate"] = json!(seconds(template.bodies.created()));
    reply["lastModifiedDate"] = json!(seconds(template.bodies.modified));
    reply["enabled"] = json!(template.enabled);
    reply["type"] = json!(template.kind);
    if let Some(description) = &template.description {
        reply["description"] = json!(description);
    }
    reply
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let templates = call.account.state().templates.iter().map(|(name, template)| (name.as_str(), template));
    page(call, TOKENS, "templates", templates, |name, template| shown(call, name, template))
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let template = call.account.state().find::<ProvisioningTemplate>(&name)?;
    let mut reply = shown(call, &name, template);
    reply["templateBody"] = json!(template.bodies.current());
    reply["defaultVersionId"] = json!(template.bodies.default);
    reply["provisioningRoleArn"] = json!(template.role_arn);
    if let Some(hook) = &template.hook {
        reply["preProvisioningHook"] = json!(hook);
    }
    Ok(reply)
}

pub(super) fn update(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        description: Option<String>,
        enabled: Option<bool>,
        default_version_id: Option<u32>,
        provisioning_role_arn: Option<String>,
        pre_provisioning_hook: Option<Hook>,
        #[serde(default)]
        remove_pre_provisioning_hook: bool,
    }
    let (name, input) = (call.name(), call.input::<Input>()?);
    let mut template = call.account.state().find::<ProvisioningTemplate>(&name)?.clone();
    if let Some(version) = input.default_version_id {
        find_version(&name, &template, version)?;
        template.bodies.default = version;
    }
    if input.pre_provisioning_hook.is_some() && input.remove_pre_provisioning_hook {
        return Err(ApiError::invalid("A hook cannot be given and removed at the same time."));
    }
    if input.pre_provisioning_hook.is_some() || input.remove_pre_provisioning_hook {
        template.hook = input.pre_provisioning_hook;
    }
    template.description = input.description.or(template.description);
    template.enabled = input.enabled.unwrap_or(template.enabled);
    template.role_arn = input.provisioning_role_arn.unwrap_or(template.role_arn);
    template.bodies.modified = call.now;
    put(call, &name, template)?;
    Ok(json!({}))
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    call.account.state().find::<ProvisioningTemplate>(&name)?;
    call.account.remove::<ProvisioningTemplate>(&name);
    Ok(json!({}))
}

pub(super) fn create_version(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        template_body: String,
    }
    let (name, body) = (call.name(), call.input::<Input>()?.template_body);
    let as_default = call.query.flag("setAsDefault")?;
    let mut template = call.account.state().find::<ProvisioningTemplate>(&name)?.clone();
    check_body(&body, &template.kind)?;
    let most = call.owner.scenario.template_versions as usize;
    if template.bodies.all.len() >= most {
        return Err(RegistryError::TooManyVersions("Provisioning template", name, most).into());
    }
    let version = template.bodies.add(&body, call.now);
    if as_default {
        template.bodies.default = version;
    }
    put(call, &name, template)?;
    let mut reply = named(call, &name);
    reply["versionId"] = json!(version);
    reply["isDefaultVersion"] = json!(as_default);
    Ok(reply)
}

pub(super) fn list_versions(call: &mut Call<'_>) -> Answer {
    let bodies = &call.account.state().find::<ProvisioningTemplate>(&call.name())?.bodies;
    let versions: Vec<_> =
        bodies.all.iter().map(|(version, body)| (format!("{version:010}"), (*version, body))).collect();
    let items = versions.iter().map(|(key, item)| (key.as_str(), *item));
    page(call, TOKENS, "versions", items, |_, (version, body)| shown_version(bodies, version, body))
}

fn shown_version(bodies: &Versions, version: u32, body: &Version) -> Value {
    json!({
        "versionId": version,
        "creationDate": seconds(body.created),
        "isDefaultVersion": version == bodies.default,
    })
}

pub(super) fn describe_version(call: &mut Call<'_>) -> Answer {
    let (name, version) = (call.name(), call.version()?);
    let template = call.account.state().find::<ProvisioningTemplate>(&name)?;
    let body = find_version(&name, template, version)?;
    let mut reply = shown_version(&template.bodies, version, body);
    reply["templateBody"] = json!(body.text);
    Ok(reply)
}

pub(super) fn delete_version(call: &mut Call<'_>) -> Answer {
    let (name, version) = (call.name(), call.version()?);
    let template = call.account.state().find::<ProvisioningTemplate>(&name)?;
    find_version(&name, template, version)?;
    if version == template.bodies.default {
        let message = format!("Version {version} of provisioning template {name} is its default version.");
        return Err(RegistryError::InUse(message).into());
    }
    call.account.edit::<ProvisioningTemplate>(&name)?.bodies.all.remove(&version);
    Ok(json!({}))
}

fn find_version<'t>(
    name: &str,
    template: &'t ProvisioningTemplate,
    version: u32,
) -> Result<&'t Version, ApiError> {
    let found = template.bodies.all.get(&version);
    found
        .ok_or_else(|| ApiError::not_found(format!("Provisioning template {name} has no version {version}.")))
}

pub(super) fn create_claim(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    call.account.state().find::<ProvisioningTemplate>(&name)?;
    let Material::Keys(minted) = std::mem::replace(&mut call.material, Material::None) else {
        return Err(ApiError::internal("no key was made"));
    };
    let id: Fingerprint =
        minted.certificate_id.parse().map_err(|_| ApiError::internal("the new certificate has no id"))?;
    let expires = call.now + CLAIM_LIFETIME;
    let (certificate_id, certificate_pem) = (minted.certificate_id, minted.certificate_pem.clone());
    call.account.register_claim(call.now, Certified { certificate_pem, certificate_id });
    call.account.put(id, Claim { template: name, expires });
    Ok(json!({
        "certificateId": id,
        "certificatePem": minted.certificate_pem,
        "keyPair": super::certificates::key_pair(&minted.certificate_pem, minted.private_key_pem.expose())?,
        "expiration": seconds(expires),
    }))
}

/// The input of RegisterThing: a template and its parameters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    template_body: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

impl Registration {
    fn template(&self) -> Result<Template, ApiError> {
        Template::parse(&self.template_body).map_err(wrong_body)
    }

    fn parameters(&self) -> Parameters<'_> {
        let pairs = self.parameters.iter();
        pairs.map(|(name, value)| (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str()))).collect()
    }

    /// The certificate that the template refers to.
    fn source(&self, template: &Template) -> Result<CertificateSource<String>, ApiError> {
        // Nothing is known about the certificate yet, so the template cannot use its properties to find it.
        let facts = CertificateFacts { id: Some(""), subject: None };
        let plan = template.evaluate(facts, &self.parameters());
        let plan = plan.map_err(|error| ApiError::registration_failed(format!("{error}.")))?;
        plan.certificate.ok_or_else(|| ApiError::registration_failed("The template names no certificate."))
    }
}

/// RegisterThing needs a certificate made if its template has a signing request.
pub(super) fn registration_needs(body: &[u8]) -> Result<Needs, ApiError> {
    let registration: Registration = parse(body)?;
    Ok(match registration.source(&registration.template()?)? {
        CertificateSource::SigningRequest(csr) => Needs::Certificate(csr),
        CertificateSource::Id(_) | CertificateSource::Pem(_) => Needs::Nothing,
    })
}

pub(super) fn register_thing(call: &mut Call<'_>) -> Answer {
    let registration: Registration = call.input()?;
    let template = registration.template()?;
    let (id, certificate) = match registration.source(&template)? {
        CertificateSource::Id(text) => {
            let id: Option<Fingerprint> = text.parse().ok();
            let found = id.and_then(|id| Some((id, call.account.state().certificates.get(&id)?.clone())));
            let message = || ApiError::registration_failed(format!("Certificate {text} does not exist."));
            found.ok_or_else(message)?
        }
        CertificateSource::SigningRequest(_) => {
            let Material::Certified(certified) = std::mem::replace(&mut call.material, Material::None) else {
                return Err(ApiError::internal("no certificate was made"));
            };
            let id = certified.certificate_id.parse();
            let id = id.map_err(|_| ApiError::internal("the new certificate has no id"))?;
            (id, Certificate::new(&certified.certificate_pem, CertificateStatus::Inactive, call.now))
        }
        CertificateSource::Pem(_) => {
            return Err(ApiError::registration_failed(
                "The emulator has no CA certificates that could have signed it.",
            ));
        }
    };
    let parameters = registration.parameters();
    let plan = evaluate(&template, id, &certificate, parameters, MissingParameter::Reject)?;
    let thing = call.account.check(&plan, id)?;
    let pem = certificate.pem.clone();
    let mut arns = json!({ "certificate": call.owner.arn("cert", id) });
    if let Some(thing) = &plan.thing {
        arns["thing"] = json!(call.owner.arn("thing", &thing.name));
    }
    call.account.put(id, certificate);
    call.account.carry_out(call.now, plan, thing, id);
    if let Some(policy) = call.account.state().find::<Certificate>(&id)?.policies.iter().next() {
        arns["policy"] = json!(call.owner.arn("policy", policy));
    }
    Ok(json!({"certificatePem": pem, "resourceArns": arns}))
}
