//! `[faults]` as a scenario writes it, in TOML and in JSON.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};
use serde_json::{Value, json};

use super::super::units;
use super::{Acts, Fault, FaultRule, FaultTarget, Faults, Framing, REASONS, exclusive};

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
pub(super) struct FaultsTable {
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
pub(super) struct RuleTable {
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

/// The names of all faults.
pub(super) const KINDS: &str = "silence, unacknowledged, no_puback, no_reply, hang_up, reject, duplicate, delay, reorder, garble, \
                     missing_field, extra_field, wrong_thing, suback_failure, connack, http_status, clock_skew, reset, \
                     stalled_handshake, corrupt_tls, split_frames, joined_frames";

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match f64::deserialize(deserializer)? {
        p if (0.0..=1.0).contains(&p) => Ok(p),
        other => Err(D::Error::invalid_value(Unexpected::Float(other), &"a probability from 0 to 1")),
    }
}
