//! What the arguments and the environment mean. Reads the environment; opens no connection.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::args::{Keys, LocalKeyType, ProvisionArgs};
use super::exit::{Exit, Fatal};
use crate::certificate::Secret;
use crate::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
use crate::endpoint::Endpoint;
use crate::engine::{KeyPolicy, KeySource, Rates};
use crate::identity::parse_constant;
use crate::keys::KeyType;
use crate::ledger::Binding;
use crate::provisioning;
use crate::rate::{Rate, RateLimit};
use crate::sealing::Sealer;
use crate::sigv4::{self, Credentials};

/// Where to provision.
pub(super) enum Target {
    /// An emulator in this process.
    Emulator(Box<Scenario>),
    /// AWS, or an emulator elsewhere.
    Endpoint { endpoint: Endpoint, ca_pem: Option<Vec<u8>> },
}

/// What a `provision` command means, as far as the lot's header does not matter.
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) binding: Binding,
    pub(super) ledger: PathBuf,
    pub(super) rates: Rates,
    pub(super) publishes_per_connection: Option<Rate>,
    pub(super) constants: Vec<(String, String)>,
    pub(super) keys: KeyPolicy,
}

impl Settings {
    pub(super) fn new(args: &ProvisionArgs) -> Result<Self, Fatal> {
        let target = target(args)?;
        let template = template(args, &target)?;
        let region = region(args, &target)?;
        check_client_id_prefix(&args.client_id_prefix)?;
        let constants = args.params.iter().map(|param| parse_constant(param)).collect::<Result<_, _>>();
        Ok(Self {
            rates: rates(args, &target),
            publishes_per_connection: publishes_per_connection(&target),
            binding: Binding { template, region, account: account(&target) },
            ledger: args.ledger.clone().unwrap_or_else(|| beside(&args.lot)),
            constants: constants.map_err(|error| usage("--param", error))?,
            keys: keys(args)?,
            target,
        })
    }
}

/// The credentials of the standard environment variables.
pub(super) fn credentials_from_environment() -> Result<Credentials, Fatal> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let wanted = |name: &str| {
        let message = format!(
            "no credentials: {name} is not set; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             (and AWS_SESSION_TOKEN for temporary credentials), or try it out with --emulator"
        );
        Fatal::new(Exit::Unavailable, message)
    };
    Ok(Credentials {
        access_key_id: variable("AWS_ACCESS_KEY_ID").ok_or_else(|| wanted("AWS_ACCESS_KEY_ID"))?,
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY")
            .map(Secret::new)
            .ok_or_else(|| wanted("AWS_SECRET_ACCESS_KEY"))?,
        session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
    })
}

/// Reads a scenario file; without one, the default scenario.
pub(super) fn scenario(file: Option<&Path>) -> Result<Scenario, Fatal> {
    let Some(file) = file else { return Ok(Scenario::default()) };
    let named =
        |error: &dyn std::fmt::Display| Fatal::new(Exit::Usage, format!("{}: {error}", file.display()));
    Scenario::read(file).map_err(|error| named(&error))
}

fn target(args: &ProvisionArgs) -> Result<Target, Fatal> {
    if let Some(file) = &args.emulator {
        let mut scenario = scenario(file.as_deref())?;
        if let Some(region) = &args.region {
            scenario.region.clone_from(region);
        }
        return Ok(Target::Emulator(Box::new(scenario)));
    }
    let endpoint = args.endpoint.as_deref().unwrap_or_default();
    let endpoint = endpoint.parse().map_err(|error| usage("--endpoint", error))?;
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| usage("--ca-file", format!("{}: {error}", file.display())))
    };
    Ok(Target::Endpoint { endpoint, ca_pem: args.ca_file.as_ref().map(read).transpose()? })
}

fn template(args: &ProvisionArgs, target: &Target) -> Result<String, Fatal> {
    let template = match (&args.template, target) {
        (Some(template), _) => template.clone(),
        (None, Target::Emulator(scenario)) => first_template(scenario).to_owned(),
        (None, Target::Endpoint { .. }) => return Err(usage("--template", "is missing")),
    };
    provisioning::check_template_name(&template).map_err(|error| usage("--template", error))?;
    Ok(template)
}

/// The template that a scenario names first.
pub(super) fn first_template(scenario: &Scenario) -> &str {
    scenario.templates.first().map_or(BUILT_IN_TEMPLATE, |template| &template.name)
}

/// The one access key that a scenario's emulator knows.
pub(super) fn scenario_credentials(scenario: &Scenario) -> Credentials {
    Credentials {
        access_key_id: scenario.access_key_id.clone(),
        secret_access_key: Secret::new(scenario.secret_access_key.clone()),
        session_token: scenario.session_token.clone().map(Secret::new),
    }
}

