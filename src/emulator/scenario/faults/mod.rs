//! What goes wrong, where, how often and when: plain data, the same for the server and the simulated network.
//!
//! Owns the rules; `notation` reads and writes them. Draws nothing: [`super::super::fault`] does.

mod notation;

use std::time::Duration;

use serde::Deserialize;

use notation::{FaultsTable, RuleTable};

/// What goes wrong. `Default` has no faults.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "FaultsTable")]
pub struct Faults {
    /// The seed of the dice. The n-th request at a target meets the same faults in each run; which device sends it
    /// depends on the order of arrival.
    pub seed: u64,
    /// The rules in order. The first that strikes decides the fault; delays come in addition.
    pub rules: Vec<FaultRule>,
}

/// One fault: where it strikes, how often, and when.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RuleTable")]
pub struct FaultRule {
    /// Where it strikes.
    pub on: Vec<FaultTarget>,
    /// The fault.
    pub fault: Fault,
    /// The probability that the rule strikes, from 0 to 1.
    pub probability: f64,
    /// How many requests are spared before the rule begins.
    pub after: u64,
    /// How many requests the rule applies to, counted after the spared ones; `None` for all of them.
    pub first: Option<u64>,
    /// Among these requests the rule strikes only every so many: 1 for each, 2 for every second one.
    pub every: u64,
    /// The most times that the rule strikes; `None` for no limit.
    pub max: Option<u64>,
}

/// Where a fault strikes. Each target counts its own requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultTarget {
    /// A TCP connection, before TLS.
    Tcp,
    /// A WebSocket upgrade.
    Upgrade,
    /// A request to the control plane.
    ControlPlane,
    /// An MQTT CONNECT.
    Connect,
    /// A SUBSCRIBE.
    Subscribe,
    /// A PUBLISH of a plain message.
    Publish,
    /// CreateKeysAndCertificate over MQTT.
    CreateKeysAndCertificate,
    /// CreateCertificateFromCsr over MQTT.
    CreateCertificateFromCsr,
    /// RegisterThing over MQTT.
    RegisterThing,
}

impl FaultTarget {
    /// The number of targets.
    pub const COUNT: usize = 9;
    /// The targets that are fleet provisioning requests.
    pub const REQUESTS: [FaultTarget; 3] = [
        FaultTarget::CreateKeysAndCertificate,
        FaultTarget::CreateCertificateFromCsr,
        FaultTarget::RegisterThing,
    ];

    /// The target's name in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            FaultTarget::Tcp => "tcp",
            FaultTarget::Upgrade => "upgrade",
            FaultTarget::ControlPlane => "control_plane",
            FaultTarget::Connect => "connect",
            FaultTarget::Subscribe => "subscribe",
            FaultTarget::Publish => "publish",
            FaultTarget::CreateKeysAndCertificate => "create_keys_and_certificate",
            FaultTarget::CreateCertificateFromCsr => "create_certificate_from_csr",
            FaultTarget::RegisterThing => "register_thing",
        }
    }
}

/// A fault. Whether the service acts on a request that meets it is part of the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The service neither acts nor sends anything, not even an acknowledgement: what throttling by the message broker
    /// looks like.
    Silence,
    /// The service acts, but sends neither acknowledgement nor reply.
    Unacknowledged,
    /// The service acts and replies, but sends no acknowledgement.
    NoPuback,
    /// The service sends an acknowledgement, but no reply.
    NoReply(Acts),
    /// The service closes the connection without a reply.
    HangUp(Acts),
    /// The service rejects the request.
    Reject {
        /// The rejection's `statusCode`.
        status: u16,
        /// The rejection's `errorCode`; `None` for the scenario's code for that status.
        code: Option<String>,
        /// Whether the service acts nevertheless.
        acts: Acts,
    },
    /// The reply comes twice.
    Duplicate,
    /// Acknowledgement and reply are late by this much.
    Delay(Duration),
    /// The reply is sent after the next one on its connection, or after two seconds.
    Reorder,
    /// The service acts, but its reply is not one that the API describes.
    Garble,
    /// The reply lacks a field.
    MissingField,
    /// The reply has a field that the API does not describe.
    ExtraField,
    /// The reply names another thing, or another certificate.
    WrongThing,
    /// Before its own reply, the client gets one that was meant for another connection. In simulations only.
    Foreign,
    /// A SUBACK that grants nothing.
    SubackFailure,
    /// A CONNACK with this code, and the end of the connection.
    Connack(u8),
    /// A response with this HTTP status.
    HttpStatus(u16),
    /// The service's clock is off by this many seconds, ahead if positive.
    ClockSkew(i64),
    /// The TCP connection is reset.
    Reset,
    /// The TLS handshake is never answered.
    StalledHandshake,
    /// The service sends bytes that are not TLS.
    CorruptTls,
    /// Packets on this connection are framed differently.
    Framing(Framing),
}

/// Whether the service acts on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// The service acts.
    Done,
    /// The service does not act.
    Undone,
}

/// How packets are put into WebSocket messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// One packet in each message.
    #[default]
    Whole,
    /// Two messages for each packet.
    Split,
    /// All packets that are sent together in one message.
    Joined,
}

impl Fault {
    /// Every kind of fault that a request can meet, each with an example value.
    pub const OF_REQUESTS: [Fault; 13] = [
        Fault::Silence,
        Fault::Unacknowledged,
        Fault::NoReply(Acts::Undone),
        Fault::NoReply(Acts::Done),
        Fault::HangUp(Acts::Undone),
        Fault::HangUp(Acts::Done),
        Fault::Reject { status: 429, code: None, acts: Acts::Undone },
        Fault::Reject { status: 403, code: None, acts: Acts::Undone },
        Fault::Reject { status: 503, code: None, acts: Acts::Undone },
        Fault::Reject { status: 500, code: None, acts: Acts::Done },
        Fault::Delay(Duration::from_secs(30)),
        Fault::Garble,
        Fault::Foreign,
    ];

