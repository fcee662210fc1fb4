//! Who may ask the emulator, and for what.
//!
//! Owns further access keys and what is denied to all of them. Checks no signature.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// An access key besides the scenario's first one, such as the temporary one of an assumed role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Names the key.
    pub access_key_id: String,
    /// Its secret. No secret: it opens nothing but the emulator.
    pub secret_access_key: String,
    /// The session token that must come with it.
    pub session_token: Option<String>,
    /// How long after its start the emulator takes it; without, for ever.
    #[serde(default, deserialize_with = "units::some_duration")]
    pub valid_for: Option<Duration>,
}
