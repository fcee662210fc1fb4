//! `fleetmint load`: load tests of IoT Core's quotas. The engine runs the test itself.

mod args;
mod once;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::advice;
use super::args::DeviceArgs;
use super::check::{self, BeforeArgs, Intent};
use super::cleanup::Afterwards;
use super::conduct::{self, Done, Job, Offer, Reins, Shown, conduct, conduct_open};
use super::devices::{DeviceSettings, Devices};
use super::exit::{Exit, Fatal};
use super::manner;
use super::open_files;
use super::outputs::{Outputs, Place, Taken};
use super::progress::View;
use super::prometheus;
use super::run_settings;
use super::settings::{Requests, creating, key_policy, usage};
use super::shard::Part;
use super::speech::{say, warn};
use super::target::{Site, Target};
use crate::call::Call;
use crate::engine::load::{self, LoadOutcome, LoadPlan, LoadSnapshot, OnLoss, Scenario};
use crate::engine::{Audience, End, KeyPolicy};
use crate::exposition::Reading;
use crate::ledger::{Counts, Ledger};
use crate::provisioning::{Delivery, Topics};
use crate::rate::RateLimit;
use crate::report::{self, LoadFacts, LoadSummary};
use crate::results::Footer;
use crate::schedule::Profile;
use crate::transport::wss::WssConnector;
use crate::wording::number;

pub(super) use args::LoadArgs;
use args::{LoadCommand, OfferArgs};

/// The parsed arguments.
struct Settings {
    verb: &'static str,
    target: Target,
    /// Where messages go, in a test that publishes.
    messages: Option<Topics>,
    devices: Option<DeviceSettings>,
    before: BeforeArgs,
    /// Whether what the test creates is removed from the account again.
    cleans_up: bool,
    part: Part,
    /// Everything except the devices' parameters and the start.
    plan: LoadPlan,
}

/// Runs a load test, and reports its result.
pub(super) async fn run(args: LoadArgs) -> Result<Exit, Fatal> {
    let (Settings { verb, target, messages, devices, before, cleans_up, part, mut plan }, outputs) =
        Settings::new(args).await?;
    let is_registering = plan.scenario == Scenario::Provision;
    open_files::allow(plan.max_connections, &target.service, "--max-connections")?;
    let site = target.open().await?;
    let devices = match devices {
        Some(devices) => Some(devices.open(&target, &site, is_registering).await?),
        None => None,
    };
    if let Some(devices) = &devices {
        check_pending(devices, &plan)?;
        plan.parameters = devices.parameters.clone();
    }
    let topics = messages.unwrap_or_else(|| topics(devices.as_ref(), &plan));
    if target.is_aws() && !before.no_check {
        check(&site, &target, topics.clone(), &plan, devices.as_ref()).await?;
    }
    let connector = site.connector(topics, plan.exchange_timeout)?;
    say_start(verb, &plan, &site, devices.as_ref());
    let constants = devices.as_ref().map(|devices| devices.constants.clone()).unwrap_or_default();
    let (ledger, path) = devices.map(|devices| (devices.ledger, devices.path)).unzip();
    let cleanup = match (cleans_up, &ledger, &path) {
        (true, Some(ledger), Some(path)) => {
            Some(Afterwards::new(path, ledger, &site, outputs.drain_timeout)?)
        }
        _ => None,
    };
    let mut job = Load { verb, plan, connector, path, constants, cleans_up };
    if let Some(ledger) = &ledger {
        once::refuse_known(&job.settings(), ledger.view())?;
    }
    job.plan.start_at = part.begins_at();
    match cleanup {
        None => conduct(job, ledger, site, outputs).await,
        Some(cleanup) => {
            let exit = conduct_open(job, ledger, &site, outputs).await;
            cleanup.carry_out(site, exit).await
        }
    }
}

