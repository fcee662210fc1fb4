//! The load test: arrivals at instants that were computed in advance, whatever the service does with them.
//!
//! Owns the open loop: who offers (`pace`), where arrivals wait for a connection (`desk`), how many connections there are,
//! and when it is over. What an arrival does is `work`'s; what was measured adds up in `monitor`. Nothing is tried again,
//! for a refusal is a result here; only connections are opened anew.

mod desk;
mod devices;
mod monitor;
mod pace;
mod work;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audience::{Audience, Gauges};
use super::queue;
use super::rate::Limit;
use super::recorder::Recorder;
use super::store::Store;
use super::worker::{Halt, Worker};
use super::{
    CONNECTION_LIFETIME, Clock, CommitMode, Connections, KeyPolicy, Plan, Rates, Shared, Snapshot, Stop,
};
use crate::event::Operation;
use crate::failure::{Failure, RetryPolicy};
use crate::identity::ParameterPlan;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::threshold::{Judgement, Threshold};
use crate::metrics::{Interval, Metrics, Slowest};
use crate::rate::RateLimit;
use crate::schedule::{Profile, Schedule, Spacing};
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
    /// How arrivals lie between each other.
    pub spacing: Spacing,
    /// Arrivals that are due in this first part of the profile are in no figure.
    pub warm_up: Duration,
    /// How many connections are opened before the first arrival is due. [`Scenario::Connect`] opens none ahead.
    pub connections: usize,
    /// How many there are at most. More are opened while an arrival finds none free.
    pub max_connections: usize,
    /// How long an arrival waits for a free connection before it is given up, and counted as missed.
    pub max_wait: Duration,
    /// Limit of the dials that are no arrivals.
    pub connect_rate: RateLimit,
    /// How long an exchange waits for its reply.
    pub exchange_timeout: Duration,
    /// What a device's row becomes.
    pub parameters: ParameterPlan,
    /// Where private keys come from and how they are kept. Keys that are made here are made ahead, and in no figure.
    pub keys: KeyPolicy,
    /// How old an ownership token may get and still be used.
    pub token_lifetime: Duration,
    /// What is demanded of the figures.
    pub thresholds: Vec<Threshold>,
    /// What happens to a run that has surely missed one.
    pub on_loss: OnLoss,
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// Draws Poisson arrivals and the jitter of redials.
    pub seed: u64,
}

/// What each arrival does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Opens a connection, holds it, and closes it.
    Connect {
        /// For how long; zero is churn.
        hold: Duration,
    },
    /// Has a certificate issued, which is left unregistered.
    Create,
    /// Registers a certificate that the ledger has, that is fresh, and that nothing was sent for.
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
    /// What the figures of its arrivals are under.
    pub fn operation(self) -> Operation {
        match self {
            Scenario::Connect { .. } => Operation::Connect,
            Scenario::Create => Operation::CreateCertificate,
            Scenario::Register => Operation::RegisterThing,
            Scenario::Provision => Operation::Provision,
            Scenario::Publish { .. } => Operation::Publish,
        }
    }

    /// Whether each arrival takes a device of the ledger.
    pub fn takes_devices(self) -> bool {
        match self {
            Scenario::Connect { .. } | Scenario::Publish { .. } => false,
            Scenario::Create | Scenario::Register | Scenario::Provision => true,
        }
    }
}

/// The fewest bytes of a message: its number, by which it is told from the one before.
pub const LEAST_MESSAGE: usize = 8;

/// What happens to a run that has surely missed a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// It goes on: its figures are wanted all the same.
    #[default]
    GoOn,
    /// It stops, to spare the account and the clock.
    Stop,
}

/// Who is told how a load test goes.
#[derive(Debug)]
pub struct LoadAudience {
    /// Where it stands, every half second.
    pub progress: watch::Sender<LoadSnapshot>,
    /// What happened in each second from the end of the warm-up on, each once and in order.
    pub intervals: Option<mpsc::Sender<Interval>>,
}

