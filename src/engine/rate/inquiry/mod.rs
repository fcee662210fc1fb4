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
//!   lower rate was not the cause. If they do, goes on until chance no longer explains the difference between both
//!   rates; if that takes long, begins again with the lower one. All requests of the test count.
//!
//! A service that throttles is not tested: it says what is too much.
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
/// A step ends after this many requests as its evidence leans. While it lasts the rate may be too low; and if it errs, the
/// test still wants [`PROOF`].
const LONGEST_STEP: u64 = 150;
/// The most evidence, in nats, that one second of a trial adds or takes away.
const MOST_A_SECOND_OF_A_TRIAL: f64 = 1.2;
/// The evidence, in nats, that two rates lose different shares, which establishes that the rate is the cause: chance
/// rarely gives it, even to two steps that ended as it suits the hypothesis. After n tests that found no such thing it takes
/// ln(n + 1) more, so that many tests err no more often than a few.
const PROOF: f64 = 6.5;
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
/// How long after a throttle losses are taken for chance: a service that says what is too much has no need to be silent.
const FRANK_FOR: Duration = Duration::from_secs(120);
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
    /// How many tests have shown since that they do not.
    acquitted: u32,
    /// When the last outage began.
    paused_at: Duration,
    /// Until when losses are taken for chance.
    frank_until: Duration,
    /// When to doubt the baseline, and how long to wait before the next doubt.
    doubt: Option<(Duration, Duration)>,
}

enum Step {
    Watch(Watch),
    Lower(Test, Trial),
    Again(Test, Trial),
}

/// Evidence of more losses than the baseline.
#[derive(Default)]
struct Watch {
    evidence: Evidence,
    lossy: u32,
    is_lossy: bool,
    sample: Sample,
}

/// The hypothesis that a quota causes the losses, and all requests that were sent to test it.
#[derive(Clone)]
struct Test {
    /// The rate before the test.
    from: f64,
    /// The limit that a quota is assumed to have, per second.
    limit: f64,
    /// A rate under that limit.
    lower: f64,
    /// What raised the suspicion.
    seen: Sample,
    at_lower: Sample,
    at_higher: Sample,
}

