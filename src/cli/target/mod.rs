//! The target and the identity: the endpoint, its region, the credentials, the control plane.
//!
//! What the arguments leave open is looked up: the region in the endpoint's name, the environment or the profile, the
//! endpoint with DescribeEndpoint. Nothing is guessed: if no source has it, the error says what to do.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::args::TargetArgs;
use super::exit::{Exit, Fatal};
use super::question::answer;
use super::recording;
use super::settings::{check_template, first_template, scenario, usage};
use super::speech::say;
use crate::aftercare::connect::Door;
use crate::control_plane::{
    AskError, AwsSettings, ConfiguredEndpoints, ControlPlane, DescribedTemplate, Settler, aws_chain,
    configured_endpoints, profile_region,
};
use crate::emulator::Emulator;
use crate::emulator::scenario::Scenario;
use crate::endpoint::Endpoint;
use crate::ledger::Account;
use crate::provisioning::Topics;
use crate::proxy::Proxies;
use crate::results;
use crate::sigv4::{self, CredentialSource};
use crate::transport::wss::{
    Authentication, Claim, ClaimError, SettingsError, WssConnector, WssSettings, check_authorities,
};

/// The target of a command.
pub(super) struct Target {
    pub(super) service: Service,
    pub(super) region: String,
    pub(super) client_id_prefix: String,
    profile: Option<String>,
    credentials: Arc<dyn CredentialSource>,
    /// Used at the endpoint instead of credentials.
    claim: Option<Claim>,
    extra_roots: Vec<u8>,
    proxies: Proxies,
    /// Custom endpoints of AWS's services, if configured.
    services: ConfiguredEndpoints,
}

/// The service to connect to.
pub(super) enum Service {
    /// An emulator in this process.
    Emulator(Box<Scenario>),
    /// AWS, or an emulator in another process.
    Endpoint(Endpoint),
}

/// A target that is ready to be dialled.
pub(super) struct Site {
    pub(super) region: String,
    client_id_prefix: String,
    /// The emulator, if it runs in this process; to be shut down at the end.
    pub(super) emulator: Option<Emulator>,
    pub(super) endpoint: Endpoint,
    authentication: Authentication,
    /// Whether the account can be queried: with a claim there may be no credentials for it.
    can_ask: bool,
    extra_roots: Vec<u8>,
    proxies: Proxies,
    /// Settings for the control plane.
    control_plane: AwsSettings,
    /// Settings for Service Quotas.
    pub(super) service_quotas: AwsSettings,
    /// Settings for STS.
    pub(super) sts: AwsSettings,
}

