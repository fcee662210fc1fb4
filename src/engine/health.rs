//! What a run has seen of the service, as far as it bears on stopping.
//!
//! Owns the marks that workers leave for each other. Decides nothing: that is [`crate::failure`]'s.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Standing;

/// Shared by all workers. Each mark is on its own: none orders anything else.
pub(super) struct Health {
    began: Instant,
    has_connected: AtomicBool,
    /// When the service was last seen to serve: milliseconds since `began`, and one; zero for never.
    served_at: AtomicU64,
}

impl Health {
    /// Of a run that begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), has_connected: AtomicBool::new(false), served_at: AtomicU64::new(0) }
    }

    /// A dial has succeeded.
    pub(super) fn connected(&self) {
        self.has_connected.store(true, Ordering::Relaxed);
    }

    /// The service has answered a request, or kept a connection for long.
    pub(super) fn served(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.served_at.fetch_max(ms + 1, Ordering::Relaxed);
    }

    /// What all this amounts to.
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
