//! Finds errors and likely mistakes in a template before it is created in an account.

use std::collections::BTreeSet;

use super::expression::{Document, List, OF_CERTIFICATE, Text};
use super::limits::check_attribute_name;
use super::secrets::looks_secret;
use super::{
    CertificateFacts, CertificateSource, NamedOrInline, Parameters, PolicyResource, Template, TemplateError,
    ThingResource, reader,
};
use crate::service::{
    MAX_ATTRIBUTES_WITH_TYPE, MAX_ATTRIBUTES_WITHOUT_TYPE, MAX_GROUPS, MAX_POLICIES, MAX_POLICY_DOCUMENT,
};
use crate::wording::plain;

/// The findings about a template, each with its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lint {
    /// What the service refuses, when the template is created or when a device is registered with it.
    pub errors: Vec<TemplateError>,
    /// What the service accepts, but is probably not meant.
    pub warnings: Vec<TemplateError>,
}

/// Checks the body of a fleet provisioning template for all errors and likely mistakes.
pub fn lint(body: &str) -> Lint {
    let template = match reader::read_whole(body) {
        Ok(template) => template,
        Err(errors) => return Lint { errors, warnings: Vec::new() },
    };
    let mut lint = Lint::default();
    lint.errors.extend(template.check_for_fleets().err());
    lint.certificate(&template);
    match &template.thing {
        Some(thing) => lint.thing(thing),
        None => lint.warn(
            "Resources",
            "no AWS::IoT::Thing",
            "one, unless devices are to be known by their certificates alone",
        ),
    }
    lint.policies(&template.policies);
    lint.unused(&template);
    lint.constants(&template);
    lint
}

impl Lint {
    fn error(&mut self, at: &str, found: impl Into<String>, wanted: impl Into<String>) {
        let error = TemplateError::new(at, &found.into(), &wanted.into());
        // Two checks may find the same error; report it once.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn warn(&mut self, at: &str, found: impl Into<String>, wanted: impl Into<String>) {
        self.warnings.push(TemplateError::new(at, &found.into(), &wanted.into()));
    }

    fn certificate(&mut self, template: &Template) {
        let certificate = &template.certificate;
        if let Some(CertificateSource::Id(Text::Ref(name))) = &certificate.source
            && !name.starts_with(OF_CERTIFICATE)
        {
            self.warn(
                &format!("{}.CertificateId", certificate.at),
                format!("the parameter {name}, which the caller gives"),
                "{\"Ref\": \"AWS::IoT::Certificate::Id\"}, which the service gives",
            );
        }
        if template.reads_subject {
            self.warn(
                &certificate.at,
                "a reference to the certificate's subject",
                "none: every certificate that fleet provisioning makes has the same subject",
            );
        }
    }

    fn thing(&mut self, thing: &ThingResource) {
        let at = |key: &str| format!("{}.{key}", thing.at);
        let attributes = thing.attributes.as_deref().unwrap_or_default();
        let (most, kind) = match thing.type_name {
            Some(_) => (MAX_ATTRIBUTES_WITH_TYPE, "with a ThingTypeName"),
            None => (MAX_ATTRIBUTES_WITHOUT_TYPE, "without a ThingTypeName"),
        };
        if attributes.len() > most {
            let wanted = format!("at most {most} {kind}");
            self.error(&at("AttributePayload"), format!("{} attributes", attributes.len()), wanted);
        }
        for (name, value) in attributes {
            let place = at(&format!("AttributePayload.{name}"));
            if let Err(error) = check_attribute_name(name) {
                self.error(&place, error.found, error.wanted);
            }
            let mut secrets = BTreeSet::new();
            value.each_reference(&mut |parameter| {
                if looks_secret(parameter) {
                    secrets.insert(parameter);
                }
            });
            if let Some(parameter) = secrets.first().copied().or(looks_secret(name).then_some(name.as_str()))
            {
                self.warn(
                    &place,
                    format!("{parameter}, which looks like a secret"),
                    "no secret: whoever may describe things reads their attributes",
                );
            }
        }
        if let Some(List::Items(groups)) = &thing.groups
            && groups.len() > MAX_GROUPS
        {
            self.error(
                &at("ThingGroups"),
                format!("{} groups", groups.len()),
                format!("at most {MAX_GROUPS}"),
            );
        }
        if is_constant(&thing.name) {
            self.warn(
                &at("ThingName"),
                "the same name for every device",
                "a parameter in it, or all certificates are attached to one thing",
            );
        }
    }

