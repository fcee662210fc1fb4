//! AWS's own chain of places where credentials may be.
//!
//! Owns the order: environment, profile files (keys, SSO, assume-role, process), web identity, container, instance metadata;
//! or one profile alone. aws-config reads the environment and the files, each time it is asked: what a user renews while a run
//! goes on is found. Only who wants that calls this; the rest of the library is given a source.

use std::error::Error as _;
use std::sync::Arc;
use std::time::SystemTime;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::meta::ProviderChainError;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, meta::region::ProvideRegion};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_iot::config::SharedHttpClient;

use super::{Loaded, RefreshedCredentials};
use crate::certificate::Secret;
use crate::control_plane::client::http_client;
use crate::sigv4::Credentials;
use crate::wording::{causes, clean};

/// How often instance metadata is asked before there is taken to be none; each attempt takes a second at most.
const METADATA_ATTEMPTS: u32 = 2;

/// The credentials of AWS's chain, or with `profile` of this profile alone, kept fresh. `region` is where STS and SSO are asked
/// if a profile does not say; `extra_roots` are trusted beside the system's authorities.
///
/// # Errors
/// If there can be no HTTP client.
pub fn aws_chain(
    profile: Option<String>,
    region: String,
    extra_roots: &[u8],
) -> Result<RefreshedCredentials, String> {
    let chain = Arc::new(Chain { profile, region, http: http_client(extra_roots)? });
    let load = move || {
        let chain = Arc::clone(&chain);
        let loading: futures::future::BoxFuture<'static, _> = Box::pin(async move { chain.load().await });
        loading
    };
    Ok(RefreshedCredentials::new(Arc::new(load), Arc::new(SystemTime::now)))
}

/// The region that the profile files give, for `profile` or else the one of the environment.
pub async fn profile_region(profile: Option<&str>) -> Option<String> {
    let mut files = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile {
        files = files.profile_name(profile);
    }
    let region = files.build().region().await;
    region.map(|region| region.as_ref().to_owned())
}

struct Chain {
    profile: Option<String>,
    region: String,
    http: SharedHttpClient,
}

impl Chain {
    /// Walks the chain anew: its providers keep what they have read.
    async fn load(&self) -> Result<Loaded, String> {
        let region = Region::new(self.region.clone());
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_http_client(self.http.clone());
        let provided = match &self.profile {
            Some(profile) => {
                let profile = ProfileFileCredentialsProvider::builder().profile_name(profile);
                profile.configure(&config).build().provide_credentials().await
            }
            None => {
                let metadata =
                    imds::Client::builder().configure(&config).max_attempts(METADATA_ATTEMPTS).build();
                let chain = DefaultCredentialsChain::builder().region(region).imds_client(metadata);
                chain.configure(config).build().await.provide_credentials().await
            }
        };
        let provided = provided.map_err(|error| self.explain(&error))?;
        Ok(Loaded {
            credentials: Credentials {
                access_key_id: provided.access_key_id().to_owned(),
                secret_access_key: Secret::new(provided.secret_access_key().to_owned()),
                session_token: provided.session_token().map(|token| Secret::new(token.to_owned())),
            },
            expires: provided.expiry(),
        })
    }

    /// Why there are none, in one line.
    fn explain(&self, error: &CredentialsError) -> String {
        let said = clean(&causes(error).lines().map(str::trim).collect::<Vec<_>>().join("; "));
        let is_absent = matches!(error, CredentialsError::CredentialsNotLoaded(_));
        match &self.profile {
            Some(profile) if is_absent && error.source().is_none() => {
                format!("the profile {profile} is not in the configuration files, or has no credentials")
            }
            Some(profile) => format!("the profile {profile}: {said}"),
            None if is_absent => format!("{ABSENT}{}", exceptions(error)),
            None => said,
        }
    }
}

const ABSENT: &str =
    "none in the environment, the profile files, a web identity, a container or instance metadata";

/// What the places that someone may have set up wrongly had to say.
fn exceptions(error: &CredentialsError) -> String {
    let chain =
        error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
    let attempts = chain.map(ProviderChainError::attempts).unwrap_or_default();
    let said = attempts.iter().filter(|attempt| matches!(attempt.name(), "Profile" | "Ec2InstanceMetadata"));
    let said = said.filter_map(|attempt| attempt.error().source()).map(causes);
    let said = clean(&said.collect::<Vec<_>>().join("; "));
    if said.is_empty() { said } else { format!(" ({said})") }
}
