//! The emulator's server: TLS on two TCP ports, and the tasks of all connections.
//!
//! Owns the listeners and the tasks, all of which end with it. Neither prints nor reads the environment; files belong
//! to the store.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use super::account::{Account, AccountError, Minted, State};
use super::admin;
use super::clients::Clients;
use super::control;
use super::counts::{Counts, ServerCounters};
use super::fault::Dice;
use super::http_connection;
use super::mint::{Mint, MintError, TlsAuthority, TlsIdentity};
use super::mqtt_connection;
use super::mqtt_stream::MqttStream;
use super::scenario::{Fault, FaultTarget, Faults, Scenario};
use super::service::Service;
use super::session::Rules;
use super::socket::Tcp;
use super::store::{Identity, Journal, NotKept, StateDir, StoreError};
use super::timer::Timer;
use super::tls::{Port, Tls, Welcome};

const TLS_WITHIN: Duration = Duration::from_secs(10);
/// How long a handshake that a fault stalls is held.
const STALL: Duration = Duration::from_secs(60);
/// How many connections may wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 4_096;
/// How long the listener pauses when it cannot accept a connection, typically for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the account removes what has lapsed.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// The longest that [`Emulator::shutdown`] takes; each connection has one second of it to close.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// The settings that an emulator is started with.
#[derive(Debug, Clone)]
pub struct EmulatorPlan {
    /// How it behaves.
    pub scenario: Scenario,
    /// The address for HTTPS and WebSockets, and for MQTT over mutual TLS with ALPN `x-amzn-mqtt-ca`: port 443 on the
    /// service. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The address for MQTT over mutual TLS without ALPN: port 8883 on the service. `None` picks a free port at the
    /// address of `listen`.
    pub mqtt_listen: Option<SocketAddr>,
    /// The address of the admin API, which is plain HTTP and requires no signature; `None` disables it.
    pub admin: Option<SocketAddr>,
    /// Names and addresses that the server's certificate is valid for, besides the usual ones.
    pub names: Vec<String>,
    /// The host that clients are told to dial; `None` is `localhost`. The certificate is valid for it too.
    pub advertise: Option<String>,
    /// The directory that keeps the account and the keys; `None` keeps them in memory. A missing directory is created.
    pub state_dir: Option<PathBuf>,
}

impl Default for EmulatorPlan {
    /// The documented service on free ports of loopback.
    fn default() -> Self {
        Self {
            scenario: Scenario::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mqtt_listen: None,
            admin: None,
            names: Vec::new(),
            advertise: None,
            state_dir: None,
        }
    }
}

