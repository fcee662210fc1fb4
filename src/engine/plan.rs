//! What to do, settled before a run starts.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::keys::{KeyPolicy, KeySource};
use super::scope::Scope;
use super::store::CommitMode;
use crate::control_plane::Settler;
use crate::failure::RetryPolicy;
use crate::identity::ParameterPlan;
use crate::rate::{Rate, RateLimit};
use crate::service::{PUBLISHES_PER_CONNECTION, Quota, TOKEN_LIFETIME, WEBSOCKET_LIFETIME};

/// What to do, settled before the run starts. By default: all open devices, keys from the service, and the quotas that AWS gives
/// a new account.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which of the open devices to take up.
    pub scope: Scope,
    /// How many connections; one worker each.
    pub connections: Connections,
    /// Global limits.
    pub rates: Rates,
    /// How many messages may pass on one connection, requests and replies together; `None` is unlimited.
    pub publishes_per_connection: Option<Rate>,
    /// What a row becomes. By default nothing: a plan for devices with parameters sets it.
    pub parameters: ParameterPlan,
    /// Where private keys come from and how they are kept. A device that has a key of its own keeps it.
    pub keys: KeyPolicy,
    /// How long an exchange waits for its reply.
    pub exchange_timeout: Duration,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// How old a connection may get before it is replaced, between exchanges; a little less, drawn for each, so that not all
    /// go at once. Below the age at which the service ends it: see [`CONNECTION_LIFETIME`].
    pub connection_lifetime: Duration,
    /// How old an ownership token may get and still be used. The service's hour, less a margin for the way there.
    pub token_lifetime: Duration,
    /// How old an ownership token must be for its certificate to be void: nothing can be registered with it any more,
    /// and an unregistered certificate is deleted. The service's hour, and a margin for clocks.
    pub certificate_lifetime: Duration,
    /// After how many devices in a row without a registration the run stops, since the next would fare no better.
    pub failure_budget: u32,
    /// Whom to ask whether a registration happened whose answer was lost. Without one, such devices end Unknown.
    pub settler: Option<Arc<dyn Settler>>,
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// What tells the age of tokens.
    pub clock: Clock,
    /// Where the jitter of retries starts; the same seed gives the same jitter. By default it is drawn.
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
            clock: Clock::default(),
            seed: rand::random(),
        }
    }
}

/// How long an exchange waits for its reply unless told otherwise.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// The age at which connections are replaced unless told otherwise: an hour before the service closes them.
pub const CONNECTION_LIFETIME: Duration = WEBSOCKET_LIFETIME.saturating_sub(Duration::from_secs(3_600));

/// How old a token may get and still be used: what is left then may lapse on the way.
pub(super) const TOKEN_USABLE: Duration = TOKEN_LIFETIME.saturating_sub(Duration::from_secs(3 * 60));

/// How old a token must be to be surely void: clocks differ.
const CERTIFICATE_VOID: Duration = TOKEN_LIFETIME.saturating_add(Duration::from_secs(6 * 60));

/// How many connections a run opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// This many.
    Fixed(usize),
    /// As many as the rates and the latencies need, and no more than this.
    Auto {
        /// The most.
        max: usize,
    },
}

impl Connections {
    /// The most that are opened where their number is not set.
    pub const MOST: usize = 1_000;
}

impl Default for Connections {
    /// As many as are needed, and no more than [`MOST`](Self::MOST).
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
    /// No limits, until the service throttles: for an emulator, or an account whose quotas are known to be ample.
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
