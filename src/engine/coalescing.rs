//! Lets packets gather before a thread wakes up for them.
//!
//! Where a service takes its time, most of what a device costs is waking up, once for each packet and each commit. A
//! thread that looks a little later finds several at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long an idle thread of the caller's runtime may wait before it looks for packets again. The run whose
/// [`Plan`](super::Plan) holds it sets this time; the runtime applies it by calling [`wait`](Self::wait) from
/// [`on_thread_park`]. Without that it has no effect.
///
/// The wait is part of the latencies that the run reports: at most a thirty-second of them, and at most 1 ms.
///
/// [`on_thread_park`]: tokio::runtime::Builder::on_thread_park
#[derive(Debug, Clone, Default)]
pub struct Coalescing(Arc<AtomicU32>);

impl Coalescing {
    /// The longest wait, whatever the latency.
    const MOST: Duration = Duration::from_millis(1);
    /// The longest wait, as a divisor of the latency.
    const PART: u32 = 32;

    /// Blocks the thread for as long as the run allows at the moment, which may be not at all.
    pub fn wait(&self) {
        match self.0.load(Ordering::Relaxed) {
            0 => {}
            micros => std::thread::sleep(Duration::from_micros(micros.into())),
        }
    }
}

/// A run's right to set a [`Coalescing`]; sets it to zero when the run ends or is dropped.
#[derive(Debug, Default)]
pub(super) struct Allowance(Coalescing);

impl Allowance {
    pub(super) fn of(coalescing: Coalescing) -> Self {
        Self(coalescing)
    }

    /// Allows what suits `under_way` exchanges that take `latency`: nothing, if no other packet is likely to come
    /// meanwhile.
    pub(super) fn set(&self, under_way: u32, latency: Duration) {
        let most = Coalescing::MOST.min(latency / Coalescing::PART);
        let allowed = if most * under_way >= latency { most } else { Duration::ZERO };
        self.0.0.store(u32::try_from(allowed.as_micros()).unwrap_or_default(), Ordering::Relaxed);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_a_part_of_the_latency_while_more_is_likely_to_come() {
        let coalescing = Coalescing::default();
        let allowance = Allowance::of(coalescing.clone());
        for (under_way, latency_ms, micros) in [
            (0, 16, 0),
            (31, 16, 0),
            (32, 16, 500),
            (1_000, 16, 500),
            (100, 100, 1_000),
            (99, 100, 0),
            (100, 0, 0),
            (u32::MAX, 60_000, 1_000),
        ] {
            allowance.set(under_way, Duration::from_millis(latency_ms));
            assert_eq!(coalescing.0.load(Ordering::Relaxed), micros, "{under_way} of {latency_ms} ms");
        }
        drop(allowance);
        assert_eq!(coalescing.0.load(Ordering::Relaxed), 0);
    }
}
