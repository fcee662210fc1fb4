//! `fleetmint provision`: from a CSV to registered things.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::advice;
use super::args::{
    KeyArgs, OutputArgs, RateArgs, ShardArgs, SinkArgs, TargetArgs, TotalArgs, connections, lifetime, timeout,
};
use super::check::{self, BeforeArgs};
use super::conduct::{Done, Job, Offer, Reins, Shown, conduct, print_summary};
use super::dry_run::{self, Rehearsal};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::fit;
use super::lot::{LotReading, OpenLot, ledger_of};
use super::lot_args::{LotArgs, RequestArgs};
use super::manner;
use super::open_files;
use super::outputs::{Outputs, Taken};
use super::progress::{Recent, View};
use super::prometheus;
use super::rates::{ChosenRates, RateSettings, publishes_per_connection};
use super::requests::RequestSource;
use super::run_settings::{self, RunSettings};
use super::scope::{Chosen, ScopeArgs};
use super::settings::{Requests, check_template, creating, key_policy, keys_sink};
use super::shard::Part;
use super::speech::{say, warn};
use super::target::{Site, Target};
use crate::call::Call;
use crate::control_plane::Settler;
use crate::engine::{
    self, Audience, Connections, End, KeyPolicy, KeySource, Outcome, Plan, Rates, Scope, Snapshot,
};
use crate::event::Operation;
use crate::exposition::Reading;
use crate::identity::ParameterPlan;
use crate::ledger::{Binding, Content, Counts, Ledger, LotChanges, RunInfo, View as LedgerView};
use crate::metrics::Slowest;
use crate::provisioning::Topics;
use crate::rate::{Rate, RateLimit};
use crate::report::{self, Summary};
use crate::results::Footer;
use crate::sealing::Sealer;
use crate::transport::wss::WssConnector;

const AFTER: &str = "\
Examples:
  fleetmint provision lot.csv --emulator
  fleetmint provision lot.csv --profile factory --template TEMP_DEVICE
  fleetmint provision lot.csv --template TEMP_DEVICE --keys local --rates quotas --results run.jsonl

Credentials come from where AWS's own tools find them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary \
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
    pub(super) sink: SinkArgs,

    #[command(flatten)]
    pub(super) requests: RequestArgs,

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
    pub(super) shard: ShardArgs,

    #[command(flatten)]
    pub(super) total: TotalArgs,

    #[command(flatten)]
    pub(super) scope: ScopeArgs,

    /// What becomes of devices whose thing exists already: they are registered, as the template's OverrideSettings say, or left
    /// out of the run.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = IfExists::Register, help_heading = "Lot")]
    pub(super) if_exists: IfExists,

    #[command(flatten)]
    pub(super) before: BeforeArgs,

    /// Do everything but send: say what would be sent, how fast, and how long it would take. Makes and changes no ledger, and
    /// only reads from the account.
    #[arg(long, help_heading = "Lot")]
    pub(super) dry_run: bool,

    /// Take other parameters, keys or recipients than the ledger has, for the devices that are still to come. Registered
    /// devices stay as they are.
    #[arg(long, help_heading = "Lot")]
    pub(super) change_settings: bool,

    #[command(flatten)]
    pub(super) outputs: OutputArgs,
}

/// What becomes of devices whose thing exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum IfExists {
    /// They are registered.
    Register,
    /// They are left out.
    Refuse,
}

/// The parsed arguments.
struct Settings {
    lot: PathBuf,
    ledger: PathBuf,
    reading: LotReading,
    target: Target,
    binding: Binding,
    keys: KeyPolicy,
    keys_sink: Option<PathBuf>,
    rates: RateSettings,
    connections: Option<usize>,
    timeout: Duration,
    connection_lifetime: Duration,
    reissue_unknown: bool,
    part: Part,
    scope: Scope,
    if_exists: IfExists,
    before: BeforeArgs,
    dry_run: bool,
    /// The settings for the content of identities, if they are to replace those in the ledger.
    changed_content: Option<Content>,
}

