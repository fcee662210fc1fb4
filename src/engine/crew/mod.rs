//! The crew: how many workers there are and should be, and where their time goes.
//!
//! Owns hiring and dismissal as numbers; the run owns the tasks. A surplus worker leaves between two devices, never
//! in the middle of one.

mod size;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::Use;
use super::{Connections, Limits};
use crate::event::Operation;
use crate::usage::{ConnectionUsage, LimitUsage, Usage};

use size::{Look, Size};

/// How often the number of workers is reconsidered.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A limit that holds requests back for at least this share of the time is used up: requests wait at it almost
/// always.
const HELD_BACK: f64 = 0.9;
/// A device that takes this many times the median has lost an answer.
const OUTLIER: u32 = 10;
/// What is left of the stretch after each look without losses: half after half a minute.
const CALMING: f64 = 0.988;
/// How many of the latest devices the time per device is estimated from.
const REMEMBERED: usize = 200;

pub(super) struct Crew {
    began: Instant,
    connections: Connections,
    roster: Mutex<Roster>,
    /// How many workers still have to leave.
    dismissed: AtomicUsize,
    /// Whether no device is left to be taken up.
    is_exhausted: AtomicBool,
    done: AtomicU64,
    busy_us: AtomicU64,
    pausing_us: AtomicU64,
}

struct Roster {
    workers: usize,
    /// The sum of the instants at which present workers began.
    since: Duration,
    /// The total time of workers that have left.
    left: Duration,
    size: Option<Size>,
    /// How long each of the latest devices took.
    took: VecDeque<Duration>,
    /// How many workers are needed for each one that is not waiting for a lost answer.
    stretch: f64,
    /// How long limits had held requests back at the last look, and when that was.
    held: (Duration, Duration),
}

/// A worker's shift; it ends when this is dropped.
pub(super) struct Shift {
    crew: Arc<Crew>,
    began: Duration,
}

impl Crew {
    pub(super) fn new(connections: Connections) -> Self {
        let size = match connections {
            Connections::Fixed(_) => None,
            Connections::Auto { max } => Some(Size::new(max)),
        };
        let roster = Roster {
            workers: 0,
            since: Duration::ZERO,
            left: Duration::ZERO,
            size,
            took: VecDeque::new(),
            stretch: 1.0,
            held: Default::default(),
        };
        Self {
            began: Instant::now(),
            connections,
            roster: Mutex::new(roster),
            dismissed: AtomicUsize::new(0),
            is_exhausted: AtomicBool::new(false),
            done: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            pausing_us: AtomicU64::new(0),
        }
    }

    /// How many workers a run begins with.
    pub(super) fn first(&self) -> usize {
        match self.connections {
            Connections::Fixed(n) => n,
            Connections::Auto { .. } => self.roster().size.as_ref().map_or(1, Size::target),
        }
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.roster().workers
    }

    /// Whether the number of workers can still change.
    pub(super) fn is_changing(&self) -> bool {
        matches!(self.connections, Connections::Auto { .. }) && !self.is_exhausted.load(Ordering::Relaxed)
    }

    /// How many more workers to hire now. Surplus workers are dismissed.
    pub(super) fn missing(&self, limits: &Limits) -> usize {
        let now = self.began.elapsed();
        let uses = [limits.create.used(), limits.register.used()];
        let held = limits.waits.for_rate() + limits.waits.for_answer();
        let mut roster = self.roster();
        let (held_before, looked) = std::mem::replace(&mut roster.held, (held, now));
        let look = Look {
            now,
            rate: uses.iter().filter_map(per_second).reduce(f64::min),
            is_held_back: held.saturating_sub(held_before) >= now.saturating_sub(looked).mul_f64(HELD_BACK),
            busy: roster.busy(),
            done: self.done.load(Ordering::Relaxed),
        };
        let workers = roster.workers;
        let stretch = roster.stretch();
        let Some(size) = &mut roster.size else { return 0 };
        let target = size.decide(look);
        let most = if let Connections::Auto { max } = self.connections { max } else { target };
        let target = ((target as f64 * stretch).ceil() as usize).min(most.max(target));
        self.dismissed.store(workers.saturating_sub(target), Ordering::Relaxed);
        target.saturating_sub(workers)
    }

