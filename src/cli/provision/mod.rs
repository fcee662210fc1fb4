//! `fleetmint provision`: from a CSV to registered things.

mod job;
mod settings;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::sleep_until;

use self::job::Provision;
use self::settings::{Settings, say_changes};
use super::args::{
    KeyArgs, OutputArgs, RateArgs, ShardArgs, SinkArgs, TargetArgs, TotalArgs, connections, lifetime, timeout,
};
use super::check::BeforeArgs;
use super::conduct::{Shown, conduct, print_summary};
use super::dry_run::Rehearsal;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::lot::OpenLot;
use super::lot_args::{LotArgs, RequestArgs};
use super::outputs::Outputs;
use super::scope::{Chosen, ScopeArgs};
use super::speech::say;
use crate::identity::ParameterPlan;
use crate::ledger::{Counts, Ledger};
use crate::report::Summary;
use crate::wording::number;

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

fn nothing_to_do(settings: &Settings, outputs: &Outputs, counts: &Counts, exit: Exit) -> Result<Exit, Fatal> {
    let summary = Summary::new("complete", Duration::ZERO, *counts, &Default::default());
    let text = format!(
        "nothing to do, nothing was sent: {} of {} registered, {} rejected, {} unknown{} (ledger {})\n",
        summary.devices.registered,
        number(counts.total(), "device", "devices"),
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
