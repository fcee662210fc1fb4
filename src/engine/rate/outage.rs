//! Times at which the service answers nobody.
//!
//! Owns when such a time begins and ends, and how often it is probed. A rate means nothing while it lasts.

use std::time::Duration;

/// Nobody is answered for this long,
const LEAST: Duration = Duration::from_secs(3);
/// and for this many times the longest latency.
const LATENCIES: u32 = 10;
/// One request is sent this often to see whether it is over.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Outage {
    /// When the first request was sent after the last answer.
    unanswered: Option<Duration>,
    /// When the next probe is due; `None` while the service answers.
    probe: Option<Duration>,
}

impl Outage {
    /// Whether one begins now. `latency` is the longest of the last answers'.
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

    /// When a request may be sent in spite of it.
    pub(super) fn probe_due(&self) -> Option<Duration> {
        self.probe
    }

    pub(super) fn sent(&mut self, now: Duration) {
        self.unanswered.get_or_insert(now);
        self.probe = self.probe.map(|_| now + PROBE);
    }

    /// The service answers; whether that ends an outage.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered = None;
        self.probe.take().is_some()
    }
}
