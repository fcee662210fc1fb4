//! What can go wrong, where, and what to do about it.
//!
//! Owns the vocabulary of failures; [`remedy`] and [`redial`] are the only retry policy. Does not sleep, retry or
//! count: the engine acts on what they return.

mod remedy;

use std::fmt;
use std::time::Duration;

use crate::call::Call;
use crate::wording;

pub use remedy::{Remedy, RetryPolicy, Standing, Tried, redial, remedy};

/// The step of a device's provisioning at which something happened, in order.
///
/// Results files store its [`name`](Self::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Getting credentials and signing the URL.
    Sign,
    /// Looking up the endpoint's address.
    Resolve,
    /// TCP connection.
    Tcp,
    /// TLS handshake.
    Tls,
    /// HTTP upgrade to WebSocket, where the service checks the signature.
    Upgrade,
    /// MQTT CONNECT to CONNACK.
    Connack,
    /// SUBSCRIBE to SUBACK on the response topics.
    Suback,
    /// Between exchanges, on a waiting connection.
    Idle,
    /// Waiting for the answer to a request.
    #[serde(untagged)]
    Call(Call),
}

impl Stage {
    /// The stage's name for reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Sign => "sign",
            Stage::Resolve => "resolve",
            Stage::Tcp => "tcp",
            Stage::Tls => "tls",
            Stage::Upgrade => "upgrade",
            Stage::Connack => "connack",
            Stage::Suback => "suback",
            Stage::Idle => "idle",
            Stage::Call(call) => call.name(),
        }
    }

    /// Whether the stage belongs to opening a connection.
    pub fn is_dialling(self) -> bool {
        self <= Stage::Suback
    }

    /// The call whose answer was waited for; `None` at every other stage.
    pub fn call(self) -> Option<Call> {
        match self {
            Stage::Call(call) => Some(call),
            _ => None,
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Stage::Call(call) => call.spelled(),
            Stage::Sign => "signing the WebSocket URL",
            Stage::Resolve => "looking up the endpoint",
            Stage::Tcp => "opening the TCP connection",
            Stage::Tls => "the TLS handshake",
            Stage::Upgrade => "the WebSocket upgrade",
            Stage::Connack => "MQTT CONNECT",
            Stage::Suback => "SUBSCRIBE to the response topics",
            Stage::Idle => "keeping the connection",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why it went wrong. Its texts come from the peer or the operating system; none ever holds a key.
///
/// Results files store it with all its fields.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No usable credentials.
    Credentials {
        /// What is missing or wrong.
        detail: String,
    },
    /// The endpoint's name has no address.
    Unresolvable {
        /// What the resolver said.
        detail: String,
    },
    /// The connection could not be opened.
    Unreachable {
        /// What the operating system said.
        detail: String,
    },
    /// TLS failed: an untrusted or wrong certificate, or no common parameters.
    Tls {
        /// What the TLS library said.
        detail: String,
    },
    /// The upgrade was answered with a status other than 101.
    UpgradeRefused {
        /// HTTP status.
        status: u16,
        /// The service's words: error type and message, shortened and cleaned.
        message: String,
        /// Our clock minus the server's `date` header, in seconds; `None` without that header.
        skew_s: Option<i64>,
    },
    /// CONNACK with a return code other than 0 (MQTT 3.1.1 section 3.2.2.3; AWS uses 7 for "not authorized").
    ConnectRefused {
        /// The return code.
        code: u8,
    },
    /// SUBACK with 0x80 for a filter (MQTT 3.1.1 section 3.9.3).
    SubscriptionRefused {
        /// The filter.
        filter: String,
    },
    /// The connection ended: closed, reset, or cut off.
    Closed {
        /// How it ended.
        detail: String,
    },
    /// A dial step was not finished in time.
    TimedOut {
        /// After how long.
        after: Duration,
    },
    /// Neither PUBACK nor reply: the broker throttles, or the peer is dead. The service most likely never saw the
    /// request.
    NoPuback {
        /// After how long.
        after: Duration,
    },
    /// PUBACK but no reply: the service may have acted.
    NoReply {
        /// After how long.
        after: Duration,
    },
    /// The peer broke the protocol: a malformed packet, an unknown topic, or a reply that the API does not describe.
    Garbled {
        /// What was wrong, without the content.
        detail: String,
    },
    /// The service answered on the `rejected` topic.
    Rejected {
        /// `statusCode`, what we act on.
        status_code: u16,
        /// `errorCode`, for people.
        error_code: String,
        /// `errorMessage`, for people.
        error_message: String,
    },
    /// A well-formed reply that cannot be for this device.
    Anomaly {
        /// Why it cannot be.
        detail: String,
    },
    /// The certificate's ownership token is too old to be used.
    TokenExpired,
}

impl Cause {
    /// The cause's name for counting: stable, lower case.
    pub fn name(&self) -> &'static str {
        match self {
            Cause::Credentials { .. } => "credentials",
            Cause::Unresolvable { .. } => "unresolvable",
            Cause::Unreachable { .. } => "unreachable",
            Cause::Tls { .. } => "tls",
            Cause::UpgradeRefused { .. } => "upgrade_refused",
            Cause::ConnectRefused { .. } => "connect_refused",
            Cause::SubscriptionRefused { .. } => "subscription_refused",
            Cause::Closed { .. } => "closed",
            Cause::TimedOut { .. } => "timed_out",
            Cause::NoPuback { .. } => "no_puback",
            Cause::NoReply { .. } => "no_reply",
            Cause::Garbled { .. } => "garbled",
            Cause::Rejected { status_code: 429, .. } => "throttled",
            Cause::Rejected { .. } => "rejected",
            Cause::Anomaly { .. } => "anomaly",
            Cause::TokenExpired => "token_expired",
        }
    }
}

