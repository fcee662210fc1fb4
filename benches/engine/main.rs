//! What one device costs the whole client path, over real TLS on loopback: microseconds of this process's CPU time, all
//! threads, user and system; beside the floor, which is the barest client that does the same exchanges.
//!
//! - floor: packets encoded beforehand, the same TLS and WebSocket, the same connections; looks at nothing it gets.
//! - engine: with a ledger in memory, less the CPU time that passes inside of its commits.
//! - engine with ledger: the whole, each certificate and registration on the disk before it counts.
//!
//! The server is this program again in another process: it answers each request with a prepared reply. All three include
//! opening their connections. The three take turns, and the medians of their ratios are printed, because a machine that
//! others use is never the same twice.
//!
//! `cargo bench --bench engine [-- DEVICES [ROUNDS [CONNECTIONS [THREADS]]]]`

/// The command's allocator, so that devices cost here what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod floor;
mod ours;
mod packets;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmint::engine::CommitMode;
use rustix::time::{ClockId, clock_gettime};

/// How much is done.
#[derive(Clone, Copy)]
struct Load {
    devices: u64,
    connections: usize,
    /// Of the client's runtime.
    threads: usize,
}

/// What it took.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|argument| argument == server::ARGUMENT) {
        return server::serve();
    }
    let number =
        |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let load = Load {
        devices: number(0, 20_000) as u64,
        connections: number(2, 50),
        threads: number(3, std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let server = server::Child::start();
    let only = std::env::var("ONLY").ok();
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let nothing = Cost { cpu: Duration::from_secs(1), wall: Duration::from_secs(1) };
    let rounds: Vec<[Cost; 3]> = (0..number(1, 7))
        .map(|_| {
            let floor = if is_wanted("floor") {
                measure(load, floor::run(server.address, server.ca(), load))
            } else {
                nothing
            };
            let (lot, commits) = (ours::Lot::in_memory(load.devices), Arc::new(ours::Commits::default()));
            let mode = CommitMode::Simulated(commits.clone());
            let mut engine = if is_wanted("engine") {
                measure(load, ours::run(server.address, server.ca(), load, lot, mode))
            } else {
                nothing
            };
            engine.cpu -= commits.cpu();
            let lot = ours::Lot::on_disk(load.devices);
            let whole = if is_wanted("whole") {
                measure(load, ours::run(server.address, server.ca(), load, lot, CommitMode::Blocking))
            } else {
                nothing
            };
            [floor, engine, whole]
        })
        .collect();
    report(&rounds, load);
}

/// Runs `work` on a runtime of its own, from starting it to its end.
fn measure(load: Load, work: impl Future<Output = ()>) -> Cost {
    let (cpu, started) = (cpu_time(ClockId::ProcessCPUTime), Instant::now());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        runtime.worker_threads(load.threads).enable_all().build().expect("a runtime can be started");
    runtime.block_on(work);
    drop(runtime);
    Cost { cpu: cpu_time(ClockId::ProcessCPUTime) - cpu, wall: started.elapsed() }
}

fn cpu_time(of: ClockId) -> Duration {
    let time = clock_gettime(of);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

fn report(rounds: &[[Cost; 3]], load: Load) {
    let per_device = |cost: Cost| cost.cpu.as_secs_f64() * 1e6 / load.devices as f64;
    let Load { devices, connections, threads } = load;
    println!(
        "{devices} devices, {connections} connections, {threads} threads; median of {} rounds",
        rounds.len()
    );
    println!("{:<22}{:>12}{:>10}{:>12}", "", "CPU/device", "floors", "devices/s");
    for (at, name) in ["floor", "engine", "engine with ledger"].into_iter().enumerate() {
        let cpu = median(rounds.iter().map(|round| per_device(round[at])));
        let ratio = median(rounds.iter().map(|round| per_device(round[at]) / per_device(round[0])));
        let speed = median(rounds.iter().map(|round| devices as f64 / round[at].wall.as_secs_f64()));
        println!("{name:<22}{cpu:>9.1} us{ratio:>10.2}{speed:>12.0}");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
