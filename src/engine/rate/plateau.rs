//! The rate around a plateau, which lies just under the rate that was throttled.
//!
//! Owns the curve. After a cut the rate returns to the plateau as in TCP's CUBIC (RFC 9438), quickly at first;
//! meanwhile any burst that the service allows refills a little. Then it probes: a little above the plateau, twice as
//! far above it every second, until the service signals that it is too much.

/// What a deep cut takes off, as a share of the plateau: the return from it takes until the plateau's middle.
pub(super) const CUT: f64 = 0.03;
/// Seconds from a cut to the middle of the plateau; longer at low rates, so that a probe costs few requests in
/// comparison.
const MIDDLE: f64 = 12.0;
/// At low rates, how many requests it takes from a cut to the middle of the plateau.
const MIDDLE_REQUESTS: f64 = 50.0;
/// The most seconds from a cut to the middle of the plateau at low rates.
const LONGEST_MIDDLE: f64 = 100.0;
/// The share by which the plateau is longer, at most, if more was throttled than wanted.
const LONGER: f64 = 0.6;
/// A probe begins this share above the plateau.
const PROBE: f64 = 0.01;
/// A probe's height doubles every second or, at low rates, with this many requests.
const DOUBLING_REQUESTS: f64 = 5.0;
/// The most seconds in which a probe doubles at low rates.
const LONGEST_DOUBLING: f64 = 5.0;
/// A probe doubles in no less than this multiple of the time that a throttle takes to show.
const NOTICES: f64 = 2.0;
/// The factor by which probes are slower if the service is silent: an overload shows late there.
const SILENT_DOUBLING: f64 = 2.0;
/// How many seconds after its start a probe rests, if the service is silent.
const REST_AFTER: f64 = 7.0;
/// How many seconds a probe rests, if the service is silent.
const REST: f64 = 6.0;

/// A plateau, and where on it the rate is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plateau {
    height: f64,
    /// Seconds since a full cut.
    clock: f64,
    /// How many seconds after a full cut the plateau ends and the probe begins.
    middle: f64,
    /// Seconds in which a probe doubles.
    doubling: f64,
    is_silent: bool,
}

impl Plateau {
    /// A plateau at `height` requests per second; `rate` is the rate below it now, and `excess` from 0 to 1 says how
    /// much too much was throttled so far. An overload shows after `notice` seconds; `None` if the service does not
    /// signal it.
    pub(super) fn new(height: f64, rate: f64, excess: f64, notice: Option<f64>) -> Self {
        let middle = MIDDLE.max((MIDDLE_REQUESTS / height).min(LONGEST_MIDDLE)) * (1.0 + LONGER * excess);
        let below = (1.0 - rate / height).max(0.0);
        let clock = middle * (1.0 - (below / CUT).cbrt());
        let doubling = (DOUBLING_REQUESTS / height).clamp(1.0, LONGEST_DOUBLING);
        let doubling = notice.map_or(SILENT_DOUBLING * doubling, |notice| doubling.max(NOTICES * notice));
        Self { height, clock, middle, doubling, is_silent: notice.is_none() }
    }

    pub(super) fn height(&self) -> f64 {
        self.height
    }

    /// Whether the rate is probing above the plateau.
    pub(super) fn is_probing(&self) -> bool {
        self.clock > self.middle
    }

    /// Ends the plateau, so that the probe begins.
    pub(super) fn probe(&mut self) {
        self.clock = self.clock.max(self.middle);
    }

    /// The rate after this many more seconds. A probe rises no further while something looks wrong.
    pub(super) fn rate_after(&mut self, seconds: f64, looks_wrong: bool) -> f64 {
        if !(looks_wrong && self.is_probing()) {
            self.clock += seconds;
        }
        let beyond = self.clock - self.middle;
        if beyond <= 0.0 {
            return self.height * (1.0 + CUT * (beyond / self.middle).powi(3));
        }
        let is_rested = self.is_silent && beyond > REST_AFTER;
        let rising = if is_rested { (beyond - REST).max(REST_AFTER) } else { beyond };
        self.height * (1.0 + PROBE * ((rising / self.doubling).exp2() - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_from_a_cut_stays_and_probes_ever_faster() {
        for (notice, twice_within) in [(Some(0.1), 20.0), (None, 35.0)] {
            let mut plateau = Plateau::new(100.0, 97.0, 0.0, notice);
            let rates: Vec<f64> = (1..=40).map(|_| plateau.rate_after(1.0, false)).collect();
            assert!(rates.is_sorted(), "{rates:?}");
            assert!(rates[0] > 97.0 && rates[10] < 100.0 && rates[11] < 100.1, "{rates:?}");
            let twice = rates.iter().position(|rate| *rate > 200.0).unwrap() as f64;
            assert!((15.0..twice_within).contains(&twice), "{rates:?}");
        }
    }

    #[test]
    fn a_probe_waits_while_something_looks_wrong() {
        let mut plateau = Plateau::new(100.0, 97.0, 0.0, Some(0.1));
        let before = plateau.rate_after(15.0, true);
        assert!(plateau.is_probing());
        assert_eq!(plateau.rate_after(10.0, true), before);
        assert!(plateau.rate_after(1.0, false) > before);
    }

    #[test]
    fn too_much_throttled_makes_it_longer() {
        let ends = |excess| {
            let mut plateau = Plateau::new(100.0, 97.0, excess, Some(0.1));
            (1..).find(|_| {
                plateau.rate_after(1.0, false);
                plateau.is_probing()
            })
        };
        assert!(ends(1.0) > ends(0.0));
    }
}