/// What a load test leaves.
#[derive(Debug)]
pub struct LoadOutcome {
    /// Why it ended.
    pub end: LoadEnd,
    /// What was measured, without what was due in the warm-up.
    pub metrics: Metrics,
    /// The slowest of it.
    pub slowest: Slowest,
    /// From the end of the warm-up to the end of the last arrival; zero if it did not get that far.
    pub measured: Duration,
    /// The whole run, with opening connections and closing them.
    pub elapsed: Duration,
    /// What the thresholds came to, in their order.
    pub judgements: Vec<Judgement>,
    /// The ledger, handed back.
    pub ledger: Option<Ledger>,
}

/// Why a load test ended.
#[derive(Debug)]
pub enum LoadEnd {
    /// The whole profile was offered, and every arrival has ended.
    Complete,
    /// There were fewer devices than arrivals.
    OutOfDevices,
    /// A threshold was surely missed, and the run was to stop then.
    ThresholdLost,
    /// Asked to drain, and did.
    Drained,
    /// Asked to abort.
    Aborted,
    /// No connection could be opened, as often as the policy has it.
    Stopped(Failure),
    /// The ledger could not be written or read.
    Ledger(LedgerError),
    /// A defect of ours: a task panicked.
    Bug(String),
}

impl LoadEnd {
    /// The name in results: stable, lower case.
    pub fn name(&self) -> &'static str {
        match self {
            LoadEnd::Complete => "complete",
            LoadEnd::OutOfDevices => "out_of_devices",
            LoadEnd::ThresholdLost => "threshold_lost",
            LoadEnd::Drained => "drained",
            LoadEnd::Aborted => "aborted",
            LoadEnd::Stopped(_) => "stopped",
            LoadEnd::Ledger(_) => "ledger_failed",
            LoadEnd::Bug(_) => "bug",
        }
    }
}

/// Runs `plan`: opens connections ahead, then starts each arrival at its instant, until the profile ends, the devices run
/// out, or `stop` says so. `ledger` has the devices; a scenario that takes none needs none, and without one a scenario that
/// takes some ends at once, [`LoadEnd::OutOfDevices`].
pub async fn run<C: Connector>(
    plan: LoadPlan,
    connector: C,
    ledger: Option<Ledger>,
    clock: Clock,
    stop: Stop,
    audience: LoadAudience,
) -> LoadOutcome {
    let began = Instant::now();
    let store = ledger.map(|ledger| Store::new(ledger, plan.commit_mode.clone()));
    let gauges = Arc::new(Gauges::default());
    let desk = Arc::new(Desk::new(plan.max_wait, plan.max_connections));
    let epoch = Arc::new(OnceLock::new());
    let slowest = Arc::new(Mutex::new(Slowest::default()));
    let lost = CancellationToken::new();

    let (sender, intervals) = mpsc::channel(INTERVALS);
    let unwatched = watch::channel(Snapshot::default()).0;
    let for_recorder = Audience { progress: unwatched, intervals: Some(sender) };
    let failed = CancellationToken::new();
    let (recorder, handle) =
        Recorder::new(store.clone(), for_recorder, None, gauges.clone(), failed.clone(), clock.clone());
    let monitor = Monitor::new(&plan, epoch.clone(), gauges.clone(), desk.clone(), audience, lost.clone());

    // Workers go on until the last arrival has ended, whoever asked for the end.
    let stop_workers = Stop { drain: desk.over().clone(), abort: stop.abort.clone() };
    let engine = engine_plan(&plan);
    let mut shared = Shared::new(engine, connector, None, clock, stop_workers, handle, gauges);
    // How fast requests go is the schedule's affair: to slow down where the service throttles would be to close the loop.
    let limits = Arc::get_mut(&mut shared.limits).expect("nobody else has seen them yet");
    (limits.create, limits.register) = (Limit::none(), Limit::none());
    let shared = Arc::new(shared);
    let cut = CancellationToken::new();
    let load =
        Arc::new(Load { shared, desk: desk.clone(), epoch: epoch.clone(), slowest: slowest.clone(), cut });

    let mut recording = JoinSet::from_iter([recorder.run()]);
    let mut monitoring = JoinSet::from_iter([monitor.run(intervals)]);
    let asked = Asked { stop, lost, failed };
    let end = supervise(load, plan.clone(), store.clone(), asked).await;
    let measured = match (epoch.get(), desk.ended_at()) {
        (Some(epoch), Some(ended)) => ended.saturating_duration_since(*epoch),
        _ => Duration::ZERO,
    };
    let end = match recording.join_next().await.expect("the recorder was spawned just above") {
        Ok((_, Ok(()))) => end,
        Ok((_, Err(error))) => LoadEnd::Ledger(error),
        Err(panic) => LoadEnd::Bug(panic.to_string()),
    };
    let (metrics, end) = match monitoring.join_next().await.expect("the monitor was spawned just above") {
        Ok(metrics) => (metrics, end),
        Err(panic) => (Metrics::default(), LoadEnd::Bug(panic.to_string())),
    };
    let ledger = match store {
        Some(store) => Some(store.into_ledger().await),
        None => None,
    };
    let judgements = plan.thresholds.iter().map(|threshold| threshold.judge(&metrics, measured)).collect();
    let slowest = std::mem::take(&mut *slowest.lock().unwrap_or_else(PoisonError::into_inner));
    LoadOutcome { end, metrics, slowest, measured, elapsed: began.elapsed(), judgements, ledger }
}

