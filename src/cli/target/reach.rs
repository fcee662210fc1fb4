//! How the account is reached: the region, the credentials, the way through the network.
//!
//! What the arguments leave open is looked up: the region in the endpoint's name, the environment or the profile.
//! Nothing is guessed: if no source has it, the error says what to do.

use std::sync::Arc;

use super::emulated_control_plane;
use crate::cli::args::TargetArgs;
use crate::cli::exit::{Exit, Fatal};
use crate::cli::settings::usage;
use crate::control_plane::{
    AwsSettings, ConfiguredEndpoints, aws_chain, configured_endpoints, profile_region,
};
use crate::emulator::scenario::Scenario;
use crate::endpoint::Endpoint;
use crate::proxy::Proxies;
use crate::sigv4::{self, CredentialSource};
use crate::transport::wss::check_authorities;

/// How the account is reached.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) region: String,
    pub(super) credentials: Arc<dyn CredentialSource>,
    pub(super) extra_roots: Vec<u8>,
    pub(super) proxies: Proxies,
    /// Custom endpoints of AWS's services, if configured.
    pub(super) services: ConfiguredEndpoints,
    profile: Option<String>,
}

impl Reach {
    /// Resolves the arguments; `endpoint` is the one that they give. Opens no connection.
    pub(super) async fn resolve(args: &TargetArgs, endpoint: Option<&Endpoint>) -> Result<Self, Fatal> {
        let region = region(args, endpoint).await?;
        let (extra_roots, proxies) = (extra_roots(args)?, proxies(endpoint)?);
        let chain = aws_chain(args.profile.clone(), region.clone(), &extra_roots, &proxies)
            .map_err(|error| Fatal::new(Exit::Unavailable, error))?;
        Ok(Self {
            region,
            credentials: Arc::new(chain),
            extra_roots,
            proxies,
            services: services(args).await,
            profile: args.profile.clone(),
        })
    }

    /// How an emulator in this process is reached, but for its CA.
    pub(super) fn emulated(scenario: &Scenario) -> Result<Self, Fatal> {
        Ok(Self {
            region: checked_region(scenario.region.clone())?,
            credentials: Arc::new(scenario.client_credentials()),
            extra_roots: Vec::new(),
            proxies: Proxies::default(),
            services: ConfiguredEndpoints::default(),
            profile: None,
        })
    }

    /// Settings for the service with this custom endpoint. An emulator serves all of them at `endpoint`.
    pub(super) fn settings(&self, configured: Option<&str>, endpoint: Option<&Endpoint>) -> AwsSettings {
        AwsSettings {
            endpoint_url: configured.map(str::to_owned).or_else(|| endpoint.and_then(emulated_control_plane)),
            region: self.region.clone(),
            credentials: Arc::clone(&self.credentials),
            extra_roots: self.extra_roots.clone(),
            proxies: self.proxies.clone(),
        }
    }

    /// Checks that there are credentials, before anything is sent with them.
    pub(super) async fn check_credentials(&self) -> Result<(), Fatal> {
        let not_ready = |why: &str| Fatal::new(Exit::Unavailable, format!("{why}; {OBTAIN}"));
        // AWS's chain would skip an incomplete pair and use the next source.
        for (given, missing) in
            [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
        {
            if self.profile.is_none() && variable(given).is_some() && variable(missing).is_none() {
                return Err(not_ready(&format!("{given} is set, but {missing} is not")));
            }
        }
        match self.credentials.credentials().await {
            Ok(_) => Ok(()),
            Err(why) => Err(not_ready(&format!("no usable credentials: {why}"))),
        }
    }
}

/// The endpoints of AWS's services: arguments take precedence over the environment and the profile.
async fn services(args: &TargetArgs) -> ConfiguredEndpoints {
    let found = configured_endpoints(args.profile.as_deref()).await;
    ConfiguredEndpoints {
        iot: args.control_endpoint.clone().or(found.iot),
        service_quotas: args.service_quotas_endpoint.clone().or(found.service_quotas),
        sts: found.sts,
    }
}

/// The region. An endpoint whose name contains its region takes precedence: the environment may be meant for another.
async fn region(args: &TargetArgs, endpoint: Option<&Endpoint>) -> Result<String, Fatal> {
    let named = endpoint.and_then(|endpoint| sigv4::region_of(endpoint.host())).map(str::to_owned);
    if let (Some(given), Some(named)) = (&args.region, &named)
        && given != named
    {
        let found = format!("found {given:?}, and the endpoint is named after {named}");
        return Err(usage("--region", format!("{found}; leave it out, or give the endpoint of {given:?}")));
    }
    let said = args.region.clone().or(named);
    let said = said.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    match said {
        Some(region) => checked_region(region),
        None => profile_region(args.profile.as_deref()).await.map_or_else(
            || {
                let profile = args.profile.as_ref().map_or(String::new(), |name| format!(" {name}"));
                let found = format!("neither --endpoint nor AWS_REGION nor the profile{profile} says which");
                Err(usage("--region", format!("is missing: {found}; {WANTED_REGION}")))
            },
            checked_region,
        ),
    }
}

fn checked_region(region: String) -> Result<String, Fatal> {
    let is_region = !region.is_empty()
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_region { Ok(region) } else { Err(usage("--region", format!("found {region:?}; {WANTED_REGION}"))) }
}

fn extra_roots(args: &TargetArgs) -> Result<Vec<u8>, Fatal> {
    let Some(file) = &args.ca_file else { return Ok(Vec::new()) };
    let bytes =
        std::fs::read(file).map_err(|error| usage("--ca-file", format!("{}: {error}", file.display())))?;
    check_authorities(&bytes).map_err(|error| usage("--ca-file", format!("{}: {error}", file.display())))?;
    Ok(bytes)
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

const OBTAIN: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary credentials), or \
                      choose a --profile, or try it out with --emulator";
const WANTED_REGION: &str = "wanted a region such as eu-central-1";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
