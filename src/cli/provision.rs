//! `fleetmint provision`: from a CSV to registered things.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::advice;
use super::args::{KeyArgs, OutputArgs, RateArgs, TargetArgs, connections, lifetime, timeout};
use super::conduct::{self, Done, Job, Offer, Reins, SEAL_TO, Shown, conduct, print_summary};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::fit;
use super::lot::{LotReading, ledger_of};
use super::lot_args::LotArgs;
use super::manner;
use super::open_files;
use super::outputs::Outputs;
use super::progress::{Recent, View};
use super::prometheus;
use super::rates::{ChosenRates, RateSettings, publishes_per_connection};
use super::scope::{Chosen, ScopeArgs};
use super::settings::{check_template, creating, key_policy};
use super::speech::say;
use super::target::{Site, Target};
use crate::call::Call;
use crate::control_plane::Settler;
use crate::engine::{
    self, Audience, CommitMode, Connections, End, KeyPolicy, KeySource, Outcome, Plan, Rates, Scope, Snapshot,
};
use crate::event::Operation;
use crate::exposition::Reading;
use crate::failure::RetryPolicy;
use crate::identity::ParameterPlan;
use crate::ledger::{Binding, Counts, Ledger, RunInfo, View as LedgerView};
use crate::metrics::Slowest;
use crate::provisioning::Topics;
use crate::rate::{Rate, RateLimit};
use crate::report::{self, Summary};
use crate::results::Footer;
use crate::transport::wss::WssConnector;

/// An ownership token lives one hour; what is left at this age may lapse on the way.
const TOKEN_LIFETIME: Duration = Duration::from_secs(57 * 60);
/// After the hour nothing can be registered with a token; the margin is for clocks that differ.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(66 * 60);
/// How many devices in a row may fail before the run stops.
const FAILURE_BUDGET: u32 = 100;
/// As many connections are opened at most where their number is not set.
const MOST_CONNECTIONS: usize = 1_000;

const AFTER: &str = "\
Examples:
  fleetmint provision lot.csv --emulator
  fleetmint provision lot.csv --profile factory --template TEMP_DEVICE
  fleetmint provision lot.csv --template TEMP_DEVICE --keys local --rates quotas --results run.jsonl

Credentials come from where AWS's own tools find them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary
ones, AWS_SESSION_TOKEN; the profile that --profile or AWS_PROFILE names; web identity, container, instance metadata.
The first Ctrl-C or SIGTERM finishes what is in flight, a second one stops at once; the same command resumes.";

/// Provision every device of a lot: a certificate and a thing for each row of a CSV.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct ProvisionArgs {
    /// The lot: a CSV with a header; each column is a template parameter, each row a device. `-` is standard input, and needs
    /// --ledger.
    #[arg(value_name = "LOT.csv")]
    pub(super) lot: PathBuf,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// The provisioning template.
    #[arg(long, value_name = "NAME", required_unless_present = "emulator", help_heading = "Service")]
    pub(super) template: Option<String>,

    /// Where the run's state and the private keys are kept [default: beside the lot, LOT.ledger].
    #[arg(long, value_name = "FILE", help_heading = "Lot")]
    pub(super) ledger: Option<PathBuf>,

    #[command(flatten)]
    pub(super) reading: LotArgs,

    #[command(flatten)]
    pub(super) keys: KeyArgs,

    #[command(flatten)]
    pub(super) rates: RateArgs,

    /// How many connections, one device in flight on each [default: as many as the rates and the latency need, at most
    /// 1000].
    #[arg(long, value_name = "N", value_parser = connections, help_heading = "Speed")]
    pub(super) connections: Option<usize>,

    /// How long a connection attempt, and a reply, may take.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout, help_heading = "Speed")]
    pub(super) timeout: Duration,

    /// How old a connection may get before it is replaced between two exchanges; the service ends it after 24 hours.
    #[arg(long, value_name = "TIME", default_value = "23h", value_parser = lifetime, help_heading = "Speed")]
    pub(super) connection_lifetime: Duration,

    /// Before the run, return all unknown devices to pending: each gets another certificate, and may then own two.
    #[arg(long, help_heading = "Lot")]
    pub(super) reissue_unknown: bool,

    #[command(flatten)]
    pub(super) scope: ScopeArgs,

    #[command(flatten)]
    pub(super) outputs: OutputArgs,
}

