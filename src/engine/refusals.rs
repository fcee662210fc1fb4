//! Detects a service that refuses everything in the same way: going on would only leave certificates behind.
//!
//! Owns the counts of a provisioning run that show it. Decides nothing about a single device: that is
//! [`crate::failure`]'s.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::end::End;
use crate::call::Call;
use crate::failure::{Cause, Failure};

/// The run stops when so often no answer of use came at a step that no device has passed, [`OF_A_DEVICE`] times in a
/// row to one device.
const USELESS: u32 = 6;
/// How often it must have been the same device.
const OF_A_DEVICE: u32 = 3;
/// The run stops after so many answers that make no sense, whichever devices they were for.
const SENSELESS: u32 = 12;
/// The run stops after this many identical rejections, or [`REJECTIONS_PER_CONNECTION`] for each connection, if more.
const REJECTIONS: u32 = 12;
/// How many identical rejections per connection stop the run, if that is more than [`REJECTIONS`].
const REJECTIONS_PER_CONNECTION: u32 = 3;

/// What the service has refused so far; shared by all workers.
pub(super) struct Refusals {
    seen: Mutex<Seen>,
}

struct Seen {
    /// Whether anything was registered, in this run or before.
    has_registered: bool,
    /// The calls that were accepted in this run.
    accepted: Vec<Call>,
    /// How often there was no answer of use, for each call that was never accepted; and the first such failure.
    useless: HashMap<(Call, Useless), (u32, Failure)>,
    /// How many devices were rejected with the same words, and the first such failure.
    rejections: HashMap<String, (u32, Failure)>,
}

/// What came in the place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Useless {
    /// The end of the connection.
    HangUp,
    /// Something that makes no sense.
    Senseless,
}

impl Useless {
    fn of(failure: &Failure) -> Option<(Call, Self)> {
        let useless = match failure.cause {
            Cause::Closed { .. } => Useless::HangUp,
            Cause::Garbled { .. } | Cause::Anomaly { .. } => Useless::Senseless,
            _ => return None,
        };
        Some((failure.stage.call()?, useless))
    }

    /// Whether the service bars a step, where this has come `times` times, `attempts` of them to one device.
    fn bars(self, times: u32, attempts: u32) -> bool {
        // A node that is restarted hangs up too: once or twice on each device. It does not talk nonsense.
        (times >= USELESS && attempts >= OF_A_DEVICE) || (self == Useless::Senseless && times >= SENSELESS)
    }
}

impl Refusals {
    /// The refusals of a run over a ledger that has a registered device, or none yet.
    pub(super) fn new(has_registered: bool) -> Self {
        let seen = Seen {
            has_registered,
            accepted: Vec::new(),
            useless: HashMap::new(),
            rejections: HashMap::new(),
        };
        Self { seen: Mutex::new(seen) }
    }

    /// Counts the outcome of an attempt.
    pub(super) fn attempted(&self, call: Call, outcome: &Result<(), Failure>) {
        let mut seen = self.seen();
        match outcome {
            Ok(()) => {
                if !seen.accepted.contains(&call) {
                    seen.accepted.push(call);
                }
                seen.useless.retain(|(of, _), _| *of != call);
                if call == Call::RegisterThing {
                    seen.has_registered = true;
                    seen.rejections.clear();
                }
            }
            Err(_) if seen.accepted.contains(&call) => {}
            Err(failure) => {
                if let Some(useless) = Useless::of(failure) {
                    seen.useless.entry(useless).or_insert_with(|| (0, failure.clone())).0 += 1;
                }
            }
        }
    }

    /// Whether no device has passed the step of `failure`, which has now failed for one device `attempts` times.
    pub(super) fn is_barred(&self, failure: &Failure, attempts: u32) -> bool {
        let Some(useless) = Useless::of(failure) else { return false };
        let times = self.seen().useless.get(&useless).map_or(0, |(times, _)| *times);
        useless.1.bars(times, attempts)
    }

    /// Counts a device that was given up for `failure`. Returns whether the run must stop, given its number of
    /// connections.
    pub(super) fn gave_up(&self, failure: &Failure, connections: usize) -> bool {
        let mut seen = self.seen();
        if seen.has_registered || !failure.is_rejection() {
            return false;
        }
        let rejected = seen.rejections.entry(failure.reason()).or_insert_with(|| (0, failure.clone()));
        rejected.0 += 1;
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        rejected.0 >= connections.saturating_mul(REJECTIONS_PER_CONNECTION).max(REJECTIONS)
    }

