//! What goes wrong, where, how often and when: plain data, the same for the server and the simulated network.
//!
//! Owns the rules and their notation. Draws nothing: [`super::super::fault`] does.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};
use serde_json::{Value, json};

use super::units;

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

impl FaultRule {
    /// The rule as written in JSON.
    pub fn to_json(&self) -> Value {
        let mut rule = json!({
            "on": self.on.iter().map(|target| target.name()).collect::<Vec<_>>(),
            "fault": self.fault.kind(),
            "probability": self.probability,
            "after": self.after,
            "every": self.every,
        });
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                rule[key] = value;
            }
        };
        put("first", self.first.map(Value::from));
        put("max", self.max.map(Value::from));
        match &self.fault {
            Fault::NoReply(acts) | Fault::HangUp(acts) => put("done", Some((*acts == Acts::Done).into())),
            Fault::Reject { status, code, acts } => {
                put("status", Some((*status).into()));
                put("code", code.clone().map(Value::from));
                put("done", Some((*acts == Acts::Done).into()));
            }
            Fault::Delay(time) => put("time", Some(format!("{}us", time.as_micros()).into())),
            Fault::ClockSkew(seconds) => put("time", Some(format!("{seconds}s").into())),
            Fault::Connack(code) => put("status", Some((*code).into())),
            Fault::HttpStatus(status) => put("status", Some((*status).into())),
            _ => {}
        }
        rule
    }
}

/// `[faults]` as written in TOML: the rules, and the short form for requests, with probabilities by operation.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FaultsTable {
    seed: u64,
    create_keys_and_certificate: Odds,
    create_certificate_from_csr: Odds,
    register_thing: Odds,
    rules: Vec<FaultRule>,
}

impl TryFrom<FaultsTable> for Faults {
    type Error = String;

    fn try_from(table: FaultsTable) -> Result<Self, String> {
        let odds =
            [table.create_keys_and_certificate, table.create_certificate_from_csr, table.register_thing];
        let mut rules = Vec::new();
        for (target, odds) in FaultTarget::REQUESTS.into_iter().zip(odds) {
            rules.extend(odds.rules(target)?);
        }
        rules.extend(table.rules);
        Ok(Self { seed: table.seed, rules })
    }
}

/// The probability of each fault of a request, from 0 to 1. A request meets at most one of the first six; a delay may
/// come in addition.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Odds {
    #[serde(deserialize_with = "probability")]
    drop_before: f64,
    #[serde(deserialize_with = "probability")]
    drop_after: f64,
    #[serde(deserialize_with = "probability")]
    silent: f64,
    #[serde(deserialize_with = "probability")]
    no_reply: f64,
    #[serde(deserialize_with = "probability")]
    duplicate: f64,
    #[serde(deserialize_with = "probability")]
    reject_5xx: f64,
    delay: Delay,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delay {
    #[serde(deserialize_with = "probability")]
    p: f64,
    #[serde(deserialize_with = "units::duration")]
    time: Duration,
}

impl Odds {
    fn rules(self, target: FaultTarget) -> Result<Vec<FaultRule>, String> {
        let faults = [
            (Fault::HangUp(Acts::Undone), self.drop_before),
            (Fault::HangUp(Acts::Done), self.drop_after),
            (Fault::Silence, self.silent),
            (Fault::NoReply(Acts::Done), self.no_reply),
            (Fault::Duplicate, self.duplicate),
            (Fault::Reject { status: 503, code: None, acts: Acts::Undone }, self.reject_5xx),
        ];
        let sum: f64 = faults.iter().map(|(_, p)| p).sum();
        // Ten times 0.1 sums to a little more than 1.
        if sum > 1.0 + 1e-9 {
            return Err(format!(
                "faults of {} that are {sum} together, expected 1 at most, as a request meets one",
                target.name()
            ));
        }
        let mut rules = exclusive(&[target], faults);
        if self.delay.p > 0.0 {
            let delay = FaultRule::always(&[target], Fault::Delay(self.delay.time));
            rules.push(FaultRule { probability: self.delay.p, ..delay });
        }
        Ok(rules)
    }
}

/// A rule as written in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    on: OneOrMany,
    fault: String,
    #[serde(default = "certainty", deserialize_with = "probability")]
    probability: f64,
    #[serde(default)]
    after: u64,
    first: Option<u64>,
    #[serde(default = "each")]
    every: u64,
    max: Option<u64>,
    status: Option<u16>,
    code: Option<String>,
    time: Option<String>,
    done: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(FaultTarget),
    Many(Vec<FaultTarget>),
}

fn certainty() -> f64 {
    1.0
}

fn each() -> u64 {
    1
}

impl TryFrom<RuleTable> for FaultRule {
    type Error = String;

