//! `fleetmint provision`: from a CSV to registered things.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::args::ProvisionArgs;
use super::exit::{Exit, Fatal};
use super::open_files;
use super::progress::Progress;
use super::prometheus::Scrapes;
use super::recording::{self, Recording};
use super::settings::Settings;
use super::signals;
use super::speech::{print, say};
use super::target::Service;
use crate::control_plane::{ControlPlane, Settler};
use crate::emulator::Emulator;
use crate::endpoint::Endpoint;
use crate::engine::{
    self, Audience, CommitMode, Connections, End, KeyPolicy, KeySource, Outcome, Plan, Snapshot, Stop,
};
use crate::event::Operation;
use crate::failure::RetryPolicy;
use crate::identity::{Identity, LotReader, ParameterPlan, RowError};
use crate::ledger::{Counts, ImportError, Ledger, LotRows, RunId, RunInfo, View};
use crate::metrics::{Interval, Slowest};
use crate::provisioning::{Lane, Topics};
use crate::rate::RateLimit;
use crate::report::{self, Summary};
use crate::results::{Footer, Header};
use crate::sealing::Sealer;
use crate::transport::wss::{KEEP_ALIVE, SettingsError, TlsResumption, WssConnector, WssSettings};

/// An ownership token lives one hour; what is left at this age may lapse on the way.
const TOKEN_LIFETIME: Duration = Duration::from_secs(57 * 60);
/// After the hour nothing can be registered with a token; the margin is for clocks that differ.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(66 * 60);
/// How many devices in a row may fail before the run stops.
const FAILURE_BUDGET: u32 = 100;
/// As many connections are opened at most where their number is not set.
const MOST_CONNECTIONS: usize = 1_000;

pub(super) async fn run(args: ProvisionArgs) -> Exit {
    match provision(&args).await {
        Ok(exit) => exit,
        Err(fatal) => fatal.report(),
    }
}

async fn provision(args: &ProvisionArgs) -> Result<Exit, Fatal> {
    let mut settings = Settings::new(args).await?;
    let scrapes = Scrapes::listen(args.prometheus).await?;
    let (mut ledger, parameters) = open_ledger(args, &settings)?;
    if args.reissue_unknown {
        super::retry::reissue_unknown(&mut ledger)?;
    }
    let counts = ledger.view().counts().map_err(ledger_error)?;
    if counts.open() == 0 {
        return nothing_to_do(args, &settings, &counts);
    }
    let connections = connections(args, &counts, &settings)?;
    let lanes = lanes(&settings, ledger.view())?;
    let is_to_be_told = is_first_to_hold_plain_keys(&settings, ledger.view())?;
    let Running { emulator, endpoint, connector, control_plane } =
        Running::start(args, &mut settings, &lanes).await?;
    say_start(args, &settings, &endpoint, &counts);
    if is_to_be_told {
        say_plain_keys(&settings);
    }
    let lot = Lot { ledger, parameters, connections };
    let exit = run_and_report(args, &settings, connector, control_plane, lot, scrapes).await;
    if let Some(emulator) = emulator {
        emulator.shutdown().await;
    }
    exit
}

/// What a run works on, and with how many connections.
struct Lot {
    ledger: Ledger,
    parameters: ParameterPlan,
    connections: Connections,
}

/// How many connections: what was typed, or as many as are needed, and in any case no more than there are devices: the others
/// would have nothing to do. Sees to it that the process may open them.
fn connections(args: &ProvisionArgs, counts: &Counts, settings: &Settings) -> Result<Connections, Fatal> {
    let devices = usize::try_from(counts.open()).unwrap_or(usize::MAX);
    let service = &settings.target.service;
    if let Some(typed) = args.connections {
        let connections = typed.min(devices);
        open_files::allow(connections, service, "--connections")?;
        return Ok(Connections::Fixed(connections));
    }
    match open_files::allow_up_to(MOST_CONNECTIONS.min(devices), service) {
        0 => open_files::allow(1, service, "--connections").map(|()| Connections::Auto { max: 1 }),
        max => Ok(Connections::Auto { max }),
    }
}

