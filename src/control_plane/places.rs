//! Endpoints of services that the environment and the profile configure, as for every AWS tool.

use aws_config::BehaviorVersion;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

/// The configured endpoints of services; `None` for AWS's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfiguredEndpoints {
    /// AWS IoT: AWS_ENDPOINT_URL_IOT.
    pub iot: Option<String>,
    /// STS: AWS_ENDPOINT_URL_STS.
    pub sts: Option<String>,
    /// Service Quotas: AWS_ENDPOINT_URL_SERVICE_QUOTAS.
    pub service_quotas: Option<String>,
}

/// Reads `AWS_ENDPOINT_URL_<SERVICE>`, then the services section of the profile, then AWS_ENDPOINT_URL, then the
/// profile's `endpoint_url`. All are `None` if AWS_IGNORE_CONFIGURED_ENDPOINT_URLS says so.
///
/// Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints".
pub async fn configured_endpoints(profile: Option<&str>) -> ConfiguredEndpoints {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).no_credentials().region("us-east-1");
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    let config = loader.load().await;
    ConfiguredEndpoints {
        iot: endpoint_of(&config, "IoT"),
        sts: endpoint_of(&config, "STS"),
        // With the underscore that the guide uses in profiles; the SDK would turn a space into a hyphen.
        service_quotas: endpoint_of(&config, "Service_Quotas"),
    }
}

/// Looks up a service's endpoint as the generated clients do.
fn endpoint_of(config: &SdkConfig, service_id: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service_id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .expect("all of its parts are there");
    let own = config.service_config().and_then(|services| services.load_config(key));
    let found = own.or_else(|| config.endpoint_url().map(str::to_owned));
    found.map(|url| url.trim_end_matches('/').to_owned())
}
