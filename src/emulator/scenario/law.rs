//! Latency laws: distributions of how long something takes.
//!
//! Owns the laws, their TOML notation, and the quantile function that draws and tests share. Draws nothing itself: a
//! draw is [`LatencyLaw::quantile`] of a uniform number, so that draws can be compared with the true distribution.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::units::{self, parse_duration};

/// The longest latency that any law gives: waits need a bound.
pub const LONGEST_LATENCY: Duration = Duration::from_secs(60 * 60);

const WANTED: &str = "a latency such as \"5ms\", \"5ms..20ms\", \"5ms 99%, 100ms 1%\" or { median = \"20ms\", p99 = \"150ms\" }";

/// The distance from the median to the 99th percentile of the normal distribution, in standard deviations.
const P99_SIGMAS: f64 = 2.326_347_874_040_841;
/// The largest sigma of a log-normal law. At this sigma the 99th percentile is already 13 million times the median; a
/// larger one is a mistake.
const WIDEST_SIGMA: f64 = 7.0;

/// How long something takes: a distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyLaw(Law);

#[derive(Debug, Clone, PartialEq)]
enum Law {
    Constant(Duration),
    /// Each latency with the share of all that take this long or less; the last share is 1.
    Points(Vec<(Duration, f64)>),
    Uniform(Duration, Duration),
    LogNormal {
        median: Duration,
        sigma: f64,
    },
}

/// A text or set of parameters that is not a latency law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found}; wanted {wanted}")]
pub struct NotALaw {
    found: String,
    wanted: &'static str,
}

impl LatencyLaw {
    /// A constant latency.
    pub fn constant(latency: Duration) -> Self {
        Self(Law::Constant(latency.min(LONGEST_LATENCY)))
    }

    /// Latencies uniformly distributed between two, given in either order.
    pub fn uniform(one: Duration, other: Duration) -> Self {
        let (one, other) = (one.min(LONGEST_LATENCY), other.min(LONGEST_LATENCY));
        Self(Law::Uniform(one.min(other), one.max(other)))
    }

    /// One of several latencies, each with its share.
    ///
    /// # Errors
    /// [`NotALaw`] unless the shares are positive and sum to 1.
    pub fn points(points: &[(Duration, f64)]) -> Result<Self, NotALaw> {
        const SHARES: &str = "shares above 0% that are 100% together";
        let wrong = |found: String| NotALaw { found, wanted: SHARES };
        let mut sorted = points.to_vec();
        sorted.sort_by_key(|(latency, _)| *latency);
        let mut sum = 0.0;
        for (latency, share) in &mut sorted {
            if !(*share > 0.0 && *share <= 1.0) {
                return Err(wrong(format!("a share of {}%", *share * 100.0)));
            }
            sum += *share;
            (*latency, *share) = ((*latency).min(LONGEST_LATENCY), sum);
        }
        // Ten times 0.1 sums to a little less than 1.
        match sorted.last_mut() {
            Some((_, last)) if (sum - 1.0).abs() < 1e-9 => *last = 1.0,
            _ => return Err(wrong(format!("shares of {}% together", sum * 100.0))),
        }
        Ok(Self(Law::Points(sorted)))
    }

    /// Log-normal: half of all take longer than `median`, and `sigma` is the logarithm's standard deviation.
    ///
    /// # Errors
    /// [`NotALaw`] unless sigma is from 0 to 7, and the median above zero and at most an hour.
    pub fn log_normal(median: Duration, sigma: f64) -> Result<Self, NotALaw> {
        if !(0.0..=WIDEST_SIGMA).contains(&sigma) {
            return Err(NotALaw { found: format!("a sigma of {sigma}"), wanted: "a sigma from 0 to 7" });
        }
        if median.is_zero() || median > LONGEST_LATENCY {
            let found = format!("a median of {median:?}");
            return Err(NotALaw { found, wanted: "a median above 0 and at most 1h" });
        }
        Ok(Self(Law::LogNormal { median, sigma }))
    }

    /// The latency that the share `q` of all stays within: the smallest `t` such that at least that share takes `t` or
    /// less. `q` is clamped to 0 to 1. The result is at most [`LONGEST_LATENCY`].
    pub fn quantile(&self, q: f64) -> Duration {
        let q = if q > 0.0 { q.min(1.0) } else { 0.0 };
        match &self.0 {
            Law::Constant(latency) => *latency,
            Law::Points(points) => {
                let within = points.iter().find(|(_, share)| *share >= q).or(points.last());
                within.map_or(Duration::ZERO, |(latency, _)| *latency)
            }
            Law::Uniform(least, most) => *least + (*most - *least).mul_f64(q),
            Law::LogNormal { median, sigma } => {
                let seconds = median.as_secs_f64() * (sigma * normal_quantile(q)).exp();
                Duration::from_secs_f64(seconds.min(LONGEST_LATENCY.as_secs_f64()))
            }
        }
    }

