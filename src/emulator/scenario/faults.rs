//! What goes wrong at the server, and how often: plain data.
//!
//! Owns the odds and their limits. Throws no dice: [`super::super::fault`] does.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::units;

/// Faults by operation. `Default` is none.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Where the dice start. The n-th request of an operation meets the same fault in each run; which device it is for
    /// depends on who comes first.
    pub seed: u64,
    /// CreateKeysAndCertificate.
    pub create_keys_and_certificate: Odds,
    /// CreateCertificateFromCsr.
    pub create_certificate_from_csr: Odds,
    /// RegisterThing.
    pub register_thing: Odds,
}

/// How probable each fault is, from 0 to 1. A request meets one of the first six at most, so that they are 1 together at
/// most; a delay may come on top.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(try_from = "OddsTable")]
pub struct Odds {
    /// The connection breaks before anything was done; there is no PUBACK.
    pub drop_before: f64,
    /// The connection breaks after everything was done, without a reply.
    pub drop_after: f64,
    /// Nothing was done, and nothing comes, not even the PUBACK: what throttling by the message broker looks like.
    pub silent: f64,
    /// Everything was done, and the reply never comes.
    pub no_reply: f64,
    /// The reply comes twice.
    pub duplicate: f64,
    /// Nothing was done, and the rejection has the status 503.
    pub reject_5xx: f64,
    /// The reply, or what comes of it, is late.
    pub delay: Delay,
}

/// A delay, and how probable it is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// From 0 to 1.
    #[serde(deserialize_with = "probability")]
    pub p: f64,
    /// How long.
    #[serde(deserialize_with = "units::duration")]
    pub time: Duration,
}

/// The same, not yet checked.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OddsTable {
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

impl TryFrom<OddsTable> for Odds {
    type Error = String;

    fn try_from(table: OddsTable) -> Result<Self, Self::Error> {
        let OddsTable { drop_before, drop_after, silent, no_reply, duplicate, reject_5xx, delay } = table;
        let sum = drop_before + drop_after + silent + no_reply + duplicate + reject_5xx;
        // Ten times 0.1 is a little more than 1.
        if sum > 1.0 + 1e-9 {
            return Err(format!(
                "faults that are {sum} together, expected 1 at most, as a request meets one"
            ));
        }
        Ok(Self { drop_before, drop_after, silent, no_reply, duplicate, reject_5xx, delay })
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

    #[test]
    fn odds_are_read_for_each_operation() {
        let scenario = Scenario::from_toml(
            "[faults]\nseed = 7\n[faults.register_thing]\ndrop_after = 0.25\nsilent = 0\n\
             delay = { p = 1, time = \"50ms\" }",
        )
        .unwrap();
        assert_eq!(scenario.faults.seed, 7);
        assert_eq!(scenario.faults.create_keys_and_certificate, Odds::default());
        let delay = Delay { p: 1.0, time: Duration::from_millis(50) };
        assert_eq!(scenario.faults.register_thing, Odds { drop_after: 0.25, delay, ..Odds::default() });
    }

    #[test]
    fn impossible_odds_are_refused() {
        let complaint = |line: &str| {
            Scenario::from_toml(&format!("[faults.register_thing]\n{line}")).unwrap_err().to_string()
        };
        for (line, words) in [
            (
                "silent = 1.5",
                "`faults.register_thing.silent`: found floating point `1.5`; wanted a probability",
            ),
            ("silent = -1", "wanted a probability"),
            ("silent = nan", "wanted a probability"),
            ("silent = 0.6\nno_reply = 0.6", "faults that are 1.2 together; wanted 1 at most"),
            ("delay = 0.1", "`faults.register_thing.delay`"),
            ("delay = { p = 0.1 }", "no `time`"),
            ("slient = 0.1", "unknown field `slient`"),
        ] {
            assert!(complaint(line).contains(words), "{line}: {}", complaint(line));
        }
    }
}
