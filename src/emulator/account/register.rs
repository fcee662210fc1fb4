//! RegisterThing, from the request to the registry: everything is checked before anything changes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::scenario::{
    CertificateIdMismatch, ClaimOfSigner, MAX_PAYLOAD, MissingParameter, OverrideDefault, Refusal, TokenReuse,
};
use super::answer::{Answer, Refused};
use super::change::{Key, Touched};
use super::fingerprint::Fingerprint;
use super::request::{self, RegisterRequest};
use super::resources::name_policy;
use super::state::{Certificate, CertificateStatus, State, Thing};
use super::{Account, Capitals, Rules, limits, subject};
use crate::template::{
    Activation, CertificateFacts, CertificateSource, EvaluationError, Override, Parameters, Plan, Reason,
    Template, ThingPlan,
};

/// Parameters that a pre-provisioning hook set or changed.
pub type ParameterOverrides = BTreeMap<String, String>;

/// The client that requests a registration, as a pre-provisioning hook sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registrant<'a> {
    /// Its client id.
    pub client_id: &'a str,
    /// The id of the certificate that opened its connection; `None` for a signed connection.
    pub certificate_id: Option<&'a str>,
}

/// A call of a pre-provisioning hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCall {
    /// The hook's ARN, from the template.
    pub target_arn: String,
    /// The function's input, JSON.
    pub input: String,
}