/// Reads the lot into its ledger, or checks that the ledger that is there is this lot's.
fn open_ledger(args: &ProvisionArgs, settings: &Settings) -> Result<(Ledger, ParameterPlan), Fatal> {
    let lot = args.lot.display().to_string();
    let bad_lot = |message: String| Fatal::new(Exit::BadIdentities, format!("{lot}: {message}"));
    let file = File::open(&args.lot).map_err(|error| bad_lot(format!("cannot be read: {error}")))?;
    let reader = LotReader::new(BufReader::with_capacity(1 << 16, file), args.key_column.as_deref())
        .map_err(|errors| Fatal::new(Exit::BadIdentities, row_errors(&lot, &errors, 0)))?;
    let parameters = ParameterPlan::new(reader.shape(), &settings.constants)
        .map_err(|error| Fatal::new(Exit::Usage, format!("--param: {error}")))?;
    let rows = LotRows { source: &lot, shape: reader.shape().clone(), rows: reader };
    let check = |identity: &Identity| parameters.check(identity);
    let ledger = Ledger::open_or_import(&settings.ledger, &settings.binding, rows, check, SystemTime::now());
    let ledger = ledger.map_err(|error| match error {
        ImportError::Rows { errors, more } => {
            Fatal::new(Exit::BadIdentities, row_errors(&lot, &errors, more))
        }
        ImportError::Ledger(error) => ledger_error(error),
    })?;
    Ok((ledger, parameters))
}

/// All that is wrong with a lot, one line each, and that nothing was done.
pub(super) fn row_errors(lot: &str, errors: &[RowError], more: u64) -> String {
    let mut message: String = errors.iter().map(|error| format!("{lot}: {error}\n       ")).collect();
    if more > 0 {
        message += &format!("… and {more} more\n       ");
    }
    let count = errors.len() as u64 + more;
    message
        + &format!(
            "{count} errors in the lot; nothing was sent and no ledger was made. Mend the file and run again."
        )
}

fn nothing_to_do(args: &ProvisionArgs, settings: &Settings, counts: &Counts) -> Result<Exit, Fatal> {
    let summary = Summary::new("complete", Duration::ZERO, *counts, &Default::default());
    print_summary(args, &summary, || {
        format!(
            "nothing to do, nothing was sent: of {} devices {} are registered, {} rejected, {} unknown (ledger {})\n",
            counts.total(),
            summary.devices.registered,
            summary.devices.rejected,
            summary.devices.unknown,
            settings.ledger.display()
        )
    })?;
    Ok(Exit::of_devices(counts))
}

/// The requests that the run may make: what is not needed is not subscribed to, and need not be permitted.
fn lanes(settings: &Settings, view: &View) -> Result<Vec<Lane>, Fatal> {
    let has_keys = view.open_prepared_keys().map_err(ledger_error)? > 0;
    Ok(match settings.keys.source {
        KeySource::Local(_) => vec![Lane::CreateFromCsr, Lane::Register],
        KeySource::Service if has_keys => vec![Lane::Create, Lane::CreateFromCsr, Lane::Register],
        KeySource::Service => vec![Lane::Create, Lane::Register],
    })
}

/// The other side, ready to be dialled.
struct Running {
    emulator: Option<Emulator>,
    endpoint: Endpoint,
    connector: WssConnector,
    control_plane: ControlPlane,
}