/// How many seconds the monitor may be behind.
const INTERVALS: usize = 8;

/// What the workers of a load test share.
struct Load<C> {
    shared: Arc<Shared<C>>,
    desk: Arc<Desk>,
    /// The end of the warm-up; not set before connections are open.
    epoch: Arc<OnceLock<Instant>>,
    slowest: Arc<Mutex<Slowest>>,
    /// Connections that are only held are held no longer.
    cut: CancellationToken,
}

/// Who may ask for the end.
struct Asked {
    stop: Stop,
    /// A threshold is lost.
    lost: CancellationToken,
    /// The recorder is gone.
    failed: CancellationToken,
}

/// The engine's plan, as far as a load test has one: no limits but on dials, and nothing is counted against a budget.
fn engine_plan(plan: &LoadPlan) -> Plan {
    Plan {
        scope: Default::default(),
        connections: Connections::Fixed(plan.max_connections),
        rates: Rates { connect: plan.connect_rate, ..Rates::default() },
        publishes_per_connection: None,
        parameters: plan.parameters.clone(),
        keys: plan.keys.clone(),
        exchange_timeout: plan.exchange_timeout,
        retry: RetryPolicy::default(),
        connection_lifetime: CONNECTION_LIFETIME,
        token_lifetime: plan.token_lifetime,
        certificate_lifetime: plan.token_lifetime,
        failure_budget: u32::MAX,
        commit_mode: plan.commit_mode.clone(),
        seed: plan.seed,
    }
}

