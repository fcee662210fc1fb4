//! What a service is like, what else goes wrong, and what is wanted of a run.

use std::fmt;
use std::time::Duration;

use fleetmint::emulator::memory::{Bursts, Faults, Throttles, Weather};
use fleetmint::emulator::scenario::{self, Fault, Quota, Quotas, Scenario, TokenReuse, Window};
use fleetmint::rate::Rate;

use super::play::Score;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    None,
    Bucket,
    Fixed,
    Sliding,
    Silent,
    Acknowledged,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    None,
    Random(f64),
    Bursts,
    BadConnections,
    Outage(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Halves,
    Doubles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    None,
    /// Somebody takes three tenths of the quota.
    Share,
}

#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub limit: Limit,
    pub loss: Loss,
    pub rate: f64,
    pub change: Change,
    pub others: Others,
}

const LIMITS: [Limit; 6] =
    [Limit::None, Limit::Bucket, Limit::Fixed, Limit::Sliding, Limit::Silent, Limit::Acknowledged];
const LOSSES: [Loss; 8] = [
    Loss::None,
    Loss::Random(0.002),
    Loss::Random(0.01),
    Loss::Random(0.05),
    Loss::Bursts,
    Loss::BadConnections,
    Loss::Outage(30),
    Loss::Outage(300),
];
const RATES: [f64; 4] = [1.0, 10.0, 50.0, 400.0];
const CHANGES: [Change; 3] = [Change::None, Change::Halves, Change::Doubles];
const OTHERS: [Others; 2] = [Others::None, Others::Share];

/// The quota, as a part of the rate that is set.
const QUOTA: f64 = 0.7;
/// What somebody else takes of it.
const TAKEN: f64 = 0.3;

/// What a run has to reach.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    used: f64,
    throttled: f64,
}

impl Cell {
    pub fn all() -> impl Iterator<Item = Self> {
        let cells = LIMITS.into_iter().flat_map(|limit| LOSSES.map(|loss| (limit, loss)));
        let cells = cells.flat_map(|(limit, loss)| RATES.map(|rate| (limit, loss, rate)));
        let cells = cells.flat_map(|(limit, loss, rate)| CHANGES.map(|change| (limit, loss, rate, change)));
        let cells = cells.flat_map(|(limit, loss, rate, change)| {
            OTHERS.map(|others| Self { limit, loss, rate, change, others })
        });
        // Without a quota there is nothing to change or to share.
        cells.filter(|cell| {
            cell.limit != Limit::None || (cell.change == Change::None && cell.others == Others::None)
        })
    }

    /// Whether it can be tried in every test run: the others take too many requests, or too long for one to tell.
    pub fn is_quick(&self) -> bool {
        let is_plain = self.change == Change::None && self.others == Others::None;
        match self.rate as u64 {
            ..=1 => is_plain,
            2..=10 => true,
            11..=50 => self.change == Change::None,
            _ => false,
        }
    }

    /// The numbers of its values.
    pub fn values(&self) -> [usize; 5] {
        let index = |found: Option<usize>| found.expect("a cell is made of these");
        [
            index(LIMITS.iter().position(|it| *it == self.limit)),
            index(LOSSES.iter().position(|it| *it == self.loss)),
            index(RATES.iter().position(|it| *it == self.rate)),
            index(CHANGES.iter().position(|it| *it == self.change)),
            index(OTHERS.iter().position(|it| *it == self.others)),
        ]
    }

    /// Requests, about.
    pub fn cost(&self) -> u64 {
        (self.horizon().saturating_sub(self.outage_length()).as_secs_f64() * self.rate) as u64
    }

    /// How long the run is watched.
    pub fn horizon(&self) -> Duration {
        let busy = match (self.rate as u64, self.change) {
            (..=1, _) => 900,
            (..=10, Change::None) => 150,
            (..=10, _) => 320,
            (..=50, Change::None) => 50,
            (..=50, _) => 500,
            (_, Change::None) => 75,
            _ => 400,
        };
        Duration::from_secs(busy) + self.outage_length()
    }

    /// When the outage begins and ends, if there is one.
    pub fn outage(&self) -> Option<(Duration, Duration)> {
        let begins = (self.horizon() - self.outage_length()) / 5;
        matches!(self.loss, Loss::Outage(_)).then(|| (begins, begins + self.outage_length()))
    }

    fn outage_length(&self) -> Duration {
        match self.loss {
            Loss::Outage(seconds) => Duration::from_secs(seconds),
            _ => Duration::ZERO,
        }
    }

    pub fn changes_at(&self) -> Duration {
        self.horizon() / 2
    }

    /// What others leave of the quota at an age, or what is set if that is less.
    pub fn available(&self, age: Duration) -> f64 {
        if self.limit == Limit::None {
            return self.rate;
        }
        let [before, after] = self.quota();
        let quota = if age < self.changes_at() { before } else { after };
        (quota - self.taken()).min(self.rate)
    }

