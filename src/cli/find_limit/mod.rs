//! `fleetmint find-limit`: the highest rate that the service bears, with its evidence.
//!
//! Owns the command from its arguments to its exit code. What to try is [`crate::limit_search`]'s, trying it the engine's.

mod args;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::args::Keys;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::load::{DeviceArgs, Devices, connector};
use super::open_files;
use super::progress::Progress;
use super::prometheus::Scrapes;
use super::settings::{check_client_id_prefix, key_policy, template, usage};
use super::signals;
use super::speech::{print, say};
use super::target::{Service, Site, Target};
use crate::control_plane::{AccountQuota, Quota, QuotaSource, account_quotas};
use crate::emulator::scenario::BUILT_IN_TEMPLATE;
use crate::engine::find::{self, FindEnd, FindOutcome, FindPlan, FindSnapshot, Sought};
use crate::engine::load::{LoadPlan, OnLoss, Scenario};
use crate::engine::{CommitMode, KeyPolicy, KeySource, Stop};
use crate::event::Operation;
use crate::identity::ParameterPlan;
use crate::ledger::{Binding, Counts, RunId};
use crate::limit_search::{Finding, SearchSettings, Stopped};
use crate::provisioning::{Lane, Topics};
use crate::rate::{Rate, RateLimit};
use crate::report::{IssuedAhead, LimitReport, QuotaReport};
use crate::schedule::{Profile, Spacing};

pub(super) use args::FindLimitArgs;
use args::{FindCommand, SearchArgs};

/// How close the rate that is borne and the one that is not must come.
const PRECISION: f64 = 0.05;
/// An ownership token lives one hour; what is left at this age may lapse on the way.
const TOKEN_LIFETIME: Duration = Duration::from_secs(57 * 60);