/// Runs everything that makes and takes arrivals, and says why it ended.
async fn supervise<C: Connector>(
    load: Arc<Load<C>>,
    plan: LoadPlan,
    store: Option<Store>,
    asked: Asked,
) -> LoadEnd {
    let (desk, cut) = (load.desk.clone(), load.cut.clone());
    let mut tasks: JoinSet<Result<(), Halted>> = JoinSet::new();
    let devices = Devices::start(&load.shared, &plan, store, desk.over().clone(), &mut tasks);
    let ahead = match plan.scenario {
        // One, to see whether there is anyone; it is closed again.
        Scenario::Connect { .. } => 1,
        _ => plan.connections.min(plan.max_connections),
    };
    let mut crew = Crew { load, plan, devices, hired: 0 };
    crew.hire(ahead, &mut tasks);
    tasks.spawn(crew.pacer(ahead));
    let mut halted = None;
    let mut is_closing = false;
    loop {
        let joined = tokio::select! {
            biased;
            () = asked.stop.abort.cancelled() => {
                tasks.shutdown().await;
                desk.close();
                return halted.map_or(LoadEnd::Aborted, Halted::into_end);
            }
            () = asked.stop.drain.cancelled(), if !is_closing => Some(Ok(Err(Halted::Drained))),
            () = asked.failed.cancelled(), if !is_closing => Some(Ok(Err(Halted::Drained))),
            () = asked.lost.cancelled(), if !is_closing => Some(Ok(Err(Halted::Lost))),
            joined = tasks.join_next() => joined,
            more = desk.more_wanted(), if !is_closing => {
                crew.hire(more, &mut tasks);
                continue;
            }
        };
        match joined {
            None => break,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(reason))) => {
                // The first reason counts; arrivals under way end as they may.
                is_closing = true;
                desk.close();
                cut.cancel();
                halted.get_or_insert(reason);
            }
            Some(Err(panic)) => {
                tasks.shutdown().await;
                desk.close();
                return LoadEnd::Bug(panic.to_string());
            }
        }
    }
    halted.map_or(LoadEnd::Complete, Halted::into_end)
}

/// Why a task asks the whole run to end.
enum Halted {
    Drained,
    Lost,
    OutOfDevices,
    Ledger(LedgerError),
    Refused(Failure),
}

impl Halted {
    fn into_end(self) -> LoadEnd {
        match self {
            Halted::Drained => LoadEnd::Drained,
            Halted::Lost => LoadEnd::ThresholdLost,
            Halted::OutOfDevices => LoadEnd::OutOfDevices,
            Halted::Ledger(error) => LoadEnd::Ledger(error),
            Halted::Refused(failure) => LoadEnd::Stopped(failure),
        }
    }

    /// What a worker's halt means for the run. Whatever else ended the run says why itself.
    fn from_halt(halt: Halt) -> Result<(), Self> {
        match halt {
            Halt::Drain | Halt::Recorder => Ok(()),
            Halt::Stop(failure) => Err(Halted::Refused(failure)),
        }
    }
}

/// Those who take arrivals, one connection each.
struct Crew<C> {
    load: Arc<Load<C>>,
    plan: LoadPlan,
    devices: Devices,
    hired: u64,
}

impl<C: Connector> Crew<C> {
    fn hire(&mut self, more: usize, tasks: &mut JoinSet<Result<(), Halted>>) {
        for _ in 0..more {
            // A worker that serves a load test takes its devices from elsewhere.
            let (_, no_queue) = queue::queue(1);
            let worker = Worker::new(self.load.shared.clone(), no_queue, self.hired);
            let scenario = self.plan.scenario;
            let worker = LoadWorker::new(self.load.clone(), worker, scenario, self.devices.clone());
            self.load.desk.hired();
            self.hired += 1;
            tasks.spawn(worker.run());
        }
    }

    /// Offers the arrivals once `ahead` connections are open.
    fn pacer(&self, ahead: usize) -> impl Future<Output = Result<(), Halted>> + use<C> {
        let Load { shared, desk, epoch, .. } = &*self.load;
        let (recorder, desk, epoch) = (shared.recorder.clone(), desk.clone(), epoch.clone());
        let LoadPlan { profile, spacing, warm_up, seed, .. } = self.plan.clone();
        async move {
            if !desk.opened(ahead).await {
                return Ok(());
            }
            let start = Instant::now();
            let warm = start + warm_up;
            epoch.set(warm).expect("only this sets it");
            recorder.begin(warm).await;
            desk.starts_at(start);
            pace::offer(Schedule::new(profile, spacing, seed), start, warm, &desk, &recorder).await;
            desk.close();
            Ok(())
        }
    }
}
