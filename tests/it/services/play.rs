//! One cell: the engine with the command line's defaults, its ledger, and the account behind a network.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fleetmint::call::Call;
use fleetmint::emulator::account::{Account, Answer, Verdict};
use fleetmint::emulator::memory::Faults;
use fleetmint::emulator::memory::{Network, NetworkSettings, Observer, Power, Sighting};
use fleetmint::emulator::scenario::BUILT_IN_TEMPLATE;
use fleetmint::emulator::scenario::Scenario;
use fleetmint::engine::{self, Clock, CommitMode, Connections, End, Plan, Rates, Stop};
use fleetmint::provisioning::Topics;
use fleetmint::rate::{Rate, RateLimit};

use super::cell::Cell;
use crate::simulation::world::import;

/// What is not judged at first, and after the quota has changed.
const SETTLING: u64 = 60;

/// What came of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    /// Devices registered, of those that could have been.
    pub used: f64,
    /// Requests throttled once the run has settled, of all then.
    pub throttled: f64,
    /// Used, from half a minute after an outage to a minute.
    pub after_outage: Option<f64>,
}

/// A run: what it meets, what is set, and how long it is watched.
pub struct Play {
    pub scenario: Scenario,
    pub faults: Faults,
    pub rate: RateLimit,
    /// At most.
    pub connections: usize,
    pub devices: u64,
    pub horizon: Duration,
}

/// What was asked and answered, second by second.
#[derive(Default)]
struct Counts(Mutex<Vec<Second>>);

#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    pub requests: u64,
    pub throttled: u64,
    pub registered: u64,
    /// Registrations that something befell.
    pub lost: u64,
}

impl Observer for Counts {
    fn see(&self, at: Duration, sighting: &Sighting<'_>) {
        let Sighting::Answered { request, fault, account } = sighting else { return };
        let mut seconds = self.0.lock().unwrap();
        let number = at.as_secs() as usize;
        if seconds.len() <= number {
            seconds.resize(number + 1, Second::default());
        }
        let second = &mut seconds[number];
        second.requests += 1;
        let is_accepted = account.is_some_and(|answer| answer.verdict == Verdict::Accepted);
        let is_429 = |answer: &&Answer| answer.payload.windows(3).any(|text| text == b"429");
        let is_throttled = !is_accepted && account.as_ref().is_some_and(is_429);
        second.throttled += u64::from(is_throttled);
        let is_registration = request.call == Call::RegisterThing;
        second.registered += u64::from(is_accepted && fault.is_none() && is_registration);
        second.lost += u64::from(fault.is_some() && is_registration);
    }
}

/// Plays a cell in a thread of its own time.
pub fn play(cell: &Cell) -> Score {
    let play = Play {
        scenario: cell.scenario(),
        faults: cell.faults(),
        rate: RateLimit::per_second(cell.rate),
        connections: 1_000,
        devices: (cell.rate * cell.horizon().as_secs_f64()) as u64 + 100,
        horizon: cell.horizon(),
    };
    score(cell, &play.run())
}

impl Play {
    /// Runs it in a thread of its own time.
    pub fn run(self) -> Vec<Second> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(self))
    }
}

async fn run(play: Play) -> Vec<Second> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("services-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let base = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
    let Play { scenario, faults, rate, connections, devices, horizon } = play;
    let (ledger, parameters) = import(&name, devices, base);
    let counts = Arc::new(Counts::default());
    let network = Network::new(NetworkSettings {
        account: Account::new(&scenario).unwrap(),
        faults,
        seed: 2,
        base,
        observer: counts.clone(),
    });
    let serving = tokio::spawn(network.clone().serve());
    // As the command line has it where nothing but the rates is typed.
    let (power, clock) = (Power::default(), network.clone());
    let plan = Plan {
        connections: Connections::Auto { max: usize::try_from(devices).unwrap().min(connections) },
        rates: Rates { connect: RateLimit::per_second(500.0), create: rate, register: rate },
        publishes_per_connection: Rate::per_second(100.0),
        parameters,
        commit_mode: CommitMode::Inline,
        settler: Some(Arc::new(network.settler(power.clone()))),
        clock: Clock::new(move || clock.now()),
        seed: 3,
        ..Plan::default()
    };
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), power);
    let stop = Stop::never().abort_when(tokio::time::sleep(horizon));
    let ended = engine::run(plan, connector, ledger, stop, ()).await.end;
    assert!(matches!(ended, End::Aborted | End::Complete), "{ended:?}");
    serving.abort();
    counts.0.lock().unwrap().clone()
}

fn score(cell: &Cell, seconds: &[Second]) -> Score {
    let horizon = cell.horizon().as_secs();
    let is_out = |second: u64| {
        cell.outage().is_some_and(|(from, to)| (from.as_secs()..to.as_secs()).contains(&second))
    };
    let lost = cell.lost().unwrap_or_else(|| share_lost(seconds));
    let used = |from: u64, to: u64| {
        let span = || (from..to).filter(|second| !is_out(*second));
        let most: f64 = span().map(|second| cell.available(Duration::from_secs(second))).sum();
        let registered: u64 =
            span().filter_map(|second| seconds.get(second as usize)).map(|second| second.registered).sum();
        registered as f64 / ((1.0 - lost) * most)
    };
    let change = cell.changes_at().as_secs();
    let settling = SETTLING.min(horizon / 3);
    let is_settled = |second: u64| second >= settling && !(change..change + SETTLING).contains(&second);
    let settled = (0..horizon).filter(|second| is_settled(*second));
    let settled: Vec<_> = settled.filter_map(|second| seconds.get(second as usize)).collect();
    let sum = |of: fn(&Second) -> u64| settled.iter().map(|second| of(second)).sum::<u64>() as f64;
    Score {
        used: used(0, horizon),
        throttled: sum(|second| second.throttled) / sum(|second| second.requests).max(1.0),
        after_outage: cell
            .outage()
            .map(|(_, end)| used(end.as_secs() + 30, (end.as_secs() + 60).min(horizon))),
    }
}

/// The share of registrations that were lost.
fn share_lost(seconds: &[Second]) -> f64 {
    let sum = |of: fn(&Second) -> u64| seconds.iter().map(of).sum::<u64>() as f64;
    let (registered, lost) = (sum(|second| second.registered), sum(|second| second.lost));
    lost / (registered + lost).max(1.0)
}
