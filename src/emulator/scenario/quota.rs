//! Quotas: rates per second, how they are counted, and how they change during a run.
//!
//! Owns the scenario's `[quotas]` table and its notation, `10/s until 60s, then 20/s`. Counts nothing:
//! [`super::super::account`] does. AWS publishes rates, but not how it counts: the window is a setting.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::units::{self, parse_duration};
use crate::rate::Rate;

const WANTED: &str = "a rate such as \"10/s\" or \"600/min\", \"unlimited\", or a schedule such as \"10/s until 60s, then 20/s\"";

/// The quotas of an account and of each connection, per second; `None` for no limit. `Default` has no quotas.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// How all quotas are counted. What AWS does is unknown.
    pub window: Window,
    /// How much may come at once after a pause, as the time in which the rate allows that much: a bucket's capacity, or
    /// the length of a fixed or sliding window. It always allows at least one. What AWS does is unknown.
    #[serde(deserialize_with = "burst")]
    pub burst: Duration,
    /// CreateKeysAndCertificate; AWS's own default is 10/s (Service Quotas L-CAFFCA46). Excess is rejected with 429.
    pub create_keys_and_certificate: Option<Quota>,
    /// CreateCertificateFromCsr; AWS's own default is 20/s (Service Quotas L-83161BB8). Excess is rejected with 429.
    pub create_certificate_from_csr: Option<Quota>,
    /// RegisterThing; AWS's own default is 10/s (Service Quotas L-B2BBBD8C). Excess is rejected with 429.
    pub register_thing: Option<Quota>,
    /// CONNECTs of the account; AWS's own default is 500/s (Service Quotas L-AEA1E176).
    pub connect: Option<Quota>,
    /// CONNECTs of one client id; AWS's is 1/s.
    pub connect_per_client_id: Option<Quota>,
    /// What happens to a CONNECT above either quota. What AWS does is unknown.
    pub connect_excess: ConnectExcess,
    /// Messages from all the account's clients; AWS's own default is 20,000/s. Excess is dropped without a PUBACK.
    pub publish: Option<Quota>,
    /// Messages to all the account's clients; AWS's own default is 20,000/s. Excess is dropped.
    pub deliver: Option<Quota>,
    /// Messages in both directions together, of one connection; AWS's is 100/s. Excess is dropped, without a PUBACK.
    pub publish_per_connection: Option<Quota>,
    /// Filters subscribed to, for the account; AWS's own default is 500/s (Service Quotas L-589D5E1D). A SUBSCRIBE
    /// above it gets no SUBACK.
    pub subscribe: Option<Quota>,
    /// Bytes per second in both directions together, of one connection; AWS's is 524,288. Excess waits.
    #[serde(deserialize_with = "bytes_per_second")]
    pub bytes_per_connection: Option<u32>,
    /// Control plane operations by name, such as `DescribeThing`. Excess is answered with 400 `ThrottlingException`.
    pub control_plane: BTreeMap<String, Quota>,
}

/// How a quota is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A token bucket, initially full, that fills at the quota's rate.
    #[default]
    Bucket,
    /// A fixed number in each window of a clock that starts with the emulator.
    Fixed,
    /// A fixed number in any window.
    Sliding,
}

/// What happens to a CONNECT above its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectExcess {
    /// It gets a CONNACK with code 3, "server unavailable", and the connection ends.
    #[default]
    Refuse,
    /// The connection ends.
    Close,
    /// It gets its CONNACK once the quota admits it.
    Delay,
}

/// A rate, and its changes during a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    /// Each rate with the emulator's age from which it holds, in ascending order, the first from 0. `None` is no limit.
    steps: Vec<(Duration, Option<Rate>)>,
}

/// The text is not a quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}; wanted {WANTED}")]
pub struct NotAQuota {
    found: String,
}

impl Quota {
    /// The same rate for ever.
    pub fn constant(rate: Rate) -> Self {
        Self { steps: vec![(Duration::ZERO, Some(rate))] }
    }

    /// This quota, changed to `then` from the emulator's age `age` on; `None` is no limit.
    ///
    /// A change earlier than existing ones is inserted before them; they still hold.
    #[must_use]
    pub fn changing(mut self, age: Duration, then: Option<Rate>) -> Self {
        self.steps.retain(|(from, _)| *from != age);
        let at = self.steps.partition_point(|(from, _)| *from < age);
        self.steps.insert(at, (age, then));
        self
    }

    /// The rate at this age of the emulator; `None` is no limit.
    pub fn at(&self, age: Duration) -> Option<Rate> {
        self.step(age).1
    }

    /// The rate at this age of the emulator, and the age from which it holds.
    pub(in crate::emulator) fn step(&self, age: Duration) -> (Duration, Option<Rate>) {
        let after = self.steps.partition_point(|(from, _)| *from <= age);
        after.checked_sub(1).map_or((Duration::ZERO, None), |at| self.steps[at])
    }

    /// The rates between two ages, each with how long it held.
    pub(in crate::emulator) fn between(
        &self,
        from: Duration,
        to: Duration,
    ) -> impl Iterator<Item = (Duration, Option<Rate>)> {
        self.steps.iter().enumerate().filter_map(move |(at, (start, rate))| {
            let end = self.steps.get(at + 1).map_or(to, |(next, _)| to.min(*next));
            let held = end.checked_sub(from.max(*start))?;
            Some((held, *rate))
        })
    }
}

