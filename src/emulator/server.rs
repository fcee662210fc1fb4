//! The emulator's server: TLS on a TCP port, and every connection's life behind it.
//!
//! Owns the listener and the tasks, all of which end with it. Neither prints nor reads the environment; files are the store's.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::account::{Account, AccountError, State};
use super::clients::Clients;
use super::counts::{Counts, ServerCounters};
use super::fault::Dice;
use super::http_connection;
use super::mint::{Mint, MintError, TlsAuthority, TlsIdentity};
use super::scenario::Scenario;
use super::service::Service;
use super::session::Rules;
use super::store::{Identity, Journal, NotKept, StateDir, StoreError};
use super::timer::Timer;

const TLS_WITHIN: Duration = Duration::from_secs(10);
/// How many connections may wait to be taken; the system may allow fewer.
const BACKLOG: u32 = 4_096;
/// How long the listener rests when it cannot take a connection, above all for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the account forgets what lapsed.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How long [`Emulator::shutdown`] takes at most; each connection has a second for its goodbye.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// Why an emulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another port, or port 0 for any")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The scenario does not make an account.
    #[error("the scenario cannot be emulated: {0}")]
    Scenario(#[from] AccountError),
    /// Keys or certificates cannot be made.
    #[error("cannot make keys and certificates: {0}")]
    Mint(#[from] MintError),
    /// The threads that make keys ahead and end waits cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// The directory that should keep its state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's own certificate is not one that TLS can use.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running emulator. Dropped, it stops at once; [`Emulator::shutdown`] lets connections close properly.
pub struct Emulator {
    service: Arc<Service>,
    local_addr: SocketAddr,
    ca_pem: String,
    ca_file: Option<PathBuf>,
    /// The listener's task, which holds all connections' tasks.
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Starts an emulator of `scenario` on `listen`, where port 0 picks a free one. Must be called inside a tokio runtime
    /// with IO and time.
    ///
    /// # Errors
    ///
    /// [`EmulatorError`] says what could not be had: the address, the account, the keys, or TLS.
    pub async fn start(scenario: Scenario, listen: SocketAddr) -> Result<Self, EmulatorError> {
        // A scenario that cannot be emulated is told before a key is made.
        let account = Account::new(&scenario)?;
        let identity = Identity::generate()?;
        Self::launch(scenario, listen, Inside { account, identity, journal: None, state_dir: None }).await
    }

    /// Starts an emulator whose account and keys are kept in the directory `state_dir`: what was answered is there again after
    /// a restart, and after a crash too. A directory that is not there is made.
    ///
    /// # Errors
    ///
    /// As [`Emulator::start`], and [`EmulatorError::Store`] if the directory is in use, damaged, or somebody else's.
    pub async fn start_in(
        state_dir: &Path,
        scenario: Scenario,
        listen: SocketAddr,
    ) -> Result<Self, EmulatorError> {
        Account::new(&scenario)?;
        let state_dir = StateDir::open(state_dir)?;
        let identity = restore_identity(&state_dir)?;
        let (state, journal) = state_dir.open_account(State::new(scenario.seed))?;
        let mut account = Account::resume(&scenario, state)?;
        account.watch_changes();
        let inside = Inside { account, identity, journal: Some(journal), state_dir: Some(state_dir) };
        Self::launch(scenario, listen, inside).await
    }

    async fn launch(scenario: Scenario, listen: SocketAddr, inside: Inside) -> Result<Self, EmulatorError> {
        let Inside { account, identity: Identity { authority, tls: tls_authority }, journal, state_dir } =
            inside;
        let authority = Arc::new(authority);
        let mint = Mint::new(Arc::clone(&authority), scenario.keys).map_err(EmulatorError::Threads)?;
        let identity = server_identity(&tls_authority, listen)?;
        let ca_pem = identity.ca_pem.clone();
        let ca_file = state_dir.as_ref().map(|directory| directory.write_ca(&ca_pem)).transpose()?;
        let tls = TlsAcceptor::from(Arc::new(tls_config(identity)?));
        let bind = |source| EmulatorError::Bind { address: listen, source };
        let listener = self::listen(listen).map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;

        let service = Arc::new(Service {
            timer: Timer::start().map_err(EmulatorError::Threads)?,
            dice: Dice::new(scenario.faults.seed),
            rules: Arc::new(Rules::of(&scenario)),
            scenario,
            port: local_addr.port(),
            account: Mutex::new(account),
            journal,
            _state_dir: state_dir,
            authority,
            mint,
            clients: Clients::default(),
            counts: Counts::default(),
            stop: CancellationToken::new(),
            started: tokio::time::Instant::now(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&service), listener, tls));
        Ok(Self { service, local_addr, ca_pem, ca_file, tasks })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What clients connect to: `wss://localhost:<port>/mqtt`.
    pub fn endpoint(&self) -> String {
        format!("wss://localhost:{}/mqtt", self.local_addr.port())
    }

    /// The certificate of the emulator's CA, PEM: clients must trust it.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where that certificate stands in the state directory, if there is one; the same path after each restart.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Waits until the state directory can no longer be written, for want of space above all. From then on no request is
    /// answered. Without a state directory it waits for ever.
    pub async fn failure(&self) -> NotKept {
        match &self.service.journal {
            Some(journal) => journal.failure().await,
            None => std::future::pending().await,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> ServerCounters {
        self.service.counts.counters()
    }

    /// How long it has been running: what the scenario's stalls and changes of quotas count from.
    pub fn age(&self) -> Duration {
        self.service.age()
    }

    /// Clients that are connected now.
    pub fn connected(&self) -> usize {
        self.service.clients.connected()
    }

    /// Looks at the account while nothing changes it. Everything waits meanwhile, so `look` should be brief.
    pub fn inspect<R>(&self, look: impl FnOnce(&Account) -> R) -> R {
        self.service.account(|account| look(account))
    }

    /// Stops listening, closes all connections and waits for their tasks, five seconds at most; what is left then is
    /// aborted.
    pub async fn shutdown(mut self) {
        self.service.stop.cancel();
        let _ = timeout(SHUTDOWN_WITHIN, self.tasks.join_next()).await;
        self.tasks.shutdown().await;
        // The mint joins its threads when it goes, each of which may be in the middle of a key: not on a runtime's thread.
        let _ = tokio::task::spawn_blocking(move || drop(self.service)).await;
    }
}

/// What an emulator starts from.
struct Inside {
    account: Account,
    identity: Identity,
    journal: Option<Journal>,
    state_dir: Option<StateDir>,
}

/// The identity comes before the account, so that an account without one has lost it.
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

/// For localhost and loopback anyway, and for the address that clients will dial.
fn server_identity(authority: &TlsAuthority, listen: SocketAddr) -> Result<TlsIdentity, MintError> {
    let address = (!listen.ip().is_unspecified()).then(|| listen.ip().to_string());
    authority.server_identity(address.as_slice())
}

fn tls_config(identity: TlsIdentity) -> Result<ServerConfig, rustls::Error> {
    // No ALPN: clients that offer http/1.1 and clients that offer nothing both get in.
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(identity.cert_chain_der, identity.key_der)?;
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// Many clients may dial at once: a handshake that finds the queue full is tried again only after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(cfg!(unix))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections until the stop, then waits for them to end.
async fn accept(service: Arc<Service>, listener: TcpListener, tls: TlsAcceptor) {
    let mut connections = JoinSet::new();
    let mut expire = interval(EXPIRE_EVERY);
    expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = service.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(welcome(Arc::clone(&service), stream, tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    let _ = service.stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = expire.tick() => service.account(|account| account.expire(SystemTime::now())),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn welcome(service: Arc<Service>, stream: TcpStream, tls: TlsAcceptor) {
    service.counts.accepted.add();
    // Without it, Nagle's algorithm and delayed acknowledgements add 40 ms to an exchange.
    let _ = stream.set_nodelay(true);
    let handshake = timeout(TLS_WITHIN, tls.accept(stream));
    match service.stop.clone().run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => http_connection::serve(service, stream).await,
        Some(_) => service.counts.tls_failed.add(),
        None => {}
    }
}