impl Account {
    pub(super) fn try_register(
        &mut self,
        now: SystemTime,
        template: &str,
        payload: &[u8],
        overrides: &ParameterOverrides,
    ) -> Result<Answer, Refused> {
        let request = request::parse_register(payload)?;
        self.state.counters.capitalised_parameters += u64::from(request.capitalised.is_some());
        let claim = self.claim(now, &request)?;
        let template = self.enabled_template(template)?;
        let mut parameters = self.rules.parameters(request);
        for (name, value) in overrides {
            parameters.insert(Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str()));
        }
        let certificate = self.state.certificates.get(&claim.certificate_id);
        let certificate = certificate.ok_or_else(|| Refused::new(Refusal::UnknownToken, ""))?;
        let missing = self.rules.missing_parameter;
        let plan = evaluate(template, claim.certificate_id, certificate, parameters, missing)?;
        if let Some(CertificateSource::Id(id)) = &plan.certificate
            && self.rules.certificate_id_mismatch == CertificateIdMismatch::Reject
            && id.parse() != Ok(claim.certificate_id)
        {
            return Err(Refused::new(Refusal::CertificateMismatch, ""));
        }
        let thing = self.check(&plan, claim.certificate_id)?;
        let answer = Answer::registered(
            &plan.device_configuration,
            plan.thing.as_ref().map(|thing| thing.name.as_str()),
        );
        if answer.payload.len() > MAX_PAYLOAD as usize {
            let detail =
                format!("the answer would be of {} bytes, more than {MAX_PAYLOAD}", answer.payload.len());
            return Err(Refused::new(Refusal::TemplateFailed, detail));
        }
        if let Some(token) = self.state.tokens.get_mut(&claim.token_digest) {
            token.uses += 1;
            self.touched.add(Key::Token(claim.token_digest));
        }
        self.carry_out(now, plan, thing, claim.certificate_id);
        Ok(answer)
    }

    /// The call of the template's pre-provisioning hook for a registration; `None` if the template has no hook, or if
    /// the registration fails before the hook would be called. Source: Developer Guide, "Pre-provisioning hooks".
    pub fn hook_call(
        &self,
        now: SystemTime,
        registrant: Registrant<'_>,
        template_name: &str,
        payload: &[u8],
    ) -> Option<HookCall> {
        let hook = self.state.templates.get(template_name)?.hook.as_ref()?;
        let request = request::parse_register(payload).ok()?;
        let claim = self.claim(now, &request).ok()?;
        let certificate = self.state.certificates.get(&claim.certificate_id)?;
        let mut input = serde_json::json!({
            "certificateId": claim.certificate_id,
            "certificatePem": certificate.pem,
            "templateArn": self.rules.arn("provisioningtemplate", template_name),
            "clientId": registrant.client_id,
            "parameters": self.rules.parameters(request),
        });
        let of_signer = (self.rules.claim_of_signer == ClaimOfSigner::Empty).then_some("");
        if let Some(claim) = registrant.certificate_id.or(of_signer) {
            input["claimCertificateId"] = claim.into();
        }
        Some(HookCall { target_arn: hook.target_arn.clone(), input: input.to_string() })
    }

    /// Checks the token of a request.
    fn claim(&self, now: SystemTime, request: &RegisterRequest<'_>) -> Result<Proof, Refused> {
        let refuse = |refusal| Err(Refused::new(refusal, ""));
        let Some(text) = request.token.as_deref().filter(|token| !token.is_empty()) else {
            return refuse(Refusal::EmptyToken);
        };
        let token_digest = Fingerprint::of(text.as_bytes());
        let Some(token) = self.state.tokens.get(&token_digest) else {
            return refuse(Refusal::UnknownToken);
        };
        if token.expires <= now {
            return refuse(Refusal::ExpiredToken);
        }
        if token.uses > 0 && self.rules.token_reuse == TokenReuse::Reject {
            return refuse(Refusal::UsedToken);
        }
        Ok(Proof { certificate_id: token.certificate_id, token_digest })
    }

    fn enabled_template(&self, name: &str) -> Result<&Template, Refused> {
        let found = self.state.templates.get(name).zip(self.templates.get(name));
        match found.ok_or_else(|| Refused::new(Refusal::UnknownTemplate, name))? {
            (record, template) if record.enabled => Ok(template),
            _ => Err(Refused::new(Refusal::DisabledTemplate, name)),
        }
    }

    /// Checks that a plan can be carried out. Returns its thing as it will be: new, or changed as the overrides say.
    pub(in crate::emulator) fn check(
        &self,
        plan: &Plan,
        certificate_id: Fingerprint,
    ) -> Result<Option<Thing>, Refused> {
        limits::check(plan)?;
        self.check_resources(plan)?;
        let Some(wanted) = &plan.thing else { return Ok(None) };
        self.state.check_exclusive(certificate_id, &wanted.name, plan.principal_type)?;
        let thing = match self.state.things.get(&wanted.name) {
            None => new_thing(wanted),
            Some(existing) => self.rules.override_thing(existing, wanted)?,
        };
        limits::check_attributes(thing.attributes.len(), thing.type_name.as_deref())?;
        limits::check_groups(&thing.groups)?;
        Ok(Some(thing))
    }

    /// Carries out a plan that was checked before.
    pub(in crate::emulator) fn carry_out(
        &mut self,
        now: SystemTime,
        plan: Plan,
        thing: Option<Thing>,
        id: Fingerprint,
    ) {
        self.assume_resources(now, &plan);
        let Self { state, touched, .. } = self;
        state.attach_planned(now, plan, thing, id, touched);
    }
}