/// Provisions every open device of a lot.
pub(super) async fn run(args: ProvisionArgs) -> Result<Exit, Fatal> {
    let (settings, outputs) = Settings::new(args).await?;
    let lot = settings.reading.read(&settings.lot, &settings.ledger)?;
    // An existing ledger may have nothing left to do; then the account need not be queried.
    let mut site = None;
    if !settings.ledger.exists() {
        match settings.open(&lot.parameters, None).await {
            Ok(open) => site = Some(open),
            Err(fatal) => return Err(lot.or_wrong_rows(fatal)),
        }
    }
    let rehearsal = settings.dry_run.then(|| Rehearsal::of(&settings.ledger)).transpose()?;
    let path = rehearsal.as_ref().map_or(settings.ledger.as_path(), Rehearsal::ledger);
    let (ledger, parameters) = take_in(lot, path, &settings).map_err(|fatal| match &rehearsal {
        Some(rehearsal) => rehearsal.told_of(fatal, &settings.ledger),
        None => fatal,
    })?;
    let counts = ledger.view().counts().map_err(ledger_error)?;
    if counts.open() == 0 {
        return nothing_to_do(&settings, &outputs, &counts, Exit::of_devices(&counts));
    }
    let mut chosen = Chosen::of(settings.scope.clone(), ledger.view(), &counts)?;
    if settings.if_exists == IfExists::Refuse && chosen.devices > 0 {
        if site.is_none() {
            site = Some(settings.open(&parameters, Some(ledger.view())).await?);
        }
        if let Some(site) = &site {
            let scope = settings.without_existing(site, &parameters, ledger.view()).await?;
            chosen = Chosen::of(scope, ledger.view(), &counts)?;
        }
    }
    if chosen.devices == 0 {
        return nothing_to_do(&settings, &outputs, &counts, chosen.exit(&counts, &counts));
    }
    let connections = settings.connections(chosen.devices)?;
    let topics = settings.topics(ledger.view())?;
    let holds_new_secrets = settings.is_first_to_hold_plain_keys(ledger.view())?;
    let site = match site {
        Some(site) => site,
        None => settings.open(&parameters, Some(ledger.view())).await?,
    };
    let rates = settings.rates.choose(settings.target.is_aws(), &site).await?;
    if settings.dry_run {
        let told = settings.rehearsed(&chosen, &counts, &parameters, &rates);
        site.close().await;
        return show_rehearsal(told, &outputs, counts);
    }
    let connector = site.connector(topics, settings.timeout)?;
    settings.say_start(&rates, &site, &counts, chosen.devices);
    if holds_new_secrets {
        settings.say_plain_keys();
    }
    let scope = chosen.scope.clone();
    let plan = settings.plan(scope, parameters, connections, rates.rates(), site.settler());
    if let Some(at) = settings.part.begins_at() {
        sleep_until(at).await;
    }
    let job = Provision { plan, connector, counts, chosen, settings };
    conduct(job, Some(ledger), site, outputs).await
}

/// Opens or creates the lot's ledger, adds what is new in the lot, and returns it with the parameters.
fn take_in(lot: OpenLot, path: &Path, settings: &Settings) -> Result<(Ledger, ParameterPlan), Fatal> {
    if let Some(sink) = settings.keys_sink.as_ref().filter(|_| !settings.ledger.exists()) {
        Ledger::refuse_claimed_sink(&settings.ledger, sink).map_err(ledger_error)?;
    }
    let (mut ledger, parameters) = lot.into_ledger(path, &settings.binding)?;
    if settings.dry_run {
        ledger.view().refuse_conflicts(&settings.ledger).map_err(ledger_error)?;
    }
    if let Some(content) = &settings.changed_content {
        ledger.change_content(content).map_err(ledger_error)?;
    }
    if let Some(sink) = settings.keys_sink.as_ref().filter(|_| !settings.dry_run) {
        ledger.keep_in_sink(sink, SystemTime::now()).map_err(ledger_error)?;
    }
    say_changes(ledger.lot_changes());
    settings.warn_of_others(ledger.view());
    if settings.reissue_unknown {
        super::retry::reissue_unknown(&mut ledger)?;
    }
    Ok((ledger, parameters))
}

/// Shows what a run would do, instead of its summary.
fn show_rehearsal(told: String, outputs: &Outputs, counts: Counts) -> Result<Exit, Fatal> {
    let summary = Summary::new("dry_run", Duration::ZERO, counts, &Default::default());
    print_summary(outputs.summary.as_ref(), &Shown::new(told, &summary))?;
    Ok(Exit::Complete)
}

