//! What a connection may be and hold, whatever the pace.
//!
//! Owns the scenario's `[limits]` table; its defaults are the documented numbers. Enforces nothing: [`super::super::session`]
//! does. A payload, a topic and a client id cannot be allowed more than the service allows, as the emulator's buffers are
//! made for that.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::units;

/// The largest payload of a PUBLISH: 128 KB (AWS IoT Core quotas, "message size").
pub const MAX_PAYLOAD: u32 = 128 * 1024;
/// The longest topic or filter, bytes (AWS IoT Core quotas, "topic size").
pub const MAX_TOPIC: u32 = 256;
/// The most levels of a topic or filter: seven slashes (AWS IoT Core quotas, "number of forward slashes").
pub const MAX_LEVELS: u32 = 8;

/// What a connection may be and hold. `Default` is what AWS documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at the same time. Another one meets what a CONNECT above its quota meets.
    #[serde(deserialize_with = "count::<10_000_000, _>")]
    pub connections: u32,
    /// Client id, bytes. A longer one is refused in the CONNACK, with code 2.
    #[serde(deserialize_with = "count::<65_535, _>")]
    pub client_id_bytes: u32,
    /// A keep-alive that is shorter is taken for this.
    #[serde(deserialize_with = "keep_alive")]
    pub keep_alive_least: Duration,
    /// A keep-alive that is longer, or 0, is taken for this. After one and a half of it in silence the connection is closed.
    #[serde(deserialize_with = "keep_alive")]
    pub keep_alive_most: Duration,
    /// A connection that is as old is closed.
    #[serde(deserialize_with = "units::duration")]
    pub connection_lifetime: Duration,
    /// Payload of a PUBLISH, bytes. A larger one closes the connection.
    #[serde(deserialize_with = "count::<MAX_PAYLOAD, _>")]
    pub payload_bytes: u32,
    /// Topic or filter, bytes. A longer one closes the connection.
    #[serde(deserialize_with = "count::<MAX_TOPIC, _>")]
    pub topic_bytes: u32,
    /// Levels of a topic or filter, which are one more than its slashes. More of them close the connection.
    #[serde(deserialize_with = "count::<MAX_LEVELS, _>")]
    pub topic_levels: u32,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE. More of them close the connection.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub filters_per_subscribe: u32,
    /// Subscriptions of one connection. One more closes it.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub subscriptions_per_connection: u32,
    /// Messages from a client that are not acknowledged or answered yet. No more are taken until one is.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub unacked_inbound: u32,
    /// QoS 1 messages to a client that it has not acknowledged. No more are sent until it acknowledges one.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub unacked_outbound: u32,
    /// How long the service waits for the acknowledgement of a QoS 1 message before it sends the message again. AWS does not
    /// publish it.
    #[serde(deserialize_with = "units::duration")]
    pub redeliver_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 500_000,
            client_id_bytes: 128,
            keep_alive_least: Duration::from_secs(30),
            keep_alive_most: Duration::from_secs(1200),
            connection_lifetime: Duration::from_secs(24 * 60 * 60),
            payload_bytes: MAX_PAYLOAD,
            topic_bytes: MAX_TOPIC,
            topic_levels: MAX_LEVELS,
            filters_per_subscribe: 8,
            subscriptions_per_connection: 50,
            unacked_inbound: 100,
            unacked_outbound: 100,
            redeliver_after: Duration::from_secs(10),
        }
    }
}

/// A number from 1 to `MOST`.
fn count<'de, const MOST: u32, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let found = i64::deserialize(deserializer)?;
    match u32::try_from(found) {
        Ok(count) if (1..=MOST).contains(&count) => Ok(count),
        _ => {
            let wanted = format!("a number from 1 to {MOST}");
            Err(D::Error::invalid_value(Unexpected::Signed(found), &wanted.as_str()))
        }
    }
}

fn keep_alive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match units::duration(deserializer)? {
        time if (Duration::from_millis(1)..=Duration::from_secs(65_535)).contains(&time) => Ok(time),
        other => {
            let found = format!("{other:?}");
            Err(D::Error::invalid_value(Unexpected::Str(&found), &"a duration from 1ms to 65535s"))
        }
    }
}
