//! `fleetmint check`: whether a run can succeed, before anything is sent.
//!
//! [`account`] queries, [`rows`] evaluates, [`machine`] measures, and each reports what it found as a [`Finding`].
//! `provision` and `load` run the same checks before they begin, and report only problems.

mod account;
mod findings;
mod machine;
mod rows;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{KeyArgs, TargetArgs, timeout};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::fit;
use super::lot::{LotReading, OpenLot, ledger_of};
use super::lot_args::{LotArgs, RequestArgs};
use super::requests::RequestSource;
use super::settings::{Requests, check_template, creating, key_policy};
use super::shard::Part;
use super::speech::{print, warn};
use super::target::{Service, Site, asked};
use crate::call::Call;
use crate::control_plane::DescribedTemplate;
use crate::identity::ParameterPlan;
use crate::ledger::View;
use crate::preflight::Expected;
use crate::provisioning::Topics;
use crate::shard::Shard;
use account::Account;
use findings::{Finding, Findings};
pub(super) use rows::Things;

/// How many things are queried if not all of them are.
const SAMPLE: usize = 50;

const AFTER: &str = "\
Examples:
  fleetmint check lot.csv --profile factory --template TEMP_DEVICE
  fleetmint check lot.csv --template TEMP_DEVICE --deep --json
  fleetmint check lot.csv --emulator

Nothing is changed, here or in the account. Exit codes: 0 a run can succeed (there may be warnings), 65 the lot is wrong, 69 \
something is missing or wrong in the account or on this machine, 74 the ledger has no place, 77 the credentials are refused.";

/// Check whether a run can succeed: credentials, endpoint, template, lot, quotas, disk. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct CheckArgs {
    /// The lot: a CSV with a header; each column is a template parameter, each row a device.
    #[arg(value_name = "LOT.csv")]
    lot: PathBuf,

    #[command(flatten)]
    target: TargetArgs,

    /// The provisioning template.
    #[arg(long, value_name = "NAME", required_unless_present = "emulator", help_heading = "Service")]
    template: Option<String>,

    /// The run's ledger, if there is one already [default: beside the lot, LOT.ledger].
    #[arg(long, value_name = "FILE", help_heading = "Lot")]
    ledger: Option<PathBuf>,

    #[command(flatten)]
    reading: LotArgs,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    requests: RequestArgs,

    /// Ask for every thing whether it exists already, not for a sample of 50.
    #[arg(long, help_heading = "Check")]
    deep: bool,

    /// Say it as JSON.
    #[arg(long, help_heading = "Check")]
    json: bool,

    /// How long a connection attempt may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout, help_heading = "Check")]
    timeout: Duration,
}

/// Whether a run on a real endpoint is preceded by a check.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct BeforeArgs {
    /// Do not check template, lot and account before the run; see `check`.
    #[arg(long, help_heading = "Check")]
    pub(super) no_check: bool,
}

/// What a run is going to do.
pub(super) struct Intent<'a> {
    /// The template, if the run registers devices.
    pub(super) template: Option<&'a str>,
    /// The topics that it subscribes to.
    pub(super) topics: Topics,
    pub(super) timeout: Duration,
}

