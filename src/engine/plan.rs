//! What to do, settled before a run starts.

use std::time::Duration;

use super::keys::KeyPolicy;
use super::scope::Scope;
use super::store::CommitMode;
use crate::failure::RetryPolicy;
use crate::identity::ParameterPlan;
use crate::rate::{Rate, RateLimit};

/// What to do, settled before the run starts.
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
    /// What a row becomes.
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
    /// How the ledger is written.
    pub commit_mode: CommitMode,
    /// Where the jitter of retries starts; the same seed gives the same jitter.
    pub seed: u64,
}

/// The age at which connections are replaced unless told otherwise. The service ends a WebSocket after 24 hours (AWS IoT Core
/// quotas, "WebSocket connection duration").
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(23 * 3600);

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

/// Global limits per operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Dials.
    pub connect: RateLimit,
    /// CreateKeysAndCertificate and CreateCertificateFromCsr requests.
    pub create: RateLimit,
    /// RegisterThing requests.
    pub register: RateLimit,
}
