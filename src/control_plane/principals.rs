//! What a device has in the account, and how to remove it: certificates, what they are attached to, and policies.
//!
//! Lists are read to their last page. Deleting what is already gone is an error ([`AskError::NotFound`]).

use aws_sdk_iot::types::CertificateStatus;

use super::asking::ControlPlane;
use super::client::AskError;

/// The most items of a page (AWS IoT API Reference: 250).
const PAGE: i32 = 250;

/// A certificate as the account has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedCertificate {
    /// Its ARN.
    pub arn: String,
    /// Its status, as the API writes it: `ACTIVE`.
    pub status: String,
    /// The certificate, PEM.
    pub pem: String,
}

impl ControlPlane {
    /// The certificate with this id. Needs `iot:DescribeCertificate`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn certificate(&self, id: &str) -> Result<DescribedCertificate, AskError> {
        let operation = "DescribeCertificate";
        let described =
            self.ask(operation, |client| client.describe_certificate().certificate_id(id).send()).await?;
        let missing = |what| AskError::empty(operation, what);
        let described = described.certificate_description.ok_or_else(|| missing("certificateDescription"))?;
        Ok(DescribedCertificate {
            arn: described.certificate_arn.ok_or_else(|| missing("certificateArn"))?,
            status: described.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            pem: described.certificate_pem.unwrap_or_default(),
        })
    }

    /// The names of the policies attached directly to a certificate. Needs `iot:ListAttachedPolicies`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn attached_policies(&self, arn: &str) -> Result<Vec<String>, AskError> {
        let (mut names, mut marker) = (Vec::new(), None);
        loop {
            let page = self
                .ask("ListAttachedPolicies", |client| {
                    let list = client.list_attached_policies().target(arn).page_size(PAGE);
                    list.set_marker(marker.clone()).send()
                })
                .await?;
            names.extend(page.policies.into_iter().flatten().filter_map(|policy| policy.policy_name));
            marker = page.next_marker.filter(|marker| !marker.is_empty());
            if marker.is_none() {
                return Ok(names);
            }
        }
    }

    /// The names of the things that a certificate is attached to. Needs `iot:ListPrincipalThings`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn principal_things(&self, arn: &str) -> Result<Vec<String>, AskError> {
        let (mut names, mut token) = (Vec::new(), None);
        loop {
            let page = self
                .ask("ListPrincipalThings", |client| {
                    let list = client.list_principal_things().principal(arn).max_results(PAGE);
                    list.set_next_token(token.clone()).send()
                })
                .await?;
            names.extend(page.things.into_iter().flatten());
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(names);
            }
        }
    }

    /// The ARNs of the principals attached to a thing. Needs `iot:ListThingPrincipals`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such thing.
    pub async fn thing_principals(&self, name: &str) -> Result<Vec<String>, AskError> {
        let (mut arns, mut token) = (Vec::new(), None);
        loop {
            let page = self
                .ask("ListThingPrincipals", |client| {
                    let list = client.list_thing_principals().thing_name(name).max_results(PAGE);
                    list.set_next_token(token.clone()).send()
                })
                .await?;
            arns.extend(page.principals.into_iter().flatten());
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(arns);
            }
        }
    }

    /// The names of the groups that a thing is directly in. Needs `iot:ListThingGroupsForThing`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such thing.
    pub async fn groups_of_thing(&self, name: &str) -> Result<Vec<String>, AskError> {
        let (mut names, mut token) = (Vec::new(), None);
        loop {
            let page = self
                .ask("ListThingGroupsForThing", |client| {
                    let list = client.list_thing_groups_for_thing().thing_name(name).max_results(PAGE);
                    list.set_next_token(token.clone()).send()
                })
                .await?;
            names.extend(page.thing_groups.into_iter().flatten().filter_map(|group| group.group_name));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(names);
            }
        }
    }

    /// The first ARN that a policy is attached to and that `is_wanted`. Needs `iot:ListTargetsForPolicy`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such policy.
    pub async fn policy_target(
        &self,
        policy: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, AskError> {
        let mut marker = None;
        loop {
            let page = self
                .ask("ListTargetsForPolicy", |client| {
                    let list = client.list_targets_for_policy().policy_name(policy).page_size(PAGE);
                    list.set_marker(marker.clone()).send()
                })
                .await?;
            let found = page.targets.into_iter().flatten().find(|target| is_wanted(target));
            marker = page.next_marker.filter(|marker| !marker.is_empty());
            if found.is_some() || marker.is_none() {
                return Ok(found);
            }
        }
    }

    /// Detaches a policy from a certificate. Needs `iot:DetachPolicy`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn detach_policy(&self, policy: &str, arn: &str) -> Result<(), AskError> {
        let detached =
            self.ask("DetachPolicy", |client| client.detach_policy().policy_name(policy).target(arn).send());
        detached.await.map(drop)
    }

    /// Detaches a certificate from a thing, which takes effect later. Needs `iot:DetachThingPrincipal`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such thing.
    pub async fn detach_principal(&self, thing: &str, arn: &str) -> Result<(), AskError> {
        let detached = self.ask("DetachThingPrincipal", |client| {
            client.detach_thing_principal().thing_name(thing).principal(arn).send()
        });
        detached.await.map(drop)
    }

    /// Makes a certificate inactive. Needs `iot:UpdateCertificate`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such certificate.
    pub async fn deactivate(&self, id: &str) -> Result<(), AskError> {
        let updated = self.ask("UpdateCertificate", |client| {
            client.update_certificate().certificate_id(id).new_status(CertificateStatus::Inactive).send()
        });
        updated.await.map(drop)
    }

    /// Deletes a certificate that is inactive and attached to nothing. Needs `iot:DeleteCertificate`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Rejected`] while it is active or anything is attached to it.
    pub async fn delete_certificate(&self, id: &str) -> Result<(), AskError> {
        let deleted =
            self.ask("DeleteCertificate", |client| client.delete_certificate().certificate_id(id).send());
        deleted.await.map(drop)
    }

    /// Deletes a thing that nothing is attached to, if it still has this version. Needs `iot:DeleteThing`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Rejected`] if anything is attached to it, or its version differs.
    pub async fn delete_thing(&self, name: &str, version: i64) -> Result<(), AskError> {
        let deleted = self.ask("DeleteThing", |client| {
            client.delete_thing().thing_name(name).expected_version(version).send()
        });
        deleted.await.map(drop)
    }

    /// Deletes a policy that is attached to nothing. Needs `iot:DeletePolicy`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Rejected`] if it is attached to anything, or has other versions.
    pub async fn delete_policy(&self, name: &str) -> Result<(), AskError> {
        let deleted = self.ask("DeletePolicy", |client| client.delete_policy().policy_name(name).send());
        deleted.await.map(drop)
    }
}