/// Where a run's devices come from.
pub(super) enum Devices<'a> {
    /// A lot, which may have a ledger. If it is sharded, only the first shard looks beyond its own rows.
    Lot(Box<OpenLot>, Option<&'a View>, Option<Shard>),
    /// A ledger, with the parameters that its devices are sent with.
    Ledger(&'a View, &'a ParameterPlan),
    /// A source that cannot be read twice; only the parameters are known.
    Unread(&'a ParameterPlan),
    /// The run has no devices.
    None,
}

/// Runs the checks before a run, and reports only problems.
///
/// # Errors
/// If the run cannot succeed.
pub(super) async fn before(
    site: &Site,
    service: &Service,
    intent: Intent<'_>,
    devices: Devices<'_>,
    ledger: Option<&Path>,
) -> Result<(), Fatal> {
    let mut findings = Findings::default();
    let template = intent.template.unwrap_or_default();
    let account = site.can_ask().then(|| Account::new(site, template));
    // The caller's identity is not queried: a run does not need STS, and not every network allows it.
    let open = look(site, account.as_ref(), intent, devices, Things::Sample(SAMPLE), &mut findings).await?;
    if let Some(ledger) = ledger {
        findings.extend(machine::ledger(ledger, open));
    }
    findings.add(open_files(open, service));
    findings.settle();
    findings.conclude_before_run()
}

/// The keys of a ledger's open devices whose thing already exists and was not made for them by an earlier run.
///
/// # Errors
/// If that cannot be determined.
pub(super) async fn devices_that_exist(
    site: &Site,
    template: &str,
    parameters: &ParameterPlan,
    view: &View,
) -> Result<HashSet<String>, Fatal> {
    let refuse = |exit, why: String| Fatal::new(exit, format!("--if-exists refuse: {why}"));
    if !site.can_ask() {
        return Err(refuse(
            Exit::Unavailable,
            String::from("without AWS credentials nobody can be asked which things exist"),
        ));
    }
    let account = Account::new(site, template);
    let described = account.described().await.map_err(|error| {
        asked(
            &error,
            "--if-exists refuse needs iot:DescribeProvisioningTemplate",
            "check --template and --region",
        )
    })?;
    let devices = Devices::Ledger(view, parameters);
    let expected = rows::look(devices, Some(&described), Things::All)?.expected.ok_or_else(|| {
        refuse(Exit::Unavailable, format!("the names of the things are not known: {template} has something in it that fleetmint does not know"))
    })?;
    if let Some(why) = &expected.unknown_names {
        return Err(refuse(Exit::Unavailable, format!("the names of the things are not known: {why}")));
    }
    if let Some(hook) = &described.hook {
        warn(format_args!(
            "warning: --if-exists refuse goes by the names that the template gives; its hook {hook} may change the parameters, \
             and a device whose thing gets another name by that is not left out"
        ));
    }
    let existing = account
        .existing(&expected.things, Things::All)
        .await
        .map_err(|error| asked(&error, "--if-exists refuse needs iot:DescribeThing", "try again"))?;
    let foreign = foreign(existing, Some(view))?;
    Ok(foreign.into_iter().map(|(key, _)| key.clone()).collect())
}

/// Of devices and their existing things, those that did not have this thing before a rework.
fn foreign<'t>(
    existing: Vec<&'t (String, String)>,
    view: Option<&View>,
) -> Result<Vec<&'t (String, String)>, Fatal> {
    let Some(view) = view else { return Ok(existing) };
    let mut foreign = Vec::new();
    for device in existing {
        if !view.had_thing(&device.0, &device.1).map_err(ledger_error)? {
            foreign.push(device);
        }
    }
    Ok(foreign)
}

/// Runs all checks and reports the findings.
pub(super) async fn run(args: CheckArgs) -> Result<Exit, Fatal> {
    let requests = RequestSource::new(args.requests)?;
    let given = if requests.is_some() { Requests::Given } else { Requests::Absent };
    let keys = key_policy(&args.keys, given)?;
    let reading = LotReading::new(args.reading, requests)?;
    if let Some(template) = &args.template {
        check_template(template)?;
    }
    let ledger = ledger_of(&args.lot, args.ledger, Part::default())?;
    let mut findings = Findings::default();
    let mut calls = creating(keys.source, false);
    calls.push(Call::RegisterThing);
    let things = if args.deep { Things::All } else { Things::Sample(SAMPLE) };
    let lot = reading.read(&args.lot, &ledger);
    let view = ledger.exists().then(|| View::open(&ledger)).transpose().map_err(ledger_error)?;
    let shard = view.as_ref().and_then(|view| view.lot().binding.shard);
    let target = args.target.resolve().await;
    let (target, site) = match target {
        Ok(target) => {
            let site = target.open().await;
            (Some(target), site)
        }
        // The command line is wrong, so nothing else can be checked.
        Err(fatal) if fatal.exit == Exit::Usage => return Err(fatal),
        Err(fatal) => (None, Err(fatal)),
    };
    let lot = lot.map_err(|fatal| findings.add(Finding::of_fatal("lot", &fatal))).ok();
    let devices = lot.map_or(Devices::None, |lot| Devices::Lot(Box::new(lot), view.as_ref(), shard));
    let open = match site {
        Ok(site) => {
            let target = target.as_ref().expect("what is open was resolved");
            let template = target.template(args.template.as_deref())?;
            let mut account = site.can_ask().then(|| Account::new(&site, &template));
            if let Some(account) = &mut account {
                findings.add(account.learn_caller().await);
            }
            let intent = Intent {
                template: Some(&template),
                topics: Topics::of(&template, &calls),
                timeout: args.timeout,
            };
            let open = look(&site, account.as_ref(), intent, devices, things, &mut findings).await?;
            if let Some(account) = &account {
                findings.add(account.quotas(calls[0], open).await);
            }
            site.close().await;
            open
        }
        Err(fatal) => {
            findings.add(Finding::of_fatal("credentials", &fatal));
            look_at_rows(devices, None, things, &mut findings)?.0
        }
    };
    findings.extend(machine::ledger(&ledger, open));
    if let Some(target) = &target {
        findings.add(open_files(open, &target.service));
    }
    findings.settle();
    print(&if args.json { findings.json() } else { findings.text() });
    Ok(findings.exit())
}

