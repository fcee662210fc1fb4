//! SIGKILL for the service: an emulator that keeps its account, killed and started again under a run, and between runs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleetmint::emulator::Emulator;
use fleetmint::emulator::account::State;
use fleetmint::emulator::scenario::Scenario;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::evidence::{every_device_once, states};
use super::{said, seed, setting, spawn};
use crate::harness::{Scratch, fleetmint};

const SCENARIO: &str =
    "keys = \"p256\"\n[latency]\ncreate_keys_and_certificate = \"20ms\"\nregister_thing = \"20ms\"\n";

#[test]
fn one_run_outlives_a_service_that_is_killed_and_restarted() {
    for rules in ["token_reuse = \"accept\"\n", "token_reuse = \"reject\"\n"] {
        let scratch = Scratch::new();
        let mut random = SmallRng::seed_from_u64(seed("service"));
        let devices = 300;
        let (lot, ledger) = (scratch.lot("lot.csv", devices), scratch.path("lot.ledger"));
        let mut service = Service::start(&scratch, rules);
        let mut run = spawn(service.provision(&lot).args(["--create-rate", "60/s"]));
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(random.random_range(100..=700)));
            assert!(run.try_wait().unwrap().is_none(), "the run ended early: {:?}", said(run).err);
            service.kill();
            service.restart();
        }
        let said = said(run);
        assert_eq!(said.code, Some(0), "{}", said.err);
        eprintln!("after six restarts in one run: {:?}", states(&ledger));
        every_device_once(&ledger, &service.end(), devices);
    }
}

#[test]
fn client_and_service_may_both_be_killed_at_any_moment() {
    let scratch = Scratch::new();
    let mut random = SmallRng::seed_from_u64(seed("both"));
    let kills = setting("FLEETMINT_CRASH_KILLS", 40);
    let devices = usize::try_from(30 * kills).unwrap();
    let (lot, ledger) = (scratch.lot("lot.csv", devices), scratch.path("lot.ledger"));
    let mut service = Service::start(&scratch, "token_reuse = \"accept\"\n");
    let mut run = spawn(&mut service.provision(&lot));
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(random.random_range(10..=300)));
        let (client, server) = [(true, false), (false, true), (true, true)][random.random_range(0..3)];
        if server {
            service.kill();
        }
        if client {
            run.kill().unwrap();
        }
        if let Some(ended) = run.try_wait().unwrap().or_else(|| client.then(|| run.wait().unwrap())) {
            // Killed, or nobody was there to be dialled.
            assert!(matches!(ended.code(), None | Some(75)), "kill {kill}: {ended} {}", said(run).err);
            if server {
                service.restart();
            }
            run = spawn(&mut service.provision(&lot));
        } else if server {
            service.restart();
        }
    }
    let last = said(run);
    if last.code != Some(0) {
        said(spawn(&mut service.provision(&lot))).expect_code(0);
    }
    eprintln!("after {kills} kills of either or both: {:?}", states(&ledger));
    every_device_once(&ledger, &service.end(), devices);
}

/// `fleetmint emulate` with a state directory.
struct Service {
    child: Child,
    ready: Value,
    scenario: PathBuf,
    directory: PathBuf,
}

impl Service {
    fn start(scratch: &Scratch, rules: &str) -> Self {
        let scenario = scratch.write("s.toml", format!("{rules}{SCENARIO}"));
        let directory = scratch.path("account");
        let (child, ready) = start("127.0.0.1:0", &scenario, &directory);
        Self { child, ready, scenario, directory }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port and with the same account: what its clients were told still holds.
    fn restart(&mut self) {
        let port = self.text("endpoint").rsplit(':').next().unwrap().split('/').next().unwrap();
        let (child, ready) = start(&format!("127.0.0.1:{port}"), &self.scenario, &self.directory);
        // The port of mutual TLS is free to change.
        let lasting = |mut ready: serde_json::Value| {
            ready.as_object_mut().unwrap().remove("mqtt_endpoint");
            ready
        };
        assert_eq!(lasting(ready), lasting(self.ready.clone()));
        self.child = child;
    }

    fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    fn provision(&self, lot: &Path) -> Command {
        let mut command = fleetmint();
        command
            .arg("provision")
            .arg(lot)
            .args(["--endpoint", self.text("endpoint"), "--region", self.text("region")])
            .args(["--template", self.text("template"), "--ca-file", self.text("ca_file")])
            .env("AWS_ACCESS_KEY_ID", self.text("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", self.text("secret_access_key"));
        command
    }

    /// Kills it once more, and looks at what it kept.
    fn end(mut self) -> State {
        self.kill();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let scenario = Scenario::read(&self.scenario).unwrap();
        let any_port = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let emulator = runtime.block_on(Emulator::start_in(&self.directory, scenario, any_port)).unwrap();
        let state = emulator.inspect(|account| account.state().clone());
        runtime.block_on(emulator.shutdown());
        state
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(listen: &str, scenario: &Path, directory: &Path) -> (Child, Value) {
    let mut child = fleetmint()
        .args(["emulate", "--listen", listen, "--scenario"])
        .arg(scenario)
        .arg("--state-dir")
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    (child, ready)
}
