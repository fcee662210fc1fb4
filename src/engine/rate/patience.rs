//! When a request that has no answer is given up: long before its timeout, where others are answered.
//!
//! Owns the question whether a request is much older than its fellows. The timeout is a bound, not a plan: a connection that
//! waits for what will never come serves nobody.

use std::time::Duration;

use super::Permit;
use super::flight::Flight;
use crate::transport::{Heard, Patience, Ping, Wait};

/// Without a PUBACK a request is doubted after this, and this many times the longest latency of the last answers: PUBACKs come
/// sooner than answers.
const UNACKNOWLEDGED: (Duration, u32) = (Duration::from_millis(400), 3);
/// With one the service has it, and may be slow: a pre-provisioning hook, say.
const ACKNOWLEDGED: (Duration, u32) = (Duration::from_secs(2), 10);
/// Where nobody else was sent later and is answered.
const ALONE: (Duration, u32) = (Duration::from_secs(3), 10);
/// So many that were sent later and are answered tell that a request is late.
const FELLOWS: usize = 3;
/// How long a PINGRESP is waited for at least.
const LEAST_PING: Duration = Duration::from_millis(200);

/// How long the owner of a permit waits for its answer.
pub(in crate::engine) struct Waiting<'a> {
    pub(super) permit: &'a Permit,
    pub(super) within: Duration,
}

impl Patience for Waiting<'_> {
    fn next(&self, heard: Heard) -> Wait {
        match self.permit.number {
            // A load test waits, or the slowest answers would be missing from its figures.
            None => self.within.next(heard),
            Some(number) => self.permit.clock.pace().wait_for(number, heard, self.within),
        }
    }
}

/// What to do about this request.
pub(super) fn wait(flight: &Flight, number: u64, heard: Heard, within: Duration) -> Wait {
    // Until somebody was answered nobody knows how long an answer takes.
    let Some(latency) = flight.latency() else { return within.next(heard) };
    let Heard { age, is_acknowledged, ping } = heard;
    if age >= within {
        return Wait::GiveUp;
    }
    let at_least = |(time, latencies): (Duration, u32)| time.max(latency * latencies);
    let doubted_at = at_least(if is_acknowledged { ACKNOWLEDGED } else { UNACKNOWLEDGED });
    if age < doubted_at {
        return Wait::Until(doubted_at.min(within));
    }
    let again = (age + latency.max(LEAST_PING)).min(within);
    let has_fellows = flight.answered_after(number, FELLOWS) == FELLOWS;
    match ping {
        Ping::NotSent => Wait::PingUntil(again),
        Ping::Answered | Ping::Sent if has_fellows => Wait::GiveUp,
        Ping::Answered if age >= at_least(ALONE) => Wait::GiveUp,
        Ping::Answered | Ping::Sent => Wait::Until(again),
    }
}
