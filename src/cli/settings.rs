//! What the arguments mean. Where to work and as whom is `target`'s.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{KeyArgs, Keys, LocalKeyType, ProvisionArgs};
use super::exit::{Exit, Fatal};
use super::rates::{ChosenRates, publishes_per_connection};
use super::target::{Service, Target};
use crate::certificate::Secret;
use crate::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
use crate::engine::{KeyPolicy, KeySource};
use crate::identity::parse_constant;
use crate::keys::KeyType;
use crate::ledger::Binding;
use crate::provisioning;
use crate::rate::Rate;
use crate::sealing::Sealer;
use crate::sigv4::Credentials;

/// What a `provision` command means, as far as the lot's header does not matter.
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) binding: Binding,
    pub(super) ledger: PathBuf,
    pub(super) rates: ChosenRates,
    pub(super) publishes_per_connection: Option<Rate>,
    pub(super) constants: Vec<(String, String)>,
    pub(super) keys: KeyPolicy,
}

impl Settings {
    pub(super) async fn new(args: &ProvisionArgs) -> Result<Self, Fatal> {
        // What is wrong with the arguments is told before the account is asked anything.
        let keys = key_policy(&args.keys)?;
        check_client_id_prefix(&args.client_id_prefix)?;
        let constants = args.params.iter().map(|param| parse_constant(param)).collect::<Result<_, _>>();
        let constants = constants.map_err(|error| usage("--param", error))?;
        if let Some(template) = &args.template {
            check_template(template)?;
        }
        let target = args.target.resolve().await?;
        let template = template(args.template.as_deref(), &target)?;
        Ok(Self {
            rates: ChosenRates::new(args, target.is_aws()),
            publishes_per_connection: publishes_per_connection(target.is_aws()),
            binding: Binding { template, region: target.region.clone(), account: target.account() },
            ledger: args.ledger.clone().unwrap_or_else(|| beside(&args.lot)),
            constants,
            keys,
            target,
        })
    }
}

/// Finds a scenario by its name or file; without either, the default one.
pub(super) fn scenario(file: Option<&Path>) -> Result<Scenario, Fatal> {
    let Some(file) = file else { return Ok(Scenario::default()) };
    let named =
        |error: &dyn std::fmt::Display| Fatal::new(Exit::Usage, format!("{}: {error}", file.display()));
    Scenario::find(file).map_err(|error| named(&error))
}

/// The provisioning template: as typed, or the emulator's first.
pub(super) fn template(typed: Option<&str>, target: &Target) -> Result<String, Fatal> {
    let template = match (typed, &target.service) {
        (Some(template), _) => template.to_owned(),
        (None, Service::Emulator(scenario)) => first_template(scenario).to_owned(),
        (None, Service::Endpoint(_)) => return Err(usage("--template", "is missing")),
    };
    check_template(&template)?;
    Ok(template)
}

fn check_template(name: &str) -> Result<(), Fatal> {
    provisioning::check_template_name(name).map_err(|error| usage("--template", error))
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

/// MQTT 3.1.1 allows any client id; AWS at most 128 bytes, and reserves a leading `$`. The unique part needs 34 bytes.
pub(super) fn check_client_id_prefix(prefix: &str) -> Result<(), Fatal> {
    match prefix.len() <= 94 && !prefix.starts_with('$') && !prefix.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(usage(
            "--client-id-prefix",
            "wanted at most 94 bytes, without control characters, not starting with $",
        )),
    }
}

/// What is to be done about private keys.
pub(super) fn key_policy(args: &KeyArgs) -> Result<KeyPolicy, Fatal> {
    let source = match (args.source, args.key_type) {
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

fn beside(lot: &Path) -> PathBuf {
    let mut name = lot.file_stem().map_or_else(|| OsString::from("lot"), OsString::from);
    name.push(".ledger");
    lot.with_file_name(name)
}

pub(super) fn usage(argument: &str, error: impl std::fmt::Display) -> Fatal {
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
