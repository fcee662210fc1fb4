//! Exit codes and error messages. The codes are a contract; docs/REFERENCE.md documents them.

use std::process::ExitCode;

use crate::engine::find::FindOutcome;
use crate::engine::load::LoadOutcome;
use crate::engine::{End, Outcome};
use crate::failure::{Cause, Failure, Stage};
use crate::ledger::{Counts, LedgerError, Problem};
use crate::limit_search::{Finding, Stopped};

use super::advice;
use super::speech::warn;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Complete,
    /// A threshold was missed.
    ThresholdMissed,
    /// Some devices were rejected, or their outcome is unknown.
    NotAllRegistered,
    /// The service refused for good, or a test or search ended without a result.
    Stopped,
    /// Interrupted; the same command resumes the run.
    Interrupted,
    /// The command line is wrong.
    Usage,
    /// The lot is wrong.
    BadIdentities,
    /// Credentials are missing, or a check before the run failed.
    Unavailable,
    /// A bug in fleetmint.
    Bug,
    /// Another process has the ledger open.
    LedgerLocked,
    /// The ledger, or an output file, cannot be used.
    LedgerUnusable,
    /// The service is unavailable or throttles too much: trying again later may help.
    Later,
    /// The credentials lack a permission.
    NotPermitted,
}

impl Exit {
    /// All exit codes, in ascending order.
    const ALL: [Exit; 13] = [
        Exit::Complete,
        Exit::ThresholdMissed,
        Exit::NotAllRegistered,
        Exit::Stopped,
        Exit::Interrupted,
        Exit::Usage,
        Exit::BadIdentities,
        Exit::Unavailable,
        Exit::Bug,
        Exit::LedgerLocked,
        Exit::LedgerUnusable,
        Exit::Later,
        Exit::NotPermitted,
    ];

    /// The exit code, its meaning, and whether the same command may be run again. The codes are stable; docs/REFERENCE.md
    /// has the same table.
    fn row(self) -> (u8, &'static str, &'static str) {
        match self {
            Exit::Complete => (0, "complete", "no need"),
            Exit::ThresholdMissed => (2, "a threshold was missed", "to measure again"),
            Exit::NotAllRegistered => (
                3,
                "some devices are rejected, unknown or removed; `verify` found differences; `cleanup` kept something",
                "no: see `status`",
            ),
            Exit::Stopped => (
                4,
                "a final refusal, too many failures of one kind, a load test out of devices, or nothing found",
                "no: mend first",
            ),
            Exit::Interrupted => (5, "interrupted", "yes: it resumes"),
            Exit::Usage => (64, "wrong usage", "no: mend first"),
            Exit::BadIdentities => (65, "the lot is wrong, and nothing was sent", "no: mend first"),
            Exit::Unavailable => (69, "a check failed, or credentials are missing", "no: mend first"),
            Exit::Bug => (70, "a bug in fleetmint", "no: report it"),
            Exit::LedgerLocked => (73, "the ledger is in use by another process", "once that has ended"),
            Exit::LedgerUnusable => {
                (74, "the ledger, or a file to be written, is unusable", "no: mend first")
            }
            Exit::Later => (75, "unreachable, an outage, or throttled out", "yes, later: it resumes"),
            Exit::NotPermitted => {
                (77, "the service refused the credentials, or what they asked for", "no: mend first")
            }
        }
    }

    /// The exit code: stable.
    pub fn code(self) -> u8 {
        self.row().0
    }

    /// The table of all codes, for the help.
    pub(super) fn table() -> String {
        let row = |exit: Exit| {
            let (code, meaning, _) = exit.row();
            format!("  {code:>2}  {meaning}\n")
        };
        format!("Exit codes:\n{}", Exit::ALL.map(row).concat())
    }

    /// The exit code of a run with this outcome; `complete` if it had nothing left to try.
    pub(super) fn of_run(outcome: &Outcome, complete: Exit) -> Self {
        Self::of_end(&outcome.end).unwrap_or(complete)
    }

    /// The exit code of a load test. Refusals are a result: only thresholds say how many are too many.
    pub(super) fn of_load(outcome: &LoadOutcome) -> Self {
        let has_missed = outcome.judgements.iter().any(|judgement| !judgement.passed);
        Self::of_end(&outcome.end).unwrap_or(match outcome.end {
            _ if has_missed => Exit::ThresholdMissed,
            End::Complete => Exit::Complete,
            _ => Exit::Stopped,
        })
    }

    /// The exit code of a search. One that only found where the limit is not has not reached its goal.
    pub(super) fn of_search(outcome: &FindOutcome) -> Self {
        Self::of_end(&outcome.end).unwrap_or(match outcome.finding {
            Finding::Limit { confirmed: true, .. } | Finding::NoLimit { because: Stopped::MaxRate, .. } => {
                Exit::Complete
            }
            _ => Exit::Stopped,
        })
    }

    /// The exit code for this end; `None` if it depends on what was found or done.
    fn of_end(end: &End) -> Option<Self> {
        match end {
            End::Complete | End::OutOfDevices | End::ThresholdLost => None,
            End::Drained | End::Aborted => Some(Exit::Interrupted),
            End::Stopped(failure) | End::Refused { failure, .. } => Some(Exit::of_failure(failure)),
            End::Ledger(error) => Some(Exit::of_ledger(error)),
            End::Bug(_) => Some(Exit::Bug),
        }
    }