impl Settings {
    async fn new(args: LoadArgs) -> Result<(Self, Outputs), Fatal> {
        let typed = Typed::of(args.scenario);
        let OfferArgs { profile, rate, time, warmup, .. } = &typed.offer;
        let profile = match (profile, rate, time) {
            (Some(profile), ..) => profile.clone(),
            (None, Some(rate), Some(time)) => Profile::constant(*rate, *time)
                .ok_or_else(|| usage("--for", "wanted a time above 0, of at most 366 days"))?,
            _ => unreachable!("clap requires one or the other"),
        };
        if *warmup >= profile.time() {
            return Err(usage(
                "--warmup",
                format!(
                    "{} leaves nothing to measure of a profile of {}",
                    humantime::format_duration(*warmup),
                    humantime::format_duration(profile.time())
                ),
            ));
        }
        let keys = typed
            .devices
            .as_ref()
            .map_or(Ok(KeyPolicy::default()), |args| key_policy(&args.keys, Requests::Absent))?;
        let offer = typed.offer;
        let part = Part::new(&offer.shard)?;
        let total = part.connections(None, offer.total.total_connections)?;
        let devices = typed.devices.map(|args| DeviceSettings::new(args, offer.seed, part)).transpose()?;
        once::refuse_restart(part, offer.outputs.results.as_deref(), devices.is_some())?;
        let mut outputs = Outputs::open(offer.outputs, part, Taken::Refused).await?;
        let junit = offer.junit.map(|file| Place::check("--junit", part.own_output(file)));
        outputs.junit = junit.transpose()?;
        let mut target = offer.target.resolve().await?;
        target.client_id_prefix = part.client_id_prefix(target.client_id_prefix);
        let default = LoadPlan::new(typed.scenario, profile);
        let default_limit = if target.is_aws() {
            default.connect_rate.fixed().and_then(|rate| part.rate(rate)).into()
        } else {
            RateLimit::Unlimited
        };
        let plan = LoadPlan {
            spacing: offer.spacing.into(),
            warm_up: offer.warmup,
            shard: part.shard,
            connections: total.unwrap_or(offer.connections.min(offer.max_connections)),
            max_connections: total.unwrap_or(offer.max_connections),
            max_wait: offer.max_wait.unwrap_or(offer.timeout),
            connect_rate: offer.connect_rate.unwrap_or(default_limit),
            exchange_timeout: offer.timeout,
            keys,
            thresholds: offer.thresholds,
            on_loss: if offer.abort_on_threshold { OnLoss::Stop } else { OnLoss::GoOn },
            seed: offer.seed,
            ..default
        };
        let Typed { verb, messages, cleans_up, .. } = typed;
        let settings = Self { verb, target, messages, devices, before: offer.before, cleans_up, part, plan };
        Ok((settings, outputs))
    }
}

/// The arguments that all scenarios have in common.
struct Typed {
    verb: &'static str,
    scenario: Scenario,
    messages: Option<Topics>,
    devices: Option<DeviceArgs>,
    cleans_up: bool,
    offer: OfferArgs,
}

