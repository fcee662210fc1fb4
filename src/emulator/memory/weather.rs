//! What goes wrong for everybody at once, or for nobody's fault.
//!
//! Owns the settings, and whether a burst of losses is on. Draws nothing where nothing is set.

use std::time::Duration;

use crate::rate::Rate;

/// What goes wrong on a network whatever is asked of it. `Default` is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weather {
    /// From when to when, by the network's age, nothing arrives anywhere.
    pub outages: Vec<(Duration, Duration)>,
    /// Times in which much is lost.
    pub bursts: Option<Bursts>,
    /// The odds that a connection carries nothing from the start.
    pub mutes: f64,
    /// How a request above a quota of the account is told so.
    pub throttles: Throttles,
    /// Requests of somebody else under the same quotas, of each kind that has one.
    pub others: Option<Rate>,
}

/// Times in which much is lost, and the times between them: both are drawn, exponentially distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// How long one lasts, on the average.
    pub last: Duration,
    /// How long there is none, on the average.
    pub pause: Duration,
    /// The share of requests that is lost meanwhile.
    pub share: f64,
}

/// How a request above a quota is told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Throttles {
    /// With a 429.
    #[default]
    Answered,
    /// Not at all.
    Silent,
    /// With a PUBACK, and no more.
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
    /// Whether one is on, drawn with `unit` where that has to change.
    pub(super) fn are_on(&self, state: &mut BurstState, age: Duration, unit: impl FnOnce() -> f64) -> bool {
        if age >= state.until {
            state.is_on = !state.is_on;
            let mean = if state.is_on { self.last } else { self.pause };
            state.until = age + mean.mul_f64(-(1.0 - unit()).max(1e-9).ln());
        }
        state.is_on
    }
}
