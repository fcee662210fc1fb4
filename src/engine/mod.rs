//! The engine: takes the open devices of a ledger through the service, with many connections under global limits.
//!
//! Owns the run: feeder, workers, recorder, and how they start and stop. Does not know what a socket is, where settings
//! come from, or how results are shown.

mod audience;
mod crew;
pub mod find;
mod flow;
mod health;
mod held;
mod intervals;
mod keys;
pub mod load;
mod queue;
mod rate;
mod recorder;
mod scope;
mod store;
mod worker;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control_plane::Settler;
use crate::failure::{Failure, RetryPolicy};
use crate::identity::ParameterPlan;
use crate::ledger::{Counts, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::rate::{Rate, RateLimit};
use crate::transport::Connector;
use crate::usage::Usage;

pub use audience::Audience;
pub use keys::{KeyMaker, KeyPolicy, KeySource};
pub use scope::Scope;
pub use store::{CommitMode, Disk};

use audience::Gauges;
use crew::Crew;
use health::Health;
use rate::Limit;
use recorder::{Recorder, RecorderHandle};
use store::Store;
use worker::Worker;

/// What to do, settled before the run starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which of the open devices to take up.
    pub scope: Scope,
    /// How many connections; one worker each.
    pub connections: Connections,
    /// Global limits.
    pub rates: Rates,
    /// How many messages may pass on one connection, requests and replies together; `None` is unlimited.
    pub publishes_per_connection: Option<Rate>,
    /// What a row becomes.
    pub parameters: ParameterPlan,
    /// Where private keys come from and how they are kept. A device that has a key of its own keeps it.
    pub keys: KeyPolicy,
    /// How long an exchange waits for its reply.
    pub exchange_timeout: Duration,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// How old a connection may get before it is replaced, between exchanges; a little less, drawn for each, so that not all
    /// go at once. Below the age at which the service ends it: see [`CONNECTION_LIFETIME`].
    pub connection_lifetime: Duration,
    /// How old an ownership token may get and still be used. The service's hour, less a margin for the way there.
    pub token_lifetime: Duration,
    /// How old an ownership token must be for its certificate to be void: nothing can be registered with it any more,
    /// and an unregistered certificate is deleted. The service's hour, and a margin for clocks.
    pub certificate_lifetime: Duration,
    /// After how many devices in a row without a registration the run stops, since the next would fare no better.
    pub failure_budget: u32,
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// Where the jitter of retries starts; the same seed gives the same jitter.
    pub seed: u64,
}

/// The age at which connections are replaced unless told otherwise. The service ends a WebSocket after 24 hours (AWS IoT Core
/// quotas, "WebSocket connection duration").
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(23 * 3600);

/// How many connections a run opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// This many.
    Fixed(usize),
    /// As many as the rates and the latencies need, and no more than this.
    Auto {
        /// The most.
        max: usize,
    },
}

/// Global limits per operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Dials.
    pub connect: RateLimit,
    /// CreateKeysAndCertificate and CreateCertificateFromCsr requests.
    pub create: RateLimit,
    /// RegisterThing requests.
    pub register: RateLimit,
}

/// Wall-clock time, for the age of tokens; a simulation brings its own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How a run is asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Finish what is in flight, start nothing new, close politely.
    pub drain: CancellationToken,
    /// Drop everything now. What is in the ledger stays true.
    pub abort: CancellationToken,
}

/// Where a run stands.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Devices by state.
    pub devices: Counts,
    /// What was measured so far.
    pub metrics: Metrics,
    /// Workers with an open connection.
    pub connections: u32,
    /// Exchanges whose request was sent and whose end has not come.
    pub in_flight: u32,
    /// Where the time went in the last seconds, and so what the run is bound by now.
    pub usage: Usage,
}

/// Why a run ended.
#[derive(Debug)]
pub enum End {
    /// Every device was taken as far as it goes.
    Complete,
    /// Asked to drain, and did.
    Drained,
    /// Asked to abort.
    Aborted,
    /// No other device would have fared better.
    Stopped(Failure),
    /// The ledger could not be written or read.
    Ledger(LedgerError),
    /// A defect of ours: a task panicked.
    Bug(String),
}

/// What a run leaves.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// What was measured.
    pub metrics: Metrics,
    /// Where the time went.
    pub usage: Usage,
    /// How long it took.
    pub elapsed: Duration,
    /// The ledger, handed back.
    pub ledger: Ledger,
}

