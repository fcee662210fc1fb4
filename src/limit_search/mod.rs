//! Where a service's limit lies: the search for the highest rate that it sustains.
//!
//! Owns what to try next, what an observation of a step means, and when enough is known. Sends nothing and has no clock:
//! whoever tries the steps tells what came of each.
//!
//! The search doubles the rate until the service breaks, looks closely at what it still does under too much load, comes
//! back from there in small steps, and in the end holds the highest rate that it bore for longer. A service that lets
//! bursts pass sustains more than its limit for a while. So before a rate below the limit is measured, the burst is spent at
//! a rate above it, without a pause in between.

mod step;

use std::time::Duration;

pub use step::{Breach, Observation, Probe, Sign, Step, Verdict};

/// What bounds a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchSettings {
    /// The first rate that is tried, per second.
    pub start: f64,
    /// No rate above this is ever tried, per second.
    pub max: f64,
    /// How close the sustained rate and the one that breaks must come: 0.05 is 5 %.
    pub precision: f64,
    /// Latency breaks where the p99 of the service time exceeds this. In any case it does where the p50 exceeds three times
    /// that of the lowest rates, by at least 10 ms.
    pub max_p99: Option<Duration>,
}

impl Default for SearchSettings {
    /// From 2 to 1000 a second, to within 5 %.
    fn default() -> Self {
        Self { start: 2.0, max: 1_000.0, precision: 0.05, max_p99: None }
    }
}

/// What a search has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finding {
    /// The limit lies between two rates.
    Limit {
        /// The highest rate that was sustained, per second.
        sustainable: f64,
        /// The lowest rate that was not.
        breaks_at: f64,
        /// What happened at that one.
        breach: Breach,
        /// Whether the rate was confirmed: held in a longer step that followed an overload.
        confirmed: bool,
    },
    /// Nothing broke as far as the search went.
    NoLimit {
        /// The highest rate that was sustained, per second.
        held: f64,
        /// Why the search went no further.
        because: Stopped,
    },
    /// Nothing can be said: not even the lowest rate that was tried was sustained, or the search ended before any was.
    Nothing {
        /// What happened at the lowest rate that was tried, and its rate.
        broke: Option<(f64, Breach)>,
        /// Why the search ended, unless that was the reason.
        because: Option<Stopped>,
    },
}

/// Why a search ended without a finding. Reports have it in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The highest rate that may be tried was sustained.
    MaxRate,
    /// This side could not offer more: connections were short.
    Generator,
    /// No devices were left to try with.
    Devices,
    /// What registrations need could not be had: certificates were not issued fast enough, so that their limit binds first.
    Certificates,
    /// Somebody asked for the end.
    Asked,
    /// The service gave a different answer at each look.
    Unsteady,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Try this, and tell what came of it.
    Try(Probe),
    /// That is all.
    Done(Finding),
}

/// A search under way.
#[derive(Debug, Clone)]
pub struct Search {
    settings: SearchSettings,
    stage: Stage,
    /// How the service performs under loads that it sustains, learned from the steps that it sustained.
    usual: step::Usual,
    steps: Vec<Step>,
    /// The highest rate that is known to be sustained.
    low: Option<f64>,
    /// The lowest rate that is known to break, and how.
    high: Option<(f64, Breach)>,
    /// What the service still does under too much load, per second: close to its limit.
    capacity: f64,
    /// The last look under too much load: for how long before it, and for how long.
    looked_before: (Duration, Duration),
    /// How long a burst takes to spend, and at which rate.
    drain: Option<(f64, Duration)>,
    unsteadiness: u32,
    done: Option<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Upwards, until something breaks.
    Climbing { rate: f64 },
    /// At a rate that breaks, until what passes is the same for a longer and a shorter drain.
    Overloading { rate: f64, drain: Duration },
    /// Between a rate that is sustained and one that breaks.
    Narrowing { rate: f64 },
    /// Back below, for longer.
    Confirming { rate: f64 },
}

/// From step to step upwards.
const CLIMB: f64 = 2.0;
/// Down, if the first step breaks already.
const DESCENT: f64 = 4.0;
/// The lowest rate that is tried, per second.
const LOWEST: f64 = 0.1;
/// How long a burst is spent at first, and at most.
const FIRST_DRAIN: Duration = Duration::from_secs(3);
const LONGEST_DRAIN: Duration = Duration::from_secs(48);
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// A burst that lasted so long is given this much longer.
const MARGIN: f64 = 1.25;
/// Two looks at what passes under too much load agree within this share of what does not pass.
const AGREEMENT: f64 = 0.03;
/// How often a sustained rate may turn out not to be.
const MOST_UNSTEADY: u32 = 3;
/// More steps than any search of a steady service takes.
const MOST_STEPS: usize = 60;