impl TargetArgs {
    /// Resolves the arguments. Calls DescribeEndpoint if no endpoint is given; opens no other connection.
    pub(super) async fn resolve(self) -> Result<Target, Fatal> {
        if let Some(file) = &self.emulator {
            let scenario = scenario(file.as_deref())?;
            return self.emulated(scenario);
        }
        let endpoint = self.endpoint()?;
        let region = self.region(endpoint.as_ref()).await?;
        let extra_roots = self.extra_roots()?;
        let claim = self.claim()?;
        let proxies = proxies(endpoint.as_ref())?;
        let services = self.services().await;
        let chain = aws_chain(self.profile.clone(), region.clone(), &extra_roots, &proxies)
            .map_err(|error| Fatal::new(Exit::Unavailable, error))?;
        let credentials: Arc<dyn CredentialSource> = Arc::new(chain);
        let ask = AwsSettings {
            endpoint_url: services.iot.clone(),
            region: region.clone(),
            credentials: Arc::clone(&credentials),
            extra_roots: extra_roots.clone(),
            proxies: proxies.clone(),
        };
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => self.discover(&ask).await?,
        };
        Ok(Target {
            services,
            service: Service::Endpoint(endpoint),
            client_id_prefix: self.client_id_prefix,
            profile: self.profile,
            region,
            credentials,
            claim,
            extra_roots,
            proxies,
        })
    }

    /// Settings for the account's control plane and STS, without an endpoint to dial. Checks that there are
    /// credentials.
    pub(super) async fn account_settings(&self) -> Result<(AwsSettings, AwsSettings), Fatal> {
        let endpoint = self.endpoint()?;
        let region = self.region(endpoint.as_ref()).await?;
        let (extra_roots, proxies) = (self.extra_roots()?, proxies(endpoint.as_ref())?);
        let services = self.services().await;
        let chain = aws_chain(self.profile.clone(), region.clone(), &extra_roots, &proxies)
            .map_err(|error| Fatal::new(Exit::Unavailable, error))?;
        check_credentials(self.profile.as_deref(), &chain).await?;
        let credentials: Arc<dyn CredentialSource> = Arc::new(chain);
        let emulated = endpoint.as_ref().and_then(emulated_control_plane);
        let ask = |configured: Option<String>| AwsSettings {
            endpoint_url: configured.or_else(|| emulated.clone()),
            region: region.clone(),
            credentials: Arc::clone(&credentials),
            extra_roots: extra_roots.clone(),
            proxies: proxies.clone(),
        };
        Ok((ask(services.iot), ask(services.sts)))
    }

    fn endpoint(&self) -> Result<Option<Endpoint>, Fatal> {
        let Some(text) = self.endpoint.as_deref() else { return Ok(None) };
        let address = match text.trim().strip_prefix("mqtts://") {
            None => text,
            // With a claim certificate there is no WebSocket around MQTT.
            Some(address) if self.claim_cert.is_some() => address,
            Some(_) => {
                let wanted =
                    "mqtts:// goes with --claim-cert; signed connections want wss://, or just the host";
                return Err(usage("--endpoint", wanted));
            }
        };
        address.parse().map(Some).map_err(|error| usage("--endpoint", error))
    }

    /// The endpoints of AWS's services: arguments take precedence over the environment and the profile.
    async fn services(&self) -> ConfiguredEndpoints {
        let found = configured_endpoints(self.profile.as_deref()).await;
        ConfiguredEndpoints {
            iot: self.control_endpoint.clone().or(found.iot),
            service_quotas: self.service_quotas_endpoint.clone().or(found.service_quotas),
            sts: found.sts,
        }
    }

    /// The claim certificate and its key.
    fn claim(&self) -> Result<Option<Claim>, Fatal> {
        let (Some(certificate), Some(key)) = (&self.claim_cert, &self.claim_key) else { return Ok(None) };
        let read = |option: &str, file: &Path| {
            std::fs::read(file).map_err(|error| usage(option, format!("{}: {error}", file.display())))
        };
        let key = read("--claim-key", key).map(Zeroizing::new)?;
        Claim::from_pem(&read("--claim-cert", certificate)?, &key).map(Some).map_err(claim_error)
    }

    fn emulated(self, mut scenario: Scenario) -> Result<Target, Fatal> {
        if let Some(region) = self.region {
            scenario.region = region;
        }
        Ok(Target {
            region: checked_region(scenario.region.clone())?,
            credentials: Arc::new(scenario.client_credentials()),
            claim: None,
            service: Service::Emulator(Box::new(scenario)),
            client_id_prefix: self.client_id_prefix,
            profile: None,
            extra_roots: Vec::new(),
            proxies: Proxies::default(),
            services: ConfiguredEndpoints::default(),
        })
    }

    /// The region. An endpoint whose name contains its region takes precedence: the environment may be meant for
    /// another.
    async fn region(&self, endpoint: Option<&Endpoint>) -> Result<String, Fatal> {
        let named = endpoint.and_then(|endpoint| sigv4::region_of(endpoint.host())).map(str::to_owned);
        if let (Some(given), Some(named)) = (&self.region, &named)
            && given != named
        {
            let found = format!("found {given:?}, and the endpoint is named after {named}");
            return Err(usage(
                "--region",
                format!("{found}; leave it out, or give the endpoint of {given:?}"),
            ));
        }
        let said = self.region.clone().or(named);
        let said = said.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
        match said {
            Some(region) => checked_region(region),
            None => profile_region(self.profile.as_deref()).await.map_or_else(
                || {
                    let profile = self.profile.as_ref().map_or(String::new(), |name| format!(" {name}"));
                    let found =
                        format!("neither --endpoint nor AWS_REGION nor the profile{profile} says which");
                    Err(usage("--region", format!("is missing: {found}; {WANTED_REGION}")))
                },
                checked_region,
            ),
        }
    }

    fn extra_roots(&self) -> Result<Vec<u8>, Fatal> {
        let Some(file) = &self.ca_file else { return Ok(Vec::new()) };
        let bytes = std::fs::read(file)
            .map_err(|error| usage("--ca-file", format!("{}: {error}", file.display())))?;
        check_authorities(&bytes)
            .map_err(|error| usage("--ca-file", format!("{}: {error}", file.display())))?;
        Ok(bytes)
    }

    async fn discover(&self, ask: &AwsSettings) -> Result<Endpoint, Fatal> {
        check_credentials(self.profile.as_deref(), ask.credentials.as_ref()).await?;
        let plane = ControlPlane::new(ask.clone());
        let address = answer("DescribeEndpoint", plane.data_endpoint()).await.map_err(|error| {
            asked(
                &error,
                "allow iot:DescribeEndpoint to these credentials, or give --endpoint",
                "check --region and --control-endpoint, or give --endpoint",
            )
        })?;
        let endpoint: Endpoint = address.parse().map_err(|error| {
            Fatal::new(Exit::Unavailable, format!("DescribeEndpoint: {error}; give --endpoint"))
        })?;
        say(format_args!("endpoint {endpoint}, which DescribeEndpoint has found in {}", ask.region));
        Ok(endpoint)
    }
}

