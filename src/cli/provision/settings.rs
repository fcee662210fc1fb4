//! What a run was told to do, and what it says before it begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::COALESCING;
use super::super::check::{self, BeforeArgs};
use super::super::dry_run;
use super::super::exit::{Fatal, ledger as ledger_error};
use super::super::fit;
use super::super::lot::{LotReading, ledger_of};
use super::super::open_files;
use super::super::outputs::{Outputs, Taken};
use super::super::rates::{ChosenRates, RateSettings, publishes_per_connection};
use super::super::requests::RequestSource;
use super::super::run_settings::RunSettings;
use super::super::scope::Chosen;
use super::super::settings::{Requests, check_template, creating, key_policy, keys_sink};
use super::super::shard::Part;
use super::super::speech::{say, warn};
use super::super::target::{Site, Target};
use super::{IfExists, ProvisionArgs};
use crate::call::Call;
use crate::control_plane::Settler;
use crate::engine::{Connections, KeyPolicy, KeySource, Plan, Rates, Scope};
use crate::identity::ParameterPlan;
use crate::ledger::{Binding, Content, Counts, LotChanges, RunInfo, View as LedgerView};
use crate::provisioning::Topics;
use crate::sealing::Sealer;
use crate::wording::number;

/// The parsed arguments.
pub(super) struct Settings {
    pub(super) lot: PathBuf,
    pub(super) ledger: PathBuf,
    pub(super) reading: LotReading,
    pub(super) target: Target,
    pub(super) binding: Binding,
    pub(super) keys: KeyPolicy,
    pub(super) keys_sink: Option<PathBuf>,
    pub(super) rates: RateSettings,
    pub(super) connections: Option<usize>,
    pub(super) timeout: Duration,
    pub(super) connection_lifetime: Duration,
    pub(super) reissue_unknown: bool,
    pub(super) part: Part,
    pub(super) scope: Scope,
    pub(super) if_exists: IfExists,
    pub(super) before: BeforeArgs,
    pub(super) dry_run: bool,
    /// The settings for the content of identities, if they are to replace those in the ledger.
    pub(super) changed_content: Option<Content>,
}

impl Settings {
    pub(super) async fn new(args: ProvisionArgs) -> Result<(Self, Outputs), Fatal> {
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
                region: target.region().to_owned(),
                account: target.account(),
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
    pub(super) async fn open(
        &self,
        parameters: &ParameterPlan,
        ledger: Option<&LedgerView>,
    ) -> Result<Site, Fatal> {
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
    pub(super) async fn without_existing(
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
                number(existing.len() as u64, "device", "devices"),
                first.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", "),
            ));
        }
        Ok(Scope { except: Arc::new(existing), ..self.scope.clone() })
    }

    /// The number of connections: as requested, or as many as needed, but at most one per device, since others would
    /// be idle. Makes sure that the process may open them.
    pub(super) fn connections(&self, devices: u64) -> Result<Connections, Fatal> {
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
    pub(super) fn topics(&self, view: &LedgerView) -> Result<Topics, Fatal> {
        let have_keys = view.open_prepared_keys().map_err(ledger_error)? > 0;
        let mut calls = creating(self.keys.source, have_keys);
        calls.push(Call::RegisterThing);
        Ok(Topics::of(&self.binding.template, &calls))
    }

    pub(super) fn plan(
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
            coalescing: COALESCING.clone(),
            ..Plan::default()
        }
    }

    /// Whether the ledger gets keys in plain text and no earlier run has said so.
    pub(super) fn is_first_to_hold_plain_keys(&self, view: &LedgerView) -> Result<bool, Fatal> {
        let was_said = |run: &RunInfo| RunSettings::of(run).seal_to.is_none_or(|to| to.is_empty());
        let runs = view.runs().map_err(ledger_error)?;
        Ok(self.keys.seal_to.is_none() && !runs.iter().any(was_said))
    }

    /// Announces the run on stderr.
    pub(super) fn say_start(&self, rates: &ChosenRates, site: &Site, counts: &Counts, chosen: u64) {
        say(format_args!(
            "provisioning {chosen} of {} of {} with template {} in {} on {site}",
            number(counts.total(), "device", "devices"),
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
    pub(super) fn warn_of_others(&self, view: &LedgerView) {
        let beside = self.ledger.parent().filter(|folder| !folder.as_os_str().is_empty());
        // A folder that cannot be listed is treated as empty.
        let others = view.overlaps(beside.unwrap_or(Path::new("."))).unwrap_or_default();
        for other in others.iter().filter(|other| !is_same_file(&other.ledger, &self.ledger)) {
            warn(format_args!(
                "warning: the ledger {} has had to do with {} of this lot, {:?} for one: provisioned here, they get a second \
                 certificate; go on with that ledger (--ledger), or take their rows out",
                other.ledger.display(),
                number(other.devices, "device", "devices"),
                other.example,
            ));
        }
    }

    /// Describes what a run would do.
    pub(super) fn rehearsed(
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
             {} and {} at most, with the parameters {}\n\
             {rates}; {}\n\
             {time}\n",
            self.ledger.display(),
            number(counts.total(), "device", "devices"),
            counts.registered,
            counts.rejected,
            counts.unknown,
            counts.issued_may_sent,
            number(devices.min(counts.pending), "certificate", "certificates"),
            number(devices, "registration", "registrations"),
            names.join(", "),
            say_keys(&self.keys),
        )
    }

    pub(super) fn say_plain_keys(&self) {
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
pub(super) fn say_changes(changes: &LotChanges) {
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
