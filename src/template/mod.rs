//! Provisioning templates: what RegisterThing makes of a certificate and its parameters.
//!
//! Owns the grammar, and its evaluation into a [`Plan`]. Nothing here touches a registry: the caller carries the plan
//! out.
//!
//! Source: AWS IoT Developer Guide, "Provisioning templates".
//!
//! Where the guide is silent, the grammar is strict, so that a mistake shows before a device meets it: unknown resource
//! types and properties, references to undeclared parameters, and a template without a certificate are errors.

mod dependence;
mod draft;
mod expression;
mod fit;
mod limits;
mod lint;
mod reader;
mod secrets;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::wording::plain;
use expression::{Document, List, Scope, Text};

pub use dependence::Dependence;
pub use draft::{AccountPlace, Columns, Draft, DraftSettings, LeftOut, role_trust, run_policy};
pub use fit::{Declared, Fit, Missing, declared_parameters, fit};
pub use limits::{check_attribute_name, check_attribute_value, check_policy_document, check_thing_name};
pub use lint::{Lint, lint};
pub use reader::body_of;
pub use secrets::looks_secret;

/// The parameters of one registration.
pub type Parameters<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// A template that was parsed and found valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Declared parameters and their defaults.
    parameters: BTreeMap<String, Option<String>>,
    mappings: Mappings,
    thing: Option<ThingResource>,
    certificate: CertificateResource,
    policies: Vec<PolicyResource>,
    device_configuration: Vec<(String, Document)>,
    reads_subject: bool,
}

/// Two-level lookup tables: map, top-level key, second-level key.
type Mappings = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

#[derive(Debug, Clone, PartialEq)]
struct ThingResource {
    /// The path of its properties.
    at: String,
    name: Text,
    type_name: Option<Text>,
    attributes: Option<Vec<(String, Text)>>,
    groups: Option<List>,
    billing_group: Option<Text>,
    package_versions: Vec<(String, Text)>,
    overrides: Overrides,
}

#[derive(Debug, Clone, PartialEq)]
struct CertificateResource {
    at: String,
    source: Option<CertificateSource<Text>>,
    status: Option<Text>,
    principal_type: PrincipalType,
}

#[derive(Debug, Clone, PartialEq)]
struct PolicyResource {
    at: String,
    policy: NamedOrInline,
}

#[derive(Debug, Clone, PartialEq)]
enum NamedOrInline {
    Named(Text),
    Inline(Document),
}

/// Which certificate a template is about. Only `Id` can be used with a fleet provisioning template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource<T> {
    /// `CertificateId`: an existing certificate.
    Id(T),
    /// `CertificateSigningRequest`: a certificate to be created.
    SigningRequest(T),
    /// `CertificatePem`: a certificate to be registered.
    Pem(T),
}

/// How a certificate is attached to its thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrincipalType {
    /// `EXCLUSIVE_THING`: to this thing and no other.
    Exclusive,
    /// `NON_EXCLUSIVE_THING`, the default.
    #[default]
    NonExclusive,
}

/// What the service knows of the certificate: the parameters `AWS::IoT::Certificate::…`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CertificateFacts<'a> {
    /// Its id; `None` before there is a certificate.
    pub id: Option<&'a str>,
    /// The fields of its subject, such as `CommonName`.
    pub subject: Option<&'a BTreeMap<&'static str, String>>,
}

/// What a template says about a thing that already exists; `None` leaves it to the account's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    /// For the attributes.
    pub attributes: Option<Override>,
    /// For the thing type.
    pub type_name: Option<Override>,
    /// For the groups.
    pub groups: Option<Override>,
}

/// What to do with a property of a thing that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// Keep what the thing has.
    DoNothing,
    /// Take the template's value.
    Replace,
    /// Refuse the registration.
    Fail,
    /// Add the template's attributes or groups to the thing's own.
    Merge,
}

