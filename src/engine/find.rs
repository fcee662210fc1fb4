//! Carries out the search for a limit: tries the steps of a [`Search`] against the service, one load test each.
//!
//! Owns the resources for each step, and the certificates that registrations need. [`crate::limit_search`] decides
//! what to try next and what the result means; [`super::load`] offers the load.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::instrument;

use super::audience::Audience;
use super::end::End;
use super::load::{self, LoadOutcome, LoadPlan, LoadSnapshot, Scenario};
use super::stop::{Stop, StopTokens};
use crate::event::Operation;
use crate::ledger::{Counts, Ledger};
use crate::limit_search::{Finding, Next, Observation, Probe, Search, SearchSettings, Step, Stopped};
use crate::metrics::Metrics;
use crate::rate::{Rate, RateLimit};
use crate::schedule::{Profile, Spacing};
use crate::service::Quota;
use crate::transport::Connector;

/// What a search should do, settled before it starts.
#[derive(Debug, Clone)]
pub struct FindPlan {
    /// What bounds the search.
    pub search: SearchSettings,
    /// How fast to issue the certificates that registrations need.
    pub issue_rate: Rate,
    /// How each step is offered. Its scenario is the one whose limit is sought. The search sets the profile, spacing,
    /// warm-up, thresholds and the number of connections ahead.
    pub load: LoadPlan,
}

impl FindPlan {
    /// A plan to find the limit of `scenario`, between two and a thousand per second; everything else suits an
    /// account with AWS's default quotas. A request without an answer within five seconds counts as silence.
    pub fn new(scenario: Scenario) -> Self {
        let profile = Profile::constant(per_second(1.0), Duration::from_secs(1)).expect("a second is a time");
        Self {
            search: SearchSettings::default(),
            // A little below AWS's default for certificates.
            issue_rate: per_second(0.8 * Quota::CreateKeysAndCertificate.aws_default().as_per_second()),
            load: LoadPlan {
                connections: 1,
                max_wait: SILENCE,
                exchange_timeout: SILENCE,
                // Half of AWS's default: dials are not measured, and must not meet a limit of their own.
                connect_rate: RateLimit::per_second(0.5 * Quota::Connect.aws_default().as_per_second()),
                ..LoadPlan::new(scenario, profile)
            },
        }
    }
}

fn per_second(n: f64) -> Rate {
    Rate::per_second(n).expect("a constant that is a rate")
}

/// How long a request may go unanswered before it counts as silence, by default.
const SILENCE: Duration = Duration::from_secs(5);

/// The state of a search.
#[derive(Debug, Clone, Default)]
pub struct FindSnapshot {
    /// The steps tried so far.
    pub steps: Vec<Step>,
    /// What the search is doing.
    pub doing: Doing,
    /// The progress of the current load test.
    pub load: LoadSnapshot,
}

/// What a search is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Doing {
    /// Nothing: it has not started, or has ended.
    #[default]
    Nothing,
    /// Trying a rate.
    Trying(Probe),
    /// Having this many certificates issued for the next step.
    Issuing(u64),
}

/// The result of a search.
#[derive(Debug)]
pub struct FindOutcome {
    /// What was found.
    pub finding: Finding,
    /// The steps that were tried, with their results, in order.
    pub steps: Vec<Step>,
    /// Why it ended.
    pub end: End,
    /// What was measured in all steps together.
    pub metrics: Metrics,
    /// What was measured while certificates were issued for registrations.
    pub issuing: Metrics,
    /// How long the search took.
    pub elapsed: Duration,
    /// The ledger, handed back.
    pub ledger: Option<Ledger>,
}

/// How many rounds of issuing certificates are tried before their limit is taken to bind first.
const ISSUE_ROUNDS: u32 = 5;
/// The service time that connections are opened ahead for until one is measured.
const FIRST_GUESS: Duration = Duration::from_millis(200);
/// The shortest service time that connections are opened ahead for.
const LEAST_GUESS: Duration = Duration::from_millis(50);

