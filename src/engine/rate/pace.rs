//! The rate that the service bears, found from what it answers: values and `now` in, a pace out.
//!
//! Owns the search, and nothing that waits. Four ideas:
//!
//! - **Doubling.** From a low rate, twice as much after each second's worth of accepted requests, until the first sign of a
//!   throttle; then back to the rate before.
//! - **Empty to empty.** Whatever burst a service allows is used up when it throttles. What it accepts from one throttle
//!   to the next, over the time in between, is therefore its limit, almost exactly.
//! - **A plateau.** After a cut the rate returns to just under where it was throttled, stays there for long, and then
//!   probes, slowly at first: a cubic, as in TCP's CUBIC (RFC 9438). Far above the plateau it doubles again, in small
//!   steps: the limit has risen.
//! - **Rounds.** A cut is judged by requests that were sent after it, however late answers are. A round that is throttled
//!   early was not cut enough; one that is throttled late was, and has merely grown again.
//!
//! Silence counts as a throttle, because the broker's own is silent: a request whose answer is long overdue.

use std::time::Duration;

use super::flight::{Flight, Sent};
use super::sign::Sign;
use crate::rate::RateLimit;

/// Where the search begins, per second: below every default quota that matters here.
const START: f64 = 2.0;
/// Never less than one permit in ten seconds: it must show when the service has recovered.
const LEAST: f64 = 0.1;
/// More than any machine sends.
const MOST: f64 = 1_000_000.0;
/// By how much each doubling raises the rate.
const DOUBLE: f64 = 2.0;
/// Where the limit was known, and has risen by this much or more,
const RISEN: f64 = 1.25;
/// each doubling raises the rate by this instead.
const RISE: f64 = 1.1;
/// Less of a round than this was limited by something else, and says nothing about a higher rate.
const USED: f64 = 0.8;
/// What a cut takes off, as a share of the plateau.
const CUT: f64 = 0.03;
/// What the deepest cut takes off: where cuts follow each other each is twice as deep.
const DEEPEST: f64 = 0.5;
/// The plateau lies just under the rate that was throttled.
const UNDER: f64 = 0.99;
/// From a cut to the middle of the plateau, in seconds; longer where requests are few, so that what a probe costs stays
/// small against them.
const PLATEAU: f64 = 20.0;
const PLATEAU_REQUESTS: f64 = 50.0;
const LONGEST_PLATEAU: f64 = 100.0;
/// Cuts are this far apart, unless the overload is beyond doubt: services count in seconds, and the rest of a second that
/// was throttled says nothing about the new rate.
const SETTLING: Duration = Duration::from_secs(1);
/// So many requests of a round before its first throttle, over a second or more, say that its rate was borne.
const BORNE: u64 = 5;
/// So many accepted requests are enough to tell a limit from.
const ENOUGH: f64 = 10.0;
/// What is throttled without being answered by a cut, as a share: services that count strictly throttle now and then.
const TOLERATED: f64 = 0.01;
/// How much of that can be saved up, and how much owed, in requests.
const MOST_CREDIT: f64 = 1.5;
const MOST_DEBT: f64 = 20.0;
/// A timer that is late by this much may be made up for.
const SLACK: Duration = Duration::from_millis(2);
/// After a cut the service gets this long to find its feet, besides the time between two requests.
const BREATH: Duration = Duration::from_millis(250);
/// A pause that is longer than this does not count as time under load.
const LONGEST_GAP: f64 = 10.0;

/// How fast to send. Time is counted from anywhere, and never goes back.
pub(super) struct Pace {
    ceiling: f64,
    /// Nobody has set a rate: it is to be found.
    is_unknown: bool,
    /// Requests per second; none while nothing but the ceiling limits them.
    rate: Option<f64>,
    search: Search,
    flight: Flight,
    round: Round,
    due: Duration,
    last_sent: Duration,
    last_cut: Option<Duration>,
    /// Time under load so far, in seconds.
    active: f64,
    accepted: u64,
    /// Where the present overload began, and requests throttled since.
    overload: Mark,
    throttled: u64,
    /// Cuts in a row that were not enough.
    in_a_row: i32,
    credit: f64,
    /// The second that is being counted, and its requests so far: what the rate is while nothing limits it.
    counted: (Duration, u32),
}

#[derive(Clone, Copy)]
enum Search {
    /// Up by `factor` a second, from the request with this number on.
    Doubling { factor: f64, first: u64 },
    /// On a cubic around `plateau`, at `clock` seconds of it; its middle is at `middle`.
    Tracking { plateau: f64, clock: f64, middle: f64 },
}

/// Requests sent at one rate, or at one that grew slowly.
#[derive(Clone, Copy, Default)]
struct Round {
    /// The number of the first one.
    first: u64,
    began: Duration,
    sent: u64,
    accepted: u64,
    throttled: u64,
    /// How often a throttle followed an acceptance.
    turns: u32,
    is_last_accepted: bool,
    /// When the first and the last of those throttled were sent.
    span: Option<(Duration, Duration)>,
}

