//! One step of a search: what is tried, what is seen, and what that means.

use std::time::Duration;

/// A rate to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Requests per second.
    pub rate: f64,
    /// Before it, and without a pause: at which rate and for how long to spend what a burst allows.
    pub drain: Option<(f64, Duration)>,
    /// How long to offer the rate before it counts.
    pub settle: Duration,
    /// How long to offer it so that it counts.
    pub measure: Duration,
}

/// What came of the requests that were due in the time that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    /// Requests that were due.
    pub due: u64,
    /// Those that found no free connection in time, and were never sent.
    pub missed: u64,
    /// Done as asked.
    pub accepted: u64,
    /// Refused for their rate (429).
    pub throttled: u64,
    /// Refused otherwise.
    pub refused: u64,
    /// Without any answer in time.
    pub silent: u64,
    /// Ended by the connection's end.
    pub hung_up: u64,
    /// Half of the accepted took at most this, from sending to the reply.
    pub p50: Duration,
    /// 99 % of the accepted took at most this.
    pub p99: Duration,
    /// For half of the accepted, at most so long passed from the instant they were due to the instant they were sent: this
    /// side's own delay.
    pub waited: Duration,
    /// From the first instant that counts until the last of these requests had ended.
    pub took: Duration,
}

/// A sign that a request was one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Refused for their rate.
    Throttled,
    /// Refused otherwise.
    Refused,
    /// No answer.
    Silent,
    /// The connection ended.
    HungUp,
}

/// How a service shows that it does not sustain a rate. Reports have it by its [`name`](Self::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// It says so: 429.
    Throttled,
    /// It refuses requests without saying that it is for their rate.
    Refused,
    /// It does not answer: no PUBACK, or no reply.
    Silent,
    /// It ends connections.
    HungUp,
    /// It answers more and more slowly.
    Slow,
}

impl Breach {
    /// The name in reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Breach::Throttled => "throttled",
            Breach::Refused => "refused",
            Breach::Silent => "silent",
            Breach::HungUp => "hung_up",
            Breach::Slow => "slow",
        }
    }
}

/// What a step showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service bore it.
    Held,
    /// The service did not.
    Broke(Breach),
    /// This side did not offer it: too many requests found no free connection, or found one too late.
    Short,
}

/// A step that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What was tried.
    pub probe: Probe,
    /// What was seen.
    pub observation: Observation,
    /// What it means.
    pub verdict: Verdict,
    /// Whether it is tried once more before it counts.
    pub is_doubtful: bool,
}

/// So many requests are wanted in a step on the way up, and so long it takes at least and at most.
const COARSE: (f64, Duration, Duration) = (20.0, Duration::from_secs(3), Duration::from_secs(40));
/// The same near the limit, where one request in a hundred counts.
const FINE: (f64, Duration, Duration) = (200.0, Duration::from_secs(4), Duration::from_secs(60));
const COARSE_SETTLE: Duration = Duration::from_secs(1);
/// Longer than the second over which most services count.
const FINE_SETTLE: Duration = Duration::from_millis(1_500);

impl Probe {
    pub(super) fn coarse(rate: f64) -> Self {
        Self { rate, drain: None, settle: COARSE_SETTLE, measure: whole_seconds(rate, COARSE) }
    }

    pub(super) fn fine(rate: f64, drain: Option<(f64, Duration)>, times: u32) -> Self {
        Self { rate, drain, settle: FINE_SETTLE, measure: whole_seconds(rate, FINE) * times }
    }

    /// How many requests it takes, at most.
    pub fn requests(&self) -> u64 {
        let drain = self.drain.map_or(0.0, |(rate, time)| rate * time.as_secs_f64());
        let rest = self.rate * (self.settle + self.measure).as_secs_f64();
        (drain + rest).ceil() as u64 + 2
    }

    /// How long it takes until the last request is due.
    pub fn time(&self) -> Duration {
        self.drain.map_or(Duration::ZERO, |(_, time)| time) + self.settle + self.measure
    }
}

/// Whole seconds: a service that counts by the second then shows the same number of its windows in each measurement.
fn whole_seconds(rate: f64, (requests, least, most): (f64, Duration, Duration)) -> Duration {
    let seconds = (requests / rate).ceil().min(most.as_secs_f64());
    Duration::from_secs(seconds as u64).clamp(least, most)
}

