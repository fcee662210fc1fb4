//! How long the account takes for each operation.
//!
//! Owns the draws from the scenario's latency laws. Each operation has its own random stream, so that requests for one
//! do not change the latencies of another. Does not wait itself: the server and the simulated network do.

use std::time::Duration;

use super::super::scenario::{Latency, LatencyLaw, Scenario};
use super::{Random, Route};

/// An operation that has a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// CONNECT to CONNACK.
    Connect,
    /// SUBSCRIBE to SUBACK.
    Subscribe,
    /// PUBLISH of a plain message to its PUBACK and delivery.
    Publish,
    /// CreateKeysAndCertificate.
    CreateKeys,
    /// CreateCertificateFromCsr.
    CreateFromCsr,
    /// RegisterThing.
    Register,
}

impl Operation {
    /// The operation that a publish on this route requests.
    pub fn of(route: &Route<'_>) -> Self {
        match route {
            Route::CreateKeys => Operation::CreateKeys,
            Route::CreateFromCsr => Operation::CreateFromCsr,
            Route::Register { .. } => Operation::Register,
            Route::ResponseTopic | Route::Reserved | Route::Other => Operation::Publish,
        }
    }

    /// The operation's latency law.
    pub fn law(self, latency: &Latency) -> &LatencyLaw {
        match self {
            Operation::Connect => &latency.connect,
            Operation::Subscribe => &latency.subscribe,
            Operation::Publish => &latency.publish,
            Operation::CreateKeys => &latency.create_keys_and_certificate,
            Operation::CreateFromCsr => &latency.create_certificate_from_csr,
            Operation::Register => &latency.register_thing,
        }
    }
}

/// The scenario's latencies, and the state of each operation's random stream.
#[derive(Debug)]
pub(super) struct LatencyDraws {
    pub(super) latency: Latency,
    streams: [Random; 6],
}

impl LatencyDraws {
    pub(super) fn new(scenario: &Scenario) -> Self {
        // A separate stream from the account's own: otherwise tokens would reveal latencies.
        let mut seeds = Random::new(scenario.seed ^ 0x6c61_7465_6e63_7900);
        Self {
            latency: scenario.latency.clone(),
            streams: std::array::from_fn(|_| Random::new(seeds.next())),
        }
    }

    pub(super) fn draw(&mut self, operation: Operation) -> Duration {
        let drawn = self.streams[operation as usize].unit();
        operation.law(&self.latency).quantile(drawn)
    }
}