/// What a registration is to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The thing, if the template has one.
    pub thing: Option<ThingPlan>,
    /// The certificate that the template names; `None` leaves it to the ownership token.
    pub certificate: Option<CertificateSource<String>>,
    /// The status that the certificate gets.
    pub activation: Activation,
    /// How it is attached to the thing.
    pub principal_type: PrincipalType,
    /// The policies to attach to it.
    pub policies: Vec<PolicyPlan>,
    /// What the device is told.
    pub device_configuration: serde_json::Map<String, Value>,
}

/// The thing to create or find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThingPlan {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_name: Option<String>,
    /// Its attributes; `None` if the template has no attribute payload.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Its groups; `None` if the template names none.
    pub groups: Option<Vec<String>>,
    /// Its billing group.
    pub billing_group: Option<String>,
    /// Its software packages and their versions.
    pub package_versions: BTreeMap<String, String>,
    /// What to do if it already exists.
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
    /// An existing policy of this name.
    Named(String),
    /// A policy with this JSON document. The service names it by a hash, so that equal documents share a policy.
    Inline(String),
}

/// Why a body is not a valid template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: found {found}; wanted {wanted}")]
pub struct TemplateError {
    /// The path of keys from the top, or the line and column of malformed JSON.
    pub at: String,
    /// What was found there.
    pub found: String,
    /// What was expected.
    pub wanted: String,
}

impl TemplateError {
    /// What is found in a template, or in what is made of it, is shown without characters that a terminal would act on.
    fn new(at: &str, found: &str, wanted: &str) -> Self {
        Self { at: plain(at), found: plain(found), wanted: plain(wanted) }
    }
}

/// Why a template cannot be evaluated with these parameters, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", plain(.at))]
pub struct EvaluationError {
    /// The path of keys from the top.
    pub at: String,
    /// What is wrong.
    pub reason: Reason,
}

/// The reason why an evaluation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// This parameter has neither a value nor a default.
    #[error("parameter {} has neither a value nor a default", plain(.0))]
    MissingParameter(String),
    /// A function has no result; the text says which function, and why.
    #[error("{}", plain(.0))]
    Failed(String),
}

impl Reason {
    fn at(self, place: &str, key: &str) -> EvaluationError {
        EvaluationError { at: format!("{place}.{key}"), reason: self }
    }
}

type Evaluated<T> = Result<T, EvaluationError>;

impl Template {
    /// Parses a template's body.
    ///
    /// # Errors
    /// [`TemplateError`] for the first violation of the grammar.
    pub fn parse(body: &str) -> Result<Self, TemplateError> {
        reader::read(body)
    }

    /// Checks that the template can be used for fleet provisioning, where the certificate is the ownership token's.
    ///
    /// # Errors
    /// [`TemplateError`] if the template provides a certificate of its own.
    pub fn check_for_fleets(&self) -> Result<(), TemplateError> {
        use CertificateSource::{Id, Pem, SigningRequest};
        let found = match &self.certificate.source {
            None | Some(Id(_)) => return Ok(()),
            Some(SigningRequest(_)) => "CertificateSigningRequest",
            Some(Pem(_)) => "CertificatePem",
        };
        Err(TemplateError::new(
            &self.certificate.at,
            found,
            "CertificateId, the only one that a fleet provisioning template can use",
        ))
    }

    /// Whether the template refers to the certificate's subject.
    pub fn reads_subject(&self) -> bool {
        self.reads_subject
    }

    /// What registering a certificate with `parameters` creates. Parameters that the template does not declare are
    /// ignored.
    ///
    /// # Errors
    /// [`EvaluationError`] if a parameter is missing or a function has no result.
    pub fn evaluate(
        &self,
        certificate: CertificateFacts<'_>,
        parameters: &Parameters<'_>,
    ) -> Evaluated<Plan> {
        let scope = Scope {
            certificate,
            given: parameters,
            declared: &self.parameters,
            mappings: &self.mappings,
            used: Cell::new(0),
        };
        // The thing's name comes first: if several parameters are missing, the error should name that one.
        let thing = self.thing.as_ref().map(|thing| thing.plan(&scope)).transpose()?;
        let configured = |(name, value): &(String, Document)| {
            let value = value.evaluate(&scope).map_err(|reason| reason.at("DeviceConfiguration", name))?;
            Ok((name.clone(), value))
        };
        Ok(Plan {
            thing,
            certificate: self.certificate.source(&scope)?,
            activation: self.certificate.activation(&scope)?,
            principal_type: self.certificate.principal_type,
            policies: self.policies.iter().map(|policy| policy.plan(&scope)).collect::<Evaluated<_>>()?,
            device_configuration: self
                .device_configuration
                .iter()
                .map(configured)
                .collect::<Evaluated<_>>()?,
        })
    }
}

