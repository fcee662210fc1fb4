//! Why the server ends a connection.
//!
//! Owns the reasons and their log messages. Decides nothing.

use super::super::account::Action;
use super::super::mqtt::{Malformed, Reason};

/// Why the server ends a connection. As on the service, the client sees only that it ends.
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
    #[error("a subscription identifier, which the service does not have")]
    SubscriptionId,
    #[error("topic alias {0}, which is out of range or stands for nothing")]
    Alias(u16),
    #[error("not permitted: {0:?} {1:?}")]
    Denied(Action, String),
    #[error("its certificate is not active any more")]
    Deactivated,
    #[error("a fault of the scenario: a reset")]
    Reset,
    #[error("a payload of {0} bytes, which is too large")]
    Payload(usize),
    #[error("a PUBLISH to {0}, which only the service publishes to")]
    PublishToResponse(String),
    #[error("a SUBSCRIBE to {0}, which only clients publish to")]
    SubscribeToRequest(String),
    #[error("a PUBLISH to the reserved topic {0}, which the emulator does not have")]
    ReservedTopic(String),
}

impl Ending {
    /// The reason that an MQTT 5 client is told in a DISCONNECT; `None` if the client ended the connection, or it just
    /// ends.
    pub(in super::super) fn reason(&self) -> Option<Reason> {
        Some(match self {
            Ending::Disconnected | Ending::Gone | Ending::Lost | Ending::Reset => return None,
            Ending::ConnectTimeout | Ending::ConnectThrottled => return None,
            Ending::TakenOver => Reason::SESSION_TAKEN_OVER,
            Ending::Stopped => Reason::SERVER_SHUTTING_DOWN,
            Ending::KeepAlive => Reason::KEEP_ALIVE_TIMEOUT,
            Ending::Lifetime => Reason::MAXIMUM_CONNECT_TIME,
            Ending::SlowConsumer | Ending::TooManySubscriptions | Ending::TooManyFilters(_) => {
                Reason::QUOTA_EXCEEDED
            }
            Ending::Malformed(Malformed::TooLarge(_)) | Ending::Payload(_) => Reason::PACKET_TOO_LARGE,
            Ending::Malformed(_) | Ending::NotBinary => Reason::MALFORMED_PACKET,
            Ending::NotConnected | Ending::ConnectedTwice => Reason::PROTOCOL_ERROR,
            Ending::ClientId => Reason::CLIENT_ID_NOT_VALID,
            Ending::Filter(_) | Ending::SubscribeToRequest(_) => Reason::TOPIC_FILTER_INVALID,
            Ending::Topic(_) | Ending::PublishToResponse(_) | Ending::ReservedTopic(_) => {
                Reason::TOPIC_NAME_INVALID
            }
            Ending::SubscriptionId => Reason::SUBSCRIPTION_IDS_NOT_SUPPORTED,
            Ending::Alias(_) => Reason::TOPIC_ALIAS_INVALID,
            Ending::Denied(..) => Reason::NOT_AUTHORIZED,
            Ending::Deactivated => Reason::ADMINISTRATIVE_ACTION,
        })
    }
}
