//! Latencies of one kind, as an HDR histogram.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// The longest latency that is distinguished, one hour; a longer one is recorded as this.
pub const MAX_LATENCY_US: u64 = 3_600_000_000;

/// Significant decimal digits of every latency.
const DIGITS: u8 = 3;

/// Latencies of one kind, in microseconds, to three significant digits.
///
/// Uses no memory until the first is recorded, and then as much as the longest one needs: 16 KiB for a few milliseconds, at most
/// 190 KiB. Two histograms of the same latencies give the same figures, however they came about.
#[derive(Debug, Clone, Default)]
pub struct Latency(Option<Box<Histogram<u64>>>);

impl Latency {
    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US);
        self.histogram().record(us.clamp(1, MAX_LATENCY_US)).expect("the histogram grows with its values");
    }

    /// Adds all of `other`'s latencies: the result is exactly what recording them here would have given.
    pub fn merge(&mut self, other: &Self) {
        if let Some(other) = &other.0 {
            self.histogram().add(&**other).expect("the histogram grows with its values");
        }
    }

    /// What was recorded since `earlier`, an older copy of this one.
    ///
    /// # Panics
    ///
    /// If `earlier` is not an older copy: if it has a latency more often than this one.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        if let (Some(later), Some(earlier)) = (&mut later.0, &earlier.0) {
            later.subtract(&**earlier).expect("an older copy has nothing that the newer one has not");
        }
        later
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// How many were at most `latency`, to the histogram's precision.
    pub fn count_at_most(&self, latency: Duration) -> u64 {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(MAX_LATENCY_US);
        self.0.as_ref().map_or(0, |histogram| histogram.count_between(0, us))
    }

    /// The recorded latencies in microseconds, ascending, each with how often it was recorded.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = self.0.iter().flat_map(|histogram| histogram.iter_recorded());
        all.map(|value| (value.value_iterated_to(), value.count_at_value()))
    }

    /// The latency at `quantile` (0 to 1), in microseconds; 0 if nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }

    /// The figures that reports show, in microseconds; all are zero if nothing was recorded.
    pub fn figures(&self) -> LatencyFigures {
        let Some(histogram) = &self.0 else { return LatencyFigures::default() };
        LatencyFigures {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }

    /// The percentile curve: quantiles with their latencies in microseconds. `points` of them for each further nine of the
    /// percentage (0, 90, 99 %, …), the median, and at last the longest latency at quantile 1. Two curves with the same count
    /// have the same quantiles. Empty if nothing was recorded.
    pub fn curve(&self, points: u32) -> Vec<(f64, u64)> {
        let Some(histogram) = &self.0 else { return Vec::new() };
        let least = 1.0 / histogram.len() as f64;
        let beyond = (0..).map(|n| 10_f64.powf(-f64::from(n) / f64::from(points)));
        let mut quantiles: Vec<f64> =
            beyond.take_while(|beyond| *beyond >= least).map(|beyond| 1.0 - beyond).chain([0.5]).collect();
        quantiles.sort_by(f64::total_cmp);
        quantiles.dedup();
        let point = |quantile| (quantile, histogram.value_at_quantile(quantile));
        quantiles.into_iter().chain([1.0]).map(point).collect()
    }

    /// HdrHistogram's own form: V2, deflated, as base64; every implementation of HdrHistogram reads it.
    ///
    /// Always with the range 1 us to 1 h and three digits, whatever was recorded, for readers that only merge equal ranges.
    pub fn encode(&self) -> String {
        let mut full = Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS).expect(BOUNDS_ARE_VALID);
        if let Some(histogram) = &self.0 {
            full.add(&**histogram).expect("no recorded latency is above an hour");
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&full, &mut bytes)
            .expect("memory takes all that is written to it");
        BASE64.encode(bytes)
    }

    /// Decodes what [`encode`](Self::encode) wrote; of other programs, histograms with the same range and digits.
    pub fn decode(text: &str) -> Result<Self, NotALatency> {
        let bytes = BASE64.decode(text).map_err(|error| NotALatency(format!("not base64: {error}")))?;
        let plain = inflated(&bytes)?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &plain[..])
            .map_err(|error| NotALatency(error.to_string()))?;
        let mut latency = Self::default();
        if !histogram.is_empty() {
            latency.histogram().add(&histogram).map_err(|error| NotALatency(error.to_string()))?;
        }
        Ok(latency)
    }

    fn histogram(&mut self) -> &mut Histogram<u64> {
        self.0.get_or_insert_with(|| Box::new(Histogram::new(DIGITS).expect(BOUNDS_ARE_VALID)))
    }
}

