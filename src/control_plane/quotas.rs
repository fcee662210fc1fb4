//! The account's quotas per second, from Service Quotas.
//!
//! Owns the fallback from the account's applied value to AWS's default. Callers decide how to use them.

use std::sync::Arc;

use aws_sdk_servicequotas::config::{BehaviorVersion, Region};
use aws_sdk_servicequotas::types::{PeriodUnit, ServiceQuota};

use super::client::{AskError, AwsSettings, SourceProvider, http_client, retries, timeouts};
use crate::rate::Rate;
use crate::service::{QUOTA_SERVICE, Quota};

const APPLIED: &str = "GetServiceQuota";
const DEFAULT: &str = "GetAWSDefaultServiceQuota";

/// Where a quota's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaSource {
    /// The account has its own value in this region.
    Applied,
    /// Service Quotas has no value for the account; this is AWS's default.
    Default,
}

/// One of the account's quotas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccountQuota {
    /// Which quota.
    pub quota: Quota,
    /// Its value.
    pub rate: Rate,
    /// Where the value comes from.
    pub source: QuotaSource,
}

/// The account's `quotas`, in the same order, by at least one request each.
///
/// # Errors
/// The first [`AskError`]. Needs `servicequotas:GetServiceQuota`, and for quotas without an account-specific value
/// `servicequotas:GetAWSDefaultServiceQuota`.
pub async fn account_quotas(settings: &AwsSettings, quotas: &[Quota]) -> Result<Vec<AccountQuota>, AskError> {
    let client = client(settings).map_err(|detail| AskError::Failed { operation: APPLIED, detail })?;
    let mut found = Vec::with_capacity(quotas.len());
    // One after another: Service Quotas answers few requests per second.
    for quota in quotas {
        found.push(account_quota(&client, *quota).await?);
    }
    Ok(found)
}

async fn account_quota(
    client: &aws_sdk_servicequotas::Client,
    quota: Quota,
) -> Result<AccountQuota, AskError> {
    let applied =
        client.get_service_quota().service_code(QUOTA_SERVICE).quota_code(quota.code()).send().await;
    match applied.map_err(|error| AskError::of(APPLIED, &error)) {
        Ok(answer) => {
            let value = answer.quota.ok_or_else(|| AskError::empty(APPLIED, "Quota"))?;
            return Ok(AccountQuota {
                quota,
                rate: rate(APPLIED, quota, &value)?,
                source: QuotaSource::Applied,
            });
        }
        // Not every quota has an account-specific value.
        Err(AskError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let default = client
        .get_aws_default_service_quota()
        .service_code(QUOTA_SERVICE)
        .quota_code(quota.code())
        .send()
        .await;
    let answer = default.map_err(|error| AskError::of(DEFAULT, &error))?;
    let value = answer.quota.ok_or_else(|| AskError::empty(DEFAULT, "Quota"))?;
    Ok(AccountQuota { quota, rate: rate(DEFAULT, quota, &value)?, source: QuotaSource::Default })
}

/// The quota's value as a rate. These quotas are per second if no period is given.
fn rate(operation: &'static str, quota: Quota, value: &ServiceQuota) -> Result<Rate, AskError> {
    let period_s = match &value.period {
        None => Some(1.0),
        Some(period) => {
            let unit_s = match period.period_unit() {
                None | Some(PeriodUnit::Second) => Some(1.0),
                Some(PeriodUnit::Millisecond) => Some(0.001),
                Some(PeriodUnit::Minute) => Some(60.0),
                Some(PeriodUnit::Hour) => Some(3600.0),
                Some(_) => None,
            };
            let count = f64::from(period.period_value().unwrap_or(1));
            unit_s.map(|unit_s| unit_s * count).filter(|period_s| *period_s > 0.0)
        }
    };
    let rate = value.value.zip(period_s).and_then(|(value, period_s)| Rate::per_second(value / period_s));
    rate.ok_or_else(|| AskError::Failed {
        operation,
        detail: format!(
            "{} is {:?} per {:?}; wanted more than 0 and at most 1000000 per second, minute or hour",
            quota.code(),
            value.value,
            value.period
        ),
    })
}

fn client(settings: &AwsSettings) -> Result<aws_sdk_servicequotas::Client, String> {
    let mut config = aws_sdk_servicequotas::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(SourceProvider(Arc::clone(&settings.credentials)))
        .identity_cache(SourceProvider::cache())
        .http_client(http_client(&settings.extra_roots, &settings.proxies)?)
        .retry_config(retries())
        .timeout_config(timeouts());
    config.set_endpoint_url(settings.endpoint_url.clone());
    Ok(aws_sdk_servicequotas::Client::from_conf(config.build()))
}
