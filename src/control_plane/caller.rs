//! Whose the credentials are, according to STS.

use std::fmt;
use std::sync::Arc;

use aws_sdk_sts::config::{BehaviorVersion, Region};

use super::client::{AskError, AwsSettings, SourceProvider, http_client, retries, timeouts};

const OPERATION: &str = "GetCallerIdentity";

/// The identity behind the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account's number, of 12 digits.
    pub account: String,
    /// The user or the assumed role.
    pub arn: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of account {}", self.arn, self.account)
    }
}

/// The identity behind the credentials, by GetCallerIdentity, which needs no permission.
///
/// # Errors
/// [`AskError`], with what the service said.
pub async fn caller(settings: &AwsSettings) -> Result<Caller, AskError> {
    let failed = |detail| AskError::Failed { operation: OPERATION, detail };
    let mut config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(SourceProvider(Arc::clone(&settings.credentials)))
        .identity_cache(SourceProvider::cache())
        .http_client(http_client(&settings.extra_roots, &settings.proxies).map_err(failed)?)
        .retry_config(retries())
        .timeout_config(timeouts());
    config.set_endpoint_url(settings.endpoint_url.clone());
    let client = aws_sdk_sts::Client::from_conf(config.build());
    let identity =
        client.get_caller_identity().send().await.map_err(|error| AskError::of(OPERATION, &error))?;
    Ok(Caller {
        account: identity.account.ok_or_else(|| AskError::empty(OPERATION, "Account"))?,
        arn: identity.arn.ok_or_else(|| AskError::empty(OPERATION, "Arn"))?,
    })
}
