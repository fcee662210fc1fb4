//! What a run has seen of the service that matters for stopping.
//!
//! Owns the marks that workers leave for each other. Decides nothing: that is [`crate::failure`]'s.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Standing;

/// Marks shared by all workers. They are independent: none orders anything else.
pub(super) struct Health {
    began: Instant,
    has_connected: AtomicBool,
    /// When the service last served: milliseconds since `began`, plus one; zero for never.
    served_at: AtomicU64,
}

impl Health {
    /// The health of a run that begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), has_connected: AtomicBool::new(false), served_at: AtomicU64::new(0) }
    }

    /// Notes that a dial has succeeded.
    pub(super) fn connected(&self) {
        self.has_connected.store(true, Ordering::Relaxed);
    }

    /// Notes that the service has answered a request, or kept a connection for long.
    pub(super) fn served(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.served_at.fetch_max(ms + 1, Ordering::Relaxed);
    }

    /// What the marks amount to.
    pub(super) fn standing(&self) -> Standing {
        match self.served_at.load(Ordering::Relaxed) {
            0 if self.has_connected.load(Ordering::Relaxed) => Standing::Reached,
            0 => Standing::Unreached,
            ms => {
                let at = Duration::from_millis(ms - 1);
                Standing::Served { ago: self.began.elapsed().saturating_sub(at) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_sign_of_life_counts() {
        let health = Health::new();
        assert_eq!(health.standing(), Standing::Unreached);
        health.connected();
        assert_eq!(health.standing(), Standing::Reached);
        health.served();
        tokio::time::sleep(Duration::from_secs(7)).await;
        health.served();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(health.standing(), Standing::Served { ago: Duration::from_secs(5) });
    }
}
