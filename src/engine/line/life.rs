//! A connection that a worker holds, and its state between exchanges.
//!
//! Owns its age: when it is due to be renewed, and whether it has proven itself. [`super::Line`] decides what to
//! do when it ends.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{Instrument, Span};

use crate::failure::Failure;
use crate::transport::Connection;

/// The share of its lifetime by which a connection may be renewed early. Connections opened together are then renewed
/// over that time: 10,000 of 23 h each in 69 minutes, 2.4 per second.
const SPREAD: f64 = 0.05;

/// An open connection.
pub(super) struct Held<C> {
    pub(super) connection: C,
    /// The connection's span in the log.
    pub(super) span: Span,
    pub(super) life: Life,
}

/// A connection's age, and whether it has carried an answer.
pub(super) struct Life {
    opened: Instant,
    has_answered: bool,
    /// One timer for the connection's life: polling it again costs next to nothing.
    renewal: Pin<Box<Sleep>>,
}

/// How waiting on a connection ends.
pub(super) enum Ended {
    /// The connection is old or retired, and should be replaced while that does no harm.
    Due,
    /// The connection ended by itself.
    Lost(Failure),
}

impl<C: Connection> Held<C> {
    /// Keeps the connection alive until it ends or is due to be renewed. Cancel safe.
    pub(super) async fn idle(&mut self) -> Ended {
        tokio::select! {
            biased;
            failure = self.connection.idle().instrument(self.span.clone()) => Ended::Lost(failure),
            () = &mut self.life.renewal => Ended::Due,
        }
    }
}

impl Life {
    /// The life of a connection that was opened now and is due after `lifetime`, or a little earlier by `jitter`,
    /// which is uniform from 0 to 1.
    pub(super) fn new(lifetime: Duration, jitter: f64) -> Self {
        let opened = Instant::now();
        let lifetime = lifetime.mul_f64(1.0 - SPREAD * jitter.clamp(0.0, 1.0));
        Self { opened, has_answered: false, renewal: Box::pin(sleep_until(opened + lifetime)) }
    }

    /// Notes that the connection has carried an answer.
    pub(super) fn answered(self) -> Self {
        Self { has_answered: true, ..self }
    }

    /// Ends the connection's life: it is due now.
    pub(super) fn end(&mut self) {
        self.renewal.as_mut().reset(Instant::now());
    }

    /// Whether the service has served on the connection: by an answer, or by keeping it open for at least `after`.
    pub(super) fn is_proven(&self, after: Duration) -> bool {
        self.has_answered || self.opened.elapsed() >= after
    }

    /// Whether the connection should be renewed before it carries another exchange.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.renewal.deadline()
    }
}

/// Drives `side` while `main` runs. Returns the output of `side` too, if it has ended; then it must not be polled
/// again.
pub(super) async fn beside<T, U>(
    main: impl Future<Output = T>,
    mut side: Pin<&mut impl Future<Output = U>>,
) -> (T, Option<U>) {
    let mut main = pin!(main);
    let mut done = None;
    let value = poll_fn(|cx| {
        if done.is_none()
            && let Poll::Ready(value) = side.as_mut().poll(cx)
        {
            done = Some(value);
        }
        main.as_mut().poll(cx)
    });
    let value = value.await;
    (value, done)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_that_were_opened_together_are_not_renewed_together() {
        let mut random = SmallRng::seed_from_u64(1);
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        let mut per_second = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let life = Life::new(23 * hour, random.random());
            let after = life.renewal.deadline() - began;
            assert!(after > 21 * hour && after <= 23 * hour, "{after:?}");
            *per_second.entry(after.as_secs()).or_insert(0) += 1;
        }
        let most = per_second.values().max().unwrap();
        assert!(*most < 20, "{most} in one second");
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_beside_stops_with_the_main_thing() {
        let main = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            "main"
        };
        let mut side = pin!(tokio::time::sleep(Duration::from_secs(1)));
        assert_eq!(beside(main, side.as_mut()).await, ("main", Some(())));
        let mut side = pin!(tokio::time::sleep(Duration::from_secs(3)));
        assert_eq!(beside(async { "main" }, side.as_mut()).await, ("main", None));
        side.await;
    }
}