    fn policies(&mut self, policies: &[PolicyResource]) {
        if policies.is_empty() {
            self.warn(
                "Resources",
                "no AWS::IoT::Policy",
                "one: a certificate without a policy may not even connect",
            );
        }
        if policies.len() > MAX_POLICIES {
            let wanted = format!("at most {MAX_POLICIES} on a certificate");
            self.error("Resources", format!("{} policies", policies.len()), wanted);
        }
        for policy in policies {
            let NamedOrInline::Inline(document) = &policy.policy else { continue };
            let place = format!("{}.PolicyDocument", policy.at);
            let least = least_characters(document);
            if least > MAX_POLICY_DOCUMENT {
                let found = format!("at least {least} characters besides white space");
                self.error(&place, found, format!("at most {MAX_POLICY_DOCUMENT}"));
            }
            let mut parameters = BTreeSet::new();
            document.each_reference(&mut |parameter| {
                parameters.insert(parameter);
            });
            if !parameters.is_empty() {
                let names: Vec<_> = parameters.into_iter().collect();
                self.warn(
                    &place,
                    format!("references to {}", names.join(", ")),
                    "policy variables such as ${iot:Connection.Thing.ThingName}, so that all devices share one policy: \
                     every other document becomes a policy of its own",
                );
            }
        }
    }

    fn unused(&mut self, template: &Template) {
        let mut used = BTreeSet::new();
        template.each_reference(&mut |name| {
            used.insert(name);
        });
        for name in template.parameters.keys() {
            if !used.contains(name.as_str()) && !name.starts_with("AWS::") {
                self.warn(
                    &format!("Parameters.{name}"),
                    "a parameter that nothing refers to",
                    "a use of it, or none",
                );
            }
        }
    }

    /// Checks the parts that do not depend on any parameter.
    fn constants(&mut self, template: &Template) {
        // Gives every parameter a value within all limits, so that any refusal is the template's own fault.
        let mut names = BTreeSet::new();
        template.each_reference(&mut |name| {
            names.insert(name);
        });
        let facts = CertificateFacts { id: Some("0"), subject: None };
        let given: Parameters<'_> = names
            .iter()
            .map(|name| {
                let default = template.parameters.get(*name).and_then(Option::as_deref);
                ((*name).into(), default.unwrap_or("0").into())
            })
            .collect();
        match template.evaluate(facts, &given) {
            Ok(plan) => {
                let thing = template.thing.as_ref().map_or("Resources", |thing| thing.at.as_str());
                for refused in plan.refused() {
                    let in_thing = !refused.at.starts_with("Policy") && refused.at != "Resources";
                    let at = if in_thing {
                        format!("{thing}.{}", refused.at)
                    } else {
                        self.policy_at(template, &refused.at)
                    };
                    if !self.errors.iter().any(|error| error.at == plain(&at)) {
                        self.error(&at, refused.found, refused.wanted);
                    }
                }
            }
            // A lookup by a parameter's value may fail with our values, but not with a device's.
            Err(error) if names.is_empty() => self.error(&error.at, error.reason.to_string(), "a value"),
            Err(_) => {}
        }
    }

    /// The path of the first policy with a property of this name.
    fn policy_at(&self, template: &Template, key: &str) -> String {
        let policy = template.policies.iter().find(|policy| match policy.policy {
            NamedOrInline::Named(_) => key == "PolicyName",
            NamedOrInline::Inline(_) => key == "PolicyDocument",
        });
        policy.map_or_else(|| key.to_owned(), |policy| format!("{}.{key}", policy.at))
    }
}

impl Template {
    /// Calls `show` with the name of every parameter that the template refers to, once per reference.
    fn each_reference<'a>(&'a self, show: &mut impl FnMut(&'a str)) {
        if let Some(thing) = &self.thing {
            let texts = [Some(&thing.name), thing.type_name.as_ref(), thing.billing_group.as_ref()];
            texts.into_iter().flatten().for_each(|text| text.each_reference(show));
            let members = thing.attributes.iter().flatten().chain(&thing.package_versions);
            members.for_each(|(_, text)| text.each_reference(show));
            thing.groups.iter().for_each(|groups| groups.each_reference(show));
        }
        use CertificateSource::{Id, Pem, SigningRequest};
        if let Some(Id(text) | Pem(text) | SigningRequest(text)) = &self.certificate.source {
            text.each_reference(show);
        }
        self.certificate.status.iter().for_each(|text| text.each_reference(show));
        for policy in &self.policies {
            match &policy.policy {
                NamedOrInline::Named(name) => name.each_reference(show),
                NamedOrInline::Inline(document) => document.each_reference(show),
            }
        }
        self.device_configuration.iter().for_each(|(_, value)| value.each_reference(show));
    }
}

fn is_constant(text: &Text) -> bool {
    let mut is_constant = true;
    text.each_reference(&mut |_| is_constant = false);
    is_constant
}

/// The minimum length of a document whatever its parameters are, in characters: that of its literals.
fn least_characters(document: &Document) -> usize {
    let long = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    match document {
        Document::Text(Text::Literal(text)) => long(text) + 2,
        Document::Text(_) => 2,
        Document::Plain(value) => value.to_string().len(),
        Document::Array(items) => {
            2 + items.iter().map(least_characters).sum::<usize>() + items.len().saturating_sub(1)
        }
        Document::Object(members) => {
            let member = |(name, value): &(String, Document)| long(name) + 3 + least_characters(value);
            2 + members.iter().map(member).sum::<usize>() + members.len().saturating_sub(1)
        }
    }
}
