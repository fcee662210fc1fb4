//! The rate that the service sustains, found from its answers: values and `now` in, a pace out.
//!
//! Owns the search, and nothing that waits. Signs are ranked. A throttle means that the rate is too high, and cuts
//! it. Lost requests and hang-ups count against the rate only once a test has shown it ([`super::inquiry`]). While no
//! request is answered, there is no rate to find ([`super::outage`]).
//!
//! Four ideas:
//!
//! - **Doubling.** Starts at a low rate and doubles it after each second's worth of accepted requests, until the
//!   first throttle; then returns to the rate before.
//! - **Empty to empty.** A service that throttles has used up its burst. What it accepts from one throttle to the
//!   next, over the time between them, is therefore almost exactly its limit ([`super::overload`]). A service without
//!   a burst throttles below its limit: there the plateau is the rate it sustained, and throttled probes say little.
//! - **A plateau.** After a cut the rate returns to just under the limit, stays there for long, and then probes
//!   ([`super::plateau`]). Far above the plateau the limit has risen, and the rate follows what is accepted, in small
//!   steps.
//! - **Rounds.** A cut is judged by requests sent after it, however late their answers. If a round is throttled
//!   early, the cut was too small; if late, the cut was enough and the rate has merely grown again.

use std::time::Duration;

use super::flight::{Fate, Flight, Sent};
use super::inquiry::{Finding, Inquiry};
use super::outage::Outage;
use super::overload::{ENOUGH, Mark, Overloads};
use super::patience;
use super::plateau::{CUT, Plateau};
use super::round::Round;
use super::sign::Sign;
use crate::rate::RateLimit;
use crate::transport::{Heard, Wait};
use crate::usage::{Evidence, Found};

/// The first rate of the search, per second: below every default quota that matters here.
const START: f64 = 2.0;
/// The lowest rate, per second: one permit in ten seconds, enough to notice that the service has recovered.
const LEAST: f64 = 0.1;
/// The highest rate, per second: more than any machine sends.
const MOST: f64 = 1_000_000.0;
/// The factor by which each doubling raises the rate.
const DOUBLE: f64 = 2.0;
/// A known limit has risen if the rate exceeds it by this factor or more.
const RISEN: f64 = 1.25;
/// The factor by which each doubling raises the rate after a known limit has risen.
const RISE: f64 = 1.2;
/// A round that used less than this share of its rate was limited by something else, and says nothing about a higher
/// rate.
const USED: f64 = 0.8;
/// The share that a cut takes off a rate that was sustained for a while: it is only a little too high.
const CUT_OF_SUSTAINED: f64 = 0.02;
/// After a cut of a rate that was not a probe, the new plateau is at most this share of that rate.
const NEARLY: f64 = 0.985;
/// A rate was sustained for long after this many seconds, with at least [`LONG_REQUESTS`] times [`ENOUGH`] requests.
const LONG_SPAN: f64 = 5.0;
/// How many times [`ENOUGH`] requests must pass for a rate to count as sustained for long.
const LONG_REQUESTS: f64 = 2.0;
/// A throttled probe raises the plateau by this share of the probe's height above it.
const TRUST: f64 = 0.05;
/// A throttled probe also raises the plateau by this share of its height beyond [`BEYOND_BURSTS`]: no burst explains
/// that.
const MORE_TRUST: f64 = 0.5;
/// A probe that exceeds the plateau by more than this share cannot be explained by a burst.
const BEYOND_BURSTS: f64 = 0.08;
/// The share that the deepest cut takes off. Each of several cuts in a row is twice as deep as the one before.
const DEEPEST: f64 = 0.5;
/// The plateau's height as a share of the rate that was throttled.
const UNDER: f64 = 0.99;
/// The least time between cuts, unless the overload is beyond doubt: services count in seconds, and the rest of a
/// throttled second says nothing about the new rate.
const SETTLING: Duration = Duration::from_secs(1);
/// If a round sent at least this many requests, over a second or more, before its first throttle, the service
/// sustained its rate.
const BORNE: u64 = 5;
/// The limit is assumed to be at least this share of what was accepted in recent seconds.
const LATELY: f64 = 0.8;
/// The share of requests that may be throttled without a cut: services that count strictly throttle now and then.
const TOLERATED: f64 = 0.01;
/// How many tolerated throttles can be saved up, in requests.
const MOST_CREDIT: f64 = 1.5;
/// The most tolerated throttles that can be owed, in requests.
const MOST_DEBT: f64 = 20.0;
/// The share of requests that may be throttled in the long run.
const WANTED: f64 = 0.017;
/// The most throttles beyond the wanted share that count, in requests.
const MOST_EXCESS: f64 = 6.0;
/// How late a timer may be and still have its lost time made up for.
const SLACK: Duration = Duration::from_millis(2);
/// How long the service may rest after a cut, at most, besides the time between two requests.
const BREATH: Duration = Duration::from_millis(250);
/// A pause of more than this many seconds does not count as time under load.
const LONGEST_GAP: f64 = 10.0;