/// What was typed means.
struct Settings {
    lot: PathBuf,
    ledger: PathBuf,
    reading: LotReading,
    target: Target,
    binding: Binding,
    keys: KeyPolicy,
    rates: RateSettings,
    connections: Option<usize>,
    timeout: Duration,
    connection_lifetime: Duration,
    reissue_unknown: bool,
    scope: Scope,
}

/// Takes every open device of a lot to a registered thing.
pub(super) async fn run(args: ProvisionArgs) -> Result<Exit, Fatal> {
    let (settings, outputs) = Settings::new(args).await?;
    let lot = settings.reading.read(&settings.lot)?;
    // A ledger that is there may have nothing left to do, and nothing needs to be asked then.
    let site = if settings.ledger.exists() { None } else { Some(settings.open(&lot.parameters).await?) };
    let (mut ledger, parameters) = lot.into_ledger(&settings.ledger, &settings.binding)?;
    if settings.reissue_unknown {
        super::retry::reissue_unknown(&mut ledger)?;
    }
    let counts = ledger.view().counts().map_err(ledger_error)?;
    if counts.open() == 0 {
        return nothing_to_do(&settings, &outputs, &counts, Exit::of_devices(&counts));
    }
    let chosen = Chosen::of(settings.scope.clone(), ledger.view(), &counts)?;
    if chosen.devices == 0 {
        return nothing_to_do(&settings, &outputs, &counts, chosen.exit(&counts, &counts));
    }
    let connections = settings.connections(chosen.devices)?;
    let topics = settings.topics(ledger.view())?;
    let holds_new_secrets = settings.is_first_to_hold_plain_keys(ledger.view())?;
    let site = match site {
        Some(site) => site,
        None => settings.open(&parameters).await?,
    };
    let rates = settings.rates.choose(settings.target.is_aws(), &site).await?;
    let connector = site.connector(topics, settings.timeout)?;
    settings.say_start(&rates, &site, &counts, chosen.devices);
    if holds_new_secrets {
        settings.say_plain_keys();
    }
    let plan = settings.plan(parameters, connections, rates.rates());
    let job = Provision { plan, connector, settler: site.settler(), counts, chosen, settings };
    conduct(job, Some(ledger), site, outputs).await
}

impl Settings {
    async fn new(args: ProvisionArgs) -> Result<(Self, Outputs), Fatal> {
        // What is wrong with the arguments is told before the account is asked anything.
        let keys = key_policy(&args.keys)?;
        let reading = LotReading::new(args.reading)?;
        let scope = args.scope.scope()?;
        if let Some(template) = &args.template {
            check_template(template)?;
        }
        let outputs = Outputs::open(args.outputs).await?;
        let target = args.target.resolve().await?;
        let template = target.template(args.template.as_deref())?;
        let settings = Self {
            ledger: ledger_of(&args.lot, args.ledger)?,
            lot: args.lot,
            reading,
            binding: Binding {
                template,
                region: target.region.clone(),
                account: target.account(),
                ..Binding::default()
            },
            rates: RateSettings::new(&args.rates, keys.source),
            target,
            keys,
            connections: args.connections,
            timeout: args.timeout,
            connection_lifetime: args.connection_lifetime,
            reissue_unknown: args.reissue_unknown,
            scope,
        };
        Ok((settings, outputs))
    }

    /// The other side, ready to be dialled, whose template takes what is sent.
    async fn open(&self, parameters: &ParameterPlan) -> Result<Site, Fatal> {
        let site = self.target.open().await?;
        fit::check(&site, &self.binding.template, parameters).await?;
        Ok(site)
    }

    /// How many connections: what was typed, or as many as are needed, and in any case no more than there are devices: the
    /// others would have nothing to do. Sees to it that the process may open them.
    fn connections(&self, devices: u64) -> Result<Connections, Fatal> {
        let devices = usize::try_from(devices).unwrap_or(usize::MAX);
        let service = &self.target.service;
        if let Some(typed) = self.connections {
            let connections = typed.min(devices);
            open_files::allow(connections, service, "--connections")?;
            return Ok(Connections::Fixed(connections));
        }
        match open_files::allow_up_to(MOST_CONNECTIONS.min(devices), service) {
            0 => open_files::allow(1, service, "--connections").map(|()| Connections::Auto { max: 1 }),
            max => Ok(Connections::Auto { max }),
        }
    }