/// Checks the account and what the devices become in it; returns how many are still to be registered.
async fn look(
    site: &Site,
    account: Option<&Account<'_>>,
    intent: Intent<'_>,
    devices: Devices<'_>,
    things: Things,
    findings: &mut Findings,
) -> Result<u64, Fatal> {
    let Intent { template, topics, timeout } = intent;
    let described = look_at_account(site, account, template.is_some(), topics, timeout, findings).await;
    if let (Some(described), Some(template), Some(plan)) = (&described, template, devices.parameters()) {
        findings.extend(parameters_fit(described, template, plan));
    }
    let view = devices.view();
    let (open, expected) = look_at_rows(devices, described.as_ref(), things, findings)?;
    if let (Some(account), Some(expected)) = (account, &expected) {
        findings.extend(account.resources(expected).await);
        let has_hook = described.is_some_and(|described| described.hook.is_some());
        findings.extend(existing(account, expected, things, view, has_hook).await?);
    }
    Ok(open)
}

impl<'a> Devices<'a> {
    fn view(&self) -> Option<&'a View> {
        match self {
            Self::Lot(_, view, _) => *view,
            Self::Ledger(view, _) => Some(view),
            Self::Unread(_) | Self::None => None,
        }
    }

    fn parameters(&self) -> Option<&ParameterPlan> {
        match self {
            Self::Lot(lot, ..) => Some(&lot.parameters),
            Self::Ledger(_, parameters) | Self::Unread(parameters) => Some(parameters),
            Self::None => None,
        }
    }
}

fn no_account() -> Finding {
    Finding::skipped(
        "credentials",
        "a claim certificate, and no AWS credentials: nobody can be asked about the account",
    )
    .remedy("with credentials as well, the template, names and quotas are looked at too")
}

fn open_files(open: u64, service: &Service) -> Finding {
    /// The most connections that are opened unless their number is set.
    const MOST: usize = 1_000;
    machine::open_files(MOST.min(usize::try_from(open).unwrap_or(MOST)), service)
}

/// Checks everything that does not depend on rows, concurrently: caller, endpoint and template.
async fn look_at_account(
    site: &Site,
    account: Option<&Account<'_>>,
    is_registering: bool,
    topics: Topics,
    timeout: Duration,
    findings: &mut Findings,
) -> Option<DescribedTemplate> {
    let connection = account::connection(site, topics, timeout);
    let Some(account) = account else {
        findings.add(no_account());
        findings.add(connection.await);
        return None;
    };
    let asked = async { if is_registering { account.template().await } else { (Vec::new(), None) } };
    let ((template, described), endpoint, connection) = tokio::join!(asked, account.endpoint(), connection);
    findings.add(endpoint);
    findings.extend(account.clock());
    findings.add(connection);
    findings.extend(template);
    described
}

/// Compares what is sent with what the template declares, exactly as before a run.
fn parameters_fit(described: &DescribedTemplate, template: &str, plan: &ParameterPlan) -> Vec<Finding> {
    let Some(fit::Comparison { wrong, warnings, defaulted, sent }) = fit::compare(described, template, plan)
    else {
        return vec![Finding::warning("parameters", format!("the body of {template} is not JSON"))];
    };
    let mut findings: Vec<_> =
        wrong.iter().map(|wrong| Finding::wrong("parameters", Exit::BadIdentities, wrong)).collect();
    findings.extend(warnings.iter().map(|warning| Finding::warning("parameters", warning)));
    if findings.is_empty() {
        let defaults = match &defaulted[..] {
            [] => String::new(),
            names => format!("; the template's defaults for {}", names.join(", ")),
        };
        findings
            .push(Finding::ok("parameters", format!("{sent} sent, and all that {template} needs{defaults}")));
    }
    findings
}

/// Checks how many rows are still to be registered, and what they become.
fn look_at_rows(
    devices: Devices<'_>,
    described: Option<&DescribedTemplate>,
    things: Things,
    findings: &mut Findings,
) -> Result<(u64, Option<Expected>), Fatal> {
    let rows::Looked { findings: found, open, expected } = rows::look(devices, described, things)?;
    findings.extend(found);
    Ok((open, expected))
}

/// Things that already exist and do not belong to the ledger.
async fn existing(
    account: &Account<'_>,
    expected: &Expected,
    things: Things,
    view: Option<&View>,
    has_hook: bool,
) -> Result<Option<Finding>, Fatal> {
    if expected.things.is_empty() {
        return Ok(None);
    }
    let asked = expected.things.len();
    let of = match things {
        Things::Sample(_) if asked as u64 != expected.open => format!("{asked} of {}", expected.open),
        _ => format!("all {asked}"),
    };
    let names =
        if has_hook { ", by the names that the template gives, which its hook may change" } else { "" };
    let existing = match account.existing(&expected.things, things).await {
        Err(error) => return Ok(Some(account::unanswered("things", &error))),
        Ok(existing) => foreign(existing, view)?,
    };
    let Some((first, _)) = existing.first() else {
        return Ok(Some(Finding::ok("things", format!("none is there yet ({of} looked for{names})"))));
    };
    let found = format!(
        "{} exist already ({of} looked for{names}), that of {first:?} for one: they get another certificate, and what the \
         template's OverrideSettings say",
        existing.len(),
    );
    let finding = Finding::warning("things", found);
    Ok(Some(finding.remedy("provision --if-exists refuse leaves such devices out")))
}
