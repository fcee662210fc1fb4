//! The load test: arrivals at instants that were computed in advance, whatever the service does with them.
//!
//! Owns the open loop: who offers (`pace`), where arrivals wait for a connection (`desk`), how many connections there
//! are, and when the run is over. `work` carries out arrivals, and `monitor` adds up the measurements. Nothing is
//! retried: here a refusal is a result. Only connections are opened anew.

mod desk;
mod devices;
mod monitor;
mod pace;
mod work;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info, instrument};

use super::audience::{Audience, Gauges};
use super::clock::Clock;
use super::context::{Context, DeviceRules, Limits};
use super::crew::Crew;
use super::end::End;
use super::frame::{Foreman, Tasks, supervise};
use super::health::Health;
use super::keys::KeyPolicy;
use super::line::{LineSettings, Trunk};
use super::plan::{CONNECTION_LIFETIME, Connections, EXCHANGE_TIMEOUT, TOKEN_USABLE};
use super::recorder::{Recorder, RecorderHandle};
use super::stop::{Stop, StopTokens};
use super::store::{CommitMode, Store};
use crate::event::Operation;
use crate::failure::RetryPolicy;
use crate::identity::ParameterPlan;
use crate::ledger::Ledger;
use crate::metrics::threshold::{Judgement, Threshold};
use crate::metrics::{Metrics, Slowest};
use crate::rate::RateLimit;
use crate::schedule::{Profile, Schedule, Spacing};
use crate::service::Quota;
use crate::shard::Shard;
use crate::transport::Connector;

pub use monitor::{LoadSnapshot, Phase};

use desk::Desk;
use devices::Devices;
use monitor::Monitor;
use work::LoadWorker;

/// What to do, settled before the run starts.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// What each arrival does.
    pub scenario: Scenario,
    /// The offered rate over time.
    pub profile: Profile,
    /// How arrivals are spaced: evenly, or at random (a Poisson process).
    pub spacing: Spacing,
    /// How much of the profile's start is not measured: arrivals due in it appear in no figure.
    pub warm_up: Duration,
    /// This process's share of the profile's arrivals; `None` if it offers all of them.
    pub shard: Option<Shard>,
    /// When the profile begins; `None` if it begins as soon as the connections are open.
    pub start_at: Option<Instant>,
    /// How many connections are opened before the first arrival is due. [`Scenario::Connect`] opens none ahead.
    pub connections: usize,
    /// The most connections. More are opened while an arrival finds none free.
    pub max_connections: usize,
    /// How long an arrival waits for a free connection before it is given up, and counted as missed.
    pub max_wait: Duration,
    /// The limit on dials that are not arrivals.
    pub connect_rate: RateLimit,
    /// How long an exchange waits for its reply.
    pub exchange_timeout: Duration,
    /// The request parameters made of a device's row.
    pub parameters: ParameterPlan,
    /// Where private keys come from and how they are kept. Keys made here are made ahead, and count in no figure.
    pub keys: KeyPolicy,
    /// The oldest ownership token that is still used.
    pub token_lifetime: Duration,
    /// The thresholds that the figures must meet.
    pub thresholds: Vec<Threshold>,
    /// What happens to a run that can no longer meet a threshold.
    pub on_loss: OnLoss,
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// The clock that tokens' ages are read from.
    pub clock: Clock,
    /// The seed for Poisson arrivals and the jitter of redials.
    pub seed: u64,
}

impl LoadPlan {
    /// A plan to offer `profile` of `scenario`; everything else suits an account with AWS's default quotas.
    pub fn new(scenario: Scenario, profile: Profile) -> Self {
        Self {
            scenario,
            profile,
            spacing: Spacing::Uniform,
            warm_up: Duration::ZERO,
            shard: None,
            start_at: None,
            connections: 10,
            max_connections: Connections::MOST,
            max_wait: EXCHANGE_TIMEOUT,
            connect_rate: RateLimit::Fixed(Quota::Connect.aws_default()),
            exchange_timeout: EXCHANGE_TIMEOUT,
            parameters: ParameterPlan::default(),
            keys: KeyPolicy::default(),
            token_lifetime: TOKEN_USABLE,
            thresholds: Vec::new(),
            on_loss: OnLoss::default(),
            commit_mode: CommitMode::default(),
            clock: Clock::default(),
            seed: 1,
        }
    }