/// Evaluates a template for a certificate of the account.
pub(in crate::emulator) fn evaluate(
    template: &Template,
    id: Fingerprint,
    certificate: &Certificate,
    mut parameters: Parameters<'_>,
    missing: MissingParameter,
) -> Result<Plan, Refused> {
    let text = id.to_string();
    let subject = template.reads_subject().then(|| subject::of(&certificate.pem.to_string()));
    let facts = CertificateFacts { id: Some(&text), subject: subject.as_ref() };
    loop {
        let error = match template.evaluate(facts, &parameters) {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        match &error.reason {
            Reason::MissingParameter(name)
                if missing == MissingParameter::Empty && !parameters.contains_key(name.as_str()) =>
            {
                parameters.insert(Cow::Owned(name.clone()), Cow::Borrowed(""));
            }
            _ => return Err(error.into()),
        }
    }
}

/// A token that was found valid.
struct Proof {
    certificate_id: Fingerprint,
    token_digest: Fingerprint,
}

impl Rules {
    /// The parameters of a request. Capitalised ones are used only if the scenario says so.
    fn parameters<'r>(&self, request: RegisterRequest<'r>) -> Parameters<'r> {
        match (request.parameters, request.capitalised, self.capitals) {
            (Some(parameters), _, _) | (None, Some(parameters), Capitals::Taken) => parameters,
            _ => BTreeMap::new(),
        }
    }

    /// `existing` with the template's properties applied, each by its override.
    fn override_thing(&self, existing: &Thing, wanted: &ThingPlan) -> Result<Thing, Refused> {
        let mut thing = existing.clone();
        let conflict = || Refused::new(Refusal::ResourceConflict, wanted.name.as_str());
        if let Some(attributes) = &wanted.attributes {
            let new = pairs(attributes);
            match self.override_of(wanted.overrides.attributes) {
                Override::DoNothing => {}
                Override::Replace => thing.attributes = new.collect(),
                Override::Merge => thing.attributes = existing.attributes.iter().chain(new).collect(),
                Override::Fail => return Err(conflict()),
            }
        }
        if let Some(type_name) = &wanted.type_name {
            match self.override_of(wanted.overrides.type_name) {
                Override::DoNothing => {}
                Override::Replace | Override::Merge => thing.type_name = Some(type_name.as_str().into()),
                Override::Fail => return Err(conflict()),
            }
        }
        if let Some(groups) = &wanted.groups {
            let new = groups.iter().map(String::as_str);
            match self.override_of(wanted.overrides.groups) {
                Override::DoNothing => {}
                Override::Replace => thing.groups = new.collect(),
                Override::Merge => thing.groups = existing.groups.iter().chain(new).collect(),
                Override::Fail => return Err(conflict()),
            }
        }
        if !wanted.package_versions.is_empty() {
            thing.package_versions =
                existing.package_versions.iter().chain(pairs(&wanted.package_versions)).collect();
        }
        let changed = thing.attributes != existing.attributes || thing.type_name != existing.type_name;
        thing.version += u64::from(changed);
        Ok(thing)
    }

    fn override_of(&self, said: Option<Override>) -> Override {
        said.unwrap_or(match self.override_default {
            OverrideDefault::DoNothing => Override::DoNothing,
            OverrideDefault::Replace => Override::Replace,
            OverrideDefault::Fail => Override::Fail,
        })
    }
}

impl State {
    fn attach_planned(
        &mut self,
        now: SystemTime,
        plan: Plan,
        thing: Option<Thing>,
        id: Fingerprint,
        touched: &mut Touched,
    ) {
        let certificate = self
            .certificates
            .get_mut(&id)
            .expect("a registration is carried out only after its certificate was found");
        touched.add(Key::Certificate(id));
        certificate.status = match plan.activation {
            Activation::Active => CertificateStatus::Active,
            Activation::Inactive => CertificateStatus::Inactive,
        };
        certificate.modified = now;
        for policy in plan.policies {
            let (name, policy) = name_policy(policy, now);
            certificate.policies.insert(&name);
            self.policies.entry(name).or_insert_with_key(|name| {
                touched.add(Key::Policy(name.clone()));
                policy
            });
        }
        if let Some((name, mut thing)) = plan.thing.map(|plan| plan.name).zip(thing) {
            certificate.things.insert(&name);
            thing.attach(id, plan.principal_type);
            touched.add(Key::Thing(name.clone()));
            self.things.insert(name, thing);
        }
    }
}

impl From<EvaluationError> for Refused {
    fn from(error: EvaluationError) -> Self {
        match &error.reason {
            Reason::MissingParameter(name) => {
                Self::new(Refusal::MissingParameter, format!("{name}, which {} refers to,", error.at))
            }
            Reason::Failed(_) => Self::new(Refusal::TemplateFailed, error.to_string()),
        }
    }
}

fn new_thing(wanted: &ThingPlan) -> Thing {
    Thing {
        type_name: wanted.type_name.as_deref().map(Box::from),
        attributes: wanted.attributes.iter().flat_map(pairs).collect(),
        groups: wanted.groups.iter().flatten().map(String::as_str).collect(),
        billing_group: wanted.billing_group.as_deref().map(Box::from),
        package_versions: pairs(&wanted.package_versions).collect(),
        principals: Box::default(),
        version: 1,
    }
}

fn pairs(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