impl ThingResource {
    fn plan(&self, scope: &Scope<'_>) -> Evaluated<ThingPlan> {
        let name = scope.text(&self.at, "ThingName", &self.name)?;
        let attributes = match &self.attributes {
            Some(attributes) => Some(scope.map(&self.at, "AttributePayload", attributes)?),
            None => None,
        };
        let groups = match &self.groups {
            Some(groups) => {
                let groups = groups.evaluate(scope).map_err(|reason| reason.at(&self.at, "ThingGroups"))?;
                Some(groups.into_iter().map(Cow::into_owned).collect())
            }
            None => None,
        };
        Ok(ThingPlan {
            name,
            type_name: scope.optional(&self.at, "ThingTypeName", self.type_name.as_ref())?,
            attributes,
            groups,
            billing_group: scope.optional(&self.at, "BillingGroup", self.billing_group.as_ref())?,
            package_versions: scope.map(&self.at, "PackageVersions", &self.package_versions)?,
            overrides: self.overrides,
        })
    }
}

impl CertificateResource {
    fn source(&self, scope: &Scope<'_>) -> Evaluated<Option<CertificateSource<String>>> {
        use CertificateSource::{Id, Pem, SigningRequest};
        Ok(match &self.source {
            None => None,
            Some(Id(text)) => Some(Id(scope.text(&self.at, "CertificateId", text)?)),
            Some(SigningRequest(text)) => {
                Some(SigningRequest(scope.text(&self.at, "CertificateSigningRequest", text)?))
            }
            Some(Pem(text)) => Some(Pem(scope.text(&self.at, "CertificatePem", text)?)),
        })
    }

    fn activation(&self, scope: &Scope<'_>) -> Evaluated<Activation> {
        // Samples write "Active", the API model "ACTIVE".
        match scope.optional(&self.at, "Status", self.status.as_ref())?.as_deref() {
            None => Ok(Activation::Active),
            Some(text) if text.eq_ignore_ascii_case("active") => Ok(Activation::Active),
            Some(text) if text.eq_ignore_ascii_case("inactive") => Ok(Activation::Inactive),
            Some(text) => {
                Err(Reason::Failed(format!("{text} is not ACTIVE or INACTIVE")).at(&self.at, "Status"))
            }
        }
    }
}

