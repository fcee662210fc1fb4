//! `fleetmint load`: load tests of IoT Core's quotas.
//!
//! Owns the command from its arguments to its exit code. The test itself is the engine's.

mod args;
mod junit;
mod lot;
mod record;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::exit::{Exit, Fatal};
use super::open_files;
use super::progress::Progress;
use super::prometheus::Scrapes;
use super::settings::{check_client_id_prefix, key_policy, template, usage};
use super::signals;
use super::speech::{print, say};
use super::target::{Service, Site, Target};
use crate::emulator::scenario::BUILT_IN_TEMPLATE;
use crate::engine::load::{
    self, LoadAudience, LoadEnd, LoadOutcome, LoadPlan, LoadSnapshot, OnLoss, Scenario,
};
use crate::engine::{CommitMode, KeyPolicy, KeySource, Stop};
use crate::identity::ParameterPlan;
use crate::ledger::{Binding, Counts, Ledger, RunId};
use crate::provisioning::{Delivery, Lane, Topics};
use crate::rate::RateLimit;
use crate::report::{self, LoadFacts, LoadSummary};
use crate::schedule::Profile;
use crate::transport::wss::{KEEP_ALIVE, SettingsError, TlsResumption, WssConnector, WssSettings};

pub(super) use args::{DeviceArgs, LoadArgs};
use args::{LoadCommand, OfferArgs};
pub(super) use lot::Devices;
use record::Recording;

/// An ownership token lives one hour; what is left at this age may lapse on the way.
const TOKEN_LIFETIME: Duration = Duration::from_secs(57 * 60);

