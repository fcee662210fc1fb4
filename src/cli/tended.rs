//! What `verify` and `cleanup` share, which look after a ledger's devices in the account.
//!
//! Owns the way from a ledger to the account that it was made for, and the frame of such a run: signals and progress.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::args::{ShardArgs, TargetArgs, TypedShard};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::ownership::{Ownership, ownership};
use super::progress::{Progress as Shown, View};
use super::settings::usage;
use super::shard::Part;
use super::signals::{self, Wheel};
use super::speech::warn;
use super::target::{Site, Target, asked};
use crate::aftercare::{Ended, Expectation, Halt, Progress, Setting};
use crate::control_plane::{AskError, ControlPlane};
use crate::ledger::{
    Account, Binding, Ledger, LotInfo, MadeDevice, MadeKind, MadeScope, NotThere, Problem, RunInfo, Selection,
};
use crate::shard::Shard;
use crate::sigv4::region_of;
use crate::template::body_of;

/// A ledger and the account that it was made for.
pub(super) struct Tended {
    pub(super) ledger: Ledger,
    pub(super) site: Site,
    pub(super) setting: Setting,
    /// What could not be queried or compared.
    pub(super) remarks: Vec<String>,
}

/// A ledger that was opened by its file's name.
pub(super) struct Opened {
    /// Its file.
    pub(super) path: PathBuf,
    /// The shard whose rows are chosen; `None` for all rows of the ledger.
    pub(super) shard: Option<Shard>,
    pub(super) tended: Tended,
}

/// Opens a ledger for writing, and the account that it was made for.
///
/// # Errors
/// If the ledger cannot be used, or was made for another account or region.
pub(super) async fn open(
    path: &Path,
    shard: Option<TypedShard>,
    mut target: TargetArgs,
    template_file: Option<&Path>,
) -> Result<Opened, Fatal> {
    if target.emulator.is_some() {
        let message =
            "starts empty, and has nothing of this ledger; name the emulator that has it with --endpoint";
        return Err(usage("--emulator", message));
    }
    let part = Part::new(&ShardArgs { shard, start_at: None })?;
    let path = if path.exists() { path.to_owned() } else { part.own_file(path.to_owned()) };
    let ledger = Ledger::reopen(&path).map_err(ledger_error)?;
    let binding = ledger.view().lot().binding.clone();
    let shard = rows_of(part.shard, binding.shard)?;
    // An endpoint whose name contains its region takes precedence; any other is in the ledger's region.
    let endpoint = target.endpoint()?;
    if target.region.is_none() && endpoint.is_none_or(|endpoint| region_of(endpoint.host()).is_none()) {
        target.region = Some(binding.region.clone());
    }
    let target = target.resolve().await?;
    check_binding(&path, &binding, &target)?;
    let site = target.open().await?;
    check_account(&site, &ledger).await?;
    let (expectation, remarks) = expect(&site, ledger.view().lot(), &runs(&ledger)?, template_file).await?;
    let setting = setting(&site, expectation);
    Ok(Opened { path, shard, tended: Tended { ledger, site, setting, remarks } })
}

/// Which rows are meant by a shard: those of a whole ledger that are its own, or all of its own ledger.
fn rows_of(typed: Option<Shard>, recorded: Option<Shard>) -> Result<Option<Shard>, Fatal> {
    match (typed, recorded) {
        (Some(typed), Some(recorded)) if typed != recorded => {
            let message = format!("found {typed}; the ledger is of shard {recorded}: leave --shard out");
            Err(usage("--shard", message))
        }
        (typed, None) => Ok(typed),
        (_, Some(_)) => Ok(None),
    }
}

/// What a run in the account of `site` needs.
pub(super) fn setting(site: &Site, expectation: Expectation) -> Setting {
    Setting {
        control_plane: Arc::new(site.control_plane()),
        expectation: Arc::new(expectation),
        clock: SystemTime::now,
        progress: Arc::new(Progress::default()),
        halt: Halt::default(),
    }
}

