//! Tests the hypothesis that requests are lost because of their rate.
//!
//! Owns the test, and no rate but that of a trial. Requests are lost for many reasons, most of them unrelated to the
//! rate. Losses from a quota differ from chance: they end when the rate falls, and return when it rises. The steps:
//!
//! - **Watch.** Compares losses with a baseline, the share that is lost at any rate, second by second (CUSUM). A
//!   single second counts for little: a burst of losses is one event.
//! - **Lower.** If there are more losses than chance explains, tries a rate at which a quota would lose none: just
//!   under what was answered. Do the losses end?
//! - **Again.** If they do, raises the rate again. Do they return? If not, they had ended by themselves, and the
//!   lower rate was not the cause.
//!
//! Only requests sent during a step count for it, and all are judged at the same age ([`super::flight`]).

mod sample;

use std::time::Duration;

use super::flight::{Judged, Sent};
use sample::{Recent, Sample};

/// The initial and lowest baseline: a smaller share of losses is not worth a test.
const LEAST_BASELINE: f64 = 0.01;
/// The highest baseline: a larger share is never taken for chance for long.
const MOST_BASELINE: f64 = 0.35;
/// Losses matter from twice the baseline plus this share.
const EXCESS: f64 = 0.03;
/// The evidence, in nats, that raises an alarm: about one false alarm an hour.
const ALARM: f64 = 9.0;
/// The most evidence, in nats, that one second adds or takes away.
const MOST_A_SECOND: f64 = 3.0;
/// The least number of seconds with losses for an alarm.
const LOSSY_SECONDS: u32 = 4;
/// The evidence, in nats, that raises an alarm above an established limit.
const EXPECTED_ALARM: f64 = 4.0;
/// The least number of seconds with losses for an alarm above an established limit.
const EXPECTED_LOSSY_SECONDS: u32 = 2;
/// The evidence, in nats, that ends a step: odds of 19 to 1. Neither one second nor two can decide it.
const CERTAIN: f64 = 2.944;
/// The most evidence, in nats, that one second of a trial adds or takes away.
const MOST_A_SECOND_OF_A_TRIAL: f64 = 1.2;
/// Losses have ended if they are fewer than before by this factor: the limit is not known more precisely.
const FEWER: f64 = 3.0;
/// The most evidence, in nats, that one loss adds in a trial.
const MOST_A_LOSS: f64 = 1.5;
/// The most evidence, in nats, that one answer takes away in a trial.
const MOST_AN_ANSWER: f64 = 0.5;
/// How long after a change of the rate requests do not count: services count in seconds.
const SETTLING: Duration = Duration::from_millis(1_500);
/// The longest time after a change of the rate for which requests do not count.
const LONGEST_SETTLING: Duration = Duration::from_secs(20);
/// A step that is undecided after this time, and after [`LONGEST_STEP_REQUESTS`] requests, is given up.
const LONGEST_STEP: Duration = Duration::from_secs(120);
/// A step that is undecided after this many requests, and after [`LONGEST_STEP`], is given up.
const LONGEST_STEP_REQUESTS: f64 = 250.0;
/// A trial's rate is at most this share of the rate before, and of the assumed limit unless [`FLOOR`] is higher.
const BELOW: f64 = 0.97;
/// The least rate of a trial, as a share of what was answered in the last minute, unless [`MANY`] are lost for
/// [`LONG`].
const FLOOR: f64 = 0.9;
/// If more than this share is lost for [`LONG`], a quota fell or there is an outage: a trial may then go below
/// [`FLOOR`].
const MANY: f64 = 0.3;
const LONG: Duration = Duration::from_secs(3);
/// The least limit that is assumed, as a share of the rate.
const LEAST_LIMIT: f64 = 0.02;
/// The most by which the second half of a test exceeds the assumed limit, as a factor.
const ABOVE: f64 = 1.25;
/// How long a finding that losses come with the rate holds without another test of its second half.
const ESTABLISHED_FOR: Duration = Duration::from_secs(300);
/// A baseline above this is doubted after [`DOUBTED_AFTER`], and then after twice as long each time.
const DOUBTED_BASELINE: f64 = 0.03;
const DOUBTED_AFTER: Duration = Duration::from_secs(120);
/// A baseline above this is doubted sooner, after [`HIGH_DOUBTED_AFTER`]: it hides more.
const HIGH_BASELINE: f64 = 0.1;
/// How long until a baseline above [`HIGH_BASELINE`] is doubted for the first time.
const HIGH_DOUBTED_AFTER: Duration = Duration::from_secs(30);
/// A baseline is not doubted before this many requests at the present rate.
const DOUBTED_AFTER_REQUESTS: f64 = 600.0;
/// The longest time between two doubts of the baseline, unless requests are few.
const LONGEST_DOUBT: Duration = Duration::from_secs(300);

