//! The account's own view of what was registered, by AWS's client for the control plane.
//!
//! Owns [`Settler`], the question whether a certificate was registered, and its answer from DescribeCertificate and
//! ListPrincipalThings. Registers, changes and deletes nothing.

use aws_sdk_iot::error::SdkError;
use aws_sdk_iot::types::CertificateStatus;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::client::{AskError, AwsSettings, iot};
use crate::certificate::{CertificateId, RegisteredThing};

/// Answers whether a certificate was registered.
pub trait Settler: Send + Sync + 'static {
    /// Asks for `certificate`. Ends within a bound.
    fn settle<'a>(&'a self, certificate: &'a CertificateId) -> BoxFuture<'a, Settlement>;
}

/// What is known of a certificate's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is active (or inactive, if the template says so) and attached to this thing, or to none where the template has no
    /// thing: only a registration ends the wait for activation. The device configuration was in the answer that was lost,
    /// and is empty here.
    Registered(RegisteredThing),
    /// It still waits for its activation, or was deleted: no registration has happened.
    NotRegistered,
    /// Nobody could tell.
    Unsettled {
        /// Why not.
        detail: String,
    },
}

/// The control plane. Nothing is set up before the first question: most runs have none.
#[derive(Debug)]
pub struct ControlPlane {
    settings: AwsSettings,
    client: OnceCell<aws_sdk_iot::Client>,
}

impl ControlPlane {
    /// The control plane of `settings`. Touches no network.
    pub fn new(settings: AwsSettings) -> Self {
        Self { settings, client: OnceCell::new() }
    }

    async fn ask(&self, certificate: &CertificateId) -> Result<Settlement, String> {
        let client = self.client.get_or_try_init(async || iot(&self.settings)).await?;
        let described = client.describe_certificate().certificate_id(certificate.as_str()).send().await;
        let described = match described {
            Ok(described) => described.certificate_description,
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                return Ok(Settlement::NotRegistered);
            }
            Err(error) => return Err(AskError::of("DescribeCertificate", &error).to_string()),
        };
        let described = described.ok_or("DescribeCertificate: the answer describes nothing")?;
        match described.status() {
            Some(CertificateStatus::PendingActivation) => return Ok(Settlement::NotRegistered),
            Some(CertificateStatus::Active | CertificateStatus::Inactive) => {}
            other => return Err(format!("DescribeCertificate: the certificate's status is {other:?}")),
        }
        let arn = described.certificate_arn().ok_or("DescribeCertificate: the answer has no ARN")?;
        let listed = client.list_principal_things().principal(arn).send().await;
        let listed = listed.map_err(|error| AskError::of("ListPrincipalThings", &error).to_string())?;
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
            self.ask(certificate).await.unwrap_or_else(|detail| {
                tracing::warn!(%certificate, detail, "the control plane could not settle a registration");
                Settlement::Unsettled { detail }
            })
        })
    }
}