fn runs(ledger: &Ledger) -> Result<Vec<RunInfo>, Fatal> {
    ledger.view().runs().map_err(ledger_error)
}

/// Checks that a ledger was made for the account and the region of `target`.
///
/// # Errors
/// If it was made for others.
pub(super) fn check_binding(path: &Path, binding: &Binding, target: &Target) -> Result<(), Fatal> {
    let account = target.account();
    let (what, recorded, found) = if account != binding.account {
        ("--endpoint", binding.account.to_string(), account.to_string())
    } else if target.region() != binding.region {
        ("--region", binding.region.clone(), target.region().to_owned())
    } else {
        return Ok(());
    };
    let message = format!("found {found}; the ledger {} was made for {recorded}", path.display());
    Err(usage(what, message))
}

/// Checks that the credentials are of the account that the ledger was made for. Where DescribeEndpoint does not show it,
/// one of the ledger's certificates has to be there.
///
/// # Errors
/// If they are of another account, or the account does not answer.
pub(super) async fn check_account(site: &Site, ledger: &Ledger) -> Result<(), Fatal> {
    let account = &ledger.view().lot().binding.account;
    let why = match (ownership(site, account).await?, account) {
        (Ownership::Shown, _) | (_, Account::Emulator | Account::Loopback) => return Ok(()),
        (Ownership::Unclear(why), Account::Endpoint(_)) => why,
    };
    if has_certificate_of(&site.control_plane(), ledger).await? {
        return Ok(());
    }
    let message = format!(
        "it is not clear whether these credentials are of the ledger's account ({why}), and the account has none of the \
         ledger's first certificates; use the credentials of the ledger's account (--profile chooses them). Nothing was \
         done"
    );
    Err(Fatal::new(Exit::Unavailable, message))
}

/// Whether the account has one of the ledger's first certificates, or the ledger has none. Those of registered devices:
/// the service deletes a certificate that nothing was registered with.
async fn has_certificate_of(account: &ControlPlane, ledger: &Ledger) -> Result<bool, Fatal> {
    let mut devices = first_made(ledger, MadeKind::OnceRegistered)?;
    if devices.is_empty() {
        devices = first_made(ledger, MadeKind::Certified)?;
    }
    for certificate in devices.iter().flat_map(|device| &device.certificates) {
        match account.certificate(certificate.id.as_str()).await {
            Ok(_) => return Ok(true),
            Err(AskError::NotFound { .. }) => {}
            Err(error) => {
                let allow = "allow iot:DescribeCertificate to these credentials";
                return Err(asked(&error, allow, "try again later"));
            }
        }
    }
    Ok(devices.is_empty())
}

fn first_made(ledger: &Ledger, of: MadeKind) -> Result<Vec<MadeDevice>, Fatal> {
    const TRIED: usize = 20;
    let view = ledger.view();
    let mut devices = view.made_devices(MadeScope::of(of)).map_err(ledger_error)?;
    view.next_made(&mut devices, TRIED).map_err(ledger_error)
}

/// What devices should be like, according to the template in the file or in the account.
pub(super) async fn expect(
    site: &Site,
    lot: &LotInfo,
    runs: &[RunInfo],
    template_file: Option<&Path>,
) -> Result<(Expectation, Vec<String>), Fatal> {
    let name = &lot.binding.template;
    let described = site.control_plane().template(name).await;
    let (body, has_hook, remark) = match (template_file, described) {
        (Some(file), described) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| usage("--template-file", format!("{}: {error}", file.display())))?;
            let has_hook = described.as_ref().is_ok_and(|described| described.hook.is_some());
            let remark = described.err().map(|error| {
                format!(
                    "whether template {name} has a pre-provisioning hook is not known ({error}): what one has changed \
                     is shown as a difference"
                )
            });
            (body_of(&text).into_owned(), has_hook, remark)
        }
        (None, Ok(described)) => (described.body, described.hook.is_some(), None),
        (None, Err(error @ AskError::NotFound { .. })) => {
            let remark = format!(
                "what devices should be like is not known: the account has no template {name} ({error}); \
                 --template-file gives its body"
            );
            warn(format_args!("warning: {remark}"));
            return Ok((Expectation::none(), vec![remark]));
        }
        // Less would be checked without a template that is there.
        (None, Err(error)) => {
            let allow =
                "allow it to these credentials; verify and cleanup also take its body from --template-file";
            return Err(asked(&error, allow, "try again later"));
        }
    };
    remark.iter().for_each(|remark| warn(format_args!("warning: {remark}")));
    match Expectation::new(&body, has_hook, lot, runs) {
        Ok(expectation) => Ok((expectation, remark.into_iter().collect())),
        Err(error) if template_file.is_some() => Err(usage("--template-file", error)),
        Err(error) => {
            let remark = format!("what devices should be like is not known: template {name}: {error}");
            warn(format_args!("warning: {remark}"));
            Ok((Expectation::not_read(error.to_string()), vec![remark]))
        }
    }
}