/// Runs `plan` over all open devices of `ledger`; ends when none is left or `stop` says so. The audience's progress starts
/// with the devices as they stand; it is kept up to date as far as anyone looks. `settler` tells whether a registration whose
/// answer was lost has happened; without one, such devices end Unknown.
pub async fn run<C: Connector>(
    plan: Plan,
    connector: C,
    settler: Option<Arc<dyn Settler>>,
    ledger: Ledger,
    clock: Clock,
    stop: Stop,
    audience: impl Into<Audience>,
) -> Outcome {
    let started = Instant::now();
    let store = Store::new(ledger, plan.commit_mode.clone());
    let gauges = Arc::new(Gauges::default());
    let (drain, epoch) = (stop.drain.clone(), Some(started));
    let (recorder, handle) =
        Recorder::new(store.clone(), audience.into(), epoch, gauges.clone(), drain, clock.clone());
    let shared = Arc::new(Shared::new(plan, connector, settler, clock, stop, handle, gauges));
    let (crew, limits) = (shared.crew.clone(), shared.limits.clone());
    let recorder = recorder.telling_usage(crew.clone(), limits.clone());
    let mut recorder = JoinSet::from_iter([recorder.run()]);
    let end = supervise(shared, store.clone()).await;
    let (metrics, end) = match recorder.join_next().await.expect("the recorder was spawned just above") {
        Ok((metrics, Ok(()))) => (metrics, end),
        Ok((metrics, Err(error))) => (metrics, End::Ledger(error)),
        Err(panic) => (Metrics::default(), End::Bug(panic.to_string())),
    };
    let ledger = store.into_ledger().await;
    Outcome { end, metrics, usage: crew.usage(&limits), elapsed: started.elapsed(), ledger }
}

/// What all workers share.
struct Shared<C> {
    plan: Plan,
    connector: C,
    settler: Option<Arc<dyn Settler>>,
    clock: Clock,
    stop: Stop,
    limits: Arc<Limits>,
    crew: Arc<Crew>,
    recorder: RecorderHandle,
    gauges: Arc<Gauges>,
    health: Health,
    /// A permit for each key pair that is being made: no more than there are cores, for the ledger needs threads too.
    key_makers: Semaphore,
}

struct Limits {
    connect: Limit,
    create: Limit,
    register: Limit,
}

impl<C> Shared<C> {
    fn new(
        plan: Plan,
        connector: C,
        settler: Option<Arc<dyn Settler>>,
        clock: Clock,
        stop: Stop,
        recorder: RecorderHandle,
        gauges: Arc<Gauges>,
    ) -> Self {
        let limits = Limits {
            connect: Limit::new(plan.rates.connect),
            create: Limit::new(plan.rates.create),
            register: Limit::new(plan.rates.register),
        };
        let crew = Crew::new(plan.connections);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            plan,
            connector,
            settler,
            clock,
            stop,
            limits: Arc::new(limits),
            crew: Arc::new(crew),
            recorder,
            gauges,
            health: Health::new(),
            key_makers: Semaphore::new(cores),
        }
    }
}

/// Runs feeder and workers to their end and says what it was. Dropping the last `Shared` ends the recorder.
async fn supervise<C: Connector>(shared: Arc<Shared<C>>, store: Store) -> End {
    let mut hired = shared.crew.first();
    let (feed, queue) = queue::queue(hired);
    let mut tasks = JoinSet::new();
    let (drain, scope) = (shared.stop.drain.clone(), shared.plan.scope.clone());
    tasks.spawn(async move { queue::feed(store, feed, drain, scope).await.map_err(Halted::Ledger) });
    let hire = |tasks: &mut JoinSet<_>, number: usize| {
        let worker = Worker::new(shared.clone(), queue.clone(), number as u64);
        let shift = Crew::hire(&shared.crew);
        tasks.spawn(async move {
            let _at_work = shift;
            worker.run().await.map_err(Halted::Refused)
        });
    };
    (0..hired).for_each(|number| hire(&mut tasks, number));
    let asked = &shared.stop;
    let mut looks = tokio::time::interval(crew::LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut halted = None;
    loop {
        let may_hire = shared.crew.is_changing() && !asked.drain.is_cancelled();
        let joined = tokio::select! {
            // Chance has no place here: the same seed must give the same run.
            biased;
            joined = tasks.join_next() => joined,
            () = asked.abort.cancelled() => {
                tasks.shutdown().await;
                return halted.map_or(End::Aborted, Halted::into_end);
            }
            _ = looks.tick(), if may_hire => {
                let missing = shared.crew.missing(&shared.limits);
                (hired..hired + missing).for_each(|number| hire(&mut tasks, number));
                hired += missing;
                continue;
            }
        };
        match joined {
            None => break,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(reason))) => {
                // The first reason counts; the others finish what they hold and follow.
                asked.drain.cancel();
                halted.get_or_insert(reason);
            }
            Some(Err(panic)) => {
                tasks.shutdown().await;
                return End::Bug(panic.to_string());
            }
        }
    }
    match halted {
        Some(reason) => reason.into_end(),
        None if shared.stop.drain.is_cancelled() => End::Drained,
        None => End::Complete,
    }
}

/// Why a task asks the whole run to stop.
enum Halted {
    Ledger(LedgerError),
    Refused(Failure),
}

impl Halted {
    fn into_end(self) -> End {
        match self {
            Halted::Ledger(error) => End::Ledger(error),
            Halted::Refused(failure) => End::Stopped(failure),
        }
    }
}