impl Target {
    /// Whether the target is AWS. Nothing on loopback is.
    pub(super) fn is_aws(&self) -> bool {
        matches!(&self.service, Service::Endpoint(endpoint) if !is_loopback(endpoint))
    }

    /// What distinguishes accounts. Everything on loopback counts as one.
    pub(super) fn account(&self) -> Account {
        match &self.service {
            Service::Emulator(_) => Account::Emulator,
            Service::Endpoint(endpoint) if is_loopback(endpoint) => Account::Loopback,
            Service::Endpoint(endpoint) => Account::Endpoint(endpoint.host().to_ascii_lowercase()),
        }
    }

    /// The provisioning template: as given, or the emulator's first.
    pub(super) fn template(&self, typed: Option<&str>) -> Result<String, Fatal> {
        let template = match (typed, &self.service) {
            (Some(template), _) => template,
            (None, Service::Emulator(scenario)) => first_template(scenario),
            (None, Service::Endpoint(_)) => return Err(usage("--template", "is missing")),
        };
        check_template(template)?;
        Ok(template.to_owned())
    }

    /// Starts the emulator if it is to run in this process, and checks that there are credentials.
    pub(super) async fn open(&self) -> Result<Site, Fatal> {
        let (emulator, endpoint, extra_roots) = match &self.service {
            Service::Emulator(scenario) => {
                let emulator = start_emulator(scenario).await?;
                let endpoint: Endpoint =
                    emulator.endpoint().parse().expect("the emulator's own endpoint is one");
                let ca_pem = emulator.ca_pem().as_bytes().to_vec();
                (Some(emulator), endpoint, ca_pem)
            }
            Service::Endpoint(endpoint) => (None, endpoint.clone(), self.extra_roots.clone()),
        };
        let can_ask = match &self.claim {
            None => {
                check_credentials(self.profile.as_deref(), self.credentials.as_ref()).await.map(|()| true)?
            }
            Some(_) => self.can_ask_despite_a_claim().await,
        };
        let emulated = emulated_control_plane(&endpoint);
        let ask = |configured: &Option<String>| AwsSettings {
            endpoint_url: configured.clone().or_else(|| emulated.clone()),
            region: self.region.clone(),
            credentials: Arc::clone(&self.credentials),
            extra_roots: extra_roots.clone(),
            proxies: self.proxies.clone(),
        };
        if let Some(proxy) = self.proxies.on_the_way_to(endpoint.host(), endpoint.port()) {
            say(format_args!("through the proxy {proxy}"));
        }
        Ok(Site {
            region: self.region.clone(),
            client_id_prefix: self.client_id_prefix.clone(),
            control_plane: ask(&self.services.iot),
            service_quotas: ask(&self.services.service_quotas),
            sts: ask(&self.services.sts),
            emulator,
            endpoint,
            authentication: match &self.claim {
                Some(claim) => Authentication::Claim(claim.clone()),
                None => Authentication::Signature(Arc::clone(&self.credentials)),
            },
            can_ask,
            extra_roots,
            proxies: self.proxies.clone(),
        })
    }

