//! A provisioning run: takes a ledger's open devices through the service, with many connections under global limits.
//!
//! Owns the run: feeder, workers, recorder, and how they start and stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info, instrument};

use super::audience::{Audience, Gauges};
use super::context::{Context, DeviceRules, Limits};
use super::crew::{self, Crew};
use super::end::End;
use super::frame::{Foreman, Tasks, supervise};
use super::health::Health;
use super::journey::Journey;
use super::line::{Line, LineSettings, Trunk};
use super::plan::Plan;
use super::queue::{self, Queue};
use super::recorder::{Recorder, RecorderHandle};
use super::refusals::Refusals;
use super::stop::{Stop, StopTokens};
use super::store::Store;
use super::worker;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::transport::Connector;
use crate::usage::Usage;

/// The result of a run.
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

/// Runs `plan` over all open devices of `ledger`. Ends when none is left or `stop` says so: a future that asks the
/// run to drain when it ends, or a [`Stop`]. The audience may be `()`. Its progress starts with the devices' present
/// states; it is updated only while there is a subscriber.
///
/// Dropping this future also stops the run at once. The ledger is then closed, and can be opened again.
#[instrument(name = "run", skip_all, fields(kind = "provision"))]
pub async fn run<C: Connector>(
    plan: Plan,
    connector: C,
    ledger: Ledger,
    stop: impl Into<Stop>,
    audience: impl Into<Audience>,
) -> Outcome {
    let (stop, audience) = (stop.into(), audience.into());
    stop.during(|stop| conduct(plan, connector, ledger, stop, audience)).await
}

async fn conduct<C: Connector>(
    plan: Plan,
    connector: C,
    ledger: Ledger,
    stop: StopTokens,
    audience: Audience,
) -> Outcome {
    let started = Instant::now();
    let store = Store::new(ledger, plan.commit_mode.clone());
    let gauges = Arc::new(Gauges::default());
    let Audience { progress, intervals } = audience;
    let refusals = Arc::new(Refusals::new(progress.borrow().devices.registered > 0));
    let (drain, epoch) = (stop.drain.clone(), Some(started));
    let (recorder, handle) = Recorder::new(
        store.clone(),
        Some(progress),
        intervals,
        epoch,
        gauges.clone(),
        drain,
        plan.clock.clone(),
    );
    let limits = Arc::new(Limits::of_provisioning(&plan.rates));
    let crew = Arc::new(Crew::new(plan.connections));
    let recorder = recorder.telling_usage(crew.clone(), limits.clone()).coalescing(plan.coalescing.clone());
    let mut recorder = JoinSet::from_iter([recorder.run()]);
    let work = Work { connector, gauges, refusals, limits: limits.clone(), recorder: handle };
    let end = work.run(plan, &crew, store.clone(), &stop).await;
    let (metrics, end) = match recorder.join_next().await.expect("the recorder was spawned just above") {
        Ok((metrics, Ok(()))) => (metrics, end),
        Ok((metrics, Err(error))) => (metrics, End::Ledger(error)),
        Err(panic) => (Metrics::default(), End::Bug(panic.to_string())),
    };
    let ledger = store.into_ledger().await;
    info!(end = end.name(), elapsed = ?started.elapsed(), "ended");
    Outcome { end, metrics, usage: crew.usage(&limits), elapsed: started.elapsed(), ledger }
}

/// What the workers are made from. Dropped before the recorder is awaited: dropping its last handle ends it.
struct Work<C> {
    connector: C,
    gauges: Arc<Gauges>,
    refusals: Arc<Refusals>,
    limits: Arc<Limits>,
    recorder: RecorderHandle,
}

impl<C: Connector> Work<C> {
    /// Runs feeder and workers to their end, and returns why they ended.
    async fn run(self, plan: Plan, crew: &Arc<Crew>, store: Store, stop: &StopTokens) -> End {
        let trunk = Arc::new(Trunk {
            connector: self.connector,
            settings: LineSettings {
                exchange_timeout: plan.exchange_timeout,
                publishes_per_connection: plan.publishes_per_connection,
                connection_lifetime: plan.connection_lifetime,
                retry: plan.retry,
                seed: plan.seed,
            },
            limits: self.limits.clone(),
            crew: crew.clone(),
            recorder: self.recorder.clone(),
            gauges: self.gauges,
            health: Health::new(),
            drain: stop.drain.clone(),
            span: Span::current(),
        });
        let device = DeviceRules {
            parameters: plan.parameters,
            keys: plan.keys,
            token_lifetime: plan.token_lifetime,
            commit_mode: plan.commit_mode,
        };
        let context = Context::new(trunk.clone(), self.limits, self.recorder, plan.clock, device);
        let (budget, lifetime) = (plan.failure_budget, plan.certificate_lifetime);
        let refusals = self.refusals.clone();
        let journey = Arc::new(Journey::new(Arc::new(context), plan.settler, lifetime, budget, refusals));
        let first = crew.first();
        let (feed, queue) = queue::queue(first);
        let mut tasks = Tasks::new();
        let (drain, scope) = (stop.drain.clone(), plan.scope);
        let fed = async move { queue::feed(store, feed, drain, scope).await.map_err(End::Ledger) };
        tasks.spawn(fed.in_current_span());
        let mut foreman = Hiring::new(trunk, journey, queue, stop.drain.clone());
        foreman.hire(first, &mut tasks);
        let end = supervise(foreman, tasks, &stop.abort, std::future::pending()).await;
        self.refusals.judge(end).unwrap_or(if stop.drain.is_cancelled() {
            End::Drained
        } else {
            End::Complete
        })
    }
}

/// Hires as many workers as the crew should have.
struct Hiring<C> {
    trunk: Arc<Trunk<C>>,
    journey: Arc<Journey<C>>,
    queue: Queue,
    drain: CancellationToken,
    looks: Interval,
    hired: u64,
}

impl<C> Hiring<C> {
    fn new(trunk: Arc<Trunk<C>>, journey: Arc<Journey<C>>, queue: Queue, drain: CancellationToken) -> Self {
        let mut looks = tokio::time::interval(crew::LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { trunk, journey, queue, drain, looks, hired: 0 }
    }
}

impl<C: Connector> Foreman for Hiring<C> {
    async fn wanted(&mut self) -> usize {
        while self.trunk.crew.is_changing() && !self.drain.is_cancelled() {
            self.looks.tick().await;
            let missing = self.trunk.crew.missing(&self.trunk.limits);
            if missing > 0 {
                return missing;
            }
        }
        std::future::pending().await
    }

    fn hire(&mut self, more: usize, tasks: &mut Tasks) {
        for _ in 0..more {
            let line = Line::new(self.trunk.clone(), self.hired);
            let (journey, queue, crew) = (self.journey.clone(), self.queue.clone(), self.trunk.crew.clone());
            let shift = Crew::hire(&crew);
            self.hired += 1;
            let work = async move {
                let _at_work = shift;
                worker::work(line, journey, queue, crew).await.map_err(End::Stopped)
            };
            tasks.spawn(work.in_current_span());
        }
    }

    fn wind_down(&mut self) {
        self.drain.cancel();
    }
}