impl From<Rate> for Quota {
    fn from(rate: Rate) -> Self {
        Self::constant(rate)
    }
}

impl FromStr for Quota {
    type Err = NotAQuota;

    fn from_str(text: &str) -> Result<Self, NotAQuota> {
        let wrong = || NotAQuota { found: text.to_owned() };
        let mut steps = Vec::new();
        let mut from = Some(Duration::ZERO);
        for part in text.split(", then ") {
            // Nothing may follow a part without an end.
            let start = from.ok_or_else(wrong)?;
            let (rate, until) = match part.split_once(" until ") {
                Some((rate, until)) => (rate, Some(parse_duration(until.trim()).map_err(|_| wrong())?)),
                None => (part, None),
            };
            if until.is_some_and(|until| until <= start) {
                return Err(wrong());
            }
            steps.push((start, parse_rate(rate.trim()).ok_or_else(wrong)?));
            from = until;
        }
        // "10/s until 60s" does not say what follows.
        if from.is_some() { Err(wrong()) } else { Ok(Self { steps }) }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (_, rate)) in self.steps.iter().enumerate() {
            match rate {
                Some(rate) => write!(f, "{rate}")?,
                None => f.write_str("unlimited")?,
            }
            if let Some((until, _)) = self.steps.get(at + 1) {
                write!(f, " until {until:?}, then ")?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|NotAQuota { found }| D::Error::invalid_value(Unexpected::Str(&found), &WANTED))
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            window: Window::default(),
            burst: Duration::from_secs(1),
            create_keys_and_certificate: None,
            create_certificate_from_csr: None,
            register_thing: None,
            connect: None,
            connect_per_client_id: None,
            connect_excess: ConnectExcess::default(),
            publish: None,
            deliver: None,
            publish_per_connection: None,
            subscribe: None,
            bytes_per_connection: None,
            control_plane: BTreeMap::new(),
        }
    }
}

/// A rate, or `Some(None)` for `unlimited`; `None` for any other text.
#[expect(clippy::option_option, reason = "the outer one is whether it could be read")]
fn parse_rate(text: &str) -> Option<Option<Rate>> {
    if text == "unlimited" { Some(None) } else { text.parse().ok().map(Some) }
}

/// Deserialises a burst. A burst of zero would admit nothing, and one of an hour is for quotas of a few per hour.
fn burst<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match units::duration(deserializer)? {
        burst if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&burst) => Ok(burst),
        other => {
            let found = format!("{other:?}");
            Err(D::Error::invalid_value(Unexpected::Str(&found), &"a duration from 1ms to 1h"))
        }
    }
}

fn bytes_per_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match i64::deserialize(deserializer)? {
        bytes @ 1..=1_000_000_000 => Ok(Some(bytes as u32)),
        other => {
            let wanted = "bytes per second, from 1 to 1000000000";
            Err(D::Error::invalid_value(Unexpected::Signed(other), &wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_second(text: &str, age_s: u64) -> Option<f64> {
        text.parse::<Quota>().unwrap().at(Duration::from_secs(age_s)).map(Rate::as_per_second)
    }

    #[test]
    fn quotas_are_read_as_people_write_them() {
        assert_eq!(per_second("10/s", 1_000_000), Some(10.0));
        assert_eq!(per_second("30/min", 0), Some(0.5));
        assert_eq!(per_second("unlimited", 0), None);
        let schedule = "10/s until 60s, then 20/s until 2m, then unlimited";
        for (age, rate) in
            [(0, Some(10.0)), (59, Some(10.0)), (60, Some(20.0)), (119, Some(20.0)), (120, None)]
        {
            assert_eq!(per_second(schedule, age), rate, "{age}");
        }
        assert_eq!(schedule.parse::<Quota>().unwrap().to_string(), schedule.replace("2m", "120s"));
    }

    #[test]
    fn a_quota_built_in_code_is_the_one_that_is_read() {
        let rate = |n| Rate::per_second(n).unwrap();
        let built = Quota::constant(rate(10.0))
            .changing(Duration::from_secs(120), None)
            .changing(Duration::from_secs(60), Some(rate(20.0)));
        assert_eq!("10/s until 60s, then 20/s until 2m, then unlimited".parse(), Ok(built));
    }

    #[test]
    fn what_is_no_quota_is_refused() {
        for wrong in [
            "",
            "10",
            "0/s",
            "10/s until 60s",
            "10/s, then 20/s",
            "10/s until 60s, then 20/s until 30s, then 5/s",
            "10/s until 60s, then",
            "none",
        ] {
            let error = wrong.parse::<Quota>().expect_err(wrong).to_string();
            assert!(error.contains("wanted a rate such as"), "{error}");
        }
    }

    #[test]
    fn the_time_between_two_ages_is_split_where_the_rate_changes() {
        let quota: Quota = "10/s until 60s, then 20/s".parse().unwrap();
        let between = |from, to| {
            let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
            quota
                .between(from, to)
                .map(|(held, rate)| (held.as_secs(), rate.unwrap().as_per_second()))
                .collect::<Vec<_>>()
        };
        assert_eq!(between(50, 55), [(5, 10.0)]);
        assert_eq!(between(50, 65), [(10, 10.0), (5, 20.0)]);
        assert_eq!(between(70, 75), [(5, 20.0)]);
    }
}