pub(super) async fn run(args: FindLimitArgs) -> Exit {
    match find_limit(&args.sought).await {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

async fn find_limit(command: &FindCommand) -> Result<Exit, Fatal> {
    let args = command.search();
    check_client_id_prefix(&args.client_id_prefix)?;
    let keys = command.devices().map_or(Ok(KeyPolicy::default()), |devices| key_policy(&devices.keys))?;
    let scrapes = Scrapes::listen(args.prometheus).await?;
    let target = args.target.resolve().await?;
    let devices = match command.devices() {
        Some(devices) => Some(open_devices(command, devices, &target)?),
        None => None,
    };
    open_files::allow(args.max_connections, &target.service, "--max-connections")?;
    let site = target.open(&args.target).await?;
    let topics = topics(command, &keys, devices.as_ref());
    let connector = connector(&args.client_id_prefix, args.timeout, &target, &site, topics)?;
    let quota = quota(command, &target, &site).await;
    let plan = plan(command, keys, &target, devices.as_ref());
    say_start(command, &plan, &target, &site, devices.as_ref(), quota.as_ref());

    let (mut ledger, mut run) = (None, None);
    let path = devices.as_ref().map(|devices| devices.path.clone());
    if let Some(Devices { ledger: mut opened, .. }) = devices {
        run = Some(opened.begin_run(&settings(command, &plan), SystemTime::now()).map_err(ledger_error)?);
        ledger = Some(opened);
    }
    let (progress, snapshots) = watch::channel(FindSnapshot::default());
    let stop = Stop::default();
    let live = Progress::start();
    let mut beside = JoinSet::new();
    beside.spawn(signals::steer(stop.clone()));
    beside.spawn(live.clone().follow_search(snapshots.clone()));
    beside.spawn(scrapes.serve_search(snapshots));
    let mut outcome = find::run(plan, connector, ledger, Arc::new(SystemTime::now), stop, progress).await;
    beside.shutdown().await;
    live.finish();

    let counts = close_ledger(&mut outcome, run)?;
    let printed = print_report(command, &outcome, quota);
    say_end(&outcome, counts, path.as_deref());
    if let Some(emulator) = site.emulator {
        emulator.shutdown().await;
    }
    let exit = exit(&outcome);
    match printed {
        // How the search ended matters more than that a file about it could not be written.
        Err(unwritten) if exit != Exit::Complete => {
            unwritten.report();
            Ok(exit)
        }
        printed => printed.map(|()| exit),
    }
}

/// The ledger of the devices that the search may use up.
fn open_devices(command: &FindCommand, args: &DeviceArgs, target: &Target) -> Result<Devices, Fatal> {
    let template = match (command, &args.template) {
        // A certificate alone needs none. No template can have this name.
        (FindCommand::Create(_), None) if target.is_aws() => String::from("(none)"),
        _ => template(args.template.as_deref(), target)?,
    };
    let is_built_in = !target.is_aws() && template == BUILT_IN_TEMPLATE;
    let binding = Binding { template, region: target.region.clone(), account: target.account() };
    Devices::open(args, command.search().seed, binding, is_built_in)
}

/// The topics that are used. What is not used is not subscribed to, and need not be permitted.
fn topics(command: &FindCommand, keys: &KeyPolicy, devices: Option<&Devices>) -> Topics {
    let Some(devices) = devices else { return Topics::of("unused", &[]) };
    let mut lanes = match (keys.source, devices.has_keys) {
        (KeySource::Local(_), _) => vec![Lane::CreateFromCsr],
        (KeySource::Service, true) => vec![Lane::Create, Lane::CreateFromCsr],
        (KeySource::Service, false) => vec![Lane::Create],
    };
    if matches!(command, FindCommand::Register(_)) {
        lanes.push(Lane::Register);
    }
    Topics::of(&devices.binding.template, &lanes)
}

/// What Service Quotas says; AWS's default where it does not. Nothing of an endpoint on loopback that does not say either.
async fn quota(command: &FindCommand, target: &Target, site: &Site) -> Option<QuotaReport> {
    let (quota, default) = match command {
        FindCommand::Connect(_) => (Quota::Connect, 500.0),
        FindCommand::Create(args) if args.devices.keys.source == Keys::Local => {
            (Quota::CreateCertificateFromCsr, 20.0)
        }
        FindCommand::Create(_) => (Quota::CreateKeysAndCertificate, 10.0),
        FindCommand::Register(_) => (Quota::RegisterThing, 10.0),
    };
    match account_quotas(&site.service_quotas, &[quota]).await.as_deref() {
        Ok([AccountQuota { rate, source, .. }]) => Some(QuotaReport {
            per_s: rate.as_per_second(),
            source: match source {
                QuotaSource::Applied => format!("applied, as Service Quotas says ({})", quota.code()),
                QuotaSource::Default => format!("AWS's default, as Service Quotas says ({})", quota.code()),
            },
        }),
        Ok(_) => None,
        Err(error) if target.is_aws() => Some(QuotaReport {
            per_s: default,
            source: format!("AWS's default as of 2024; the account's own was not found out: {error}"),
        }),
        Err(_) => None,
    }
}

fn plan(command: &FindCommand, keys: KeyPolicy, target: &Target, devices: Option<&Devices>) -> FindPlan {
    let args = command.search();
    let per_second = |n: f64| Rate::per_second(n).expect("a constant that is a rate");
    let issue_rate = match command {
        FindCommand::Register(register) => register.issue_rate,
        FindCommand::Connect(_) | FindCommand::Create(_) => None,
    };
    FindPlan {
        sought: command.sought(),
        search: SearchSettings {
            start: args.start_rate.as_per_second(),
            max: args.max_rate.as_per_second(),
            precision: PRECISION,
            max_p99: args.max_p99,
        },
        // Below AWS's default of 10/s.
        issue_rate: issue_rate.unwrap_or_else(|| per_second(if target.is_aws() { 8.0 } else { 100.0 })),
        load: LoadPlan {
            scenario: Scenario::Create,
            profile: Profile::constant(args.start_rate, Duration::from_secs(1)).expect("a second is a time"),
            spacing: Spacing::Uniform,
            warm_up: Duration::ZERO,
            connections: 1,
            max_connections: args.max_connections,
            max_wait: args.timeout,
            // Half of AWS's default: dials are not what is measured, and must not meet a limit of their own.
            connect_rate: match target.is_aws() {
                true => RateLimit::per_second(250.0),
                false => RateLimit::Unlimited,
            },
            exchange_timeout: args.timeout,
            parameters: devices.map_or_else(ParameterPlan::default, |devices| devices.parameters.clone()),
            keys,
            token_lifetime: TOKEN_LIFETIME,
            thresholds: Vec::new(),
            on_loss: OnLoss::GoOn,
            commit_mode: CommitMode::Blocking,
            seed: args.seed,
        },
    }
}

/// What was asked for, as the ledger keeps it: no secret.
fn settings(command: &FindCommand, plan: &FindPlan) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "verb": command.verb(),
        "start_per_s": plan.search.start,
        "max_per_s": plan.search.max,
        "max_connections": plan.load.max_connections,
        "timeout_s": plan.load.exchange_timeout.as_secs_f64(),
        // The name under which `provision` looks for whether plain keys were spoken of.
        "seal_to": plan.load.keys.seal_to.as_ref().map_or(&[][..], crate::sealing::Sealer::recipients),
    })
}

/// Ends the run in the ledger, and closes it; the devices by state.
fn close_ledger(outcome: &mut FindOutcome, run: Option<RunId>) -> Result<Option<Counts>, Fatal> {
    let (Some(mut ledger), Some(run)) = (outcome.ledger.take(), run) else { return Ok(None) };
    let counts = ledger.view().counts().map_err(ledger_error)?;
    if !matches!(outcome.end, FindEnd::Ledger(_)) {
        let summary = serde_json::json!({ "steps": outcome.steps.len() });
        let ended = ledger.end_run(run, end_name(&outcome.end), &summary, SystemTime::now());
        ended.and_then(|()| ledger.close()).map_err(ledger_error)?;
    }
    Ok(Some(counts))
}