/// Time under load and requests accepted, at an instant.
#[derive(Clone, Copy, Default)]
struct Mark {
    active: f64,
    accepted: u64,
}

impl Pace {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            ceiling: limit.fixed().map_or(MOST, |rate| rate.as_per_second()),
            is_unknown: limit == RateLimit::Auto,
            rate: (limit == RateLimit::Auto).then_some(START),
            search: Search::Doubling { factor: DOUBLE, first: 0 },
            flight: Flight::default(),
            round: Round::default(),
            due: Duration::ZERO,
            last_sent: Duration::ZERO,
            last_cut: None,
            active: 0.0,
            accepted: 0,
            overload: Mark::default(),
            throttled: 0,
            in_a_row: 0,
            credit: MOST_CREDIT,
            counted: (Duration::ZERO, 0),
        }
    }

    /// Requests per second; none while nothing but a fixed limit, if any, holds them back.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether the rate is about to grow by much.
    pub(super) fn is_doubling(&self) -> bool {
        self.rate.is_some() && matches!(self.search, Search::Doubling { .. })
    }

    /// How long until the next request may be sent; `None` is at once.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        self.rate?;
        Some(self.due.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }

    /// A request is sent now. Its number is for [`Pace::heard`], which every request must come to.
    pub(super) fn sent(&mut self, now: Duration) -> u64 {
        let number = self.flight.send(now);
        self.round.sent += 1;
        match now.saturating_sub(self.counted.0) < SETTLING {
            true => self.counted.1 += 1,
            false => self.counted = (now, 1),
        }
        if let Some(rate) = self.rate {
            self.advance(now, 1.0 / rate);
        }
        self.last_sent = now;
        number
    }

    /// What became of a request.
    pub(super) fn heard(&mut self, number: u64, sign: Sign, now: Duration) {
        let Some(sent) = self.flight.end(number) else { return };
        match sign {
            Sign::Accepted => {
                self.flight.measure(now.saturating_sub(sent.at));
                self.accepted += 1;
                self.credit = (self.credit + TOLERATED).min(MOST_CREDIT);
                self.round.accept(number);
                self.double(now);
            }
            Sign::Throttled if !sent.was_overdue => self.throttle(sent, now),
            // A rate that was set is one that the service is known to bear: a restart must not slow the run.
            Sign::HungUp if self.is_unknown && !sent.was_overdue => self.throttle(sent, now),
            Sign::Throttled | Sign::HungUp | Sign::Unclear => {}
        }
        self.look_for_overdue(now);
    }

    /// Time under load has passed, and the next request is due a period later.
    fn advance(&mut self, now: Duration, period: f64) {
        let was_awaited = now <= self.due + Duration::from_secs_f64(period / 2.0) + SLACK * 2;
        let gap = now.saturating_sub(self.last_sent).as_secs_f64().min(LONGEST_GAP);
        self.active += if was_awaited { gap } else { period };
        let is_overdue = self.look_for_overdue(now);
        if was_awaited && !is_overdue {
            self.grow(now, gap);
        }
        // By the rate of now: it may just have been cut.
        let period = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        self.due = self.due.max(now.saturating_sub(SLACK)) + period;
    }

    fn look_for_overdue(&mut self, now: Duration) -> bool {
        let Some(sent) = self.flight.overdue(now) else { return false };
        self.throttle(sent, now);
        true
    }

    /// Raises the rate once a second's worth of a round was accepted.
    fn double(&mut self, now: Duration) {
        let (Search::Doubling { factor, .. }, Some(rate)) = (self.search, self.rate) else { return };
        let elapsed = now.saturating_sub(self.round.began).as_secs_f64();
        if elapsed < 1.0 || (self.round.accepted as f64) < rate.floor().max(1.0) {
            return;
        }
        if self.round.sent as f64 >= USED * rate * elapsed {
            return self.set(rate * factor, now);
        }
        // As before, but what was sent may still be throttled.
        self.round = Round { first: self.round.first, began: now, ..Round::default() };
    }

    /// Moves along the cubic.
    fn grow(&mut self, now: Duration, gap: f64) {
        let (Search::Tracking { plateau, clock, middle }, Some(rate)) = (&mut self.search, self.rate) else {
            return;
        };
        *clock += gap;
        let grown = *plateau * (1.0 + CUT * ((*clock - *middle) / *middle).powi(3));
        let grown = grown.max(rate);
        if grown > *plateau * RISEN {
            self.search = Search::Doubling { factor: RISE, first: self.flight.next() };
            return self.set(grown, now);
        }
        self.rate = (grown < self.ceiling).then_some(grown);
    }

    fn throttle(&mut self, sent: Sent, now: Duration) {
        self.throttled += 1;
        self.credit = (self.credit - 1.0).max(-MOST_DEBT);
        self.round.throttle(&sent);
        match (self.search, self.rate) {
            (Search::Doubling { factor, first }, Some(rate)) if sent.number >= first => {
                // A request of the round before says that already its rate was too high.
                let steps = if sent.number >= self.round.first { 1 } else { 2 };
                self.begin_overload();
                self.cut(rate * UNDER, rate / factor.powi(steps), now);
            }
            (Search::Doubling { .. }, Some(_)) => {}
            // It was sent before the last cut.
            _ if sent.number < self.round.first => {}
            _ => self.track(&sent, now),
        }
    }

    /// A throttle on the plateau, or of what had no pace of its own so far.
    fn track(&mut self, sent: &Sent, now: Duration) {
        let is_settling = self.last_cut.is_some_and(|at| now.saturating_sub(at) < SETTLING);
        let is_plain = self.round.is_plainly_overloaded();
        if is_settling && !is_plain {
            return;
        }
        let rate = self.rate.unwrap_or_else(|| self.measured(now));
        let was_borne = self.last_cut.is_none() && self.round.first == 0
            || sent.number - self.round.first >= BORNE
                && sent.at.saturating_sub(self.round.began) >= SETTLING;
        let began = self.overload;
        let throttled = self.throttled;
        if was_borne {
            self.in_a_row = 0;
            self.begin_overload();
            if self.credit >= 0.0 {
                return self.begin_round(now);
            }
        }
        let (plateau, rate) = if is_plain {
            let limit = (rate * self.round.share_accepted()).max(rate * DEEPEST);
            (limit, limit * (1.0 - CUT))
        } else if was_borne {
            (rate * UNDER, rate * (1.0 - CUT))
        } else {
            self.not_cut_enough(rate, began, throttled)
        };
        self.cut(plateau, rate, now);
    }

    /// A rate below `rate`, which is already a cut one, and the plateau above it: from what was accepted since the overload
    /// began, where that tells; else ever deeper.
    fn not_cut_enough(&mut self, rate: f64, began: Mark, throttled: u64) -> (f64, f64) {
        let span = self.active - began.active;
        let accepted = (self.accepted - began.accepted) as f64;
        // No more than this, by all that chance may do.
        let most = (accepted + accepted.sqrt() + 1.0) / span.max(0.5);
        // By time, or where requests were held up by something else, by share.
        let share = accepted / (accepted + throttled as f64);
        let limit = (accepted / span.max(0.5)).max(rate * share);
        if span >= 1.0 && most < 0.95 * rate {
            let limit = if accepted >= ENOUGH { limit.min(most) } else { most };
            return (limit, limit * (1.0 - CUT));
        }
        let cut = (CUT * 2_f64.powi(self.in_a_row)).min(DEEPEST);
        self.in_a_row += 1;
        (rate * UNDER, rate * (1.0 - cut))
    }

    fn cut(&mut self, above: f64, rate: f64, now: Duration) {
        let rate = rate.max(LEAST);
        self.search = plateau(above.max(rate), rate);
        self.last_cut = Some(now);
        self.set(rate, now);
        let period = 1.0 / rate;
        let rest = Duration::from_secs_f64(2.0 * period).min(BREATH);
        self.due = self.due.max(now + Duration::from_secs_f64(period) + rest);
    }

    fn set(&mut self, rate: f64, now: Duration) {
        self.rate = (rate < self.ceiling).then_some(rate);
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Duration) {
        self.round = Round { first: self.flight.next(), began: now, ..Round::default() };
    }

    fn begin_overload(&mut self) {
        self.overload = Mark { active: self.active, accepted: self.accepted };
        self.throttled = 1;
    }

    /// What is sent while nothing limits it.
    fn measured(&self, now: Duration) -> f64 {
        let (since, requests) = self.counted;
        let elapsed = now.saturating_sub(since).as_secs_f64().max(0.5);
        (f64::from(requests) / elapsed).max(LEAST).min(self.ceiling)
    }
}