/// What a test has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// The rate is the cause: requests beyond `limit` per second are lost.
    Rate { limit: f64 },
    /// The rate is not the cause.
    NotRate,
    /// So much is lost, even at a lower rate, that the service handles no more than `limit` per second, whatever the
    /// reason.
    Overload { limit: f64 },
}

pub(super) struct Inquiry {
    /// The share that is lost at any rate.
    baseline: f64,
    step: Step,
    /// When requests of the present step may begin to count.
    settled_at: Duration,
    /// The first request that counts for the present step; `None` until one does.
    first: Option<u64>,
    began: Duration,
    recent: Recent,
    /// When a test last showed that losses come with the rate; `None` if none has.
    established: Option<Duration>,
    /// When to doubt the baseline, and how long to wait before the next doubt.
    doubt: Option<(Duration, Duration)>,
}

enum Step {
    Watch(Watch),
    Lower(Trial),
    Again(Trial),
}

/// Evidence of more losses than the baseline.
#[derive(Default)]
struct Watch {
    evidence: Evidence,
    lossy: u32,
    is_lossy: bool,
    sample: Sample,
}

/// A trial of a rate.
struct Trial {
    rate: f64,
    /// The rate before the trial.
    from: f64,
    /// The limit that a quota is assumed to have, per second.
    limit: f64,
    /// The share that should be lost if the losses of the watch go on.
    lossy: f64,
    /// The share that should be lost if the losses of the watch have ended.
    calm: f64,
    evidence: Evidence,
    sample: Sample,
    /// The sample seen before the trial.
    before: Sample,
}

/// Whether losses go on.
enum GoOn {
    Yes,
    No,
}

/// Evidence in nats, added up by the second.
#[derive(Default)]
struct Evidence {
    sum: f64,
    second: u64,
    gain: f64,
}

impl Inquiry {
    pub(super) fn new() -> Self {
        Self {
            baseline: LEAST_BASELINE,
            step: Step::Watch(Watch::default()),
            settled_at: Duration::ZERO,
            first: None,
            began: Duration::ZERO,
            recent: Recent::default(),
            established: None,
            doubt: None,
        }
    }

    /// The rate being tried; `None` outside a trial.
    pub(super) fn trial(&self) -> Option<f64> {
        match &self.step {
            Step::Watch(_) => None,
            Step::Lower(trial) | Step::Again(trial) => Some(trial.rate),
        }
    }

    /// Whether this is a bad time to raise the rate by much.
    pub(super) fn is_suspicious(&self) -> bool {
        self.trial().is_some() || self.recent.is_lossy(self.baseline)
    }

    /// The share that is lost at any rate; `None` unless a test has shown one.
    pub(super) fn unrelated(&self) -> Option<f64> {
        (self.baseline > LEAST_BASELINE).then_some(self.baseline)
    }

    /// Notes that a request is sent. Requests come in order of their numbers.
    pub(super) fn sent(&mut self, number: u64, now: Duration) {
        if self.first.is_none() && now >= self.settled_at {
            self.first = Some(number);
        }
    }

    /// Starts afresh: requests under way no longer count, later ones do.
    pub(super) fn forget(&mut self, now: Duration) {
        self.begin(Step::Watch(Watch::default()), Duration::ZERO, now);
    }

    /// Takes in a request that has come of age. `rate` is the rate that applies outside a trial.
    pub(super) fn judge(
        &mut self,
        judged: Judged,
        rate: f64,
        is_probe: bool,
        now: Duration,
    ) -> Option<Finding> {
        if self.first.is_none_or(|first| judged.sent.number < first) {
            return None;
        }
        self.recent.add(&judged, self.trial().is_none());
        if matches!(self.step, Step::Watch(_)) {
            self.watch(&judged, rate, is_probe, now);
            return None;
        }
        self.try_out(&judged, rate, now)
    }

    fn watch(&mut self, judged: &Judged, rate: f64, is_probe: bool, now: Duration) {
        let is_expected = is_probe && self.is_established(now);
        let Step::Watch(watch) = &mut self.step else { return };
        if watch.judge(judged, self.baseline, is_expected) {
            let sample = watch.sample.clone();
            self.lower(sample, rate, now);
        } else if self.is_doubtful(now) {
            self.baseline = LEAST_BASELINE;
            self.lower(self.recent.sample(), rate, now);
        } else if self.baseline > LEAST_BASELINE {
            self.follow_down();
        }
    }