impl Running {
    async fn start(args: &ProvisionArgs, settings: &mut Settings, lanes: &[Lane]) -> Result<Self, Fatal> {
        let site = settings.target.open(&args.target).await?;
        settings.rates.ask_quotas(args, &site).await?;
        let connector = WssSettings {
            endpoint: site.endpoint.clone(),
            region: settings.binding.region.clone(),
            topics: Topics::of(&settings.binding.template, lanes),
            credentials: site.credentials,
            client_id_prefix: args.client_id_prefix.clone(),
            connect_timeout: args.timeout,
            keep_alive: KEEP_ALIVE,
            tls_resumption: TlsResumption::Shared,
            extra_roots: site.extra_roots,
        };
        let connector = WssConnector::new(connector).map_err(|error| match error {
            SettingsError::Trust(error) => Fatal::new(Exit::Usage, format!("--ca-file: {error}")),
            SettingsError::ClientIdPrefix { .. } => {
                Fatal::new(Exit::Usage, format!("--client-id-prefix: {error}"))
            }
        })?;
        let control_plane = ControlPlane::new(site.control_plane);
        Ok(Self { emulator: site.emulator, endpoint: site.endpoint, connector, control_plane })
    }
}

async fn run_and_report(
    args: &ProvisionArgs,
    settings: &Settings,
    connector: WssConnector,
    control_plane: ControlPlane,
    lot: Lot,
    scrapes: Scrapes,
) -> Result<Exit, Fatal> {
    let Lot { mut ledger, parameters, connections } = lot;
    let counts = ledger.view().counts().map_err(ledger_error)?;
    let recording =
        args.results.as_deref().map(|file| Recording::start(file, &results_header(args, settings)));
    let (recording, intervals) = recording.transpose()?.unzip();
    let run = ledger.begin_run(&run_settings(args, settings), SystemTime::now()).map_err(ledger_error)?;
    let plan = Plan {
        connections,
        rates: settings.rates.rates(),
        publishes_per_connection: settings.publishes_per_connection,
        parameters,
        keys: settings.keys.clone(),
        exchange_timeout: args.timeout,
        retry: RetryPolicy::default(),
        connection_lifetime: args.connection_lifetime,
        token_lifetime: TOKEN_LIFETIME,
        certificate_lifetime: CERTIFICATE_LIFETIME,
        failure_budget: FAILURE_BUDGET,
        commit_mode: CommitMode::Blocking,
        seed: rand::random(),
    };
    let outcome = run_engine(plan, connector, control_plane, ledger, &counts, scrapes, intervals).await;
    let recorded = match recording {
        Some(recording) => recording.finish(&results_footer(&outcome)?).await,
        None => Ok(()),
    };
    let exit = report(args, settings, run, outcome)?;
    unless_worse(exit, recorded)
}

/// How the run ended matters more than that a file about it could not be written.
fn unless_worse(exit: Exit, written: Result<(), Fatal>) -> Result<Exit, Fatal> {
    match written {
        Err(unwritten) if exit != Exit::Complete => {
            unwritten.report();
            Ok(exit)
        }
        written => written.map(|()| exit),
    }
}

async fn run_engine(
    plan: Plan,
    connector: WssConnector,
    control_plane: ControlPlane,
    ledger: Ledger,
    counts: &Counts,
    scrapes: Scrapes,
    intervals: Option<mpsc::Sender<Interval>>,
) -> Outcome {
    let stop = Stop::default();
    let settler: Option<Arc<dyn Settler>> = Some(Arc::new(control_plane));
    let (sender, receiver) = watch::channel(Snapshot { devices: *counts, ..Snapshot::default() });
    let mut beside = JoinSet::new();
    beside.spawn(signals::steer(stop.clone()));
    let progress = Progress::start();
    beside.spawn(progress.clone().follow(receiver.clone(), plan.rates));
    beside.spawn(scrapes.serve(receiver, plan.rates));
    let audience = Audience { progress: sender, intervals };
    let outcome =
        engine::run(plan, connector, settler, ledger, Arc::new(SystemTime::now), stop, audience).await;
    beside.shutdown().await;
    progress.finish();
    outcome
}

