//! What connections cost the client: opening them, with and without TLS session resumption; memory while they are held;
//! and whether 10,000 hold for two minutes of keep-alives.
//!
//! The other side is the emulator in a process of its own, on the same machine: wall-clock rates are those of both ends
//! together, CPU and memory are the client's alone. `--quick` does a tenth of everything.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleetmint::certificate::Secret;
use fleetmint::emulator::Emulator;
use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
use fleetmint::provisioning::Topics;
use fleetmint::sigv4::Credentials;
use fleetmint::transport::wss::{
    Authentication, CONNECT_TIMEOUT, KEEP_ALIVE, TlsResumption, WssConnection, WssConnector, WssSettings,
};
use fleetmint::transport::{Connection, Connector};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

/// How many dials are under way at a time.
const AT_A_TIME: usize = 64;

/// What the bench passes to itself to be the other side.
const SERVE: &str = "serve";

/// How much is done.
struct Size {
    dials: usize,
    held_for_memory: usize,
    held: usize,
    hold: Duration,
}

const FULL: Size =
    Size { dials: 4_000, held_for_memory: 5_000, held: 10_000, hold: Duration::from_secs(120) };
const QUICK: Size = Size { dials: 400, held_for_memory: 500, held: 1_000, hold: Duration::from_secs(12) };

fn main() {
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    if std::env::args().any(|argument| argument == SERVE) {
        return runtime.block_on(serve());
    }
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let size = if is_quick { QUICK } else { FULL };
    let server = Server::start();
    runtime.block_on(measure(&server, &size));
}

async fn measure(server: &Server, size: &Size) {
    // First, while nothing that was opened and closed has left its mark on the heap.
    hold_many(server, size).await;
    println!(
        "\nopening: TCP, TLS, upgrade, CONNACK, SUBACK; {AT_A_TIME} at a time, client and server share the machine"
    );
    println!("{:<24}{:>12}{:>14}{:>14}{:>14}", "", "per second", "CPU us each", "dial p50 ms", "dial p99 ms");
    for (name, resumption) in
        [("full handshakes", TlsResumption::Off), ("sessions resumed", TlsResumption::Shared)]
    {
        let connector = server.connector(resumption);
        // The first connections of a connector have no session to resume.
        close(open(&connector, AT_A_TIME).await.connections).await;
        let (wall, cpu) = (Instant::now(), cpu_time());
        let mut opened = open(&connector, size.dials).await;
        let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
        opened.took.sort_unstable();
        let each = |time: Duration| time.as_secs_f64() / size.dials as f64;
        let ms = |share: f64| 1e3 * opened.took[(share * size.dials as f64) as usize].as_secs_f64();
        println!(
            "{name:<24}{:>12.0}{:>14.0}{:>14.1}{:>14.1}",
            1.0 / each(wall),
            1e6 * each(cpu),
            ms(0.5),
            ms(0.99)
        );
        close(opened.connections).await;
    }
}

async fn hold_many(server: &Server, size: &Size) {
    println!("holding: each connection idles in a task of its own and keeps itself alive");
    println!(
        "{:<24}{:>12}{:>14}{:>14}{:>14}",
        "resident", "held", "client KB each", "client MB", "server KB each"
    );
    let connector = server.connector(TlsResumption::Shared);
    let lost = Arc::new(AtomicUsize::new(0));
    let mut holding = JoinSet::new();
    let before = [None, Some(server)].map(resident_kb);
    for target in [size.held_for_memory, size.held] {
        let opened = open(&connector, target - holding.len()).await;
        hold(&mut holding, opened.connections, &lost);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = [None, Some(server)].map(resident_kb);
        let each = |side: usize| (now[side] - before[side]) / target as f64;
        println!("{:<24}{target:>12}{:>14.1}{:>14.0}{:>14.1}", "", each(0), now[0] / 1024.0, each(1));
    }
    let cpu = cpu_time();
    tokio::time::sleep(size.hold).await;
    let cpu = cpu_time() - cpu;
    println!(
        "{} held for {} s with a keep-alive of {} s: {} lost, {:.1} % of a core, {:.0} MB resident",
        size.held,
        size.hold.as_secs(),
        KEEP_ALIVE.as_secs(),
        lost.load(Ordering::Relaxed),
        100.0 * cpu.as_secs_f64() / size.hold.as_secs_f64(),
        resident_kb(None) / 1024.0
    );
    holding.shutdown().await;
}