    /// How many arrivals this process offers: a real number, since it is the integral of the rate.
    pub fn arrivals(&self) -> f64 {
        self.profile.arrivals() / self.shard.map_or(1.0, |shard| f64::from(shard.of))
    }
}

/// What each arrival does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Opens a connection, holds it, and closes it.
    Connect {
        /// How long it is held; zero for churn.
        hold: Duration,
    },
    /// Has a certificate issued, and leaves it unregistered.
    Create,
    /// Registers a certificate from the ledger that is fresh and that no registration was sent for.
    Register,
    /// Takes a device from its row to a registered thing.
    Provision,
    /// Publishes a message to the connection's own topic, and waits until it comes back. The connector's topics must be
    /// [`Topics::of_messages`](crate::provisioning::Topics::of_messages).
    Publish {
        /// How many bytes each message has; at least [`LEAST_MESSAGE`].
        size: usize,
    },
}

impl Scenario {
    /// The operation that its arrivals are counted under.
    pub fn operation(self) -> Operation {
        match self {
            Scenario::Connect { .. } => Operation::Connect,
            Scenario::Create => Operation::CreateCertificate,
            Scenario::Register => Operation::RegisterThing,
            Scenario::Provision => Operation::Provision,
            Scenario::Publish { .. } => Operation::Publish,
        }
    }

    /// Whether each arrival takes a device from the ledger.
    pub fn takes_devices(self) -> bool {
        match self {
            Scenario::Connect { .. } | Scenario::Publish { .. } => false,
            Scenario::Create | Scenario::Register | Scenario::Provision => true,
        }
    }
}

/// The smallest message: room for the sequence number that tells messages apart.
pub const LEAST_MESSAGE: usize = 8;

/// What happens to a run that can no longer meet a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// It goes on: its figures are still wanted.
    #[default]
    GoOn,
    /// It stops, to spare the account and save time.
    Stop,
}

/// The result of a load test.
#[derive(Debug)]
pub struct LoadOutcome {
    /// Why it ended.
    pub end: End,
    /// What was measured, except what was due in the warm-up.
    pub metrics: Metrics,
    /// The slowest attempts measured.
    pub slowest: Slowest,
    /// From the end of the warm-up to the end of the last arrival; zero if the run did not get that far.
    pub measured: Duration,
    /// The duration of the whole run, including opening and closing connections.
    pub elapsed: Duration,
    /// How long after [`LoadPlan::start_at`] the profile began; zero if it was not late.
    pub late: Duration,
    /// The thresholds' results, in their order.
    pub judgements: Vec<Judgement>,
    /// The ledger, handed back.
    pub ledger: Option<Ledger>,
}

/// Runs `plan`: opens connections ahead, then starts each arrival at its instant, until the profile ends, the devices
/// run out, or `stop` says so. `stop` is a future that asks the run to drain when it ends, or a [`Stop`].
///
/// `ledger` provides the devices. A scenario that takes none needs no ledger; a scenario that takes some ends at once
/// without one, with [`End::OutOfDevices`]. The audience may be `()`. It is told the test's progress every half
/// second, and each second from the end of the warm-up on.
#[instrument(name = "run", skip_all, fields(kind = "load", scenario = ?plan.scenario))]
pub async fn run<C: Connector>(
    plan: LoadPlan,
    connector: C,
    ledger: Option<Ledger>,
    stop: impl Into<Stop>,
    audience: impl Into<Audience<LoadSnapshot>>,
) -> LoadOutcome {
    let (stop, audience) = (stop.into(), audience.into());
    stop.during(|stop| conduct(plan, connector, ledger, stop, audience)).await
}