/// Searches until the limit is found, the devices run out, or `stop` says so: a future that asks the search to stop
/// when it ends, or a [`Stop`]. `ledger` provides the devices; the connect scenario needs none.
#[instrument(name = "run", skip_all, fields(kind = "find-limit"))]
pub async fn run<C: Connector>(
    plan: FindPlan,
    connector: C,
    ledger: Option<Ledger>,
    stop: impl Into<Stop>,
    progress: watch::Sender<FindSnapshot>,
) -> FindOutcome {
    stop.into().during(|stop| conduct(plan, connector, ledger, stop, progress)).await
}

async fn conduct<C: Connector>(
    plan: FindPlan,
    connector: C,
    ledger: Option<Ledger>,
    stop: StopTokens,
    progress: watch::Sender<FindSnapshot>,
) -> FindOutcome {
    let began = Instant::now();
    let mut seeker = Seeker {
        search: Search::new(plan.search.clone()),
        plan,
        connector: Arc::new(connector),
        ledger,
        stop,
        progress,
        metrics: Metrics::default(),
        issuing: Metrics::default(),
    };
    let end = seeker.seek().await;
    let finding = loop {
        match seeker.search.next() {
            Next::Done(finding) => break finding,
            Next::Try(_) => seeker.search.stop(Stopped::Asked),
        }
    };
    FindOutcome {
        finding,
        steps: seeker.search.steps().to_vec(),
        end,
        metrics: seeker.metrics,
        issuing: seeker.issuing,
        elapsed: began.elapsed(),
        ledger: seeker.ledger,
    }
}

struct Seeker<C> {
    plan: FindPlan,
    search: Search,
    connector: Arc<C>,
    ledger: Option<Ledger>,
    stop: StopTokens,
    progress: watch::Sender<FindSnapshot>,
    metrics: Metrics,
    issuing: Metrics,
}

impl<C: Connector> Seeker<C> {
    async fn seek(&mut self) -> End {
        loop {
            let probe = match self.search.next() {
                Next::Done(_) => return End::Complete,
                Next::Try(probe) => probe,
            };
            match self.prepare(&probe).await {
                Ok(None) => {}
                Ok(Some(short)) => {
                    self.search.stop(short);
                    continue;
                }
                Err(end) => return end,
            }
            self.tell(Doing::Trying(probe.clone()));
            let outcome = self.offer(self.plan.load.scenario, profile(&probe), before(&probe)).await;
            self.metrics.merge(&outcome.metrics);
            let observation = observation(self.plan.load.scenario.operation(), &outcome);
            // Tokens have grown old, or devices were refused: the load offered is not the probe's.
            let is_short = matches!(outcome.end, End::OutOfDevices);
            match ended(outcome.end) {
                Some(end) => return end,
                None if is_short => self.search.stop(Stopped::Devices),
                None => self.search.observe(observation),
            }
        }
    }

    /// Ensures that there are devices for a probe. If not, returns why the search stops.
    async fn prepare(&mut self, probe: &Probe) -> Result<Option<Stopped>, End> {
        let wanted = probe.requests();
        match self.plan.load.scenario {
            Scenario::Register => self.issue(wanted).await,
            scenario if scenario.takes_devices() => {
                Ok((self.counts()?.pending < wanted).then_some(Stopped::Devices))
            }
            _ => Ok(None),
        }
    }

    /// Has certificates issued until `wanted` devices have one that no registration was sent for.
    async fn issue(&mut self, wanted: u64) -> Result<Option<Stopped>, End> {
        let mut rate = self.plan.issue_rate.as_per_second();
        for _ in 0..ISSUE_ROUNDS {
            let counts = self.counts()?;
            let missing = wanted.saturating_sub(counts.issued_not_sent);
            if missing == 0 {
                return Ok(None);
            }
            if counts.pending < missing {
                return Ok(Some(Stopped::Devices));
            }
            self.tell(Doing::Issuing(missing));
            let time = Duration::from_secs_f64((missing as f64 / rate).max(0.001));
            let profile = hold([(rate, time)]);
            let outcome = self.offer(Scenario::Create, profile, Duration::ZERO).await;
            let counts = outcome.metrics.operation(Operation::CreateCertificate).counts;
            self.issuing.merge(&outcome.metrics);
            if let Some(end) = ended(outcome.end) {
                return Err(end);
            }
            // The service throttled, or did not answer: either way the rate was too high.
            if counts.accepted * 20 < counts.attempts * 19 {
                rate /= 2.0;
            }
        }
        Ok(Some(Stopped::Certificates))
    }

