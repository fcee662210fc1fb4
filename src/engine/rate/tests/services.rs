//! Services that throttle in every way that is known of, and workers before them, by the events of virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::engine::rate::pace::Pace;
use crate::engine::rate::sign::Sign;
use crate::rate::RateLimit;

/// How a service counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A bucket of so many seconds' worth of tokens, of at least so many.
    Bucket { seconds: f64, least: f64 },
    /// So many in each second of the clock.
    FixedWindow,
    /// So many in any second.
    SlidingWindow,
    /// One in so many is throttled, whatever the rate.
    Random { share: f64 },
}

/// How it says so.
#[derive(Debug, Clone, Copy)]
pub(super) enum Throttle {
    /// At once.
    Prompt,
    /// So much later than an acceptance.
    Late(f64),
    /// Not at all; the client gives up after so long.
    Silent(f64),
}

/// A service, and how it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) shape: Shape,
    pub(super) throttle: Throttle,
    /// Requests per second; and from some second on, others.
    pub(super) quota: f64,
    pub(super) change: Option<(f64, f64)>,
    /// From sending a request to its answer, at least and at most, in seconds.
    pub(super) latency: (f64, f64),
    pub(super) limit: RateLimit,
    pub(super) seconds: f64,
    pub(super) seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Result {
    /// Of the quota, what was used in the last two thirds.
    pub(super) used: f64,
    /// Of all requests then, what was throttled.
    pub(super) throttled: f64,
    /// The same, of the whole trial.
    pub(super) throttled_in_all: f64,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Ask { worker: usize },
    Grant,
    Arrive { worker: usize, number: u64 },
    Answer { worker: usize, number: u64, is_accepted: bool },
}

struct Service {
    shape: Shape,
    quota: f64,
    tokens: f64,
    filled_at: f64,
    window: f64,
    in_window: f64,
    recent: VecDeque<f64>,
}

impl Trial {
    pub(super) fn run(&self) -> Result {
        let mut world = World::new(self);
        let settled_at = self.seconds / 3.0;
        while let Some(((us, _), event)) = world.events.pop_first() {
            let now = us as f64 / 1e6;
            if now > self.seconds {
                break;
            }
            if let Some((_, quota)) = self.change.filter(|(at, _)| now >= *at) {
                world.service.quota = quota;
            }
            world.is_settled = now > settled_at;
            world.handle(now, event);
        }
        let [early, late] = world.ends;
        let quota = self.change.map_or(self.quota, |(_, quota)| quota);
        let share = |[accepted, throttled]: [f64; 2]| throttled / (accepted + throttled).max(1.0);
        Result {
            used: late[0] / (self.seconds - settled_at) / quota,
            throttled: share(late),
            throttled_in_all: share([early[0] + late[0], early[1] + late[1]]),
        }
    }

    /// Enough that they are not what limits.
    fn workers(&self) -> usize {
        let quota = self.change.map_or(self.quota, |(_, quota)| self.quota.max(quota));
        let stuck = if matches!(self.throttle, Throttle::Silent(_)) { 10.0 } else { 0.0 };
        (quota * ((self.latency.1 + 0.1) * 4.0 + stuck)) as usize + 10
    }
}

struct World<'a> {
    trial: &'a Trial,
    service: Service,
    pace: Pace,
    random: SmallRng,
    /// By microsecond, and in the order they were made.
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    queue: VecDeque<usize>,
    is_granting: bool,
    /// How often each worker's request was throttled in a row.
    failed: Vec<i32>,
    is_settled: bool,
    /// Accepted and throttled, before and after it had settled.
    ends: [[f64; 2]; 2],
}