const BOUNDS_ARE_VALID: &str = "1 us to 1 h with 3 digits are valid bounds";

/// Text that is not a latency histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an HdrHistogram (V2, deflated, base64) of 1 us to 1 h with 3 digits: {0}")]
pub struct NotALatency(String);

/// The cookies of the V2 encodings, <https://github.com/HdrHistogram/HdrHistogram>, `EncodableHistogram`.
const V2_DEFLATED: u32 = 0x1c84_9314;
const V2: u32 = 0x1c84_9313;
/// The V2 header: cookie, length, offset, digits, lowest, highest, ratio.
const HEADER: usize = 40;
/// More bytes than any histogram of our range takes: each count takes at most nine.
const MAX_INFLATED: u64 = 256 * 1024;

/// The V2 form of a deflated one, its header checked: the library trusts the lengths and ranges that it reads there, and
/// a results file may come from anywhere.
fn inflated(bytes: &[u8]) -> Result<Vec<u8>, NotALatency> {
    let wrong = |what: &str| NotALatency(what.to_owned());
    let Some((cookie, rest)) = bytes.split_first_chunk::<4>() else { return Err(wrong("it is too short")) };
    if u32::from_be_bytes(*cookie) != V2_DEFLATED {
        return Err(wrong("the cookie is another"));
    }
    let deflated = rest.get(4..).ok_or_else(|| wrong("it is too short"))?;
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(MAX_INFLATED)
        .read_to_end(&mut plain)
        .map_err(|error| NotALatency(format!("it does not inflate: {error}")))?;
    let header = plain.get(..HEADER).ok_or_else(|| wrong("its header is cut off"))?;
    let word = |at: usize| header[at..at + 4].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let long = |at: usize| word(at) << 32 | word(at + 4);
    if word(0) != u64::from(V2) {
        return Err(wrong("the inner cookie is another"));
    }
    if word(4) != (plain.len() - HEADER) as u64 {
        return Err(wrong("its length is not what its header says"));
    }
    if (word(12), long(16), long(24)) != (u64::from(DIGITS), 1, MAX_LATENCY_US) {
        return Err(wrong("its range or digits are others"));
    }
    Ok(plain)
}

