//! Who may make requests to the emulator, and which.
//!
//! Owns the additional access keys, what each may do, and how a client is told of a denial. Checks no signatures.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units;

/// An access key besides the scenario's first one, such as the temporary one of an assumed role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// The access key's id.
    pub access_key_id: String,
    /// The key's secret. It need not be kept secret: it opens nothing but the emulator.
    pub secret_access_key: String,
    /// The session token that must accompany the key.
    pub session_token: Option<String>,
    /// How long after its start the emulator accepts the key; `None` for ever.
    #[serde(default, deserialize_with = "units::some_duration")]
    pub valid_for: Option<Duration>,
    /// What the key's owner may do: an IAM policy, JSON. `None` allows everything. Control plane operations are judged
    /// by action alone, whatever resource a statement names.
    pub document: Option<String>,
    /// A file to read the document from instead; [`Scenario::read`](super::Scenario::read) replaces `document` by its
    /// text.
    pub file: Option<PathBuf>,
}

/// How a client is told of a denial over MQTT. What AWS does depends on the action and the protocol version, and has
/// changed over the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Denials {
    /// Denial of a CONNECT: a CONNACK that refuses (the default), or just the end of the connection.
    pub connect: Option<DenialAnswer>,
    /// Denial of a SUBSCRIBE: a SUBACK with a failure (the default for MQTT 5), or the end of the connection (for
    /// 3.1.1).
    pub subscribe: Option<DenialAnswer>,
    /// Denial of a PUBLISH: a PUBACK with the reason (the default for QoS 1 in MQTT 5), or the end of the connection,
    /// which is the only option in all other cases.
    pub publish: Option<DenialAnswer>,
}

/// How a denial is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialAnswer {
    /// With an answer that says so. The connection goes on if the protocol allows it.
    Answer,
    /// By ending the connection.
    Close,
}
