//! Tries out a new certificate: connects with mutual TLS, as the device will, and publishes a message.

use std::time::Duration;

use bytes::Bytes;

use super::inspection::{Client, Publishable, topic_to_publish};
use super::look::there;
use crate::call::Call;
use crate::certificate::Secret;
use crate::control_plane::{AskError, ControlPlane};
use crate::endpoint::Endpoint;
use crate::failure::{Cause, Failure};
use crate::provisioning::{CallTopics, Topics};
use crate::proxy::Proxies;
use crate::transport::wss::{Authentication, Claim, KEEP_ALIVE, TlsResumption, WssConnector, WssSettings};
use crate::transport::{Connection, Connector, Heard, Patience, Wait};

/// Where and how devices connect.
#[derive(Debug, Clone)]
pub struct Door {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The region.
    pub region: String,
    /// Certificate authorities to trust besides the public ones: PEM or DER.
    pub extra_roots: Vec<u8>,
    /// The network's proxies, if it has any.
    pub proxies: Proxies,
    /// The timeout for a connection, and for a PUBACK.
    pub timeout: Duration,
}

/// A device to try out.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The name of its thing, if it has one.
    pub thing: Option<&'a str>,
    /// Its certificate's id.
    pub certificate_id: &'a str,
    /// Its certificate, PEM.
    pub certificate: &'a str,
    /// Its private key, PEM.
    pub key: &'a Secret<String>,
}

/// The result of a successful trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The client id that the device connected with.
    pub client_id: String,
    /// The topic that a message was published to and acknowledged on; `None` if no policy was found to allow
    /// publishing.
    pub topic: Option<String>,
}

/// Connects as the device, and publishes if its policies allow it.
///
/// # Errors
/// The control plane's error, if it did not answer; or, as the inner error, a readable reason why the connection or the
/// message failed.
pub async fn connect(
    door: &Door,
    control_plane: &ControlPlane,
    trial: &Trial<'_>,
) -> Result<Result<Connected, String>, AskError> {
    let Publishable { client_id, topic } = publishable(control_plane, trial).await?;
    let outcome = open(door, trial, &client_id, topic.as_deref()).await;
    Ok(outcome.map(|()| Connected { client_id, topic }))
}

async fn publishable(control_plane: &ControlPlane, trial: &Trial<'_>) -> Result<Publishable, AskError> {
    let mut documents = Vec::new();
    if let Some(described) = there(control_plane.certificate(trial.certificate_id).await)? {
        for name in control_plane.attached_policies(&described.arn).await? {
            documents.extend(there(control_plane.policy(&name).await)?);
        }
    }
    let thing = match trial.thing {
        Some(name) => there(control_plane.thing(name).await)?,
        None => None,
    };
    let attributes = thing.as_ref().map(|thing| thing.attributes.clone()).unwrap_or_default();
    let type_name = thing.as_ref().and_then(|thing| thing.type_name.as_deref());
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let client = Client { thing: trial.thing, type_name, attributes: &attributes };
    Ok(topic_to_publish(&documents, client))
}

async fn open(door: &Door, trial: &Trial<'_>, client_id: &str, topic: Option<&str>) -> Result<(), String> {
    let claim = Claim::from_pem(trial.certificate.as_bytes(), trial.key.expose().as_bytes())
        .map_err(|error| error.to_string())?;
    let none = || CallTopics { request: String::new(), accepted: String::new(), rejected: String::new() };
    let publish = CallTopics { request: topic.unwrap_or_default().to_owned(), ..none() };
    let settings = WssSettings {
        endpoint: door.endpoint.clone(),
        region: door.region.clone(),
        // No subscription: a device's policy need not allow one.
        topics: Topics { publish, ..Topics::of("unused", &[]) },
        client_id_prefix: String::from("fleetmint"),
        authentication: Authentication::Claim(claim),
        extra_roots: door.extra_roots.clone(),
        proxies: door.proxies.clone(),
        connect_timeout: door.timeout,
        keep_alive: KEEP_ALIVE,
        tls_resumption: TlsResumption::Off,
    };
    let connector = WssConnector::new(settings).map_err(|error| error.to_string())?.with_client_id(client_id);
    let connection = connector.dial().await.outcome.map_err(|failure| failure.to_string())?;
    if topic.is_none() {
        connection.close().await;
        return Ok(());
    }
    let message = Bytes::from_static(br#"{"from": "fleetmint verify"}"#);
    let patience = UntilAcknowledged { within: door.timeout };
    match connection.exchange(Call::Publish, message, patience).await {
        Ok((_, connection)) => {
            connection.close().await;
            Ok(())
        }
        // The message was acknowledged, and nobody replies to it: that is all there is to wait for.
        Err(lost) if matches!(lost.failure, Failure { cause: Cause::NoReply { .. }, .. }) => Ok(()),
        Err(lost) => Err(format!("publishing to {}: {}", topic.unwrap_or_default(), lost.failure)),
    }
}

/// Waits for the PUBACK only.
struct UntilAcknowledged {
    within: Duration,
}

impl Patience for UntilAcknowledged {
    fn next(&self, heard: Heard) -> Wait {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        if heard.is_acknowledged || heard.age >= self.within {
            return Wait::GiveUp;
        }
        Wait::Until((heard.age + LOOK_AGAIN).min(self.within))
    }
}