impl<'a> World<'a> {
    fn new(trial: &'a Trial) -> Self {
        let service = Service {
            shape: trial.shape,
            quota: trial.quota,
            tokens: trial.quota,
            filled_at: 0.0,
            window: -1.0,
            in_window: 0.0,
            recent: VecDeque::new(),
        };
        let mut world = Self {
            trial,
            service,
            pace: Pace::new(trial.limit),
            random: SmallRng::seed_from_u64(trial.seed),
            events: BTreeMap::new(),
            made: 0,
            queue: VecDeque::new(),
            is_granting: false,
            failed: vec![0; trial.workers()],
            is_settled: false,
            ends: [[0.0; 2]; 2],
        };
        for worker in 0..world.failed.len() {
            world.schedule(0.0, Event::Ask { worker });
        }
        world
    }

    fn schedule(&mut self, at: f64, event: Event) {
        self.made += 1;
        self.events.insert(((at * 1e6) as u64, self.made), event);
    }

    fn handle(&mut self, now: f64, event: Event) {
        match event {
            Event::Ask { worker } => {
                self.queue.push_back(worker);
                if !std::mem::replace(&mut self.is_granting, true) {
                    self.schedule(now, Event::Grant);
                }
            }
            Event::Grant => self.grant(now),
            Event::Arrive { worker, number } => {
                let is_accepted = self.service.take(now, self.random.random());
                self.ends[usize::from(self.is_settled)][usize::from(!is_accepted)] += 1.0;
                let back = self.half_way();
                let after = match (is_accepted, self.trial.throttle) {
                    (true, _) | (false, Throttle::Prompt) => back,
                    (false, Throttle::Late(late)) => back + late,
                    (false, Throttle::Silent(timeout)) => timeout,
                };
                self.schedule(now + after, Event::Answer { worker, number, is_accepted });
            }
            Event::Answer { worker, number, is_accepted } => {
                let sign = if is_accepted { Sign::Accepted } else { Sign::Throttled };
                self.pace.heard(number, sign, Duration::from_secs_f64(now));
                let failed = &mut self.failed[worker];
                *failed = if is_accepted { 0 } else { *failed + 1 };
                // As the retry policy has it.
                let most = if is_accepted { 0.0 } else { (0.1 * 2_f64.powi(*failed)).min(20.0) };
                let pause = most * self.random.random::<f64>();
                self.schedule(now + pause, Event::Ask { worker });
            }
        }
    }

    fn grant(&mut self, now: f64) {
        while let Some(worker) = self.queue.pop_front() {
            let instant = Duration::from_secs_f64(now);
            if let Some(wait) = self.pace.wait(instant) {
                self.queue.push_front(worker);
                // Timers have whole milliseconds, and are late rather than early.
                let due = ((now + wait.as_secs_f64()) * 1e3).ceil() / 1e3;
                return self.schedule(due.max(now + 0.001), Event::Grant);
            }
            let number = self.pace.sent(instant);
            let there = self.half_way();
            self.schedule(now + there, Event::Arrive { worker, number });
        }
        self.is_granting = false;
    }

    fn half_way(&mut self) -> f64 {
        let (least, most) = self.trial.latency;
        (least + (most - least) * self.random.random::<f64>()) / 2.0
    }
}

impl Service {
    fn take(&mut self, now: f64, chance: f64) -> bool {
        match self.shape {
            Shape::Bucket { seconds, least } => {
                let most = (self.quota * seconds).max(least);
                self.tokens = (self.tokens + (now - self.filled_at) * self.quota).min(most);
                self.filled_at = now;
                let is_there = self.tokens >= 1.0 - 1e-6;
                self.tokens -= f64::from(u8::from(is_there));
                is_there
            }
            Shape::FixedWindow => {
                if now.floor() != self.window {
                    (self.window, self.in_window) = (now.floor(), 0.0);
                }
                let is_free = self.in_window < self.quota;
                self.in_window += f64::from(u8::from(is_free));
                is_free
            }
            Shape::SlidingWindow => {
                while self.recent.front().is_some_and(|at| *at <= now - 1.0 + 1e-9) {
                    self.recent.pop_front();
                }
                let is_free = (self.recent.len() as f64) < self.quota;
                if is_free {
                    self.recent.push_back(now);
                }
                is_free
            }
            Shape::Random { share } => chance >= share,
        }
    }
}