    fn try_from(mut table: RuleTable) -> Result<Self, String> {
        let on = match std::mem::replace(&mut table.on, OneOrMany::Many(Vec::new())) {
            OneOrMany::One(target) => vec![target],
            OneOrMany::Many(targets) => targets,
        };
        let fault = table.take_fault()?;
        if let Some(target) = on.iter().find(|target| !fault.strikes(**target)) {
            let (name, target) = (&table.fault, target.name());
            return Err(format!(
                "fault `{name}` on `{target}`, expected one of {}",
                fault.targets().names().join(", ")
            ));
        }
        if on.is_empty() || table.every == 0 {
            return Err(String::from(
                "no target in `on`, or `every = 0`, expected at least one, and 1 or more",
            ));
        }
        if let Some(key) = table.left_over() {
            return Err(format!("`{key}` with fault `{}`, expected it to be left out", table.fault));
        }
        let RuleTable { probability, after, first, every, max, .. } = table;
        Ok(Self { on, fault, probability, after, first, every, max })
    }
}

impl RuleTable {
    /// Takes the fault, along with the keys that belong to it.
    fn take_fault(&mut self) -> Result<Fault, String> {
        Ok(match self.fault.as_str() {
            "silence" => Fault::Silence,
            "unacknowledged" => Fault::Unacknowledged,
            "no_puback" => Fault::NoPuback,
            "no_reply" => Fault::NoReply(self.take_acts(Acts::Done)),
            "hang_up" => Fault::HangUp(self.take_acts(Acts::Undone)),
            "reject" => {
                let status = self.take_status(400..=599)?;
                Fault::Reject { status, code: self.code.take(), acts: self.take_acts(Acts::Undone) }
            }
            "duplicate" => Fault::Duplicate,
            "delay" => Fault::Delay(Duration::from_micros(self.take_time()?.unsigned_abs())),
            "reorder" => Fault::Reorder,
            "garble" => Fault::Garble,
            "missing_field" => Fault::MissingField,
            "extra_field" => Fault::ExtraField,
            "wrong_thing" => Fault::WrongThing,
            "suback_failure" => Fault::SubackFailure,
            "connack" => Fault::Connack(u8::try_from(self.take_status(1..=255)?).unwrap_or(u8::MAX)),
            "http_status" => Fault::HttpStatus(self.take_http_status()?),
            "clock_skew" => Fault::ClockSkew(self.take_time()? / 1_000_000),
            "reset" => Fault::Reset,
            "stalled_handshake" => Fault::StalledHandshake,
            "corrupt_tls" => Fault::CorruptTls,
            "split_frames" => Fault::Framing(Framing::Split),
            "joined_frames" => Fault::Framing(Framing::Joined),
            other => return Err(format!("fault `{other}`, expected one of {KINDS}")),
        })
    }

    fn take_http_status(&mut self) -> Result<u16, String> {
        let status = self.take_status(300..=599)?;
        if REASONS.iter().any(|(known, _)| *known == status) {
            return Ok(status);
        }
        let known: Vec<String> = REASONS.iter().map(|(known, _)| known.to_string()).collect();
        Err(format!("`status` {status}, expected one of {}", known.join(", ")))
    }

    fn take_acts(&mut self, default: Acts) -> Acts {
        match self.done.take() {
            Some(true) => Acts::Done,
            Some(false) => Acts::Undone,
            None => default,
        }
    }

    fn take_status(&mut self, range: std::ops::RangeInclusive<u16>) -> Result<u16, String> {
        let wanted = format!("`status` from {} to {}", range.start(), range.end());
        match self.status.take() {
            Some(status) if range.contains(&status) => Ok(status),
            Some(status) => Err(format!("`status` {status}, expected {wanted}")),
            None => Err(format!("fault `{}` without `status`, expected {wanted}", self.fault)),
        }
    }

    /// Takes a time in microseconds; it may be negative if the fault allows that.
    fn take_time(&mut self) -> Result<i64, String> {
        let text = self.time.take().unwrap_or_default();
        let (sign, magnitude) = match text.strip_prefix('-') {
            Some(magnitude) if self.fault == "clock_skew" => (-1, magnitude),
            _ => (1, text.as_str()),
        };
        let time =
            units::parse_duration(magnitude).ok().and_then(|time| i64::try_from(time.as_micros()).ok());
        time.map(|time| sign * time).ok_or_else(|| {
            format!("`time` \"{text}\" with fault `{}`, expected a duration such as \"250ms\"", self.fault)
        })
    }

