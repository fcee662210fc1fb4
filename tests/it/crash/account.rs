//! The service in this process, so that a test can look into its account while runs come and go.

use std::path::{Path, PathBuf};
use std::process::Command;

use fleetmint::emulator::Emulator;
use fleetmint::emulator::account::State;
use fleetmint::emulator::scenario::Scenario;
use tokio::runtime::Runtime;

use crate::harness::{Scratch, fleetmint};

/// An emulator, and what its clients need.
pub struct Service {
    // Before the runtime that its tasks are on.
    emulator: Emulator,
    runtime: Runtime,
    scenario: Scenario,
    ca_file: PathBuf,
}

impl Service {
    /// Starts the emulator of a scenario in TOML.
    pub fn start(scratch: &Scratch, scenario: &str) -> Self {
        let scenario = Scenario::from_toml(scenario).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let any_port = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let emulator = runtime.block_on(Emulator::start(scenario.clone(), any_port)).unwrap();
        let ca_file = scratch.write("ca.pem", emulator.ca_pem());
        Self { emulator, runtime, scenario, ca_file }
    }

    /// `fleetmint provision LOT` against it.
    pub fn provision(&self, lot: &Path) -> Command {
        self.aim(fleetmint(), lot)
    }

    /// Completes `command`, which is `fleetmint` or runs what it is given, to `provision LOT` against it.
    pub fn aim(&self, mut command: Command, lot: &Path) -> Command {
        command
            .arg("provision")
            .arg(lot)
            .args(["--endpoint", &self.emulator.endpoint(), "--region", &self.scenario.region])
            .args(["--template", "TEMP_DEVICE", "--ca-file"])
            .arg(&self.ca_file)
            .env("AWS_ACCESS_KEY_ID", &self.scenario.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.scenario.secret_access_key);
        command
    }

    /// The account as it is now.
    pub fn account(&self) -> State {
        self.emulator.inspect(|account| account.state().clone())
    }

    /// How many connections were accepted so far: whoever sends anything has opened one.
    pub fn connections(&self) -> u64 {
        self.emulator.counters().accepted
    }

    /// Clients that are connected now.
    pub fn connected(&self) -> usize {
        self.emulator.connected()
    }

    /// Ends it in an orderly way.
    pub fn stop(self) {
        self.runtime.block_on(self.emulator.shutdown());
    }
}