    /// The topics of the requests that the run may make.
    fn topics(&self, view: &LedgerView) -> Result<Topics, Fatal> {
        let have_keys = view.open_prepared_keys().map_err(ledger_error)? > 0;
        let mut calls = creating(self.keys.source, have_keys);
        calls.push(Call::RegisterThing);
        Ok(Topics::of(&self.binding.template, &calls))
    }

    fn plan(&self, parameters: ParameterPlan, connections: Connections, rates: Rates) -> Plan {
        Plan {
            scope: self.scope.clone(),
            connections,
            rates,
            publishes_per_connection: publishes_per_connection(self.target.is_aws()),
            parameters,
            keys: self.keys.clone(),
            exchange_timeout: self.timeout,
            retry: RetryPolicy::default(),
            connection_lifetime: self.connection_lifetime,
            token_lifetime: TOKEN_LIFETIME,
            certificate_lifetime: CERTIFICATE_LIFETIME,
            failure_budget: FAILURE_BUDGET,
            commit_mode: CommitMode::Blocking,
            seed: rand::random(),
        }
    }

    /// Whether the ledger gets keys in plain text and no run before has said so.
    fn is_first_to_hold_plain_keys(&self, view: &LedgerView) -> Result<bool, Fatal> {
        let was_said = |run: &RunInfo| {
            let settings: Value = serde_json::from_str(&run.settings).unwrap_or_default();
            settings[SEAL_TO].as_array().is_none_or(Vec::is_empty)
        };
        let runs = view.runs().map_err(ledger_error)?;
        Ok(self.keys.seal_to.is_none() && !runs.iter().any(was_said))
    }

    /// Says what begins, on stderr.
    fn say_start(&self, rates: &ChosenRates, site: &Site, counts: &Counts, chosen: u64) {
        say(format_args!(
            "provisioning {chosen} of {} devices of {} with template {} in {} on {site}",
            counts.total(),
            self.lot.display(),
            self.binding.template,
            self.binding.region,
        ));
        say(format_args!(
            "connections {}, {rates}; {}; ledger {}",
            self.connections.map_or(String::from("as needed"), |connections| connections.to_string()),
            say_keys(&self.keys),
            self.ledger.display(),
        ));
    }

    fn say_plain_keys(&self) {
        say(format_args!(
            "note: the ledger {} holds private keys in plain text, readable by its owner alone (mode 0600); \
             --seal-to RECIPIENT would encrypt them",
            self.ledger.display()
        ));
    }
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

fn nothing_to_do(settings: &Settings, outputs: &Outputs, counts: &Counts, exit: Exit) -> Result<Exit, Fatal> {
    let summary = Summary::new("complete", Duration::ZERO, *counts, &Default::default());
    let text = format!(
        "nothing to do, nothing was sent: of {} devices {} are registered, {} rejected, {} unknown (ledger {})\n",
        counts.total(),
        summary.devices.registered,
        summary.devices.rejected,
        summary.devices.unknown,
        settings.ledger.display()
    );
    print_summary(outputs.summary.as_ref(), &Shown::new(text, &summary))?;
    Ok(exit)
}

/// A run over a lot's open devices.
struct Provision {
    settings: Settings,
    plan: Plan,
    connector: WssConnector,
    /// Tells whether a registration happened whose answer was lost; `None` if there is nobody to ask.
    settler: Option<Arc<dyn Settler>>,
    /// Where the devices stood before it.
    counts: Counts,
    /// Those that it takes up.
    chosen: Chosen,
}

impl Job for Provision {
    type Snapshot = Snapshot;

    fn verb(&self) -> &'static str {
        "provision"
    }

    fn settings(&self) -> Map<String, Value> {
        let rate = |limit: RateLimit| limit.fixed().map(Rate::as_per_second);
        let Rates { connect, create, register } = self.plan.rates;
        let own = json!({
            "connections": self.settings.connections,
            "connect_per_s": rate(connect),
            "create_per_s": rate(create),
            "register_per_s": rate(register),
            "keys": match self.plan.keys.source {
                KeySource::Service => "aws",
                KeySource::Local(key_type) => key_type.name(),
            },
            "timeout_s": self.plan.exchange_timeout.as_secs_f64(),
            "parameters": self.settings.reading.constants,
        });
        conduct::settings(self.plan.keys.seal_to.as_ref(), own)
    }

