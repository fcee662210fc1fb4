//! The generator: offers each arrival at its instant.
//!
//! Owns punctuality, and reports it. It never makes up for lost time: a late arrival is offered late, and that is
//! measured.

use tokio::time::{Instant, sleep_until};

use super::desk::{Desk, Due};
use crate::engine::recorder::RecorderHandle;
use crate::event::Note;
use crate::schedule::Schedule;

/// Offers all arrivals of `schedule`, which begins at `start`, and waits until none waits for a connection. Ends
/// early when the desk is closed. Arrivals due before `warm` are recorded at their due instant, and so count in no
/// figure.
pub(super) async fn offer(
    mut schedule: Schedule,
    start: Instant,
    warm: Instant,
    desk: &Desk,
    recorder: &RecorderHandle,
) {
    let told_at = |due: Due, now: Instant| if due.at < warm { due.at } else { now };
    let mut next = schedule.next();
    loop {
        while let Some(arrival) = next {
            let due = Due { number: arrival.number, at: start + arrival.due };
            let now = Instant::now();
            if due.at > now {
                break;
            }
            recorder.note_at(told_at(due, now), Note::Scheduled { lateness: now - due.at }).await;
            if desk.closed().is_cancelled() {
                return;
            }
            if !desk.arrive(due) {
                recorder.note_at(told_at(due, now), Note::Missed).await;
            }
            next = schedule.next();
        }
        let now = Instant::now();
        let (missed, expiry) = desk.expire(now);
        for due in missed {
            recorder.note_at(told_at(due, now), Note::Missed).await;
        }
        let due = next.map(|arrival| start + arrival.due);
        let Some(wake) = due.into_iter().chain(expiry).min() else { return };
        tokio::select! {
            biased;
            () = desk.closed().cancelled() => return,
            () = sleep_until(wake) => {}
            () = desk.emptied(), if next.is_none() => {}
        }
    }
}