    /// Whether there are credentials besides the claim; says what it means if there are none.
    async fn can_ask_despite_a_claim(&self) -> bool {
        const WITHIN: Duration = Duration::from_secs(5);
        let found = tokio::time::timeout(WITHIN, self.credentials.credentials()).await;
        let can_ask = matches!(found, Ok(Ok(_)));
        if !can_ask {
            say(format_args!(
                "note: a claim certificate, and no AWS credentials: nobody can be asked about the account. A registration whose \
                 answer is lost is tried again with its own token; one that stays open then counts as unknown, and is not \
                 repeated with another certificate"
            ));
        }
        can_ask
    }
}

impl Site {
    /// Shuts down the emulator, if it runs in this process.
    pub(super) async fn close(self) {
        if let Some(emulator) = self.emulator {
            emulator.shutdown().await;
        }
    }

    /// A client of the control plane.
    pub(super) fn control_plane(&self) -> ControlPlane {
        ControlPlane::new(self.control_plane.clone())
    }

    /// Whether it is dialled with a claim certificate.
    pub(super) fn has_claim(&self) -> bool {
        matches!(self.authentication, Authentication::Claim(_))
    }

    /// Whether the account can be queried.
    pub(super) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Queries a provisioning template.
    pub(super) async fn template(&self, name: &str) -> Result<DescribedTemplate, AskError> {
        self.control_plane().template(name).await
    }

    /// Where devices connect.
    pub(super) fn door(&self, timeout: Duration) -> Door {
        Door {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            extra_roots: self.extra_roots.clone(),
            proxies: self.proxies.clone(),
            timeout,
        }
    }

    /// Whether it is an emulator, in this process or elsewhere on this machine.
    pub(super) fn is_emulated(&self) -> bool {
        is_loopback(&self.endpoint)
    }

    /// What reports say about it.
    pub(super) fn told(&self) -> results::Site {
        results::Site {
            endpoint: self.endpoint.host_header(),
            region: self.region.clone(),
            host: recording::host(),
            is_emulator: self.is_emulated(),
        }
    }

    /// Finds out whether a registration happened whose answer was lost; `None` if the account cannot be queried.
    pub(super) fn settler(&self) -> Option<Arc<dyn Settler>> {
        self.can_ask.then(|| Arc::new(self.control_plane()) as Arc<dyn Settler>)
    }

    /// A connector for these topics. A dial may take `timeout`.
    pub(super) fn connector(&self, topics: Topics, timeout: Duration) -> Result<WssConnector, Fatal> {
        let authentication = self.authentication.clone();
        let settings = WssSettings {
            client_id_prefix: self.client_id_prefix.clone(),
            connect_timeout: timeout,
            extra_roots: self.extra_roots.clone(),
            proxies: self.proxies.clone(),
            ..WssSettings::new(self.endpoint.clone(), self.region.clone(), topics, authentication)
        };
        WssConnector::new(settings).map_err(|error| match error {
            SettingsError::Trust(error) => usage("--ca-file", error),
            SettingsError::Claim(error) => claim_error(error),
            SettingsError::ClientIdPrefix { .. } => usage("--client-id-prefix", error),
        })
    }
}

impl Site {
    /// A remark about the target for measured figures.
    pub(super) fn sharing(&self) -> &'static str {
        match &self.emulator {
            Some(_) => ", which shares this machine's cores: the figures are of both",
            None => "",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.emulator {
            Some(_) => f.write_str("the built-in emulator"),
            None if self.has_claim() => write!(f, "mqtts://{}", self.endpoint.authority()),
            None => self.endpoint.fmt(f),
        }
    }
}

