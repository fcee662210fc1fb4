//! What goes wrong, and how often.
//!
//! Owns the list of mishaps and the odds of each. Draws nothing itself: the network rolls the dice.

use std::time::Duration;

/// What goes wrong on the way between a client and the account. `Default` is a network without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a packet is under way: at least and at most. Packets of different connections overtake each other.
    pub latency: (Duration, Duration),
    /// How long after a request a [`Mishap::Late`] reply comes at most, and a redelivery after its first delivery.
    pub latest: Duration,
    /// The odds that a dial fails, from 0 to 1.
    pub dials: f64,
    /// The odds that a connection is ended by the service within a minute, whatever it is doing.
    pub closings: f64,
    /// The odds that a connection is ended by the service as soon as it is open.
    pub stillbirths: f64,
    /// The odds that a request meets each of these. Their sum is at most 1; a request meets one at most.
    pub mishaps: Vec<(Mishap, f64)>,
    /// The odds that a reply of whatever kind comes late, as in [`Mishap::Late`].
    pub delays: f64,
    /// The odds that a reply comes again, once or more.
    pub redeliveries: f64,
    /// The odds that a reply comes before the PUBACK of its request.
    pub overtakings: f64,
    /// The odds that the control plane does not answer.
    pub unsettled: f64,
}

/// What can happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mishap {
    /// It never arrives: silence without a PUBACK.
    Lost,
    /// The service acts on it, and neither PUBACK nor reply comes back.
    Unacknowledged,
    /// PUBACK, and the service does nothing.
    UnansweredUndone,
    /// PUBACK, the service acts, and the reply is lost.
    UnansweredDone,
    /// The connection ends before the service acts.
    ClosedUndone,
    /// The service acts, and the connection ends before its reply.
    ClosedDone,
    /// Rejected with 429, whatever the quotas say.
    Throttled,
    /// Rejected with a 4xx for no reason; the service has not acted.
    Refused,
    /// Rejected with a 5xx; the service has not acted.
    BrokenUndone,
    /// Rejected with a 5xx; the service has acted.
    BrokenDone,
    /// The reply comes late, perhaps after nobody waits for it any more.
    Late,
    /// The service acts, and its reply is not what the API describes.
    Garbled,
    /// Before its own reply comes one that was meant for another connection.
    Foreign,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Mishap; 13] = [
        Mishap::Lost,
        Mishap::Unacknowledged,
        Mishap::UnansweredUndone,
        Mishap::UnansweredDone,
        Mishap::ClosedUndone,
        Mishap::ClosedDone,
        Mishap::Throttled,
        Mishap::Refused,
        Mishap::BrokenUndone,
        Mishap::BrokenDone,
        Mishap::Late,
        Mishap::Garbled,
        Mishap::Foreign,
    ];

    /// Whether the account gets to see the request.
    pub fn reaches_account(self) -> bool {
        match self {
            Mishap::Lost
            | Mishap::UnansweredUndone
            | Mishap::ClosedUndone
            | Mishap::Throttled
            | Mishap::Refused
            | Mishap::BrokenUndone => false,
            Mishap::Unacknowledged
            | Mishap::UnansweredDone
            | Mishap::ClosedDone
            | Mishap::BrokenDone
            | Mishap::Late
            | Mishap::Garbled
            | Mishap::Foreign => true,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: (Duration::from_millis(5), Duration::from_millis(50)),
            latest: Duration::from_secs(60),
            dials: 0.0,
            closings: 0.0,
            stillbirths: 0.0,
            mishaps: Vec::new(),
            delays: 0.0,
            redeliveries: 0.0,
            overtakings: 0.0,
            unsettled: 0.0,
        }
    }
}
