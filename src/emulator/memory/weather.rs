//! What goes wrong for all clients at once, or by chance.
//!
//! Owns the settings, and whether a burst of losses is on. Draws nothing unless something is set.

use std::time::Duration;

use crate::rate::Rate;

/// What goes wrong on a network whatever the requests. `Default` is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weather {
    /// Start and end of each outage, by the network's age. Nothing arrives anywhere during an outage.
    pub outages: Vec<(Duration, Duration)>,
    /// Periods in which many requests are lost.
    pub bursts: Option<Bursts>,
    /// The odds that a connection carries nothing from the start.
    pub mutes: f64,
    /// How a request that exceeds a quota of the account is answered.
    pub throttles: Throttles,
    /// The rate of other clients' requests under the same quotas, for each kind of request that has one.
    pub others: Option<Rate>,
}

/// Periods in which many requests are lost. Their lengths and the pauses between them are drawn from exponential
/// distributions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// The mean length of a burst.
    pub last: Duration,
    /// The mean pause between bursts.
    pub pause: Duration,
    /// The share of requests that is lost during a burst.
    pub share: f64,
}

/// How a request that exceeds a quota is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Throttles {
    /// With a 429.
    #[default]
    Answered,
    /// Without any answer.
    Silent,
    /// With a PUBACK alone.
    Acknowledged,
}

/// Whether a burst is on, and when that changes.
#[derive(Debug, Default)]
pub(super) struct BurstState {
    is_on: bool,
    until: Duration,
}

impl Weather {
    pub(super) fn is_out(&self, age: Duration) -> bool {
        self.outages.iter().any(|(from, to)| (*from..*to).contains(&age))
    }
}

impl Bursts {
    /// Whether a burst is on at `age`. Draws with `unit` when that has to change.
    pub(super) fn are_on(&self, state: &mut BurstState, age: Duration, unit: impl FnOnce() -> f64) -> bool {
        if age >= state.until {
            state.is_on = !state.is_on;
            let mean = if state.is_on { self.last } else { self.pause };
            state.until = age + mean.mul_f64(-(1.0 - unit()).max(1e-9).ln());
        }
        state.is_on
    }
}
