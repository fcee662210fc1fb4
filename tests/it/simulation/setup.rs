//! What a seed means: the lot, the service's answers to open questions, what goes wrong, and when the process dies.

use std::time::Duration;

use fleetmint::emulator::memory::{Faults, Weather};
use fleetmint::emulator::scenario::{self, Acts, CertificateIdMismatch, Fault, Scenario, TokenReuse};
use fleetmint::engine::{CONNECTION_LIFETIME, Connections, Rates};
use fleetmint::failure::RetryPolicy;
use fleetmint::rate::{Rate, RateLimit};

use super::dice::Dice;

#[derive(Debug)]
pub struct Setup {
    pub keys: Keys,
    pub devices: u64,
    pub connections: Connections,
    pub scenario: Scenario,
    pub faults: Faults,
    pub disk: DiskFaults,
    pub rates: Rates,
    pub publishes_per_connection: Option<Rate>,
    pub exchange_timeout: Duration,
    pub retry: RetryPolicy,
    pub connection_lifetime: Duration,
    pub failure_budget: u32,
    /// Runs under faults, before the one without.
    /// Whether there is anyone to ask about registrations whose answer was lost.
    pub has_control_plane: bool,
    pub rounds: Vec<Round>,
}

/// Who makes the devices' keys.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// With CreateKeysAndCertificate.
    Service,
    /// By the client; the service certifies them, with CreateCertificateFromCsr.
    Local,
}

/// What a disk does, in odds per commit.
#[derive(Debug, Default)]
pub struct DiskFaults {
    pub slow: f64,
    pub slowest: Duration,
    /// Nothing is written, and the run is told so.
    pub refused: f64,
    /// All is written, and the run is told that it was not.
    pub forgotten: f64,
}

/// One run of the engine, and what comes after it.
#[derive(Debug)]
pub struct Round {
    pub ending: Ending,
    /// How long it takes until somebody starts it again.
    pub downtime: Duration,
    /// How far the client's clock is set forward or back, and when.
    pub clock_jump: Option<(Duration, f64)>,
}

/// How a run is to end.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// By itself.
    Natural,
    /// The process dies at its n-th boundary: before or after a dial, a publish, a delivery or a commit.
    Crash {
        boundary: u64,
    },
    Drain {
        after: Duration,
    },
    Abort {
        after: Duration,
    },
}

/// Rejected with 429, whatever the quotas say.
const THROTTLE: Fault = Fault::Reject { status: 429, code: None, acts: Acts::Undone };

impl Setup {
    pub fn draw(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let devices = if dice.chance(0.1) { dice.between(50, 400) } else { dice.between(1, 40) };
        let connections = dice.between(1, 12) as usize;
        let faults = draw_faults(dice);
        let rounds = dice.between(0, 5);
        // Came later, with dice of its own: the other draws of a seed mean what they meant before.
        let delays = Dice::new(seed ^ 4).pick(&[0.0, 0.0, 0.0, 0.2]);
        let faults = Faults { delays, ..faults };
        let late = &mut Dice::new(seed ^ 6);
        let stillbirths = late.pick(&[0.0, 0.0, 0.0, 0.3]);
        let faults = Faults { stillbirths, ..faults };
        let connections = if late.chance(0.3) {
            Connections::Auto { max: connections }
        } else {
            Connections::Fixed(connections)
        };
        let publishes_per_connection = Rate::per_second(late.pick(&[-1.0, 100.0, 5.0]));
        let auto = [(); 3].map(|()| late.chance(0.15));
        let lifetime_s = Dice::new(seed ^ 5).pick(&[82_800, 82_800, 600, 60, 2]);
        Self {
            connection_lifetime: Duration::from_secs(lifetime_s),
            keys: if Dice::new(seed ^ 7).chance(0.3) { Keys::Local } else { Keys::Service },
            devices,
            connections,
            scenario: draw_scenario(dice),
            faults,
            disk: draw_disk(dice),
            rates: draw_auto(draw_rates(dice, devices), auto),
            publishes_per_connection,
            exchange_timeout: Duration::from_secs(dice.pick(&[1, 5, 20])),
            retry: draw_retry(dice),
            failure_budget: dice.pick(&[5, 100, 100]),
            has_control_plane: dice.chance(0.5),
            rounds: (0..rounds).map(|_| draw_round(dice, devices)).collect(),
        }
    }

