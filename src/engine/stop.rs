//! How a run is asked to stop early.

use std::fmt;
use std::future::pending;

use futures::future::{BoxFuture, FutureExt};
use tokio_util::sync::CancellationToken;

/// What asks a run to stop. A plain future asks it to drain.
pub struct Stop {
    drain: BoxFuture<'static, ()>,
    abort: BoxFuture<'static, ()>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}

impl Stop {
    /// Never asks: the run ends when there is nothing left to do.
    pub fn never() -> Self {
        Self::when(pending::<()>())
    }

    /// When `asked` completes, with any output, the run drains: it finishes what is in flight, starts nothing new,
    /// and closes politely.
    pub fn when(asked: impl Future + Send + 'static) -> Self {
        Self { drain: quiet(asked), abort: pending().boxed() }
    }

    /// When `asked` completes, with any output, the run drops everything at once. The ledger stays true.
    pub fn abort_when(self, asked: impl Future + Send + 'static) -> Self {
        Self { abort: quiet(asked), ..self }
    }

    /// Runs `work`, giving it the tokens that tell what was asked for meanwhile.
    pub(super) async fn during<W: Future>(self, work: impl FnOnce(StopTokens) -> W) -> W::Output {
        let tokens = StopTokens::default();
        let StopTokens { drain, abort } = tokens.clone();
        let asking = async {
            let draining = self.drain.map(|()| drain.cancel());
            let aborting = self.abort.map(|()| abort.cancel());
            tokio::join!(draining, aborting);
            pending::<()>().await;
        };
        tokio::select! {
            // No random choice: the same seed must give the same run.
            biased;
            () = asking => unreachable!("it only ever waits in the end"),
            output = work(tokens) => output,
        }
    }
}

impl<F: Future + Send + 'static> From<F> for Stop {
    fn from(asked: F) -> Self {
        Self::when(asked)
    }
}

fn quiet(asked: impl Future + Send + 'static) -> BoxFuture<'static, ()> {
    async {
        let _ = asked.await;
    }
    .boxed()
}

/// The tokens that tell a run's parts to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct StopTokens {
    /// Cancelled to finish what is in flight, start nothing new, and close politely.
    pub(super) drain: CancellationToken,
    /// Cancelled to drop everything now.
    pub(super) abort: CancellationToken,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_reaches_the_work_when_it_is_asked_for() {
        let seconds = |n| sleep(Duration::from_secs(n));
        let began = Instant::now();
        let stop = Stop::when(seconds(2)).abort_when(seconds(5));
        let told = stop.during(|stop| async move {
            stop.drain.cancelled().await;
            let drained = began.elapsed().as_secs();
            assert!(!stop.abort.is_cancelled());
            stop.abort.cancelled().await;
            (drained, began.elapsed().as_secs())
        });
        assert_eq!(told.await, (2, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_by_itself_where_nothing_is_asked_for() {
        let work = |stop: StopTokens| async move {
            sleep(Duration::from_secs(3600)).await;
            stop.drain.is_cancelled() || stop.abort.is_cancelled()
        };
        assert!(!Stop::never().during(work).await);
    }
}
