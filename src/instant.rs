//! Instants as files store them: RFC 3339, UTC, milliseconds. Reads no clock.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const FORMAT: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// `at` as text, truncated to the millisecond.
///
/// # Panics
/// If `at` is after the year 9999.
pub fn to_text(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&FORMAT).expect("every part of the format is a part of a date and time")
}

/// Parses an instant; `None` if `text` is not RFC 3339.
pub fn from_text(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// For `#[serde(with = "…")]`: an instant as text.
pub mod serde_text {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Writes `at` as [`to_text`](super::to_text) does.
    pub fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        super::to_text(*at).serialize(to)
    }

    /// Reads any RFC 3339 instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        super::from_text(&text)
            .ok_or_else(|| D::Error::custom(format!("wanted an RFC 3339 instant, found {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn instants_survive_to_the_millisecond() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        assert_eq!(to_text(at), "2023-11-14T22:13:20.007Z");
        assert_eq!(to_text(at + Duration::from_micros(999)), to_text(at));
        assert_eq!(from_text(&to_text(at)), Some(at));
        assert_eq!(from_text("yesterday"), None);
    }
}
