//! Services with every known way of throttling, and workers that use them, as events in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::engine::rate::pace::Pace;
use crate::engine::rate::sign::Sign;
use crate::rate::RateLimit;

/// How long after a change of the quota results do not count as settled, in seconds.
const SETTLING: f64 = 60.0;

/// How a service counts requests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A token bucket that holds `seconds` worth of tokens, and at least `least`.
    Bucket { seconds: f64, least: f64 },
    /// At most the quota in each window of the clock, of about a second.
    FixedWindow,
    /// At most the quota in any time as long as a window.
    SlidingWindow,
    /// The share of requests that is throttled, whatever the rate.
    Random { share: f64 },
}

/// How a service signals a throttle.
#[derive(Debug, Clone, Copy)]
pub(super) enum Throttle {
    /// At once.
    Prompt,
    /// This many seconds later than an acceptance.
    Late(f64),
    /// Not at all; the client gives up after this many seconds.
    Silent(f64),
}

/// Other losses, whatever the rate: half on the way to the service, half on the way back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    None,
    /// Each request is lost with this probability.
    Random(f64),
    /// Half of all requests are lost for a second, twice a minute on average.
    Bursts,
    /// Every request is lost from one second to another.
    Outage(f64, f64),
}

/// A service, and how it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) shape: Shape,
    pub(super) throttle: Throttle,
    /// The quota in requests per second.
    pub(super) quota: f64,
    pub(super) change: Option<(f64, f64)>,
    pub(super) loss: Loss,
    /// Requests per second of others, under the same quota.
    pub(super) others: f64,
    /// The least and the greatest time from sending a request to its answer, in seconds.
    pub(super) latency: (f64, f64),
    pub(super) limit: RateLimit,
    pub(super) seconds: f64,
    pub(super) seed: u64,
}

/// The result of a trial.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Result {
    /// The share of the quota that was used in the last two thirds.
    pub(super) used: f64,
    /// The share of requests that was throttled in the last two thirds.
    pub(super) throttled: f64,
    /// The share of requests that was throttled in the whole trial.
    pub(super) throttled_in_all: f64,
    /// The share used of what was available of the quota, or of the fixed rate, in the whole trial.
    pub(super) used_in_all: f64,
    /// The share used of what was available, from half a minute to a minute after an outage.
    pub(super) used_after: f64,
    /// The share reported as lost at any rate in the end.
    pub(super) unanswered: Option<f64>,
    /// Whether a limit of the service was named at any time.
    pub(super) names_limit: bool,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Ask {
        worker: usize,
    },
    Grant,
    Arrive {
        worker: usize,
        number: u64,
    },
    Answer {
        worker: usize,
        number: u64,
        sign: Sign,
    },
    /// A request of others arrives.
    Other,
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
        let settled_at = SETTLING.min(self.seconds / 3.0);
        while let Some(((us, _), event)) = world.events.pop_first() {
            let now = us as f64 / 1e6;
            if now > self.seconds {
                break;
            }
            if let Some((_, quota)) = self.change.filter(|(at, _)| now >= *at) {
                world.service.quota = quota;
            }
            world.is_settled =
                now > settled_at && self.change.is_none_or(|(at, _)| !(at..at + SETTLING).contains(&now));
            world.handle(now, event);
            world.names_limit |= world.pace.found().is_some();
        }
        let [early, late] = world.ends;
        let quota = self.change.map_or(self.quota, |(_, quota)| quota);
        let share = |[accepted, throttled]: [f64; 2]| throttled / (accepted + throttled).max(1.0);
        Result {
            used: late[0] / (self.seconds - settled_at - self.change.map_or(0.0, |_| SETTLING)) / quota,
            throttled: share(late),
            throttled_in_all: share([early[0] + late[0], early[1] + late[1]]),
            used_in_all: (early[0] + late[0]) / self.most(0.0, self.seconds),
            used_after: match self.loss {
                Loss::Outage(_, end) => {
                    world.after_outage / self.most(end + 30.0, (end + 60.0).min(self.seconds))
                }
                _ => 1.0,
            },
            unanswered: world.pace.unanswered(),
            names_limit: world.names_limit,
        }
    }

    /// The most requests that could be accepted in this time, by the measure.
    fn most(&self, from: f64, to: f64) -> f64 {
        let (change, after) = self.change.unwrap_or((f64::MAX, self.quota));
        let fixed = self.limit.fixed().map_or(f64::MAX, |rate| rate.as_per_second());
        let rate = |quota: f64| (quota - self.others).min(fixed);
        let before = (change.min(to) - from).max(0.0);
        let lost = match self.loss {
            Loss::None | Loss::Outage(..) => 0.0,
            Loss::Random(share) => share,
            Loss::Bursts => BURSTS_SHARE,
        };
        let outage = match self.loss {
            Loss::Outage(began, ended) if from < ended => rate(self.quota) * (ended - began),
            _ => 0.0,
        };
        (1.0 - lost) * (rate(self.quota) * before + rate(after) * (to - from - before) - outage)
    }

    /// Enough workers that they are not the limit.
    fn workers(&self) -> usize {
        let quota = self.change.map_or(self.quota, |(_, quota)| self.quota.max(quota));
        let quota = quota.min(self.limit.fixed().map_or(f64::MAX, |rate| rate.as_per_second()));
        let stuck = if let Throttle::Silent(timeout) = self.throttle { timeout / 2.0 } else { 1.0 };
        (quota * ((self.latency.1 + 0.1) * 4.0 + stuck)) as usize + 10
    }
}

/// The share of all requests that bursts lose: half of one second in thirty-one.
const BURSTS_SHARE: f64 = 0.5 / 31.0;
/// How long a client waits if others are answered, in seconds.
const GIVES_UP: f64 = 1.2;

