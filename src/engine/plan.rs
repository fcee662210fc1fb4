//! What a run should do, settled before it starts.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::coalescing::Coalescing;
use super::keys::{KeyPolicy, KeySource};
use super::scope::Scope;
use super::store::CommitMode;
use crate::control_plane::Settler;
use crate::failure::RetryPolicy;
use crate::identity::ParameterPlan;
use crate::rate::{Rate, RateLimit};
use crate::service::{PUBLISHES_PER_CONNECTION, Quota, TOKEN_LIFETIME, WEBSOCKET_LIFETIME};

/// What a run should do, settled before it starts. By default: all open devices, keys from the service, and the
/// quotas that AWS gives a new account.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which of the open devices to take up.
    pub scope: Scope,
    /// How many connections to open; one worker each.
    pub connections: Connections,
    /// Global limits.
    pub rates: Rates,
    /// The rate of messages on one connection, requests and replies together; `None` is unlimited.
    pub publishes_per_connection: Option<Rate>,
    /// The request parameters made of a device's row. Empty by default: a plan for devices with parameters sets it.
    pub parameters: ParameterPlan,
    /// Where private keys come from and how they are kept. A device that has a key of its own keeps it.
    pub keys: KeyPolicy,
    /// How long an exchange waits for its reply.
    pub exchange_timeout: Duration,
    /// When and how often to retry.
    pub retry: RetryPolicy,
    /// How old a connection may get before it is replaced, between exchanges. Each is replaced a little earlier, at
    /// random, so that not all go at once. Must be below the age at which the service closes it: see
    /// [`CONNECTION_LIFETIME`].
    pub connection_lifetime: Duration,
    /// The oldest ownership token that is still used: the service's hour, less a margin for transit.
    pub token_lifetime: Duration,
    /// The age at which an ownership token's certificate is void: it can no longer be registered, and an unregistered
    /// certificate is deleted. The service's hour, plus a margin for clocks.
    pub certificate_lifetime: Duration,
    /// How many devices in a row may fail to register before the run stops, since the next would fare no better.
    pub failure_budget: u32,
    /// Tells whether a registration whose answer was lost has happened. If `None`, such devices end as Unknown.
    pub settler: Option<Arc<dyn Settler>>,
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// How long the runtime's threads may let packets gather; the run sets it. Without effect by default.
    pub coalescing: Coalescing,
    /// The clock that tokens' ages are read from.
    pub clock: Clock,
    /// The seed for the jitter of retries: the same seed gives the same jitter. Random by default.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            connections: Connections::default(),
            rates: Rates::aws_defaults(KeySource::Service),
            publishes_per_connection: Some(PUBLISHES_PER_CONNECTION),
            parameters: ParameterPlan::default(),
            keys: KeyPolicy::default(),
            exchange_timeout: EXCHANGE_TIMEOUT,
            retry: RetryPolicy::default(),
            connection_lifetime: CONNECTION_LIFETIME,
            token_lifetime: TOKEN_USABLE,
            certificate_lifetime: CERTIFICATE_VOID,
            failure_budget: 100,
            settler: None,
            commit_mode: CommitMode::default(),
            coalescing: Coalescing::default(),
            clock: Clock::default(),
            seed: rand::random(),
        }
    }
}

/// How long an exchange waits for its reply by default.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// The age at which connections are replaced by default: an hour before the service closes them.
pub const CONNECTION_LIFETIME: Duration = WEBSOCKET_LIFETIME.saturating_sub(Duration::from_secs(3_600));

/// The oldest token that is still used: an older one might lapse in transit.
pub(super) const TOKEN_USABLE: Duration = TOKEN_LIFETIME.saturating_sub(Duration::from_secs(3 * 60));

/// The age at which a token is surely void, allowing for clocks that differ.
const CERTIFICATE_VOID: Duration = TOKEN_LIFETIME.saturating_add(Duration::from_secs(6 * 60));

/// How many connections a run opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Exactly this many.
    Fixed(usize),
    /// As many as the rates and the latencies need, up to a maximum.
    Auto {
        /// The maximum.
        max: usize,
    },
}

impl Connections {
    /// The maximum by default.
    pub const MOST: usize = 1_000;
}

impl Default for Connections {
    /// As many as needed, up to [`MOST`](Self::MOST).
    fn default() -> Self {
        Connections::Auto { max: Self::MOST }
    }
}

/// Global limits per operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Dials.
    pub connect: RateLimit,
    /// CreateKeysAndCertificate and CreateCertificateFromCsr requests.
    pub create: RateLimit,
    /// RegisterThing requests.
    pub register: RateLimit,
}

impl Rates {
    /// No limits until the service throttles: for an emulator, or an account with ample quotas.
    pub const UNLIMITED: Self =
        Self { connect: RateLimit::Unlimited, create: RateLimit::Unlimited, register: RateLimit::Unlimited };

    /// The quotas that AWS gives a new account, for keys that come from `keys`.
    pub fn aws_defaults(keys: KeySource) -> Self {
        let limit = |quota: Quota| RateLimit::Fixed(quota.aws_default());
        Self {
            connect: limit(Quota::Connect),
            create: limit(keys.create_quota()),
            register: limit(Quota::RegisterThing),
        }
    }
}
