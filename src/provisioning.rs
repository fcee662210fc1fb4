//! The fleet provisioning MQTT API: topics, requests, reply parsing.
//!
//! Owns what stands on the wire of AWS's API, in JSON. Does no IO. Source: AWS IoT Developer Guide, "Device provisioning MQTT API".

use bytes::Bytes;

use crate::certificate::{IssuedCertificate, RegisteredThing, Secret};
use crate::failure::Cause;

/// The largest payload that the service takes or sends: 128 KB.
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// Which of the two exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// CreateKeysAndCertificate.
    Create,
    /// RegisterThing.
    Register,
}

/// The topics of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneTopics {
    /// Publish the request here.
    pub request: String,
    /// Success comes back here.
    pub accepted: String,
    /// Failure comes back here.
    pub rejected: String,
}

/// All topics of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// `$aws/certificates/create/json` and its answers.
    pub create: LaneTopics,
    /// `$aws/provisioning-templates/<template>/provision/json` and its answers.
    pub register: LaneTopics,
}

impl Topics {
    /// The topics for provisioning with `template`.
    pub fn new(template: &str) -> Self {
        let lane = |request: String| LaneTopics {
            accepted: format!("{request}/accepted"),
            rejected: format!("{request}/rejected"),
            request,
        };
        Self {
            create: lane(String::from("$aws/certificates/create/json")),
            register: lane(format!("$aws/provisioning-templates/{template}/provision/json")),
        }
    }

    /// The topics of `lane`.
    pub fn lane(&self, lane: Lane) -> &LaneTopics {
        match lane {
            Lane::Create => &self.create,
            Lane::Register => &self.register,
        }
    }
}

/// The CreateKeysAndCertificate request.
pub fn create_request() -> Bytes {
    Bytes::from_static(b"{}")
}

/// The RegisterThing request, with `parameters` in lower case as AWS documents it.
pub fn register_request<'a>(
    _token: &Secret<String>,
    _parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Bytes {
    unimplemented!()
}

/// Parses CreateKeysAndCertificate's accepted reply; [`Cause::Garbled`] if it is not one.
pub fn parse_issued(_payload: &[u8]) -> Result<IssuedCertificate, Cause> {
    unimplemented!()
}

/// Parses RegisterThing's accepted reply; [`Cause::Garbled`] if it is not one.
pub fn parse_registered(_payload: &[u8]) -> Result<RegisteredThing, Cause> {
    unimplemented!()
}

/// Parses a rejected reply: [`Cause::Rejected`], or [`Cause::Garbled`] if it is not one.
pub fn parse_rejected(_payload: &[u8]) -> Cause {
    unimplemented!()
}
