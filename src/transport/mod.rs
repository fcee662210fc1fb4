//! Connections to the service, as the engine sees them.
//!
//! Owns the two traits by which the engine knows a connection, and the rule for which packet answers which request
//! ([`Inbox`]). [`wss`] implements the traits over TLS, the emulator's simulated network in memory.

#[cfg(all(any(test, fuzzing), feature = "emulator"))]
pub(crate) mod fuzzing;
mod inbox;
mod link;
mod packet;
mod patience;
mod raw;
mod session;
mod upgrade;
pub mod wss;

pub use self::inbox::{Arrival, Delivery, GRACE, Inbox};
pub use self::patience::{Heard, Patience, Ping, Wait};
pub use self::raw::{RawConnection, RawEvent, Signing};

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::call::Call;
use crate::event::DialPhases;
use crate::failure::Failure;

/// Opens connections that are ready for exchanges: all response topics are granted.
pub trait Connector: Send + Sync + 'static {
    /// The type of connection that it opens.
    type Connection: Connection;

    /// Dials once: a fresh signature, a fresh client id, every phase timed and bounded. Never retries.
    fn dial(&self) -> impl Future<Output = Dial<Self::Connection>> + Send;
}

/// All users of one connector share its state, such as TLS sessions.
impl<C: Connector> Connector for Arc<C> {
    type Connection = C::Connection;

    fn dial(&self) -> impl Future<Output = Dial<Self::Connection>> + Send {
        (**self).dial()
    }
}

/// The result of a dial.
#[derive(Debug)]
pub struct Dial<C> {
    /// How long each completed phase took.
    pub phases: DialPhases,
    /// The connection, or which phase failed and why.
    pub outcome: Result<C, Failure>,
}

/// One connection, carrying at most one exchange at a time.
pub trait Connection: Send + Sized + 'static {
    /// Publishes `payload` on the request topic of `call` at QoS 1 and waits for the reply.
    ///
    /// Taken by value: a connection that lost a reply no longer exists, so a late reply cannot be credited to another
    /// device. The exchange ends with its reply, whether its PUBACK came before, after or never, or when `patience`
    /// gives up. Dropping the future drops the connection.
    fn exchange(
        self,
        call: Call,
        payload: Bytes,
        patience: impl Patience,
    ) -> impl Future<Output = Result<(Reply, Self), Lost>> + Send;

    /// Its client id, which identifies it in the service's logs; empty if it has none.
    fn client_id(&self) -> &str {
        ""
    }

    /// Keeps the connection alive while there is nothing to send: answers pings, acknowledges and ignores redelivered
    /// replies. Returns the reason once the connection ends. Cancel safe.
    fn idle(&mut self) -> impl Future<Output = Failure> + Send;

    /// Closes the connection politely: DISCONNECT, WebSocket close, TLS close. Bounded in time; errors are ignored.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which response topic it came on.
    pub verdict: Verdict,
    /// The message, as it was received.
    pub payload: Bytes,
    /// The time from the publish to the reply.
    pub service: Duration,
    /// How many replies of earlier exchanges were redelivered meanwhile, and ignored.
    pub redelivered: u32,
}

impl fmt::Debug for Reply {
    /// Without the payload: it may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("verdict", &self.verdict)
            .field("payload_length", &self.payload.len())
            .field("service", &self.service)
            .field("redelivered", &self.redelivered)
            .finish()
    }
}

/// The response topic that a reply came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `accepted`.
    Accepted,
    /// `rejected`.
    Rejected,
}

/// An exchange whose reply will not come; its connection has ended too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The reason.
    pub failure: Failure,
    /// The time from the publish to giving up.
    pub service: Duration,
    /// How many replies of earlier exchanges were redelivered meanwhile, and ignored.
    pub redelivered: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_does_not_show_its_payload() {
        let payload = Bytes::from_static(b"hunter2");
        let reply = Reply { verdict: Verdict::Accepted, payload, service: Duration::ZERO, redelivered: 0 };
        let shown = format!("{reply:?}");
        assert!(!shown.contains("hunter2") && shown.contains("payload_length: 7"), "{shown}");
    }
}