/// Runs `plan` until it ends or the tokens of `stop` end it.
pub(super) async fn conduct<C: Connector>(
    plan: LoadPlan,
    connector: C,
    ledger: Option<Ledger>,
    stop: StopTokens,
    audience: Audience<LoadSnapshot>,
) -> LoadOutcome {
    let began = Instant::now();
    let store = ledger.map(|ledger| Store::new(ledger, plan.commit_mode.clone()));
    let gauges = Arc::new(Gauges::default());
    let scene = Arc::new(Scene::new(&plan));
    let (sender, intervals) = mpsc::channel(INTERVALS);
    let failed = CancellationToken::new();
    let (recorder, handle) = Recorder::new(
        store.clone(),
        None,
        Some(sender),
        None,
        gauges.clone(),
        failed.clone(),
        plan.clock.clone(),
    );
    let lost = CancellationToken::new();
    let monitor = Monitor::new(&plan, scene.clone(), gauges.clone(), audience, lost.clone());
    let mut recording = JoinSet::from_iter([recorder.run()]);
    let mut monitoring = JoinSet::from_iter([monitor.run(intervals)]);
    let context = context(&plan, connector, handle, gauges, scene.desk.over().clone());
    let asked = Asked { stop, lost, failed };
    let end = offer(context, scene.clone(), plan.clone(), store.clone(), asked).await;

    let measured = scene.measured();
    let late = scene.late.get().copied().unwrap_or_default();
    let end = match recording.join_next().await.expect("the recorder was spawned just above") {
        Ok((_, Ok(()))) => end,
        Ok((_, Err(error))) => End::Ledger(error),
        Err(panic) => End::Bug(panic.to_string()),
    };
    let (metrics, end) = match monitoring.join_next().await.expect("the monitor was spawned just above") {
        Ok(metrics) => (metrics, end),
        Err(panic) => (Metrics::default(), End::Bug(panic.to_string())),
    };
    let ledger = match store {
        Some(store) => Some(store.into_ledger().await),
        None => None,
    };
    let judgements = plan.thresholds.iter().map(|threshold| threshold.judge(&metrics, measured)).collect();
    let slowest = std::mem::take(&mut *scene.slowest.lock().unwrap_or_else(PoisonError::into_inner));
    info!(end = end.name(), elapsed = ?began.elapsed(), "ended");
    LoadOutcome { end, metrics, slowest, measured, elapsed: began.elapsed(), late, judgements, ledger }
}

/// How many seconds the monitor may lag behind.
const INTERVALS: usize = 8;

/// What the parts of a load test have in common.
struct Scene {
    desk: Arc<Desk>,
    /// The end of the warm-up; not set until connections are open.
    epoch: OnceLock<Instant>,
    /// How late the profile began.
    late: OnceLock<Duration>,
    slowest: Mutex<Slowest>,
    /// Cancelled when connections that are only held should be closed.
    cut: CancellationToken,
}

impl Scene {
    fn new(plan: &LoadPlan) -> Self {
        Self {
            desk: Arc::new(Desk::new(plan.max_wait, plan.max_connections)),
            epoch: OnceLock::new(),
            late: OnceLock::new(),
            slowest: Mutex::default(),
            cut: CancellationToken::new(),
        }
    }

    /// From the end of the warm-up to the end of the last arrival; zero if the run did not get that far.
    fn measured(&self) -> Duration {
        match (self.epoch.get(), self.desk.ended_at()) {
            (Some(epoch), Some(ended)) => ended.saturating_duration_since(*epoch),
            _ => Duration::ZERO,
        }
    }
}

/// What the workers share. Only the schedule sets the rate: slowing down for throttles would close the loop. Workers
/// go on until the last arrival has ended, whatever ended the run.
fn context<C: Connector>(
    plan: &LoadPlan,
    connector: C,
    recorder: RecorderHandle,
    gauges: Arc<Gauges>,
    over: CancellationToken,
) -> Context<C> {
    let limits = Arc::new(Limits::of_connects(plan.connect_rate));
    let trunk = Trunk {
        connector,
        settings: LineSettings {
            exchange_timeout: plan.exchange_timeout,
            publishes_per_connection: None,
            connection_lifetime: CONNECTION_LIFETIME,
            retry: RetryPolicy::default(),
            seed: plan.seed,
        },
        limits: limits.clone(),
        crew: Arc::new(Crew::new(Connections::Fixed(plan.max_connections))),
        recorder: recorder.clone(),
        gauges,
        health: Health::new(),
        drain: over,
        span: Span::current(),
    };
    let device = DeviceRules {
        parameters: plan.parameters.clone(),
        keys: plan.keys.clone(),
        token_lifetime: plan.token_lifetime,
        commit_mode: plan.commit_mode.clone(),
    };
    Context::new(Arc::new(trunk), limits, recorder, plan.clock.clone(), device)
}

