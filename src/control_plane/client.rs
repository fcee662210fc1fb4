//! How to reach AWS's services: HTTPS, trust, credentials, and what a failure means.
//!
//! Owns the HTTP client underneath all AWS clients. Knows no operation.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_iot::config::http::HttpResponse;
use aws_sdk_iot::config::retry::RetryConfig;
use aws_sdk_iot::config::timeout::TimeoutConfig;
use aws_sdk_iot::config::{
    Credentials as SdkCredentials, IdentityCache, RuntimeComponents, SharedHttpClient,
};
use aws_sdk_iot::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};

use super::asking::{is_throttle, no_retries};
use super::clock::ServiceClock;
use crate::proxy::Proxies;
use crate::sigv4::CredentialSource;
use crate::wording::{causes, clean};

/// The time limit of one operation, including its retries.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Where to reach a service, and with which credentials.
#[derive(Clone)]
pub struct AwsSettings {
    /// `https://…`; `None` for the region's own endpoint, such as `https://iot.<region>.amazonaws.com`.
    pub endpoint_url: Option<String>,
    /// The region to sign for.
    pub region: String,
    /// The credentials to sign with, requested anew for each request.
    pub credentials: Arc<dyn CredentialSource>,
    /// Certificate authorities to trust besides the public ones and the system's: PEM, or one certificate in DER. May
    /// be empty.
    pub extra_roots: Vec<u8>,
    /// The network's proxy, if it has one.
    pub proxies: Proxies,
}

impl fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSettings")
            .field("endpoint_url", &self.endpoint_url)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Why an operation gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// These credentials lack the permission.
    #[error("{operation} is not permitted: {detail}")]
    NotPermitted {
        /// The operation.
        operation: &'static str,
        /// What the service said.
        detail: String,
    },
    /// The service does not know these credentials, or no longer does.
    #[error("{operation}: the credentials were refused: {detail}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// What the service said.
        detail: String,
    },
    /// The resource does not exist.
    #[error("{operation}: {detail}")]
    NotFound {
        /// The operation.
        operation: &'static str,
        /// What the service said.
        detail: String,
    },
    /// The service throttled the request for too long.
    #[error("{operation} is throttled: {detail}")]
    Throttled {
        /// The operation.
        operation: &'static str,
        /// What the service said.
        detail: String,
    },
    /// The service rejects the request as it stands: repeating it would get the same answer.
    #[error("{operation}: {detail}")]
    Rejected {
        /// The operation.
        operation: &'static str,
        /// The type of the error, such as `DeleteConflictException`.
        code: String,
        /// What the service said, including the type.
        detail: String,
    },
    /// No usable answer: no credentials, no connection, a service error, or an empty answer.
    #[error("{operation}: {detail}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The reason.
        detail: String,
    },
}

impl AskError {
    /// What `error` means. Depends on the error's type, which the protocols document; its message is for people.
    pub(super) fn of<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let SdkError::ServiceError(answer) = error else {
            return Self::Failed { operation, detail: clean(&causes(error)) };
        };
        let metadata = answer.err().meta();
        let code = metadata.code().unwrap_or("an error without a type");
        let detail = clean(&match metadata.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        });
        match code {
            "AccessDeniedException"
            | "AccessDenied"
            | "UnauthorizedException"
            | "ForbiddenException"
            | "DependencyAccessDeniedException" => Self::NotPermitted { operation, detail },
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "SignatureDoesNotMatch"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException" => Self::Refused { operation, detail },
            "ResourceNotFoundException" | "NoSuchResourceException" => Self::NotFound { operation, detail },
            code if is_throttle(code) => Self::Throttled { operation, detail },
            code => match answer.raw().status().as_u16() {
                429 => Self::Throttled { operation, detail },
                401 | 403 if metadata.code().is_none() => Self::Refused { operation, detail },
                400..500 => Self::Rejected { operation, code: code.to_owned(), detail },
                _ => Self::Failed { operation, detail },
            },
        }
    }

    /// The error for an answer that lacks a required field.
    pub(super) fn empty(operation: &'static str, missing: &str) -> Self {
        Self::Failed { operation, detail: format!("the answer has no {missing}") }
    }
}