impl PolicyResource {
    fn plan(&self, scope: &Scope<'_>) -> Evaluated<PolicyPlan> {
        Ok(match &self.policy {
            NamedOrInline::Named(name) => PolicyPlan::Named(scope.text(&self.at, "PolicyName", name)?),
            NamedOrInline::Inline(document) => {
                let tree =
                    document.evaluate(scope).map_err(|reason| reason.at(&self.at, "PolicyDocument"))?;
                // The template may contain a document as an object or as a string of JSON.
                PolicyPlan::Inline(match tree {
                    Value::String(text) => text,
                    tree => tree.to_string(),
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: &str = include_str!("../../fixtures/templates/configured-device.json");
    const ID: &str = "c0ffee";

    fn facts() -> CertificateFacts<'static> {
        CertificateFacts { id: Some(ID), subject: None }
    }

    fn parameters<'a>(pairs: &[(&'a str, &'a str)]) -> Parameters<'a> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    /// A template whose thing name is the JSON expression `name`.
    fn named(name: &str) -> Result<Template, TemplateError> {
        Template::parse(&format!(
            r#"{{"Parameters": {{"A": {{"Type": "String"}}, "B": {{"Type": "String", "Default": "x,y"}}}},
                "Mappings": {{"M": {{"k": {{"v": "found"}}}}}},
                "Resources": {{
                  "t": {{"Type": "AWS::IoT::Thing", "Properties": {{"ThingName": {name}}}}},
                  "c": {{"Type": "AWS::IoT::Certificate", "Properties": {{}}}}}}}}"#
        ))
    }

    fn name_of(name: &str, given: &[(&str, &str)]) -> Result<String, Reason> {
        let plan = named(name).unwrap().evaluate(facts(), &parameters(given));
        Ok(plan.map_err(|error| error.reason)?.thing.unwrap().name)
    }

    #[test]
    fn a_whole_template_becomes_a_plan() {
        let template = Template::parse(CONFIGURED).unwrap();
        let plan =
            template.evaluate(facts(), &parameters(&[("SerialNumber", "42"), ("Unheard", "of")])).unwrap();
        assert_eq!(
            plan.thing.unwrap(),
            ThingPlan {
                name: "device-42".into(),
                type_name: None,
                attributes: Some([("label".into(), "DEV:42".into()), ("second".into(), "b".into())].into()),
                groups: Some(vec!["all".into(), "dev".into()]),
                billing_group: Some("lot-1".into()),
                package_versions: BTreeMap::new(),
                overrides: Overrides::default(),
            }
        );
        assert_eq!(plan.certificate, Some(CertificateSource::Id(ID.into())));
        assert_eq!(plan.activation, Activation::Inactive);
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
            assert_eq!(name_of(expression, &[("A", "1")]), Err(Reason::Failed(expected.into())));
        }
        let missing = name_of(r#"{"Fn::Join": ["-", ["a", {"Ref": "A"}]]}"#, &[("B", "1")]);
        assert_eq!(missing, Err(Reason::MissingParameter("A".into())));
    }

    #[test]
    fn the_certificates_own_id_cannot_be_overridden() {
        let given = [("AWS::IoT::Certificate::Id", "forged")];
        assert_eq!(name_of(r#"{"Ref": "AWS::IoT::Certificate::Id"}"#, &given), Ok(ID.into()));
    }

    #[test]
    fn a_subject_is_the_certificates_and_else_the_default() {
        let body = r#"{"Parameters": {"AWS::IoT::Certificate::Country": {"Type": "String", "Default": "none"}},
            "Resources": {
              "t": {"Type": "AWS::IoT::Thing", "Properties": {
                "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
                "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}}}},
              "c": {"Type": "AWS::IoT::Certificate"}}}"#;
        let template = Template::parse(body).unwrap();
        let subject = [("CommonName", String::from("cn-1"))].into();
        let of = |subject| CertificateFacts { id: Some(ID), subject };
        let thing = template.evaluate(of(Some(&subject)), &Parameters::new()).unwrap().thing.unwrap();
        assert_eq!((thing.name.as_str(), &thing.attributes.unwrap()["country"][..]), ("cn-1", "none"));
        let missing = template.evaluate(of(None), &Parameters::new()).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "Resources.t.Properties.ThingName: parameter AWS::IoT::Certificate::CommonName has neither a value nor a \
             default"
        );
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
                .evaluate(facts(), &parameters(&[("S", "odd")]))
                .map(|plan| plan.activation)
        };
        assert_eq!(activation("{}"), Ok(Activation::Active));
        assert_eq!(activation(r#"{"Status": "Active"}"#), Ok(Activation::Active));
        assert_eq!(activation(r#"{"Status": "INACTIVE"}"#), Ok(Activation::Inactive));
        let failed = activation(r#"{"Status": {"Ref": "S"}}"#).unwrap_err().to_string();
        assert_eq!(failed, "Resources.c.Properties.Status: odd is not ACTIVE or INACTIVE");
    }

    #[test]
    fn a_policy_document_may_be_a_string() {
        let template = Template::parse(
            r#"{"Resources": {"c": {"Type": "AWS::IoT::Certificate"},
                "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": "{ \"Version\": \"2012-10-17\" }"}}}}"#,
        )
        .unwrap();
        let plan = template.evaluate(facts(), &Parameters::new()).unwrap();
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