/// The network's proxy from the environment, as curl reads it: lower-case names take precedence. An unusable one
/// matters only if the endpoint is reached through it.
fn proxies(endpoint: Option<&Endpoint>) -> Result<Proxies, Fatal> {
    let exceptions = ["no_proxy", "NO_PROXY"].into_iter().find_map(variable).unwrap_or_default();
    let named = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let Some((name, url)) = named.into_iter().find_map(|name| Some((name, variable(name)?))) else {
        return Ok(Proxies::default());
    };
    Proxies::new(&url, &exceptions).or_else(|error| {
        let any = Proxies::new("http://proxy", &exceptions).expect("a constant that is a proxy's URL");
        let is_needed =
            endpoint.is_none_or(|endpoint| any.on_the_way_to(endpoint.host(), endpoint.port()).is_some());
        if is_needed {
            Err(usage(name, format!("{error}; or name the endpoint in NO_PROXY to reach it without a proxy")))
        } else {
            Ok(Proxies::default())
        }
    })
}

async fn start_emulator(scenario: &Scenario) -> Result<Emulator, Fatal> {
    let any_port = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    Emulator::start(scenario.clone(), any_port)
        .await
        .map_err(|error| Fatal::new(Exit::Unavailable, format!("the emulator did not start: {error}")))
}

/// The error for an unusable claim, with the option that it is about.
fn claim_error(error: ClaimError) -> Fatal {
    match error {
        ClaimError::NoKey => usage("--claim-key", error),
        ClaimError::NoCertificate | ClaimError::Unusable(_) => usage("--claim-cert", error),
    }
}

/// Checks that there are credentials, before anything is sent with them.
async fn check_credentials(profile: Option<&str>, source: &dyn CredentialSource) -> Result<(), Fatal> {
    let not_ready = |why: &str| Fatal::new(Exit::Unavailable, format!("{why}; {OBTAIN}"));
    // AWS's chain would skip an incomplete pair and use the next source.
    for (given, missing) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        if profile.is_none() && variable(given).is_some() && variable(missing).is_none() {
            return Err(not_ready(&format!("{given} is set, but {missing} is not")));
        }
    }
    match source.credentials().await {
        Ok(_) => Ok(()),
        Err(why) => Err(not_ready(&format!("no usable credentials: {why}"))),
    }
}

/// The error for a failed query to the account, with what to do about it.
pub(super) fn asked(error: &AskError, if_not_permitted: &str, otherwise: &str) -> Fatal {
    let (exit, hint) = match error {
        AskError::NotPermitted { .. } => (Exit::NotPermitted, if_not_permitted),
        AskError::Refused { .. } => {
            (Exit::NotPermitted, "get new credentials (temporary ones expire), and check --region")
        }
        AskError::NotFound { .. } | AskError::Rejected { .. } => (Exit::Unavailable, otherwise),
        AskError::Throttled { .. } => (Exit::Later, "try again later"),
        AskError::Failed { .. } => (Exit::Later, otherwise),
    };
    Fatal::new(exit, format!("{error}; {hint}"))
}

/// The control plane's URL, if it is not AWS's: an endpoint on loopback is an emulator, which also serves the control
/// plane.
fn emulated_control_plane(endpoint: &Endpoint) -> Option<String> {
    is_loopback(endpoint).then(|| format!("https://{}", endpoint.host_header()))
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.host();
    let address: Option<IpAddr> = host.parse().ok();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_some_and(|address| address.is_loopback())
}

const OBTAIN: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary credentials), or \
                      choose a --profile, or try it out with --emulator";
const WANTED_REGION: &str = "wanted a region such as eu-central-1";

fn checked_region(region: String) -> Result<String, Fatal> {
    let is_region = !region.is_empty()
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_region { Ok(region) } else { Err(usage("--region", format!("found {region:?}; {WANTED_REGION}"))) }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name_and_address() {
        for (host, is) in [
            ("localhost:1", true),
            ("a.localhost", true),
            ("127.8.9.1", true),
            ("[::1]:8443", true),
            ("128.0.0.1", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&host.parse().unwrap()), is, "{host}");
        }
    }
}