    fn offer(&self) -> Offer {
        let Rates { connect, create, register } = self.plan.rates;
        let limits = [
            (Operation::Connect, connect),
            (Operation::CreateCertificate, create),
            (Operation::RegisterThing, register),
        ];
        let limit = |(operation, limit): (Operation, RateLimit)| {
            Some((operation.name().to_owned(), limit.fixed()?.as_per_second()))
        };
        Offer { limits: limits.into_iter().filter_map(limit).collect(), ..Offer::default() }
    }

    fn before(&self) -> Snapshot {
        Snapshot { devices: self.counts, ..Snapshot::default() }
    }

    fn view(&self) -> impl FnMut(&Snapshot) -> View + Send + 'static {
        let (mut recent, rates) = (Recent::default(), self.plan.rates);
        recent.see(Instant::now(), &self.before());
        move |snapshot| {
            recent.see(Instant::now(), snapshot);
            View::of_provision(snapshot, &recent, &rates)
        }
    }

    fn reading(&self) -> impl Fn(&Snapshot) -> Reading + Send + Sync + 'static {
        let rates = self.plan.rates;
        move |snapshot| prometheus::reading(snapshot, &rates)
    }

    async fn run(self, ledger: Option<Ledger>, reins: Reins<Snapshot>) -> Result<Done, Fatal> {
        let Self { settings, plan, connector, settler, counts: before, chosen } = self;
        let ledger = ledger.expect("a lot has a ledger");
        let audience = Audience { progress: reins.progress, intervals: reins.intervals };
        let clock = Arc::new(SystemTime::now);
        let outcome = engine::run(plan, connector, settler, ledger, clock, reins.stop, audience).await;
        let counts = outcome.ledger.view().counts().map_err(ledger_error)?;
        let exit = Exit::of_run(&outcome, chosen.exit(&before, &counts));
        let Outcome { end, metrics, usage, elapsed, ledger } = outcome;
        let (name, detail) = told(&end);
        let summary = Summary::new(name, elapsed, counts, &metrics).with_usage(&usage);
        let footer = Footer {
            end: name.to_owned(),
            detail,
            elapsed_s: elapsed.as_secs_f64(),
            devices: Some(counts.into()),
            thresholds: Vec::new(),
            slowest: Slowest::default(),
        };
        Ok(Done {
            exit,
            kept: serde_json::to_value(&summary).expect("a summary is plain data"),
            summary: Shown::new(report::render(&summary, manner::detail()), &summary),
            footer,
            elapsed,
            words: words(&end, exit, &counts, &settings.ledger)
                .into_iter()
                .chain(advice::faster(&usage))
                .collect(),
            ledger: (!matches!(end, End::Ledger(_))).then_some(ledger),
        })
    }
}

/// The end's name and why, for results.
fn told(end: &End) -> (&'static str, String) {
    match end {
        End::Complete => ("complete", String::new()),
        End::Drained => ("drained", String::new()),
        End::Aborted => ("aborted", String::new()),
        End::Stopped(failure) => ("stopped", failure.to_string()),
        End::Ledger(error) => ("ledger_failed", error.to_string()),
        End::Bug(detail) => ("bug", detail.clone()),
    }
}

/// Why it ended and what to do next.
fn words(end: &End, exit: Exit, counts: &Counts, ledger: &Path) -> Vec<String> {
    let mut words = match end {
        End::Complete | End::Drained | End::Aborted => Vec::new(),
        End::Stopped(failure) => advice::stopped("provision", failure),
        End::Ledger(error) => vec![format!("error: {error}")],
        End::Bug(detail) => vec![advice::bug(detail)],
    };
    let ledger = ledger.display();
    match exit {
        Exit::Complete => {
            words.push(format!("keys and certificates: fleetmint export {ledger} --out DIR"));
            if counts.open() > 0 {
                words.push(format!(
                    "{} still open: the same command without --limit and --only goes on with the rest",
                    advice::number(counts.open(), "device is", "devices are")
                ));
            }
        }
        _ if counts.open() > 0 => words.push(format!(
            "{} still open; run the same command again to resume (ledger {ledger})",
            advice::number(counts.open(), "device is", "devices are")
        )),
        Exit::NotAllRegistered => {
            words.push(format!("what to do about the others: fleetmint status {ledger}"));
        }
        _ => {}
    }
    words
}
