//! Checks that what a template names exists, and adds the resources that the scenario declares.
//!
//! With `resources = "assumed"`, everything that a template names is created when it is first named.

use std::time::{Duration, SystemTime};

use super::super::policy::Document;
use super::super::scenario::{Refusal, Resources, Scenario, TemplateSource};
use super::answer::Refused;
use super::change::{Key, Kind};
use super::fingerprint::Fingerprint;
use super::state::{BillingGroup, Policy, ProvisioningTemplate, State, ThingGroup, ThingType, Versions};
use super::{Account, AccountError};
use crate::template::{Plan, PolicyPlan, PrincipalType, Template, body_of};

/// The creation date of the scenario's resources. It is fixed, so that the same scenario gives the same state.
const DECLARED: Duration = Duration::from_secs(1_735_689_600);
/// The document of a policy that is only assumed to exist.
const ANYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;

impl Account {
    pub(super) fn check_resources(&self, plan: &Plan) -> Result<(), Refused> {
        if self.rules.resources == Resources::Assumed {
            return Ok(());
        }
        let state = &self.state;
        if let Some(thing) = &plan.thing {
            let type_name = thing.type_name.iter();
            type_name.clone().try_for_each(|name| state.check_exists::<ThingType>(name))?;
            type_name.clone().try_for_each(|name| state.check_not_deprecated(name))?;
            thing.groups.iter().flatten().try_for_each(|name| state.check_exists::<ThingGroup>(name))?;
            thing.billing_group.iter().try_for_each(|name| state.check_exists::<BillingGroup>(name))?;
        }
        plan.policies.iter().try_for_each(|policy| match policy {
            PolicyPlan::Named(name) => state.check_exists::<Policy>(name),
            PolicyPlan::Inline(_) => Ok(()),
        })
    }

    /// Creates what a plan names and the account lacks, if the scenario assumes that it exists.
    pub(super) fn assume_resources(&mut self, now: SystemTime, plan: &Plan) {
        if self.rules.resources == Resources::Declared {
            return;
        }
        if let Some(thing) = &plan.thing {
            thing.type_name.iter().for_each(|name| self.assume(name, ThingType::new(now)));
            thing.groups.iter().flatten().for_each(|name| self.assume(name, ThingGroup::new(now)));
            thing.billing_group.iter().for_each(|name| self.assume(name, BillingGroup::new(now)));
        }
        for policy in &plan.policies {
            if let PolicyPlan::Named(name) = policy {
                self.assume(name, Policy { documents: Versions::first(ANYTHING, now) });
            }
        }
    }

    fn assume<K: Kind<Name = String>>(&mut self, name: &str, record: K) {
        let map = K::map_mut(&mut self.state);
        if !map.contains_key(name) {
            map.insert(name.to_owned(), record);
            self.touched.add(K::key(name.to_owned()));
        }
    }

    /// Adds the scenario's resources that the account lacks. A template whose text the scenario has changed gets that
    /// text as its new default version.
    pub(super) fn declare(&mut self, scenario: &Scenario) -> Result<(), AccountError> {
        let then = SystemTime::UNIX_EPOCH + DECLARED;
        for (number, named) in scenario.templates.iter().enumerate() {
            let name = named.name.clone();
            if scenario.templates[..number].iter().any(|earlier| earlier.name == name) {
                return Err(AccountError::TemplateTwice { name });
            }
            let TemplateSource::Body(text) = &named.source else {
                return Err(AccountError::TemplateNotRead { name });
            };
            let body = body_of(text);
            let read = Template::parse(&body).and_then(|template| template.check_for_fleets());
            read.map_err(|error| AccountError::Template { name: name.clone(), error })?;
            self.declare_template(&name, &body, named.hook.clone(), then);
        }
        for policy in &scenario.policies {
            let name = policy.name.clone();
            let document = policy.document.as_deref().unwrap_or(ANYTHING);
            Document::parse(document)
                .map_err(|error| AccountError::Policy { name: name.clone(), detail: error.to_string() })?;
            self.assume(&name, Policy { documents: Versions::first(document, then) });
        }
        scenario.thing_types.iter().for_each(|name| self.assume(name, ThingType::new(then)));
        scenario.thing_groups.iter().for_each(|name| self.assume(name, ThingGroup::new(then)));
        scenario.billing_groups.iter().for_each(|name| self.assume(name, BillingGroup::new(then)));
        Ok(())
    }

    fn declare_template(&mut self, name: &str, body: &str, hook: Option<String>, then: SystemTime) {
        let Some(template) = self.state.templates.get_mut(name) else {
            let role_arn = format!("arn:aws:iam::{}:role/emulated", self.rules.account_id);
            let template = ProvisioningTemplate::new(body, role_arn, hook, then);
            self.state.templates.insert(name.to_owned(), template);
            return;
        };
        if !template.bodies.all.values().any(|version| *version.text == *body) {
            template.bodies.default = template.bodies.add(body, then);
            self.touched.add(Key::ProvisioningTemplate(name.to_owned()));
        }
    }
}

impl State {
    fn check_exists<K: Kind<Name = String>>(&self, name: &str) -> Result<(), Refused> {
        if K::map(self).contains_key(name) {
            return Ok(());
        }
        Err(Refused::new(Refusal::RegistrationFailed, format!("{} {name} does not exist", K::NOUN)))
    }

    fn check_not_deprecated(&self, type_name: &str) -> Result<(), Refused> {
        if self.thing_types.get(type_name).is_none_or(|found| found.deprecated.is_none()) {
            return Ok(());
        }
        Err(Refused::new(Refusal::RegistrationFailed, format!("Thing type {type_name} is deprecated")))
    }

    /// Checks that a certificate may be attached to a thing: one that is attached exclusively to a thing cannot be
    /// attached to another.
    pub(in crate::emulator) fn check_exclusive(
        &self,
        id: Fingerprint,
        thing_name: &str,
        kind: PrincipalType,
    ) -> Result<(), Refused> {
        let Some(certificate) = self.certificates.get(&id) else { return Ok(()) };
        let exclusive = |name: &&str| {
            let principals = self.things.get(*name).map(|thing| &thing.principals).into_iter().flatten();
            let mut own = principals.filter(|principal| principal.certificate_id == id);
            own.any(|principal| principal.kind == PrincipalType::Exclusive)
        };
        let mut others = certificate.things.iter().filter(|name| *name != thing_name);
        match others.find(|name| kind == PrincipalType::Exclusive || exclusive(name)) {
            Some(other) => {
                let detail = format!("Certificate {id} is attached to thing {other}, and one of them alone");
                Err(Refused::new(Refusal::RegistrationFailed, detail))
            }
            None => Ok(()),
        }
    }
}

/// A document without a name is named by its hash, so that equal documents become one policy.
pub(super) fn name_policy(policy: PolicyPlan, now: SystemTime) -> (String, Policy) {
    match policy {
        PolicyPlan::Named(name) => (name, Policy { documents: Versions::first(ANYTHING, now) }),
        PolicyPlan::Inline(document) => {
            let name = Fingerprint::of(document.as_bytes()).to_string();
            (name, Policy { documents: Versions::first(&document, now) })
        }
    }
}