    /// Whether every latency is zero.
    pub fn is_zero(&self) -> bool {
        self.quantile(1.0).is_zero()
    }
}

impl Default for LatencyLaw {
    fn default() -> Self {
        Self::constant(Duration::ZERO)
    }
}

impl From<Duration> for LatencyLaw {
    fn from(latency: Duration) -> Self {
        Self::constant(latency)
    }
}

impl FromStr for LatencyLaw {
    type Err = NotALaw;

    /// Reads `5ms`, `5ms..20ms` or `5ms 99%, 100ms 1%`.
    fn from_str(text: &str) -> Result<Self, NotALaw> {
        let wrong = || NotALaw { found: format!("{text:?}"), wanted: WANTED };
        let latency = |text: &str| match parse_duration(text.trim()) {
            Ok(latency) if latency <= LONGEST_LATENCY => Ok(latency),
            Ok(_) => Err(NotALaw { found: format!("{text:?}"), wanted: "a latency of at most 1h" }),
            Err(_) => Err(wrong()),
        };
        if let Some((one, other)) = text.split_once("..") {
            return Ok(Self::uniform(latency(one)?, latency(other)?));
        }
        if !text.contains('%') {
            return latency(text).map(Self::constant);
        }
        let point = |part: &str| {
            let (time, share) = part.trim().split_once(' ').ok_or_else(wrong)?;
            let share = share.trim().strip_suffix('%').ok_or_else(wrong)?;
            let percent: f64 = share.trim_end().parse().map_err(|_| wrong())?;
            Ok((latency(time)?, percent / 100.0))
        };
        Self::points(&text.split(',').map(point).collect::<Result<Vec<_>, _>>()?)
    }
}

impl<'de> Deserialize<'de> for LatencyLaw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InToml)
    }
}

struct InToml;

/// A log-normal law as written in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogNormalTable {
    #[serde(deserialize_with = "units::duration")]
    median: Duration,
    sigma: Option<f64>,
    #[serde(default, deserialize_with = "units::some_duration")]
    p99: Option<Duration>,
}

