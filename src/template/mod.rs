//! Provisioning templates: what RegisterThing makes of a certificate and its parameters.
//!
//! Owns the grammar, as far as fleet provisioning uses it, and its evaluation into a [`Plan`]. Does not touch the
//! registry: [`super::account`] carries the plan out. Source: AWS IoT Developer Guide, "Provisioning templates".
//!
//! Where the guide is silent the grammar here is strict, so that a mistake shows when the emulator starts: unknown
//! resource types and properties, references to parameters that are not declared, and a template without a certificate
//! are errors.

mod expression;
mod fit;
mod reader;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use expression::{Document, List, Scope, Text};

pub use fit::{Declared, Fit, Missing, declared_parameters, fit};

/// The largest template body, in characters (CreateProvisioningTemplate: 10240).
pub const MAX_BODY: usize = 10_240;

/// The parameters of one registration.
pub type Parameters<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// A template that was read and found right.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Declared parameters and their defaults.
    parameters: BTreeMap<String, Option<String>>,
    mappings: Mappings,
    thing: Option<ThingResource>,
    certificate: CertificateResource,
    policies: Vec<PolicyResource>,
    device_configuration: Vec<(String, Document)>,
}

/// Two-level lookup tables: map, top-level key, second-level key.
type Mappings = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

#[derive(Debug, Clone, PartialEq)]
struct ThingResource {
    name: Text,
    type_name: Option<Text>,
    attributes: Vec<(String, Text)>,
    groups: Option<List>,
    billing_group: Option<Text>,
    overrides: Overrides,
}

#[derive(Debug, Clone, PartialEq)]
struct CertificateResource {
    id: Option<Text>,
    status: Option<Text>,
}

#[derive(Debug, Clone, PartialEq)]
enum PolicyResource {
    Named(Text),
    Inline(Document),
}

/// What a template says of a thing that exists already; `None` is left to the account's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    /// For the attributes.
    pub attributes: Option<Override>,
    /// For the thing type.
    pub type_name: Option<Override>,
    /// For the groups.
    pub groups: Option<Override>,
}

/// What to do with a property of a thing that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// Keep what the thing has.
    DoNothing,
    /// Take the template's value.
    Replace,
    /// Refuse the registration.
    Fail,
    /// Add the template's attributes or groups to those the thing has.
    Merge,
}

/// What a registration is to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The thing, if the template has one.
    pub thing: Option<ThingPlan>,
    /// The `CertificateId` that the template gave; AWS's own is the token's.
    pub certificate_id: Option<String>,
    /// What becomes of the certificate.
    pub activation: Activation,
    /// The policies to attach to it.
    pub policies: Vec<PolicyPlan>,
    /// What the device is told.
    pub device_configuration: serde_json::Map<String, Value>,
}

/// The thing to make or find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThingPlan {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its groups; `None` where the template does not name any.
    pub groups: Option<Vec<String>>,
    /// Its billing group.
    pub billing_group: Option<String>,
    /// What to do if it exists.
    pub overrides: Overrides,
}

/// The status a registered certificate gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// ACTIVE, the default.
    Active,
    /// INACTIVE.
    Inactive,
}

/// A policy to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPlan {
    /// One that the account has.
    Named(String),
    /// This document, JSON: the service names it by a hash, so that equal documents share a policy.
    Inline(String),
}

/// Why a body is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: found {found}; wanted {wanted}")]
pub struct TemplateError {
    /// Where: the path of keys from the top, or line and column of broken JSON.
    pub at: String,
    /// What stands there.
    pub found: String,
    /// What should.
    pub wanted: String,
}

/// Why a template cannot be evaluated for these parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvaluationError {
    /// This parameter has neither value nor default.
    MissingParameter(String),
    /// A function found nothing; says which and why.
    Failed(String),
}

impl Template {
    /// Reads a template body.
    ///
    /// # Errors
    /// [`TemplateError`] for the first thing that is not in the grammar.
    pub fn parse(body: &str) -> Result<Self, TemplateError> {
        reader::read(body)
    }

    /// What registering the certificate `certificate_id` with `parameters` makes. Parameters that the template does not
    /// declare are ignored.
    ///
    /// # Errors
    /// [`EvaluationError`] if a parameter is missing or a function has no result.
    pub fn evaluate(
        &self,
        certificate_id: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Plan, EvaluationError> {
        let scope =
            Scope { certificate_id, given: parameters, declared: &self.parameters, mappings: &self.mappings };
        Ok(Plan {
            thing: self.thing.as_ref().map(|thing| thing.plan(&scope)).transpose()?,
            certificate_id: owned(self.certificate.id.as_ref(), &scope)?,
            activation: self.certificate.activation(&scope)?,
            policies: self.policies.iter().map(|policy| policy.plan(&scope)).collect::<Result<_, _>>()?,
            device_configuration: self
                .device_configuration
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.evaluate(&scope)?)))
                .collect::<Result<_, EvaluationError>>()?,
        })
    }
}