struct World<'a> {
    trial: &'a Trial,
    service: Service,
    pace: Pace,
    random: SmallRng,
    /// Events by microsecond, and in the order they were created.
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    queue: VecDeque<usize>,
    is_granting: bool,
    /// How often each worker's request was throttled in a row.
    failed: Vec<i32>,
    is_settled: bool,
    /// Accepted and throttled requests, before and after settling.
    ends: [[f64; 2]; 2],
    after_outage: f64,
    /// When the fixed rate admits the next request.
    fixed_due: f64,
    /// Whether a burst is on, and when that changes.
    burst: (bool, f64),
    names_limit: bool,
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
            after_outage: 0.0,
            fixed_due: 0.0,
            burst: (false, 0.0),
            names_limit: false,
        };
        if trial.others > 0.0 {
            world.schedule(0.0, Event::Other);
        }
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
            Event::Other => {
                self.service.take(now, 1.0);
                self.schedule(now + 1.0 / self.trial.others, Event::Other);
            }
            Event::Arrive { worker, number } => self.arrive(now, worker, number),
            Event::Answer { worker, number, sign } => {
                self.pace.heard(number, sign, Duration::from_secs_f64(now));
                let failed = &mut self.failed[worker];
                *failed = if sign == Sign::Accepted { 0 } else { *failed + 1 };
                // As in the retry policy.
                let most = if *failed == 0 { 0.0 } else { (0.1 * 2_f64.powi(*failed)).min(20.0) };
                let pause = most * self.random.random::<f64>();
                self.schedule(now + pause, Event::Ask { worker });
            }
        }
    }

    fn arrive(&mut self, now: f64, worker: usize, number: u64) {
        let is_lost = self.loses(now);
        let back = self.half_way();
        if is_lost && self.random.random() {
            return self.schedule(now + GIVES_UP, Event::Answer { worker, number, sign: Sign::Lost });
        }
        let is_taken = self.service.take(now, self.random.random());
        let is_answered = is_taken && !is_lost;
        if is_answered {
            self.ends[usize::from(self.is_settled)][0] += 1.0;
            if matches!(self.trial.loss, Loss::Outage(_, end) if (end + 30.0..end + 60.0).contains(&now)) {
                self.after_outage += 1.0;
            }
        }
        self.ends[usize::from(self.is_settled)][1] += f64::from(u8::from(!is_taken));
        let (after, sign) = match self.trial.throttle {
            _ if is_answered => (back, Sign::Accepted),
            _ if is_lost => (GIVES_UP, Sign::Lost),
            Throttle::Prompt => (back, Sign::Throttled),
            Throttle::Late(late) => (back + late, Sign::Throttled),
            Throttle::Silent(timeout) => (timeout, Sign::Lost),
        };
        self.schedule(now + after, Event::Answer { worker, number, sign });
    }

    fn loses(&mut self, now: f64) -> bool {
        match self.trial.loss {
            Loss::None => false,
            Loss::Random(share) => self.random.random::<f64>() < share,
            Loss::Outage(began, ended) => (began..ended).contains(&now),
            Loss::Bursts => {
                if now >= self.burst.1 {
                    let is_on = !self.burst.0;
                    let mean = if is_on { 1.0 } else { 30.0 };
                    self.burst = (is_on, now - mean * self.random.random::<f64>().max(1e-9).ln());
                }
                self.burst.0 && self.random.random()
            }
        }
    }

    fn grant(&mut self, now: f64) {
        while let Some(worker) = self.queue.pop_front() {
            let instant = Duration::from_secs_f64(now);
            let paced = self.pace.wait(instant).map(|wait| now + wait.as_secs_f64());
            if let Some(due) = paced.or((self.fixed_due > now).then_some(self.fixed_due)) {
                self.queue.push_front(worker);
                // Timers have whole milliseconds, and are late rather than early.
                let due = (due * 1e3).ceil() / 1e3;
                return self.schedule(due.max(now + 0.001), Event::Grant);
            }
            let number = self.pace.sent(instant);
            if let Some(rate) = self.trial.limit.fixed() {
                // A burst of two, as in the limiter.
                let period = rate.period().as_secs_f64();
                self.fixed_due = self.fixed_due.max(now - period) + period;
            }
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
    /// How many whole requests a window admits, and its length, so that full windows make the quota.
    fn window(&self) -> (f64, f64) {
        let capacity = self.quota.floor().max(1.0);
        (capacity, capacity / self.quota)
    }

    fn take(&mut self, now: f64, chance: f64) -> bool {
        match self.shape {
            Shape::Bucket { seconds, least } => {
                let most = (self.quota * seconds).floor().max(least);
                self.tokens = (self.tokens + (now - self.filled_at) * self.quota).min(most);
                self.filled_at = now;
                let is_there = self.tokens >= 1.0 - 1e-6;
                self.tokens -= f64::from(u8::from(is_there));
                is_there
            }
            Shape::FixedWindow => {
                let (capacity, length) = self.window();
                let window = (now / length).floor();
                if window != self.window {
                    (self.window, self.in_window) = (window, 0.0);
                }
                let is_free = self.in_window < capacity;
                self.in_window += f64::from(u8::from(is_free));
                is_free
            }
            Shape::SlidingWindow => {
                let (capacity, length) = self.window();
                while self.recent.front().is_some_and(|at| *at <= now - length + 1e-9) {
                    self.recent.pop_front();
                }
                let is_free = (self.recent.len() as f64) < capacity;
                if is_free {
                    self.recent.push_back(now);
                }
                is_free
            }
            Shape::Random { share } => chance >= share,
        }
    }
}