impl Observation {
    /// What the service accepted per second under overload: close to what it sustains.
    pub(super) fn capacity(&self, probe: &Probe, breach: Breach) -> f64 {
        match breach {
            // It did all of them, but took longer than they were offered for.
            Breach::Slow => {
                let offered = probe.settle + probe.measure;
                let took = (probe.settle + self.took).max(offered);
                let share = self.accepted as f64 / self.due.max(1) as f64;
                probe.rate * share * offered.as_secs_f64() / took.as_secs_f64()
            }
            _ => self.accepted as f64 / probe.measure.as_secs_f64(),
        }
    }

    fn sent(&self) -> u64 {
        self.due.saturating_sub(self.missed)
    }

    fn signs(&self) -> [(Sign, u64); 4] {
        [
            (Sign::Throttled, self.throttled),
            (Sign::Refused, self.refused),
            (Sign::Silent, self.silent),
            (Sign::HungUp, self.hung_up),
        ]
    }
}

/// How a service performs under a load that it sustains.
#[derive(Debug, Clone, Default)]
pub(super) struct Usual {
    sent: u64,
    /// Failures that are there at any rate, in the order of [`Observation::signs`].
    failures: [u64; 4],
    /// The lowest p50 so far.
    p50: Option<Duration>,
}

/// Of so many requests one may fail, on top of what is usual.
const TOLERATED: f64 = 0.01;
/// Where requests are sent later than this, it is not the rate that is tried.
const PUNCTUAL: Duration = Duration::from_millis(100);
const SLOWER: u32 = 3;
const NOTICEABLE: Duration = Duration::from_millis(10);

impl Usual {
    /// Judges a step, and learns from it if its rate was sustained.
    pub(super) fn judge(&mut self, probe: &Probe, seen: &Observation, max_p99: Option<Duration>) -> Verdict {
        let verdict = self.verdict(seen, max_p99);
        if verdict == Verdict::Held {
            self.learn(probe, seen);
        }
        verdict
    }

    fn verdict(&self, seen: &Observation, max_p99: Option<Duration>) -> Verdict {
        let sent = seen.sent() as f64;
        let failures = seen.signs();
        let excess = |(n, (sign, count)): (usize, &(Sign, u64))| {
            // A throttle is never chance. Anything else may be, the more so the less has been seen of this service.
            let usual = match sign {
                Sign::Throttled => 0.0,
                _ => (self.failures[n] + 1) as f64 / (self.sent + 20) as f64,
            };
            let expected = sent * usual;
            *count as f64 - (1.0 + sent * TOLERATED + expected + expected.sqrt())
        };
        let worst = failures.iter().enumerate().map(|failure| (excess(failure), failure.1.0));
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0));
        // Where nothing at all is done, it need not be many.
        let has_failed = |excess: f64| excess > 0.0 || (seen.accepted == 0 && sent > 0.0);
        if let Some((_, sign)) = worst.filter(|(excess, _)| has_failed(*excess)) {
            return Verdict::Broke(match sign {
                Sign::Throttled => Breach::Throttled,
                Sign::Refused => Breach::Refused,
                Sign::Silent => Breach::Silent,
                Sign::HungUp => Breach::HungUp,
            });
        }
        let is_slow = self.p50.is_some_and(|usual| seen.p50 > (usual * SLOWER).max(usual + NOTICEABLE));
        if is_slow || max_p99.is_some_and(|most| seen.p99 > most) {
            return Verdict::Broke(Breach::Slow);
        }
        if seen.waited > PUNCTUAL || seen.missed as f64 > 1.0 + TOLERATED * seen.due as f64 {
            return Verdict::Short;
        }
        Verdict::Held
    }

    fn learn(&mut self, probe: &Probe, seen: &Observation) {
        self.sent += seen.sent();
        for (total, (_, count)) in self.failures.iter_mut().zip(seen.signs()) {
            *total += count;
        }
        // What a drain left to be done may make the first of these slower.
        if seen.accepted > 0 && probe.drain.is_none() {
            self.p50 = Some(self.p50.map_or(seen.p50, |p50| p50.min(seen.p50)));
        }
    }
}
