//! What a device should have, by its template and its row.

use std::collections::{BTreeMap, BTreeSet};

use crate::template::{
    Activation, CertificateFacts, Dependence, EvaluationError, Parameters, PolicyPlan, Template,
};

/// The expected value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected<T> {
    /// This value.
    Known(T),
    /// Unknown, because the template's pre-provisioning hook may have changed it.
    NotCheckable,
}

/// What a device should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its thing, if the template has one.
    pub thing: Option<WantedThing>,
    /// The status of its certificate: `ACTIVE` or `INACTIVE`.
    pub status: Expected<&'static str>,
    /// The policies that are attached to it.
    pub policies: Vec<Expected<WantedPolicy>>,
}

/// The thing of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedThing {
    /// Its name.
    pub name: Expected<String>,
    /// Its type, if it has one.
    pub type_name: Expected<Option<String>>,
    /// Its attributes.
    pub attributes: Expected<BTreeMap<String, Expected<String>>>,
    /// Its groups; `None` if the template names none, so that any are accepted.
    pub groups: Expected<Option<BTreeSet<String>>>,
    /// Its billing group, if it has one.
    pub billing_group: Expected<Option<String>>,
}

/// A policy of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPolicy {
    /// An existing policy of this name.
    Named(String),
    /// A policy with this JSON document, which the template carries.
    Inline(String),
}

/// What the evaluation needs besides the template.
#[derive(Debug, Clone, Copy)]
pub struct Wanting<'a> {
    /// The device's certificate.
    pub certificate: CertificateFacts<'a>,
    /// The parameters that were sent for it.
    pub parameters: &'a Parameters<'a>,
    /// Whether the template has a pre-provisioning hook, which may have given parameters other values.
    pub has_hook: bool,
}

impl<T> Expected<T> {
    fn unless(depends: bool, value: T) -> Self {
        if depends { Self::NotCheckable } else { Self::Known(value) }
    }

    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::NotCheckable => None,
        }
    }
}

impl Wanted {
    /// The names of the properties that cannot be checked.
    pub fn not_checkable(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |name: &str, is_known: bool| {
            if !is_known {
                names.push(name.to_owned());
            }
        };
        if let Some(thing) = &self.thing {
            add("thing name", thing.name.known().is_some());
            add("thing type", thing.type_name.known().is_some());
            add("attributes", thing.attributes.known().is_some());
            for (name, value) in thing.attributes.known().into_iter().flatten() {
                add(&format!("attribute {name}"), value.known().is_some());
            }
            add("thing groups", thing.groups.known().is_some());
            add("billing group", thing.billing_group.known().is_some());
        }
        add("certificate status", self.status.known().is_some());
        add("policies", self.policies.iter().all(|policy| policy.known().is_some()));
        names
    }
}

impl Wanted {
    /// Whether some of it cannot be checked, and nothing else has a value to compare with: a device that does not
    /// differ from that has been compared with nothing.
    pub fn is_nothing_known(&self) -> bool {
        let has_thing_value = self.thing.as_ref().is_some_and(|thing| {
            thing.name.known().is_some()
                || matches!(thing.type_name, Expected::Known(Some(_)))
                || matches!(thing.groups, Expected::Known(Some(_)))
                || matches!(thing.billing_group, Expected::Known(Some(_)))
                || thing.attributes.known().into_iter().flatten().any(|(_, value)| value.known().is_some())
        });
        let has_policy = self.policies.iter().any(|policy| policy.known().is_some());
        !has_thing_value && !has_policy && !self.not_checkable().is_empty()
    }
}