    /// The same without anything that could keep a device from being registered.
    pub fn draw_calm(seed: u64) -> Self {
        let setup = Self::draw(seed);
        let calm =
            |round: &Round| Round { ending: Ending::Natural, downtime: round.downtime, clock_jump: None };
        let throttles = [(THROTTLE, Dice::new(seed).pick(&[0.0, 0.02]))];
        Self {
            rounds: setup.rounds.iter().map(calm).collect(),
            faults: Faults {
                requests: scenario::Faults::of_requests(throttles),
                closings: 0.0,
                stillbirths: 0.0,
                delays: 0.0,
                dials: 0.0,
                ..setup.faults
            },
            disk: DiskFaults { refused: 0.0, forgotten: 0.0, ..setup.disk },
            exchange_timeout: Duration::from_secs(20),
            ..setup
        }
    }

    /// Many devices, some of everything, and two crashes: for measuring.
    pub fn large(devices: u64) -> Self {
        let mut setup = Self::draw(1);
        setup.devices = devices;
        setup.connections = Connections::Fixed(200);
        setup.scenario = Scenario { token_reuse: TokenReuse::Accept, ..Scenario::default() };
        let requests = scenario::Faults::of_requests(Fault::OF_REQUESTS.map(|fault| (fault, 0.002)));
        let redeliveries = 0.01;
        setup.faults = Faults { requests, redeliveries, overtakings: 0.1, ..Faults::default() };
        setup.disk = DiskFaults::default();
        setup.rates = Rates::UNLIMITED;
        setup.publishes_per_connection = None;
        setup.exchange_timeout = Duration::from_secs(5);
        setup.retry = RetryPolicy::default();
        setup.connection_lifetime = CONNECTION_LIFETIME;
        setup.failure_budget = 100;
        let round = |boundary| Round {
            ending: Ending::Crash { boundary },
            downtime: Duration::from_secs(1),
            clock_jump: None,
        };
        setup.rounds = vec![round(devices), round(5 * devices)];
        setup
    }

    /// Whether nothing goes wrong that could keep a device from being registered.
    pub fn is_calm(&self) -> bool {
        let natural = self.rounds.iter().all(|round| matches!(round.ending, Ending::Natural));
        natural
            && self.faults.requests.rules.iter().all(|rule| rule.fault == THROTTLE)
            && self.faults.closings == 0.0
            && self.faults.stillbirths == 0.0
            && self.faults.delays == 0.0
            && 4 * self.faults.latency.1 < self.exchange_timeout
            && self.faults.dials == 0.0
            && self.disk.refused + self.disk.forgotten == 0.0
            && self.rounds.iter().all(|round| round.clock_jump.is_none())
    }
}

fn draw_scenario(dice: &mut Dice) -> Scenario {
    let quota = |dice: &mut Dice| {
        let count = dice.pick(&[0, 0, 1, 10, 50]);
        fleetmint::rate::Rate::per_second(f64::from(count)).map(scenario::Quota::constant)
    };
    Scenario {
        token_reuse: dice.pick(&[TokenReuse::Reject, TokenReuse::Accept]),
        certificate_id_mismatch: dice.pick(&[CertificateIdMismatch::Ignore, CertificateIdMismatch::Reject]),
        quotas: scenario::Quotas {
            create_keys_and_certificate: quota(dice),
            register_thing: quota(dice),
            ..scenario::Quotas::default()
        },
        seed: dice.next(),
        ..Scenario::default()
    }
}

