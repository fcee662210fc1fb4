//! Exit codes and how errors are said. The codes are a contract; README documents them.

use std::process::ExitCode;

use crate::engine::find::{FindEnd, FindOutcome};
use crate::engine::load::{LoadEnd, LoadOutcome};
use crate::engine::{End, Outcome};
use crate::failure::{Cause, Failure};
use crate::ledger::{Counts, LedgerError, Problem};
use crate::limit_search::{Finding, Stopped};

use super::speech::say;

/// The codes, for the help.
pub(super) const CODES: &str = "\
Exit codes: 0 complete, 2 a threshold was missed, 3 some devices rejected or unknown, 4 stopped by a refusal or the failure budget,
5 interrupted (run it again to resume), 64 usage, 65 bad identities, 69 endpoint unreachable or not ready,
70 defect, 74 ledger unusable, 77 not permitted.";

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Complete,
    /// A threshold of a load test was missed.
    ThresholdMissed,
    /// Some devices were rejected, or their outcome is unknown.
    NotAllRegistered,
    /// Stopped by a fatal refusal or the failure budget.
    Stopped,
    /// Interrupted; the same command goes on where it stopped.
    Interrupted,
    /// The command line is wrong.
    Usage,
    /// The lot is wrong.
    BadIdentities,
    /// The endpoint is unreachable, or a check before the run failed.
    Unavailable,
    /// A defect of fleetmint.
    Bug,
    /// The ledger cannot be used.
    LedgerUnusable,
    /// The service does not permit it.
    NotPermitted,
}

impl Exit {
    /// The exit code: stable.
    pub fn code(self) -> u8 {
        match self {
            Exit::Complete => 0,
            Exit::ThresholdMissed => 2,
            Exit::NotAllRegistered => 3,
            Exit::Stopped => 4,
            Exit::Interrupted => 5,
            Exit::Usage => 64,
            Exit::BadIdentities => 65,
            Exit::Unavailable => 69,
            Exit::Bug => 70,
            Exit::LedgerUnusable => 74,
            Exit::NotPermitted => 77,
        }
    }

    /// How a run that ended so leaves the process.
    pub(super) fn of_run(outcome: &Outcome, devices: &Counts) -> Self {
        match &outcome.end {
            End::Complete => Exit::of_devices(devices),
            End::Drained | End::Aborted => Exit::Interrupted,
            End::Stopped(failure) => Exit::of_failure(failure),
            End::Ledger(_) => Exit::LedgerUnusable,
            End::Bug(_) => Exit::Bug,
        }
    }

    /// How a load test that ended so leaves the process. A refusal is a result: only thresholds say what is too many.
    pub(super) fn of_load(outcome: &LoadOutcome) -> Self {
        let has_missed = outcome.judgements.iter().any(|judgement| !judgement.passed);
        match &outcome.end {
            LoadEnd::Drained | LoadEnd::Aborted => Exit::Interrupted,
            LoadEnd::Stopped(failure) => Exit::of_failure(failure),
            LoadEnd::Ledger(_) => Exit::LedgerUnusable,
            LoadEnd::Bug(_) => Exit::Bug,
            LoadEnd::Complete | LoadEnd::OutOfDevices | LoadEnd::ThresholdLost if has_missed => {
                Exit::ThresholdMissed
            }
            LoadEnd::Complete => Exit::Complete,
            LoadEnd::OutOfDevices | LoadEnd::ThresholdLost => Exit::Stopped,
        }
    }

    /// How a search that ended so leaves the process. One that could not say more than that the limit is not where it looked
    /// has not found what it was to find.
    pub(super) fn of_search(outcome: &FindOutcome) -> Self {
        match (&outcome.end, outcome.finding) {
            (FindEnd::Drained | FindEnd::Aborted, _) => Exit::Interrupted,
            (FindEnd::Stopped(failure), _) => Exit::of_failure(failure),
            (FindEnd::Ledger(_), _) => Exit::LedgerUnusable,
            (FindEnd::Bug(_), _) => Exit::Bug,
            (
                FindEnd::Complete,
                Finding::Limit { confirmed: true, .. } | Finding::NoLimit { because: Stopped::MaxRate, .. },
            ) => Exit::Complete,
            (FindEnd::Complete, _) => Exit::Stopped,
        }
    }

    /// What the states of a lot's devices mean when there is nothing left to try.
    pub(super) fn of_devices(devices: &Counts) -> Self {
        if devices.registered == devices.total() {
            Exit::Complete
        } else if devices.rejected + devices.unknown + devices.issued_may_sent > 0 {
            Exit::NotAllRegistered
        } else {
            Exit::Stopped
        }
    }

    /// What a failure that ended a run means.
    pub(super) fn of_failure(failure: &Failure) -> Self {
        match &failure.cause {
            Cause::UpgradeRefused { status: 401 | 403, .. }
            | Cause::ConnectRefused { code: 4 | 5 | 7 }
            | Cause::SubscriptionRefused { .. } => Exit::NotPermitted,
            _ if failure.stage.is_dialling() && !failure.is_refusal() => Exit::Unavailable,
            Cause::Credentials { .. } => Exit::Unavailable,
            _ => Exit::Stopped,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// An error that ends the command, with everything that is said about it.
#[derive(Debug)]
pub(super) struct Fatal {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Fatal {
    pub(super) fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Says it on stderr.
    pub(super) fn report(self) -> Exit {
        say(format_args!("error: {}", self.message));
        self.exit
    }
}

/// The end of a command that its ledger refused, or that asked for what is not in it.
pub(super) fn ledger(error: LedgerError) -> Fatal {
    match error.problem {
        Problem::NotThere(_) => Fatal::new(Exit::Usage, error),
        _ => Fatal::new(Exit::LedgerUnusable, error),
    }
}

/// Prints what clap has to say: help and version to stdout and success, anything else to stderr.
pub(super) fn usage(error: &clap::Error) -> Exit {
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Complete }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::failure::Stage;

    #[test]
    fn refusals_for_want_of_permission_differ_from_an_endpoint_that_cannot_be_reached() {
        let refused = |status| Cause::UpgradeRefused { status, message: String::new(), skew_s: None };
        let cases = [
            (Stage::Upgrade, refused(403), Exit::NotPermitted),
            (Stage::Upgrade, refused(404), Exit::Stopped),
            (Stage::Upgrade, refused(503), Exit::Unavailable),
            (Stage::Connack, Cause::ConnectRefused { code: 5 }, Exit::NotPermitted),
            (Stage::Connack, Cause::ConnectRefused { code: 2 }, Exit::Stopped),
            (Stage::Suback, Cause::SubscriptionRefused { filter: String::new() }, Exit::NotPermitted),
            (Stage::Tcp, Cause::Unreachable { detail: String::new() }, Exit::Unavailable),
            (Stage::Call(Call::RegisterThing), Cause::Closed { detail: String::new() }, Exit::Stopped),
        ];
        for (stage, cause, exit) in cases {
            assert_eq!(Exit::of_failure(&Failure::new(stage, cause.clone())), exit, "{stage} {cause:?}");
        }
    }
}