/// What `template` makes of a device.
///
/// # Errors
/// [`EvaluationError`] if the template cannot be evaluated with these parameters.
pub fn wanted(template: &Template, wanting: &Wanting<'_>) -> Result<Wanted, EvaluationError> {
    let plan = template.evaluate(wanting.certificate, wanting.parameters)?;
    let depends = if wanting.has_hook { template.dependence() } else { Dependence::default() };
    let thing = plan.thing.map(|thing| WantedThing {
        name: Expected::unless(depends.thing_name, thing.name),
        type_name: Expected::unless(depends.type_name, thing.type_name),
        attributes: Expected::Known(
            thing
                .attributes
                .into_iter()
                .flatten()
                .map(|(name, value)| {
                    let depends = depends.attributes.contains(&name);
                    (name, Expected::unless(depends, value))
                })
                .collect(),
        ),
        groups: Expected::unless(depends.groups, thing.groups.map(|groups| groups.into_iter().collect())),
        billing_group: Expected::unless(depends.billing_group, thing.billing_group),
    });
    let status = match plan.activation {
        Activation::Active => "ACTIVE",
        Activation::Inactive => "INACTIVE",
    };
    let policies = plan.policies.into_iter().enumerate().map(|(at, policy)| {
        let depends = depends.policies.get(at).copied().unwrap_or_default();
        let policy = match policy {
            PolicyPlan::Named(name) => WantedPolicy::Named(name),
            PolicyPlan::Inline(document) => WantedPolicy::Inline(document),
        };
        Expected::unless(depends, policy)
    });
    Ok(Wanted { thing, status: Expected::unless(depends.status, status), policies: policies.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{
        "Parameters": {"Serial": {"Type": "String"}, "Site": {"Type": "String", "Default": "north"},
                       "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                "ThingName": {"Fn::Join": ["-", ["dev", {"Ref": "Serial"}]]},
                "ThingTypeName": "Meter",
                "AttributePayload": {"serial": {"Ref": "Serial"}, "maker": "us", "site": {"Ref": "Site"}},
                "ThingGroups": ["all", "new"]}},
            "certificate": {"Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "Shared"}},
            "own": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument":
                {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect",
                 "Resource": {"Fn::Sub": "arn:aws:iot:eu-west-1:1:client/${Serial}"}}]}}}}}"#;

    fn wanting(has_hook: bool) -> Wanted {
        let template = Template::parse(BODY).unwrap();
        let parameters = [("Serial".into(), "42".into())].into();
        let certificate = CertificateFacts { id: Some("c0ffee"), subject: None };
        wanted(&template, &Wanting { certificate, parameters: &parameters, has_hook }).unwrap()
    }

    #[test]
    fn the_template_and_the_row_say_what_there_should_be() {
        use Expected::Known;
        let document = r#"{"Statement":[{"Action":"iot:Connect","Effect":"Allow","Resource":"arn:aws:iot:eu-west-1:1:client/42"}],"Version":"2012-10-17"}"#;
        let known = |text: &str| Known(text.to_owned());
        assert_eq!(
            wanting(false),
            Wanted {
                thing: Some(WantedThing {
                    name: known("dev-42"),
                    type_name: Known(Some("Meter".into())),
                    attributes: Known(
                        [("maker", "us"), ("serial", "42"), ("site", "north")]
                            .map(|(name, value)| (name.to_owned(), known(value)))
                            .into()
                    ),
                    groups: Known(Some(["all", "new"].map(String::from).into())),
                    billing_group: Known(None),
                }),
                status: Known("ACTIVE"),
                // In the order of their keys in the template.
                policies: vec![
                    Known(WantedPolicy::Inline(document.into())),
                    Known(WantedPolicy::Named("Shared".into())),
                ],
            }
        );
        assert!(wanting(false).not_checkable().is_empty());
    }

    #[test]
    fn where_a_hook_can_change_every_value_nothing_is_known() {
        let nothing = |template: &str| {
            let parameters = [("Serial".into(), "42".into())].into();
            let certificate = CertificateFacts { id: Some("c0ffee"), subject: None };
            let wanting = Wanting { certificate, parameters: &parameters, has_hook: true };
            wanted(&Template::parse(template).unwrap(), &wanting).unwrap().is_nothing_known()
        };
        let thing = r#"{"Parameters": {"Serial": {"Type": "String"}}, "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "Active"}}}}"#;
        assert!(nothing(thing));
        assert!(!nothing(&thing.replace(r#"{"Ref": "Serial"}"#, r#""same""#)));
        assert!(!nothing(BODY), "the type, an attribute and a policy depend on no parameter");
    }

    #[test]
    fn what_a_hook_can_change_is_not_checkable_and_what_it_cannot_is() {
        let wanted = wanting(true);
        assert_eq!(
            wanted.not_checkable(),
            ["thing name", "attribute serial", "attribute site", "policies"].map(String::from)
        );
        let thing = wanted.thing.unwrap();
        assert_eq!(thing.attributes.known().unwrap()["maker"], Expected::Known("us".into()));
        assert_eq!(thing.type_name, Expected::Known(Some("Meter".into())));
        assert_eq!(wanted.status, Expected::Known("ACTIVE"));
        assert_eq!(wanted.policies[1], Expected::Known(WantedPolicy::Named("Shared".into())));
    }
}
