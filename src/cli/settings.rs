//! Arguments that several verbs share, resolved. `target` resolves the target and the identity, `lot` the lot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::args::{KeyArgs, Keys, LocalKeyType, SinkArgs};
use super::exit::{Exit, Fatal};
use super::speech::warn;
use crate::call::Call;
use crate::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
use crate::engine::{KeyPolicy, KeySource};
use crate::keys::KeyType;
use crate::provisioning;
use crate::sealing::Sealer;

/// Finds a scenario by its name or file; the default one without either.
pub(super) fn scenario(file: Option<&Path>) -> Result<Scenario, Fatal> {
    let Some(file) = file else { return Ok(Scenario::default()) };
    let named =
        |error: &dyn std::fmt::Display| Fatal::new(Exit::Usage, format!("{}: {error}", file.display()));
    Scenario::find(file).map_err(|error| named(&error))
}

/// Checks that AWS allows this template name.
pub(super) fn check_template(name: &str) -> Result<(), Fatal> {
    provisioning::check_template_name(name).map_err(|error| usage("--template", error))
}

/// The first template of a scenario.
pub(super) fn first_template(scenario: &Scenario) -> &str {
    scenario.templates.first().map_or(BUILT_IN_TEMPLATE, |template| &template.name)
}

/// Whether the devices' own certification requests are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requests {
    Given,
    Absent,
}

/// How private keys are made and kept.
pub(super) fn key_policy(args: &KeyArgs, requests: Requests) -> Result<KeyPolicy, Fatal> {
    let source = match (args.source, requests) {
        (None | Some(Keys::Csr), Requests::Given) => KeySource::Device,
        (Some(Keys::Csr), Requests::Absent) => {
            return Err(usage("--keys", "csr needs --csr-column or --csr-dir, of `provision`"));
        }
        (Some(Keys::Aws | Keys::Local), Requests::Given) => {
            return Err(usage(
                "--keys",
                "with --csr-column or --csr-dir the devices have the keys: wanted csr",
            ));
        }
        (None | Some(Keys::Aws), Requests::Absent) => KeySource::Service,
        (Some(Keys::Local), Requests::Absent) => KeySource::Local(match args.key_type {
            None | Some(LocalKeyType::P256) => KeyType::P256,
            Some(LocalKeyType::Rsa2048) => KeyType::Rsa2048,
        }),
    };
    if args.key_type.is_some() && !matches!(source, KeySource::Local(_)) {
        return Err(usage("--key-type", "only goes with --keys local: otherwise this machine makes no keys"));
    }
    let recipients = recipients(args)?;
    if source == KeySource::Device && !recipients.is_empty() {
        return Err(usage("--seal-to", "seals private keys, and with --keys csr none comes here"));
    }
    let seal_to = match &recipients[..] {
        [] => None,
        recipients => Some(Sealer::new(recipients).map_err(|error| usage("--seal-to", error))?),
    };
    Ok(KeyPolicy { source, seal_to, ..KeyPolicy::default() })
}

/// The keys sink of the ledger at `ledger`, if one is wanted.
pub(super) fn keys_sink(args: SinkArgs, keys: &KeyPolicy, ledger: &Path) -> Result<Option<PathBuf>, Fatal> {
    let Some(sink) = args.keys_sink else { return Ok(None) };
    if keys.seal_to.is_none() && keys.source != KeySource::Device {
        return Err(usage("--keys-sink", "needs --seal-to: no key in plain text goes to a second place"));
    }
    let found = fs::metadata(&sink).ok().filter(fs::Metadata::is_dir).ok_or_else(|| {
        let found = format!("--keys-sink: found no directory at {}; nothing was sent", sink.display());
        Fatal::new(Exit::LedgerUnusable, found)
    })?;
    let beside = ledger.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if fs::metadata(beside).is_ok_and(|beside| beside.dev() == found.dev()) {
        warn("warning: --keys-sink is on the ledger's own file system, and would be lost together with it");
    }
    Ok(Some(sink))
}

/// The age recipients from the arguments and from files.
fn recipients(args: &KeyArgs) -> Result<Vec<String>, Fatal> {
    let mut recipients = args.seal_to.clone();
    for file in &args.seal_to_file {
        let wrong =
            |error: &dyn std::fmt::Display| usage("--seal-to-file", format!("{}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let found: Vec<String> =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
        if found.is_empty() {
            return Err(wrong(&"found no recipient; wanted one a line, such as age1…"));
        }
        Sealer::new(&found).map_err(|error| wrong(&error))?;
        recipients.extend(found);
    }
    Ok(recipients)
}

/// The calls that create certificates: devices with their own keys keep them. Calls that are not used are not
/// subscribed to, and need no permission.
pub(super) fn creating(source: KeySource, have_keys: bool) -> Vec<Call> {
    match (source, have_keys) {
        (KeySource::Local(_) | KeySource::Device, _) => vec![Call::CreateCertificateFromCsr],
        (KeySource::Service, true) => vec![Call::CreateKeysAndCertificate, Call::CreateCertificateFromCsr],
        (KeySource::Service, false) => vec![Call::CreateKeysAndCertificate],
    }
}

/// The error for a wrong `argument`.
pub(super) fn usage(argument: &str, error: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Usage, format!("{argument}: {error}"))
}
