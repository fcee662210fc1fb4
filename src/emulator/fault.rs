//! Draws a scenario's faults and applies them to replies, for the server and the simulated network alike.
//!
//! Owns the counting and the draws. What a fault does to a connection is up to the connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::account::{Random, Route};
use super::scenario::{Fault, FaultRule, FaultTarget, Faults};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fate {
    pub(super) fault: Option<Fault>,
    /// By how much its acknowledgement or reply is delayed.
    pub(super) delay: Duration,
}

impl FaultTarget {
    /// The fault target of a publish on this route.
    pub(super) fn of(route: &Route<'_>) -> Self {
        match route {
            Route::CreateKeys => FaultTarget::CreateKeysAndCertificate,
            Route::CreateFromCsr => FaultTarget::CreateCertificateFromCsr,
            Route::Register { .. } => FaultTarget::RegisterThing,
            _ => FaultTarget::Publish,
        }
    }
}

/// The faults and their progress. The faults can be replaced at any time.
#[derive(Debug)]
pub(super) struct Dice {
    /// Whether there are rules. Most emulators have none, and check that without a lock.
    is_loaded: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    standings: Vec<[Standing; FaultTarget::COUNT]>,
    /// How often each rule has struck, over all its targets.
    struck: Vec<u64>,
}

/// A rule's progress at one target. Each has its own random stream, so that requests at one target do not change the
/// faults at another.
#[derive(Debug)]
struct Standing {
    seen: u64,
    random: Random,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        let dice = Self { is_loaded: AtomicBool::new(false), state: Mutex::default() };
        dice.load(faults);
        dice
    }

    /// Replaces the faults and resets all counts.
    pub(super) fn load(&self, faults: Faults) {
        let mut seeds = Random::new(faults.seed);
        let mut standing = || Standing { seen: 0, random: Random::new(seeds.next()) };
        let mut state = self.state();
        state.standings = faults.rules.iter().map(|_| std::array::from_fn(|_| standing())).collect();
        state.struck = vec![0; faults.rules.len()];
        self.is_loaded.store(!faults.rules.is_empty(), Ordering::Release);
        state.faults = faults;
    }

    /// The rules, as written in JSON.
    pub(super) fn describe(&self) -> Vec<Value> {
        self.state().faults.rules.iter().map(FaultRule::to_json).collect()
    }

    /// How often each rule has struck, in the order of the rules.
    pub(super) fn struck(&self) -> Vec<u64> {
        self.state().struck.clone()
    }

    /// The fate of the next request at `target`.
    pub(super) fn throw(&self, target: FaultTarget) -> Fate {
        if !self.is_loaded.load(Ordering::Acquire) {
            return Fate::default();
        }
        let mut state = self.state();
        let State { faults, standings, struck } = &mut *state;
        let mut fate = Fate::default();
        for ((rule, standings), struck) in faults.rules.iter().zip(standings).zip(struck) {
            if !rule.on.contains(&target) {
                continue;
            }
            let strikes = standings[target as usize].strikes(rule, *struck);
            match rule.fault {
                _ if !strikes => {}
                Fault::Delay(time) => {
                    *struck += 1;
                    fate.delay += time;
                }
                _ if fate.fault.is_some() => {}
                ref fault => {
                    *struck += 1;
                    fate.fault = Some(fault.clone());
                }
            }
        }
        fate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Whether the rule strikes the next request, which is counted in any case.
    fn strikes(&mut self, rule: &FaultRule, struck: u64) -> bool {
        let (seen, draw) = (self.seen, self.random.unit());
        self.seen += 1;
        let Some(number) = seen.checked_sub(rule.after) else { return false };
        rule.first.is_none_or(|first| number < first)
            && (number + 1).is_multiple_of(rule.every)
            && rule.max.is_none_or(|max| struck < max)
            && draw < rule.probability
    }
}

/// A reply's payload as changed by a fault.
pub(super) fn spoil(fault: &Fault, payload: &Bytes) -> Bytes {
    match fault {
        Fault::Garble => garble(payload),
        Fault::MissingField => change(payload, |reply| {
            let last = reply.keys().next_back().cloned();
            last.map(|last| reply.remove(&last));
        }),
        Fault::ExtraField => change(payload, |reply| {
            reply.insert(String::from("extra"), json!({"nested": [1, null, "x"]}));
        }),
        Fault::WrongThing => change(payload, |reply| {
            for key in ["thingName", "certificateId"] {
                if let Some(Value::String(name)) = reply.get_mut(key) {
                    // A different name or id of the same form.
                    *name = name.chars().rev().collect::<String>() + "0";
                }
            }
        }),
        _ => payload.clone(),
    }
}

/// A payload that the API does not describe; which one depends only on the original payload.
fn garble(payload: &Bytes) -> Bytes {
    let sum = payload.iter().fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(*byte)));
    match sum % 4 {
        0 => payload.slice(..payload.len() / 2),
        1 => Bytes::from_static(b"{}"),
        2 => Bytes::new(),
        _ => String::from_utf8_lossy(payload).replace("certificateId", "x").replace("thingName", "x").into(),
    }
}

