//! Waits that end within a fraction of a millisecond of their instant.
//!
//! Owns a thread and the waits that it ends. The runtime's timers count whole milliseconds and round up twice: a
//! latency of 5 ms would become 6 to 7 ms, and a load test would measure that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

/// Ends waits on time; stops and joins its thread when it is dropped.
pub(super) struct Timer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waits: Mutex<Waits>,
    changed: Condvar,
}

#[derive(Default)]
struct Waits {
    /// Waits, soonest first; those for the same instant in the order in which they began.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    sleepers: BTreeMap<u64, oneshot::Sender<()>>,
    begun: u64,
    closed: bool,
}

impl Timer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's error if it cannot start a thread.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(String::from("timer")).spawn(move || worker.work())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until `at`, never less. Dropping the future only cancels the wait.
    pub(super) async fn wait_until(&self, at: Instant) {
        if at <= Instant::now() {
            return;
        }
        let (sender, woken) = oneshot::channel();
        let is_soonest = self.shared.waits().add(at, sender);
        if is_soonest {
            self.shared.changed.notify_one();
        }
        // The sender is dropped unused only together with the timer, when nobody waits any more.
        let _ = woken.await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.waits().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

impl Shared {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the thread, until the timer is dropped.
    fn work(&self) {
        let mut waits = self.waits();
        while !waits.closed {
            waits.wake(Instant::now());
            waits = match waits.next() {
                None => self.changed.wait(waits).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(waits, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Waits {
    /// Adds a wait. Returns whether it ends before all others.
    fn add(&mut self, at: Instant, sleeper: oneshot::Sender<()>) -> bool {
        self.begun += 1;
        let is_soonest = self.next().is_none_or(|next| at < next);
        self.due.push(Reverse((at, self.begun)));
        self.sleepers.insert(self.begun, sleeper);
        is_soonest
    }

    fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Ends the waits that are due.
    fn wake(&mut self, now: Instant) {
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse((_, number))) = self.due.pop() else { return };
            if let Some(sleeper) = self.sleepers.remove(&number) {
                // A waiter that gave up need not be told.
                let _ = sleeper.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn every_wait_ends_and_none_too_early() {
        let timer = Timer::start().unwrap();
        let start = Instant::now();
        let waits = [30_u64, 10, 0, 20, 10].map(|millis| {
            let (timer, at) = (&timer, start + Duration::from_millis(millis));
            async move {
                timer.wait_until(at).await;
                assert!(Instant::now() >= at);
            }
        });
        join_all(waits).await;
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_and_an_alarm_that_is_dropped_hold_nobody() {
        let timer = Timer::start().unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        let given_up = tokio::time::timeout(Duration::from_millis(5), timer.wait_until(far)).await;
        assert!(given_up.is_err());
        timer.wait_until(Instant::now() + Duration::from_millis(5)).await;
        drop(timer);
    }
}