impl Round {
    fn accept(&mut self, number: u64) {
        if number >= self.first {
            self.accepted += 1;
            self.is_last_accepted = true;
        }
    }

    fn throttle(&mut self, sent: &Sent) {
        if sent.number >= self.first {
            self.throttled += 1;
            self.turns += u32::from(self.is_last_accepted);
            self.is_last_accepted = false;
            self.span = Some((self.span.map_or(sent.at, |(first, _)| first), sent.at));
        }
    }

    /// Whether throttles and acceptances alternate, over longer than the end of a second that was used up.
    fn is_plainly_overloaded(&self) -> bool {
        let spread = self.span.map_or(Duration::ZERO, |(first, last)| last.saturating_sub(first));
        spread >= Duration::from_millis(250)
            && self.turns >= 3
            && self.accepted + self.throttled >= 8
            && self.throttled * 8 >= self.accepted
    }

    fn share_accepted(&self) -> f64 {
        self.accepted as f64 / (self.accepted + self.throttled).max(1) as f64
    }
}

/// The cubic around `plateau` that is at `rate` now.
fn plateau(plateau: f64, rate: f64) -> Search {
    let middle = PLATEAU.max((PLATEAU_REQUESTS / plateau).min(LONGEST_PLATEAU));
    let below = (1.0 - rate / plateau).max(0.0);
    Search::Tracking { plateau, clock: middle * (1.0 - (below / CUT).cbrt()), middle }
}
