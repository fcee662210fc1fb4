//! The account's own view of registrations, from the control plane.
//!
//! Owns [`Settler`], which tells whether a certificate was registered, and its answer from DescribeCertificate and
//! ListPrincipalThings. Registers, changes and deletes nothing.

use std::fmt;
use std::time::Duration;

use aws_sdk_iot::types::CertificateStatus;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::asking::ControlPlane;
use super::client::{AskError, OPERATION_TIMEOUT};
use crate::certificate::{CertificateId, RegisteredThing};

/// How long a run waits for both answers, throttles included.
const SETTLED_WITHIN: Duration = OPERATION_TIMEOUT.saturating_mul(2);

/// Tells whether a certificate was registered.
pub trait Settler: fmt::Debug + Send + Sync + 'static {
    /// Settles whether `certificate` was registered. Ends within a time limit.
    fn settle<'a>(&'a self, certificate: &'a CertificateId) -> BoxFuture<'a, Settlement>;
}

/// What is known of a certificate's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The certificate is active (or inactive, if the template says so) and attached to this thing, or to none if the
    /// template has no thing: only a registration ends the wait for activation. The device configuration is empty
    /// here, since it was in the lost answer.
    Registered(RegisteredThing),
    /// The certificate still waits for activation, or was deleted: no registration has happened.
    NotRegistered,
    /// It could not be determined.
    Unsettled {
        /// The reason.
        detail: String,
    },
}

impl ControlPlane {
    /// Whether this certificate was registered.
    async fn settlement(&self, certificate: &CertificateId) -> Result<Settlement, String> {
        let described = self
            .ask("DescribeCertificate", |client| {
                client.describe_certificate().certificate_id(certificate.as_str()).send()
            })
            .await;
        let described = match described {
            Ok(described) => described.certificate_description,
            Err(AskError::NotFound { .. }) => return Ok(Settlement::NotRegistered),
            Err(error) => return Err(error.to_string()),
        };
        let described = described.ok_or("DescribeCertificate: the answer describes nothing")?;
        match described.status() {
            Some(CertificateStatus::PendingActivation) => return Ok(Settlement::NotRegistered),
            Some(CertificateStatus::Active | CertificateStatus::Inactive) => {}
            other => return Err(format!("DescribeCertificate: the certificate's status is {other:?}")),
        }
        let arn = described.certificate_arn().ok_or("DescribeCertificate: the answer has no ARN")?;
        let listed = self
            .ask("ListPrincipalThings", |client| client.list_principal_things().principal(arn).send())
            .await
            .map_err(|error| error.to_string())?;
        match listed.things() {
            [] | [_] => Ok(Settlement::Registered(RegisteredThing {
                thing_name: listed.things().first().cloned().unwrap_or_default(),
                device_configuration: Default::default(),
            })),
            things => {
                Err(format!("ListPrincipalThings: the certificate is attached to {} things", things.len()))
            }
        }
    }
}

impl Settler for ControlPlane {
    fn settle<'a>(&'a self, certificate: &'a CertificateId) -> BoxFuture<'a, Settlement> {
        Box::pin(async move {
            let settled = timeout(SETTLED_WITHIN, self.settlement(certificate)).await;
            let settled = settled.unwrap_or_else(|_| Err(format!("no answer within {SETTLED_WITHIN:?}")));
            settled.unwrap_or_else(|detail| {
                tracing::warn!(%certificate, detail, "the control plane could not settle a registration");
                Settlement::Unsettled { detail }
            })
        })
    }
}
