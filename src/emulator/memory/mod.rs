//! A simulated network: the account without sockets, in virtual time, with everything going wrong that can.
//!
//! Owns a network with one seed: when each packet arrives, and what happens to it ([`Faults`]). A client dials with
//! [`MemoryConnector`]; what it has published goes on even if the client is gone by then. Every event can be observed,
//! and a client can be cut off at any of them. The account decides what requests do and how they are answered;
//! [`Inbox`](crate::transport::Inbox) decides which reply answers which request.
//!
//! Time is tokio's, which a simulation pauses. Everything here depends on the seed and that time alone.

mod client;
mod faults;
mod network;
mod settler;
mod weather;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::account::{Account, Answer};
use super::scenario::Fault;
use crate::call::Call;
use crate::provisioning::Topics;

pub use client::{MemoryConnection, MemoryConnector};
pub use faults::Faults;
pub use network::Network;
pub use settler::MemorySettler;
pub use weather::{Bursts, Throttles, Weather};

/// The settings of a network.
pub struct NetworkSettings {
    /// The account on the other side.
    pub account: Account,
    /// What goes wrong.
    pub faults: Faults,
    /// The seed of everything that is drawn, certificates included.
    pub seed: u64,
    /// The service's wall clock when the network is made.
    pub base: SystemTime,
    /// Receives every event.
    pub observer: Arc<dyn Observer>,
}

/// Receives every event on a network, at the instant it happens.
pub trait Observer: Send + Sync {
    /// Called when an event happens, `at` after the network was made.
    fn see(&self, at: Duration, sighting: &Sighting<'_>);
}

/// An event on a network.
///
/// Between the first and the last event of an exchange the client can be cut off: if an observer calls [`Power::off`],
/// the client does nothing after that event.
#[derive(Debug)]
pub enum Sighting<'a> {
    /// A dial begins.
    Dialling,
    /// A dial has ended, in success or failure.
    Dialled {
        /// The connection's number, from 0.
        connection: u64,
        /// Whether the connection is open.
        is_open: bool,
    },
    /// A client is about to publish a request. Nothing has left it yet.
    Publishing(&'a Request),
    /// The request is on its way, and cannot be called back.
    Published(&'a Request),
    /// The service has dealt with a request.
    Answered {
        /// The request that was processed.
        request: &'a Request,
        /// The fault that the request met.
        fault: Option<&'a Fault>,
        /// The account's answer; `None` if the request did not reach the account.
        account: Option<&'a Answer>,
    },
    /// A reply has reached a client, which has not looked at it yet.
    Delivered {
        /// The connection's number.
        connection: u64,
        /// The reply's topic.
        topic: &'a str,
        /// The reply's payload.
        payload: &'a Bytes,
    },
    /// The service ended a connection.
    Closed {
        /// The connection's number.
        connection: u64,
    },
}

/// A request under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The number of its connection.
    pub connection: u64,
    /// Which call it makes.
    pub call: Call,
    /// The payload. For RegisterThing it contains a token.
    pub payload: Bytes,
}

/// Whether a client runs. Once it is off, the client does nothing more, even if it is polled.
#[derive(Debug, Clone)]
pub struct Power(Arc<AtomicBool>);

impl Default for Power {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Power {
    /// Stops the client immediately.
    pub fn off(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the client runs.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns only while the client runs.
    pub async fn go_on(&self) {
        if !self.is_on() {
            std::future::pending().await
        }
    }
}

impl Network {
    /// A client's connector to the account. It works while `power` is on.
    pub fn connector(&self, topics: Topics, power: Power) -> MemoryConnector {
        MemoryConnector::new(self.clone(), Arc::new(topics), power)
    }
}

impl fmt::Debug for NetworkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSettings")
            .field("faults", &self.faults)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