/// Percentiles of a [`Latency`], in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LatencyFigures {
    /// Half were at most this.
    pub p50: u64,
    /// 90 % were at most this.
    pub p90: u64,
    /// 99 % were at most this.
    pub p99: u64,
    /// 99.9 % were at most this.
    pub p99_9: u64,
    /// All were at most this.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(latencies: &[u64]) -> Latency {
        let mut latency = Latency::default();
        latencies.iter().for_each(|us| latency.record(Duration::from_micros(*us)));
        latency
    }

    /// The V2 form of `latency`, to be spoilt.
    fn plain(latency: &Latency) -> Vec<u8> {
        inflated(&BASE64.decode(latency.encode()).unwrap()).unwrap()
    }

    fn deflated(plain: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        let body = encoder.finish().unwrap();
        let mut bytes = V2_DEFLATED.to_be_bytes().to_vec();
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&body);
        BASE64.encode(bytes)
    }

    #[test]
    fn what_was_recorded_since_is_what_an_older_copy_has_not() {
        let (mut latency, mut later) = (Latency::default(), Latency::default());
        for us in [5, 900, 3_000_000] {
            latency.record(Duration::from_micros(us));
        }
        let earlier = latency.clone();
        for us in [5, 7_000, 7_000_000_000] {
            latency.record(Duration::from_micros(us));
            later.record(Duration::from_micros(us));
        }
        assert_eq!(latency.since(&earlier).figures(), later.figures());
        assert_eq!(latency.since(&latency).count(), 0);
        assert_eq!(earlier.since(&Latency::default()).figures(), earlier.figures());
    }

    #[test]
    fn a_latency_beyond_an_hour_is_recorded_as_an_hour() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(10_000));
        assert!(latency.figures().max >= MAX_LATENCY_US);
        assert_eq!(latency.count(), 1);
        assert_eq!(Latency::decode(&latency.encode()).unwrap().figures(), latency.figures());
    }

    #[test]
    fn nothing_is_encoded_as_nothing() {
        let latency = Latency::decode(&Latency::default().encode()).unwrap();
        assert_eq!((latency.count(), latency.figures()), (0, LatencyFigures::default()));
        assert!(latency.curve(12).is_empty());
    }

    #[test]
    fn the_curve_rises_to_the_longest() {
        let latency = of(&(1..=10_000).collect::<Vec<_>>());
        let curve = latency.curve(12);
        assert!(curve.windows(2).all(|two| two[0] <= two[1]), "{curve:?}");
        assert_eq!(curve.last(), Some(&(1.0, latency.figures().max)));
        for (quantile, us) in [(0.5, latency.figures().p50), (0.9, latency.figures().p90)] {
            assert!(curve.contains(&(quantile, us)), "{quantile} in {curve:?}");
        }
    }

    #[test]
    fn how_many_were_at_most_so_long_is_told() {
        let latency = of(&[10, 20, 30, 2_000_000]);
        let at_most = |us| latency.count_at_most(Duration::from_micros(us));
        assert_eq!([at_most(9), at_most(20), at_most(30), at_most(u64::MAX)], [0, 2, 3, 4]);
    }

    #[test]
    fn what_lies_about_its_size_or_range_is_refused() {
        let good = plain(&of(&[1, 1000, 1_000_000]));
        assert!(Latency::decode(&deflated(&good)).is_ok());
        // Length, digits, lowest and highest, each one up.
        for at in [7, 15, 23, 31] {
            let mut bad = good.clone();
            bad[at] += 1;
            assert!(Latency::decode(&deflated(&bad)).is_err(), "byte {at}");
        }
        let bomb = deflated(&vec![0; 10_000_000]);
        assert!(Latency::decode(&bomb).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn encoding_keeps_every_figure(latencies in prop::collection::vec(1..2 * MAX_LATENCY_US, 0..200)) {
            let latency = of(&latencies);
            let again = Latency::decode(&latency.encode()).unwrap();
            prop_assert_eq!(again.figures(), latency.figures());
            prop_assert_eq!(again.curve(12), latency.curve(12));
            prop_assert_eq!(again.encode(), latency.encode());
        }

        #[test]
        fn merging_equals_recording_all_in_one(
            left in prop::collection::vec(1..MAX_LATENCY_US, 0..100),
            right in prop::collection::vec(1..100_000_u64, 0..100),
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let whole = of(&[left, right].concat());
            prop_assert_eq!(merged.figures(), whole.figures());
            prop_assert_eq!(merged.encode(), whole.encode());
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,80}", at in 0..200_usize, byte: u8) {
            let _ = Latency::decode(&text);
            let mut spoilt = plain(&of(&[5, 50_000, 1_000_000]));
            let at = at % spoilt.len();
            spoilt[at] = byte;
            let _ = Latency::decode(&deflated(&spoilt));
        }
    }
}
