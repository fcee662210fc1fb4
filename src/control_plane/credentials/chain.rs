//! AWS's own credential chain.
//!
//! Owns the order: environment, profile files (keys, SSO, assume-role, process), web identity, container, instance
//! metadata; or one profile alone. aws-config reads the environment and the files on each load, so that credentials
//! renewed during a run are found. Using it is up to the caller; the rest of the library takes any source.

use std::error::Error as _;
use std::sync::Arc;
use std::time::SystemTime;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::meta::ProviderChainError;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, meta::region::ProvideRegion};
use aws_credential_types::Credentials as ProvidedCredentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_iot::config::SharedHttpClient;

use super::{Loaded, RefreshedCredentials};
use crate::certificate::Secret;
use crate::control_plane::client::http_client;
use crate::proxy::Proxies;
use crate::sigv4::{Credentials, NoCredentials};
use crate::wording::{causes, clean, is_invisible};

/// How often instance metadata is tried before it is assumed absent; each attempt takes at most a second.
const METADATA_ATTEMPTS: u32 = 2;

/// Why no HTTP client can be made: the authorities or the proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoClient(String);

/// The credentials of AWS's chain, or of `profile` alone if given, kept fresh. `region` is where to reach STS and SSO
/// if a profile does not say; `extra_roots` are trusted besides the system's authorities, and `proxies` are used for
/// HTTPS.
///
/// # Errors
/// [`NoClient`] if there can be no HTTP client.
pub fn aws_chain(
    profile: Option<String>,
    region: String,
    extra_roots: &[u8],
    proxies: &Proxies,
) -> Result<RefreshedCredentials, NoClient> {
    let http = http_client(extra_roots, proxies).map_err(NoClient)?;
    let chain = Arc::new(Chain { profile, region, http });
    let load = move || {
        let chain = Arc::clone(&chain);
        let loading: futures::future::BoxFuture<'static, _> = Box::pin(async move { chain.load().await });
        loading
    };
    Ok(RefreshedCredentials::new(Arc::new(load), Arc::new(SystemTime::now)))
}

/// The region in the profile files, for `profile` or else the environment's profile; `None` if they give none.
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
    /// Walks the chain anew: its providers cache what they have read.
    async fn load(&self) -> Result<Loaded, NoCredentials> {
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
        Ok(Loaded { credentials: tidy(&provided)?, expires: provided.expiry() })
    }

    /// Why there are no credentials, in one line.
    fn explain(&self, error: &CredentialsError) -> NoCredentials {
        let said = clean(&causes(error).lines().map(str::trim).collect::<Vec<_>>().join("; "));
        let is_absent = matches!(error, CredentialsError::CredentialsNotLoaded(_));
        NoCredentials::because(match &self.profile {
            Some(profile) if is_absent && error.source().is_none() => {
                format!("the profile {profile} is not in the configuration files, or has no credentials")
            }
            Some(profile) => format!("the profile {profile}: {said}"),
            None if is_absent => format!("{ABSENT}{}", exceptions(error)),
            None => said,
        })
    }
}

/// The credentials as they were meant. Copying leaves white space at their ends, a file from Windows leaves a
/// carriage return, and an empty session token counts as none.
fn tidy(provided: &ProvidedCredentials) -> Result<Credentials, NoCredentials> {
    let part = |name: &str, text: &str| {
        let text = text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        match text.chars().find(|c| (c.is_whitespace() && *c != ' ') || is_invisible(*c)) {
            None => Ok(text.to_owned()),
            Some(c) => Err(NoCredentials::because(format!(
                "the {name} has the character {} in it: it was not copied as it is",
                c.escape_unicode()
            ))),
        }
    };
    let access_key_id = part("access key ID", provided.access_key_id())?;
    let secret_access_key = Secret::new(part("secret access key", provided.secret_access_key())?);
    let session_token = part("session token", provided.session_token().unwrap_or_default())?;
    if access_key_id.is_empty() || secret_access_key.expose().is_empty() {
        return Err(NoCredentials::because("the access key ID or the secret access key is empty"));
    }
    let session_token = (!session_token.is_empty()).then(|| Secret::new(session_token));
    Ok(Credentials { access_key_id, secret_access_key, session_token })
}

const ABSENT: &str =
    "none in the environment, the profile files, a web identity, a container or instance metadata";

/// The errors of providers that may be misconfigured.
fn exceptions(error: &CredentialsError) -> String {
    let chain =
        error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
    let attempts = chain.map(ProviderChainError::attempts).unwrap_or_default();
    let said = attempts.iter().filter(|attempt| matches!(attempt.name(), "Profile" | "Ec2InstanceMetadata"));
    let said = said.filter_map(|attempt| attempt.error().source()).map(causes);
    let said = clean(&said.collect::<Vec<_>>().join("; "));
    if said.is_empty() { said } else { format!(" ({said})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provided(id: &str, secret: &str, token: Option<&str>) -> Result<Credentials, NoCredentials> {
        tidy(&ProvidedCredentials::new(id, secret, token.map(str::to_owned), None, "test"))
    }

    #[test]
    fn white_space_around_credentials_and_an_empty_token_are_nothing() {
        let wanted = Credentials {
            access_key_id: String::from("AKIA"),
            secret_access_key: Secret::new(String::from("secret/+=")),
            session_token: None,
        };
        for token in [None, Some(""), Some(" \r\n")] {
            assert_eq!(
                provided("AKIA\r", "\u{feff}secret/+=\u{a0}\n", token),
                Ok(wanted.clone()),
                "{token:?}"
            );
        }
        let token = provided("AKIA", "s", Some("\ttoken\r")).unwrap().session_token.unwrap();
        assert_eq!(token.expose(), "token");
    }

    #[test]
    fn white_space_inside_is_named_and_what_is_around_it_is_not_shown() {
        let error = provided("AKIA", "hunt\u{200b}er2", None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the secret access key has the character \\u{200b} in it: it was not copied as it is"
        );
        assert!(
            provided("AK\tIA", "s", None)
                .unwrap_err()
                .to_string()
                .starts_with("the access key ID has the character \\u{9}")
        );
        assert!(provided("AKIA", "s", Some("to\nken")).unwrap_err().to_string().contains("session token"));
        assert!(provided(" ", "s", None).unwrap_err().to_string().contains("is empty"));
    }
}
