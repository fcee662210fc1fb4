//! `fleetmint find-limit`: the highest rate that the service sustains, with its evidence. [`crate::limit_search`]
//! decides what to try, and the engine tries it.

mod args;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::advice;
use super::args::DeviceArgs;
use super::conduct::{self, Done, Job, Reins, Shown, conduct};
use super::devices::{DeviceSettings, Devices};
use super::exit::{Exit, Fatal};
use super::open_files;
use super::outputs::{Outputs, Place};
use super::progress::View;
use super::prometheus::{self, Scrapes};
use super::recording;
use super::run_settings;
use super::settings::{Requests, creating, key_policy};
use super::shard::Part;
use super::speech::say;
use super::target::{Site, Target};
use crate::call::Call;
use crate::control_plane::{AccountQuota, QuotaSource, account_quotas};
use crate::engine::find::{self, FindOutcome, FindPlan, FindSnapshot};
use crate::engine::load::{LoadPlan, Scenario};
use crate::engine::{End, KeyPolicy};
use crate::event::Operation;
use crate::exposition::Reading;
use crate::instant;
use crate::ledger::{Counts, Ledger};
use crate::limit_search::SearchSettings;
use crate::metrics::Slowest;
use crate::provisioning::Topics;
use crate::rate::{Rate, RateLimit};
use crate::report::{IssuedAhead, LimitContext, LimitReport, QuotaReport, render_limit_html, step_line};
use crate::results::Footer;
use crate::service::Quota;
use crate::transport::wss::WssConnector;
use crate::wording::number;

pub(super) use args::FindLimitArgs;
use args::{FindCommand, SearchArgs};

/// The parsed arguments.
struct Settings {
    verb: &'static str,
    target: Target,
    devices: Option<DeviceSettings>,
    /// Everything except the devices' parameters.
    plan: FindPlan,
}

/// Searches for a limit, and reports what it found.
pub(super) async fn run(args: FindLimitArgs) -> Result<Exit, Fatal> {
    let (Settings { verb, target, devices, mut plan }, outputs) = Settings::new(args).await?;
    let is_registering = plan.load.scenario == Scenario::Register;
    open_files::allow(plan.load.max_connections, &target.service, "--max-connections")?;
    let site = target.open().await?;
    let devices = match devices {
        Some(devices) => Some(devices.open(&target, &site, is_registering).await?),
        None => None,
    };
    if let Some(devices) = &devices {
        plan.load.parameters = devices.parameters.clone();
    }
    let connector = site.connector(topics(devices.as_ref(), &plan), plan.load.exchange_timeout)?;
    let quota = quota(&plan, target.is_aws(), &site).await;
    say_start(verb, &plan, &site, devices.as_ref(), quota.as_ref());
    let (ledger, path) = devices.map(|devices| (devices.ledger, devices.path)).unzip();
    let context = LimitContext {
        tool: recording::tool(),
        command: recording::command_line(),
        started_at: instant::to_text(SystemTime::now()),
        site: site.told(),
    };
    conduct(Search { verb, plan, connector, quota, path, context }, ledger, site, outputs).await
}

