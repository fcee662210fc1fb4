//! What a registration is to create: a template, evaluated with a certificate and its parameters.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use super::expression::{Document, Scope};
use super::{
    CertificateResource, CertificateSource, NamedOrInline, Overrides, Parameters, PolicyResource,
    PrincipalType, Template, ThingResource,
};
use crate::wording::plain;

/// What the service knows of the certificate: the parameters `AWS::IoT::Certificate::…`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CertificateFacts<'a> {
    /// Its id; `None` before there is a certificate.
    pub id: Option<&'a str>,
    /// The fields of its subject, such as `CommonName`.
    pub subject: Option<&'a BTreeMap<&'static str, String>>,
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
    pub(super) fn at(self, place: &str, key: &str) -> EvaluationError {
        EvaluationError { at: format!("{place}.{key}"), reason: self }
    }
}

pub(super) type Evaluated<T> = Result<T, EvaluationError>;

impl Template {
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
