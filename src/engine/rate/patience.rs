//! When to give up a request without an answer: long before its timeout, if others are answered.
//!
//! Owns whether a request is much older than its fellows. The timeout is a bound, not a plan: a connection that waits
//! for an answer that never comes is of no use.

use std::time::Duration;

use super::Permit;
use super::flight::Flight;
use crate::transport::{Heard, Patience, Ping, Wait};

/// A request without a PUBACK is doubted after this time and this multiple of the recent maximum latency: PUBACKs
/// come sooner than answers.
const UNACKNOWLEDGED: (Duration, u32) = (Duration::from_millis(400), 3);
/// A request with a PUBACK is doubted after these: the service has it, and may be slow, say in a pre-provisioning
/// hook.
const ACKNOWLEDGED: (Duration, u32) = (Duration::from_secs(2), 10);
/// A request is given up after these if its connection is alive and few requests sent later are answered.
const ALONE: (Duration, u32) = (Duration::from_secs(3), 10);
/// A request is late if this many sent later are answered.
const FELLOWS: usize = 3;
/// The shortest wait for a PINGRESP.
const LEAST_PING: Duration = Duration::from_millis(200);

/// How long the holder of a permit waits for its answer.
pub(in crate::engine) struct Waiting<'a> {
    pub(super) permit: &'a Permit,
    pub(super) within: Duration,
}

impl Patience for Waiting<'_> {
    fn next(&self, heard: Heard) -> Wait {
        match self.permit.number {
            // A load test waits the full time: otherwise the slowest answers would be missing from its figures.
            None => self.within.next(heard),
            Some(number) => self.permit.clock.pace().wait_for(number, heard, self.within),
        }
    }
}

/// What to do about a request without an answer.
pub(super) fn wait(flight: &Flight, number: u64, heard: Heard, within: Duration) -> Wait {
    // Until the first answer the latency is not known.
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