/// A trial of a rate.
struct Trial {
    rate: f64,
    /// The share that should be lost if the losses go on.
    lossy: f64,
    /// The share that should be lost if they have ended.
    calm: f64,
    evidence: Evidence,
    sample: Sample,
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
            acquitted: 0,
            paused_at: Duration::ZERO,
            frank_until: Duration::ZERO,
            doubt: None,
        }
    }

    /// The rate being tried; `None` outside a trial.
    pub(super) fn trial(&self) -> Option<f64> {
        match &self.step {
            Step::Watch(_) => None,
            Step::Lower(_, trial) | Step::Again(_, trial) => Some(trial.rate),
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
    fn forget(&mut self, now: Duration) {
        self.begin(Step::Watch(Watch::default()), Duration::ZERO, now);
    }

    /// Notes that an outage begins: until it ends, nothing is learned and nothing gets older.
    pub(super) fn pause(&mut self, now: Duration) {
        self.paused_at = now;
        self.forget(now);
    }

    /// Notes that an outage has ended.
    pub(super) fn resume(&mut self, now: Duration) {
        let paused = now.saturating_sub(self.paused_at);
        self.established = self.established.map(|at| at + paused);
        self.doubt = self.doubt.map(|(at, wait)| (at + paused, wait));
        self.forget(now);
    }

    /// Notes a throttle, which ends a test.
    pub(super) fn throttled(&mut self, now: Duration) {
        self.frank_until = now + FRANK_FOR;
        if self.trial().is_some() {
            self.forget(now);
        }
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
        if let Step::Watch(watch) = &mut self.step {
            if now < self.frank_until {
                *watch = Watch::default();
            } else {
                self.watch(&judged, rate, is_probe, now);
            }
            return None;
        }
        self.try_out(&judged, rate, now)
    }

    fn watch(&mut self, judged: &Judged, rate: f64, is_probe: bool, now: Duration) {
        let is_expected = is_probe && self.is_established(now);
        let Step::Watch(watch) = &mut self.step else { return };
        if watch.judge(judged, self.baseline, is_expected) {
            let sample = watch.sample.clone();
            self.suspect(sample, rate, now);
        } else if self.is_doubtful(now) {
            self.baseline = LEAST_BASELINE;
            self.suspect(self.recent.sample(), rate, now);
        } else if self.baseline > LEAST_BASELINE {
            self.follow_down();
        }
    }

    fn try_out(&mut self, judged: &Judged, rate: f64, now: Duration) -> Option<Finding> {
        let (wanted, is_established) = (self.wanted_proof(), self.is_established(now));
        let verdict = match &mut self.step {
            Step::Watch(_) => return None,
            Step::Lower(test, trial) => {
                let verdict = trial.judge(judged)?;
                // Fewer requests at the lower rate could never prove anything, however many are lost at the higher one.
                let enough = ((1.5 * wanted / trial.lossy) as u64).min(LONGEST_STEP);
                let judged = test.at_lower.judged() + trial.sample.judged();
                if matches!(verdict, GoOn::No) && !is_established && judged < enough {
                    return None;
                }
                verdict
            }
            Step::Again(test, trial) => {
                let verdict = trial.judge(judged)?;
                let is_proved = test.proof(&trial.sample) >= wanted;
                if matches!(verdict, GoOn::Yes) && !is_proved && trial.sample.judged() < LONGEST_STEP {
                    return None;
                }
                verdict
            }
        };
        match (std::mem::replace(&mut self.step, Step::Watch(Watch::default())), verdict) {
            (Step::Watch(_), _) => None,
            (Step::Lower(test, trial), GoOn::Yes) => self.blame_chance(&test.with_lower(trial), rate, now),
            // A recent test has already shown it.
            (Step::Lower(test, trial), GoOn::No) if is_established => {
                self.blame_rate(test.limit.max(test.lower), &trial.sample, now)
            }
            (Step::Lower(test, trial), GoOn::No) => self.again(test.with_lower(trial), now),
            (Step::Again(test, trial), GoOn::Yes) if test.proof(&trial.sample) >= wanted => {
                (self.established, self.acquitted) = (Some(now), 0);
                self.blame_rate(test.limit, &test.at_lower, now)
            }
            (Step::Again(test, trial), GoOn::Yes) => self.lower(test.with_higher(trial), now),
            (Step::Again(..), GoOn::No) => self.acquit(rate, now),
        }
    }

    fn begin(&mut self, step: Step, settling: Duration, now: Duration) {
        (self.step, self.first) = (step, None);
        (self.began, self.settled_at) = (now, now + settling.min(LONGEST_SETTLING));
    }

    /// Begins a test because of `seen`.
    fn suspect(&mut self, seen: Sample, from: f64, now: Duration) {
        let answered = seen.answered_per_second().unwrap_or(from * (1.0 - seen.share()));
        let limit = (answered / (1.0 - self.baseline)).min(from).max(from * LEAST_LIMIT);
        let is_plain = seen.share() > MANY && seen.span() >= LONG;
        let floor = if is_plain { 0.0 } else { FLOOR * self.recent.answered_per_second(now) };
        // The fewer were answered, the less is known of the limit.
        let below = BELOW - 1.5 / (answered * seen.span().as_secs_f64()).max(15.0);
        let lower = (limit * below).max(floor).min(from * BELOW);
        let (at_lower, at_higher) = (Sample::default(), Sample::default());
        self.lower(Test { from, limit, lower, seen, at_lower, at_higher }, now);
    }

    fn lower(&mut self, test: Test, now: Duration) -> Option<Finding> {
        let lossy = self.lossy(&test);
        let calm = self.expected(test.limit, test.lower).max(lossy / FEWER).min(lossy / 1.2);
        let trial = Trial::new(test.lower, lossy, calm);
        self.begin(Step::Lower(test, trial), SETTLING, now);
        None
    }

    fn again(&mut self, test: Test, now: Duration) -> Option<Finding> {
        let rate = test.from.min(test.limit * ABOVE);
        // A bucket has filled a little meanwhile, and takes this long to be empty again.
        let saved = (test.limit - test.lower).max(0.0) * now.saturating_sub(self.began).as_secs_f64();
        let settling = Duration::try_from_secs_f64(2.0 * saved / (rate - test.limit).max(1e-9));
        let settling = SETTLING + settling.unwrap_or(LONGEST_SETTLING).min(LONGEST_SETTLING);
        let lossy = if rate < test.from { self.expected(test.limit, rate) } else { self.lossy(&test) };
        let calm = self.baseline.max(lossy / FEWER).min(lossy / 1.2);
        self.begin(Step::Again(test, Trial::new(rate, lossy, calm)), settling, now);
        None
    }

    /// The share that should be lost if what raised the suspicion goes on.
    fn lossy(&self, test: &Test) -> f64 {
        test.seen.share().max(1.5 * self.baseline).min(0.95)
    }

    /// Concludes that the losses come with the rate. What was lost at the lower rate is lost at any rate.
    fn blame_rate(&mut self, limit: f64, at_lower: &Sample, now: Duration) -> Option<Finding> {
        self.baseline = self.baseline.min(at_lower.ceiling()).max(LEAST_BASELINE);
        self.begin(Step::Watch(Watch::default()), SETTLING, now);
        Some(Finding::Rate { limit })
    }

    fn wanted_proof(&self) -> f64 {
        PROOF + (f64::from(self.acquitted) + 1.0).ln()
    }

    fn is_established(&self, now: Duration) -> bool {
        self.established.is_some_and(|at| now.saturating_sub(at) < ESTABLISHED_FOR)
    }

    /// Concludes that the losses are chance, since they go on at the lower rate.
    fn blame_chance(&mut self, test: &Test, rate: f64, now: Duration) -> Option<Finding> {
        if test.at_lower.share() > MANY {
            self.begin(Step::Watch(Watch::default()), SETTLING, now);
            return Some(Finding::Overload { limit: test.lower * (1.0 - test.at_lower.share()) });
        }
        self.not_rate(test.seen.with(&test.at_lower).share(), rate, now)
    }

    /// Concludes that the losses ended by themselves.
    fn acquit(&mut self, rate: f64, now: Duration) -> Option<Finding> {
        self.not_rate(self.recent.sample().share().min(2.0 * self.baseline + EXCESS), rate, now)
    }

    /// Such losses happen at any rate: the baseline includes `share` from now on, until it is doubted.
    fn not_rate(&mut self, share: f64, rate: f64, now: Duration) -> Option<Finding> {
        self.acquitted = self.acquitted.saturating_add(1);
        self.baseline = self.baseline.max(share).min(MOST_BASELINE);
        let first = if self.baseline > HIGH_BASELINE { HIGH_DOUBTED_AFTER } else { DOUBTED_AFTER };
        let wait = self.doubt.map_or(first, |(_, wait)| (wait * 2).min(LONGEST_DOUBT));
        let requests = Duration::from_secs_f64((DOUBTED_AFTER_REQUESTS / rate.max(0.001)).min(86_400.0));
        self.doubt = Some((now + wait.max(requests), wait));
        self.begin(Step::Watch(Watch::default()), SETTLING, now);
        Some(Finding::NotRate)
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

impl Test {
    fn with_lower(self, trial: Trial) -> Self {
        Self { at_lower: self.at_lower.with(&trial.sample), ..self }
    }

    fn with_higher(self, trial: Trial) -> Self {
        Self { at_higher: self.at_higher.with(&trial.sample), ..self }
    }

    /// The evidence, in nats, that more is lost at the higher rate, `more` of whose requests are counted too: how much
    /// likelier two shares make the losses than one does. Negative if fewer are lost.
    fn proof(&self, more: &Sample) -> f64 {
        let (low, high) = (&self.at_lower, &self.at_higher.with(more));
        let gain = low.likelihood(low.share()) + high.likelihood(high.share());
        let gain = gain - low.likelihood(low.with(high).share()) - high.likelihood(low.with(high).share());
        if high.share() > low.share() { gain } else { -gain }
    }
}

impl Trial {
    fn new(rate: f64, lossy: f64, calm: f64) -> Self {
        Self { rate, lossy, calm, evidence: Evidence::default(), sample: Sample::default() }
    }

    /// Whether the losses go on; `None` until that is certain, or taking longer than it is worth.
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
            sum if self.sample.judged() >= LONGEST_STEP => {
                Some(if sum > 0.0 && self.sample.lost() >= 3 { GoOn::Yes } else { GoOn::No })
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(judged: u64, lost: u64) -> Sample {
        let mut sample = Sample::default();
        for number in 0..judged {
            sample.add(&Sent { number, at: Duration::ZERO }, number < lost);
        }
        sample
    }

    fn proof(at_lower: Sample, at_higher: &Sample) -> f64 {
        let (seen, none) = (Sample::default(), Sample::default());
        Test { from: 10.0, limit: 7.0, lower: 6.7, seen, at_lower, at_higher: none }.proof(at_higher)
    }

    /// It is half of the G-test's statistic, which is 18.5053 for 0 of 40 and 14 of 50.
    #[test]
    fn proof_is_how_much_likelier_two_shares_are_than_one() {
        assert!(proof(sample(100, 5), &sample(60, 3)).abs() < 1e-9, "the same share");
        assert!(proof(sample(17, 0), &sample(1_000, 200)) < PROOF, "too few to prove anything");
        assert!((proof(sample(40, 0), &sample(50, 14)) - 18.5053 / 2.0).abs() < 1e-3);
        assert!(proof(sample(50, 14), &sample(40, 0)) < -PROOF, "fewer at the higher rate");
        assert_eq!(proof(Sample::default(), &Sample::default()), 0.0);
    }

    #[test]
    fn an_outage_makes_nothing_older_that_is_established() {
        let seconds = Duration::from_secs;
        let mut inquiry = Inquiry { established: Some(seconds(10)), ..Inquiry::new() };
        assert!(inquiry.is_established(seconds(300)) && !inquiry.is_established(seconds(400)));
        inquiry.pause(seconds(20));
        inquiry.resume(seconds(380));
        assert!(inquiry.is_established(seconds(400)));
    }
}
