//! Outages: times at which the service answers no request.
//!
//! Owns when an outage begins and ends, and how often it is probed. A rate means nothing during one.

use std::time::Duration;

/// The shortest time without an answer that counts as an outage.
const LEAST: Duration = Duration::from_secs(3);
/// An outage also needs this multiple of the recent maximum latency without an answer.
const LATENCIES: u32 = 10;
/// How often one request is sent to see whether the outage is over.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Outage {
    /// When the first request since the last answer was sent; `None` if there was none.
    unanswered: Option<Duration>,
    /// When the next probe is due; `None` while the service answers.
    probe: Option<Duration>,
}

impl Outage {
    /// Whether an outage begins now. `latency` is the recent maximum latency.
    pub(super) fn begins(&mut self, latency: Option<Duration>, now: Duration) -> bool {
        let (None, Some(latency), Some(unanswered)) = (self.probe, latency, self.unanswered) else {
            return false;
        };
        let begins = now.saturating_sub(unanswered) >= LEAST.max(latency * LATENCIES);
        if begins {
            self.probe = Some(now);
        }
        begins
    }

    pub(super) fn is_on(&self) -> bool {
        self.probe.is_some()
    }

    /// When a request may be sent despite the outage; `None` if there is no outage.
    pub(super) fn probe_due(&self) -> Option<Duration> {
        self.probe
    }

    pub(super) fn sent(&mut self, now: Duration) {
        self.unanswered.get_or_insert(now);
        self.probe = self.probe.map(|_| now + PROBE);
    }

    /// Notes that the service answers. Returns whether that ends an outage.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered = None;
        self.probe.take().is_some()
    }
}
