//! MQTT 3.1.1 over a WebSocket over TLS, or over mutual TLS: the real network.
//!
//! Owns dialling: sign, resolve, TCP (through a proxy if there is one), TLS, upgrade, CONNECT, SUBSCRIBE, each timed
//! and all under one deadline. Never retries. [`WssConnection`] handles the open connection.

mod claim;
mod dial;
mod tls;
mod tunnel;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

pub use self::claim::{Claim, ClaimError};
pub use self::tls::{TrustError, check_authorities};
use super::link::{Wire, WsConnection, web_socket};
use super::session::Session;
use super::upgrade::upgrade;
use super::{Connector, Dial, RawConnection, Signing};
use crate::certificate::Secret;
use crate::endpoint::Endpoint;
use crate::event::DialPhases;
use crate::failure::{Cause, Failure, Stage};
use crate::provisioning::Topics;
use crate::proxy::{Proxies, Proxy};
use crate::service::{KEEP_ALIVE_S, MAX_CLIENT_ID};
use crate::sigv4::{CredentialSource, Credentials, Signer};

/// The default time limit of a dial, from signing to SUBACK.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The default MQTT keep-alive; the shortest that the service accepts.
pub const KEEP_ALIVE: Duration = Duration::from_secs(*KEEP_ALIVE_S.start());

/// The longest prefix of client ids, in bytes: the suffix is a dash, 16 random hexadecimal digits, a dash, and a
/// counter of up to 16 digits.
pub const MAX_CLIENT_ID_PREFIX: usize = MAX_CLIENT_ID - 34;

/// The settings of a [`WssConnector`].
pub struct WssSettings {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// The region to sign for.
    pub region: String,
    /// The topics of the run; connections subscribe to the response topics.
    pub topics: Topics,
    /// The prefix of client ids; a suffix makes them unique.
    pub client_id_prefix: String,
    /// How the client authenticates.
    pub authentication: Authentication,
    /// Certificate authorities to trust besides the public ones: PEM with any number of certificates, or one
    /// certificate in DER. May be empty.
    pub extra_roots: Vec<u8>,
    /// The network's proxy, if it has one.
    pub proxies: Proxies,
    /// The time limit of a dial; [`CONNECT_TIMEOUT`] by default.
    pub connect_timeout: Duration,
    /// The MQTT keep-alive; [`KEEP_ALIVE`] by default.
    pub keep_alive: Duration,
    /// Whether TLS sessions are resumed.
    pub tls_resumption: TlsResumption,
}

impl WssSettings {
    /// Settings for the service at `endpoint` with the defaults: [`CONNECT_TIMEOUT`], [`KEEP_ALIVE`], the public
    /// authorities, no proxy.
    pub fn new(
        endpoint: Endpoint,
        region: impl Into<String>,
        topics: Topics,
        authentication: Authentication,
    ) -> Self {
        Self {
            endpoint,
            region: region.into(),
            topics,
            client_id_prefix: String::from("fleetmint"),
            authentication,
            extra_roots: Vec::new(),
            proxies: Proxies::default(),
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            tls_resumption: TlsResumption::default(),
        }
    }
}

/// How the client authenticates to the service.
#[derive(Clone)]
pub enum Authentication {
    /// By a signature on a WebSocket.
    Signature(Arc<dyn CredentialSource>),
    /// By a claim certificate, with MQTT over mutual TLS: on port 8883, or with ALPN on any other port, such as the
    /// service's 443.
    Claim(Claim),
}

/// Whether TLS sessions are resumed (RFC 8446 section 2.2), which saves the server signing the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsResumption {
    /// All connections of a connector share their sessions.
    #[default]
    Shared,
    /// Every handshake is a full one, as with a fleet of devices that connect for the first time.
    Off,
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The prefix leaves no room for the unique suffix, or starts with `$`, which the service reserves, or has
    /// control characters.
    #[error(
        "the client id prefix is {found:?}; wanted at most {MAX_CLIENT_ID_PREFIX} bytes, not starting with $, without \
         control characters"
    )]
    ClientIdPrefix {
        /// The prefix.
        found: String,
    },
    /// The claim cannot be used.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The extra certificate authorities cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A connection that [`WssConnector`] opens.