impl ThingResource {
    fn plan(&self, scope: &Scope<'_>) -> Result<ThingPlan, EvaluationError> {
        // The name first: if several parameters are missing, its own is the one to hear of.
        let name = self.name.evaluate(scope)?.into_owned();
        let mut attributes = BTreeMap::new();
        for (name, value) in &self.attributes {
            attributes.insert(name.clone(), value.evaluate(scope)?.into_owned());
        }
        let groups = match &self.groups {
            Some(groups) => Some(groups.evaluate(scope)?.into_iter().map(Cow::into_owned).collect()),
            None => None,
        };
        Ok(ThingPlan {
            name,
            type_name: owned(self.type_name.as_ref(), scope)?,
            attributes,
            groups,
            billing_group: owned(self.billing_group.as_ref(), scope)?,
            overrides: self.overrides,
        })
    }
}

impl CertificateResource {
    fn activation(&self, scope: &Scope<'_>) -> Result<Activation, EvaluationError> {
        let Some(status) = &self.status else { return Ok(Activation::Active) };
        let status = status.evaluate(scope)?;
        // Samples write "Active", the API model "ACTIVE".
        match &*status {
            text if text.eq_ignore_ascii_case("active") => Ok(Activation::Active),
            text if text.eq_ignore_ascii_case("inactive") => Ok(Activation::Inactive),
            text => Err(EvaluationError::Failed(format!("Status is {text}, not ACTIVE or INACTIVE"))),
        }
    }
}

impl PolicyResource {
    fn plan(&self, scope: &Scope<'_>) -> Result<PolicyPlan, EvaluationError> {
        Ok(match self {
            Self::Named(name) => PolicyPlan::Named(name.evaluate(scope)?.into_owned()),
            // A document may stand in the template as an object or as a string of JSON.
            Self::Inline(document) => PolicyPlan::Inline(match document.evaluate(scope)? {
                Value::String(text) => text,
                tree => tree.to_string(),
            }),
        })
    }
}