pub(super) async fn run(args: LoadArgs) -> Exit {
    match load_test(&args.scenario).await {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

async fn load_test(command: &LoadCommand) -> Result<Exit, Fatal> {
    let offer = command.offer();
    let profile = profile(offer)?;
    check_client_id_prefix(&offer.client_id_prefix)?;
    let keys = command.devices().map_or(Ok(KeyPolicy::default()), |devices| key_policy(&devices.keys))?;
    record::check_absent(offer.results.as_deref())?;
    let scrapes = Scrapes::listen(offer.prometheus).await?;
    let target = offer.target.resolve().await?;
    let devices = match command.devices() {
        Some(devices) => Some(open_devices(command, devices, &target)?),
        None => None,
    };
    open_files::allow(offer.max_connections, &target.service, "--max-connections")?;
    let site = target.open(&offer.target).await?;
    let topics = topics(command, &keys, devices.as_ref());
    let connector = connector(&offer.client_id_prefix, offer.timeout, &target, &site, topics)?;
    let plan = plan(command, profile, keys, &target, devices.as_ref());
    say_start(command, &plan, &target, &site, devices.as_ref());
    let exit = run_and_report(command, plan, connector, devices, scrapes).await;
    if let Some(emulator) = site.emulator {
        emulator.shutdown().await;
    }
    exit
}

fn profile(offer: &OfferArgs) -> Result<Profile, Fatal> {
    let profile = match (&offer.profile, offer.rate, offer.time) {
        (Some(profile), ..) => profile.clone(),
        (None, Some(rate), Some(time)) => Profile::constant(rate, time)
            .ok_or_else(|| usage("--for", "wanted a time above 0, of at most 366 days"))?,
        _ => unreachable!("clap requires one or the other"),
    };
    match offer.warmup < profile.time() {
        true => Ok(profile),
        false => Err(usage(
            "--warmup",
            format!(
                "{} leaves nothing to measure of a profile of {}",
                humantime::format_duration(offer.warmup),
                humantime::format_duration(profile.time())
            ),
        )),
    }
}

/// The ledger of the devices, and what their rows become.
fn open_devices(command: &LoadCommand, args: &DeviceArgs, target: &Target) -> Result<Devices, Fatal> {
    let template = match (command, &args.template) {
        // A certificate alone needs none. No template can have this name.
        (LoadCommand::Create(_), None) if target.is_aws() => String::from("(none)"),
        _ => template(args.template.as_deref(), target)?,
    };
    // The emulator's own template asks for parameters that are known.
    let is_built_in = !target.is_aws() && template == BUILT_IN_TEMPLATE;
    let binding = Binding { template, region: target.region.clone(), account: target.account() };
    let devices = Devices::open(args, command.offer().seed, binding, is_built_in)?;
    let counts = devices.counts()?;
    if counts.pending == 0 {
        let message = format!(
            "none of the {} devices of {} is without a certificate: a load test takes new ones; give another --ledger, and \
             for made-up devices another --key-pattern",
            counts.total(),
            devices.path.display()
        );
        return Err(Fatal::new(Exit::Usage, message));
    }
    Ok(devices)
}

/// The topics that the scenario uses. What is not used is not subscribed to, and need not be permitted.
fn topics(command: &LoadCommand, keys: &KeyPolicy, devices: Option<&Devices>) -> Topics {
    if let LoadCommand::Publish(args) = command {
        let delivery = if args.qos == 0 { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
        return Topics::of_messages(&args.topic_prefix, delivery);
    }
    let Some(devices) = devices else { return Topics::of("unused", &[]) };
    let mut lanes = match (keys.source, devices.has_keys) {
        (KeySource::Local(_), _) => vec![Lane::CreateFromCsr],
        (KeySource::Service, true) => vec![Lane::Create, Lane::CreateFromCsr],
        (KeySource::Service, false) => vec![Lane::Create],
    };
    if matches!(command, LoadCommand::Provision(_)) {
        lanes.push(Lane::Register);
    }
    Topics::of(&devices.binding.template, &lanes)
}

pub(super) fn connector(
    client_id_prefix: &str,
    timeout: Duration,
    target: &Target,
    site: &Site,
    topics: Topics,
) -> Result<WssConnector, Fatal> {
    let settings = WssSettings {
        endpoint: site.endpoint.clone(),
        region: target.region.clone(),
        topics,
        credentials: site.credentials.clone(),
        client_id_prefix: client_id_prefix.to_owned(),
        connect_timeout: timeout,
        keep_alive: KEEP_ALIVE,
        tls_resumption: TlsResumption::Shared,
        extra_roots: site.extra_roots.clone(),
    };
    WssConnector::new(settings).map_err(|error| match error {
        SettingsError::Trust(error) => usage("--ca-file", error),
        SettingsError::ClientIdPrefix { .. } => usage("--client-id-prefix", error),
    })
}

fn plan(
    command: &LoadCommand,
    profile: Profile,
    keys: KeyPolicy,
    target: &Target,
    devices: Option<&Devices>,
) -> LoadPlan {
    let offer = command.offer();
    let default_limit = || if target.is_aws() { RateLimit::per_second(500.0) } else { RateLimit::Unlimited };
    LoadPlan {
        scenario: match command {
            LoadCommand::Connect(args) => Scenario::Connect { hold: args.hold },
            LoadCommand::Create(_) => Scenario::Create,
            LoadCommand::Provision(_) => Scenario::Provision,
            LoadCommand::Publish(args) => Scenario::Publish { size: args.payload_size },
        },
        profile,
        spacing: offer.spacing.into(),
        warm_up: offer.warmup,
        connections: offer.connections.min(offer.max_connections),
        max_connections: offer.max_connections,
        max_wait: offer.max_wait(),
        connect_rate: offer.connect_rate.unwrap_or_else(default_limit),
        exchange_timeout: offer.timeout,
        parameters: devices.map_or_else(ParameterPlan::default, |devices| devices.parameters.clone()),
        keys,
        token_lifetime: TOKEN_LIFETIME,
        thresholds: offer.thresholds.clone(),
        on_loss: if offer.abort_on_threshold { OnLoss::Stop } else { OnLoss::GoOn },
        commit_mode: CommitMode::Blocking,
        seed: offer.seed,
    }
}

async fn run_and_report(
    command: &LoadCommand,
    plan: LoadPlan,
    connector: WssConnector,
    devices: Option<Devices>,
    scrapes: Scrapes,
) -> Result<Exit, Fatal> {
    let offer = command.offer();
    let path = devices.as_ref().map(|devices| devices.path.clone());
    let (ledger, run) = match devices {
        Some(mut devices) => {
            let settings = record::settings(command, &plan);
            let run = devices.ledger.begin_run(&settings, SystemTime::now()).map_err(ledger_error)?;
            (Some(devices.ledger), Some(run))
        }
        None => (None, None),
    };
    let (progress, snapshots) = watch::channel(LoadSnapshot::default());
    let (recording, intervals) = match &offer.results {
        Some(file) => {
            let (sender, receiver) = mpsc::channel(64);
            let header = record::header(command, &plan);
            let recording = Recording::start(file.clone(), header, receiver, snapshots.clone());
            (Some(recording), Some(sender))
        }
        None => (None, None),
    };
    let stop = Stop::default();
    let mut beside = JoinSet::new();
    beside.spawn(signals::steer(stop.clone()));
    let live = Progress::start();
    beside.spawn(live.clone().follow_load(snapshots.clone()));
    beside.spawn(scrapes.serve_load(snapshots));
    let clock = Arc::new(SystemTime::now);
    let audience = LoadAudience { progress, intervals };
    let mut outcome = load::run(plan.clone(), connector, ledger, clock, stop, audience).await;
    beside.shutdown().await;
    live.finish();

    let counts = close_ledger(&mut outcome, run)?;
    let summary = LoadSummary::new(LoadFacts {
        verb: command.verb(),
        outcome: outcome.end.name(),
        profile: &plan.profile,
        spacing: plan.spacing,
        warm_up: plan.warm_up,
        measured: outcome.measured,
        metrics: &outcome.metrics,
        thresholds: &outcome.judgements,
        devices: counts,
    });
    let printed = print_summary(offer.summary_json.as_deref(), &summary);
    say_end(&outcome, &plan, counts, path.as_deref());
    let recorded = match recording {
        Some(recording) => recording.finish(&record::footer(&outcome, counts)).await,
        None => Ok(()),
    };
    let judged = match &offer.junit {
        Some(file) => junit::write(file, command.verb(), &outcome.judgements, outcome.elapsed),
        None => Ok(()),
    };
    let exit = Exit::of_load(&outcome);
    match printed.and(recorded).and(judged) {
        // How the test ended matters more than that a file about it could not be written.
        Err(unwritten) if exit != Exit::Complete => {
            unwritten.report();
            Ok(exit)
        }
        written => written.map(|()| exit),
    }
}

/// Ends the run in the ledger, and closes it; the devices by state.
fn close_ledger(outcome: &mut LoadOutcome, run: Option<RunId>) -> Result<Option<Counts>, Fatal> {
    let (Some(mut ledger), Some(run)) = (outcome.ledger.take(), run) else { return Ok(None) };
    let counts = ledger.view().counts().map_err(ledger_error)?;
    if !matches!(outcome.end, LoadEnd::Ledger(_)) {
        let summary = serde_json::json!({ "arrivals": outcome.metrics.arrivals });
        let ended = ledger.end_run(run, outcome.end.name(), &summary, SystemTime::now());
        ended.and_then(|()| Ledger::close(ledger)).map_err(ledger_error)?;
    }
    Ok(Some(counts))
}

fn print_summary(file: Option<&Path>, summary: &LoadSummary) -> Result<(), Fatal> {
    let json = || serde_json::to_string_pretty(summary).expect("a summary is plain data") + "\n";
    match file {
        Some(file) if file == Path::new("-") => print(&json()),
        Some(file) => {
            print(&report::render_load(summary));
            std::fs::write(file, json()).map_err(|error| {
                usage("--summary-json", format!("{} could not be written: {error}", file.display()))
            })?;
        }
        None => print(&report::render_load(summary)),
    }
    Ok(())
}

/// Says what begins, on stderr.
fn say_start(
    command: &LoadCommand,
    plan: &LoadPlan,
    target: &Target,
    site: &Site,
    devices: Option<&Devices>,
) {
    let where_to = match &target.service {
        Service::Emulator(_) => {
            String::from("the built-in emulator, which shares this machine's cores: the figures are of both")
        }
        Service::Endpoint(_) => site.endpoint.to_string(),
    };
    say(format_args!("{} in {} on {where_to}", command.verb(), target.region));
    let warm_up = match plan.warm_up.is_zero() {
        true => String::new(),
        false => format!(", the first {} as warm-up", humantime::format_duration(plan.warm_up)),
    };
    let ahead = match plan.scenario {
        Scenario::Connect { .. } => String::new(),
        _ => format!("connections {} to {}, ", plan.connections, plan.max_connections),
    };
    say(format_args!(
        "{:.0} arrivals, {}, in {}: {}{warm_up}; {ahead}missed after {}",
        plan.profile.arrivals(),
        plan.spacing.name(),
        humantime::format_duration(plan.profile.time()),
        plan.profile,
        humantime::format_duration(plan.max_wait),
    ));
    let Some(devices) = devices else { return };
    let pending = devices.counts().map_or(0, |counts| counts.pending);
    say(format_args!("what the test creates is kept in the ledger {}", devices.path.display()));
    if (pending as f64) < plan.profile.arrivals() {
        say(format_args!(
            "warning: {pending} devices for {:.0} arrivals: the test will end when they are used up",
            plan.profile.arrivals()
        ));
    }
}

/// Says why it ended and what to do next, on stderr.
fn say_end(outcome: &LoadOutcome, plan: &LoadPlan, counts: Option<Counts>, ledger: Option<&Path>) {
    match &outcome.end {
        LoadEnd::Complete | LoadEnd::Drained | LoadEnd::Aborted => {}
        LoadEnd::OutOfDevices => say(format_args!(
            "error: the devices were used up after {} arrivals of {:.0}: the profile was not offered to its end; give more \
             with --devices or --lot",
            outcome.metrics.arrivals.started,
            plan.profile.arrivals()
        )),
        LoadEnd::ThresholdLost => say("stopped: a threshold is surely missed"),
        LoadEnd::Stopped(failure) => {
            say(format_args!("error: stopped: {failure}"));
            if !failure.hint().is_empty() {
                say(format_args!("  -> {}", failure.hint()));
            }
        }
        LoadEnd::Ledger(error) => say(format_args!("error: {error}")),
        LoadEnd::Bug(detail) => {
            say(format_args!("error: a defect of fleetmint, please report it: {detail}"));
        }
    }
    if let (Some(counts), Some(ledger)) = (counts, ledger) {
        say_left_behind(&counts, ledger);
    }
}

/// Says what of the devices stays in the account, and how to find it.
pub(super) fn say_left_behind(counts: &Counts, ledger: &Path) {
    let ledger = ledger.display();
    let unregistered = counts.issued_not_sent + counts.issued_may_sent;
    if unregistered > 0 {
        say(format_args!(
            "{unregistered} certificates were issued and not registered: the service deletes those by itself when their \
             tokens lapse, after an hour"
        ));
    }
    if counts.registered > 0 {
        say(format_args!(
            "{} things were registered, and stay: `fleetmint export {ledger} --format csv --out FILE` lists them and their \
             certificates for deletion",
            counts.registered
        ));
    }
    if counts.issued_may_sent + counts.unknown > 0 {
        say(format_args!("what is uncertain: fleetmint status {ledger}"));
    }
}

fn ledger_error(error: crate::ledger::LedgerError) -> Fatal {
    Fatal::new(Exit::LedgerUnusable, error)
}