    /// The run's end in the light of its refusals. `end` is its own end; `None` if it had none.
    pub(super) fn judge(&self, end: Option<End>) -> Option<End> {
        let seen = self.seen();
        let useless = |failure: &Failure| {
            let (times, first) = seen.useless.get(&Useless::of(failure)?)?;
            (*times >= USELESS).then_some((times, first))
        };
        let rejected = || {
            let often = seen.rejections.values().filter(|(times, _)| *times >= REJECTIONS);
            often.max_by_key(|found| found.0).map(|(times, first)| (times, first))
        };
        let refused = match &end {
            None => rejected(),
            Some(End::Stopped(failure)) if Useless::of(failure).is_some() => useless(failure),
            Some(End::Stopped(failure)) => rejected().filter(|(_, found)| found.reason() == failure.reason()),
            Some(_) => None,
        };
        refused.map(|(times, failure)| End::Refused { failure: failure.clone(), times: *times }).or(end)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Stage;

    fn hang_up(call: Call) -> Failure {
        Failure::new(Stage::Call(call), Cause::Closed { detail: String::from("reset") })
    }

    fn rejected(message: &str) -> Failure {
        let (error_code, error_message) = (String::from("InvalidParameters"), message.to_owned());
        let cause = Cause::Rejected { status_code: 400, error_code, error_message };
        Failure::new(Stage::Call(Call::RegisterThing), cause)
    }

    /// Hang-ups of three devices in turn.
    fn is_barred_after(refusals: &Refusals, hang_ups: u32) -> bool {
        let failure = hang_up(Call::RegisterThing);
        let mut is_barred = false;
        for n in 0..hang_ups {
            refusals.attempted(Call::RegisterThing, &Err(failure.clone()));
            is_barred = refusals.is_barred(&failure, n / 3 + 1);
        }
        is_barred
    }

    #[test]
    fn a_step_that_nobody_gets_past_is_barred_and_one_that_somebody_did_is_not() {
        let refusals = Refusals::new(true);
        assert!(
            !is_barred_after(&refusals, 6),
            "each of three has tried twice: one node may have been restarted"
        );
        assert!(is_barred_after(&Refusals::new(true), 7));
        assert!(!refusals.is_barred(&hang_up(Call::CreateKeysAndCertificate), 9), "another step");
        refusals.attempted(Call::RegisterThing, &Ok(()));
        assert!(!is_barred_after(&refusals, 40));
        assert!(refusals.judge(None).is_none());
    }

    #[test]
    fn answers_that_make_no_sense_bar_a_step_however_few_each_device_has_had() {
        let call = Call::CreateKeysAndCertificate;
        let garbled = Failure::new(Stage::Call(call), Cause::Garbled { detail: String::from("no JSON") });
        let refusals = Refusals::new(true);
        for n in 1..=12 {
            assert!(!refusals.is_barred(&garbled, 1), "{n}");
            refusals.attempted(call, &Err(garbled.clone()));
        }
        assert!(refusals.is_barred(&garbled, 1));
        assert!(!refusals.is_barred(&hang_up(call), 3), "nobody hung up");
        let Some(End::Refused { times, .. }) = refusals.judge(Some(End::Stopped(garbled.clone()))) else {
            panic!()
        };
        assert_eq!(times, 12);
        refusals.attempted(call, &Ok(()));
        refusals.attempted(call, &Err(garbled.clone()));
        assert!(!refusals.is_barred(&garbled, 9), "one device has passed");
    }

    #[test]
    fn identical_rejections_are_counted_and_others_are_not() {
        let refusals = Refusals::new(false);
        for n in 1..12 {
            assert!(!refusals.gave_up(&rejected("no such group"), 4), "{n}");
            assert!(!refusals.gave_up(&rejected(&format!("site {n} is not allowed")), 4));
        }
        assert!(refusals.judge(None).is_none());
        assert!(refusals.gave_up(&rejected("no such group"), 4));
        let Some(End::Refused { times, failure }) = refusals.judge(None) else { panic!() };
        assert_eq!((times, failure), (12, rejected("no such group")));
        refusals.attempted(Call::RegisterThing, &Ok(()));
        assert!(!refusals.gave_up(&rejected("no such group"), 4) && refusals.judge(None).is_none());
    }

    #[test]
    fn more_connections_see_more_rejections_at_once() {
        let refusals = Refusals::new(false);
        let stops = (1..).find(|_| refusals.gave_up(&rejected("no"), 20)).unwrap();
        assert_eq!(stops, 60);
        assert!(
            !(0..200).any(|_| Refusals::new(true).gave_up(&rejected("no"), 1)),
            "something is registered"
        );
    }
}
