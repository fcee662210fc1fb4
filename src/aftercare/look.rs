//! Reads what the account has for a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{join_all, try_join, try_join_all};

use super::inspection::{Expected, Seen, SeenCertificate, SeenPolicy, SeenThing, Wanted, WantedPolicy};
use crate::certificate::PemBlock;
use crate::control_plane::{AskError, ControlPlane};
use crate::ledger::MadeCertificate;

/// How many policy documents are cached: the devices of a template usually share a few.
const DOCUMENTS: usize = 256;

/// Reads from the account, and caches policy documents.
pub(super) struct Looker {
    control_plane: Arc<ControlPlane>,
    /// Policy documents, by policy name.
    documents: Mutex<HashMap<String, String>>,
}

/// What to look up for a device.
pub(super) struct Subject<'a> {
    /// The name of its thing, if it has one.
    pub(super) thing: Option<&'a str>,
    /// Its certificates.
    pub(super) certificates: &'a [&'a MadeCertificate],
    /// What it should be like, if that is known.
    pub(super) wanted: Option<&'a Wanted>,
}

impl Looker {
    pub(super) fn new(control_plane: Arc<ControlPlane>) -> Self {
        Self { control_plane, documents: Mutex::default() }
    }

    /// What the account has for `subject`. Something missing is not an error.
    pub(super) async fn look(&self, subject: &Subject<'_>) -> Result<Seen, AskError> {
        let certificates = subject.certificates.iter().map(|made| self.certificate(made, subject.wanted));
        let thing = self.thing(subject);
        let (thing, certificates) = try_join(thing, try_join_all(certificates)).await?;
        Ok(Seen { thing, certificates: certificates.into_iter().flatten().collect() })
    }

    async fn thing(&self, subject: &Subject<'_>) -> Result<Option<SeenThing>, AskError> {
        let Some(name) = subject.thing else { return Ok(None) };
        let Some(thing) = there(self.control_plane.thing(name).await)? else { return Ok(None) };
        let wants_groups = subject
            .wanted
            .and_then(|wanted| wanted.thing.as_ref())
            .is_some_and(|thing| matches!(thing.groups, Expected::Known(Some(_))));
        let groups = async {
            if !wants_groups {
                return Ok(None);
            }
            there(self.control_plane.groups_of_thing(name).await)
        };
        let principals = async { there(self.control_plane.thing_principals(name).await) };
        let (groups, principals) = try_join(groups, principals).await?;
        Ok(Some(SeenThing {
            name: thing.name,
            type_name: thing.type_name,
            attributes: thing.attributes,
            billing_group: thing.billing_group,
            version: thing.version,
            groups,
            principals: principals.unwrap_or_default(),
        }))
    }

    async fn certificate(
        &self,
        made: &MadeCertificate,
        wanted: Option<&Wanted>,
    ) -> Result<Option<SeenCertificate>, AskError> {
        let id = made.id.as_str();
        let Some(described) = there(self.control_plane.certificate(id).await)? else { return Ok(None) };
        let policies = async { there(self.control_plane.attached_policies(&described.arn).await) };
        let things = async { there(self.control_plane.principal_things(&described.arn).await) };
        let (policies, things) = try_join(policies, things).await?;
        let policies = policies.unwrap_or_default().into_iter().map(|name| self.policy(name, wanted));
        let policies: Result<Vec<_>, AskError> = join_all(policies).await.into_iter().collect();
        Ok(Some(SeenCertificate {
            id: id.to_owned(),
            is_as_recorded: is_same_certificate(&made.pem, &described.pem),
            arn: described.arn,
            status: described.status,
            policies: policies?,
            things: things.unwrap_or_default(),
        }))
    }

    /// Asks for the document only if it is needed to recognize a policy that the template carries inline.
    async fn policy(&self, name: String, wanted: Option<&Wanted>) -> Result<SeenPolicy, AskError> {
        let known = || wanted.into_iter().flat_map(|wanted| &wanted.policies).filter_map(Expected::known);
        let is_named = known().any(|policy| matches!(policy, WantedPolicy::Named(wanted) if *wanted == name));
        let has_inline = known().any(|policy| matches!(policy, WantedPolicy::Inline(_)));
        let document = if has_inline && !is_named { self.document(&name).await? } else { None };
        Ok(SeenPolicy { name, document })
    }

    /// The document of a policy; `None` if the policy is gone.
    pub(super) async fn document(&self, name: &str) -> Result<Option<String>, AskError> {
        let remembered = || self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = remembered().get(name) {
            return Ok(Some(document.clone()));
        }
        let document = there(self.control_plane.policy(name).await)?;
        if let Some(document) = &document {
            let mut documents = remembered();
            if documents.len() < DOCUMENTS {
                documents.insert(name.to_owned(), document.clone());
            }
        }
        Ok(document)
    }
}

/// Turns "not found" into `None`.
pub(super) fn there<T>(answer: Result<T, AskError>) -> Result<Option<T>, AskError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(AskError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares the DER contents, because PEM can be wrapped in different ways.
fn is_same_certificate(recorded: &str, found: &str) -> bool {
    match (PemBlock::read(recorded), PemBlock::read(found)) {
        (Ok(recorded), Ok(found)) => recorded.der == found.der,
        _ => recorded.trim() == found.trim(),
    }
}