/// What may ask for the end of the run.
struct Asked {
    stop: StopTokens,
    /// Cancelled when a threshold is lost.
    lost: CancellationToken,
    /// Cancelled when the recorder is gone, which reports its own error.
    failed: CancellationToken,
}

impl Asked {
    async fn end(&self) -> End {
        tokio::select! {
            biased;
            () = self.stop.drain.cancelled() => End::Drained,
            () = self.failed.cancelled() => End::Drained,
            () = self.lost.cancelled() => End::ThresholdLost,
        }
    }
}

/// Runs everything that makes and takes arrivals, and returns why it ended.
async fn offer<C: Connector>(
    context: Context<C>,
    scene: Arc<Scene>,
    plan: LoadPlan,
    store: Option<Store>,
    asked: Asked,
) -> End {
    let mut tasks = Tasks::new();
    let over = scene.desk.over().clone();
    let devices = Devices::start(&context, &plan, store, over, &mut tasks);
    let ahead = match plan.scenario {
        // One, to check that the service can be reached; it is closed again.
        Scenario::Connect { .. } => 1,
        _ => plan.connections.min(plan.max_connections),
    };
    let mut hiring = Hiring { context: Arc::new(context), scene, plan, devices, hired: 0 };
    hiring.hire(ahead, &mut tasks);
    tasks.spawn(hiring.pacer(ahead));
    let end = supervise(hiring, tasks, &asked.stop.abort, asked.end()).await;
    end.unwrap_or(End::Complete)
}

/// Hires the workers, one connection each: more while an arrival finds none free.
struct Hiring<C> {
    context: Arc<Context<C>>,
    scene: Arc<Scene>,
    plan: LoadPlan,
    devices: Devices,
    hired: u64,
}

impl<C: Connector> Foreman for Hiring<C> {
    async fn wanted(&mut self) -> usize {
        self.scene.desk.more_wanted().await
    }

    fn hire(&mut self, more: usize, tasks: &mut Tasks) {
        for _ in 0..more {
            let (context, scene, devices) = (self.context.clone(), self.scene.clone(), self.devices.clone());
            let worker = LoadWorker::new(context, scene, self.plan.scenario, devices, self.hired);
            self.scene.desk.hired();
            self.hired += 1;
            tasks.spawn(worker.run().in_current_span());
        }
    }

    fn wind_down(&mut self) {
        self.scene.desk.close();
        self.scene.cut.cancel();
    }
}

impl<C: Connector> Hiring<C> {
    /// Offers the arrivals once `ahead` connections are open.
    fn pacer(&self, ahead: usize) -> impl Future<Output = Result<(), End>> + use<C> {
        let (recorder, scene) = (self.context.recorder.clone(), self.scene.clone());
        let LoadPlan { profile, spacing, warm_up, seed, shard, start_at, .. } = self.plan.clone();
        async move {
            if !scene.desk.opened(ahead).await {
                return Ok(());
            }
            if let Some(at) = start_at {
                scene.late.set(at.elapsed()).expect("only this sets it");
                tokio::select! {
                    biased;
                    () = scene.desk.closed().cancelled() => return Ok(()),
                    () = sleep_until(at) => {}
                }
            }
            let start = Instant::now();
            let warm = start + warm_up;
            scene.epoch.set(warm).expect("only this sets it");
            recorder.begin(warm).await;
            scene.desk.starts_at(start);
            let schedule = Schedule::new(profile, spacing, seed).of_shard(shard);
            pace::offer(schedule, start, warm, &scene.desk, &recorder).await;
            scene.desk.close();
            Ok(())
        }
    }
}