    fn quota(&self) -> [f64; 2] {
        let quota = QUOTA * self.rate;
        match self.change {
            Change::None => [quota, quota],
            Change::Halves => [quota, quota / 2.0],
            Change::Doubles => [quota / 2.0, quota],
        }
    }

    fn taken(&self) -> f64 {
        let [before, after] = self.quota();
        if self.others == Others::Share { TAKEN * before.min(after) } else { 0.0 }
    }

    /// The share that is lost at any rate; `None` where that is a matter of luck, and has to be counted.
    pub fn lost(&self) -> Option<f64> {
        match self.loss {
            Loss::Random(share) => Some(share),
            Loss::Bursts => None,
            Loss::None | Loss::BadConnections | Loss::Outage(_) => Some(0.0),
        }
    }

    pub fn scenario(&self) -> Scenario {
        let [before, after] = self.quota().map(|quota| Rate::per_second(quota).expect("a quota is a rate"));
        let quota = Quota::constant(before).changing(self.changes_at(), Some(after));
        let quota = (self.limit != Limit::None).then_some(quota);
        let window = match self.limit {
            Limit::Fixed => Window::Fixed,
            Limit::Sliding => Window::Sliding,
            _ => Window::Bucket,
        };
        Scenario {
            token_reuse: TokenReuse::Accept,
            quotas: Quotas {
                window,
                create_keys_and_certificate: quota.clone(),
                register_thing: quota,
                ..Quotas::default()
            },
            ..Scenario::default()
        }
    }

    pub fn faults(&self) -> Faults {
        let throttles = match self.limit {
            Limit::Silent => Throttles::Silent,
            Limit::Acknowledged => Throttles::Acknowledged,
            _ => Throttles::Answered,
        };
        let weather = Weather {
            outages: self.outage().into_iter().collect(),
            bursts: (self.loss == Loss::Bursts).then_some(BURSTS),
            mutes: if self.loss == Loss::BadConnections { 0.05 } else { 0.0 },
            throttles,
            others: Rate::per_second(self.taken()).filter(|_| self.limit != Limit::None),
        };
        let share = if let Loss::Random(share) = self.loss { share } else { 0.0 };
        let lost = [(Fault::Silence, share / 2.0), (Fault::Unacknowledged, share / 2.0)];
        let requests = scenario::Faults::of_requests(lost);
        Faults { requests, weather, ..Faults::default() }
    }

    /// What was reached, and no less. The target is 0.95, and 2 % throttled, or 5 % where the service is silent; docs/PERFORMANCE.md
    /// has where it was missed.
    pub fn wants(&self) -> Wanted {
        let is_silent = matches!(self.limit, Limit::Silent | Limit::Acknowledged);
        let (is_shared, rises) = (self.others == Others::Share, self.change == Change::Doubles);
        let wanted = |used, throttled| Wanted { used, throttled };
        match self.limit {
            // One in twenty is lost, and fifty seconds are few.
            Limit::None => wanted(0.92, 0.0),
            // A request every second or two is too few to follow anything, or anybody, within a quarter of an hour.
            _ if self.rate <= 1.0 && (self.change != Change::None || is_shared) => wanted(0.0, 1.0),
            // A test takes minutes of a quarter of an hour.
            _ if self.rate <= 1.0 && is_silent => wanted(0.5, 0.2),
            // The emulator's bucket holds one: none may come early.
            _ if self.rate <= 1.0 => wanted(0.8, 0.04),
            // Requests that overtake each other are throttled below the quota: 0.957 is the most that any steady rate can have.
            Limit::Sliding if is_shared => wanted(0.5, 0.045),
            Limit::Sliding => wanted(0.75, 0.04),
            // A rise shows in a probe, and a probe needs to be borne for long where nobody says that it is too high.
            _ if is_silent && rises => wanted(0.5, 0.17),
            // Whoever asks more often gets more of a full bucket, at the other's cost: the limit moves away as it is neared.
            _ if is_silent && is_shared => wanted(0.85, 0.3),
            // Half a minute of tests is a good part of what is judged at 50/s.
            // An outage in the middle of a test ends it.
            _ if is_silent && matches!(self.loss, Loss::Outage(_)) => wanted(0.45, 0.125),
            _ if is_silent => wanted(0.85, 0.125),
            _ if is_shared && rises => wanted(0.45, 0.05),
            _ if is_shared => wanted(0.88, 0.05),
            // Half a minute passes until a rise is found; that is a tenth of the run's better half.
            _ if rises => wanted(0.88, 0.03),
            _ => wanted(0.92, 0.035),
        }
    }
}

const BURSTS: Bursts = Bursts { last: Duration::from_secs(1), pause: Duration::from_secs(30), share: 0.5 };

impl Wanted {
    pub fn is_met(&self, score: &Score) -> bool {
        score.after_outage.unwrap_or(score.used) >= self.used && score.throttled <= self.throttled
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, loss, rate, change, others } = self;
        write!(f, "{rate}/s, limit {limit:?}, loss {loss:?}, change {change:?}, others {others:?}")
    }
}