impl Typed {
    fn of(command: LoadCommand) -> Self {
        match command {
            LoadCommand::Connect(args) => Self {
                verb: "load connect",
                scenario: Scenario::Connect { hold: args.hold },
                messages: None,
                devices: None,
                cleans_up: false,
                offer: args.offer,
            },
            LoadCommand::Create(args) => Self {
                verb: "load create",
                scenario: Scenario::Create,
                messages: None,
                devices: Some(args.devices),
                cleans_up: args.cleanup,
                offer: args.offer,
            },
            LoadCommand::Provision(args) => Self {
                verb: "load provision",
                scenario: Scenario::Provision,
                messages: None,
                devices: Some(args.devices),
                cleans_up: args.cleanup,
                offer: args.offer,
            },
            LoadCommand::Publish(args) => {
                let delivery = if args.qos == 0 { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
                Self {
                    verb: "load publish",
                    scenario: Scenario::Publish { size: args.payload_size },
                    messages: Some(Topics::of_messages(&args.topic_prefix, delivery)),
                    devices: None,
                    cleans_up: false,
                    offer: args.offer,
                }
            }
        }
    }
}

/// Checks what a test needs, before it begins on a real endpoint.
async fn check(
    site: &Site,
    target: &Target,
    topics: Topics,
    plan: &LoadPlan,
    devices: Option<&Devices>,
) -> Result<(), Fatal> {
    let registering = devices.filter(|_| plan.scenario == Scenario::Provision);
    let intent = Intent {
        template: registering.map(|devices| devices.template.as_str()),
        topics,
        timeout: plan.exchange_timeout,
    };
    let found = match registering {
        Some(devices) => check::Devices::Ledger(devices.ledger.view(), &devices.parameters),
        None => check::Devices::None,
    };
    let ledger = devices.map(|devices| devices.path.as_path());
    check::before(site, &target.service, intent, found, ledger).await
}

/// Refuses a test without devices to take; and one whose lot leaves a shard too few rows, in every shard: it would end
/// early in that one, and the figures of all would be of less than the profile.
fn check_pending(devices: &Devices, plan: &LoadPlan) -> Result<(), Fatal> {
    if devices.counts.pending == 0 {
        let message = format!(
            "none of the {} of {} is without a certificate: a load test takes new ones; give another --ledger, \
             and for made-up devices another --key-pattern",
            number(devices.counts.total(), "device", "devices"),
            devices.path.display()
        );
        return Err(Fatal::new(Exit::Usage, message));
    }
    let wanted = plan.arrivals().floor();
    match devices.fewest {
        Some((shard, rows)) if (rows as f64) < wanted => Err(usage(
            "--lot",
            format!(
                "leaves shard {shard} {rows} rows for {wanted:.0} arrivals: rows belong to shards by their keys, and \
                 arrivals take turns; wanted {wanted:.0} rows for each shard; give a longer lot, or --devices"
            ),
        )),
        _ => Ok(()),
    }
}

/// The topics that the devices need.
fn topics(devices: Option<&Devices>, plan: &LoadPlan) -> Topics {
    let Some(devices) = devices else { return Topics::of("unused", &[]) };
    let mut calls = creating(plan.keys.source, devices.has_keys);
    if plan.scenario == Scenario::Provision {
        calls.push(Call::RegisterThing);
    }
    Topics::of(&devices.template, &calls)
}

/// Announces the test on stderr.
fn say_start(verb: &str, plan: &LoadPlan, site: &Site, devices: Option<&Devices>) {
    let sharing = site.sharing();
    say(format_args!("{verb} in {} on {site}{sharing}", site.region()));
    let time = humantime::format_duration;
    let warm_up = match plan.warm_up {
        Duration::ZERO => String::new(),
        warm_up => format!(", the first {} as warm-up", time(warm_up)),
    };
    let ahead = match plan.scenario {
        Scenario::Connect { .. } => String::new(),
        _ => format!("connections {} to {}, ", plan.connections, plan.max_connections),
    };
    say(format_args!(
        "{:.0} arrivals{}, {}, in {}: {}{warm_up}; {ahead}missed after {}",
        plan.arrivals(),
        plan.shard.map_or_else(String::new, |shard| format!(
            " of {:.0}, as shard {shard}",
            plan.profile.arrivals()
        )),
        plan.spacing.name(),
        time(plan.profile.time()),
        plan.profile,
        time(plan.max_wait),
    ));
    let Some(devices) = devices else { return };
    let pending = devices.counts.pending;
    say(format_args!("what the test creates is kept in the ledger {}", devices.path.display()));
    if (pending as f64) < plan.arrivals().floor() {
        warn(format_args!(
            "warning: {} for {:.0} arrivals: the test will end when they are used up",
            number(pending, "device", "devices"),
            plan.arrivals()
        ));
    }
}

/// A load test.
struct Load {
    verb: &'static str,
    plan: LoadPlan,
    connector: WssConnector,
    /// The ledger's path, if there is a ledger.
    path: Option<PathBuf>,
    /// Parameters of every device, as given.
    constants: Vec<(String, String)>,
    /// Whether what the test creates is removed from the account again.
    cleans_up: bool,
}

impl Job for Load {
    type Snapshot = LoadSnapshot;

    fn verb(&self) -> &'static str {
        self.verb
    }

