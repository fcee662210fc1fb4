//! The dice of a scenario's faults.
//!
//! Owns the draw. What a fault does to a request is the connection's matter.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::account::{Random, Route};
use super::scenario::{Faults, Odds};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fate {
    pub(super) fault: Option<Fault>,
    /// How late the reply is.
    pub(super) delay: Duration,
}

/// What goes wrong with a request; see [`Odds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    DropBefore,
    DropAfter,
    Silent,
    NoReply,
    Duplicate,
    Reject,
}

/// The dice: a stream of numbers for each operation, so that one operation's requests do not change another's fates.
#[derive(Debug)]
pub(super) struct Dice {
    create_keys: Mutex<Random>,
    create_from_csr: Mutex<Random>,
    register: Mutex<Random>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let mut seeds = Random::new(seed);
        let mut stream = || Mutex::new(Random::new(seeds.next()));
        Self { create_keys: stream(), create_from_csr: stream(), register: stream() }
    }

    /// The fate of the next request on this route.
    pub(super) fn throw(&self, faults: &Faults, route: &Route<'_>) -> Fate {
        let (stream, odds) = match route {
            Route::CreateKeys => (&self.create_keys, &faults.create_keys_and_certificate),
            Route::CreateFromCsr => (&self.create_from_csr, &faults.create_certificate_from_csr),
            Route::Register { .. } => (&self.register, &faults.register_thing),
            _ => return Fate::default(),
        };
        if *odds == Odds::default() {
            return Fate::default();
        }
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = (stream.unit(), stream.unit());
        Fate {
            fault: pick(odds, first),
            delay: if second < odds.delay.p { odds.delay.time } else { Duration::ZERO },
        }
    }
}

fn pick(odds: &Odds, mut at: f64) -> Option<Fault> {
    let faults = [
        (odds.drop_before, Fault::DropBefore),
        (odds.drop_after, Fault::DropAfter),
        (odds.silent, Fault::Silent),
        (odds.no_reply, Fault::NoReply),
        (odds.duplicate, Fault::Duplicate),
        (odds.reject_5xx, Fault::Reject),
    ];
    faults.into_iter().find_map(|(p, fault)| {
        at -= p;
        (at < 0.0).then_some(fault)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::scenario::Delay;

    fn faults() -> Faults {
        let delay = Delay { p: 0.3, time: Duration::from_secs(1) };
        let register_thing = Odds {
            drop_before: 0.05,
            drop_after: 0.1,
            silent: 0.15,
            no_reply: 0.05,
            duplicate: 0.1,
            reject_5xx: 0.2,
            delay,
        };
        Faults { register_thing, ..Faults::default() }
    }

    const REGISTER: Route<'_> = Route::Register { template: "T" };

    fn fates(seed: u64, count: usize) -> Vec<Fate> {
        let (dice, faults) = (Dice::new(seed), faults());
        (0..count).map(|_| dice.throw(&faults, &REGISTER)).collect()
    }

    #[test]
    fn faults_come_as_often_as_they_should() {
        let fates = fates(1, 20_000);
        let share = |wanted: Option<Fault>| {
            fates.iter().filter(|fate| fate.fault == wanted).count() as f64 / fates.len() as f64
        };
        for (fault, p) in [
            (Some(Fault::DropBefore), 0.05),
            (Some(Fault::DropAfter), 0.1),
            (Some(Fault::Silent), 0.15),
            (Some(Fault::NoReply), 0.05),
            (Some(Fault::Duplicate), 0.1),
            (Some(Fault::Reject), 0.2),
            (None, 0.35),
        ] {
            assert!((share(fault) - p).abs() < 0.01, "{fault:?}: {}", share(fault));
        }
        let late = fates.iter().filter(|fate| !fate.delay.is_zero()).count() as f64 / fates.len() as f64;
        assert!((late - 0.3).abs() < 0.01, "{late}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_whatever_else_is_asked() {
        assert_eq!(fates(7, 100), fates(7, 100));
        assert_ne!(fates(7, 100), fates(8, 100));
        let (dice, mut faults) = (Dice::new(7), faults());
        faults.create_keys_and_certificate = faults.register_thing;
        let mixed: Vec<_> = (0..100)
            .map(|_| {
                dice.throw(&faults, &Route::CreateKeys);
                dice.throw(&faults, &REGISTER)
            })
            .collect();
        assert_eq!(mixed, fates(7, 100));
    }

    #[test]
    fn without_odds_nothing_happens_and_certainty_is_certain() {
        let dice = Dice::new(0);
        assert_eq!(dice.throw(&Faults::default(), &REGISTER), Fate::default());
        let sure = Odds { silent: 1.0, ..Odds::default() };
        let faults = Faults { register_thing: sure, ..Faults::default() };
        assert!((0..1000).all(|_| dice.throw(&faults, &REGISTER).fault == Some(Fault::Silent)));
    }
}