pub type WssConnection = WsConnection<TlsStream<TcpStream>>;

/// Dials the service over TLS.
pub struct WssConnector {
    endpoint: Endpoint,
    host_header: String,
    server_name: ServerName<'static>,
    topics: Arc<Topics>,
    authentication: Authentication,
    signer: Signer,
    /// Shared by all connections, along with the TLS sessions: every dial but the first can resume one.
    tls: Arc<ClientConfig>,
    /// The proxy on the way to the endpoint; `None` if there is none.
    proxy: Option<Proxy>,
    client_id_stem: String,
    /// A fixed client id that replaces the unique ones; `None` by default.
    client_id: Option<String>,
    dials: AtomicU64,
    connect_timeout: Duration,
    keep_alive: Duration,
}

impl fmt::Debug for WssConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WssConnector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl WssConnector {
    /// A connector with `settings`. Touches no network.
    ///
    /// # Errors
    /// [`SettingsError`] if the client id prefix, the claim or the extra certificate authorities cannot be used.
    pub fn new(settings: WssSettings) -> Result<Self, SettingsError> {
        let prefix = settings.client_id_prefix;
        let is_wrong = prefix.len() > MAX_CLIENT_ID_PREFIX
            || prefix.starts_with('$')
            || prefix.chars().any(char::is_control);
        if is_wrong {
            return Err(SettingsError::ClientIdPrefix { found: prefix });
        }
        let (host, port) = (settings.endpoint.host().to_owned(), settings.endpoint.port());
        Ok(Self {
            host_header: settings.endpoint.host_header(),
            server_name: ServerName::try_from(host).map_err(|_| TrustError::Unnameable)?,
            proxy: settings.proxies.on_the_way_to(settings.endpoint.host(), settings.endpoint.port()),
            endpoint: settings.endpoint,
            topics: Arc::new(settings.topics),
            signer: Signer::new(&settings.region),
            tls: match &settings.authentication {
                Authentication::Signature(_) => {
                    tls::client_config(&settings.extra_roots, settings.tls_resumption)?
                }
                Authentication::Claim(claim) => {
                    tls::claim_config(&settings.extra_roots, settings.tls_resumption, claim, port)?
                }
            },
            authentication: settings.authentication,
            // Random per connector, counted per dial: unique across processes and hosts, and never reused.
            client_id_stem: format!("{prefix}-{:016x}", rand::random::<u64>()),
            client_id: None,
            dials: AtomicU64::new(0),
            connect_timeout: settings.connect_timeout,
            keep_alive: settings.keep_alive,
        })
    }

    /// Uses this client id on every dial, as a device does: a second connection ends the first.
    #[must_use]
    pub fn with_client_id(mut self, client_id: &str) -> Self {
        self.client_id = Some(client_id.to_owned());
        self
    }

    async fn dial_once(&self) -> Dial<WssConnection> {
        let mut progress =
            Progress { phases: DialPhases::default(), stage: Stage::Sign, since: Instant::now() };
        let opened = timeout(self.connect_timeout, self.open(&mut progress)).await;
        let outcome = opened
            .unwrap_or(Err(Cause::TimedOut { after: self.connect_timeout }))
            .map_err(|cause| Failure::new(progress.stage, cause));
        Dial { phases: progress.phases, outcome }
    }

    async fn open(&self, progress: &mut Progress) -> Result<WssConnection, Cause> {
        let mut connection = match &self.authentication {
            Authentication::Signature(credentials) => {
                self.open_signed(credentials.as_ref(), progress).await?
            }
            Authentication::Claim(_) => {
                let stream = self.secure(progress).await?;
                progress.enter(Stage::Connack);
                WsConnection::open_plain(stream, self.session())
            }
        };
        connection.connect().await?;
        progress.phases.connack = Some(progress.finish());

        progress.enter(Stage::Suback);
        if connection.subscribe().await? {
            progress.phases.suback = Some(progress.finish());
        }
        Ok(connection)
    }

