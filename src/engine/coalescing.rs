//! Lets packets gather before a thread wakes up for them.
//!
//! Where a service takes its time, most of what a device costs is waking up, once for each packet and each commit. A
//! thread that looks a little later finds several at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long the threads of the caller's runtime may wait before they look for packets again. A run that has one in its
/// [`Plan`](super::Plan) says so while it lasts; it is for [`on_thread_park`] to do so, or for nobody.
///
/// Exchanges seem to take longer by what their thread waits: by a thirty-second of what they take, or 1 ms, at most.
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

    /// Allows what suits `under_way` exchanges that take `latency`: nothing, if no other packet is likely to come
    /// meanwhile.
    pub(super) fn allow(&self, under_way: u32, latency: Duration) {
        let most = Self::MOST.min(latency / Self::PART);
        let allowed = if most * under_way >= latency { most } else { Duration::ZERO };
        self.0.store(u32::try_from(allowed.as_micros()).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Allows nothing any more.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_a_part_of_the_latency_while_more_is_likely_to_come() {
        let coalescing = Coalescing::default();
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
            coalescing.allow(under_way, Duration::from_millis(latency_ms));
            assert_eq!(coalescing.0.load(Ordering::Relaxed), micros, "{under_way} of {latency_ms} ms");
        }
        coalescing.end();
        assert_eq!(coalescing.0.load(Ordering::Relaxed), 0);
    }
}