/// What went wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

impl Failure {
    /// A failure at `stage` because of `cause`.
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// Whether the service refused us, rather than something breaking: retrying alone will not change its mind.
    pub fn is_refusal(&self) -> bool {
        match &self.cause {
            Cause::Credentials { .. } | Cause::SubscriptionRefused { .. } => true,
            Cause::UpgradeRefused { status, .. } => {
                (400..500).contains(status) && !matches!(status, 408 | 425 | 429)
            }
            Cause::ConnectRefused { code } => *code != CONNACK_SERVER_UNAVAILABLE,
            _ => false,
        }
    }

    /// Whether the service asked us to slow down.
    pub fn is_throttle(&self) -> bool {
        matches!(
            self.cause,
            Cause::Rejected { status_code: 429, .. } | Cause::UpgradeRefused { status: 429, .. }
        )
    }

    /// Whether the service rejected the request for a reason other than its rate or an internal error.
    pub fn is_rejection(&self) -> bool {
        matches!(self.cause, Cause::Rejected { status_code: 400..=499, .. }) && !self.is_throttle()
    }

    /// The failure in words, without certificate and request ids: equal for devices that failed for the same reason.
    pub fn reason(&self) -> String {
        wording::without_ids(&self.to_string())
    }

    /// Whether the service may have carried out the request that this failure ended.
    ///
    /// Only a rejection says that it did not. Silence without a PUBACK most likely means so, but is not proof: the
    /// PUBACK itself may have been lost.
    pub fn may_have_acted(&self) -> bool {
        match &self.cause {
            // A 5xx says that something broke inside, but not at which point.
            Cause::Rejected { status_code, .. } => *status_code >= 500,
            Cause::TokenExpired => false,
            _ => !self.stage.is_dialling() && self.stage != Stage::Idle,
        }
    }

