//! What `verify` and `cleanup` share, which look after a ledger's devices in the account.
//!
//! Owns the way from a ledger to the account that it was made for, and the frame of such a run: signals and progress.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::args::TargetArgs;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::progress::{Progress as Shown, View};
use super::settings::usage;
use super::signals::{self, Wheel};
use super::speech::warn;
use super::target::{Site, Target};
use crate::aftercare::{Ended, Expectation, Halt, Progress, Setting};
use crate::control_plane::AskError;
use crate::endpoint::Endpoint;
use crate::ledger::{Binding, Ledger, LotInfo, NotThere, Problem, RunInfo, Selection};
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

/// Opens a ledger for writing, and the account that it was made for.
///
/// # Errors
/// If the ledger cannot be used, or was made for another account or region.
pub(super) async fn open(
    path: &Path,
    mut target: TargetArgs,
    template_file: Option<&Path>,
) -> Result<Tended, Fatal> {
    if target.emulator.is_some() {
        let message =
            "starts empty, and has nothing of this ledger; name the emulator that has it with --endpoint";
        return Err(usage("--emulator", message));
    }
    let ledger = Ledger::reopen(path).map_err(ledger_error)?;
    let binding = ledger.view().lot().binding.clone();
    // An endpoint whose name contains its region takes precedence; any other is in the ledger's region.
    let says_region = target.endpoint.as_deref().and_then(|endpoint| endpoint.parse::<Endpoint>().ok());
    if target.region.is_none() && says_region.is_none_or(|endpoint| region_of(endpoint.host()).is_none()) {
        target.region = Some(binding.region.clone());
    }
    let target = target.resolve().await?;
    check_binding(path, &binding, &target)?;
    let site = target.open().await?;
    let (expectation, remarks) = expect(&site, ledger.view().lot(), &runs(&ledger)?, template_file).await?;
    let setting = setting(&site, expectation);
    Ok(Tended { ledger, site, setting, remarks })
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

fn check_binding(path: &Path, binding: &Binding, target: &Target) -> Result<(), Fatal> {
    let account = target.account().to_string();
    let (what, recorded, found) = if account != binding.account {
        ("--endpoint", &binding.account, &account)
    } else if target.region != binding.region {
        ("--region", &binding.region, &target.region)
    } else {
        return Ok(());
    };
    let message = format!("found {found}; the ledger {} was made for {recorded}", path.display());
    Err(usage(what, message))
}

/// What devices should be like, according to the template in the file or in the account.
pub(super) async fn expect(
    site: &Site,
    lot: &LotInfo,
    runs: &[RunInfo],
    template_file: Option<&Path>,
) -> Result<(Expectation, Vec<String>), Fatal> {
    let name = &lot.binding.template;
    let (body, has_hook) = match template_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| usage("--template-file", format!("{}: {error}", file.display())))?;
            (body_of(&text).into_owned(), false)
        }
        None => match site.control_plane().template(name).await {
            Ok(described) => (described.body, described.hook.is_some()),
            Err(error @ AskError::Refused { .. }) => {
                let hint = "get new credentials (temporary ones expire), and check --region";
                return Err(Fatal::new(Exit::NotPermitted, format!("{error}; {hint}")));
            }
            Err(error) => {
                let remark = format!(
                    "what devices should be like is not known, for template {name} was not found: {error}; \
                     --template-file gives its body"
                );
                warn(format_args!("warning: {remark}"));
                return Ok((Expectation::none(), vec![remark]));
            }
        },
    };
    match Expectation::new(&body, has_hook, lot, runs) {
        Ok(expectation) => Ok((expectation, Vec::new())),
        Err(error) if template_file.is_some() => Err(usage("--template-file", error)),
        Err(error) => {
            let remark = format!("what devices should be like is not known: template {name}: {error}");
            warn(format_args!("warning: {remark}"));
            Ok((Expectation::none(), vec![remark]))
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

/// The exit code for this end, and what to report; `None` if all devices were examined.
pub(super) fn ended(ended: Ended, verb: &str) -> Option<(Exit, Vec<String>)> {
    Some(match ended {
        Ended::Complete => return None,
        Ended::Stopped => {
            (Exit::Interrupted, vec![format!("{verb} was stopped; run the same command again to go on")])
        }
        Ended::Unanswered { devices, error } => {
            let words = format!(
                "error: the account did not answer for {}: {error}; run the same command again later to go on",
                super::advice::number(devices, "device", "devices")
            );
            (Exit::Later, vec![words])
        }
        Ended::Refused(error) => {
            let hint = match &error {
                AskError::NotPermitted { .. } => {
                    "allow it to these credentials, and run the same command again"
                }
                _ => "get new credentials (temporary ones expire), and run the same command again",
            };
            (Exit::NotPermitted, vec![format!("error: {error}; {hint}")])
        }
        Ended::Ledger(error) => {
            let Fatal { exit, message } = ledger_error(error);
            (exit, vec![format!("error: {message}")])
        }
    })
}
