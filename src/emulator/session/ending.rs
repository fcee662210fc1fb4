//! Why the server ends a connection.
//!
//! Owns the reasons and how they read in a log. Decides nothing.

use super::Malformed;

/// Why the server ends a connection. The client sees only the end, as on the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Ending {
    #[error("the client said goodbye")]
    Disconnected,
    #[error("the client is gone")]
    Gone,
    #[error("another connection took the client id")]
    TakenOver,
    #[error("the emulator stops")]
    Stopped,
    #[error("lost, by a fault of the scenario or because the state cannot be written")]
    Lost,
    #[error("no CONNECT within 10 s")]
    ConnectTimeout,
    #[error("silent for one and a half keep-alives")]
    KeepAlive,
    #[error("as old as a connection may be")]
    Lifetime,
    #[error("the client does not read what it is sent")]
    SlowConsumer,
    #[error("a WebSocket message that is not binary")]
    NotBinary,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a CONNECT above its quota, or one connection too many")]
    ConnectThrottled,
    #[error("the first packet is not CONNECT")]
    NotConnected,
    #[error("a second CONNECT")]
    ConnectedTwice,
    #[error("a client id that is too long, starts with $, or is empty without a clean session")]
    ClientId,
    #[error("{0} filters in one packet, which are too many")]
    TooManyFilters(usize),
    #[error("one subscription too many")]
    TooManySubscriptions,
    #[error("not a filter that the service takes: {0:?}")]
    Filter(String),
    #[error("not a topic that the service takes: {0:?}")]
    Topic(String),
    #[error("a PUBLISH at QoS 2")]
    QoS2,
    #[error("a payload of {0} bytes, which is too large")]
    Payload(usize),
    #[error("a PUBLISH to {0}, which only the service publishes to")]
    PublishToResponse(String),
    #[error("a SUBSCRIBE to {0}, which only clients publish to")]
    SubscribeToRequest(String),
    #[error("a PUBLISH to the reserved topic {0}, which the emulator does not have")]
    ReservedTopic(String),
}
