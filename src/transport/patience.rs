//! How long an exchange waits for its reply: what a connection asks of the engine meanwhile.

use std::time::Duration;

/// Decides how long to wait. A [`Duration`] waits for itself.
pub trait Patience: Send + Sync {
    /// What to do now, while there is no reply. Asked when the request is published, and again each time the answered wait
    /// is over.
    fn next(&self, heard: Heard) -> Wait;
}

/// What has been heard of a request that has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// For how long it has been under way.
    pub age: Duration,
    /// Whether its PUBACK came.
    pub is_acknowledged: bool,
    /// What is known of the connection.
    pub ping: Ping,
}

/// Whether a PINGREQ was sent since the request was published, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ping {
    /// None was sent.
    #[default]
    NotSent,
    /// Sent, without a PINGRESP so far.
    Sent,
    /// The PINGRESP came.
    Answered,
}

/// What to do while there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Wait until the request is this old.
    Until(Duration),
    /// Send a PINGREQ, and wait until the request is this old.
    PingUntil(Duration),
    /// The reply will not come, or is not worth waiting for.
    GiveUp,
}

impl Patience for Duration {
    fn next(&self, heard: Heard) -> Wait {
        if heard.age < *self { Wait::Until(*self) } else { Wait::GiveUp }
    }
}