impl<'de> Visitor<'de> for InToml {
    type Value = LatencyLaw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WANTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<LatencyLaw, E> {
        text.parse().map_err(|NotALaw { found, wanted }| match wanted {
            WANTED => E::invalid_value(Unexpected::Str(text), &self),
            _ => E::custom(format_args!("{found}, expected {wanted}")),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LatencyLaw, A::Error> {
        let LogNormalTable { median, sigma, p99 } =
            LogNormalTable::deserialize(MapAccessDeserializer::new(map))?;
        let sigma = match (sigma, p99) {
            (Some(sigma), None) => sigma,
            (None, Some(p99)) => (p99.as_secs_f64() / median.as_secs_f64()).ln() / P99_SIGMAS,
            (Some(_), Some(_)) => {
                return Err(A::Error::custom("both `sigma` and `p99`, expected one of them"));
            }
            (None, None) => return Err(A::Error::custom("neither `sigma` nor `p99`, expected one of them")),
        };
        let law = LatencyLaw::log_normal(median, sigma);
        law.map_err(|NotALaw { found, wanted }| A::Error::custom(format_args!("{found}, expected {wanted}")))
    }
}

/// The standard normal distribution's quantile function, to about 16 digits: Wichura's algorithm AS 241, PPND16
/// (Applied Statistics 37, 1988). Infinite at 0 and 1.
#[expect(clippy::too_many_lines, reason = "a table of coefficients")]
fn normal_quantile(q: f64) -> f64 {
    const NEAR: ([f64; 8], [f64; 8]) = (
        [
            3.387_132_872_796_366_5,
            133.141_667_891_784_38,
            1_971.590_950_306_551_3,
            13_731.693_765_509_46,
            45_921.953_931_549_87,
            67_265.770_927_008_7,
            33_430.575_583_588_13,
            2_509.080_928_730_122_7,
        ],
        [
            1.0,
            42.313_330_701_600_91,
            687.187_007_492_057_9,
            5_394.196_021_424_751,
            21_213.794_301_586_597,
            39_307.895_800_092_71,
            28_729.085_735_721_943,
            5_226.495_278_852_854,
        ],
    );
    const FAR: ([f64; 8], [f64; 8]) = (
        [
            1.423_437_110_749_683_5,
            4.630_337_846_156_546,
            5.769_497_221_460_691,
            3.647_848_324_763_204_5,
            1.270_458_252_452_368_4,
            0.241_780_725_177_450_6,
            0.022_723_844_989_269_184,
            0.000_774_545_014_278_341_4,
        ],
        [
            1.0,
            2.053_191_626_637_759,
            1.676_384_830_183_803_8,
            0.689_767_334_985_1,
            0.148_103_976_427_480_08,
            0.015_198_666_563_616_457,
            0.000_547_593_808_499_534_5,
            1.050_750_071_644_416_8e-9,
        ],
    );
    const VERY_FAR: ([f64; 8], [f64; 8]) = (
        [
            6.657_904_643_501_103,
            5.463_784_911_164_114,
            1.784_826_539_917_291_3,
            0.296_560_571_828_504_87,
            0.026_532_189_526_576_124,
            0.001_242_660_947_388_078_4,
            2.711_555_568_743_487_6e-5,
            2.010_334_399_292_288_1e-7,
        ],
        [
            1.0,
            0.599_832_206_555_888,
            0.136_929_880_922_735_8,
            0.014_875_361_290_850_615,
            0.000_786_869_131_145_613_2,
            1.846_318_317_510_054_8e-5,
            1.421_511_758_316_446e-7,
            2.044_263_103_389_939_8e-15,
        ],
    );
    let ratio = |(over, under): ([f64; 8], [f64; 8]), x: f64| {
        let at = |terms: [f64; 8]| terms.iter().rev().fold(0.0, |sum, term| sum * x + term);
        at(over) / at(under)
    };
    let off = q - 0.5;
    if off.abs() <= 0.425 {
        return off * ratio(NEAR, 0.180_625 - off * off);
    }
    let r = (-q.min(1.0 - q).ln()).sqrt();
    let magnitude = match r {
        r if r.is_infinite() => f64::INFINITY,
        r if r <= 5.0 => ratio(FAR, r - 1.6),
        r => ratio(VERY_FAR, r - 5.0),
    };
    magnitude.copysign(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(toml: &str) -> LatencyLaw {
        #[derive(Deserialize)]
        struct File {
            law: LatencyLaw,
        }
        toml::from_str::<File>(&format!("law = {toml}")).unwrap().law
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_normal_quantiles_are_those_of_the_tables() {
        // From Python's statistics.NormalDist, and the tables.
        for (q, expected) in [
            (0.5, 0.0),
            (0.75, 0.674_489_750_196_081_7),
            (0.9, 1.281_551_565_544_600_4),
            (0.99, P99_SIGMAS),
            (0.999, 3.090_232_306_167_813_6),
            (0.000_1, -3.719_016_485_455_68),
            (1e-15, -7.941_345_326_170_997),
        ] {
            assert!((normal_quantile(q) - expected).abs() < 1e-12, "{q}: {}", normal_quantile(q));
        }
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn each_law_has_its_quantiles() {
        let constant = law("\"5ms\"");
        assert_eq!([0.0, 0.5, 1.0].map(|q| constant.quantile(q)), [ms(5); 3]);

        let points = law("\"100ms 1%, 5ms 99%\"");
        assert_eq!([0.0, 0.5, 0.99].map(|q| points.quantile(q)), [ms(5); 3]);
        assert_eq!([0.990_001, 0.999, 1.0].map(|q| points.quantile(q)), [ms(100); 3]);

        let uniform = law("\"5ms..25ms\"");
        assert_eq!([0.0, 0.5, 1.0].map(|q| uniform.quantile(q)), [ms(5), ms(15), ms(25)]);

        for log_normal in
            [law("{ median = \"20ms\", p99 = \"150ms\" }"), law("{ median = \"20ms\", sigma = 0.86613 }")]
        {
            assert_eq!(log_normal.quantile(0.5), ms(20));
            let p99 = log_normal.quantile(0.99).as_secs_f64();
            assert!((p99 - 0.15).abs() < 1e-5, "{p99}");
            assert_eq!((log_normal.quantile(0.0), log_normal.quantile(1.0)), (ms(0), LONGEST_LATENCY));
        }
    }

    #[test]
    fn what_is_no_law_is_refused_with_what_was_wanted() {
        #[derive(Debug, Deserialize)]
        struct File {
            #[expect(dead_code, reason = "it is never made")]
            law: LatencyLaw,
        }
        for (wrong, words) in [
            ("\"5\"", "invalid value: string \"5\", expected a latency such as"),
            ("5", "invalid type: integer `5`, expected a latency such as"),
            ("\"5ms..\"", "expected a latency such as"),
            ("\"5ms 99%\"", "shares of 99% together, expected shares above 0%"),
            ("\"5ms 0%, 6ms 100%\"", "a share of 0%"),
            ("\"5ms 101%\"", "a share of 101%"),
            ("\"5ms nan%\"", "a share of NaN%"),
            ("\"2h\"", "expected a latency of at most 1h"),
            ("{ median = \"5ms\" }", "neither `sigma` nor `p99`, expected one of them"),
            ("{ median = \"5ms\", sigma = 1, p99 = \"1s\" }", "both `sigma` and `p99`"),
            ("{ median = \"5ms\", p99 = \"1ms\" }", "a sigma of -0.69"),
            ("{ median = \"0\", p99 = \"1ms\" }", "a sigma of inf"),
            ("{ median = \"5ms\", p95 = \"1s\" }", "unknown field `p95`"),
        ] {
            let error = toml::from_str::<File>(&format!("law = {wrong}")).unwrap_err();
            assert!(error.message().contains(words), "{wrong}: {}", error.message());
        }
    }
}
