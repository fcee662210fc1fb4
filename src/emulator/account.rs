//! Stand-in: the pure account model.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use super::mint::Minted;
use super::scenario::Scenario;
pub use crate::transport::Verdict;

/// What a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// CreateKeysAndCertificate.
    CreateKeys,
    /// CreateCertificateFromCsr.
    CreateFromCsr,
    /// RegisterThing.
    Register {
        /// Its template.
        template: &'a str,
    },
    /// Where answers come.
    ResponseTopic,
    /// Another reserved topic.
    Reserved,
    /// A plain topic.
    Other,
}

/// What a topic is.
pub fn route(topic: &str) -> Route<'_> {
    let Some(rest) = topic.strip_prefix("$aws/") else { return Route::Other };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts[..] {
        ["certificates", "create", "json"] => Route::CreateKeys,
        ["certificates", "create-from-csr", "json"] => Route::CreateFromCsr,
        ["provisioning-templates", template, "provision", "json"] => Route::Register { template },
        ["certificates", "create" | "create-from-csr", "json", "accepted" | "rejected"] => {
            Route::ResponseTopic
        }
        ["provisioning-templates", _, "provision", "json", "accepted" | "rejected"] => Route::ResponseTopic,
        _ => Route::Reserved,
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which topic it goes to.
    pub verdict: Verdict,
    /// Its payload.
    pub payload: Bytes,
}

/// The account.
#[derive(Debug)]
pub struct Account {
    tokens: Vec<String>,
    things: Vec<String>,
}

impl Account {
    /// An empty account.
    pub fn new(_: &Scenario) -> Result<Self, std::io::Error> {
        Ok(Self { tokens: Vec::new(), things: Vec::new() })
    }

    /// Throttles.
    pub fn admit(&mut self, _: SystemTime, _: &Route<'_>) -> Result<(), Answer> {
        Ok(())
    }

    /// CreateKeysAndCertificate.
    pub fn create_keys(&mut self, _: SystemTime, _: &[u8], minted: Minted) -> Answer {
        self.tokens.push(minted.certificate_id.clone());
        accepted(json!({
            "certificateId": minted.certificate_id,
            "certificatePem": minted.certificate_pem,
            "privateKey": minted.private_key_pem,
            "certificateOwnershipToken": minted.certificate_id,
        }))
    }

    /// RegisterThing.
    pub fn register(&mut self, _: SystemTime, template: &str, payload: &[u8]) -> Answer {
        let request: Value = serde_json::from_slice(payload).unwrap_or_default();
        let token = request["certificateOwnershipToken"].as_str().unwrap_or_default().to_owned();
        if template != "TEMP_DEVICE" || !self.tokens.contains(&token) {
            let payload = json!({"statusCode": 400, "errorCode": "InvalidRequest", "errorMessage": "no"});
            return Answer { verdict: Verdict::Rejected, payload: payload.to_string().into() };
        }
        self.tokens.retain(|known| *known != token);
        let parameters = request.get("parameters").or(request.get("Parameters")).cloned().unwrap_or_default();
        let thing = parameters["DeviceId"].as_str().unwrap_or("nameless").to_owned();
        self.things.push(thing.clone());
        accepted(json!({"deviceConfiguration": {}, "thingName": thing}))
    }

    /// Forgets what lapsed.
    pub fn expire(&mut self, _: SystemTime) {}

    /// Names of the things.
    pub fn things(&self) -> &[String] {
        &self.things
    }
}

fn accepted(payload: Value) -> Answer {
    Answer { verdict: Verdict::Accepted, payload: payload.to_string().into() }
}
