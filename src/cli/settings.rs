//! What arguments mean that several verbs have. Where to work and as whom is `target`'s, what a lot is `lot`'s.

use std::path::Path;

use super::args::{KeyArgs, Keys, LocalKeyType};
use super::exit::{Exit, Fatal};
use crate::call::Call;
use crate::certificate::Secret;
use crate::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
use crate::engine::{KeyPolicy, KeySource};
use crate::keys::KeyType;
use crate::provisioning;
use crate::sealing::Sealer;
use crate::sigv4::Credentials;

/// Finds a scenario by its name or file; without either, the default one.
pub(super) fn scenario(file: Option<&Path>) -> Result<Scenario, Fatal> {
    let Some(file) = file else { return Ok(Scenario::default()) };
    let named =
        |error: &dyn std::fmt::Display| Fatal::new(Exit::Usage, format!("{}: {error}", file.display()));
    Scenario::find(file).map_err(|error| named(&error))
}

/// Whether AWS allows such a template name.
pub(super) fn check_template(name: &str) -> Result<(), Fatal> {
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
    Ok(KeyPolicy { source, seal_to, ..KeyPolicy::default() })
}

/// How certificates are asked for: devices that have keys of their own keep them. What is not used is not subscribed to,
/// and need not be permitted.
pub(super) fn creating(source: KeySource, have_keys: bool) -> Vec<Call> {
    match (source, have_keys) {
        (KeySource::Local(_), _) => vec![Call::CreateCertificateFromCsr],
        (KeySource::Service, true) => vec![Call::CreateKeysAndCertificate, Call::CreateCertificateFromCsr],
        (KeySource::Service, false) => vec![Call::CreateKeysAndCertificate],
    }
}

/// The end of a command whose `argument` is wrong.
pub(super) fn usage(argument: &str, error: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Usage, format!("{argument}: {error}"))
}
