//! Who may ask the emulator, and for what.
//!
//! Owns further access keys, what each may do, and how a client learns that it may not do something. Checks no signature.

use std::path::PathBuf;
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
    /// What its owner may do: an IAM policy, JSON. `None` allows everything. Operations of the control plane are judged by
    /// their action alone, whatever resource a statement names.
    pub document: Option<String>,
    /// Where to read the document instead; [`Scenario::read`](super::Scenario::read) puts its text in the other's place.
    pub file: Option<PathBuf>,
}

/// How a client learns that it may not do something over MQTT. Which of them AWS does depends on the action and the protocol
/// version, and has changed over the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Denials {
    /// Of a CONNECT: a CONNACK that refuses (the default), or the end of the connection alone.
    pub connect: Option<DenialAnswer>,
    /// Of a SUBSCRIBE: a SUBACK with a failure (the default for MQTT 5), or the end of the connection (for 3.1.1).
    pub subscribe: Option<DenialAnswer>,
    /// Of a PUBLISH: a PUBACK with the reason (the default for QoS 1 of MQTT 5), or the end of the connection, which is all
    /// that there is for any other.
    pub publish: Option<DenialAnswer>,
}

/// What a denied action meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialAnswer {
    /// An answer that says so; the connection goes on where the protocol lets it.
    Answer,
    /// The end of the connection.
    Close,
}
