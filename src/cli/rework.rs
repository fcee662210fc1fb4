//! `fleetmint retry --state registered --reissue`: new certificates for devices whose board or key was lost.
//!
//! The old certificate is made inactive in the account before the ledger returns the device to pending: whatever
//! fails, no device is left with two active certificates.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::args::TargetArgs;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::ownership::{Ownership, ownership};
use super::question::waiting_for;
use super::settings::usage;
use super::speech::{print, say, warn};
use super::target::{Site, asked};
use crate::control_plane::{AskError, ControlPlane};
use crate::event::DeviceState;
use crate::ledger::{Account, Binding, CertifiedDevice, Ledger, LedgerError, Rework, Selection};
use crate::wording::number;

/// Where the account is asked; the ledger knows its region and endpoint.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service (with --state registered)")]
pub(super) struct AccountArgs {
    /// The endpoint of the account [default: the ledger's].
    #[arg(long, value_name = "HOST|URL")]
    pub(super) endpoint: Option<String>,

    /// Take the credentials of this profile of AWS's configuration files, and of nowhere else.
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,

    /// Trust the certificates of this PEM file, besides the public authorities.
    #[arg(long, value_name = "PEM")]
    pub(super) ca_file: Option<PathBuf>,

    /// Where to ask for certificates to be made inactive [default: the region's https://iot.REGION.amazonaws.com; on loopback
    /// the endpoint itself].
    #[arg(long, value_name = "URL")]
    pub(super) control_endpoint: Option<String>,
}

/// The state of an old certificate in the account.
enum Old {
    /// It is inactive, or the ledger's account has it no more.
    Inactive,
    /// It could not be changed, for this reason.
    Untouched(String),
}

/// Returns registered devices to pending, so that the next provision gives each a new certificate. `agree` is called
/// with a description of the consequences before anything is done.
pub(super) async fn run(
    mut ledger: Ledger,
    keys: &[String],
    account: AccountArgs,
    agree: impl FnOnce(&str) -> bool,
) -> Result<Exit, Fatal> {
    let devices = registered(&ledger, keys)?;
    let binding = &ledger.view().lot().binding;
    let site = site(binding, account).await?;
    let owner = match &site {
        Some(site) => Some(ownership(site, &binding.account).await?),
        None => None,
    };
    if !agree(&warning(&devices, site.is_some())) {
        say("nothing was changed");
        return Ok(Exit::Interrupted);
    }
    let account = site.as_ref().map(Site::control_plane);
    let mut reworks = Vec::with_capacity(devices.len());
    for device in devices {
        let old = match account.as_ref().zip(owner.as_ref()) {
            Some((account, owner)) => deactivate(account, owner, &device).await?,
            None => Old::Untouched(String::from("the account was a built-in emulator, which is gone")),
        };
        let deactivated_at = match old {
            Old::Inactive => Some(SystemTime::now()),
            Old::Untouched(why) => {
                let id = &device.certificate_id;
                warn(format_args!("warning: {}: its old certificate {id} stays as it is: {why}", device.key));
                None
            }
        };
        reworks.push(Rework { key: device.key, certificate: device.certificate_id, deactivated_at });
    }
    ledger.rework(&reworks, SystemTime::now()).map_err(ledger_error)?;
    ledger.close().map_err(ledger_error)?;
    let inactive = reworks.iter().filter(|rework| rework.deactivated_at.is_some()).count();
    print(&format!(
        "{} pending again, {} inactive; the ledger keeps all of them\n",
        number(reworks.len() as u64, "registered device is", "registered devices are"),
        number(inactive as u64, "old certificate is", "old certificates are"),
    ));
    say("run the same provision command again to give them new ones: fleetmint status shows what it needs");
    if let Some(site) = site {
        site.close().await;
    }
    Ok(Exit::Complete)
}

/// The devices with these keys, all of them registered.
fn registered(ledger: &Ledger, keys: &[String]) -> Result<Vec<CertifiedDevice>, Fatal> {
    let states = vec![DeviceState::Registered];
    let selection = Selection { states, since_run: None, keys: keys.to_vec() };
    // Reports which of the keys is wrong.
    ledger.view().count_certified(&selection).map_err(ledger_error)?;
    let mut devices = Vec::new();
    let keep = |device: CertifiedDevice| {
        devices.push(device);
        Ok::<_, LedgerError>(())
    };
    ledger.view().for_each_certified(&selection, keep).map_err(ledger_error)?;
    Ok(devices)
}

/// The ledger's account; `None` if it no longer exists.
async fn site(binding: &Binding, args: AccountArgs) -> Result<Option<Site>, Fatal> {
    let endpoint = match (binding.account.clone(), args.endpoint) {
        (Account::Emulator, _) => return Ok(None),
        (Account::Loopback, None) => {
            return Err(usage(
                "--endpoint",
                "is missing: the ledger's account is on this machine, at a port that the ledger does not know",
            ));
        }
        (_, Some(typed)) => typed,
        (Account::Endpoint(host), None) => host,
    };
    let target = TargetArgs {
        emulator: None,
        endpoint: Some(endpoint),
        region: Some(binding.region.clone()),
        profile: args.profile,
        ca_file: args.ca_file,
        control_endpoint: args.control_endpoint,
        service_quotas_endpoint: None,
        claim_cert: None,
        claim_key: None,
        client_id_prefix: String::from("fleetmint"),
    };
    let target = target.resolve().await?;
    if target.account() != binding.account {
        let found = target.account();
        return Err(usage(
            "--endpoint",
            format!("is of account {found}; the ledger's is {}", binding.account),
        ));
    }
    target.open().await.map(Some)
}

async fn deactivate(
    account: &ControlPlane,
    owner: &Ownership,
    device: &CertifiedDevice,
) -> Result<Old, Fatal> {
    let deactivated = account.deactivate(device.certificate_id.as_str());
    match (waiting_for("an answer to UpdateCertificate", deactivated).await, owner) {
        (Ok(()), _) | (Err(AskError::NotFound { .. }), Ownership::Shown) => Ok(Old::Inactive),
        (Err(AskError::NotFound { .. }), Ownership::Unclear(why)) => Ok(Old::Untouched(format!(
            "this account does not have it, and it is not known to be the ledger's account: {why}"
        ))),
        (Err(error @ AskError::NotPermitted { .. }), _) => Ok(Old::Untouched(error.to_string())),
        (Err(error), _) => Err(asked(
            &error,
            "allow iot:UpdateCertificate to these credentials",
            "the ledger was not changed; run the same command again",
        )),
    }
}

fn warning(devices: &[CertifiedDevice], is_asked: bool) -> String {
    const SHOWN: usize = 10;
    let mut lines: Vec<_> = devices
        .iter()
        .take(SHOWN)
        .map(|device| {
            let thing = device.thing.as_ref().map_or("", |thing| thing.thing_name.as_str());
            let thing = if thing.is_empty() { String::new() } else { format!(", thing {thing}") };
            format!("  {}: certificate {}{thing}", device.key, device.certificate_id)
        })
        .collect();
    if devices.len() > SHOWN {
        lines.push(format!("  … and {} more", devices.len() - SHOWN));
    }
    let fate = if is_asked {
        "are made inactive in the account first: a device that still uses one cannot connect any more"
    } else {
        "stay as they are: there is no account to ask"
    };
    format!(
        "these registered devices get another certificate. The ones that they have {fate}. The ledger keeps both.\n{}",
        lines.join("\n")
    )
}
