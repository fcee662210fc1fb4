//! RegisterThing, from the request to the registry.
//!
//! Owns the order of the checks, and what a plan does to things, policies and certificate. Everything is checked before
//! anything changes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::scenario::{CertificateIdMismatch, OverrideDefault, Refusal, TokenReuse};
use super::answer::{Answer, Refused};
use super::change::{Key, Touched};
use super::request::{self, RegisterRequest};
use super::state::{CertificateStatus, Policy, State, Thing};
use super::{Account, Capitals, Rules, limits, token};
use crate::template::{Activation, EvaluationError, Override, Plan, PolicyPlan, ThingPlan};

impl Account {
    pub(super) fn try_register(
        &mut self,
        now: SystemTime,
        template: &str,
        payload: &[u8],
    ) -> Result<Answer, Refused> {
        let request = request::parse_register(payload)?;
        self.state.counters.capitalised_parameters += u64::from(request.capitalised.is_some());
        let claim = self.claim(now, &request)?;
        let template =
            self.templates.get(template).ok_or_else(|| Refused::new(Refusal::UnknownTemplate, template))?;
        let parameters = match (request.parameters, request.capitalised, self.rules.capitals) {
            (Some(parameters), _, _) | (None, Some(parameters), Capitals::Taken) => parameters,
            _ => BTreeMap::new(),
        };
        let plan = template.evaluate(&claim.certificate_id, &parameters)?;
        self.check(&plan, &claim)?;
        let thing = self.plan_thing(&plan)?;
        let answer = Answer::registered(
            &plan.device_configuration,
            plan.thing.as_ref().map(|thing| thing.name.as_str()),
        );
        self.state.carry_out(plan, thing, claim, &mut self.touched);
        Ok(answer)
    }

    /// What the token of a request proves.
    fn claim(&self, now: SystemTime, request: &RegisterRequest<'_>) -> Result<Claim, Refused> {
        let refuse = |refusal| Err(Refused::new(refusal, ""));
        let Some(text) = request.token.as_deref().filter(|token| !token.is_empty()) else {
            return refuse(Refusal::EmptyToken);
        };
        let token_digest = token::digest(text);
        let Some(token) = self.state.tokens.get(&token_digest) else {
            return refuse(Refusal::UnknownToken);
        };
        if token.expires <= now {
            return refuse(Refusal::ExpiredToken);
        }
        if token.uses > 0 && self.rules.token_reuse == TokenReuse::Reject {
            return refuse(Refusal::UsedToken);
        }
        Ok(Claim { certificate_id: token.certificate_id.clone(), token_digest })
    }

    fn check(&self, plan: &Plan, claim: &Claim) -> Result<(), Refused> {
        limits::check(plan)?;
        let another = plan.certificate_id.as_ref().is_some_and(|id| *id != claim.certificate_id);
        if another && self.rules.certificate_id_mismatch == CertificateIdMismatch::Reject {
            return Err(Refused::new(Refusal::CertificateMismatch, ""));
        }
        if !self.state.certificates.contains_key(&claim.certificate_id) {
            return Err(Refused::new(Refusal::UnknownToken, ""));
        }
        Ok(())
    }

    /// The thing as it is to be: new, or changed as the overrides say.
    fn plan_thing(&self, plan: &Plan) -> Result<Option<Thing>, Refused> {
        let Some(wanted) = &plan.thing else { return Ok(None) };
        let thing = match self.state.things.get(&wanted.name) {
            None => new_thing(wanted),
            Some(existing) => self.rules.override_thing(existing, wanted)?,
        };
        limits::check_attributes(&thing.attributes, thing.type_name.as_deref())?;
        Ok(Some(thing))
    }
}

/// A token that was found good.
struct Claim {
    certificate_id: String,
    token_digest: String,
}

impl Rules {
    /// `existing` with the template's properties, each by its override.
    fn override_thing(&self, existing: &Thing, wanted: &ThingPlan) -> Result<Thing, Refused> {
        let mut thing = existing.clone();
        let conflict = || Refused::new(Refusal::ResourceConflict, wanted.name.as_str());
        if !wanted.attributes.is_empty() {
            match self.override_of(wanted.overrides.attributes) {
                Override::DoNothing => {}
                Override::Replace => thing.attributes = wanted.attributes.clone(),
                Override::Merge => thing.attributes.extend(wanted.attributes.clone()),
                Override::Fail => return Err(conflict()),
            }
        }
        if let Some(type_name) = &wanted.type_name {
            match self.override_of(wanted.overrides.type_name) {
                Override::DoNothing => {}
                Override::Replace | Override::Merge => thing.type_name = Some(type_name.clone()),
                Override::Fail => return Err(conflict()),
            }
        }
        if let Some(groups) = &wanted.groups {
            match self.override_of(wanted.overrides.groups) {
                Override::DoNothing => {}
                Override::Replace => thing.groups = groups.iter().cloned().collect(),
                Override::Merge => thing.groups.extend(groups.iter().cloned()),
                Override::Fail => return Err(conflict()),
            }
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
    fn carry_out(&mut self, plan: Plan, thing: Option<Thing>, claim: Claim, touched: &mut Touched) {
        let certificate = self
            .certificates
            .get_mut(&claim.certificate_id)
            .expect("a registration is carried out only after its certificate was found");
        touched.add(Key::Certificate, &claim.certificate_id);
        touched.add(Key::Token, &claim.token_digest);
        certificate.status = match plan.activation {
            Activation::Active => CertificateStatus::Active,
            Activation::Inactive => CertificateStatus::Inactive,
        };
        for policy in plan.policies {
            let (name, policy) = name_policy(policy);
            certificate.policies.insert(name.clone());
            if !self.policies.contains_key(&name) {
                touched.add(Key::Policy, &name);
            }
            self.policies.entry(name).or_insert(policy);
        }
        if let Some(token) = self.tokens.get_mut(&claim.token_digest) {
            token.uses += 1;
        }
        if let Some((name, mut thing)) = plan.thing.map(|plan| plan.name).zip(thing) {
            touched.add(Key::Thing, &name);
            certificate.things.insert(name.clone());
            thing.principals.insert(claim.certificate_id);
            self.things.insert(name, thing);
        }
    }
}

impl From<EvaluationError> for Refused {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::MissingParameter(name) => Self::new(Refusal::MissingParameter, name),
            EvaluationError::Failed(detail) => Self::new(Refusal::TemplateFailed, detail),
        }
    }
}

fn new_thing(wanted: &ThingPlan) -> Thing {
    Thing {
        type_name: wanted.type_name.clone(),
        attributes: wanted.attributes.clone(),
        groups: wanted.groups.iter().flatten().cloned().collect(),
        billing_group: wanted.billing_group.clone(),
        version: 1,
        ..Thing::default()
    }
}

/// A document without a name is named by its hash, so that equal documents are one policy.
fn name_policy(policy: PolicyPlan) -> (String, Policy) {
    match policy {
        PolicyPlan::Named(name) => (name, Policy::default()),
        PolicyPlan::Inline(document) => (token::digest(&document), Policy { document: Some(document) }),
    }
}
