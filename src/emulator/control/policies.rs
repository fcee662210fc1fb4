//! Policies and their attachments.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::page::{MARKERS, page, seconds};
use super::reply::ApiError;
use super::request::Call;
use crate::emulator::account::{
    Certificate, Detached, Fingerprint, Names, Policy, RegistryError, ThingGroup, Versions, limits,
};
use crate::emulator::policy::Document;

/// The most versions of a policy (CreatePolicyVersion).
const VERSIONS: usize = 5;
/// The header with the principal, in operations that newer ones have replaced.
const PRINCIPAL: &str = "x-amzn-iot-principal";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithDocument {
    policy_document: String,
}

impl WithDocument {
    fn of(call: &Call<'_>) -> Result<String, ApiError> {
        let Self { policy_document } = call.input()?;
        match Document::parse(&policy_document) {
            Ok(_) => Ok(policy_document),
            Err(malformed) => Err(RegistryError::MalformedPolicy(malformed.to_string()).into()),
        }
    }
}

/// What a policy is attached to.
enum Target {
    Certificate(Fingerprint),
    Group(String),
}

impl Target {
    fn of(call: &Call<'_>, arn: &str) -> Result<Self, ApiError> {
        let target = match arn.strip_prefix(call.owner.arn("thinggroup", "").as_str()) {
            Some(group) => {
                call.account.state().find::<ThingGroup>(&group.to_owned())?;
                Self::Group(group.to_owned())
            }
            None => {
                let id = call.certificate_of(arn)?;
                call.account.state().find::<Certificate>(&id)?;
                Self::Certificate(id)
            }
        };
        Ok(target)
    }

    fn policies<'c>(&self, call: &'c Call<'_>) -> Result<&'c Names, ApiError> {
        Ok(match self {
            Self::Certificate(id) => &call.account.state().find::<Certificate>(id)?.policies,
            Self::Group(name) => &call.account.state().find::<ThingGroup>(name)?.policies,
        })
    }

    fn detached(self, policy: String) -> Detached {
        match self {
            Self::Certificate(id) => Detached::Policy(policy, id),
            Self::Group(name) => Detached::GroupPolicy(policy, name),
        }
    }
}

#[derive(Deserialize)]
struct WithTarget {
    target: String,
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    limits::check_policy_name(&name)?;
    let document = WithDocument::of(call)?;
    if call.account.state().policies.contains_key(&name) {
        return Err(RegistryError::AlreadyExists("Policy", name).into());
    }
    call.account.put(name.clone(), Policy { documents: Versions::first(&document, call.now) });
    Ok(json!({
        "policyName": name,
        "policyArn": call.owner.arn("policy", &name),
        "policyDocument": document,
        "policyVersionId": "1",
    }))
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let names = call.account.state().policies.keys().map(|name| (name.as_str(), ()));
    page(call, MARKERS, "policies", names, |name, ()| shown(call, name))
}

fn shown(call: &Call<'_>, name: &str) -> Value {
    json!({"policyName": name, "policyArn": call.owner.arn("policy", name)})
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let documents = &call.account.state().find::<Policy>(&name)?.documents;
    let mut reply = shown(call, &name);
    reply["policyDocument"] = json!(documents.current());
    reply["defaultVersionId"] = json!(documents.default.to_string());
    reply["creationDate"] = json!(seconds(documents.created()));
    reply["lastModifiedDate"] = json!(seconds(documents.modified));
    reply["generationId"] = json!(super::things::id_of("generation", &name));
    Ok(reply)
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let state = call.account.state();
    if state.find::<Policy>(&name)?.documents.all.len() > 1 {
        let message = format!(
            "Cannot delete the policy because it has one or more policy versions attached to it (name={name})"
        );
        return Err(RegistryError::InUse(message).into());
    }
    let mut attached = state.certificates.values().map(|certificate| &certificate.policies);
    let mut of_groups = state.thing_groups.values().map(|group| &group.policies);
    if attached.any(|policies| policies.contains(&name)) || of_groups.any(|policies| policies.contains(&name))
    {
        let message = format!(
            "The policy cannot be deleted as the policy is attached to one or more principals (name={name})"
        );
        return Err(RegistryError::InUse(message).into());
    }
    call.account.remove::<Policy>(&name);
    Ok(json!({}))
}

pub(super) fn create_version(call: &mut Call<'_>) -> Answer {
    let (name, document) = (call.name(), WithDocument::of(call)?);
    let (now, as_default) = (call.now, call.query.flag("setAsDefault")?);
    let documents = &mut call.account.edit::<Policy>(&name)?.documents;
    if documents.all.len() >= VERSIONS {
        return Err(RegistryError::TooManyVersions("Policy", name, VERSIONS).into());
    }
    let version = documents.add(&document, now);
    if as_default {
        documents.default = version;
    }
    Ok(json!({
        "policyArn": call.owner.arn("policy", &name),
        "policyDocument": document,
        "policyVersionId": version.to_string(),
        "isDefaultVersion": as_default,
    }))
}

pub(super) fn list_versions(call: &mut Call<'_>) -> Answer {
    let documents = &call.account.state().find::<Policy>(&call.name())?.documents;
    let versions = documents.all.iter().map(|(version, document)| {
        json!({
            "versionId": version.to_string(),
            "isDefaultVersion": *version == documents.default,
            "createDate": seconds(document.created),
        })
    });
    Ok(json!({ "policyVersions": versions.collect::<Vec<_>>() }))
}