    /// Begins a worker's shift.
    pub(super) fn hire(crew: &Arc<Self>) -> Shift {
        let began = crew.began.elapsed();
        let mut roster = crew.roster();
        roster.workers += 1;
        roster.since += began;
        drop(roster);
        Shift { crew: crew.clone(), began }
    }

    /// Whether the calling worker is surplus and must leave.
    pub(super) fn dismisses(&self) -> bool {
        // This is cheap in all but the rarest cases.
        self.dismissed.load(Ordering::Relaxed) > 0
            && self
                .dismissed
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |dismissed| dismissed.checked_sub(1))
                .is_ok()
    }

    /// Notes that no device is left.
    pub(super) fn exhausted(&self) {
        self.is_exhausted.store(true, Ordering::Relaxed);
    }

    /// Notes that a device is done, and how long it took a worker besides waiting at limits.
    pub(super) fn done(&self, took: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if self.is_changing() {
            let mut roster = self.roster();
            roster.took.push_back(took);
            if roster.took.len() > REMEMBERED {
                roster.took.pop_front();
            }
        }
    }

    /// Notes the time that a worker spent in an exchange, a dial or a commit.
    pub(super) fn was_busy(&self, time: Duration) {
        self.busy_us.fetch_add(us(time), Ordering::Relaxed);
    }

    /// Notes the time that a worker waited after a failure.
    pub(super) fn paused(&self, time: Duration) {
        self.pausing_us.fetch_add(us(time), Ordering::Relaxed);
    }

    /// Where the time has gone so far.
    pub(super) fn usage(&self, limits: &Limits) -> Usage {
        let elapsed = self.began.elapsed();
        let limit = |operation, used: Use| {
            let Use { asked, found, unanswered, held, .. } = used;
            LimitUsage { operation, asked, found, unanswered, held }
        };
        let roster = self.roster();
        let at_work = elapsed.saturating_mul(u32::try_from(roster.workers).unwrap_or(u32::MAX));
        let connections = match self.connections {
            Connections::Fixed(n) => ConnectionUsage::Fixed(n),
            Connections::Auto { max } if roster.size.as_ref().is_some_and(Size::is_at_most) => {
                ConnectionUsage::AtMost(max)
            }
            Connections::Auto { .. } => ConnectionUsage::Enough,
        };
        Usage {
            elapsed,
            limits: vec![
                limit(Operation::Connect, limits.connect.used()),
                limit(Operation::CreateCertificate, limits.create.used()),
                limit(Operation::RegisterThing, limits.register.used()),
            ],
            workers: roster.left + at_work.saturating_sub(roster.since),
            held: limits.waits.for_rate(),
            outage: limits.waits.for_answer(),
            busy: Duration::from_micros(self.busy_us.load(Ordering::Relaxed)),
            pausing: Duration::from_micros(self.pausing_us.load(Ordering::Relaxed)),
            connections,
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        let now = self.crew.began.elapsed();
        let mut roster = self.crew.roster();
        roster.workers -= 1;
        roster.since = roster.since.saturating_sub(self.began);
        roster.left += now.saturating_sub(self.began);
    }
}

impl Roster {
    /// The 90th percentile of the latest devices' times; `None` until one is done.
    fn busy(&self) -> Option<Duration> {
        let mut took: Vec<_> = self.took.iter().copied().collect();
        took.sort_unstable();
        took.get(took.len().saturating_sub(1) * 9 / 10).copied()
    }

    /// How many workers are needed for each one that is not waiting for a lost answer: the mean time per device over
    /// that of devices without losses. It falls slowly, so that connections are not opened and closed all the time.
    fn stretch(&mut self) -> f64 {
        let mut took: Vec<_> = self.took.iter().copied().collect();
        took.sort_unstable();
        let Some(median) = took.get(took.len() / 2) else { return self.stretch };
        let usual = took.partition_point(|time| *time <= *median * OUTLIER).max(1);
        let mean = |took: &[Duration]| took.iter().sum::<Duration>().as_secs_f64() / took.len() as f64;
        let now = mean(&took) / mean(&took[..usual]).max(1e-6);
        self.stretch = now.max(1.0).max(self.stretch * CALMING);
        self.stretch
    }
}

/// Requests per second that a limit admits now or soon will; `None` if it has no limit.
fn per_second(used: &Use) -> Option<f64> {
    let paced = used.pace.map(|rate| if used.is_growing { 2.0 * rate } else { rate });
    paced.or_else(|| used.asked.fixed().map(|rate| rate.as_per_second()))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