/// How fast to send. Time counts from any origin, and never goes back.
pub(super) struct Pace {
    ceiling: f64,
    /// Requests per second; `None` while only the ceiling limits them.
    rate: Option<f64>,
    search: Search,
    flight: Flight,
    inquiry: Inquiry,
    outage: Outage,
    round: Round,
    due: Duration,
    last_sent: Duration,
    last_cut: Option<Duration>,
    /// Time under load so far, in seconds.
    active: f64,
    /// Requests that were not throttled.
    passed: u64,
    /// The instants at which overloads began, in order.
    overloads: Overloads,
    /// Requests throttled since the last overload began.
    throttled: u64,
    /// Cuts in a row that were not enough.
    in_a_row: i32,
    credit: f64,
    /// How many seconds it takes a throttle to show.
    notice: f64,
    /// Requests throttled beyond the wanted share.
    excess: f64,
    /// Accepted requests in each of the last two whole seconds.
    lately: [f64; 2],
    /// The second that accepted requests are being counted in, and their number so far.
    accepting: (u64, u32),
    /// What the last cut was based on.
    evidence: Option<Evidence>,
    /// The second being counted, and its requests so far: measures the rate while nothing limits it.
    counted: (Duration, u32),
}

#[derive(Clone, Copy)]
enum Search {
    /// The rate grows by `factor` a second, from the request numbered `first` on.
    Doubling { factor: f64, first: u64 },
    /// The rate moves around a plateau.
    Tracking(Plateau),
}