fn report(
    args: &ProvisionArgs,
    settings: &Settings,
    run: RunId,
    mut outcome: Outcome,
) -> Result<Exit, Fatal> {
    let counts = outcome.ledger.view().counts().map_err(ledger_error)?;
    let exit = Exit::of_run(&outcome, &counts);
    let summary = Summary::new(end_name(&outcome.end), outcome.elapsed, counts, &outcome.metrics);
    let summary = summary.with_usage(&outcome.usage);
    if !matches!(outcome.end, End::Ledger(_)) {
        let json = serde_json::to_value(&summary).expect("a summary is plain data");
        let ended = outcome.ledger.end_run(run, end_name(&outcome.end), &json, SystemTime::now());
        ended.and_then(|()| outcome.ledger.close()).map_err(ledger_error)?;
    }
    let printed = print_summary(args, &summary, || report::render(&summary));
    say_end(&outcome.end, exit, &counts, settings);
    unless_worse(exit, printed)
}

fn end_name(end: &End) -> &'static str {
    match end {
        End::Complete => "complete",
        End::Drained => "drained",
        End::Aborted => "aborted",
        End::Stopped(_) => "stopped",
        End::Ledger(_) => "ledger_failed",
        End::Bug(_) => "bug",
    }
}

/// Says what begins, on stderr.
fn say_start(args: &ProvisionArgs, settings: &Settings, endpoint: &Endpoint, counts: &Counts) {
    let where_to = match &settings.target.service {
        Service::Emulator(_) => String::from("the built-in emulator"),
        Service::Endpoint(_) => endpoint.to_string(),
    };
    say(format_args!(
        "provisioning {} of {} devices of {} with template {} in {} on {where_to}",
        counts.open(),
        counts.total(),
        args.lot.display(),
        settings.binding.template,
        settings.binding.region,
    ));
    say(format_args!(
        "connections {}, {}; {}; ledger {}",
        args.connections.map_or(String::from("as needed"), |connections| connections.to_string()),
        settings.rates,
        say_keys(&settings.keys),
        settings.ledger.display(),
    ));
}

fn say_keys(keys: &KeyPolicy) -> String {
    let source = match keys.source {
        KeySource::Service => String::from("keys from AWS"),
        KeySource::Local(key_type) => format!("keys made here ({})", key_type.name()),
    };
    match &keys.seal_to {
        None => source,
        Some(sealer) => format!("{source}, sealed to {}", sealer.recipients().join(", ")),
    }
}

/// Whether the ledger gets keys in plain text and no run before has said so.
fn is_first_to_hold_plain_keys(settings: &Settings, view: &View) -> Result<bool, Fatal> {
    let was_said = |run: &RunInfo| {
        let settings: serde_json::Value = serde_json::from_str(&run.settings).unwrap_or_default();
        settings[SEAL_TO].as_array().is_none_or(Vec::is_empty)
    };
    let runs = view.runs().map_err(ledger_error)?;
    Ok(settings.keys.seal_to.is_none() && !runs.iter().any(was_said))
}

fn say_plain_keys(settings: &Settings) {
    say(format_args!(
        "note: the ledger {} holds private keys in plain text, readable by its owner alone (mode 0600); \
         --seal-to RECIPIENT would encrypt them",
        settings.ledger.display()
    ));
}

/// Says why it ended and what to do next, on stderr.
fn say_end(end: &End, exit: Exit, counts: &Counts, settings: &Settings) {
    match end {
        End::Complete | End::Drained | End::Aborted => {}
        End::Stopped(failure) => {
            say(format_args!("error: stopped: {failure}"));
            if !failure.hint().is_empty() {
                say(format_args!("  -> {}", failure.hint()));
            }
        }
        End::Ledger(error) => say(format_args!("error: {error}")),
        End::Bug(detail) => say(format_args!("error: a defect of fleetmint, please report it: {detail}")),
    }
    let ledger = settings.ledger.display();
    match exit {
        Exit::Complete => say(format_args!("keys and certificates: fleetmint export {ledger} --out DIR")),
        _ if counts.open() > 0 => {
            say(format_args!(
                "{} devices are still open; run the same command again to resume (ledger {ledger})",
                counts.open()
            ));
        }
        Exit::NotAllRegistered => say(format_args!("what to do about the others: fleetmint status {ledger}")),
        _ => {}
    }
}

