//! Rates, as people write them: `10/s`.
//!
//! Owns the value and its syntax. Limiting is the engine's.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A positive number of events per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// `n` events per second; `None` unless `n` is a positive number of at most a million.
    pub fn per_second(n: f64) -> Option<Self> {
        (n.is_finite() && n > 0.0 && n <= MAX_PER_SECOND).then_some(Self(n))
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

#[cfg(test)]
mod tests {
    use super::*;

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