    /// Whether the service acts on a request that meets it.
    pub fn acts(&self) -> bool {
        match self {
            Fault::Silence => false,
            Fault::NoReply(acts) | Fault::HangUp(acts) | Fault::Reject { acts, .. } => *acts == Acts::Done,
            _ => true,
        }
    }
}

impl Faults {
    /// Faults of requests, each with its probability. A request meets at most one, so the probabilities must not sum to
    /// more than 1.
    pub fn of_requests(faults: impl IntoIterator<Item = (Fault, f64)>) -> Self {
        Self { seed: 0, rules: exclusive(&FaultTarget::REQUESTS, faults) }
    }
}

/// Rules of which at most one strikes, each with the probability given. A rule is only asked if the ones before it did
/// not strike, so its own probability is higher.
fn exclusive(on: &[FaultTarget], faults: impl IntoIterator<Item = (Fault, f64)>) -> Vec<FaultRule> {
    let mut left = 1.0_f64;
    let mut rules = Vec::new();
    for (fault, probability) in faults.into_iter().filter(|(_, probability)| *probability > 0.0) {
        let probability_here = (probability / left).clamp(0.0, 1.0);
        left = (left - probability).max(f64::MIN_POSITIVE);
        rules.push(FaultRule { probability: probability_here, ..FaultRule::always(on, fault) });
    }
    rules
}

impl FaultRule {
    /// A fault that always strikes at these targets.
    pub fn always(on: &[FaultTarget], fault: Fault) -> Self {
        Self { on: on.to_vec(), fault, probability: 1.0, after: 0, first: None, every: 1, max: None }
    }
}

/// The HTTP statuses that a fault can have, as in a status line.
const REASONS: [(u16, &str); 14] = [
    (301, "301 Moved Permanently"),
    (302, "302 Found"),
    (400, "400 Bad Request"),
    (401, "401 Unauthorized"),
    (403, "403 Forbidden"),
    (404, "404 Not Found"),
    (408, "408 Request Timeout"),
    (410, "410 Gone"),
    (426, "426 Upgrade Required"),
    (429, "429 Too Many Requests"),
    (500, "500 Internal Server Error"),
    (502, "502 Bad Gateway"),
    (503, "503 Service Unavailable"),
    (504, "504 Gateway Timeout"),
];

/// The HTTP status as in a status line.
pub(in crate::emulator) fn reason(status: u16) -> &'static str {
    let known = REASONS.iter().find(|(known, _)| *known == status);
    known.map_or("500 Internal Server Error", |(_, reason)| reason)
}

impl Fault {
    /// The fault's name in a scenario.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Silence => "silence",
            Fault::Unacknowledged => "unacknowledged",
            Fault::NoPuback => "no_puback",
            Fault::NoReply(_) => "no_reply",
            Fault::HangUp(_) => "hang_up",
            Fault::Reject { .. } => "reject",
            Fault::Duplicate => "duplicate",
            Fault::Delay(_) => "delay",
            Fault::Reorder => "reorder",
            Fault::Garble => "garble",
            Fault::MissingField => "missing_field",
            Fault::ExtraField => "extra_field",
            Fault::WrongThing => "wrong_thing",
            Fault::Foreign => "foreign",
            Fault::SubackFailure => "suback_failure",
            Fault::Connack(_) => "connack",
            Fault::HttpStatus(_) => "http_status",
            Fault::ClockSkew(_) => "clock_skew",
            Fault::Reset => "reset",
            Fault::StalledHandshake => "stalled_handshake",
            Fault::CorruptTls => "corrupt_tls",
            Fault::Framing(Framing::Split) => "split_frames",
            Fault::Framing(_) => "joined_frames",
        }
    }

    /// Where the fault can strike.
    fn targets(&self) -> Targets {
        use FaultTarget::{Connect, ControlPlane, Publish, Subscribe, Tcp, Upgrade};
        let requests = FaultTarget::REQUESTS;
        let with = |others: &[FaultTarget]| Targets(others.iter().copied().chain(requests).collect());
        let only = |targets: &[FaultTarget]| Targets(targets.to_vec());
        match self {
            Fault::Silence => with(&[Connect, Subscribe, Publish]),
            Fault::NoPuback | Fault::Duplicate => with(&[Publish]),
            Fault::Unacknowledged
            | Fault::NoReply(_)
            | Fault::Reject { .. }
            | Fault::Reorder
            | Fault::Garble
            | Fault::MissingField
            | Fault::ExtraField
            | Fault::WrongThing
            | Fault::Foreign => with(&[]),
            Fault::HangUp(_) => with(&[Upgrade, ControlPlane, Connect, Subscribe, Publish]),
            Fault::Delay(_) => with(&[Upgrade, ControlPlane, Connect, Subscribe, Publish]),
            Fault::SubackFailure => only(&[Subscribe]),
            Fault::Connack(_) | Fault::Framing(_) => only(&[Connect]),
            Fault::HttpStatus(_) => only(&[Upgrade, ControlPlane]),
            Fault::ClockSkew(_) => only(&[Upgrade, ControlPlane]),
            Fault::Reset => with(&[Tcp, Connect, Subscribe, Publish]),
            Fault::StalledHandshake | Fault::CorruptTls => only(&[Tcp]),
        }
    }

    fn strikes(&self, target: FaultTarget) -> bool {
        self.targets().0.contains(&target)
    }
}

struct Targets(Vec<FaultTarget>);

impl Targets {
    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|target| target.name()).collect()
    }
}

#[cfg(test)]
mod tests;
