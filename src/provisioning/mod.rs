//! The fleet provisioning MQTT API: topics, requests, reply parsing.
//!
//! Owns what stands on the wire of AWS's API, in JSON. Does no IO. Source: AWS IoT Developer Guide, "Device provisioning MQTT API".

mod object;

use bytes::Bytes;

use self::object::{Field, Fields};
use crate::call::Call;
use crate::certificate::{
    CertificateId, Evidence, IssuedCertificate, RegisteredThing, Secret, SigningRequest,
};
use crate::failure::Cause;
use crate::service::{MAX_PAYLOAD, MAX_TEMPLATE_NAME};
use crate::wording::{Excerpt, clean};

/// How a message of [`Call::Publish`] is delivered. Requests of the API always go at QoS 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// QoS 0: at most once, without a PUBACK.
    AtMostOnce,
    /// QoS 1: at least once.
    #[default]
    AtLeastOnce,
}

/// The topics of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTopics {
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
    /// The calls that the run uses. Only their answers are subscribed to: a policy need not allow what is not used.
    pub calls: Vec<Call>,
    /// `$aws/certificates/create/json` and its answers.
    pub create: CallTopics,
    /// `$aws/certificates/create-from-csr/json` and its answers.
    pub create_from_csr: CallTopics,
    /// `$aws/provisioning-templates/<template>/provision/json` and its answers.
    pub register: CallTopics,
    /// The topic of [`Call::Publish`]; nothing is rejected on it. Its first part only, until [`Topics::of_client`].
    pub publish: CallTopics,
    /// How messages of [`Call::Publish`] are delivered.
    pub delivery: Delivery,
}

impl Topics {
    /// The topics for provisioning with `template` and keys that the service makes.
    pub fn new(template: &str) -> Self {
        Self::of(template, &[Call::CreateKeysAndCertificate, Call::RegisterThing])
    }

    /// The topics for provisioning with `template`, as far as `calls` are used.
    pub fn of(template: &str, calls: &[Call]) -> Self {
        let call = |request: String| CallTopics {
            accepted: format!("{request}/accepted"),
            rejected: format!("{request}/rejected"),
            request,
        };
        Self {
            calls: calls.to_vec(),
            create: call(String::from("$aws/certificates/create/json")),
            create_from_csr: call(String::from("$aws/certificates/create-from-csr/json")),
            register: call(format!("$aws/provisioning-templates/{template}/provision/json")),
            publish: CallTopics { request: String::new(), accepted: String::new(), rejected: String::new() },
            delivery: Delivery::default(),
        }
    }

    /// The topics for messages that come back to their sender, each connection's below `prefix`.
    pub fn of_messages(prefix: &str, delivery: Delivery) -> Self {
        let publish =
            CallTopics { request: prefix.to_owned(), accepted: prefix.to_owned(), rejected: String::new() };
        Self { publish, delivery, ..Self::of("unused", &[Call::Publish]) }
    }

    /// The same with the topic that is this client's own, if it has one.
    pub fn of_client(&self, client_id: &str) -> Option<Self> {
        self.calls.contains(&Call::Publish).then(|| {
            let topic = format!("{}/{client_id}", self.publish.request);
            let publish = CallTopics { request: topic.clone(), accepted: topic, rejected: String::new() };
            Self { publish, ..self.clone() }
        })
    }

    /// The topics of `call`.
    pub fn call(&self, call: Call) -> &CallTopics {
        match call {
            Call::CreateKeysAndCertificate => &self.create,
            Call::CreateCertificateFromCsr => &self.create_from_csr,
            Call::RegisterThing => &self.register,
            Call::Publish => &self.publish,
        }
    }
}

/// Text that cannot be the name of a provisioning template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the template name is \"{found}\"; wanted 1 to {MAX_TEMPLATE_NAME} of the characters 0-9 A-Z a-z _ -"
)]
pub struct NotATemplateName {
    /// The text, shortened.
    found: String,
}

/// Checks a template's name before it becomes part of a topic: 1 to 36 characters, `^[0-9A-Za-z_-]+$`.
///
/// # Errors
/// [`NotATemplateName`] if it is anything else.
pub fn check_template_name(name: &str) -> Result<(), NotATemplateName> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=MAX_TEMPLATE_NAME).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(NotATemplateName { found: Excerpt(name).to_string() })
}