    /// Opens a WebSocket whose upgrade is signed.
    async fn open_signed(
        &self,
        source: &dyn CredentialSource,
        progress: &mut Progress,
    ) -> Result<WssConnection, Cause> {
        let credentials = source.credentials().await.map_err(|error| unusable(error.to_string()))?;
        let upgraded = self.upgrade(&credentials, Signing::default(), progress).await;
        if let Err(Cause::UpgradeRefused { status: 401 | 403, .. }) = upgraded {
            source.refused(&credentials);
        }
        let (stream, early) = upgraded?;
        Ok(WsConnection::open(stream, early, self.session()).await)
    }

    /// Opens a TLS connection and upgrades it. Returns the bytes that came behind the answer, too.
    async fn upgrade(
        &self,
        credentials: &Credentials,
        signing: Signing,
        progress: &mut Progress,
    ) -> Result<(TlsStream<TcpStream>, Vec<u8>), Cause> {
        let target = self.sign(credentials, signing)?;
        let mut stream = self.secure(progress).await?;
        progress.enter(Stage::Upgrade);
        let early = upgrade(&mut stream, &self.host_header, &target).await?;
        progress.phases.upgrade = Some(progress.finish());
        progress.enter(Stage::Connack);
        Ok((stream, early))
    }

    /// Whether connections are signed: with a claim certificate they are not.
    pub fn is_signed(&self) -> bool {
        matches!(self.authentication, Authentication::Signature(_))
    }

    /// Dials once for a connection on which the caller decides about every packet. Nothing is subscribed to, and a
    /// refusal is no reason to look for newer credentials: the signature may be wrong on purpose. `signing` is for
    /// connections that are signed, see [`is_signed`](Self::is_signed).
    pub async fn dial_raw(&self, signing: Signing) -> Dial<RawConnection<TlsStream<TcpStream>>> {
        let mut progress =
            Progress { phases: DialPhases::default(), stage: Stage::Sign, since: Instant::now() };
        let opened = timeout(self.connect_timeout, self.open_raw(signing, &mut progress)).await;
        let outcome = opened
            .unwrap_or(Err(Cause::TimedOut { after: self.connect_timeout }))
            .map_err(|cause| Failure::new(progress.stage, cause));
        Dial { phases: progress.phases, outcome }
    }

    async fn open_raw(
        &self,
        signing: Signing,
        progress: &mut Progress,
    ) -> Result<RawConnection<TlsStream<TcpStream>>, Cause> {
        let wire = match &self.authentication {
            Authentication::Signature(source) => {
                let credentials = source.credentials().await.map_err(|error| unusable(error.to_string()))?;
                let (stream, early) = self.upgrade(&credentials, signing, progress).await?;
                web_socket(stream, early).await
            }
            Authentication::Claim(_) => {
                let stream = self.secure(progress).await?;
                progress.enter(Stage::Connack);
                Wire::plain(stream)
            }
        };
        let raw = RawConnection::open(wire, self.next_client_id()).await?;
        progress.phases.connack = Some(progress.finish());
        Ok(raw)
    }

    fn session(&self) -> Session {
        Session::new(self.next_client_id(), Arc::clone(&self.topics), self.keep_alive, Instant::now())
    }

    /// Opens a TLS connection to the endpoint.
    async fn secure(&self, progress: &mut Progress) -> Result<TlsStream<TcpStream>, Cause> {
        let tcp = self.reach(progress).await?;
        progress.phases.tcp = Some(progress.finish());
        progress.enter(Stage::Tls);
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let connected = connector.connect(self.server_name.clone(), tcp).await;
        let stream = connected.map_err(|error| tls::failed(&error))?;
        progress.phases.tls = Some(progress.finish());
        Ok(stream)
    }

