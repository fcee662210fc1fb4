//! Stand-in: what the emulated account is like.

use std::time::Duration;

use crate::certificate::Secret;

/// What the emulated account is like.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Region.
    pub region: String,
    /// The one access key that may connect.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret<String>,
    /// Its session token, for temporary credentials.
    pub session_token: Option<Secret<String>>,
    /// Replies only to subscribers.
    pub require_subscription: bool,
    /// How long requests take.
    pub latency: Latency,
}

/// How long requests take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// CreateKeysAndCertificate.
    pub create_keys: Duration,
    /// RegisterThing.
    pub register_thing: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            region: String::from("us-east-1"),
            access_key_id: String::from("AKIAEMULATOR"),
            secret_access_key: Secret::new(String::from("emulator/secret")),
            session_token: None,
            require_subscription: false,
            latency: Latency::default(),
        }
    }
}
