//! The target of a command: the endpoint, or an emulator in this process.
//!
//! The endpoint that the arguments leave open is looked up with DescribeEndpoint. [`Reach`] has the account: its region,
//! credentials and control plane. [`Site`] is the target once it is ready to be dialled.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub(super) use self::site::Site;

use self::reach::Reach;
use super::args::TargetArgs;
use super::exit::{Exit, Fatal};
use super::question::answer;
use super::settings::{check_template, first_template, scenario, usage};
use super::speech::say;
use crate::control_plane::{AskError, AwsSettings, ControlPlane};
use crate::emulator::Emulator;
use crate::emulator::scenario::Scenario;
use crate::endpoint::Endpoint;
use crate::ledger::Account;
use crate::transport::wss::{Authentication, Claim, ClaimError};

mod reach;
mod site;

/// The target of a command.
pub(super) struct Target {
    pub(super) service: Service,
    pub(super) client_id_prefix: String,
    reach: Reach,
    /// Used at the endpoint instead of credentials.
    claim: Option<Claim>,
}

/// The service to connect to.
pub(super) enum Service {
    /// An emulator in this process.
    Emulator(Box<Scenario>),
    /// AWS, or an emulator in another process.
    Endpoint(Endpoint),
}

impl TargetArgs {
    /// Resolves the arguments. Calls DescribeEndpoint if no endpoint is given; opens no other connection.
    pub(super) async fn resolve(self) -> Result<Target, Fatal> {
        if let Some(file) = &self.emulator {
            let scenario = scenario(file.as_deref())?;
            return self.emulated(scenario);
        }
        let endpoint = self.endpoint()?;
        let reach = Reach::resolve(&self, endpoint.as_ref()).await?;
        let claim = self.claim()?;
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => discover(&reach).await?,
        };
        let service = Service::Endpoint(endpoint);
        Ok(Target { service, client_id_prefix: self.client_id_prefix, reach, claim })
    }

    /// Settings for the account's control plane and STS, without an endpoint to dial. Checks that there are
    /// credentials.
    pub(super) async fn account_settings(&self) -> Result<(AwsSettings, AwsSettings), Fatal> {
        let endpoint = self.endpoint()?;
        let reach = Reach::resolve(self, endpoint.as_ref()).await?;
        reach.check_credentials().await?;
        let settings = |configured: &Option<String>| reach.settings(configured.as_deref(), endpoint.as_ref());
        Ok((settings(&reach.services.iot), settings(&reach.services.sts)))
    }

    /// The endpoint, if one is given.
    pub(super) fn endpoint(&self) -> Result<Option<Endpoint>, Fatal> {
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
            reach: Reach::emulated(&scenario)?,
            service: Service::Emulator(Box::new(scenario)),
            client_id_prefix: self.client_id_prefix,
            claim: None,
        })
    }
}

impl Target {
    /// The AWS region.
    pub(super) fn region(&self) -> &str {
        &self.reach.region
    }

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
        let mut reach = self.reach.clone();
        let (emulator, endpoint) = match &self.service {
            Service::Emulator(scenario) => {
                let emulator = start_emulator(scenario).await?;
                let endpoint = emulator.endpoint().parse().expect("the emulator's own endpoint is one");
                reach.extra_roots = emulator.ca_pem().as_bytes().to_vec();
                (Some(emulator), endpoint)
            }
            Service::Endpoint(endpoint) => (None, endpoint.clone()),
        };
        let can_ask = match &self.claim {
            None => reach.check_credentials().await.map(|()| true)?,
            Some(_) => can_ask_despite_a_claim(&reach).await,
        };
        if let Some(proxy) = reach.proxies.on_the_way_to(endpoint.host(), endpoint.port()) {
            say(format_args!("through the proxy {proxy}"));
        }
        let authentication = match &self.claim {
            Some(claim) => Authentication::Claim(claim.clone()),
            None => Authentication::Signature(Arc::clone(&reach.credentials)),
        };
        let client_id_prefix = self.client_id_prefix.clone();
        Ok(Site { emulator, endpoint, reach, client_id_prefix, authentication, can_ask })
    }
}

async fn discover(reach: &Reach) -> Result<Endpoint, Fatal> {
    reach.check_credentials().await?;
    let plane = ControlPlane::new(reach.settings(reach.services.iot.as_deref(), None));
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
    say(format_args!("endpoint {endpoint}, which DescribeEndpoint has found in {}", reach.region));
    Ok(endpoint)
}

/// Whether there are credentials besides the claim; says what it means if there are none.
async fn can_ask_despite_a_claim(reach: &Reach) -> bool {
    const WITHIN: Duration = Duration::from_secs(5);
    let found = tokio::time::timeout(WITHIN, reach.credentials.credentials()).await;
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