impl Pace {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            ceiling: limit.fixed().map_or(MOST, |rate| rate.as_per_second()),
            rate: (limit == RateLimit::Auto).then_some(START),
            search: Search::Doubling { factor: DOUBLE, first: 0 },
            flight: Flight::default(),
            inquiry: Inquiry::new(),
            outage: Outage::default(),
            round: Round::default(),
            due: Duration::ZERO,
            last_sent: Duration::ZERO,
            last_cut: None,
            active: 0.0,
            passed: 0,
            overloads: Overloads::default(),
            throttled: 0,
            in_a_row: 0,
            credit: MOST_CREDIT,
            notice: 0.0,
            excess: 0.0,
            lately: [0.0; 2],
            accepting: (0, 0),
            evidence: None,
            counted: (Duration::ZERO, 0),
        }
    }

    /// Requests per second; `None` while at most a fixed limit holds requests back.
    pub(super) fn rate(&self) -> Option<f64> {
        match self.inquiry.trial() {
            Some(trial) => Some(self.rate.map_or(trial, |rate| rate.min(trial))),
            None => self.rate,
        }
    }

    /// The service's limit; `None` while none is known.
    pub(super) fn found(&self) -> Option<Found> {
        Some(Found { rate: self.rate?, by: self.evidence? })
    }

    /// The share of requests that is never answered at any rate; `None` unless a test has shown one.
    pub(super) fn unanswered(&self) -> Option<f64> {
        self.inquiry.unrelated()
    }

    /// Whether the rate is about to grow by much.
    pub(super) fn is_doubling(&self) -> bool {
        self.rate.is_some() && matches!(self.search, Search::Doubling { .. })
    }

    /// Whether the service answers no request.
    pub(super) fn is_out(&self) -> bool {
        self.outage.is_on()
    }

    /// Whether requests must ask how long to wait.
    pub(super) fn is_limiting(&mut self, now: Duration) -> bool {
        self.look(now);
        self.rate().is_some() || self.is_out()
    }

    /// How long until the next request may be sent; `None` if it may be sent at once.
    pub(super) fn wait(&mut self, now: Duration) -> Option<Duration> {
        self.look(now);
        let by_rate = self.rate().map(|_| self.due);
        let due = by_rate.max(self.outage.probe_due())?;
        Some(due.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }

    /// Notes that a request is sent now. Returns its number for [`Pace::heard`], which must be called for every
    /// request.
    pub(super) fn sent(&mut self, now: Duration) -> u64 {
        let number = self.flight.send(now);
        self.outage.sent(now);
        self.inquiry.sent(number, now);
        self.round.sent += 1;
        if now.saturating_sub(self.counted.0) < SETTLING {
            self.counted.1 += 1;
        } else {
            self.counted = (now, 1);
        }
        self.advance(now);
        self.last_sent = now;
        number
    }

    /// Notes what became of a request.
    pub(super) fn heard(&mut self, number: u64, sign: Sign, now: Duration) {
        let fate = match sign {
            Sign::Accepted | Sign::Throttled => Fate::Answered,
            Sign::Lost => Fate::Lost,
            Sign::Unclear => Fate::Unclear,
        };
        let Some(sent) = self.flight.end(number, fate, now) else { return };
        if fate == Fate::Answered && self.outage.answered() {
            self.resume(now);
        }
        match sign {
            Sign::Accepted => {
                self.passed += 1;
                self.count_lately(now);
                self.credit = (self.credit + TOLERATED).min(MOST_CREDIT);
                self.excess = (self.excess - WANTED).max(0.0);
                self.round.accept(number);
                self.double(now);
            }
            Sign::Throttled => self.throttle(sent, now),
            Sign::Lost => self.passed += 1,
            Sign::Unclear => {}
        }
        self.look(now);
    }

    /// What to do about a request without an answer that may wait for `within` at most.
    pub(super) fn wait_for(&self, number: u64, heard: Heard, within: Duration) -> Wait {
        patience::wait(&self.flight, number, heard, within)
    }

    /// Judges the requests that have come of age, and checks whether any request is answered at all.
    fn look(&mut self, now: Duration) {
        if self.outage.begins(self.flight.latency(), now) {
            self.inquiry.pause(now);
        }
        while let Some(judged) = self.flight.judge(now) {
            if self.outage.is_on() {
                continue;
            }
            let rate = self.rate.unwrap_or_else(|| self.measured(now));
            let is_probe = self.probed().is_some();
            let limit = match self.inquiry.judge(judged, rate, is_probe, now) {
                None | Some(Finding::NotRate) => continue,
                Some(Finding::Rate { limit }) => {
                    self.evidence = Some(Evidence::Silence);
                    // A probe that is too high says nothing against the rate that was sustained before it.
                    limit.max(self.probed().map_or(0.0, |plateau| plateau * NEARLY))
                }
                Some(Finding::Overload { limit }) => limit,
            };
            self.begin_overload();
            self.cut(limit, limit * (1.0 - CUT), now);
        }
    }

    /// Resumes at the rate from before an outage, once the service answers again.
    fn resume(&mut self, now: Duration) {
        self.inquiry.resume(now);
        self.due = now;
        self.begin_round(now);
        // Much may have changed during the outage: probe soon.
        if let Search::Tracking(plateau) = &mut self.search {
            plateau.probe();
        }
    }

    /// Counts the time under load, and schedules the next request a period later.
    fn advance(&mut self, now: Duration) {
        self.look(now);
        let Some(rate) = self.rate() else { return };
        let period = 1.0 / rate;
        let was_awaited = now <= self.due + Duration::from_secs_f64(period / 2.0) + SLACK * 2;
        let gap = now.saturating_sub(self.last_sent).as_secs_f64().min(LONGEST_GAP);
        self.active += if was_awaited { gap } else { period };
        if was_awaited && self.inquiry.trial().is_none() && !self.outage.is_on() {
            self.grow(gap, now);
        }
        // Use the current rate: it may just have changed.
        let period = self.rate().map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        self.due = self.due.max(now.saturating_sub(SLACK)) + period;
    }

    fn count_lately(&mut self, now: Duration) {
        let (second, accepted) = &mut self.accepting;
        if *second != now.as_secs() {
            let is_next = *second + 1 == now.as_secs();
            self.lately = [self.lately[1], if is_next { f64::from(*accepted) } else { 0.0 }];
            (*second, *accepted) = (now.as_secs(), 0);
        }
        *accepted += 1;
    }

    /// Raises the rate once a second's worth of requests of a round was accepted.
    fn double(&mut self, now: Duration) {
        let (Search::Doubling { factor, .. }, Some(rate)) = (self.search, self.rate) else { return };
        let elapsed = now.saturating_sub(self.round.began).as_secs_f64();
        if self.inquiry.is_suspicious()
            || elapsed < self.notice.max(1.0)
            || (self.round.accepted as f64) < rate.floor().max(1.0)
        {
            return;
        }
        if self.round.sent as f64 >= USED * rate * elapsed {
            return self.set(rate * factor, now);
        }
        // The rate stays in force, but what was sent may still be throttled.
        self.round = Round::new(self.round.first, now);
    }

    /// Moves along the plateau.
    fn grow(&mut self, gap: f64, now: Duration) {
        let looks_wrong = self.inquiry.is_suspicious();
        let (Search::Tracking(plateau), Some(rate)) = (&mut self.search, self.rate) else { return };
        let grown = plateau.rate_after(gap, looks_wrong).max(rate);
        if grown > plateau.height() * RISEN {
            self.search = Search::Doubling { factor: RISE, first: self.flight.next() };
            return self.set(grown, now);
        }
        self.rate = (grown < self.ceiling).then_some(grown);
    }

    /// The plateau that the rate is probing above; `None` while it is not probing.
    fn probed(&self) -> Option<f64> {
        match self.search {
            Search::Tracking(plateau) if self.rate.is_some() && plateau.is_probing() => {
                Some(plateau.height())
            }
            _ => None,
        }
    }

    fn throttle(&mut self, sent: Sent, now: Duration) {
        // The service's own word needs no test.
        self.inquiry.throttled(now);
        self.throttled += 1;
        self.credit = (self.credit - 1.0).max(-MOST_DEBT);
        self.excess = (self.excess + 1.0).min(MOST_EXCESS);
        let notice = now.saturating_sub(sent.at).as_secs_f64();
        self.notice = notice.max((3.0 * self.notice + notice) / 4.0);
        self.round.throttle(&sent);
        match (self.search, self.rate) {
            (Search::Doubling { factor, first }, Some(rate)) if sent.number >= first => {
                // If the request is from the round before, that round's rate was already too high.
                let steps = if sent.number >= self.round.first { 1 } else { 2 };
                let (lower, most) = (rate / factor.powi(steps), rate * UNDER);
                let sustained = self.overloads.sustained(self.mark());
                self.begin_overload();
                self.cut_for_throttle(sustained.map_or(most, |limit| limit.clamp(lower, most)), lower, now);
            }
            (Search::Doubling { .. }, Some(_)) => {}
            // The request was sent before the last cut.
            _ if sent.number < self.round.first => {}
            _ => self.track(&sent, now),
        }
    }

    /// Handles a throttle on the plateau, or of a request that had no pace so far.
    fn track(&mut self, sent: &Sent, now: Duration) {
        let is_settling = self.last_cut.is_some_and(|at| now.saturating_sub(at) < SETTLING);
        let is_plain = self.round.is_plainly_overloaded();
        if is_settling && !is_plain {
            return;
        }
        let rate = self.rate.unwrap_or_else(|| self.measured(now));
        let was_sustained = self.last_cut.is_none() && self.round.first == 0
            || sent.number - self.round.first >= BORNE
                && sent.at.saturating_sub(self.round.began) >= SETTLING;
        let (began, throttled) = (self.overloads.last(), self.throttled);
        let sustained = self.sustained(rate);
        if was_sustained {
            self.in_a_row = 0;
            self.begin_overload();
            if self.credit >= 0.0 && self.probed().is_none() {
                return self.begin_round(now);
            }
        }
        let (plateau, rate) = if is_plain {
            let lately = LATELY * self.lately[1].min(rate);
            let limit = (rate * self.round.share_accepted()).max(rate * DEEPEST).max(lately);
            (limit, limit * (1.0 - CUT))
        } else if was_sustained {
            (sustained, sustained * (1.0 - CUT_OF_SUSTAINED))
        } else {
            self.not_cut_enough(rate, began, throttled)
        };
        self.cut_for_throttle(plateau, rate, now);
        if is_plain || !was_sustained {
            self.rest(rate, now);
        }
    }

    /// The rate to stay under after `rate`, which the service sustained for a while.
    fn sustained(&self, rate: f64) -> f64 {
        let here = self.mark();
        let sustained = self.overloads.sustained(here);
        if let Some(plateau) = self.probed() {
            let height = rate / plateau - 1.0;
            let trusted = TRUST * height + MORE_TRUST * (height - BEYOND_BURSTS).max(0.0);
            return sustained.unwrap_or(0.0).max(plateau * (1.0 + trusted)).min(rate * UNDER);
        }
        let (span, passed) = here.since(self.overloads.last());
        let is_long = span >= LONG_SPAN && passed >= LONG_REQUESTS * ENOUGH;
        let sustained = sustained.filter(|_| !is_long);
        sustained.map_or(rate, |limit| limit.max(rate * LATELY)).min(rate * NEARLY)
    }

    /// The new plateau and the new rate below it, where `rate` was cut already but not enough. Both follow from what
    /// was accepted since the overload began, if that is conclusive; otherwise each cut is deeper than the last.
    fn not_cut_enough(&mut self, rate: f64, began: Mark, throttled: u64) -> (f64, f64) {
        let (span, accepted) = self.mark().since(began);
        // An upper bound that allows for sampling noise.
        let most = (accepted + accepted.sqrt() + 1.0) / span.max(0.5);
        // By time, or by share if something else held requests up.
        let share = accepted / (accepted + throttled as f64);
        let limit = (accepted / span.max(0.5)).max(rate * share);
        // What was accepted until just now, less a little for a burst, can hardly be too much.
        let most = most.max(LATELY * self.lately.iter().copied().fold(f64::MAX, f64::min).min(rate));
        if span >= 1.0 && most < 0.95 * rate {
            let limit = if accepted >= ENOUGH { limit.min(most).max(most * LATELY) } else { most };
            return (limit, limit * (1.0 - CUT));
        }
        let cut = (CUT * 2_f64.powi(self.in_a_row)).min(DEEPEST);
        self.in_a_row += 1;
        (rate * UNDER, rate * (1.0 - cut))
    }

    fn cut_for_throttle(&mut self, above: f64, rate: f64, now: Duration) {
        self.evidence = Some(Evidence::Throttles);
        self.cut(above, rate, now);
    }

    fn cut(&mut self, above: f64, rate: f64, now: Duration) {
        let rate = rate.max(LEAST);
        let notice = (self.evidence == Some(Evidence::Throttles)).then_some(self.notice);
        let excess = self.excess / MOST_EXCESS;
        self.search = Search::Tracking(Plateau::new(above.max(rate), rate, excess, notice));
        self.last_cut = Some(now);
        self.set(rate, now);
        self.due = self.due.max(now + Duration::from_secs_f64(1.0 / rate));
    }

    /// Gives the service a short rest before the next request.
    fn rest(&mut self, rate: f64, now: Duration) {
        let period = 1.0 / rate.max(LEAST);
        let rest = Duration::from_secs_f64(2.0 * period).min(BREATH);
        self.due = self.due.max(now + Duration::from_secs_f64(period) + rest);
    }

    fn set(&mut self, rate: f64, now: Duration) {
        self.rate = (rate < self.ceiling).then_some(rate);
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Duration) {
        self.round = Round::new(self.flight.next(), now);
    }

    fn begin_overload(&mut self) {
        self.overloads.begin(self.mark());
        self.throttled = 1;
    }

    fn mark(&self) -> Mark {
        Mark { active: self.active, passed: self.passed }
    }

    /// The rate at which requests are sent while nothing limits them.
    fn measured(&self, now: Duration) -> f64 {
        if self.ceiling < MOST {
            return self.ceiling;
        }
        let (since, requests) = self.counted;
        let elapsed = now.saturating_sub(since).as_secs_f64().max(0.5);
        (f64::from(requests) / elapsed).max(self.lately[1]).max(LEAST)
    }
}
