//! How long an exchange waits for its reply: a connection asks the engine.

use std::time::Duration;

/// Decides how long to wait for a reply. A [`Duration`] waits for that long.
pub trait Patience: Send + Sync {
    /// What to do while there is no reply. Called when the request is published, and again whenever the returned wait
    /// is over.
    fn next(&self, heard: Heard) -> Wait;
}

/// What was heard of a request that has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// How long it has been under way.
    pub age: Duration,
    /// Whether its PUBACK came.
    pub is_acknowledged: bool,
    /// Whether the connection has answered a PINGREQ.
    pub ping: Ping,
}

/// Whether a PINGREQ was sent since the request was published, and whether it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ping {
    /// No PINGREQ was sent.
    #[default]
    NotSent,
    /// A PINGREQ was sent; no PINGRESP has come yet.
    Sent,
    /// The PINGRESP came.
    Answered,
}

/// What to do while there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Wait until the request has this age.
    Until(Duration),
    /// Send a PINGREQ, and wait until the request has this age.
    PingUntil(Duration),
    /// Give up: the reply will not come, or is not worth waiting for.
    GiveUp,
}

impl Patience for Duration {
    fn next(&self, heard: Heard) -> Wait {
        if heard.age < *self { Wait::Until(*self) } else { Wait::GiveUp }
    }
}