/// Why an emulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another port, or port 0 for any")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The scenario cannot be made into an account.
    #[error("the scenario cannot be emulated: {0}")]
    Scenario(#[from] AccountError),
    /// Keys or certificates cannot be made.
    #[error("cannot make keys and certificates: {0}")]
    Mint(#[from] MintError),
    /// The threads for making keys ahead and for timers cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS cannot use the server's own certificate.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running emulator. Dropping it stops it at once; [`Emulator::shutdown`] lets connections close properly.
pub struct Emulator {
    service: Arc<Service>,
    local_addr: SocketAddr,
    mqtt_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    ca_pem: String,
    ca_file: Option<PathBuf>,
    /// The listeners' tasks, which own the tasks of all connections.
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Starts an emulator of `scenario` on `listen`, where port 0 picks a free port. Must be called inside a tokio
    /// runtime with IO and time.
    ///
    /// # Errors
    ///
    /// [`EmulatorError`] if an address, the account, the keys or TLS cannot be set up.
    pub async fn start(scenario: Scenario, listen: SocketAddr) -> Result<Self, EmulatorError> {
        Self::launch(EmulatorPlan { scenario, listen, ..EmulatorPlan::default() }).await
    }

    /// Starts an emulator that keeps its account and keys in the directory `state_dir`: whatever was answered survives
    /// a restart, and also a crash. A missing directory is created.
    ///
    /// # Errors
    ///
    /// As for [`Emulator::start`], and [`EmulatorError::Store`] if the directory is in use, damaged, or holds something
    /// else.
    pub async fn start_in(
        state_dir: &Path,
        scenario: Scenario,
        listen: SocketAddr,
    ) -> Result<Self, EmulatorError> {
        let state_dir = Some(state_dir.to_owned());
        Self::launch(EmulatorPlan { scenario, listen, state_dir, ..EmulatorPlan::default() }).await
    }

    /// Starts an emulator as `plan` says. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    ///
    /// [`EmulatorError`] says what could not be set up.
    pub async fn launch(plan: EmulatorPlan) -> Result<Self, EmulatorError> {
        // Checked first, so that a scenario that cannot be emulated is reported before any key is made.
        let account = check(&plan.scenario)?;
        let inside = match &plan.state_dir {
            Some(directory) => Inside::restore(directory, &plan.scenario)?,
            None => Inside { account, identity: Identity::generate()?, journal: None, state_dir: None },
        };
        let web = bind(plan.listen)?;
        let mqtt = bind(plan.mqtt_listen.unwrap_or(SocketAddr::new(plan.listen.ip(), 0)))?;
        let admin = plan.admin.map(bind).transpose()?;
        let ca_pem = inside.identity.tls.certificate_pem().to_owned();
        let tls_identity = server_identity(&inside.identity.tls, &plan)?;
        let ca_file = inside.state_dir.as_ref().map(|directory| directory.write_ca(&ca_pem)).transpose()?;
        let service = service(plan, inside, web.address.port())?;
        let tls = Arc::new(Tls::new(&tls_identity, &service)?);
        let (local_addr, mqtt_addr) = (web.address, mqtt.address);
        let admin_addr = admin.as_ref().map(|admin| admin.address);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&service), web.listener, Arc::clone(&tls), Port::Web));
        tasks.spawn(accept(Arc::clone(&service), mqtt.listener, tls, Port::Mqtt));
        tasks.spawn(expire(Arc::clone(&service)));
        if let Some(admin) = admin {
            tasks.spawn(admin::serve(Arc::clone(&service), admin.listener));
        }
        Ok(Self { service, local_addr, mqtt_addr, admin_addr, ca_pem, ca_file, tasks })
    }

    /// The emulator's scenario.
    pub fn scenario(&self) -> &Scenario {
        &self.service.scenario
    }

    /// The address for HTTPS and WebSockets.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The address for MQTT over mutual TLS without ALPN.
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.mqtt_addr
    }

    /// The address of the admin API; `None` if it is disabled.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The URL that clients connect to: `wss://localhost:<port>/mqtt`.
    pub fn endpoint(&self) -> String {
        format!("wss://{}:{}/mqtt", self.service.host, self.local_addr.port())
    }

    /// The URL that devices with a certificate connect to: `mqtts://localhost:<port>`.
    pub fn mqtt_endpoint(&self) -> String {
        format!("mqtts://{}:{}", self.service.host, self.mqtt_addr.port())
    }

    /// The certificate of the emulator's CA, PEM, which clients must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The path of the CA's certificate in the state directory, the same after each restart; `None` without a state
    /// directory.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Waits until the state directory can no longer be written, typically for lack of space. From then on, no request
    /// is answered. Without a state directory it waits for ever.
    pub async fn failure(&self) -> NotKept {
        match &self.service.journal {
            Some(journal) => journal.failure().await,
            None => std::future::pending().await,
        }
    }

    /// The counts so far.
    pub fn counters(&self) -> ServerCounters {
        self.service.counts.counters()
    }

    /// How long the emulator has been running. The scenario's stalls and quota changes count from its start.
    pub fn age(&self) -> Duration {
        self.service.age()
    }

    /// How many clients are connected now.
    pub fn connected(&self) -> usize {
        self.service.clients.connected()
    }

    /// Runs `look` on the account while nothing changes it. Everything else waits meanwhile, so `look` should be brief.
    pub fn inspect<R>(&self, look: impl FnOnce(&Account) -> R) -> R {
        self.service.account(|account| look(account))
    }

    /// Issues a claim certificate: active, with a policy that allows only fleet provisioning.
    pub async fn issue_claim(&self) -> Minted {
        self.service.issue_claim().await
    }

    /// Replaces the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.service.dice.load(faults);
    }

    /// Resets everything to the initial state: an empty account, the scenario's faults, counters at zero, nobody
    /// connected.
    ///
    /// # Errors
    /// [`CannotReset`] if the account is kept in a directory.
    pub fn reset(&self) -> Result<(), CannotReset> {
        self.service.reset()
    }

    /// Stops listening, closes all connections and waits for their tasks, at most five seconds. Remaining tasks are
    /// then aborted.
    pub async fn shutdown(mut self) {
        self.service.stop.cancel();
        let _ = timeout(SHUTDOWN_WITHIN, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
        // Dropping the mint joins its threads, which may be in the middle of making a key: not on a runtime thread.
        let _ = tokio::task::spawn_blocking(move || drop(self.service)).await;
    }
}

pub use super::service::CannotReset;

/// The parts that an emulator starts from.
struct Inside {
    account: Account,
    identity: Identity,
    journal: Option<Journal>,
    state_dir: Option<StateDir>,
}

impl Inside {
    fn restore(directory: &Path, scenario: &Scenario) -> Result<Self, EmulatorError> {
        let state_dir = StateDir::open(directory)?;
        let identity = restore_identity(&state_dir)?;
        let (state, journal) = state_dir.open_account(State::new(scenario.seed))?;
        let mut account = Account::resume(scenario, state)?;
        account.watch_changes();
        Ok(Self { account, identity, journal: Some(journal), state_dir: Some(state_dir) })
    }
}