    fn try_out(&mut self, judged: &Judged, rate: f64, now: Duration) -> Option<Finding> {
        let (is_lower, trial) = match &mut self.step {
            Step::Watch(_) => return None,
            Step::Lower(trial) => (true, trial),
            Step::Again(trial) => (false, trial),
        };
        let verdict = trial.judge(judged);
        if trial.is_endless(now.saturating_sub(self.began)) {
            return self.acquit(rate, now);
        }
        match (is_lower, verdict?) {
            (true, GoOn::Yes) => self.blame_chance(rate, now),
            // A recent test has already shown it.
            (true, GoOn::No) if self.is_established(now) => self.blame_rate(now),
            (true, GoOn::No) => {
                self.again(now);
                None
            }
            (false, GoOn::Yes) => {
                self.established = Some(now);
                self.blame_rate(now)
            }
            (false, GoOn::No) => self.acquit(rate, now),
        }
    }

    fn begin(&mut self, step: Step, settling: Duration, now: Duration) {
        (self.step, self.first) = (step, None);
        (self.began, self.settled_at) = (now, now + settling.min(LONGEST_SETTLING));
    }

    fn lower(&mut self, sample: Sample, from: f64, now: Duration) {
        let answered = sample.answered_per_second().unwrap_or(from * (1.0 - sample.share()));
        let limit = (answered / (1.0 - self.baseline)).min(from).max(from * LEAST_LIMIT);
        let is_plain = sample.share() > MANY && sample.span() >= LONG;
        let floor = if is_plain { 0.0 } else { FLOOR * self.recent.answered_per_second(now) };
        // The fewer were answered, the less is known of the limit.
        let below = BELOW - 1.5 / (answered * sample.span().as_secs_f64()).max(15.0);
        let rate = (limit * below).max(floor).min(from * BELOW);
        let lossy = sample.share().max(1.5 * self.baseline).min(0.95);
        let calm = self.expected(limit, rate).max(lossy / FEWER).min(lossy / 1.2);
        let trial = Trial {
            rate,
            from,
            limit,
            lossy,
            calm,
            evidence: Evidence::default(),
            sample: Sample::default(),
            before: sample,
        };
        self.begin(Step::Lower(trial), SETTLING, now);
    }

    fn again(&mut self, now: Duration) {
        let Step::Lower(lower) = &self.step else { return };
        let rate = lower.from.min(lower.limit * ABOVE);
        // A bucket has filled a little meanwhile, and takes this long to be empty again.
        let saved = (lower.limit - lower.rate).max(0.0) * now.saturating_sub(self.began).as_secs_f64();
        let settling = Duration::try_from_secs_f64(2.0 * saved / (rate - lower.limit).max(1e-9));
        let settling = SETTLING + settling.unwrap_or(LONGEST_SETTLING).min(LONGEST_SETTLING);
        let trial = Trial {
            rate,
            from: lower.from,
            limit: lower.limit,
            lossy: if rate < lower.from { self.expected(lower.limit, rate) } else { lower.lossy },
            calm: 0.0,
            evidence: Evidence::default(),
            sample: Sample::default(),
            before: lower.sample.clone(),
        };
        let calm = self.baseline.max(trial.lossy / FEWER).min(trial.lossy / 1.2);
        let trial = Trial { calm, ..trial };
        self.begin(Step::Again(trial), settling, now);
    }

    /// Concludes that the losses come with the rate. What was lost at the lower rate is lost at any rate.
    fn blame_rate(&mut self, now: Duration) -> Option<Finding> {
        let (limit, calm) = match &self.step {
            Step::Watch(_) => return None,
            Step::Lower(trial) => (trial.limit.max(trial.rate), trial.sample.ceiling()),
            Step::Again(trial) => (trial.limit, trial.before.ceiling()),
        };
        self.baseline = self.baseline.min(calm).max(LEAST_BASELINE);
        self.begin(Step::Watch(Watch::default()), SETTLING, now);
        Some(Finding::Rate { limit })
    }

    fn is_established(&self, now: Duration) -> bool {
        self.established.is_some_and(|at| now.saturating_sub(at) < ESTABLISHED_FOR)
    }

    /// Concludes that the losses are chance, since they go on at the lower rate: their share becomes the baseline.
    fn blame_chance(&mut self, rate: f64, now: Duration) -> Option<Finding> {
        let Step::Lower(trial) = &self.step else { return None };
        let share = trial.before.with(&trial.sample).share();
        if trial.sample.share() > MANY {
            let limit = trial.rate * (1.0 - trial.sample.share());
            self.begin(Step::Watch(Watch::default()), SETTLING, now);
            return Some(Finding::Overload { limit });
        }
        self.baseline = self.baseline.max(share).min(MOST_BASELINE);
        self.doubt_later(rate, now);
        self.begin(Step::Watch(Watch::default()), SETTLING, now);
        Some(Finding::NotRate)
    }