/// The HTTP client: TLS by rustls, and the network's proxy, as on the way to the endpoint. `extra_roots` must be
/// readable PEM or DER. Only HTTPS goes through the proxy: HTTP is used only for this machine's metadata.
pub(super) fn http_client(extra_roots: &[u8], proxies: &Proxies) -> Result<SharedHttpClient, String> {
    // Includes the public authorities, as on the way to the endpoint: small containers have none.
    let mut roots = TrustStore::default().with_pem_certificate(PUBLIC_ROOTS.as_slice());
    if !extra_roots.is_empty() {
        roots = roots.with_pem_certificate(as_pem(extra_roots));
    }
    let tls = TlsContext::builder().with_trust_store(roots).build().map_err(|error| error.to_string())?;
    let proxy = match proxies.settings() {
        None => ProxyConfig::disabled(),
        Some((url, exceptions)) => {
            let proxy = ProxyConfig::https(url.expose().as_str()).map_err(|error| error.to_string())?;
            proxy.no_proxy(exceptions)
        }
    };
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
    }))
}

/// All authorities of `webpki-roots`, in PEM.
static PUBLIC_ROOTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| pem(certificate))
        .collect::<Vec<_>>()
        .concat()
});

fn as_pem(certificates: &[u8]) -> Vec<u8> {
    /// The first byte of every certificate in DER: a SEQUENCE.
    const SEQUENCE: u8 = 0x30;
    if certificates.first() == Some(&SEQUENCE) { pem(certificates) } else { certificates.to_vec() }
}

fn pem(der: &[u8]) -> Vec<u8> {
    pem::encode(&pem::Pem::new("CERTIFICATE", der)).into_bytes()
}

/// Our credentials in the form that AWS's clients want. Their source caches them, so nothing else may.
#[derive(Clone)]
pub(super) struct SourceProvider(pub(super) Arc<dyn CredentialSource>);

impl SourceProvider {
    /// The identity cache to use with it: none.
    pub(super) fn cache() -> impl aws_sdk_iot::config::ResolveCachedIdentity + 'static {
        IdentityCache::no_cache()
    }
}

impl fmt::Debug for SourceProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceProvider")
    }
}

impl ProvideCredentials for SourceProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.0.credentials().await.map_err(CredentialsError::provider_error)?;
            let token = credentials.session_token.map(|token| token.expose().clone());
            let secret = credentials.secret_access_key.expose().clone();
            Ok(SdkCredentials::new(credentials.access_key_id, secret, token, None, "fleetmint"))
        })
    }
}

pub(super) fn retries() -> RetryConfig {
    RetryConfig::standard()
}

pub(super) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build()
}

/// The client of AWS IoT. It does not retry: retries must take other requests into account.
pub(super) fn iot(settings: &AwsSettings, clock: ServiceClock) -> Result<aws_sdk_iot::Client, String> {
    let mut config = aws_sdk_iot::Config::builder()
        .behavior_version(aws_sdk_iot::config::BehaviorVersion::latest())
        .region(aws_sdk_iot::config::Region::new(settings.region.clone()))
        .credentials_provider(SourceProvider(Arc::clone(&settings.credentials)))
        .identity_cache(SourceProvider::cache())
        .http_client(http_client(&settings.extra_roots, &settings.proxies)?)
        .retry_config(no_retries())
        .interceptor(clock)
        .timeout_config(timeouts());
    config.set_endpoint_url(settings.endpoint_url.clone());
    Ok(aws_sdk_iot::Client::from_conf(config.build()))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn the_public_authorities_are_whole_and_there_is_a_client_with_them() {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&PUBLIC_ROOTS).collect();
        assert_eq!(read.unwrap(), webpki_root_certs::TLS_SERVER_ROOT_CERTS);
        assert!(http_client(&[], &Proxies::default()).is_ok());
    }

    #[test]
    fn one_certificate_in_der_is_as_good_as_in_pem() {
        let der = &webpki_root_certs::TLS_SERVER_ROOT_CERTS[0];
        assert_eq!(as_pem(&as_pem(der)), as_pem(der));
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&as_pem(der)).collect();
        assert_eq!(read.unwrap(), std::slice::from_ref(der));
        assert!(http_client(der, &Proxies::default()).is_ok());
    }
}
