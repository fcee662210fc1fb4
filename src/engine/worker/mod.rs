//! A worker: one line, one device at a time.

use std::sync::Arc;

use tokio::time::Instant;

use super::context::Halt;
use super::crew::Crew;
use super::journey::Journey;
use super::line::Line;
use super::queue::Queue;
use crate::failure::Failure;
use crate::transport::Connector;

/// Takes devices from the queue until none is left or the run stops; an error stops the run.
pub(super) async fn work<C: Connector>(
    mut line: Line<C>,
    journey: Arc<Journey<C>>,
    queue: Queue,
    crew: Arc<Crew>,
) -> Result<(), Failure> {
    let ended = loop {
        if crew.dismisses() {
            break Ok(());
        }
        let Some(device) = line.unless_draining(queue.next()).await.unwrap_or_default() else {
            crew.exhausted();
            break Ok(());
        };
        let began = Instant::now();
        line.take_waited();
        match journey.take(&mut line, device).await {
            Ok(()) => crew.done(began.elapsed().saturating_sub(line.take_waited())),
            Err(Halt::Stop(failure)) => break Err(failure),
            Err(Halt::Drain | Halt::Recorder) => break Ok(()),
        }
    };
    line.disconnect().await;
    ended
}

#[cfg(test)]
mod tests;