    /// The exit code for the states of a lot's devices when there is nothing left to try.
    pub(super) fn of_devices(devices: &Counts) -> Self {
        if devices.registered == devices.total() {
            Exit::Complete
        } else if devices.rejected + devices.unknown + devices.removed + devices.issued_may_sent > 0 {
            Exit::NotAllRegistered
        } else {
            Exit::Stopped
        }
    }

    /// The exit code for a failure that ended a run: depends on whether the same command may succeed later.
    pub(super) fn of_failure(failure: &Failure) -> Self {
        match &failure.cause {
            Cause::UpgradeRefused { status: 401 | 403, .. }
            | Cause::ConnectRefused { code: 4 | 5 | 7 }
            | Cause::SubscriptionRefused { .. } => Exit::NotPermitted,
            // A certificate that is not trusted will not be trusted later either.
            Cause::Credentials { .. } | Cause::Tls { .. } => Exit::Unavailable,
            Cause::UpgradeRefused { .. } | Cause::ConnectRefused { .. } if failure.is_refusal() => {
                Exit::Stopped
            }
            Cause::UpgradeRefused { .. }
            | Cause::ConnectRefused { .. }
            | Cause::Unresolvable { .. }
            | Cause::Unreachable { .. }
            | Cause::TimedOut { .. }
            | Cause::NoPuback { .. }
            | Cause::NoReply { .. }
            | Cause::Rejected { status_code: 429 | 500.., .. }
            | Cause::TokenExpired => Exit::Later,
            // Before MQTT begins, nothing was requested that could be forbidden.
            Cause::Closed { .. } if matches!(failure.stage, Stage::Tcp | Stage::Tls | Stage::Upgrade) => {
                Exit::Later
            }
            Cause::Closed { .. } | Cause::Garbled { .. } | Cause::Rejected { .. } | Cause::Anomaly { .. } => {
                Exit::Stopped
            }
        }
    }

    fn of_ledger(error: &LedgerError) -> Self {
        match error.problem {
            Problem::InUse { .. } | Problem::Busy => Exit::LedgerLocked,
            Problem::NotThere(_) => Exit::Usage,
            _ => Exit::LedgerUnusable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// An error that ends the command, with its message and advice.
#[derive(Debug)]
pub(super) struct Fatal {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Fatal {
    pub(super) fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Reports it on stderr.
    pub(super) fn report(self) -> Exit {
        warn(format_args!("error: {}", self.message));
        self.exit
    }
}

/// The error for a command that the ledger refused, or that asked for something that is not in it.
pub(super) fn ledger(error: LedgerError) -> Fatal {
    let exit = Exit::of_ledger(&error);
    match advice::of_ledger(&error.problem) {
        Some(advice) => Fatal::new(exit, format!("{error}; {advice}")),
        None => Fatal::new(exit, error),
    }
}

/// Prints clap's output: help and version to stdout with success, anything else to stderr.
pub(super) fn usage(error: &clap::Error) -> Exit {
    // A closed pipe is the reader's choice, not our error.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Complete }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use std::time::Duration;

    #[test]
    fn a_failure_that_time_can_mend_is_told_from_one_that_stays() {
        let refused = |status| Cause::UpgradeRefused { status, message: String::new(), skew_s: None };
        let closed = || Cause::Closed { detail: String::new() };
        let rejected = |status_code| Cause::Rejected {
            status_code,
            error_code: String::new(),
            error_message: String::new(),
        };
        let cases = [
            (Stage::Upgrade, refused(403), Exit::NotPermitted),
            (Stage::Upgrade, refused(404), Exit::Stopped),
            (Stage::Upgrade, refused(429), Exit::Later),
            (Stage::Upgrade, refused(503), Exit::Later),
            (Stage::Upgrade, closed(), Exit::Later),
            (Stage::Connack, Cause::ConnectRefused { code: 5 }, Exit::NotPermitted),
            (Stage::Connack, Cause::ConnectRefused { code: 3 }, Exit::Later),
            (Stage::Connack, Cause::ConnectRefused { code: 2 }, Exit::Stopped),
            (Stage::Suback, Cause::SubscriptionRefused { filter: String::new() }, Exit::NotPermitted),
            (Stage::Suback, closed(), Exit::Stopped),
            (Stage::Tcp, Cause::Unreachable { detail: String::new() }, Exit::Later),
            (Stage::Tcp, Cause::Unresolvable { detail: String::new() }, Exit::Later),
            (Stage::Tls, Cause::Tls { detail: String::new() }, Exit::Unavailable),
            (Stage::Connack, Cause::TimedOut { after: Duration::ZERO }, Exit::Later),
            (Stage::Call(Call::RegisterThing), Cause::NoReply { after: Duration::ZERO }, Exit::Later),
            (Stage::Call(Call::RegisterThing), rejected(429), Exit::Later),
            (Stage::Call(Call::RegisterThing), rejected(500), Exit::Later),
            (Stage::Call(Call::RegisterThing), rejected(400), Exit::Stopped),
            (Stage::Call(Call::RegisterThing), closed(), Exit::Stopped),
        ];
        for (stage, cause, exit) in cases {
            assert_eq!(Exit::of_failure(&Failure::new(stage, cause.clone())), exit, "{stage} {cause:?}");
        }
    }

    #[test]
    fn the_reference_has_the_table_of_exit_codes() {
        let reference = include_str!("../../docs/REFERENCE.md");
        for exit in Exit::ALL {
            let (code, meaning, again) = exit.row();
            let row = format!("| {code} | {meaning} | {again} |");
            assert!(reference.contains(&row), "wanted in docs/REFERENCE.md: {row}");
        }
    }
}