    /// Concludes that the losses ended by themselves. Such losses happen, so the baseline includes them.
    fn acquit(&mut self, rate: f64, now: Duration) -> Option<Finding> {
        let seen = self.recent.sample().share().min(2.0 * self.baseline + EXCESS);
        self.baseline = self.baseline.max(seen).min(MOST_BASELINE);
        self.doubt_later(rate, now);
        self.begin(Step::Watch(Watch::default()), SETTLING, now);
        Some(Finding::NotRate)
    }

    fn doubt_later(&mut self, rate: f64, now: Duration) {
        let first = if self.baseline > HIGH_BASELINE { HIGH_DOUBTED_AFTER } else { DOUBTED_AFTER };
        let wait = self.doubt.map_or(first, |(_, wait)| (wait * 2).min(LONGEST_DOUBT));
        let requests = Duration::from_secs_f64((DOUBTED_AFTER_REQUESTS / rate.max(0.001)).min(86_400.0));
        self.doubt = Some((now + wait.max(requests), wait));
    }

    fn is_doubtful(&self, now: Duration) -> bool {
        self.baseline > DOUBTED_BASELINE
            && self.recent.sample().share() > DOUBTED_BASELINE
            && self.doubt.is_some_and(|(at, _)| now >= at)
    }

    /// Lowers a baseline that is far above the actual losses.
    fn follow_down(&mut self) {
        let sample = self.recent.sample();
        if sample.judged() >= 500 && sample.share() < self.baseline / 2.0 {
            self.baseline = (sample.share() * 1.2).max(LEAST_BASELINE);
        }
    }

    /// The share expected to be lost at `rate` under `limit`.
    fn expected(&self, limit: f64, rate: f64) -> f64 {
        self.baseline + (1.0 - self.baseline) * (1.0 - limit / rate).max(0.0)
    }
}

impl Watch {
    /// Whether there are more losses than chance explains.
    fn judge(&mut self, judged: &Judged, baseline: f64, is_expected: bool) -> bool {
        let worse = (2.0 * baseline + EXCESS).min(0.9);
        let gain =
            if judged.is_lost { (worse / baseline).ln() } else { ((1.0 - worse) / (1.0 - baseline)).ln() };
        let is_over = self.evidence.add(&judged.sent, gain, MOST_A_SECOND);
        let is_alarmed = is_over && self.close(is_expected);
        self.is_lossy |= judged.is_lost;
        self.sample.add(&judged.sent, judged.is_lost);
        is_alarmed
    }

    /// Closes a second.
    fn close(&mut self, is_expected: bool) -> bool {
        self.lossy += u32::from(std::mem::take(&mut self.is_lossy));
        if self.evidence.sum <= 0.0 {
            self.evidence.sum = 0.0;
            (self.lossy, self.sample) = (0, Sample::default());
        }
        let is_plain = self.sample.share() <= MANY || self.sample.span() >= LONG;
        let (alarm, lossy) =
            if is_expected { (EXPECTED_ALARM, EXPECTED_LOSSY_SECONDS) } else { (ALARM, LOSSY_SECONDS) };
        self.evidence.sum >= alarm && self.lossy >= lossy && is_plain
    }
}

impl Trial {
    /// Whether the trial has gone on for so long that it will never decide.
    fn is_endless(&self, taken: Duration) -> bool {
        taken > LONGEST_STEP && self.sample.judged() as f64 > LONGEST_STEP_REQUESTS
    }

    /// Whether the losses go on; `None` until that is certain.
    fn judge(&mut self, judged: &Judged) -> Option<GoOn> {
        let gain = if judged.is_lost {
            (self.lossy / self.calm).ln().min(MOST_A_LOSS)
        } else {
            ((1.0 - self.lossy) / (1.0 - self.calm)).ln().max(-MOST_AN_ANSWER)
        };
        self.evidence.add(&judged.sent, gain, MOST_A_SECOND_OF_A_TRIAL);
        self.sample.add(&judged.sent, judged.is_lost);
        match self.evidence.sum {
            sum if sum >= CERTAIN && self.sample.lost() >= 3 => Some(GoOn::Yes),
            sum if sum <= -CERTAIN => Some(GoOn::No),
            _ => None,
        }
    }
}

impl Evidence {
    /// Adds evidence. Returns whether a second has ended; its evidence is capped at `most` either way.
    fn add(&mut self, sent: &Sent, gain: f64, most: f64) -> bool {
        let second = sent.at.as_secs();
        let is_over = second != self.second;
        if is_over {
            self.sum += std::mem::take(&mut self.gain).clamp(-most, most);
            self.second = second;
        }
        self.gain += gain;
        is_over
    }
}
