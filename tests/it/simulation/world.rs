//! One seed from its first run to its last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetmint::call::Call;
use fleetmint::control_plane::Settler;
use fleetmint::emulator::account::Account;
use fleetmint::emulator::memory::{Faults, Network, NetworkSettings, Power};
use fleetmint::emulator::mint::ready_key;
use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Quota};
use fleetmint::engine::{
    self, CommitMode, Connections, End, KeyMaker, KeyPolicy, KeySource, Outcome, Plan, Stop,
};
use fleetmint::event::{Counter, Operation};
use fleetmint::failure::{Cause, RetryPolicy};
use fleetmint::identity::{Identity, LotReader, ParameterPlan};
use fleetmint::keys::KeyType;
use fleetmint::ledger::{Binding, Ledger, LotRows};
use fleetmint::metrics::Metrics;
use fleetmint::provisioning::Topics;
use fleetmint::rate::Rate;
use fleetmint::report::Summary;
use rusqlite::Connection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::checker::{Check, find_secret};
use super::dice::Dice;
use super::disk::SimulatedDisk;
use super::setup::{DiskFaults, Ending, Keys, Round, Setup};
use super::witness::{CONNECT, CREATE, REGISTER, Witness};

/// No run takes longer than this, whatever goes wrong.
const FOREVER: Duration = Duration::from_secs(90 * 24 * 3600);

/// After this nothing is under way any more that was sent before.
const SILENCE: Duration = Duration::from_secs(4_500);

/// What a device takes of a connection when nothing goes wrong: both exchanges, and a dial.
const DEVICE: Duration = Duration::from_millis(500);
/// What a run takes before it has dialled, and found rates that are not set.
const START: Duration = Duration::from_secs(20);

/// How often a lot may be taken up again once nothing goes wrong any more.
const LAST_RUNS: u32 = 3;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub violations: Vec<String>,
    pub trace: u64,
    pub sightings: u64,
    pub virtual_time: Duration,
    /// Devices registered, rejected and unknown in the end.
    pub ends: [u64; 3],
    pub cut_off: u64,
    pub story: Vec<String>,
}

/// Runs a seed in a thread of its own time.
pub fn simulate(seed: u64, setup: Setup, tells: bool) -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, setup, tells);
        world.live().await;
        world.verdict()
    })
}

struct World {
    setup: Setup,
    /// As the whole setup has it: the rounds are taken out as they are played.
    is_calm: bool,
    name: String,
    witness: Arc<Witness>,
    network: Network,
    parameters: ParameterPlan,
    /// Keeps the ledger in memory while no run has it.
    tables: Connection,
    ledger: Option<Ledger>,
    dice: Dice,
    /// How many keys the client has made.
    keys_taken: Arc<AtomicU64>,
    cut_off: u64,
    clock: Arc<Mutex<ClientClock>>,
    serving: JoinSet<()>,
}

/// How far the client's clock is off, and from when on: age of the network, seconds.
#[derive(Default)]
struct ClientClock {
    offset_s: f64,
    jump: Option<(Duration, f64)>,
}

/// How a run ended, as the world saw it.
enum Ended {
    Cut,
    Hung,
    Aborted(Box<Outcome>),
    With(Box<Outcome>),
}