pub(super) fn describe_version(call: &mut Call<'_>) -> Answer {
    let (name, version) = (call.name(), call.version()?);
    let documents = &call.account.state().find::<Policy>(&name)?.documents;
    let found = documents.all.get(&version).ok_or_else(|| no_version(&name, version))?;
    let mut reply = shown(call, &name);
    reply["policyDocument"] = json!(found.text);
    reply["policyVersionId"] = json!(version.to_string());
    reply["isDefaultVersion"] = json!(version == documents.default);
    reply["creationDate"] = json!(seconds(found.created));
    reply["lastModifiedDate"] = json!(seconds(found.created));
    reply["generationId"] = json!(super::things::id_of("generation", &name));
    Ok(reply)
}

pub(super) fn set_default_version(call: &mut Call<'_>) -> Answer {
    let (name, version, now) = (call.name(), call.version()?, call.now);
    let documents = &mut call.account.edit::<Policy>(&name)?.documents;
    if !documents.all.contains_key(&version) {
        return Err(no_version(&name, version));
    }
    documents.default = version;
    documents.modified = now;
    Ok(json!({}))
}

pub(super) fn delete_version(call: &mut Call<'_>) -> Answer {
    let (name, version) = (call.name(), call.version()?);
    let documents = &mut call.account.edit::<Policy>(&name)?.documents;
    if version == documents.default {
        let message = format!("Cannot delete the default version of policy {name}");
        return Err(RegistryError::InUse(message).into());
    }
    match documents.all.remove(&version) {
        Some(_) => Ok(json!({})),
        None => Err(no_version(&name, version)),
    }
}

fn no_version(name: &str, version: u32) -> ApiError {
    ApiError::not_found(format!("Policy {name} has no version {version}."))
}

pub(super) fn attach(call: &mut Call<'_>) -> Answer {
    let WithTarget { target } = call.input()?;
    attach_to(call, &target)
}

pub(super) fn attach_principal(call: &mut Call<'_>) -> Answer {
    let target = call.header(PRINCIPAL).unwrap_or_default().to_owned();
    attach_to(call, &target)
}

fn attach_to(call: &mut Call<'_>, arn: &str) -> Answer {
    let name = call.name();
    call.account.state().find::<Policy>(&name)?;
    let target = Target::of(call, arn)?;
    let attached = target.policies(call)?;
    if !attached.contains(&name) && attached.len() >= limits::POLICIES {
        let message = format!("{arn} has {} policies already.", limits::POLICIES);
        return Err(RegistryError::LimitExceeded(message).into());
    }
    match &target {
        Target::Certificate(id) => call.account.edit::<Certificate>(id)?.policies.insert(&name),
        Target::Group(group) => call.account.edit::<ThingGroup>(group)?.policies.insert(&name),
    };
    call.account.keep_attached(&target.detached(name));
    Ok(json!({}))
}

/// Detaching what is not attached succeeds; the policy remains.
pub(super) fn detach(call: &mut Call<'_>) -> Answer {
    let WithTarget { target } = call.input()?;
    let target = Target::of(call, &target)?;
    call.account.detach(call.now, target.detached(call.name()));
    Ok(json!({}))
}

pub(super) fn detach_principal(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    call.account.state().find::<Policy>(&name)?;
    let target = Target::of(call, call.header(PRINCIPAL).unwrap_or_default())?;
    call.account.detach(call.now, target.detached(name));
    Ok(json!({}))
}

pub(super) fn of_target(call: &mut Call<'_>) -> Answer {
    list_of(call, &call.name())
}

pub(super) fn of_principal(call: &mut Call<'_>) -> Answer {
    list_of(call, call.header(PRINCIPAL).unwrap_or_default())
}

fn list_of(call: &Call<'_>, arn: &str) -> Answer {
    let target = Target::of(call, arn)?;
    let names = target.policies(call)?.iter().map(|name| (name, ()));
    page(call, MARKERS, "policies", names, |name, ()| shown(call, name))
}

pub(super) fn targets(call: &mut Call<'_>) -> Answer {
    list_targets(call, &call.name(), "targets", true)
}

pub(super) fn principals(call: &mut Call<'_>) -> Answer {
    let name = call.header("x-amzn-iot-policy").unwrap_or_default().to_owned();
    list_targets(call, &name, "principals", false)
}

fn list_targets(call: &Call<'_>, name: &str, field: &str, groups_too: bool) -> Answer {
    let state = call.account.state();
    state.find::<Policy>(&name.to_owned())?;
    let certificates =
        state.certificates.iter().filter(|(_, certificate)| certificate.policies.contains(name));
    let groups = state.thing_groups.iter().filter(|(_, group)| groups_too && group.policies.contains(name));
    let mut arns: Vec<String> = certificates
        .map(|(id, _)| call.owner.arn("cert", id))
        .chain(groups.map(|(group, _)| call.owner.arn("thinggroup", group)))
        .collect();
    arns.sort_unstable();
    page(call, MARKERS, field, arns.iter().map(|arn| (arn.as_str(), ())), |arn, ()| json!(arn))
}