impl Search {
    /// A search that has tried nothing.
    pub fn new(settings: SearchSettings) -> Self {
        let rate = settings.start.min(settings.max);
        Self {
            settings,
            stage: Stage::Climbing { rate },
            usual: step::Usual::default(),
            steps: Vec::new(),
            low: None,
            high: None,
            capacity: 0.0,
            looked_before: (Duration::ZERO, Duration::ZERO),
            drain: None,
            unsteadiness: 0,
            done: None,
        }
    }

    /// What was tried and what came of it, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What to do next.
    pub fn next(&self) -> Next {
        match self.done {
            Some(finding) => Next::Done(finding),
            None => Next::Try(self.probe()),
        }
    }

    /// Takes in what came of the probe that [`next`](Self::next) said.
    pub fn observe(&mut self, observation: Observation) {
        let probe = self.probe();
        let verdict = self.usual.judge(&probe, &observation, self.settings.max_p99);
        // A stall passes, and what happens once may be chance. A throttle says itself what it is, and above the capacity
        // nothing else is expected.
        let is_surprising = self.capacity == 0.0 || probe.rate < self.capacity;
        let is_doubtful = match verdict {
            Verdict::Held | Verdict::Broke(Breach::Throttled) => false,
            Verdict::Broke(_) => is_surprising,
            // Be it that this machine was busy for a moment.
            Verdict::Short => true,
        };
        let is_second_look = self.steps.last().is_some_and(|last| last.probe == probe && last.is_doubtful);
        let step = Step { probe, observation, verdict, is_doubtful: is_doubtful && !is_second_look };
        let waits_for_a_second_look = step.is_doubtful;
        self.steps.push(step.clone());
        if self.steps.len() >= MOST_STEPS {
            self.stop(Stopped::Unsteady);
        } else if !waits_for_a_second_look {
            self.advance(&step);
        }
    }

    /// Ends the search with what is known.
    pub fn stop(&mut self, why: Stopped) {
        self.done = Some(match (self.low, self.high) {
            (Some(sustainable), Some((breaks_at, breach))) => {
                Finding::Limit { sustainable, breaks_at, breach, confirmed: false }
            }
            (Some(held), None) => Finding::NoLimit { held, because: why },
            (None, broke) => Finding::Nothing { broke, because: Some(why) },
        });
    }

    fn probe(&self) -> Probe {
        match self.stage {
            Stage::Climbing { rate } => Probe::coarse(rate),
            Stage::Overloading { rate, drain } => Probe::fine(rate, Some((rate, drain)), 1),
            Stage::Narrowing { rate } => Probe::fine(rate, self.drain, 1),
            Stage::Confirming { rate } => Probe::fine(rate, self.drain, 2),
        }
    }

    fn advance(&mut self, step: &Step) {
        if step.verdict == Verdict::Short {
            return self.stop(Stopped::Generator);
        }
        match self.stage {
            Stage::Climbing { rate } => self.climbed(rate, step),
            Stage::Overloading { rate, drain } => self.overloaded(rate, drain, step),
            Stage::Narrowing { rate } => {
                self.bound(rate, step);
                self.narrow();
            }
            Stage::Confirming { rate } => self.confirmed(rate, step),
        }
    }

    fn bound(&mut self, rate: f64, step: &Step) {
        match step.verdict {
            Verdict::Broke(breach) => self.high = Some((rate, breach)),
            Verdict::Held | Verdict::Short => self.low = Some(rate),
        }
    }

    fn climbed(&mut self, rate: f64, step: &Step) {
        self.bound(rate, step);
        match (step.verdict, self.low) {
            (Verdict::Broke(breach), Some(_)) => {
                self.capacity = step.observation.capacity(&step.probe, breach);
                self.looked_before = (step.probe.settle, step.probe.measure);
                match breach {
                    // A queue that is filled beforehand would make any rate slow.
                    Breach::Slow => self.come_back(),
                    _ => self.stage = Stage::Overloading { rate, drain: FIRST_DRAIN },
                }
            }
            (Verdict::Broke(breach), None) if rate / DESCENT < LOWEST => {
                self.done = Some(Finding::Nothing { broke: Some((rate, breach)), because: None });
            }
            (Verdict::Broke(_), None) => self.stage = Stage::Climbing { rate: rate / DESCENT },
            _ if rate >= self.settings.max => self.stage = Stage::Confirming { rate },
            _ => {
                let next = (rate * CLIMB).min(self.settings.max);
                // When a descent has found the first sustained rate, the next one up may be known to break.
                match self.high {
                    Some((high, _)) if next >= high => self.narrow(),
                    _ => self.stage = Stage::Climbing { rate: next },
                }
            }
        }
    }