    /// Opens a TCP connection to the endpoint, through the proxy if there is one.
    async fn reach(&self, progress: &mut Progress) -> Result<TcpStream, Cause> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let (first_host, first_port) =
            self.proxy.as_ref().map_or((host, port), |proxy| (proxy.host.as_str(), proxy.port));
        progress.enter(Stage::Resolve);
        let addresses = dial::resolve(first_host, first_port).await?;
        progress.enter(Stage::Tcp);
        let mut tcp = dial::connect(addresses).await?;
        if let Some(proxy) = &self.proxy {
            let authority =
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            tunnel::open(&mut tcp, proxy, &authority).await?;
        }
        Ok(tcp)
    }

    /// The path and query of the upgrade, signed with the present time or an offset from it.
    fn sign(&self, credentials: &Credentials, signing: Signing) -> Result<Secret<String>, Cause> {
        let (now, offset) = (SystemTime::now(), Duration::from_secs(signing.offset_s.unsigned_abs()));
        let dated = if signing.offset_s < 0 { now - offset } else { now + offset };
        self.signer
            .presign(credentials, &self.host_header, self.endpoint.path(), dated, signing.expires)
            .map_err(|error| unusable(error.to_string()))
    }

    fn next_client_id(&self) -> String {
        if let Some(client_id) = &self.client_id {
            return client_id.clone();
        }
        format!("{}-{:x}", self.client_id_stem, self.dials.fetch_add(1, Ordering::Relaxed))
    }
}

impl Connector for WssConnector {
    type Connection = WssConnection;

    fn dial(&self) -> impl Future<Output = Dial<WssConnection>> + Send {
        // Boxed: a worker dials rarely, and should not hold the space for it all the time.
        Box::pin(self.dial_once())
    }
}

fn unusable(detail: String) -> Cause {
    Cause::Credentials { detail }
}

/// The progress of a dial.
struct Progress {
    phases: DialPhases,
    stage: Stage,
    since: Instant,
}

impl Progress {
    fn enter(&mut self, stage: Stage) {
        tracing::trace!(?stage, "dialling");
        // The name lookup counts towards the TCP phase.
        if stage != Stage::Tcp {
            self.since = Instant::now();
        }
        self.stage = stage;
    }

    fn finish(&self) -> Duration {
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(prefix: &str) -> WssSettings {
        WssSettings {
            endpoint: "localhost:1".parse().unwrap(),
            region: String::from("eu-west-1"),
            topics: Topics::new("T"),
            client_id_prefix: prefix.to_owned(),
            authentication: Authentication::Signature(Arc::new(Credentials {
                access_key_id: String::from("a"),
                secret_access_key: Secret::new(String::from("s")),
                session_token: None,
            })),
            extra_roots: Vec::new(),
            proxies: Proxies::default(),
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            tls_resumption: TlsResumption::Shared,
        }
    }

    #[test]
    fn client_ids_are_unique_per_dial_and_fit() {
        let longest = "p".repeat(MAX_CLIENT_ID_PREFIX);
        let connectors = [settings(&longest), settings(&longest)].map(|it| WssConnector::new(it).unwrap());
        connectors[0].dials.store(u64::MAX, Ordering::Relaxed);
        let mut ids: Vec<_> =
            (0..3).flat_map(|_| connectors.each_ref().map(WssConnector::next_client_id)).collect();
        assert_eq!(ids[0].len(), MAX_CLIENT_ID);
        assert!(ids.iter().all(|id| id.starts_with(&longest) && id.len() <= MAX_CLIENT_ID));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn prefixes_that_cannot_work_are_refused() {
        for prefix in ["$aws", "a\nb", &"p".repeat(MAX_CLIENT_ID_PREFIX + 1)] {
            let error = WssConnector::new(settings(prefix)).unwrap_err();
            assert!(error.to_string().contains("at most 94 bytes"), "{error}");
        }
    }

    /// A worker holds its connection and the future that it waits on; both should be small, since there may be 10,000
    /// workers.
    #[test]
    fn what_a_worker_carries_is_small() {
        use crate::transport::Connection;
        let connector = WssConnector::new(settings("p")).unwrap();
        assert_eq!(size_of::<WssConnection>(), size_of::<usize>());
        assert_eq!(size_of_val(&connector.dial()), size_of::<usize>());
        fn exchange_size<C: Connection>(_: fn() -> C) -> usize {
            fn size_of_output<C: Connection, F: Future>(_: impl FnOnce(C) -> F) -> usize {
                size_of::<F>()
            }
            size_of_output::<C, _>(|connection| {
                connection.exchange(
                    crate::call::Call::CreateKeysAndCertificate,
                    bytes::Bytes::new(),
                    CONNECT_TIMEOUT,
                )
            })
        }
        let size = exchange_size::<WssConnection>(|| unreachable!("only its type is wanted"));
        assert!(size <= 512, "{size}");
    }
}