/// Whom a run sealed keys to, in its settings in the ledger; runs of before there was sealing have none.
const SEAL_TO: &str = "seal_to";

/// The settings that the ledger keeps for the run: what was asked for, no secret.
fn run_settings(args: &ProvisionArgs, settings: &Settings) -> serde_json::Value {
    let rate = |limit: crate::rate::RateLimit| limit.fixed().map(|rate| rate.as_per_second());
    let rates = settings.rates.rates();
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "connections": args.connections,
        "connect_per_s": rate(rates.connect),
        "create_per_s": rate(rates.create),
        "register_per_s": rate(rates.register),
        "keys": match settings.keys.source {
            KeySource::Service => "aws",
            KeySource::Local(key_type) => key_type.name(),
        },
        SEAL_TO: settings.keys.seal_to.as_ref().map_or(&[][..], Sealer::recipients),
        "timeout_s": args.timeout.as_secs_f64(),
        "parameters": settings.constants,
    })
}

/// What the results file says of the run before it begins.
fn results_header(args: &ProvisionArgs, settings: &Settings) -> Header {
    let Value::Object(mut values) = run_settings(args, settings) else {
        unreachable!("settings are an object")
    };
    // Said elsewhere in the header; parameters are the lot's own affair.
    values.retain(|name, _| name != "version" && name != "parameters");
    let rates = settings.rates.rates();
    let limits = [
        (Operation::Connect, rates.connect),
        (Operation::CreateCertificate, rates.create),
        (Operation::RegisterThing, rates.register),
    ];
    let limit = |(operation, limit): (Operation, RateLimit)| {
        Some((operation.name().to_owned(), limit.fixed()?.as_per_second()))
    };
    Header {
        tool: recording::tool(),
        verb: String::from("provision"),
        command: recording::command_line(),
        settings: values.into_iter().collect(),
        started_at: SystemTime::now(),
        offered: None,
        limits: limits.into_iter().filter_map(limit).collect(),
        warm_up_s: 0.0,
    }
}

/// What the results file says of the run's end.
fn results_footer(outcome: &Outcome) -> Result<Footer, Fatal> {
    let counts = outcome.ledger.view().counts().map_err(ledger_error)?;
    let detail = match &outcome.end {
        End::Stopped(failure) => failure.to_string(),
        End::Ledger(error) => error.to_string(),
        End::Bug(detail) => detail.clone(),
        End::Complete | End::Drained | End::Aborted => String::new(),
    };
    Ok(Footer {
        end: end_name(&outcome.end).to_owned(),
        detail,
        elapsed_s: outcome.elapsed.as_secs_f64(),
        devices: Some(counts.into()),
        thresholds: Vec::new(),
        slowest: Slowest::default(),
    })
}

/// Prints the summary where it was asked for: text to stdout, unless the JSON goes there.
fn print_summary(args: &ProvisionArgs, summary: &Summary, text: impl Fn() -> String) -> Result<(), Fatal> {
    let json = || serde_json::to_string_pretty(summary).expect("a summary is plain data") + "\n";
    match args.summary_json.as_deref() {
        Some(file) if file == Path::new("-") => print(&json()),
        Some(file) => {
            print(&text());
            std::fs::write(file, json()).map_err(|error| {
                let message = format!("--summary-json: {} could not be written: {error}", file.display());
                Fatal::new(Exit::Usage, message)
            })?;
        }
        None => print(&text()),
    }
    Ok(())
}

fn ledger_error(error: crate::ledger::LedgerError) -> Fatal {
    Fatal::new(Exit::LedgerUnusable, error)
}
