//! Limits on what a connection may be and hold, apart from rates.
//!
//! Owns the scenario's `[limits]` table, whose defaults are the documented numbers. Enforces nothing:
//! [`super::super::session`] does. Payloads, topics and client ids cannot be allowed to be larger than the service
//! allows, because the emulator's buffers are sized for that.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::units;

/// The largest payload of a PUBLISH, bytes: 128 KB (AWS IoT Core quotas, "message size").
pub const MAX_PAYLOAD: u32 = 128 * 1024;
/// The longest topic or filter, bytes (AWS IoT Core quotas, "topic size").
pub const MAX_TOPIC: u32 = 256;
/// The most levels of a topic or filter, one more than the seven slashes (AWS IoT Core quotas, "number of forward
/// slashes").
pub const MAX_LEVELS: u32 = 8;

/// Limits on what a connection may be and hold. `Default` is what AWS documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most connections at once. A further CONNECT is treated like one above its quota.
    #[serde(deserialize_with = "count::<10_000_000, _>")]
    pub connections: u32,
    /// The longest client id, bytes. A longer one is refused in the CONNACK, with code 2.
    #[serde(deserialize_with = "count::<65_535, _>")]
    pub client_id_bytes: u32,
    /// The shortest keep-alive. A shorter one is raised to this.
    #[serde(deserialize_with = "keep_alive")]
    pub keep_alive_least: Duration,
    /// The longest keep-alive. A longer one, or 0, is replaced by this. A connection is closed after a silence of one
    /// and a half times its keep-alive.
    #[serde(deserialize_with = "keep_alive")]
    pub keep_alive_most: Duration,
    /// The age at which a connection is closed.
    #[serde(deserialize_with = "units::duration")]
    pub connection_lifetime: Duration,
    /// The largest payload of a PUBLISH, bytes. A larger one closes the connection.
    #[serde(deserialize_with = "count::<MAX_PAYLOAD, _>")]
    pub payload_bytes: u32,
    /// The longest topic or filter, bytes. A longer one closes the connection.
    #[serde(deserialize_with = "count::<MAX_TOPIC, _>")]
    pub topic_bytes: u32,
    /// The most levels of a topic or filter, one more than its slashes. More levels close the connection.
    #[serde(deserialize_with = "count::<MAX_LEVELS, _>")]
    pub topic_levels: u32,
    /// The most filters in a SUBSCRIBE or UNSUBSCRIBE. More filters close the connection.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub filters_per_subscribe: u32,
    /// The most subscriptions of a connection. One more closes it.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub subscriptions_per_connection: u32,
    /// The most messages from a client that are not yet acknowledged or answered. No more are read until one is.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub unacked_inbound: u32,
    /// The most QoS 1 messages to a client that it has not acknowledged. No more are sent until it acknowledges one.
    #[serde(deserialize_with = "count::<10_000, _>")]
    pub unacked_outbound: u32,
    /// How long the service waits for the acknowledgement of a QoS 1 message before it sends the message again. AWS
    /// does not publish this.
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

/// Deserialises a number from 1 to `MOST`.
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
