//! The notation of durations, such as `1h`.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

const DURATION: &str = "a duration such as \"250ms\", \"90s\" or \"1h\"";

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted {DURATION}")]
pub struct NotADuration;

/// Parses a whole number and its unit: `us`, `ms`, `s`, `m`, `h` or `d`; `0` alone is zero.
///
/// # Errors
/// [`NotADuration`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or(NotADuration)?;
    let micros = match &text[unit..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000_u64,
        _ => return Err(NotADuration),
    };
    let count = digits(&text[..unit]).ok_or(NotADuration)?;
    count.checked_mul(micros).map(Duration::from_micros).ok_or(NotADuration)
}

/// For serde's `deserialize_with`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &DURATION))
}

/// An optional duration, for serde's `deserialize_with`; use it with `default`.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
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
}