    /// What the user can do about it; empty if the only thing to do is to wait for the retry.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn hint(&self) -> &'static str {
        match &self.cause {
            Cause::Credentials { .. } => "renew the credentials where they come from, or use others",
            Cause::Unresolvable { .. } => "check the endpoint's name",
            Cause::Unreachable { .. } => {
                "check the endpoint, its port, and that a firewall lets this machine reach it"
            }
            // The library's text only chooses between hints.
            Cause::Tls { detail } if detail.contains("trusted authority") => {
                "AWS's -ats endpoints need no CA file; an endpoint with a CA of its own does"
            }
            Cause::Tls { detail } if detail.contains("another name") => {
                "check the endpoint's name (use the -ats endpoint)"
            }
            Cause::Tls { detail } if detail.contains("expired") || detail.contains("not valid yet") => {
                "check this machine's clock; if it is right, it is the server's certificate that is out of date"
            }
            Cause::Tls { .. } => "check the endpoint and its port",
            Cause::UpgradeRefused { skew_s: Some(skew), .. } if skew.abs() >= SKEW_LIMIT_S => {
                "set this machine's clock: signatures are valid for 5 minutes around the service's time"
            }
            Cause::UpgradeRefused { status: 429, .. } => "lower the rate of connects",
            Cause::UpgradeRefused { status: 401 | 403, message, .. }
                if message.contains("token") && message.contains("expired") =>
            {
                "the session token has expired: get new credentials, then run the same command again"
            }
            Cause::UpgradeRefused { status: 401 | 403, .. } => {
                "check the access key, the secret key, the session token (temporary credentials expire) and the region"
            }
            Cause::UpgradeRefused { status: 400..=499, .. } => {
                "check the endpoint: what answers there does not take MQTT over WebSocket at this path"
            }
            Cause::ConnectRefused { code: 2 } => {
                "choose another prefix of client ids: at most 128 bytes, not starting with $"
            }
            Cause::ConnectRefused { code: 4 | 5 | 7 } => {
                "allow iot:Connect on client/<client id prefix>* to these credentials, or choose a prefix that is allowed"
            }
            Cause::SubscriptionRefused { .. } => {
                "allow iot:Subscribe on topicfilter/<filter> (topicfilter, not topic) and iot:Receive on topic/<filter>"
            }
            Cause::Closed { .. } if matches!(self.stage, Stage::Suback) => {
                "the service closes the connection where iot:Subscribe is not allowed: check the policy's topicfilter/ resources and the template's name"
            }
            Cause::Closed { .. } if matches!(self.stage, Stage::Call(_)) => {
                "a possible cause: a policy that does not allow iot:Publish on this topic, or iot:Receive on its accepted and \
                 rejected ones; the service then closes the connection instead of answering"
            }
            Cause::Closed { .. } if self.stage == Stage::Idle => {
                "if it goes on: check the policy's iot:Receive on topic/ resources, and that nothing else connects with the same client ids"
            }
            Cause::NoPuback { .. } => {
                "if it goes on: packets may be lost on the way, or the broker may drop publishes over a quota, which it does in silence"
            }
            Cause::Rejected { status_code: 429, .. } => "lower the rate to the account's quota",
            Cause::Rejected { status_code: 403, .. } => {
                "check the template's provisioning role and pre-provisioning hook"
            }
            Cause::Rejected { status_code: 404, .. } => "check the template's name and the region",
            Cause::Rejected { status_code: 400..=499, .. }
                if self.stage == Stage::Call(Call::CreateCertificateFromCsr) =>
            {
                "the service takes no such CSR: try another type of key, or have the service make the keys"
            }
            Cause::Rejected { error_code, .. } if error_code == "InvalidCertificateOwnershipToken" => {
                "the token may have been used, by a registration whose answer was lost: such a device is looked up in the account"
            }
            Cause::Rejected { status_code: 400..=499, .. } => {
                "check this row's values against the template's parameters"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = self.stage.doing();
        match &self.cause {
            Cause::Credentials { detail } => write!(f, "{doing}: no usable credentials: {detail}"),
            Cause::Unresolvable { detail } => write!(f, "{doing}: no address: {detail}"),
            Cause::Unreachable { detail } => write!(f, "{doing}: {detail}"),
            Cause::Tls { detail } => write!(f, "{doing}: {detail}"),
            Cause::UpgradeRefused { status, message, skew_s } => {
                write!(f, "{doing}: the service answered HTTP {status}")?;
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
                match skew_s {
                    Some(skew) if *skew >= SKEW_LIMIT_S => {
                        write!(f, "; clock skew: this machine's clock is {skew} s ahead of the service's")
                    }
                    Some(skew) if *skew <= -SKEW_LIMIT_S => {
                        write!(f, "; clock skew: this machine's clock is {} s behind the service's", -skew)
                    }
                    _ => Ok(()),
                }
            }
            Cause::ConnectRefused { code } => {
                write!(f, "{doing}: refused with CONNACK return code {code} ({})", connack_meaning(*code))
            }
            Cause::SubscriptionRefused { filter } => write!(f, "{doing}: SUBACK 0x80 for {filter}"),
            Cause::Closed { detail } => write!(f, "{doing}: the connection ended: {detail}"),
            Cause::TimedOut { after } => write!(f, "{doing}: no answer within {after:?}"),
            Cause::NoPuback { after } => write!(f, "{doing}: neither PUBACK nor reply within {after:?}"),
            Cause::NoReply { after } => write!(f, "{doing}: PUBACK but no reply within {after:?}"),
            Cause::Garbled { detail } => write!(f, "{doing}: garbled: {detail}"),
            Cause::Rejected { status_code, error_code, error_message } => {
                write!(f, "{doing}: rejected with {status_code}")?;
                if !error_code.is_empty() {
                    write!(f, " {error_code}")?;
                }
                if !error_message.is_empty() {
                    write!(f, ": {error_message}")?;
                }
                Ok(())
            }
            Cause::Anomaly { detail } => write!(f, "{doing}: anomaly: {detail}"),
            Cause::TokenExpired => {
                write!(f, "{doing}: the certificate's ownership token is older than its hour")
            }
        }
    }
}

impl std::error::Error for Failure {}

/// From this skew on, in seconds, a refused signature is blamed on the clock: the service accepts ±5 minutes, and the
/// `date` header has whole seconds and includes the network delay.
pub const SKEW_LIMIT_S: i64 = 240;

const CONNACK_SERVER_UNAVAILABLE: u8 = 3;

fn connack_meaning(code: u8) -> &'static str {
    match code {
        1 => "unacceptable protocol version",
        2 => "client identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 | 7 => "not authorized",
        _ => "reserved",
    }
}

#[cfg(test)]
mod tests;
