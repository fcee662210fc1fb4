//! When arrivals are due: the offered load of a load test, computed in advance.
//!
//! Owns load profiles ([`Profile`]), their syntax, and the instants that follow from them ([`Schedule`]). Each instant is
//! computed from the exact integral of the rate, never from the instant before: nothing drifts, however long the profile.
//! Reads no clock and waits for nothing.

mod parse;

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::rate::Rate;
use crate::shard::Shard;

pub use parse::NotAProfile;

/// The longest profile.
pub const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// The offered rate over time: successive pieces, each with a rate that is constant or changes linearly.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pieces: Vec<Piece>,
    text: String,
}

/// A part of a profile in which the rate is constant or changes linearly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// When it begins, in seconds.
    start: f64,
    /// How many arrivals are due before it.
    before: f64,
    /// The rates per second at its beginning and end.
    from: f64,
    to: f64,
    /// Its duration.
    seconds: f64,
}

/// A part of a profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// When it begins, in seconds.
    pub begins_s: f64,
    /// When it ends, in seconds.
    pub ends_s: f64,
    /// Its rate per second; `None` if it changes.
    pub rate: Option<f64>,
}

impl Profile {
    /// One rate for a time, as `--rate 50/s --for 2m` says it; `None` if the time is zero or more than [`MAX_TIME`].
    pub fn constant(rate: Rate, time: Duration) -> Option<Self> {
        let text = format!("hold {rate} {}", humantime::format_duration(time));
        let rate = rate.as_per_second();
        (!time.is_zero() && time <= MAX_TIME).then(|| Self::of([(rate, rate, time)], text))
    }

    /// Its duration.
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.last().start + self.last().seconds)
    }

    /// How many arrivals it has, as the integral of the rate.
    pub fn arrivals(&self) -> f64 {
        self.last().before + self.last().arrivals()
    }

    /// The highest rate, per second.
    pub fn peak(&self) -> f64 {
        self.pieces.iter().flat_map(|piece| [piece.from, piece.to]).fold(0.0, f64::max)
    }

    /// The rate per second at an instant; zero after its end. Where two pieces meet, the later one's.
    pub fn rate_at(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let after = self.pieces.partition_point(|piece| piece.start <= at);
        let piece = &self.pieces[after.saturating_sub(1)];
        let into = at - piece.start;
        if into > piece.seconds { 0.0 } else { piece.from + piece.slope() * into }
    }

    /// How many arrivals are due before an instant, as the integral of the rate: a real number.
    pub fn due_before(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let after = self.pieces.partition_point(|piece| piece.start <= at);
        let piece = &self.pieces[after.saturating_sub(1)];
        let into = (at - piece.start).min(piece.seconds);
        piece.before + into * (piece.from + piece.slope() * into / 2.0)
    }

    /// The instant at which `arrivals` are due: the inverse of [`due_before`](Self::due_before). `None` beyond the end.
    pub fn instant_of(&self, arrivals: f64) -> Option<Duration> {
        if arrivals >= self.arrivals() {
            return None;
        }
        let after = self.pieces.partition_point(|piece| piece.before <= arrivals);
        // A piece without arrivals begins at the same count as the next: the last of them has this arrival.
        let piece = &self.pieces[after.saturating_sub(1)];
        Some(Duration::from_secs_f64(piece.start + piece.seconds_until(arrivals - piece.before)))
    }

    /// Its pieces, in order.
    pub fn stages(&self) -> impl Iterator<Item = Stage> {
        self.pieces.iter().map(|piece| Stage {
            begins_s: piece.start,
            ends_s: piece.start + piece.seconds,
            rate: (piece.from == piece.to).then_some(piece.from),
        })
    }

    /// A profile from the rates at the beginning and end of each piece and its duration; at least one piece.
    fn of(pieces: impl IntoIterator<Item = (f64, f64, Duration)>, text: String) -> Self {
        let (mut start, mut before) = (0.0, 0.0);
        let piece = |(from, to, time): (f64, f64, Duration)| {
            let piece = Piece { start, before, from, to, seconds: time.as_secs_f64() };
            start += piece.seconds;
            before += piece.arrivals();
            piece
        };
        let pieces = pieces.into_iter().map(piece).collect();
        Self { pieces, text }
    }

    fn last(&self) -> &Piece {
        self.pieces.last().expect("a profile has at least one piece")
    }
}

impl fmt::Display for Profile {
    /// Writes the profile as it would be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Piece {
    fn arrivals(&self) -> f64 {
        self.seconds * (self.from + self.to) / 2.0
    }

    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds
    }

    /// Solves `from · t + slope · t² / 2 = arrivals` for t, in the form that subtracts no two numbers of similar size.
    fn seconds_until(&self, arrivals: f64) -> f64 {
        if arrivals <= 0.0 {
            return 0.0;
        }
        let root = (self.from * self.from + 2.0 * self.slope() * arrivals).max(0.0).sqrt();
        (2.0 * arrivals / (self.from + root)).min(self.seconds)
    }
}

/// How arrivals are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spacing {
    /// Evenly: each is due when the integral of the rate reaches a whole number.
    #[default]
    Uniform,
    /// At random, like independent customers: a Poisson process with that rate, bursts and gaps included.
    Poisson,
}

impl Spacing {
    /// The name in reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Spacing::Uniform => "uniform",
            Spacing::Poisson => "poisson",
        }
    }
}

/// An arrival: something that begins at its instant, whatever became of the arrivals before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// When it is due, from the beginning of the profile.
    pub due: Duration,
}

/// The arrivals of a profile, one after the other. The same profile, spacing and seed give the same instants.
#[derive(Debug, Clone)]
pub struct Schedule {
    profile: Profile,
    spacing: Spacing,
    number: u64,
    /// The integral of the rate at the next arrival.
    next: f64,
    random: SmallRng,
    shard: Option<Shard>,
}

impl Schedule {
    /// The arrivals of `profile`; those of [`Spacing::Poisson`] are drawn from `seed`.
    pub fn new(profile: Profile, spacing: Spacing, seed: u64) -> Self {
        let mut schedule = Self {
            profile,
            spacing,
            number: 0,
            next: 0.0,
            random: SmallRng::seed_from_u64(seed),
            shard: None,
        };
        schedule.next = schedule.first();
        schedule
    }

    /// Only the arrivals of one shard, each with its number and instant among all of them.
    pub fn of_shard(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    fn first(&mut self) -> f64 {
        match self.spacing {
            Spacing::Uniform => 0.0,
            Spacing::Poisson => self.draw(),
        }
    }

    /// A Poisson process of any rate is one of rate 1 on the axis of the integral of the rate (time change), whose gaps
    /// are exponential with mean 1.
    fn draw(&mut self) -> f64 {
        let even: f64 = self.random.random();
        -(1.0 - even).ln()
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            let due = self.next;
            let number = self.number;
            self.number += 1;
            self.next = match self.spacing {
                Spacing::Uniform => self.number as f64,
                Spacing::Poisson => due + self.draw(),
            };
            if due >= self.profile.arrivals() || self.shard.is_none_or(|shard| shard.has_turn(number)) {
                return self.profile.instant_of(due).map(|due| Arrival { number, due });
            }
        }
    }
}

#[cfg(test)]
mod tests;