impl Settings {
    async fn new(args: ProvisionArgs) -> Result<(Self, Outputs), Fatal> {
        // Errors in the arguments are reported before the account is queried.
        let requests = RequestSource::new(args.requests)?;
        let given = if requests.is_some() { Requests::Given } else { Requests::Absent };
        let keys = key_policy(&args.keys, given)?;
        let reading = LotReading::new(args.reading, requests)?;
        let scope = args.scope.scope()?;
        let part = Part::new(&args.shard)?;
        let connections = part.connections(args.connections, args.total.connections.total_connections)?;
        if let Some(template) = &args.template {
            check_template(template)?;
        }
        let outputs = Outputs::open(args.outputs, part, Taken::Numbered).await?;
        let mut target = args.target.resolve().await?;
        target.client_id_prefix = part.client_id_prefix(target.client_id_prefix);
        let template = target.template(args.template.as_deref())?;
        let content = content(&reading, &keys);
        let changed_content = args.change_settings.then(|| content.clone());
        let ledger = ledger_of(&args.lot, args.ledger, part)?;
        let settings = Self {
            keys_sink: keys_sink(args.sink, &keys, &ledger)?,
            ledger,
            lot: args.lot,
            reading,
            binding: Binding {
                template,
                region: target.region.clone(),
                account: target.account().to_string(),
                content: (!args.change_settings).then_some(content),
                shard: part.shard,
            },
            rates: RateSettings::new(&args.rates, keys.source, args.total.total_rate, part.shard),
            part,
            target,
            keys,
            connections,
            timeout: args.timeout,
            connection_lifetime: args.connection_lifetime,
            reissue_unknown: args.reissue_unknown,
            scope,
            if_exists: args.if_exists,
            before: args.before,
            dry_run: args.dry_run,
            changed_content,
        };
        Ok((settings, outputs))
    }

    /// Opens the target after checking that the run can succeed.
    async fn open(&self, parameters: &ParameterPlan, ledger: Option<&LedgerView>) -> Result<Site, Fatal> {
        let site = self.target.open().await?;
        if self.before.no_check {
            return Ok(site);
        }
        if !self.target.is_aws() {
            fit::check(&site, &self.binding.template, parameters).await?;
            return Ok(site);
        }
        let devices = match self.reading.read_again(&self.lot, &self.ledger)? {
            Some(lot) => check::Devices::Lot(Box::new(lot), ledger, self.binding.shard),
            None => ledger.map_or(check::Devices::Unread(parameters), |ledger| {
                check::Devices::Ledger(ledger, parameters)
            }),
        };
        let mut calls = creating(self.keys.source, false);
        calls.push(Call::RegisterThing);
        let intent = check::Intent {
            template: Some(&self.binding.template),
            topics: Topics::of(&self.binding.template, &calls),
            timeout: self.timeout,
        };
        check::before(&site, &self.target.service, intent, devices, Some(&self.ledger)).await?;
        Ok(site)
    }