/// A request that is ready to be sent, and how its answer is read. Not to be printed: its payload may hold a token.
pub struct Request<T> {
    /// Which.
    pub call: Call,
    /// What it says.
    pub payload: Bytes,
    /// Reads an accepted reply.
    pub parse: fn(&[u8]) -> Result<T, Cause>,
}

/// CreateKeysAndCertificate.
pub fn create_request() -> Request<IssuedCertificate<Secret<String>>> {
    let payload = Bytes::from_static(b"{}");
    Request { call: Call::CreateKeysAndCertificate, payload, parse: parse_issued }
}

/// CreateCertificateFromCsr.
pub fn csr_request(request: &SigningRequest) -> Request<IssuedCertificate<()>> {
    let mut out = Vec::with_capacity(request.pem.len() + 64);
    out.extend_from_slice(b"{\"certificateSigningRequest\":");
    push_json(&mut out, &request.pem);
    out.push(b'}');
    Request { call: Call::CreateCertificateFromCsr, payload: Bytes::from(out), parse: parse_certified }
}

/// RegisterThing, with `parameters` in lower case as AWS documents it.
pub fn register_request<'a>(
    token: &Secret<String>,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Request<RegisteredThing> {
    let mut out = Vec::with_capacity(token.expose().len() + 512);
    out.extend_from_slice(b"{\"certificateOwnershipToken\":");
    push_json(&mut out, token.expose());
    out.extend_from_slice(b",\"parameters\":{");
    for (index, (name, value)) in parameters.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_json(&mut out, name);
        out.push(b':');
        push_json(&mut out, value);
    }
    out.extend_from_slice(b"}}");
    Request { call: Call::RegisterThing, payload: Bytes::from(out), parse: parse_registered }
}

/// A message, to come back as it was sent.
pub fn publish_request(message: Bytes) -> Request<Vec<u8>> {
    Request { call: Call::Publish, payload: message, parse: |payload| Ok(payload.to_vec()) }
}

/// Parses CreateKeysAndCertificate's accepted reply, and holds key, certificate and id against each other:
/// [`Cause::Garbled`] if it is not one, or they do not belong together.
///
/// # Errors
/// [`Cause::Garbled`], which names the field that is wrong and never its content.
pub fn parse_issued(payload: &[u8]) -> Result<IssuedCertificate<Secret<String>>, Cause> {
    let names = ["certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"];
    let mut reply = read(payload, names, "accepted")?;
    let (certificate_id, certificate_pem, evidence) = reply.take_certificate()?;
    let private_key = Secret::new(reply.take_text("privateKey")?);
    evidence.check_key(&private_key).map_err(|flaw| reply.wrong("privateKey", &flaw.to_string()))?;
    let ownership_token = Secret::new(reply.take_text("certificateOwnershipToken")?);
    Ok(IssuedCertificate { certificate_id, certificate_pem, private_key, ownership_token })
}

/// Parses CreateCertificateFromCsr's accepted reply; [`Cause::Garbled`] if it is not one, as when it has a private key.
///
/// # Errors
/// [`Cause::Garbled`], which names the field that is wrong and never its content.
pub fn parse_certified(payload: &[u8]) -> Result<IssuedCertificate<()>, Cause> {
    let names = ["certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"];
    let mut reply = read(payload, names, "accepted")?;
    if reply.take("privateKey").is_some() {
        return Err(reply.wrong("privateKey", "is there, and the request was one without"));
    }
    let (certificate_id, certificate_pem, _) = reply.take_certificate()?;
    let ownership_token = Secret::new(reply.take_text("certificateOwnershipToken")?);
    Ok(IssuedCertificate { certificate_id, certificate_pem, private_key: (), ownership_token })
}

/// Parses RegisterThing's accepted reply; [`Cause::Garbled`] if it is not one.
///
/// Both fields may be missing or null: the API's models mark them as optional, and a template without a thing names none.
///
/// # Errors
/// [`Cause::Garbled`], which names the field that is wrong and never its content.
pub fn parse_registered(payload: &[u8]) -> Result<RegisteredThing, Cause> {
    let mut reply = read(payload, ["thingName", "deviceConfiguration"], "accepted")?;
    let thing_name = match reply.take("thingName") {
        None | Some(Field::Null) => String::new(),
        Some(Field::Text(mut text)) => std::mem::take(&mut *text),
        Some(other) => return Err(reply.mistyped("thingName", &other, "a string")),
    };
    if thing_name.chars().any(char::is_control) {
        return Err(reply.wrong("thingName", "has control characters"));
    }
    let device_configuration = match reply.take("deviceConfiguration") {
        None | Some(Field::Null) => Default::default(),
        Some(Field::Object(values)) => values,
        Some(Field::ObjectWithTwins) => {
            return Err(reply.wrong("deviceConfiguration", "has a key twice"));
        }
        Some(other) => return Err(reply.mistyped("deviceConfiguration", &other, "an object")),
    };
    Ok(RegisteredThing { thing_name, device_configuration })
}