    /// A key that is left over because the fault does not use it.
    fn left_over(&self) -> Option<&'static str> {
        let keys = [
            ("status", self.status.is_some()),
            ("code", self.code.is_some()),
            ("time", self.time.is_some()),
            ("done", self.done.is_some()),
        ];
        keys.into_iter().find(|(_, is_there)| *is_there).map(|(key, _)| key)
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

/// The names of all faults.
const KINDS: &str = "silence, unacknowledged, no_puback, no_reply, hang_up, reject, duplicate, delay, reorder, garble, \
                     missing_field, extra_field, wrong_thing, suback_failure, connack, http_status, clock_skew, reset, \
                     stalled_handshake, corrupt_tls, split_frames, joined_frames";

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

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match f64::deserialize(deserializer)? {
        p if (0.0..=1.0).contains(&p) => Ok(p),
        other => Err(D::Error::invalid_value(Unexpected::Float(other), &"a probability from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;
    use super::*;

    fn rules(text: &str) -> Vec<FaultRule> {
        Scenario::from_toml(text).unwrap().faults.rules
    }

    #[test]
    fn the_short_form_is_read_for_each_operation() {
        let text = "[faults]\nseed = 7\n[faults.register_thing]\ndrop_after = 0.25\nduplicate = 0.5\nsilent = 0\n\
                    delay = { p = 1, time = \"50ms\" }";
        assert_eq!(Scenario::from_toml(text).unwrap().faults.seed, 7);
        let rules = rules(text);
        let odds: Vec<_> = rules.iter().map(|rule| (rule.fault.clone(), rule.probability)).collect();
        let delay = Fault::Delay(Duration::from_millis(50));
        // Half of all is two thirds of what the first leaves.
        assert_eq!(odds, [(Fault::HangUp(Acts::Done), 0.25), (Fault::Duplicate, 0.5 / 0.75), (delay, 1.0)]);
        assert!(rules.iter().all(|rule| rule.on == [FaultTarget::RegisterThing]));
    }

    #[test]
    fn a_rule_says_where_what_how_often_and_when() {
        let rules = rules(
            "[[faults.rules]]\non = [\"register_thing\", \"create_keys_and_certificate\"]\nfault = \"reject\"\n\
             status = 418\ncode = \"Teapot\"\ndone = true\nprobability = 0.5\nafter = 10\nfirst = 20\nevery = 3\nmax = 2\n\
             [[faults.rules]]\non = \"upgrade\"\nfault = \"clock_skew\"\ntime = \"-10m\"",
        );
        let reject = Fault::Reject { status: 418, code: Some(String::from("Teapot")), acts: Acts::Done };
        let on = vec![FaultTarget::RegisterThing, FaultTarget::CreateKeysAndCertificate];
        assert_eq!(
            rules[0],
            FaultRule {
                on,
                fault: reject,
                probability: 0.5,
                after: 10,
                first: Some(20),
                every: 3,
                max: Some(2)
            }
        );
        assert_eq!(rules[1], FaultRule::always(&[FaultTarget::Upgrade], Fault::ClockSkew(-600)));
    }

    #[test]
    fn impossible_faults_are_refused() {
        let complaint = |text: &str| Scenario::from_toml(text).unwrap_err().to_string();
        for (line, words) in [
            ("silent = 1.5", "wanted a probability"),
            ("silent = -1", "wanted a probability"),
            ("silent = nan", "wanted a probability"),
            ("silent = 0.6\nno_reply = 0.6", "that are 1.2 together; wanted 1 at most"),
            ("delay = 0.1", "delay"),
            ("delay = { p = 0.1 }", "no `time`"),
            ("slient = 0.1", "unknown field `slient`"),
        ] {
            let complaint = complaint(&format!("[faults.register_thing]\n{line}"));
            assert!(complaint.contains(words), "{line}: {complaint}");
        }
        for (rule, words) in [
            ("on = \"tcp\"\nfault = \"garble\"", "`garble` on `tcp`; wanted one of create_keys"),
            ("on = \"nowhere\"\nfault = \"garble\"", "on"),
            ("on = []\nfault = \"garble\"", "no target"),
            ("on = \"connect\"\nfault = \"quake\"", "fault `quake`; wanted one of silence"),
            ("on = \"connect\"\nfault = \"connack\"", "without `status`"),
            ("on = \"upgrade\"\nfault = \"http_status\"\nstatus = 200", "from 300 to 599"),
            ("on = \"connect\"\nfault = \"silence\"\nstatus = 3", "`status` with fault `silence`"),
            ("on = \"connect\"\nfault = \"delay\"\ntime = \"-1s\"", "a duration"),
            ("on = \"connect\"\nfault = \"silence\"\nevery = 0", "every"),
        ] {
            let complaint = complaint(&format!("[[faults.rules]]\n{rule}"));
            assert!(complaint.contains(words), "{rule}: {complaint}");
        }
    }

    #[test]
    fn every_kind_of_fault_has_a_name_that_parses() {
        for kind in KINDS.split(", ") {
            let takes = ["", "time = \"1s\"", "status = 503", "status = 5"];
            let targets = ["tcp", "upgrade", "connect", "subscribe", "register_thing"];
            let parses = takes.iter().any(|takes| {
                targets.iter().any(|on| {
                    let rule = format!("[[faults.rules]]\non = \"{on}\"\nfault = \"{kind}\"\n{takes}");
                    Scenario::from_toml(&rule).is_ok_and(|scenario| {
                        let rules = serde_json::json!({"rules": [scenario.faults.rules[0].to_json()]});
                        let read: Faults = serde_json::from_value(rules).unwrap();
                        read == scenario.faults && read.rules[0].fault.kind() == kind
                    })
                })
            });
            assert!(parses, "{kind}");
        }
    }
}
