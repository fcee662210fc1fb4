//! The account's own view of what was registered, by AWS's client for the control plane.
//!
//! Owns [`Settler`], the question whether a certificate was registered, and its answer from DescribeCertificate and
//! ListPrincipalThings. Registers, changes and deletes nothing.

use std::time::Duration;

use aws_sdk_iot::config::retry::RetryConfig;
use aws_sdk_iot::config::timeout::TimeoutConfig;
use aws_sdk_iot::config::{BehaviorVersion, Credentials as SdkCredentials, Region};
use aws_sdk_iot::error::{DisplayErrorContext, SdkError};
use aws_sdk_iot::types::CertificateStatus;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::certificate::{CertificateId, RegisteredThing};
use crate::sigv4::Credentials;
use crate::wording::clean;

/// Answers whether a certificate was registered.
pub trait Settler: Send + Sync + 'static {
    /// Asks for `certificate`. Ends within a bound.
    fn settle<'a>(&'a self, certificate: &'a CertificateId) -> BoxFuture<'a, Settlement>;
}

/// What is known of a certificate's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is active (or inactive, if the template says so) and attached to this thing. The device configuration was in
    /// the answer that was lost, and is empty here.
    Registered(RegisteredThing),
    /// It still waits for its activation, or was deleted: no registration has happened.
    NotRegistered,
    /// Nobody could tell.
    Unsettled {
        /// Why not.
        detail: String,
    },
}

/// Where and how to reach the control plane.
#[derive(Debug, Clone)]
pub struct ControlPlaneSettings {
    /// `https://…`; none for the region's own, `https://iot.<region>.amazonaws.com`.
    pub endpoint_url: Option<String>,
    /// The region to sign for.
    pub region: String,
    /// What to sign with.
    pub credentials: Credentials,
    /// Certificate authorities to trust beside the system's: PEM. Empty for none.
    pub extra_roots: Vec<u8>,
}

/// The control plane. Nothing is set up before the first question: most runs have none.
#[derive(Debug)]
pub struct ControlPlane {
    settings: ControlPlaneSettings,
    client: OnceCell<aws_sdk_iot::Client>,
}

/// One request, all its retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

impl ControlPlane {
    /// The control plane of `settings`. Touches no network.
    pub fn new(settings: ControlPlaneSettings) -> Self {
        Self { settings, client: OnceCell::new() }
    }

    async fn ask(&self, certificate: &CertificateId) -> Result<Settlement, String> {
        let client = self.client.get_or_try_init(async || connect(&self.settings)).await?;
        let described = client.describe_certificate().certificate_id(certificate.as_str()).send().await;
        let described = match described {
            Ok(described) => described.certificate_description,
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                return Ok(Settlement::NotRegistered);
            }
            Err(error) => return Err(said("DescribeCertificate", &error)),
        };
        let described = described.ok_or("DescribeCertificate: the answer describes nothing")?;
        match described.status() {
            Some(CertificateStatus::PendingActivation) => return Ok(Settlement::NotRegistered),
            Some(CertificateStatus::Active | CertificateStatus::Inactive) => {}
            other => return Err(format!("DescribeCertificate: the certificate's status is {other:?}")),
        }
        let arn = described.certificate_arn().ok_or("DescribeCertificate: the answer has no ARN")?;
        let listed = client.list_principal_things().principal(arn).send().await;
        let listed = listed.map_err(|error| said("ListPrincipalThings", &error))?;
        match listed.things() {
            [thing] => Ok(Settlement::Registered(RegisteredThing {
                thing_name: thing.clone(),
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

fn connect(settings: &ControlPlaneSettings) -> Result<aws_sdk_iot::Client, String> {
    let mut roots = TrustStore::default();
    if !settings.extra_roots.is_empty() {
        roots = roots.with_pem_certificate(settings.extra_roots.as_slice());
    }
    let tls = TlsContext::builder().with_trust_store(roots).build().map_err(|error| error.to_string())?;
    let http =
        Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls).build_https();
    let credentials = &settings.credentials;
    let credentials = SdkCredentials::new(
        credentials.access_key_id.clone(),
        credentials.secret_access_key.expose().clone(),
        credentials.session_token.as_ref().map(|token| token.expose().clone()),
        None,
        "fleetmint",
    );
    let mut config = aws_sdk_iot::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials)
        .http_client(http)
        .retry_config(RetryConfig::standard())
        .timeout_config(TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build());
    config.set_endpoint_url(settings.endpoint_url.clone());
    Ok(aws_sdk_iot::Client::from_conf(config.build()))
}

/// What the client had to say, fit to show.
fn said<E: std::error::Error>(operation: &str, error: &E) -> String {
    format!("{operation}: {}", clean(&DisplayErrorContext(error).to_string()))
}