    /// The run's scope without the devices whose thing already exists; reports those.
    async fn without_existing(
        &self,
        site: &Site,
        parameters: &ParameterPlan,
        view: &LedgerView,
    ) -> Result<Scope, Fatal> {
        let template = &self.binding.template;
        let existing = check::devices_that_exist(site, template, parameters, view).await?;
        if !existing.is_empty() {
            let mut first: Vec<_> = existing.iter().collect();
            first.sort_unstable();
            first.truncate(3);
            let more = if existing.len() > first.len() { ", …" } else { "" };
            warn(format_args!(
                "warning: left out, because their things exist already: {}, {}{more}",
                advice::number(existing.len() as u64, "device", "devices"),
                first.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", "),
            ));
        }
        Ok(Scope { except: Arc::new(existing), ..self.scope.clone() })
    }

    /// The number of connections: as requested, or as many as needed, but at most one per device, since others would
    /// be idle. Makes sure that the process may open them.
    fn connections(&self, devices: u64) -> Result<Connections, Fatal> {
        let devices = usize::try_from(devices).unwrap_or(usize::MAX);
        let service = &self.target.service;
        if let Some(typed) = self.connections {
            let connections = typed.min(devices);
            open_files::allow(connections, service, "--connections")?;
            return Ok(Connections::Fixed(connections));
        }
        match open_files::allow_up_to(Connections::MOST.min(devices), service) {
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

    fn plan(
        &self,
        scope: Scope,
        parameters: ParameterPlan,
        connections: Connections,
        rates: Rates,
        settler: Option<Arc<dyn Settler>>,
    ) -> Plan {
        Plan {
            scope,
            connections,
            rates,
            publishes_per_connection: publishes_per_connection(self.target.is_aws()),
            parameters,
            keys: self.keys.clone(),
            exchange_timeout: self.timeout,
            connection_lifetime: self.connection_lifetime,
            settler,
            ..Plan::default()
        }
    }

    /// Whether the ledger gets keys in plain text and no earlier run has said so.
    fn is_first_to_hold_plain_keys(&self, view: &LedgerView) -> Result<bool, Fatal> {
        let was_said = |run: &RunInfo| RunSettings::of(run).seal_to.is_none_or(|to| to.is_empty());
        let runs = view.runs().map_err(ledger_error)?;
        Ok(self.keys.seal_to.is_none() && !runs.iter().any(was_said))
    }

    /// Announces the run on stderr.
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

    /// Warns of other ledgers in the same directory that have done something for the same devices: each of these
    /// would get a second certificate here.
    fn warn_of_others(&self, view: &LedgerView) {
        let beside = self.ledger.parent().filter(|folder| !folder.as_os_str().is_empty());
        // A folder that cannot be listed is treated as empty.
        let others = view.overlaps(beside.unwrap_or(Path::new("."))).unwrap_or_default();
        for other in others.iter().filter(|other| !is_same_file(&other.ledger, &self.ledger)) {
            warn(format_args!(
                "warning: the ledger {} has had to do with {} of this lot, {:?} for one: provisioned here, they get a second \
                 certificate; go on with that ledger (--ledger), or take their rows out",
                other.ledger.display(),
                advice::number(other.devices, "device", "devices"),
                other.example,
            ));
        }
    }

    /// Describes what a run would do.
    fn rehearsed(
        &self,
        chosen: &Chosen,
        counts: &Counts,
        parameters: &ParameterPlan,
        rates: &ChosenRates,
    ) -> String {
        let devices = chosen.devices;
        let names: Vec<_> = parameters.names().map(ToString::to_string).collect();
        let time = match dry_run::least_time(devices, &rates.rates()) {
            Some(time) => format!("at least {} at these rates", humantime::format_duration(time)),
            None => String::from("as long as the service takes: no rate is fixed"),
        };
        format!(
            "dry run: nothing was sent, and no ledger was made or changed (ledger {})\n\
             {devices} of {} would be provisioned; {} registered, {} rejected, {} unknown, {} unsettled\n\
             {} certificates and {devices} registrations at most, with the parameters {}\n\
             {rates}; {}\n\
             {time}\n",
            self.ledger.display(),
            advice::number(counts.total(), "device", "devices"),
            counts.registered,
            counts.rejected,
            counts.unknown,
            counts.issued_may_sent,
            devices.min(counts.pending),
            names.join(", "),
            say_keys(&self.keys),
        )
    }

    fn say_plain_keys(&self) {
        say(format_args!(
            "note: the ledger {} holds private keys in plain text, readable by its owner alone (mode 0600); \
             --seal-to RECIPIENT would encrypt them",
            self.ledger.display()
        ));
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// What determines the content of an identity besides its row.
fn content(reading: &LotReading, keys: &KeyPolicy) -> Content {
    let (key_source, key_type) = match keys.source {
        KeySource::Service => ("aws", None),
        KeySource::Local(key_type) => ("local", Some(key_type.name().to_owned())),
        KeySource::Device => ("csr", None),
    };
    Content {
        parameters: reading.constants.iter().cloned().collect(),
        key_source: key_source.to_owned(),
        key_type,
        recipients: keys.seal_to.iter().flat_map(Sealer::recipients).cloned().collect(),
        others: reading.others(),
    }
}

/// Reports what has changed in a lot.
fn say_changes(changes: &LotChanges) {
    let LotChanges { added, changed, withdrawn, returned, moved, bound_anew } = *changes;
    let told: Vec<_> = [
        (added, "added"),
        (changed, "changed"),
        (withdrawn, "withdrawn, since their rows are gone"),
        (returned, "back"),
        (moved, "on another line"),
    ]
    .into_iter()
    .filter(|(rows, _)| *rows > 0)
    .map(|(rows, what)| format!("{rows} {what}"))
    .collect();
    if !told.is_empty() {
        say(format_args!("the lot is not what it was, rows: {}", told.join(", ")));
    }
    if bound_anew {
        say("nothing was issued yet, so that the ledger takes the settings of this run");
    }
}

fn say_keys(keys: &KeyPolicy) -> String {
    let source = match keys.source {
        KeySource::Service => String::from("keys from AWS"),
        KeySource::Local(key_type) => format!("keys made here ({})", key_type.name()),
        KeySource::Device => String::from("keys of the devices' own"),
    };
    match &keys.seal_to {
        None => source,
        Some(sealer) => format!("{source}, sealed to {}", sealer.recipients().join(", ")),
    }
}

fn nothing_to_do(settings: &Settings, outputs: &Outputs, counts: &Counts, exit: Exit) -> Result<Exit, Fatal> {
    let summary = Summary::new("complete", Duration::ZERO, *counts, &Default::default());
    let text = format!(
        "nothing to do, nothing was sent: of {} devices {} are registered, {} rejected, {} unknown{} (ledger {})\n",
        counts.total(),
        summary.devices.registered,
        summary.devices.rejected,
        summary.devices.unknown,
        if counts.removed > 0 { format!(", {} removed", counts.removed) } else { String::new() },
        settings.ledger.display()
    );
    if counts.removed > 0 {
        say(format_args!(
            "what was made for removed devices was taken out of the account again; to make it anew: fleetmint retry {} --state removed",
            settings.ledger.display()
        ));
    }
    print_summary(outputs.summary.as_ref(), &Shown::new(text, &summary))?;
    Ok(exit)
}

/// A run over a lot's open devices.
struct Provision {
    settings: Settings,
    plan: Plan,
    connector: WssConnector,
    /// The devices by state before the run.
    counts: Counts,
    /// The devices in the run's scope.
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
        let mut own = json!({
            "connections": self.settings.connections,
            "connect_per_s": rate(connect),
            "create_per_s": rate(create),
            "register_per_s": rate(register),
            "keys": match self.plan.keys.source {
                KeySource::Service => "aws",
                KeySource::Local(key_type) => key_type.name(),
                KeySource::Device => "csr",
            },
            "timeout_s": self.plan.exchange_timeout.as_secs_f64(),
            "parameters": self.settings.reading.constants,
        });
        if let Some(shard) = self.settings.part.shard {
            own["shard"] = shard.to_string().into();
        }
        run_settings::kept(self.plan.keys.seal_to.as_ref(), own)
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
        let Self { settings, plan, connector, counts: before, chosen } = self;
        let ledger = ledger.expect("a lot has a ledger");
        let audience = Audience { progress: reins.progress, intervals: reins.intervals };
        let outcome = engine::run(plan, connector, ledger, reins.stop, audience).await;
        let counts = outcome.ledger.view().counts().map_err(ledger_error)?;
        let exit = Exit::of_run(&outcome, chosen.exit(&before, &counts));
        let Outcome { end, metrics, usage, elapsed, ledger } = outcome;
        let summary = Summary::new(end.name(), elapsed, counts, &metrics).with_usage(&usage);
        let footer = Footer {
            end: end.name().to_owned(),
            detail: end.detail(),
            elapsed_s: elapsed.as_secs_f64(),
            devices: Some(counts.into()),
            thresholds: Vec::new(),
            slowest: Slowest::default(),
            bound: summary.bound.clone(),
            found_per_s: summary.found_per_s(),
        };
        Ok(Done {
            exit,
            kept: serde_json::to_value(&summary).expect("a summary is plain data"),
            summary: Shown::new(report::render(&summary, manner::detail()), &summary),
            footer,
            elapsed,
            words: words(&end, exit, &counts, &settings)
                .into_iter()
                .chain(advice::faster(&usage).filter(|_| exit == Exit::Complete))
                .collect(),
            ledger: (!matches!(end, End::Ledger(_))).then_some(ledger),
        })
    }
}

/// Why the run ended and what to do next.
fn words(end: &End, exit: Exit, counts: &Counts, settings: &Settings) -> Vec<String> {
    let topics = Topics::new(&settings.binding.template);
    let mut words = advice::ended("provision", end, Some(&topics));
    let ledger = settings.ledger.display();
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