impl Settings {
    async fn new(args: FindLimitArgs) -> Result<(Self, Outputs), Fatal> {
        let Typed { verb, scenario, issue_rate, devices, search } = Typed::of(args.sought);
        let keys = devices
            .as_ref()
            .map_or(Ok(KeyPolicy::default()), |args| key_policy(&args.keys, Requests::Absent))?;
        let devices =
            devices.map(|args| DeviceSettings::new(args, search.seed, Part::default())).transpose()?;
        let summary = search.json.map(|file| Place::check("--json", file)).transpose()?;
        let page = search.html.map(|file| Place::check("--html", file)).transpose()?;
        let scrapes = Scrapes::listen(search.prometheus).await?;
        let drain_timeout = search.drain_timeout;
        let outputs = Outputs { scrapes, summary, results: None, junit: None, page, drain_timeout };
        let target = search.target.resolve().await?;
        let default = FindPlan::new(scenario);
        let on_loopback = Rate::per_second(100.0).expect("a constant that is a rate");
        let plan = FindPlan {
            search: SearchSettings {
                start: search.start_rate.as_per_second(),
                max: search.max_rate.as_per_second(),
                max_p99: search.max_p99,
                ..default.search
            },
            issue_rate: issue_rate.unwrap_or(if target.is_aws() { default.issue_rate } else { on_loopback }),
            load: LoadPlan {
                max_connections: search.max_connections,
                max_wait: search.timeout,
                connect_rate: if target.is_aws() { default.load.connect_rate } else { RateLimit::Unlimited },
                exchange_timeout: search.timeout,
                keys,
                seed: search.seed,
                ..default.load
            },
        };
        Ok((Self { verb, target, devices, plan }, outputs))
    }
}

/// The arguments that all limits have in common.
struct Typed {
    verb: &'static str,
    scenario: Scenario,
    issue_rate: Option<Rate>,
    devices: Option<DeviceArgs>,
    search: SearchArgs,
}

impl Typed {
    fn of(command: FindCommand) -> Self {
        match command {
            FindCommand::Connect(search) => Self {
                verb: "find-limit connect",
                scenario: Scenario::Connect { hold: Duration::ZERO },
                issue_rate: None,
                devices: None,
                search: *search,
            },
            FindCommand::Create(args) => Self {
                verb: "find-limit create",
                scenario: Scenario::Create,
                issue_rate: None,
                devices: Some(args.devices),
                search: args.search,
            },
            FindCommand::Register(args) => Self {
                verb: "find-limit register",
                scenario: Scenario::Register,
                issue_rate: args.issue_rate,
                devices: Some(args.devices),
                search: args.search,
            },
        }
    }
}

/// The topics that are used.
fn topics(devices: Option<&Devices>, plan: &FindPlan) -> Topics {
    let Some(devices) = devices else { return Topics::of("unused", &[]) };
    let mut calls = creating(plan.load.keys.source, devices.has_keys);
    if plan.load.scenario == Scenario::Register {
        calls.push(Call::RegisterThing);
    }
    Topics::of(&devices.template, &calls)
}

/// The value in Service Quotas, or else AWS's default. `None` for an endpoint on loopback that reports no quota.
async fn quota(plan: &FindPlan, is_aws: bool, site: &Site) -> Option<QuotaReport> {
    let quota = match plan.load.scenario {
        Scenario::Connect { .. } => Quota::Connect,
        Scenario::Create => plan.load.keys.source.create_quota(),
        Scenario::Register => Quota::RegisterThing,
        Scenario::Provision | Scenario::Publish { .. } => return None,
    };
    match account_quotas(&site.service_quotas(), &[quota]).await.as_deref() {
        Ok([AccountQuota { rate, source, .. }]) => Some(QuotaReport {
            per_s: rate.as_per_second(),
            source: match source {
                QuotaSource::Applied => format!("applied, as Service Quotas says ({})", quota.code()),
                QuotaSource::Default => format!("AWS's default, as Service Quotas says ({})", quota.code()),
            },
        }),
        Ok(_) => None,
        Err(error) if is_aws => Some(QuotaReport {
            per_s: quota.aws_default().as_per_second(),
            source: format!("AWS's default as of 2024; the account's own was not found out: {error}"),
        }),
        Err(_) => None,
    }
}

/// Announces the search on stderr.
fn say_start(
    verb: &str,
    plan: &FindPlan,
    site: &Site,
    devices: Option<&Devices>,
    quota: Option<&QuotaReport>,
) {
    say(format_args!("{verb} in {} on {site}{}", site.region(), site.sharing()));
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
        say(format_args!(
            "{} may be used up; what the search creates is kept in the ledger {}",
            number(devices.counts.pending, "device", "devices"),
            devices.path.display()
        ));
    }
}

