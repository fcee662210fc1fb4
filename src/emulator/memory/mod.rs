//! A simulated network: the account without sockets, in virtual time, with everything going wrong that can.
//!
//! Owns a network of one seed: which packet arrives when, and what befalls it ([`Faults`]). A client dials with
//! [`MemoryConnector`]; what it has published goes its way even if the client is gone by then. Everything that happens can
//! be observed, and a client can be cut off at any such instant. What requests do and what is answered is the account's;
//! which reply answers which request is [`Inbox`](crate::transport::Inbox)'s.
//!
//! Time is tokio's, which a simulation pauses. Nothing here depends on anything but the seed and that time.

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

/// What a network is made of.
pub struct NetworkSettings {
    /// The account on the other side.
    pub account: Account,
    /// What goes wrong.
    pub faults: Faults,
    /// Where everything that is drawn starts, certificates included.
    pub seed: u64,
    /// The service's wall clock at this instant.
    pub base: SystemTime,
    /// Who is told of everything.
    pub observer: Arc<dyn Observer>,
}

/// Told of everything that happens on a network, at the instant it happens.
pub trait Observer: Send + Sync {
    /// Something has happened, `at` after the network was made.
    fn see(&self, at: Duration, sighting: &Sighting<'_>);
}

/// Something that happens on a network.
///
/// Between the first and the last of an exchange the client can be cut off: what [`Power::off`] is called at has the
/// last word.
#[derive(Debug)]
pub enum Sighting<'a> {
    /// A dial begins.
    Dialling,
    /// A dial has ended, well or not.
    Dialled {
        /// The connection's number, from 0.
        connection: u64,
        /// Whether it is open.
        is_open: bool,
    },
    /// A client is about to publish a request. Nothing has left it yet.
    Publishing(&'a Request),
    /// The request is on its way, and cannot be called back.
    Published(&'a Request),
    /// The service has dealt with a request.
    Answered {
        /// The request.
        request: &'a Request,
        /// What befell it.
        fault: Option<&'a Fault>,
        /// What the account said, if it got to see the request.
        account: Option<&'a Answer>,
    },
    /// A reply has come to a client, which has not looked at it yet.
    Delivered {
        /// Which connection.
        connection: u64,
        /// On which topic.
        topic: &'a str,
        /// As it came.
        payload: &'a Bytes,
    },
    /// A connection was ended by the service.
    Closed {
        /// Which connection.
        connection: u64,
    },
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// On which connection.
    pub connection: u64,
    /// Which one it is.
    pub call: Call,
    /// What it says. A RegisterThing request holds a token.
    pub payload: Bytes,
}

/// Whether a client runs. Once it is off, it does nothing any more, whoever polls it.
#[derive(Debug, Clone)]
pub struct Power(Arc<AtomicBool>);

impl Default for Power {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Power {
    /// Ends the client, here and now.
    pub fn off(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it runs.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on only if the client runs.
    pub async fn go_on(&self) {
        if !self.is_on() {
            std::future::pending().await
        }
    }
}

impl Network {
    /// A client's way to the account, which works as long as `power` is on.
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