/// Parses a rejected reply: [`Cause::Rejected`], or [`Cause::Garbled`] if it is not one.
///
/// Only `statusCode` is required, and it is the only one to act on; the texts are for people, cleaned and shortened.
pub fn parse_rejected(payload: &[u8]) -> Cause {
    rejection(payload).unwrap_or_else(|garbled| garbled)
}

fn rejection(payload: &[u8]) -> Result<Cause, Cause> {
    let mut reply = read(payload, ["statusCode", "errorCode", "errorMessage"], "rejected")?;
    let status_code = match reply.take("statusCode") {
        Some(Field::Integer(code)) => u16::try_from(code).ok().filter(|code| (100..=599).contains(code)),
        Some(other) => return Err(reply.mistyped("statusCode", &other, "an integer")),
        None => return Err(reply.wrong("statusCode", "is missing")),
    };
    let status_code = status_code.ok_or_else(|| reply.wrong("statusCode", "is not between 100 and 599"))?;
    let error_code = reply.take_words("errorCode")?;
    let error_message = reply.take_words("errorMessage")?;
    Ok(Cause::Rejected { status_code, error_code, error_message })
}

/// A reply, opened: its known fields, and how to speak of what is wrong with them.
struct Reply<const N: usize> {
    fields: Fields<N>,
    verdict: &'static str,
}

fn read<const N: usize>(
    payload: &[u8],
    names: [&'static str; N],
    verdict: &'static str,
) -> Result<Reply<N>, Cause> {
    let garbled = |detail: String| Cause::Garbled { detail: format!("{verdict} reply: {detail}") };
    if payload.len() > MAX_PAYLOAD {
        return Err(garbled(format!("{} bytes, more than the service's {MAX_PAYLOAD}", payload.len())));
    }
    Fields::read(payload, names).map(|fields| Reply { fields, verdict }).map_err(garbled)
}

impl<const N: usize> Reply<N> {
    fn wrong(&self, name: &str, what: &str) -> Cause {
        Cause::Garbled { detail: format!("{} reply: {name} {what}", self.verdict) }
    }

    fn mistyped(&self, name: &str, found: &Field, wanted: &str) -> Cause {
        self.wrong(name, &format!("is {}, not {wanted}", found.kind()))
    }

    fn take(&mut self, name: &str) -> Option<Field> {
        self.fields.take(name)
    }

    /// A certificate whose id is its own.
    fn take_certificate(&mut self) -> Result<(CertificateId, String, Evidence), Cause> {
        let id = CertificateId::try_from(self.take_text("certificateId")?)
            .map_err(|_| self.wrong("certificateId", "is not 64 hexadecimal digits"))?;
        let pem = self.take_text("certificatePem")?;
        let evidence = Evidence::of(&pem).map_err(|flaw| self.wrong("certificatePem", &flaw.to_string()))?;
        if evidence.has_id(&id) {
            Ok((id, pem, evidence))
        } else {
            Err(self.wrong("certificateId", "is not the SHA-256 of the certificate"))
        }
    }

    /// A text that has to be there and to say something.
    fn take_text(&mut self, name: &str) -> Result<String, Cause> {
        match self.take(name) {
            Some(Field::Text(mut text)) if !text.is_empty() => Ok(std::mem::take(&mut *text)),
            Some(Field::Text(_)) => Err(self.wrong(name, "is empty")),
            Some(other) => Err(self.mistyped(name, &other, "a string")),
            None => Err(self.wrong(name, "is missing")),
        }
    }

    /// A text for people, which need not be there.
    fn take_words(&mut self, name: &str) -> Result<String, Cause> {
        match self.take(name) {
            None | Some(Field::Null) => Ok(String::new()),
            Some(Field::Text(text)) => Ok(clean(&text)),
            Some(other) => Err(self.mistyped(name, &other, "a string")),
        }
    }
}

fn push_json(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written to memory as JSON");
}

#[cfg(test)]
mod tests;