fn end_name(end: &FindEnd) -> &'static str {
    match end {
        FindEnd::Complete => "complete",
        FindEnd::Drained => "drained",
        FindEnd::Aborted => "aborted",
        FindEnd::Stopped(_) => "stopped",
        FindEnd::Ledger(_) => "ledger_failed",
        FindEnd::Bug(_) => "bug",
    }
}

fn print_report(
    command: &FindCommand,
    outcome: &FindOutcome,
    quota: Option<QuotaReport>,
) -> Result<(), Fatal> {
    let issued = outcome.issuing.operation(Operation::CreateCertificate).counts;
    let issued_ahead = (issued.attempts > 0)
        .then_some(IssuedAhead { accepted: issued.accepted, throttled: issued.throttled });
    let operation = command.sought().operation();
    let (finding, steps) = (outcome.finding, &outcome.steps);
    let report = LimitReport::new(operation, finding, steps, quota, issued_ahead, outcome.elapsed);
    let json = || serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n";
    match command.search().json.as_deref() {
        Some(file) if file == Path::new("-") => print(&json()),
        Some(file) => {
            print(&report.render());
            std::fs::write(file, json()).map_err(|error| {
                usage("--json", format!("{} could not be written: {error}", file.display()))
            })?;
        }
        None => print(&report.render()),
    }
    Ok(())
}

/// A search that could not say more than that the limit is not where it looked has not found what it was to find.
fn exit(outcome: &FindOutcome) -> Exit {
    match (&outcome.end, outcome.finding) {
        (FindEnd::Drained | FindEnd::Aborted, _) => Exit::Interrupted,
        (FindEnd::Stopped(failure), _) => Exit::of_failure(failure),
        (FindEnd::Ledger(_), _) => Exit::LedgerUnusable,
        (FindEnd::Bug(_), _) => Exit::Bug,
        (
            FindEnd::Complete,
            Finding::Limit { confirmed: true, .. } | Finding::NoLimit { because: Stopped::MaxRate, .. },
        ) => Exit::Complete,
        (FindEnd::Complete, _) => Exit::Stopped,
    }
}

/// Says what begins, on stderr.
fn say_start(
    command: &FindCommand,
    plan: &FindPlan,
    target: &Target,
    site: &Site,
    devices: Option<&Devices>,
    quota: Option<&QuotaReport>,
) {
    let where_to = match &target.service {
        Service::Emulator(_) => {
            String::from("the built-in emulator, which shares this machine's cores: the figures are of both")
        }
        Service::Endpoint(_) => site.endpoint.to_string(),
    };
    say(format_args!("{} in {} on {where_to}", command.verb(), target.region));
    let SearchSettings { start, max, .. } = plan.search;
    say(format_args!(
        "from {start}/s to {max}/s at most, on {} connections at most; no answer within {} is silence",
        plan.load.max_connections,
        humantime::format_duration(plan.load.exchange_timeout),
    ));
    if let Some(QuotaReport { per_s, source }) = quota {
        say(format_args!("the account's quota: {per_s}/s, {source}"));
    }
    if let Some(devices) = devices {
        let pending = devices.counts().map_or(0, |counts| counts.pending);
        say(format_args!(
            "{pending} devices may be used up; what the search creates is kept in the ledger {}",
            devices.path.display()
        ));
    }
}

/// Says why it ended and what it leaves, on stderr.
fn say_end(outcome: &FindOutcome, counts: Option<Counts>, ledger: Option<&Path>) {
    match &outcome.end {
        FindEnd::Complete | FindEnd::Drained | FindEnd::Aborted => {}
        FindEnd::Stopped(failure) => {
            say(format_args!("error: stopped: {failure}"));
            if !failure.hint().is_empty() {
                say(format_args!("  -> {}", failure.hint()));
            }
        }
        FindEnd::Ledger(error) => say(format_args!("error: {error}")),
        FindEnd::Bug(detail) => {
            say(format_args!("error: a defect of fleetmint, please report it: {detail}"));
        }
    }
    for kind in outcome.metrics.failures.values().filter(|kind| !kind.example.is_throttle()) {
        say(format_args!("{} x {}", kind.count, kind.example));
    }
    if let (Some(counts), Some(ledger)) = (counts, ledger) {
        super::load::say_left_behind(&counts, ledger);
    }
}

impl FindCommand {
    fn sought(&self) -> Sought {
        match self {
            FindCommand::Connect(_) => Sought::Connect,
            FindCommand::Create(_) => Sought::Create,
            FindCommand::Register(_) => Sought::Register,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            FindCommand::Connect(_) => "find-limit connect",
            FindCommand::Create(_) => "find-limit create",
            FindCommand::Register(_) => "find-limit register",
        }
    }

    fn search(&self) -> &SearchArgs {
        match self {
            FindCommand::Connect(args) => args,
            FindCommand::Create(args) => &args.search,
            FindCommand::Register(args) => &args.search,
        }
    }

    fn devices(&self) -> Option<&DeviceArgs> {
        match self {
            FindCommand::Connect(_) => None,
            FindCommand::Create(args) => Some(&args.devices),
            FindCommand::Register(args) => Some(&args.devices),
        }
    }
}