    fn overloaded(&mut self, rate: f64, drain: Duration, step: &Step) {
        let Verdict::Broke(breach) = step.verdict else {
            // It sustains this now, so what broke before was not a limit.
            self.high = None;
            self.low = Some(rate);
            return self.doubt(Stage::Climbing { rate: (rate * CLIMB).min(self.settings.max) });
        };
        let capacity = step.observation.capacity(&step.probe, breach);
        // What passed before and not now was left of the burst: it tells how long that lasts at this rate.
        let excess = (self.capacity - capacity).max(0.0) / (rate - capacity).max(f64::MIN_POSITIVE);
        let (unseen, seen) = self.looked_before;
        let lasts = unseen + seen.mul_f64(excess.min(1.0));
        self.capacity = capacity;
        self.looked_before = (drain + step.probe.settle, step.probe.measure);
        if excess <= AGREEMENT || lasts.mul_f64(MARGIN) < drain + step.probe.settle || drain >= LONGEST_DRAIN
        {
            self.drain = Some((rate, lasts.mul_f64(MARGIN).max(LEAST_DRAIN)));
            self.come_back();
        } else {
            self.stage = Stage::Overloading { rate, drain: drain * 2 };
        }
    }

    /// What was sustained on the way up may have been a burst: only what is clearly below the capacity counts.
    fn come_back(&mut self) {
        let surely = self.just_below();
        let held = self.steps.iter().filter(|step| step.verdict == Verdict::Held).map(|step| step.probe.rate);
        self.low = held.filter(|rate| *rate < surely).max_by(f64::total_cmp);
        self.narrow();
    }

    fn narrow(&mut self) {
        let Some((high, _)) = self.high else { return self.stop(Stopped::Unsteady) };
        let low = self.low.unwrap_or(0.0);
        if low > 0.0 && high <= low * (1.0 + self.settings.precision) {
            self.stage = Stage::Confirming { rate: low };
            return;
        }
        if high < LOWEST {
            return self.stop(Stopped::Unsteady);
        }
        let is_between = |rate: f64| rate > low * 1.001 && rate < high * 0.999;
        let guesses = [self.just_below(), self.just_above()];
        let middle = if low > 0.0 { (low * high).sqrt() } else { high / CLIMB };
        let guess = guesses.into_iter().find(|rate| is_between(*rate));
        let rate = [tidy(guess.unwrap_or(middle)), middle].into_iter().find(|rate| is_between(*rate));
        self.stage = Stage::Narrowing { rate: rate.unwrap_or(middle) };
    }

    fn confirmed(&mut self, rate: f64, step: &Step) {
        match (step.verdict, self.high) {
            (Verdict::Broke(breach), _) => {
                self.high = Some((rate, breach));
                let held = self.steps.iter().filter(|step| step.verdict == Verdict::Held);
                let lower = held.map(|step| step.probe.rate).filter(|held| *held < rate * 0.999);
                self.low = lower.max_by(f64::total_cmp);
                self.capacity = step.observation.capacity(&step.probe, breach).min(rate);
                self.unsteadiness += 1;
                if self.unsteadiness > MOST_UNSTEADY { self.stop(Stopped::Unsteady) } else { self.narrow() }
            }
            (_, Some((breaks_at, breach))) => {
                self.done = Some(Finding::Limit { sustainable: rate, breaks_at, breach, confirmed: true });
            }
            (_, None) => self.done = Some(Finding::NoLimit { held: rate, because: Stopped::MaxRate }),
        }
    }

    fn doubt(&mut self, stage: Stage) {
        self.unsteadiness += 1;
        self.stage = stage;
        if self.unsteadiness > MOST_UNSTEADY {
            self.stop(Stopped::Unsteady);
        }
    }

    // Together a little closer than the precision, so that one look at each is enough where the capacity is right.
    fn just_below(&self) -> f64 {
        self.capacity * (1.0 - 0.3 * self.settings.precision)
    }

    fn just_above(&self) -> f64 {
        self.capacity * (1.0 + 0.6 * self.settings.precision)
    }
}

/// The rate in four digits: what is tried is what is told.
fn tidy(rate: f64) -> f64 {
    let unit = 10_f64.powi(rate.log10().floor() as i32 - 3);
    // Through text, since 0.1 * 97 is not 9.7.
    let decimals = (-unit.log10()).max(0.0) as usize;
    format!("{:.decimals$}", (rate / unit).round() * unit).parse().unwrap_or(rate)
}

#[cfg(test)]
mod tests;