/// The account of a scenario, if the scenario can be fully emulated.
fn check(scenario: &Scenario) -> Result<Account, AccountError> {
    control::check_denied(scenario)?;
    control::check_quotas(scenario)?;
    Account::new(scenario)
}

/// The identity is written before the account, so an account without an identity has lost it.
fn restore_identity(state_dir: &StateDir) -> Result<Identity, EmulatorError> {
    match state_dir.read_identity()? {
        Some(identity) => Ok(identity),
        None if state_dir.has_account() => Err(state_dir.no_identity().into()),
        None => {
            let identity = Identity::generate()?;
            state_dir.write_identity(&identity)?;
            Ok(identity)
        }
    }
}

fn service(plan: EmulatorPlan, inside: Inside, port: u16) -> Result<Arc<Service>, EmulatorError> {
    let EmulatorPlan { scenario, advertise, .. } = plan;
    let Inside { mut account, identity, journal, state_dir } = inside;
    account.watch_certificates();
    let authority = Arc::new(identity.authority);
    let mint = Mint::new(Arc::clone(&authority), scenario.keys).map_err(EmulatorError::Threads)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok(Arc::new(Service {
        timer: Timer::start().map_err(EmulatorError::Threads)?,
        dice: Dice::new(scenario.faults.clone()),
        rules: Arc::new(Rules::of(&scenario)),
        scenario,
        port,
        host: advertise.unwrap_or_else(|| String::from("localhost")),
        account: Mutex::new(account),
        journal,
        _state_dir: state_dir,
        authority,
        mint,
        signers: Semaphore::new(cores),
        clients: Clients::default(),
        counts: Counts::default(),
        stop: CancellationToken::new(),
        started: tokio::time::Instant::now(),
    }))
}

/// A certificate for localhost and loopback, for the service's hosts, because some clients check the name they dial,
/// and for the plan's names.
fn server_identity(authority: &TlsAuthority, plan: &EmulatorPlan) -> Result<TlsIdentity, MintError> {
    let region = &plan.scenario.region;
    let mut names = plan.names.clone();
    for domain in ["amazonaws.com", "amazonaws.com.cn"] {
        names.push(format!("*.iot.{region}.{domain}"));
        names.push(format!("iot.{region}.{domain}"));
    }
    names.extend(plan.advertise.clone());
    let addresses = [Some(plan.listen), plan.mqtt_listen].into_iter().flatten().map(|address| address.ip());
    names.extend(addresses.filter(|ip| !ip.is_unspecified()).map(|ip: IpAddr| ip.to_string()));
    authority.server_identity(&names)
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

fn bind(address: SocketAddr) -> Result<Bound, EmulatorError> {
    let bind = |source| EmulatorError::Bind { address, source };
    let listener = listen(address).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    Ok(Bound { listener, address })
}

/// Listens with a long queue, because many clients may dial at once: a handshake that finds the queue full is retried
/// only after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(cfg!(unix))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes what has lapsed from the account, until the emulator stops.
async fn expire(service: Arc<Service>) {
    let mut expire = interval(EXPIRE_EVERY);
    expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while service.stop.run_until_cancelled(expire.tick()).await.is_some() {
        service.account(|account| account.expire(SystemTime::now()));
    }
}

/// Accepts connections until the emulator stops, then waits for them to end.
async fn accept(service: Arc<Service>, listener: TcpListener, tls: Arc<Tls>, port: Port) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = service.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(welcome(Arc::clone(&service), stream, Arc::clone(&tls), port));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    let _ = service.stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn welcome(service: Arc<Service>, stream: TcpStream, tls: Arc<Tls>, port: Port) {
    service.counts.accepted.add();
    if let Some(fault) = service.fate(FaultTarget::Tcp).fault {
        let _ = service.stop.run_until_cancelled(turn_away(stream, &fault)).await;
        return;
    }
    let handshake = timeout(TLS_WITHIN, tls.accept(port, stream));
    match service.stop.clone().run_until_cancelled(handshake).await {
        Some(Ok(Some(Welcome::Web(stream)))) => http_connection::serve(service, stream).await,
        Some(Ok(Some(Welcome::Device(stream, principal)))) => {
            mqtt_connection::serve(service, MqttStream::Plain(stream), principal).await;
        }
        Some(_) => service.counts.tls_failed.add(),
        None => {}
    }
}

/// Handles a connection that a fault prevents from using TLS.
async fn turn_away(mut stream: TcpStream, fault: &Fault) {
    match fault {
        Fault::StalledHandshake => sleep(STALL).await,
        Fault::CorruptTls => {
            let _ = stream.write_all(b"\x16\x03\x03\x00\x05corrupt").await;
            let _ = stream.shutdown().await;
        }
        _ => Tcp::new(stream).reset_when_dropped(),
    }
}
