//! What a run leaves when it is killed, when its disk is full, when its ledger is locked, cut or damaged, and when it is
//! asked to stop: judged by what the emulated account and the ledger's file show, never by what the run says of itself.
//!
//! The emulator runs in the test's process, where the account can be looked at; every `fleetmint` is a process of its own.

mod account;
mod damage;
mod disk;
mod evidence;
mod kills;
mod locks;
mod services;
mod sinks;
mod stops;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Said, column};

/// A setting of the long form, or what `cargo test` takes.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}, wanted a number")))
}

/// Where the randomness of a test starts; printed, and repeated with FLEETMINT_CRASH_SEED.
fn seed(of: &str) -> u64 {
    let seed = setting("FLEETMINT_CRASH_SEED", rand::random::<u32>().into());
    eprintln!("{of}: FLEETMINT_CRASH_SEED={seed}");
    seed
}

/// How many devices of a ledger are in `state`; none, if there is no ledger yet.
fn devices(ledger: &Path, state: &str) -> usize {
    if ledger.exists() {
        column(ledger, &format!("SELECT key FROM device WHERE state = '{state}'")).len()
    } else {
        0
    }
}

/// Waits for a condition that another process brings about; gives up after a minute.
#[track_caller]
fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited a minute in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a command whose words are wanted later.
fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How a started command ended.
fn said(child: Child) -> Said {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A file that stands beside a ledger.
fn beside(ledger: &Path, suffix: &str) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