/// A swarm: each seed has some of the faults of requests, so that they meet in all combinations and none drowns the others.
fn draw_faults(dice: &mut Dice) -> Faults {
    let storm = dice.pick(&[0.0, 0.05, 0.2, 0.5]);
    let present: Vec<Fault> = Fault::OF_REQUESTS.into_iter().filter(|_| dice.chance(0.4)).collect();
    let weights: Vec<f64> = present.iter().map(|_| dice.unit() + 0.1).collect();
    let sum: f64 = weights.iter().sum();
    let requests = present.into_iter().zip(&weights).map(|(fault, weight)| (fault, storm * weight / sum));
    let slowest = Duration::from_millis(dice.pick(&[0, 20, 300, 3_000]));
    Faults {
        latency: (Duration::from_millis(1), slowest),
        latest: Duration::from_secs(dice.pick(&[5, 60, 4_000])),
        dials: dice.pick(&[0.0, 0.0, 0.1, 0.5]),
        closings: dice.pick(&[0.0, 0.0, 0.3]),
        stillbirths: 0.0,
        requests: scenario::Faults::of_requests(requests),
        delays: 0.0,
        redeliveries: dice.pick(&[0.0, 0.1, 0.4]),
        overtakings: dice.pick(&[0.0, 0.2]),
        unsettled: dice.pick(&[0.0, 0.3, 1.0]),
        weather: Weather::default(),
    }
}

fn draw_disk(dice: &mut Dice) -> DiskFaults {
    DiskFaults {
        slow: dice.pick(&[0.0, 0.0, 0.3]),
        slowest: Duration::from_millis(dice.pick(&[10, 1_000, 120_000])),
        refused: dice.pick(&[0.0, 0.0, 0.02]),
        forgotten: dice.pick(&[0.0, 0.0, 0.02]),
    }
}

/// Slow limits too: then tokens grow old while their devices wait.
fn draw_rates(dice: &mut Dice, devices: u64) -> Rates {
    let rate = |dice: &mut Dice| RateLimit::per_second(dice.pick(&[-1.0, -1.0, 2.0, 10.0, 47.0, 300.0]));
    let slow = devices <= 50 && dice.chance(0.15);
    let register = if slow { RateLimit::per_second(0.002) } else { rate(dice) };
    Rates { connect: rate(dice), create: rate(dice), register }
}

/// Some of the limits are to be found.
fn draw_auto(rates: Rates, auto: [bool; 3]) -> Rates {
    let [connect, create, register] = auto;
    let draw = |limit, is_auto| if is_auto { RateLimit::Auto } else { limit };
    Rates {
        connect: draw(rates.connect, connect),
        create: draw(rates.create, create),
        register: draw(rates.register, register),
    }
}

fn draw_retry(dice: &mut Dice) -> RetryPolicy {
    if dice.chance(0.3) {
        RetryPolicy { attempts: 2, throttled_attempts: 3, anomalies: 2, dials: 3, ..RetryPolicy::default() }
    } else {
        RetryPolicy::default()
    }
}

fn draw_round(dice: &mut Dice, devices: u64) -> Round {
    let ending = match dice.between(0, 9) {
        0 | 1 => Ending::Natural,
        2 => Ending::Drain { after: dice.up_to(Duration::from_secs(20)) },
        3 => Ending::Abort { after: dice.up_to(Duration::from_secs(20)) },
        _ => Ending::Crash { boundary: dice.between(1, 12 * devices.min(60)) },
    };
    let downtime = Duration::from_secs(dice.pick(&[0, 1, 600, 3_500, 3_700, 10_000]));
    let jump = dice.pick(&[-4_000.0, -100.0, 100.0, 1_800.0, 4_000.0]);
    let clock_jump = dice.chance(0.15).then(|| (dice.up_to(Duration::from_secs(10)), jump));
    Round { ending, downtime, clock_jump }
}
