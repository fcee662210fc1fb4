//! The frame of every run: tasks that are supervised until all have ended.
//!
//! Owns which tasks are told to stop when one of them asks for it, and which reason counts.

use std::pin::pin;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::end::End;

/// The tasks of a run. A task that returns an end asks the whole run to end that way.
pub(super) type Tasks = JoinSet<Result<(), End>>;

/// What differs between kinds of run.
pub(super) trait Foreman {
    /// Waits until more tasks are wanted. Cancel safe.
    async fn wanted(&mut self) -> usize;

    /// Adds `more` tasks.
    fn hire(&mut self, more: usize, tasks: &mut Tasks);

    /// Begins nothing new from here on; what is under way may end by itself. May be called more than once.
    fn wind_down(&mut self);
}

/// Supervises `tasks` until all have ended. They end at once if `abort` is cancelled or a task panics, and early if a
/// task or `asked` requests it. The first reason counts; `None` if there was none.
pub(super) async fn supervise(
    mut foreman: impl Foreman,
    mut tasks: Tasks,
    abort: &CancellationToken,
    asked: impl Future<Output = End>,
) -> Option<End> {
    let mut asked = pin!(asked);
    let mut end = None;
    loop {
        let reason = tokio::select! {
            // No random choice: the same seed must give the same run.
            biased;
            () = abort.cancelled() => {
                tasks.shutdown().await;
                foreman.wind_down();
                return Some(end.unwrap_or(End::Aborted));
            }
            reason = &mut asked, if end.is_none() => reason,
            joined = tasks.join_next() => match joined {
                None => return end,
                Some(Ok(Ok(()))) => continue,
                Some(Ok(Err(reason))) => reason,
                Some(Err(panic)) => {
                    tasks.shutdown().await;
                    foreman.wind_down();
                    return Some(End::Bug(panic.to_string()));
                }
            },
            more = foreman.wanted(), if end.is_none() => {
                foreman.hire(more, &mut tasks);
                continue;
            }
        };
        foreman.wind_down();
        end.get_or_insert(reason);
    }
}
