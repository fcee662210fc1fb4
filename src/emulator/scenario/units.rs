//! Durations and rates as people write them.
//!
//! Owns the two notations, `1h` and `10/s`. Knows nothing of what they limit.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

const DURATION: &str = "a duration such as \"250ms\", \"90s\" or \"1h\"";
const RATE: &str = "a rate such as \"10/s\" or \"600/m\"";

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how long: one second, one minute or one hour.
    pub per: Duration,
}

/// Text that is neither a duration nor a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted {0}")]
pub struct NotAUnit(&'static str);

impl Rate {
    /// Parses `10/s`, `600/m` or `36000/h`.
    ///
    /// # Errors
    /// [`NotAUnit`] for anything else, zero and more than a million included.
    pub fn parse(text: &str) -> Result<Self, NotAUnit> {
        let (count, unit) = text.split_once('/').ok_or(NotAUnit(RATE))?;
        let per = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(NotAUnit(RATE)),
        };
        match digits(count) {
            Some(count @ 1..=1_000_000) => Ok(Self { count: count as u32, per: Duration::from_secs(per) }),
            _ => Err(NotAUnit(RATE)),
        }
    }

    /// The time between two at this rate.
    pub fn interval(self) -> Duration {
        self.per / self.count.max(1)
    }

    /// How many may happen at once after a pause: one second's worth, at least 1.
    pub fn burst(self) -> u32 {
        let per_second = u64::from(self.count) / self.per.as_secs().max(1);
        u32::try_from(per_second).unwrap_or(u32::MAX).max(1)
    }
}

/// Parses a whole number and its unit: `us`, `ms`, `s`, `m`, `h` or `d`; `0` alone is zero.
///
/// # Errors
/// [`NotAUnit`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, NotAUnit> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or(NotAUnit(DURATION))?;
    let micros = match &text[unit..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000_u64,
        _ => return Err(NotAUnit(DURATION)),
    };
    let count = digits(&text[..unit]).ok_or(NotAUnit(DURATION))?;
    count.checked_mul(micros).map(Duration::from_micros).ok_or(NotAUnit(DURATION))
}

/// For serde's `deserialize_with`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &DURATION))
}

/// The same, for what may be left out; with `default`.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &RATE))
    }
}

/// A whole number in plain digits; `u64::from_str` would take a sign.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Duration::ZERO),
            ("5us", Duration::from_micros(5)),
            ("250ms", Duration::from_millis(250)),
            ("90s", Duration::from_secs(90)),
            ("5m", Duration::from_secs(300)),
            ("1h", Duration::from_secs(3600)),
            ("2d", Duration::from_secs(172_800)),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "h",
            "1",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "1w",
            "1hh",
            "99999999999999999999s",
            "9999999999999d",
            "²s",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        let rate = Rate::parse("10/s").unwrap();
        assert_eq!((rate.interval(), rate.burst()), (Duration::from_millis(100), 10));
        let slow = Rate::parse("30/m").unwrap();
        assert_eq!((slow.interval(), slow.burst()), (Duration::from_secs(2), 1));
        assert_eq!(Rate::parse("36000/h").unwrap().burst(), 10);
        for wrong in ["", "10", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "10/d", "10/ss", "1000001/s"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