/// A search for a limit.
struct Search {
    verb: &'static str,
    plan: FindPlan,
    connector: WssConnector,
    quota: Option<QuotaReport>,
    /// The ledger's path, if there is a ledger.
    path: Option<PathBuf>,
    context: LimitContext,
}

impl Job for Search {
    type Snapshot = FindSnapshot;

    fn verb(&self) -> &'static str {
        self.verb
    }

    fn settings(&self) -> Map<String, Value> {
        let own = json!({
            "verb": self.verb,
            "start_per_s": self.plan.search.start,
            "max_per_s": self.plan.search.max,
            "max_connections": self.plan.load.max_connections,
            "timeout_s": self.plan.load.exchange_timeout.as_secs_f64(),
        });
        run_settings::kept(self.plan.load.keys.seal_to.as_ref(), own)
    }

    fn before(&self) -> FindSnapshot {
        FindSnapshot::default()
    }

    /// Also reports the outcome of each step.
    fn view(&self) -> impl FnMut(&FindSnapshot) -> View + Send + 'static {
        let mut said = 0;
        move |snapshot| {
            snapshot.steps[said..].iter().for_each(|step| say(step_line(step)));
            said = snapshot.steps.len();
            View::of_search(snapshot)
        }
    }

    fn reading(&self) -> impl Fn(&FindSnapshot) -> Reading + Send + Sync + 'static {
        |snapshot| prometheus::reading_of_load(&snapshot.load)
    }

    async fn run(self, ledger: Option<Ledger>, reins: Reins<FindSnapshot>) -> Result<Done, Fatal> {
        let Self { verb, plan, connector, quota, path, context } = self;
        let operation = plan.load.scenario.operation();
        let outcome = find::run(plan, connector, ledger, reins.stop, reins.progress).await;
        let counts = conduct::counts(outcome.ledger.as_ref())?;
        let report = LimitReport { context: Some(context), ..report(operation, &outcome, quota) };
        Ok(Done {
            exit: Exit::of_search(&outcome),
            kept: json!({ "steps": outcome.steps.len() }),
            summary: Shown { page: Some(render_limit_html(&report)), ..Shown::new(report.render(), &report) },
            footer: Footer {
                end: outcome.end.name().to_owned(),
                detail: outcome.end.detail(),
                elapsed_s: outcome.elapsed.as_secs_f64(),
                devices: counts.map(Into::into),
                thresholds: Vec::new(),
                slowest: Slowest::default(),
                bound: None,
                found_per_s: BTreeMap::new(),
            },
            elapsed: outcome.elapsed,
            words: words(verb, &outcome, counts, path.as_deref()),
            ledger: outcome.ledger.filter(|_| !matches!(outcome.end, End::Ledger(_))),
        })
    }
}

fn report(operation: Operation, outcome: &FindOutcome, quota: Option<QuotaReport>) -> LimitReport {
    let issued = outcome.issuing.operation(Operation::CreateCertificate).counts;
    let issued_ahead = (issued.attempts > 0)
        .then_some(IssuedAhead { accepted: issued.accepted, throttled: issued.throttled });
    LimitReport::new(operation, outcome.finding, &outcome.steps, quota, issued_ahead, outcome.elapsed)
}

/// Why the search ended and what it leaves behind.
fn words(verb: &str, outcome: &FindOutcome, counts: Option<Counts>, ledger: Option<&Path>) -> Vec<String> {
    let mut words = advice::ended(verb, &outcome.end, None);
    words.extend(advice::further(&outcome.finding).map(str::to_owned));
    let kinds = outcome.metrics.failures.values().filter(|kind| !kind.example.is_throttle());
    let reasons = kinds.flat_map(|kind| &kind.reasons);
    words.extend(reasons.map(|reason| format!("{} x {}", reason.count, reason.example)));
    if let (Some(counts), Some(ledger)) = (counts, ledger) {
        words.extend(advice::left_behind(&counts, ledger));
    }
    words
}
