//! Rates as users write them: `10/s`.
//!
//! Owns the values and their syntax; the engine does the limiting.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A positive number of events per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// A rate of `n` events per second; `None` unless `n` is a positive number of at most a million.
    pub const fn per_second(n: f64) -> Option<Self> {
        if n.is_finite() && n > 0.0 && n <= MAX_PER_SECOND { Some(Self(n)) } else { None }
    }

    /// Events per second.
    pub fn as_per_second(self) -> f64 {
        self.0
    }

    /// The time between two events at this rate.
    pub fn period(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0)
    }
}

const MAX_PER_SECOND: f64 = 1_000_000.0;

/// Text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}; wanted a rate such as 10/s, 0.5/s or 300/min, more than 0 and at most 1000000/s")]
pub struct NotARate {
    found: String,
}

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let not_a_rate = || NotARate { found: text.to_owned() };
        let (number, unit) = text.split_once('/').ok_or_else(not_a_rate)?;
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1.0,
            "m" | "min" | "minute" => 60.0,
            "h" | "hour" => 3600.0,
            _ => return Err(not_a_rate()),
        };
        let number: f64 = number.trim().parse().map_err(|_| not_a_rate())?;
        Rate::per_second(number / seconds).ok_or_else(not_a_rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// The rate limit of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RateLimit {
    /// No limit until the service throttles.
    #[default]
    Unlimited,
    /// At most this rate, and less while the service throttles.
    Fixed(Rate),
    /// The rate that the service is found to sustain: starts low, grows, and settles just below the rate at which it
    /// throttles.
    Auto,
}

impl RateLimit {
    /// A fixed limit of `n` per second; [`RateLimit::Unlimited`] if `n` is not a valid rate.
    pub fn per_second(n: f64) -> Self {
        Rate::per_second(n).into()
    }

    /// The rate that must never be exceeded, if one is set.
    pub fn fixed(self) -> Option<Rate> {
        match self {
            RateLimit::Fixed(rate) => Some(rate),
            RateLimit::Unlimited | RateLimit::Auto => None,
        }
    }
}

impl From<Option<Rate>> for RateLimit {
    /// `None` means unlimited.
    fn from(rate: Option<Rate>) -> Self {
        rate.map_or(RateLimit::Unlimited, RateLimit::Fixed)
    }
}

/// Text that is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}, or `auto` or `unlimited`")]
pub struct NotALimit(#[from] NotARate);

impl FromStr for RateLimit {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        match text {
            "auto" => Ok(RateLimit::Auto),
            "unlimited" => Ok(RateLimit::Unlimited),
            _ => Ok(RateLimit::Fixed(text.parse()?)),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RateLimit::Unlimited => f.write_str("unlimited"),
            RateLimit::Fixed(rate) => rate.fmt(f),
            RateLimit::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_shown() {
        for text in ["auto", "unlimited", "10/s", "0.5/s"] {
            assert_eq!(text.parse::<RateLimit>().map(|limit| limit.to_string()).as_deref(), Ok(text));
        }
        let error = "Auto".parse::<RateLimit>().unwrap_err().to_string();
        assert!(error.contains("\"Auto\"") && error.contains("`auto`"), "{error}");
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, per_second) in
            [("10/s", 10.0), ("0.5/s", 0.5), ("300/min", 5.0), ("3600/h", 1.0), ("1000000/s", 1e6)]
        {
            assert_eq!(text.parse::<Rate>().map(Rate::as_per_second), Ok(per_second), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in ["", "10", "/s", "10/", "10/d", "-1/s", "0/s", "nan/s", "inf/s", "1e7/s", "ten/s"] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("10/s"), "{error}");
        }
    }
}