impl World {
    fn new(seed: u64, setup: Setup, tells: bool) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("simulation-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let base = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let (ledger, parameters) = import(&name, setup.devices, base);
        let open = || Connection::open(format!("file:{name}?mode=memory&cache=shared")).unwrap();
        let witness = Arc::new(Witness::new(open(), tells));
        let network = Network::new(NetworkSettings {
            account: Account::new(&setup.scenario).unwrap(),
            faults: setup.faults.clone(),
            seed: seed ^ 2,
            base,
            observer: witness.clone(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(network.clone().serve());
        let tables = open();
        Self {
            is_calm: setup.is_calm(),
            setup,
            name,
            witness,
            network,
            parameters,
            tables,
            ledger: Some(ledger),
            dice: Dice::new(seed ^ 3),
            keys_taken: Arc::default(),
            cut_off: 0,
            clock: Arc::default(),
            serving,
        }
    }

    async fn live(&mut self) {
        for round in std::mem::take(&mut self.setup.rounds) {
            self.play(&round).await;
            if self.has_failed() {
                return;
            }
        }
        self.finish().await;
        self.serving.shutdown().await;
    }

    /// One run under faults, and the time until the next.
    async fn play(&mut self, round: &Round) {
        self.tell(&format!("a run begins: {round:?}"));
        {
            let mut clock = self.clock.lock().unwrap();
            clock.jump = round.clock_jump.map(|(after, by)| (self.network.age() + after, by));
        }
        let disk = std::mem::take(&mut self.setup.disk);
        let faults = DiskFaults { ..disk };
        let before = self.achieved();
        let ended = self.run_engine(round.ending, faults).await;
        self.setup.disk = disk;
        self.judge(ended, before);
        self.clock.lock().unwrap().settle();
        tokio::time::sleep(round.downtime.max(Duration::from_millis(1))).await;
        self.check();
    }

    /// Nothing goes wrong any more: now everything that can must come to its end, and soon.
    async fn finish(&mut self) {
        self.network.set_faults(Faults::default());
        self.setup.retry = RetryPolicy::default();
        self.setup.failure_budget = 100;
        tokio::time::sleep(SILENCE).await;
        self.check();
        for _ in 0..LAST_RUNS {
            self.tell("a run without faults begins");
            let began = self.network.age();
            let (before, longest) = (self.achieved(), self.longest_run(self.open()));
            let ended = self.run_engine(Ending::Natural, DiskFaults::default()).await;
            self.judge(ended, before);
            self.check();
            let took = self.network.age() - began;
            if took > longest {
                self.violate(format!(
                    "a run without faults took {took:?}, and {longest:?} is twice what it needs"
                ));
            }
            if self.open() == 0 || self.has_failed() {
                break;
            }
        }
        self.check_all_settled();
    }

    async fn run_engine(&mut self, ending: Ending, disk: DiskFaults) -> Ended {
        let power = Power::default();
        let crash_at = match ending {
            Ending::Crash { boundary } => Some(boundary),
            _ => None,
        };
        self.witness.begin(power.clone(), crash_at);
        let aborted = CancellationToken::new();
        let stop = match ending {
            Ending::Natural | Ending::Crash { .. } => Stop::never(),
            Ending::Drain { after } => Stop::when(tokio::time::sleep(after)),
            Ending::Abort { after } => {
                let aborted = aborted.clone();
                Stop::never().abort_when(async move {
                    tokio::time::sleep(after).await;
                    aborted.cancel();
                })
            }
        };
        let disk = SimulatedDisk {
            faults: disk,
            dice: Mutex::new(Dice::new(self.dice.next())),
            network: self.network.clone(),
            power: power.clone(),
            witness: self.witness.clone(),
        };
        let plan = self.plan(disk);
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => Ledger::reopen_in_shared_memory(&self.name).unwrap(),
        };
        let creation = match self.setup.keys {
            Keys::Service => Call::CreateKeysAndCertificate,
            Keys::Local => Call::CreateCertificateFromCsr,
        };
        let topics = Topics::of(BUILT_IN_TEMPLATE, &[creation, Call::RegisterThing]);
        let connector = self.network.connector(topics, power);
        // Nobody watches: a snapshot every 200 ms of virtual time would be most of the work.
        let run = engine::run(plan, connector, ledger, stop, ());
        let ended = tokio::select! {
            biased;
            () = self.witness.cut.notified() => Ended::Cut,
            // The process dies here too, only that it is told so.
            outcome = run => if aborted.is_cancelled() {
                Ended::Aborted(Box::new(outcome))
            } else {
                Ended::With(Box::new(outcome))
            },
            () = tokio::time::sleep(FOREVER) => Ended::Hung,
        };
        // The dropped run's tasks are gone once the runtime has come round to each.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        ended
    }

    fn plan(&mut self, disk: SimulatedDisk) -> Plan {
        let settler: Option<Arc<dyn Settler>> = if self.setup.has_control_plane {
            Some(Arc::new(self.network.settler(disk.power.clone())))
        } else {
            None
        };
        Plan {
            connections: self.setup.connections,
            rates: self.setup.rates,
            publishes_per_connection: self.setup.publishes_per_connection,
            parameters: self.parameters.clone(),
            exchange_timeout: self.setup.exchange_timeout,
            retry: self.setup.retry.clone(),
            connection_lifetime: self.setup.connection_lifetime,
            keys: self.keys(),
            failure_budget: self.setup.failure_budget,
            settler,
            commit_mode: CommitMode::Simulated(Arc::new(disk)),
            clock: self.client_clock(),
            seed: self.dice.next(),
            ..Plan::default()
        }
    }

    /// Where this run's keys come from. Keys made here are ready-made ones in turn, as a key cannot be made from a seed.
    fn keys(&self) -> KeyPolicy {
        let source = match self.setup.keys {
            Keys::Service => KeySource::Service,
            Keys::Local => KeySource::Local(KeyType::P256),
        };
        let taken = self.keys_taken.clone();
        let maker = KeyMaker::Stock(Arc::new(move || ready_key(taken.fetch_add(1, Ordering::Relaxed))));
        KeyPolicy { source, maker, ..KeyPolicy::default() }
    }

    /// Whether a run may end like this.
    fn judge(&mut self, ended: Ended, before: [u64; 2]) {
        match ended {
            Ended::Cut => self.cut_off += 1,
            Ended::Hung => self.violate(String::from("a run hangs")),
            Ended::Aborted(outcome) => {
                self.cut_off += 1;
                self.judge_outcome(&outcome);
            }
            Ended::With(outcome) => {
                self.judge_outcome(&outcome);
                if !matches!(outcome.end, End::Ledger(_)) {
                    self.check_numbers(before, &outcome.metrics);
                }
            }
        }
        self.check_limits();
    }

    fn judge_outcome(&mut self, outcome: &Outcome) {
        self.tell(&format!("the run ends: {:?}", outcome.end));
        let counts = outcome.ledger.view().counts().unwrap();
        let summary = Summary::new("x", outcome.elapsed, counts, &outcome.metrics);
        let summary = serde_json::to_string(&summary).unwrap();
        let texts = [summary, format!("{:?} {:?}", outcome.end, outcome.metrics)];
        let troubles = format!("{:?}", outcome.ledger.view().troubles().unwrap());
        for text in texts.iter().chain([&troubles]) {
            if let Some(secret) = find_secret(text) {
                self.violate(format!("{secret} in what a run leaves"));
            }
        }
        match &outcome.end {
            End::Bug(detail) => self.violate(format!("a task panicked: {detail}")),
            End::Ledger(error) => {
                self.cut_off += 1;
                if !error.to_string().contains("no space left") {
                    self.violate(format!("the ledger failed: {error}"));
                }
            }
            End::Stopped(failure) if failure.cause == Cause::TokenExpired => {
                self.violate(String::from("a run stopped for what an earlier run had left behind"));
            }
            End::OutOfDevices | End::ThresholdLost => {
                self.violate(String::from("it ended as a load test does"))
            }
            End::Complete | End::Drained | End::Stopped(_) | End::Refused { .. } | End::Aborted => {}
        }
    }

    /// What a run says that it did is what the ledger has more than before.
    fn check_numbers(&mut self, before: [u64; 2], metrics: &Metrics) {
        let after = self.achieved();
        let operations = [Operation::CreateCertificate, Operation::RegisterThing];
        for ((operation, before), after) in operations.into_iter().zip(before).zip(after) {
            let settled =
                if operation == Operation::RegisterThing { metrics.counters.of(Counter::Settled) } else { 0 };
            let said = metrics.operation(operation).counts.accepted + settled;
            if said != after - before {
                let name = operation.name();
                self.violate(format!(
                    "{name}: {said} were accepted, and the ledger has {} more",
                    after - before
                ));
            }
        }
    }

    /// Certificates and registrations in the ledger.
    fn achieved(&self) -> [u64; 2] {
        ["SELECT count(*) FROM certificate", "SELECT count(*) FROM device WHERE state = 'registered'"]
            .map(|sql| self.tables.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64)
    }

    fn check(&mut self) {
        let wrong = self.network.with_account(|account| {
            let notes = self.witness.notes();
            let check = Check {
                ledger: &self.tables,
                account: account.state(),
                notes: &notes,
                cut_off: self.cut_off,
                names_every_thing: self.setup.has_control_plane && self.setup.faults.unsettled == 0.0,
                devices: self.setup.devices,
                keys_made: match self.setup.keys {
                    Keys::Service => account.state().counters.certificates_created,
                    Keys::Local => self.keys_taken.load(Ordering::Relaxed),
                },
            };
            check.run()
        });
        for what in wrong {
            self.violate(what);
        }
    }

    /// Every device is at its end, and where nothing went wrong, at the right one.
    fn check_all_settled(&mut self) {
        let [registered, ..] = self.ends();
        let open = self.open();
        if open > 0 {
            self.violate(format!("{open} devices are open, and nothing keeps them from their end"));
        }
        if self.is_calm && registered != self.setup.devices && self.cut_off == 0 {
            self.violate(format!("nothing went wrong, and only {registered} devices are registered"));
        }
    }

    /// No window of any length holds more than its limit allows: what its rate gives, and a burst.
    fn check_limits(&mut self) {
        let rates = self.setup.rates;
        if let Some(rate) = self.setup.publishes_per_connection {
            // A request and its reply each time.
            let least = 2 * rate.period();
            let tightest = self.witness.notes().tightest;
            if tightest.is_some_and(|tightest| tightest + Duration::from_nanos(10) < least) {
                self.violate(format!("requests on one connection {tightest:?} apart, for {rate} publishes"));
            }
        }
        let limits = [(CONNECT, rates.connect), (CREATE, rates.create), (REGISTER, rates.register)];
        for (limit, rate) in limits {
            let Some(rate) = rate.fixed().map(Rate::as_per_second) else { continue };
            let instants = self.witness.notes().instants[limit].clone();
            let burst = (rate / 100.0).max(2.0).floor();
            for window in [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(600)] {
                let most = burst + rate * window.as_secs_f64() + 1e-6;
                let mut first = 0;
                for (last, at) in instants.iter().enumerate() {
                    while *at - instants[first] >= window {
                        first += 1;
                    }
                    if (last - first + 1) as f64 > most {
                        let count = last - first + 1;
                        self.violate(format!("limit {limit}, {rate}/s: {count} within {window:?} at {at:?}"));
                        return;
                    }
                }
            }
        }
    }

    /// How long a run over so many devices takes at most when nothing goes wrong: twice what the least of all limits asks for,
    /// and three timeouts.
    fn longest_run(&self, devices: u64) -> Duration {
        let (devices, setup) = (devices as f64, &self.setup);
        let quotas = &setup.scenario.quotas;
        let quota = |quota: &Option<Quota>| quota.as_ref().and_then(|quota| quota.at(self.network.age()));
        let rates = [
            setup.rates.create.fixed(),
            setup.rates.register.fixed(),
            quota(&quotas.create_keys_and_certificate),
            quota(&quotas.register_thing),
        ];
        let least = rates.into_iter().flatten().map(Rate::as_per_second).reduce(f64::min);
        let by_rate = least.map_or(0.0, |least| devices / least);
        let connections = match setup.connections {
            Connections::Fixed(n) | Connections::Auto { max: n } => n as f64,
        };
        let by_connections = devices * DEVICE.as_secs_f64() / connections;
        // Two publishes and two replies.
        let a_connection = setup.publishes_per_connection.map_or(0.0, |rate| 4.0 / rate.as_per_second());
        let by_publishes = devices * a_connection / connections;
        // Each connection, and one more wherever one is too old or a token was used before: a device each, at worst.
        let dials = connections + devices;
        let by_dials = setup.rates.connect.fixed().map_or(0.0, |rate| dials / rate.as_per_second());
        let longest = by_rate.max(by_connections).max(by_publishes).max(by_dials);
        Duration::from_secs_f64(2.0 * longest) + 3 * setup.exchange_timeout + START
    }

    fn client_clock(&self) -> engine::Clock {
        let (network, clock) = (self.network.clone(), self.clock.clone());
        engine::Clock::new(move || {
            let offset_s = clock.lock().unwrap().offset_at(network.age());
            let now: SystemTime = network.now();
            if offset_s < 0.0 {
                now - Duration::from_secs_f64(-offset_s)
            } else {
                now + Duration::from_secs_f64(offset_s)
            }
        })
    }

    fn ends(&self) -> [u64; 3] {
        ["registered", "rejected", "unknown"].map(|state| {
            let sql = "SELECT count(*) FROM device WHERE state = ?1";
            self.tables.query_row(sql, [state], |row| row.get::<_, i64>(0)).unwrap() as u64
        })
    }

    fn open(&self) -> u64 {
        self.setup.devices - self.ends().iter().sum::<u64>()
    }

    fn tell(&self, what: &str) {
        self.witness.notes().record(self.network.age(), what);
    }

    fn violate(&self, what: String) {
        self.witness.notes().violate(self.network.age(), what);
    }

    fn has_failed(&self) -> bool {
        !self.witness.notes().violations.is_empty()
    }

    fn verdict(&self) -> Verdict {
        let trace = self.witness.trace();
        let notes = self.witness.notes();
        Verdict {
            violations: notes.violations.clone(),
            trace,
            sightings: notes.sightings,
            virtual_time: self.network.age(),
            ends: self.ends(),
            cut_off: self.cut_off,
            story: notes.story.clone().unwrap_or_default(),
        }
    }
}

impl ClientClock {
    fn offset_at(&self, age: Duration) -> f64 {
        match self.jump {
            Some((at, by)) if age >= at => self.offset_s + by,
            _ => self.offset_s,
        }
    }

    /// The machine's clock is right again.
    fn settle(&mut self) {
        *self = Self::default();
    }
}

/// A lot as CSV.
pub fn lot_text(devices: u64) -> String {
    let mut csv = String::from("DeviceId,SerialNumber,MacAddress\n");
    for n in 1..=devices {
        csv += &format!("D{n:05},SN{n:05},AA:BB:CC:00:{:02X}:{:02X}\n", n >> 8 & 255, n & 255);
    }
    csv
}

pub fn import(name: &str, devices: u64, now: SystemTime) -> (Ledger, ParameterPlan) {
    let csv = lot_text(devices);
    let reader = LotReader::new(csv.as_bytes(), Some("DeviceId")).unwrap();
    let shape = reader.shape().clone();
    let constants = [(String::from("CertificateId"), String::from("{certificate_id}"))];
    let parameters = ParameterPlan::new(&shape, &constants).unwrap();
    let binding = Binding {
        template: BUILT_IN_TEMPLATE.to_owned(),
        region: String::from("us-east-1"),
        account: "simulation".into(),
        ..Binding::default()
    };
    let rows = LotRows { source: "simulation.csv", shape, rows: reader };
    let check = |identity: &Identity| parameters.check(identity);
    (Ledger::in_shared_memory(name, &binding, rows, check, now).unwrap(), parameters)
}
