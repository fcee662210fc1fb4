//! Whether requests are lost because of their rate: a hypothesis, and its test.
//!
//! Owns the test, and no rate but that of a trial. Silence has many causes, and most have nothing to do with the rate.
//! What a quota does and chance does not: the losses end when the rate falls, and return when it rises. So
//!
//! - **Watch.** Losses are held against a baseline, the share that is lost at any rate, one second after another (CUSUM).
//!   A second counts for little by itself: a burst of losses is one event.
//! - **Lower.** When there are more than chance explains, a rate is tried at which a quota would lose none: just under what
//!   was answered. Do the losses end?
//! - **Again.** If they do, the rate rises again. Do they return? Otherwise they had ended by themselves, and
//!   the lower rate would be credited with it.
//!
//! Only requests that were sent during a step count for it, and all are judged at the same age ([`super::flight`]).

mod sample;

use std::time::Duration;

use super::flight::{Judged, Sent};
use sample::{Recent, Sample};

/// The share of losses that is put up with from the start, and never thought below: less is not worth a test.
const LEAST_BASELINE: f64 = 0.01;
/// No baseline is higher: more is never taken for chance for long.
const MOST_BASELINE: f64 = 0.35;
/// Losses above a baseline that matter: twice as many, and this share more.
const EXCESS: f64 = 0.03;
/// The evidence, in nats, of an alarm: about one an hour is false.
const ALARM: f64 = 9.0;
/// No second adds or takes away more than this.
const MOST_A_SECOND: f64 = 3.0;
/// An alarm needs losses in this many seconds.
const LOSSY_SECONDS: u32 = 4;
/// The same above a limit that was established.
const EXPECTED_ALARM: f64 = 4.0;
const EXPECTED_LOSSY_SECONDS: u32 = 2;
/// Odds of 19 to 1 end a step. No second decides one alone, nor do two.
const CERTAIN: f64 = 2.944;
const MOST_A_SECOND_OF_A_TRIAL: f64 = 1.2;
/// The losses have ended where they are fewer than before by this factor: the limit is known no better.
const FEWER: f64 = 3.0;
/// No request counts for more in a trial.
const MOST_A_LOSS: f64 = 1.5;
const MOST_AN_ANSWER: f64 = 0.5;
/// After a change of the rate so much time is left out: services count in seconds.
const SETTLING: Duration = Duration::from_millis(1_500);
const LONGEST_SETTLING: Duration = Duration::from_secs(20);
/// A step that has not decided by then never will.
const LONGEST_STEP: Duration = Duration::from_secs(120);
const LONGEST_STEP_REQUESTS: f64 = 250.0;
/// Tried is a rate this much below what was answered,
const BELOW: f64 = 0.97;
/// and not less than this part of what was answered in the last minute,
const FLOOR: f64 = 0.9;
/// unless more than this share is lost, for this long: that is a quota that fell, or an outage.
const MANY: f64 = 0.3;
const LONG: Duration = Duration::from_secs(3);
/// No limit is supposed below this part of the rate.
const LEAST_LIMIT: f64 = 0.02;
/// The losses are looked for again at up to this much above the supposed limit.
const ABOVE: f64 = 1.25;
/// That losses come with the rate holds for so long without another test of its second half.
const ESTABLISHED_FOR: Duration = Duration::from_secs(300);
/// A baseline above this is doubted after this time, and then after twice as long each time.
const DOUBTED_BASELINE: f64 = 0.03;
const DOUBTED_AFTER: Duration = Duration::from_secs(120);
/// A high one sooner: it hides more.
const HIGH_BASELINE: f64 = 0.1;
const HIGH_DOUBTED_AFTER: Duration = Duration::from_secs(30);
const DOUBTED_AFTER_REQUESTS: f64 = 600.0;
const LONGEST_DOUBT: Duration = Duration::from_secs(300);

/// What a test has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// The rate is the cause: more than this many a second are lost.
    Rate { limit: f64 },
    /// It is not.
    NotRate,
    /// So much is lost, at a lower rate too, that the service does no more than this many a second, for whatever reason.
    Overload { limit: f64 },
}

pub(super) struct Inquiry {
    /// The share that is lost at any rate.
    baseline: f64,
    step: Step,
    /// When the present step may begin to count, and its first request that does.
    settled_at: Duration,
    first: Option<u64>,
    began: Duration,
    recent: Recent,
    /// When a test has last shown that losses come with the rate.
    established: Option<Duration>,
    /// When to doubt the baseline, and how long after that.
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

/// A rate, tried.
struct Trial {
    rate: f64,
    /// The rate before.
    from: f64,
    /// What a quota would let pass.
    limit: f64,
    /// The share that should be lost if the losses of the watch go on, and if not.
    lossy: f64,
    calm: f64,
    evidence: Evidence,
    sample: Sample,
    /// What had been seen by then.
    before: Sample,
}

/// Whether losses go on.
enum GoOn {
    Yes,
    No,
}

/// Evidence in nats, second by second.
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

    /// The rate that is being tried.
    pub(super) fn trial(&self) -> Option<f64> {
        match &self.step {
            Step::Watch(_) => None,
            Step::Lower(trial) | Step::Again(trial) => Some(trial.rate),
        }
    }

    /// Whether this is no time to raise a rate by much.
    pub(super) fn is_suspicious(&self) -> bool {
        self.trial().is_some() || self.recent.is_lossy(self.baseline)
    }

    /// The share that is lost at any rate, once a test has shown that.
    pub(super) fn unrelated(&self) -> Option<f64> {
        (self.baseline > LEAST_BASELINE).then_some(self.baseline)
    }

    /// A request is sent, as they come.
    pub(super) fn sent(&mut self, number: u64, now: Duration) {
        if self.first.is_none() && now >= self.settled_at {
            self.first = Some(number);
        }
    }

    /// What is under way says nothing any more; the next requests do.
    pub(super) fn forget(&mut self, now: Duration) {
        self.begin(Step::Watch(Watch::default()), Duration::ZERO, now);
    }

    /// Takes a request in that has come of age. `rate` is what requests are held to besides a trial.
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
            // It has been shown before, and not long ago.
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
        // A bucket has filled a little meanwhile, and is empty again only after this.
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

    /// The losses come with the rate. What was lost at the lower one is lost at any.
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

    /// The losses go on at the lower rate: they are chance, and what is lost is the baseline.
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

    /// They ended by themselves: there are such times, and they belong to the baseline.
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

    /// A baseline that is far above what is lost comes down.
    fn follow_down(&mut self) {
        let sample = self.recent.sample();
        if sample.judged() >= 500 && sample.share() < self.baseline / 2.0 {
            self.baseline = (sample.share() * 1.2).max(LEAST_BASELINE);
        }
    }

    /// The share that is lost at `rate` under a `limit`.
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

    /// A second is over.
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
    /// Whether it has gone on for so long that it never will decide.
    fn is_endless(&self, taken: Duration) -> bool {
        taken > LONGEST_STEP && self.sample.judged() as f64 > LONGEST_STEP_REQUESTS
    }

    /// Whether the losses go on, once that is certain.
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
    /// Whether a second is over, which then adds or takes away `most` at most.
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
