//! Provisioning templates: what RegisterThing makes of a certificate and its parameters.
//!
//! Owns the grammar; `plan` evaluates it into a [`Plan`]. Nothing here touches a registry: the caller carries the plan
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
mod plan;
mod reader;
mod secrets;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::wording::plain;
use expression::{Document, List, Text};
use plan::Evaluated;

pub use dependence::Dependence;
pub use draft::{AccountPlace, Columns, Draft, DraftSettings, LeftOut, role_trust, run_policy};
pub use fit::{Declared, Fit, Missing, declared_parameters, fit};
pub use limits::{check_attribute_name, check_attribute_value, check_policy_document, check_thing_name};
pub use lint::{Lint, lint};
pub use plan::{Activation, CertificateFacts, EvaluationError, Plan, PolicyPlan, Reason, ThingPlan};
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
}

#[cfg(test)]
mod tests;