fn region(args: &ProvisionArgs, target: &Target) -> Result<String, Fatal> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region = match target {
        Target::Emulator(scenario) => Some(scenario.region.clone()),
        Target::Endpoint { endpoint, .. } => args
            .region
            .clone()
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| sigv4::region_of(endpoint.host()).map(str::to_owned)),
    };
    region.filter(|region| is_region(region)).ok_or_else(|| {
        usage("--region", "wanted a region such as eu-central-1: the endpoint's name does not say which")
    })
}

fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// MQTT 3.1.1 allows any client id; AWS at most 128 bytes, and reserves a leading `$`. The unique part needs 34 bytes.
fn check_client_id_prefix(prefix: &str) -> Result<(), Fatal> {
    match prefix.len() <= 94 && !prefix.starts_with('$') && !prefix.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(usage(
            "--client-id-prefix",
            "wanted at most 94 bytes, without control characters, not starting with $",
        )),
    }
}

/// AWS discards what exceeds 100 publishes a second, in and out, on one connection, and does not raise it for anyone (AWS
/// General Reference). Nothing on loopback is AWS.
fn publishes_per_connection(target: &Target) -> Option<Rate> {
    is_aws(target).then(|| Rate::per_second(100.0)).flatten()
}

/// AWS's default quotas as of 2024 (AWS General Reference, "AWS IoT Core endpoints and quotas"); an account's own may
/// differ. Nothing on loopback is AWS.
fn rates(args: &ProvisionArgs, target: &Target) -> Rates {
    let is_aws = is_aws(target);
    let rate = |typed: Option<RateLimit>, quota: f64| match typed {
        Some(limit) => limit,
        None if is_aws => RateLimit::per_second(quota),
        None => RateLimit::Unlimited,
    };
    Rates {
        connect: rate(args.connect_rate, 500.0),
        create: match args.keys {
            Keys::Aws => rate(args.create_rate, 10.0),
            Keys::Local => rate(args.create_rate, 20.0),
        },
        register: rate(args.register_rate, 10.0),
    }
}

fn keys(args: &ProvisionArgs) -> Result<KeyPolicy, Fatal> {
    let source = match (args.keys, args.key_type) {
        (Keys::Aws, None) => KeySource::Service,
        (Keys::Aws, Some(_)) => {
            return Err(usage("--key-type", "only goes with --keys local: otherwise AWS makes the keys"));
        }
        (Keys::Local, None | Some(LocalKeyType::P256)) => KeySource::Local(KeyType::P256),
        (Keys::Local, Some(LocalKeyType::Rsa2048)) => KeySource::Local(KeyType::Rsa2048),
    };
    let seal_to = match &args.seal_to[..] {
        [] => None,
        recipients => Some(Sealer::new(recipients).map_err(|error| usage("--seal-to", error))?),
    };
    Ok(KeyPolicy { source, seal_to })
}

/// What tells one account from another, as far as the outside can: the endpoint's host. Everything on loopback is one.
fn account(target: &Target) -> String {
    match target {
        Target::Emulator(_) => String::from("emulator"),
        Target::Endpoint { endpoint, .. } if is_loopback(endpoint) => String::from("localhost"),
        Target::Endpoint { endpoint, .. } => endpoint.host().to_ascii_lowercase(),
    }
}

/// Where the control plane is, if it is not where AWS has it: what serves MQTT on loopback is an emulator, which serves
/// both.
pub(super) fn control_endpoint(args: &ProvisionArgs, endpoint: &Endpoint) -> Option<String> {
    let emulated = || is_loopback(endpoint).then(|| format!("https://{}", endpoint.host_header()));
    args.control_endpoint.clone().or_else(emulated)
}

fn is_aws(target: &Target) -> bool {
    matches!(target, Target::Endpoint { endpoint, .. } if !is_loopback(endpoint))
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.host();
    let address: Option<IpAddr> = host.parse().ok();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_some_and(|address| address.is_loopback())
}

fn beside(lot: &Path) -> PathBuf {
    let mut name = lot.file_stem().map_or_else(|| OsString::from("lot"), OsString::from);
    name.push(".ledger");
    lot.with_file_name(name)
}

fn usage(argument: &str, error: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Usage, format!("{argument}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_stands_beside_the_lot() {
        for (lot, ledger) in [("a/lot.csv", "a/lot.ledger"), ("lot", "lot.ledger"), ("a.b.csv", "a.b.ledger")]
        {
            assert_eq!(beside(Path::new(lot)), Path::new(ledger));
        }
    }
}