fn owned(text: Option<&Text>, scope: &Scope<'_>) -> Result<Option<String>, EvaluationError> {
    text.map(|text| text.evaluate(scope).map(Cow::into_owned)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: &str = include_str!("../../fixtures/templates/configured-device.json");
    const ID: &str = "c0ffee";

    fn parameters<'a>(pairs: &[(&'a str, &'a str)]) -> Parameters<'a> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    /// A template whose thing is named by `name`, JSON.
    fn named(name: &str) -> Result<Template, TemplateError> {
        Template::parse(&format!(
            r#"{{"Parameters": {{"A": {{"Type": "String"}}, "B": {{"Type": "String", "Default": "x,y"}}}},
                "Mappings": {{"M": {{"k": {{"v": "found"}}}}}},
                "Resources": {{
                  "t": {{"Type": "AWS::IoT::Thing", "Properties": {{"ThingName": {name}}}}},
                  "c": {{"Type": "AWS::IoT::Certificate", "Properties": {{}}}}}}}}"#
        ))
    }

    fn name_of(name: &str, given: &[(&str, &str)]) -> Result<String, EvaluationError> {
        let plan = named(name).unwrap().evaluate(ID, &parameters(given))?;
        Ok(plan.thing.unwrap().name)
    }

    #[test]
    fn a_whole_template_becomes_a_plan() {
        let template = Template::parse(CONFIGURED).unwrap();
        let plan = template.evaluate(ID, &parameters(&[("SerialNumber", "42"), ("Unheard", "of")])).unwrap();
        assert_eq!(
            plan.thing.unwrap(),
            ThingPlan {
                name: "device-42".into(),
                type_name: None,
                attributes: [("label".into(), "DEV:42".into()), ("second".into(), "b".into())].into(),
                groups: Some(vec!["all".into(), "dev".into()]),
                billing_group: Some("lot-1".into()),
                overrides: Overrides::default(),
            }
        );
        assert_eq!((plan.certificate_id.as_deref(), plan.activation), (Some(ID), Activation::Inactive));
        assert_eq!(
            serde_json::to_string(&plan.device_configuration).unwrap(),
            r#"{"Endpoint":"https://dev.example.com","Interval":30}"#
        );
        let document = concat!(
            r#"{"Statement":[{"Action":["iot:Publish"],"Effect":"Allow","#,
            r#""Resource":["arn:aws:iot:us-east-1:123456789012:topic/42"]}],"Version":"2012-10-17"}"#
        );
        assert_eq!(plan.policies, [PolicyPlan::Inline(document.into())]);
    }

    #[test]
    fn functions() {
        for (expression, expected) in [
            (r#""plain""#, "plain"),
            (r#"{"Ref": "A"}"#, "1"),
            (r#"{"Ref": "B"}"#, "x,y"),
            (r#"{"Ref": "AWS::IoT::Certificate::Id"}"#, ID),
            (r#"{"Fn::Join": ["-", ["a", {"Ref": "A"}, "c"]]}"#, "a-1-c"),
            (r#"{"Fn::Join": ["/", {"Fn::Split": [",", {"Ref": "B"}]}]}"#, "x/y"),
            (r#"{"Fn::Select": ["1", ["a", "b"]]}"#, "b"),
            (r#"{"Fn::Select": [0, {"Fn::Split": [",", {"Ref": "B"}]}]}"#, "x"),
            (r#"{"Fn::Select": [{"Ref": "A"}, ["a", "b"]]}"#, "b"),
            (r#"{"Fn::FindInMap": ["M", "k", "v"]}"#, "found"),
            (r#"{"Fn::Sub": "<${A}|${!A}|${B}>"}"#, "<1|${A}|x,y>"),
            (r#"{"Fn::Sub": ["${A}${Z}", {"Z": {"Fn::FindInMap": ["M", "k", "v"]}}]}"#, "1found"),
            (r#"{"Fn::Sub": "no end ${A"}"#, "no end ${A"),
        ] {
            assert_eq!(name_of(expression, &[("A", "1")]), Ok(expected.into()), "{expression}");
        }
    }

    #[test]
    fn a_function_without_a_result_says_which_and_why() {
        for (expression, expected) in [
            (r#"{"Fn::Select": ["2", ["a", "b"]]}"#, "Fn::Select: there is no element 2 in a list of 2"),
            (r#"{"Fn::Select": ["one", ["a", "b"]]}"#, "Fn::Select: one is not an index"),
            (r#"{"Fn::FindInMap": ["M", "k", {"Ref": "A"}]}"#, "Fn::FindInMap: nothing at M, k, 1"),
        ] {
            assert_eq!(name_of(expression, &[("A", "1")]), Err(EvaluationError::Failed(expected.into())));
        }
        let missing = name_of(r#"{"Fn::Join": ["-", ["a", {"Ref": "A"}]]}"#, &[("B", "1")]);
        assert_eq!(missing, Err(EvaluationError::MissingParameter("A".into())));
    }

    #[test]
    fn the_certificates_own_id_cannot_be_overridden() {
        let given = [("AWS::IoT::Certificate::Id", "forged")];
        assert_eq!(name_of(r#"{"Ref": "AWS::IoT::Certificate::Id"}"#, &given), Ok(ID.into()));
    }

    #[test]
    fn a_certificates_status_is_active_unless_said_otherwise() {
        let activation = |properties: &str| {
            let body = format!(
                r#"{{"Parameters": {{"S": {{"Type": "String"}}}},
                    "Resources": {{"c": {{"Type": "AWS::IoT::Certificate", "Properties": {properties}}}}}}}"#
            );
            Template::parse(&body)
                .unwrap()
                .evaluate(ID, &parameters(&[("S", "odd")]))
                .map(|plan| plan.activation)
        };
        assert_eq!(activation("{}"), Ok(Activation::Active));
        assert_eq!(activation(r#"{"Status": "Active"}"#), Ok(Activation::Active));
        assert_eq!(activation(r#"{"Status": "INACTIVE"}"#), Ok(Activation::Inactive));
        let failed = EvaluationError::Failed("Status is odd, not ACTIVE or INACTIVE".into());
        assert_eq!(activation(r#"{"Status": {"Ref": "S"}}"#), Err(failed));
    }

    #[test]
    fn a_policy_document_may_be_a_string() {
        let template = Template::parse(
            r#"{"Resources": {"c": {"Type": "AWS::IoT::Certificate"},
                "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": "{ \"Version\": \"2012-10-17\" }"}}}}"#,
        )
        .unwrap();
        let plan = template.evaluate(ID, &Parameters::new()).unwrap();
        assert_eq!(plan.policies, [PolicyPlan::Inline(r#"{ "Version": "2012-10-17" }"#.into())]);
        assert_eq!(plan.thing, None);
    }

    #[test]
    fn the_built_in_template_is_one() {
        let body = include_str!("../../fixtures/templates/temp-device.json");
        let template = Template::parse(body).unwrap();
        let overrides = template.thing.as_ref().unwrap().overrides;
        assert_eq!(overrides.attributes, Some(Override::Merge));
        assert_eq!(
            (overrides.type_name, overrides.groups),
            (Some(Override::Replace), Some(Override::DoNothing))
        );
    }
}
