//! What goes wrong on the way, and how often.
//!
//! Owns the odds of what befalls packets and connections; what befalls requests is the scenario's. Draws nothing itself: the
//! network does.

use std::time::Duration;

use super::super::scenario;
use super::Weather;

/// What goes wrong on the way between a client and the account. `Default` is a network without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a packet is under way: at least and at most. Packets of different connections overtake each other.
    pub latency: (Duration, Duration),
    /// How long after a request a late reply comes at most, and a redelivery after its first delivery.
    pub latest: Duration,
    /// The odds that a dial fails, from 0 to 1.
    pub dials: f64,
    /// The odds that a connection is ended by the service within a minute, whatever it is doing.
    pub closings: f64,
    /// The odds that a connection is ended by the service as soon as it is open.
    pub stillbirths: f64,
    /// What befalls requests, by the same rules as on the server.
    pub requests: scenario::Faults,
    /// The odds that a reply of whatever kind comes late.
    pub delays: f64,
    /// The odds that a reply comes again, once or more.
    pub redeliveries: f64,
    /// The odds that a reply comes before the PUBACK of its request.
    pub overtakings: f64,
    /// The odds that the control plane does not answer.
    pub unsettled: f64,
    /// What goes wrong for everybody.
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