    async fn offer(&mut self, scenario: Scenario, profile: Profile, warm_up: Duration) -> LoadOutcome {
        let plan = LoadPlan {
            scenario,
            connections: self.connections(profile.peak()),
            profile,
            spacing: Spacing::Uniform,
            warm_up,
            thresholds: Vec::new(),
            ..self.plan.load.clone()
        };
        let (sender, receiver) = watch::channel(LoadSnapshot::default());
        let audience = Audience { progress: sender, intervals: None };
        let (connector, stop) = (self.connector.clone(), self.stop.clone());
        let run = load::conduct(plan, connector, self.ledger.take(), stop, audience);
        let mut outcome = tokio::select! {
            biased;
            outcome = run => outcome,
            () = pass_on(receiver, &self.progress) => unreachable!("it never ends"),
        };
        self.ledger = outcome.ledger.take();
        outcome
    }

    /// How many connections to open ahead, from the rate and the service time (Little's law), with ample room:
    /// opening more during the step would be load of another kind.
    fn connections(&self, rate: f64) -> usize {
        let seen = self.search.steps().iter().rev().find(|step| step.observation.accepted > 0);
        let time = seen.map_or(FIRST_GUESS, |step| step.observation.p99.max(LEAST_GUESS));
        ((rate * time.as_secs_f64() * 3.0).ceil() as usize + 4).min(self.plan.load.max_connections)
    }

    fn counts(&self) -> Result<Counts, End> {
        match &self.ledger {
            Some(ledger) => ledger.view().counts().map_err(End::Ledger),
            None => Ok(Counts::default()),
        }
    }

    fn tell(&self, doing: Doing) {
        let (steps, load) = (self.search.steps().to_vec(), LoadSnapshot::default());
        self.progress.send_replace(FindSnapshot { steps, doing, load });
    }
}

/// Passes a load test's progress on. Never ends.
async fn pass_on(mut load: watch::Receiver<LoadSnapshot>, progress: &watch::Sender<FindSnapshot>) {
    while load.changed().await.is_ok() {
        let snapshot = load.borrow_and_update().clone();
        progress.send_modify(|progress| progress.load = snapshot);
    }
    std::future::pending().await
}

/// How a step ended the search; `None` if the search goes on.
fn ended(end: End) -> Option<End> {
    match end {
        End::Complete | End::OutOfDevices | End::ThresholdLost => None,
        end => Some(end),
    }
}

/// How long a step offers load before it counts.
fn before(probe: &Probe) -> Duration {
    probe.drain.map_or(Duration::ZERO, |(_, time)| time) + probe.settle
}

fn profile(probe: &Probe) -> Profile {
    hold(probe.drain.into_iter().chain([(probe.rate, probe.settle + probe.measure)]))
}

fn hold(pieces: impl IntoIterator<Item = (f64, Duration)>) -> Profile {
    let pieces: Vec<_> =
        pieces.into_iter().map(|(rate, time)| format!("hold {rate}/s {}us", time.as_micros())).collect();
    let text = pieces.join("; ");
    text.parse().unwrap_or_else(|error| unreachable!("{text:?} is a profile: {error}"))
}

fn observation(operation: Operation, outcome: &LoadOutcome) -> Observation {
    let metrics = outcome.metrics.operation(operation);
    let (counts, service) = (metrics.counts, metrics.service.figures());
    let waited = metrics.response.figures().p50.saturating_sub(service.p50);
    Observation {
        due: outcome.metrics.arrivals.scheduled,
        missed: outcome.metrics.arrivals.missed,
        accepted: counts.accepted,
        throttled: counts.throttled,
        refused: counts.rejected,
        silent: counts.timed_out,
        hung_up: counts.dropped,
        p50: Duration::from_micros(service.p50),
        p99: Duration::from_micros(service.p99),
        waited: Duration::from_micros(waited),
        took: outcome.measured,
    }
}
