//! A load test in virtual time against the emulator's account, and what went over the wire by an observer of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetmint::emulator::account::Account;
use fleetmint::emulator::memory::{Faults, Network, NetworkSettings, Observer, Power, Sighting};
use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario as Emulated};
use fleetmint::engine::load::{LoadOutcome, LoadPlan, Scenario, run};
use fleetmint::engine::{Audience, Clock, CommitMode, Stop};
use fleetmint::identity::{Identity, LotReader, ParameterPlan};
use fleetmint::ledger::{Binding, Ledger, LotRows};
use fleetmint::metrics::Interval;
use fleetmint::provisioning::{Delivery, Topics};
use fleetmint::rate::RateLimit;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A network whose packets take no time: what is measured is the latency law alone.
pub fn prompt() -> Faults {
    Faults { latency: (Duration::ZERO, Duration::ZERO), ..Faults::default() }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a run is made of. The plan is `profile`'s and may be changed.
pub struct Lab {
    pub plan: LoadPlan,
    pub emulated: Emulated,
    pub faults: Faults,
    pub devices: usize,
    pub stop: Stop,
    /// How many of the seconds are kept for looking at.
    pub keeps: usize,
}

/// What a run left.
pub struct Results {
    pub outcome: LoadOutcome,
    pub intervals: Vec<Interval>,
    /// How long each exchange took, as the wire had it.
    pub exchanges: Vec<Duration>,
    pub network: Network,
}

impl Lab {
    pub fn new(scenario: Scenario, profile: &str) -> Self {
        let plan = LoadPlan {
            connect_rate: RateLimit::Unlimited,
            parameters: lot(1).1,
            commit_mode: CommitMode::Inline,
            ..LoadPlan::new(scenario, profile.parse().unwrap())
        };
        let devices = plan.profile.arrivals().ceil() as usize + 100;
        let (emulated, stop) = (Emulated::default(), Stop::never());
        Self { plan, emulated, faults: prompt(), devices, stop, keeps: usize::MAX }
    }

    /// With the emulator as `toml` has it.
    pub fn emulating(mut self, toml: &str) -> Self {
        self.emulated = Emulated::from_toml(toml).unwrap();
        self
    }

    /// Runs it, in a thread of its own time.
    pub fn run(self) -> Results {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(self.play())
    }

    async fn play(self) -> Results {
        let base = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let observer = Arc::new(Watcher::default());
        let network = Network::new(NetworkSettings {
            account: Account::new(&self.emulated).unwrap(),
            faults: self.faults,
            seed: 1,
            base,
            observer: observer.clone(),
        });
        let mut beside = JoinSet::new();
        beside.spawn(network.clone().serve());
        let (sender, mut receiver) = mpsc::channel(4);
        let read = Arc::new(Mutex::new(Vec::new()));
        let (readers, keeps) = (read.clone(), self.keeps);
        beside.spawn(async move {
            while let Some(interval) = receiver.recv().await {
                let mut kept = readers.lock().unwrap();
                if kept.len() < keeps {
                    kept.push(interval);
                }
            }
        });
        let ledger = self.plan.scenario.takes_devices().then(|| ledger(self.devices, base));
        let topics = match self.plan.scenario {
            Scenario::Publish { .. } => Topics::of_messages("load", Delivery::AtLeastOnce),
            _ => Topics::new(BUILT_IN_TEMPLATE),
        };
        let connector = network.connector(topics, Power::default());
        let clock = network.clone();
        let plan = LoadPlan { clock: Clock::new(move || clock.now()), ..self.plan };
        let (progress, _) = watch::channel(Default::default());
        let audience = Audience { progress, intervals: Some(sender) };
        let outcome = run(plan, connector, ledger, self.stop, audience).await;
        beside.shutdown().await;
        let intervals = std::mem::take(&mut *read.lock().unwrap());
        let exchanges = observer.exchanges.lock().unwrap().clone();
        Results { outcome, intervals, exchanges, network }
    }
}

/// Sees every exchange, and keeps it in full: a check on figures that were kept in histograms.
#[derive(Default)]
struct Watcher {
    under_way: Mutex<BTreeMap<u64, Duration>>,
    exchanges: Mutex<Vec<Duration>>,
}

impl Observer for Watcher {
    fn see(&self, at: Duration, sighting: &Sighting<'_>) {
        match sighting {
            Sighting::Published(request) => {
                self.under_way.lock().unwrap().insert(request.connection, at);
            }
            Sighting::Delivered { connection, .. } => {
                if let Some(sent) = self.under_way.lock().unwrap().remove(connection) {
                    self.exchanges.lock().unwrap().push(at - sent);
                }
            }
            _ => {}
        }
    }
}

pub fn lot(devices: usize) -> (String, ParameterPlan) {
    let mut csv = String::from("DeviceId,SerialNumber,MacAddress\n");
    for n in 1..=devices {
        csv += &format!("D{n:07},SN{n:07},AA:BB:CC:00:{:02X}:{:02X}\n", n >> 8 & 255, n & 255);
    }
    let reader = LotReader::new(csv.as_bytes(), Some("DeviceId")).unwrap();
    let constants = [(String::from("CertificateId"), String::from("{certificate_id}"))];
    let parameters = ParameterPlan::new(reader.shape(), &constants).unwrap();
    (csv, parameters)
}

pub fn ledger(devices: usize, now: SystemTime) -> Ledger {
    let (csv, parameters) = lot(devices);
    let reader = LotReader::new(csv.as_bytes(), Some("DeviceId")).unwrap();
    let binding = Binding {
        template: BUILT_IN_TEMPLATE.to_owned(),
        region: String::from("us-east-1"),
        account: "load".into(),
        ..Binding::default()
    };
    let rows = LotRows { source: "load.csv", shape: reader.shape().clone(), rows: reader };
    let check = |identity: &Identity| parameters.check(identity);
    Ledger::in_memory(&binding, rows, check, now).unwrap()
}