    fn settings(&self) -> Map<String, Value> {
        let plan = &self.plan;
        let mut own = json!({
            "verb": self.verb,
            "profile": plan.profile.to_string(),
            "spacing": plan.spacing.name(),
            "warm_up_s": plan.warm_up.as_secs_f64(),
            "connections": plan.connections,
            "max_connections": plan.max_connections,
            "max_wait_s": plan.max_wait.as_secs_f64(),
            "timeout_s": plan.exchange_timeout.as_secs_f64(),
            "seed": plan.seed,
            "parameters": self.constants,
        });
        if let Some(shard) = plan.shard {
            own["shard"] = shard.to_string().into();
        }
        run_settings::kept(plan.keys.seal_to.as_ref(), own)
    }

    fn offer(&self) -> Offer {
        Offer {
            schedule: Some(format!("{}, {}", self.plan.profile, self.plan.spacing.name())),
            warm_up: self.plan.warm_up,
            limits: Vec::new(),
        }
    }

    fn before(&self) -> LoadSnapshot {
        LoadSnapshot::default()
    }

    fn second_zero(snapshot: &LoadSnapshot) -> Option<SystemTime> {
        snapshot.measuring_since.map(|since| SystemTime::now() - since.elapsed())
    }

    fn view(&self) -> impl FnMut(&LoadSnapshot) -> View + Send + 'static {
        View::of_load
    }

    fn reading(&self) -> impl Fn(&LoadSnapshot) -> Reading + Send + Sync + 'static {
        prometheus::reading_of_load
    }

    async fn run(self, ledger: Option<Ledger>, reins: Reins<LoadSnapshot>) -> Result<Done, Fatal> {
        let Self { verb, plan, connector, path, cleans_up, .. } = self;
        let audience = Audience { progress: reins.progress, intervals: reins.intervals };
        let outcome = load::run(plan.clone(), connector, ledger, reins.stop, audience).await;
        let counts = conduct::counts(outcome.ledger.as_ref())?;
        let summary = LoadSummary::new(LoadFacts {
            verb,
            outcome: outcome.end.name(),
            profile: &plan.profile,
            spacing: plan.spacing,
            warm_up: plan.warm_up,
            measured: outcome.measured,
            metrics: &outcome.metrics,
            thresholds: &outcome.judgements,
            devices: counts,
        });
        Ok(Done {
            exit: Exit::of_load(&outcome),
            kept: json!({ "arrivals": outcome.metrics.arrivals }),
            summary: Shown::new(report::render_load(&summary, manner::detail()), &summary),
            footer: footer(&outcome, counts),
            elapsed: outcome.elapsed,
            words: words(verb, &outcome, &plan, counts, path.as_deref().filter(|_| !cleans_up)),
            ledger: outcome.ledger.filter(|_| !matches!(outcome.end, End::Ledger(_))),
        })
    }
}

fn footer(outcome: &LoadOutcome, counts: Option<Counts>) -> Footer {
    Footer {
        end: outcome.end.name().to_owned(),
        detail: outcome.end.detail(),
        // To microsecond precision.
        elapsed_s: outcome.measured.as_micros() as f64 / 1e6,
        devices: counts.map(Into::into),
        thresholds: outcome.judgements.clone(),
        slowest: outcome.slowest.clone(),
        bound: None,
        found_per_s: BTreeMap::new(),
    }
}

/// How late a shard may begin without a word: others' figures are not changed by it.
const NOTICEABLE: Duration = Duration::from_millis(100);

/// Why the test ended and what to do next.
fn words(
    verb: &str,
    outcome: &LoadOutcome,
    plan: &LoadPlan,
    counts: Option<Counts>,
    ledger: Option<&Path>,
) -> Vec<String> {
    let mut words = advice::ended(verb, &outcome.end, None);
    if outcome.late >= NOTICEABLE {
        words.push(format!(
            "warning: began {:.1} s after --start-at, when its connections were open; let it begin earlier",
            outcome.late.as_secs_f64()
        ));
    }
    if matches!(outcome.end, End::OutOfDevices) {
        words.push(format!(
            "error: the devices were used up after {} arrivals of {:.0}: the profile was not offered to its end; give more \
             with --devices or --lot",
            outcome.metrics.arrivals.started,
            plan.arrivals()
        ));
    }
    if let (Some(counts), Some(ledger)) = (counts, ledger) {
        words.extend(advice::left_behind(&counts, ledger));
    }
    words
}
