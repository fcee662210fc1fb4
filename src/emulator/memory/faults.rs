//! What goes wrong on the network, and how often.
//!
//! Owns the odds of what happens to packets and connections; the faults of requests are the scenario's. Draws nothing
//! itself: the network does.

use std::time::Duration;

use super::super::scenario;
use super::Weather;

/// What goes wrong between a client and the account. `Default` is a network without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// The shortest and the longest time that a packet is under way. Packets of different connections may overtake one
    /// another.
    pub latency: (Duration, Duration),
    /// The longest time from a request to its late reply, and from a reply's first delivery to its redelivery.
    pub latest: Duration,
    /// The odds that a dial fails, from 0 to 1.
    pub dials: f64,
    /// The odds that the service ends a connection within a minute, whatever it is doing.
    pub closings: f64,
    /// The odds that the service ends a connection as soon as it is open.
    pub stillbirths: f64,
    /// The faults of requests, by the same rules as on the server.
    pub requests: scenario::Faults,
    /// The odds that a reply, of any kind, comes late.
    pub delays: f64,
    /// The odds that a reply is delivered again, once or more.
    pub redeliveries: f64,
    /// The odds that a reply comes before its request's PUBACK.
    pub overtakings: f64,
    /// The odds that the control plane does not answer.
    pub unsettled: f64,
    /// What goes wrong for all clients at once.
    pub weather: Weather,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: (Duration::from_millis(5), Duration::from_millis(50)),
            latest: Duration::from_secs(60),
            dials: 0.0,
            closings: 0.0,
            stillbirths: 0.0,
            requests: scenario::Faults::default(),
            delays: 0.0,
            redeliveries: 0.0,
            overtakings: 0.0,
            unsettled: 0.0,
            weather: Weather::default(),
        }
    }
}