fn change(payload: &Bytes, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Bytes {
    match serde_json::from_slice(payload) {
        Ok(Value::Object(mut reply)) => {
            change(&mut reply);
            Value::Object(reply).to_string().into()
        }
        _ => payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;
    use crate::emulator::scenario::Acts;

    const REGISTER: FaultTarget = FaultTarget::RegisterThing;

    fn dice(text: &str) -> Dice {
        Dice::new(Scenario::from_toml(text).unwrap().faults)
    }

    fn fates(seed: u64, count: usize) -> Vec<Fate> {
        let dice = dice(&format!(
            "[faults]\nseed = {seed}\n[faults.register_thing]\ndrop_before = 0.05\ndrop_after = 0.1\nsilent = 0.15\n\
             no_reply = 0.05\nduplicate = 0.1\nreject_5xx = 0.2\ndelay = {{ p = 0.3, time = \"1s\" }}"
        ));
        (0..count).map(|_| dice.throw(REGISTER)).collect()
    }

    #[test]
    fn faults_come_as_often_as_they_should() {
        let fates = fates(1, 20_000);
        let share = |wanted: Option<Fault>| {
            fates.iter().filter(|fate| fate.fault == wanted).count() as f64 / fates.len() as f64
        };
        let reject = Fault::Reject { status: 503, code: None, acts: Acts::Undone };
        for (fault, p) in [
            (Some(Fault::HangUp(Acts::Undone)), 0.05),
            (Some(Fault::HangUp(Acts::Done)), 0.1),
            (Some(Fault::Silence), 0.15),
            (Some(Fault::NoReply(Acts::Done)), 0.05),
            (Some(Fault::Duplicate), 0.1),
            (Some(reject), 0.2),
            (None, 0.35),
        ] {
            let share = share(fault.clone());
            assert!((share - p).abs() < 0.01, "{fault:?}: {share}");
        }
        let late = fates.iter().filter(|fate| !fate.delay.is_zero()).count() as f64 / fates.len() as f64;
        assert!((late - 0.3).abs() < 0.01, "{late}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_whatever_else_is_asked() {
        assert_eq!(fates(7, 100), fates(7, 100));
        assert_ne!(fates(7, 100), fates(8, 100));
        let rule = "[[faults.rules]]\non = [\"register_thing\", \"connect\"]\nfault = \"silence\"\nprobability = 0.5";
        let (alone, mixed) = (dice(rule), dice(rule));
        let alone: Vec<_> = (0..100).map(|_| alone.throw(REGISTER)).collect();
        let mixed: Vec<_> = (0..100)
            .map(|_| {
                mixed.throw(FaultTarget::Connect);
                mixed.throw(REGISTER)
            })
            .collect();
        assert_eq!(alone, mixed);
    }

    #[test]
    fn a_schedule_is_kept() {
        let struck = |schedule: &str| -> Vec<usize> {
            let dice =
                dice(&format!("[[faults.rules]]\non = \"register_thing\"\nfault = \"silence\"\n{schedule}"));
            (1..=12).filter(|_| dice.throw(REGISTER).fault.is_some()).collect()
        };
        assert_eq!(struck("first = 3"), [1, 2, 3]);
        assert_eq!(struck("after = 2\nfirst = 3"), [3, 4, 5]);
        assert_eq!(struck("every = 4"), [4, 8, 12]);
        assert_eq!(struck("after = 1\nevery = 4\nmax = 2"), [5, 9]);
        assert_eq!(struck("probability = 0"), [0_usize; 0]);
    }

    #[test]
    fn faults_change_while_they_are_used() {
        let dice = dice("");
        assert_eq!(dice.throw(REGISTER), Fate::default());
        dice.load(Faults::of_requests([(Fault::Silence, 1.0)]));
        assert_eq!(dice.throw(REGISTER).fault, Some(Fault::Silence));
        assert_eq!(dice.throw(FaultTarget::Connect), Fate::default(), "no request");
        assert_eq!(dice.struck(), [1]);
        dice.load(Faults::default());
        assert_eq!(dice.throw(REGISTER), Fate::default());
    }

    #[test]
    fn a_spoilt_reply_is_spoilt_as_it_says() {
        let reply = Bytes::from_static(br#"{"deviceConfiguration":{},"thingName":"ab"}"#);
        let spoilt = |fault| -> Value { serde_json::from_slice(&spoil(&fault, &reply)).unwrap_or_default() };
        assert_ne!(spoil(&Fault::Garble, &reply), reply);
        assert_eq!(spoilt(Fault::MissingField), json!({"deviceConfiguration": {}}));
        assert_eq!(spoilt(Fault::ExtraField)["thingName"], "ab");
        assert_eq!(spoilt(Fault::ExtraField)["extra"]["nested"][0], 1);
        assert_eq!(spoilt(Fault::WrongThing)["thingName"], "ba0");
        assert_eq!(spoilt(Fault::Duplicate)["thingName"], "ab");
    }
}