struct Opened {
    connections: Vec<WssConnection>,
    took: Vec<Duration>,
}

/// Opens `count` connections, so many at a time.
async fn open(connector: &Arc<WssConnector>, count: usize) -> Opened {
    let left = Arc::new(AtomicUsize::new(count));
    let mut dialling = JoinSet::new();
    for _ in 0..AT_A_TIME.min(count) {
        let (connector, left) = (connector.clone(), left.clone());
        dialling.spawn(async move {
            let mut opened = Opened { connections: Vec::new(), took: Vec::new() };
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let began = Instant::now();
                let dial = connector.dial().await;
                opened.took.push(began.elapsed());
                opened.connections.push(dial.outcome.unwrap_or_else(|failure| panic!("{failure}")));
            }
            opened
        });
    }
    let mut all = Opened { connections: Vec::with_capacity(count), took: Vec::with_capacity(count) };
    for opened in dialling.join_all().await {
        all.connections.extend(opened.connections);
        all.took.extend(opened.took);
    }
    all
}

fn hold(holding: &mut JoinSet<()>, connections: Vec<WssConnection>, lost: &Arc<AtomicUsize>) {
    for mut connection in connections {
        let lost = lost.clone();
        holding.spawn(async move {
            let failure = connection.idle().await;
            if lost.fetch_add(1, Ordering::Relaxed) < 5 {
                println!("       lost: {failure}");
            }
        });
    }
}

async fn close(connections: Vec<WssConnection>) {
    let closing: JoinSet<()> = connections.into_iter().map(Connection::close).collect();
    closing.join_all().await;
}

/// The other side: a process of its own, gone with this.
struct Server {
    child: Child,
    endpoint: String,
    ca_pem: String,
}

impl Server {
    fn start() -> Self {
        let myself = std::env::current_exe().expect("a process knows its program");
        let mut child = Command::new(myself)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program that runs can be started");
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut lines = stdout.lines().map(|line| line.expect("the server says where it is"));
        let endpoint = lines.next().unwrap_or_default();
        let end = "-----END CERTIFICATE-----";
        let mut ca_pem = String::new();
        while !ca_pem.contains(end) {
            ca_pem += &(lines.next().expect("the server sends its CA") + "\n");
        }
        Self { child, endpoint, ca_pem }
    }

    fn connector(&self, tls_resumption: TlsResumption) -> Arc<WssConnector> {
        let Scenario { region, access_key_id, secret_access_key, .. } = Scenario::default();
        let credentials = Credentials {
            access_key_id,
            secret_access_key: Secret::new(secret_access_key),
            session_token: None,
        };
        let connector = WssConnector::new(WssSettings {
            endpoint: self.endpoint.parse().expect("the emulator's endpoint is one"),
            region,
            topics: Topics::new(BUILT_IN_TEMPLATE),
            client_id_prefix: String::from("bench"),
            authentication: Authentication::Signature(Arc::new(credentials)),
            extra_roots: self.ca_pem.clone().into_bytes(),
            proxies: Default::default(),
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            tls_resumption,
        });
        Arc::new(connector.expect("these settings work"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until stdin ends.
async fn serve() {
    let any_port = (Ipv4Addr::LOCALHOST, 0).into();
    let emulator = Emulator::start(Scenario::default(), any_port).await.expect("the emulator starts");
    print!("{}\n{}", emulator.endpoint(), emulator.ca_pem());
    std::io::stdout().flush().expect("whoever started this reads");
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}

/// What the whole process has used of the processors so far.
fn cpu_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0))
}

/// What the server, or this process, has in memory. Linux says; other systems are not asked, and zero stands for that.
fn resident_kb(server: Option<&Server>) -> f64 {
    let process = server.map_or(String::from("self"), |server| server.child.id().to_string());
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kb.and_then(|kb| kb.trim().parse().ok()).unwrap_or(0.0)
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