/// The devices that were named.
///
/// # Errors
/// If one of them is not in the ledger.
pub(super) fn named(only: &[String], ledger: &Ledger) -> Result<HashSet<String>, Fatal> {
    if only.is_empty() {
        return Ok(HashSet::new());
    }
    let selection = Selection { keys: only.to_vec(), ..Selection::default() };
    match ledger.view().count_certified(&selection) {
        Err(error) if matches!(error.problem, Problem::NotThere(NotThere::Keys { .. })) => {
            Err(ledger_error(error))
        }
        _ => Ok(only.iter().cloned().collect()),
    }
}

/// Runs `work` while listening for signals and showing progress.
pub(super) async fn attend<T>(
    work: impl Future<Output = T>,
    setting: &Setting,
    total: u64,
    wanting: &'static str,
    drain_timeout: Duration,
) -> T {
    let wheel = Wheel { drain: setting.halt.drain.clone(), abort: setting.halt.abort.clone() };
    let (sender, snapshots) = watch::channel(());
    let live = Shown::start();
    let (progress, began) = (setting.progress.clone(), Instant::now());
    let view = move |(): &()| view(&progress, total, wanting, began.elapsed());
    let mut beside = JoinSet::new();
    beside.spawn(signals::steer(wheel, drain_timeout));
    beside.spawn(live.clone().follow(snapshots, view));
    beside.spawn(async move {
        let mut ticks = interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            sender.send_replace(());
        }
    });
    let done = work.await;
    beside.shutdown().await;
    live.finish();
    done
}

fn view(progress: &Progress, total: u64, wanting: &'static str, elapsed: Duration) -> View {
    let load = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let done = load(&progress.done);
    let per_second = done as f64 / elapsed.as_secs_f64().max(0.001);
    View::of_devices(done, total, per_second, load(&progress.under_way), (load(&progress.wanting), wanting))
}

/// How to go on with a verb of its own.
pub(super) const AGAIN: &str = "run the same command again";

/// The exit code for this end, and what to report; `None` if all devices were examined. `again` says how to go on.
pub(super) fn ended(ended: Ended, verb: &str, again: &str) -> Option<(Exit, Vec<String>)> {
    Some(match ended {
        Ended::Complete => return None,
        Ended::Stopped => (Exit::Interrupted, vec![format!("{verb} was stopped; {again} to go on")]),
        Ended::Unanswered { devices, error } => {
            let words = format!(
                "error: the account did not answer for {}: {error}; {again} later to go on",
                crate::wording::number(devices, "device", "devices")
            );
            (Exit::Later, vec![words])
        }
        Ended::Refused(error) => {
            let hint = match &error {
                AskError::NotPermitted { .. } => "allow it to these credentials",
                _ => "get new credentials (temporary ones expire)",
            };
            (Exit::NotPermitted, vec![format!("error: {error}; {hint}, and {again}")])
        }
        Ended::Ledger(error) => {
            let Fatal { exit, message } = ledger_error(error);
            (exit, vec![format!("error: {message}")])
        }
    })
}
