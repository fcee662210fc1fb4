//! Why a run of any kind ended.

use crate::failure::Failure;
use crate::ledger::LedgerError;

/// Why a run ended.
#[derive(Debug)]
pub enum End {
    /// Everything was done: every device taken as far as it goes, the whole profile offered, or the limit found.
    Complete,
    /// There were fewer devices than arrivals.
    OutOfDevices,
    /// A threshold could no longer be met, and the plan was to stop then.
    ThresholdLost,
    /// The run was asked to drain, and did.
    Drained,
    /// The run was asked to abort.
    Aborted,
    /// Nothing left to do would have fared better than what failed last.
    Stopped(Failure),
    /// The service refused in the same way again and again, and never did what it was asked.
    Refused {
        /// The refusal.
        failure: Failure,
        /// How often it refused.
        times: u32,
    },
    /// The ledger could not be written or read.
    Ledger(LedgerError),
    /// A defect in this program: a task panicked.
    Bug(String),
}

impl End {
    /// The name in results: stable, lower case.
    pub fn name(&self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::OutOfDevices => "out_of_devices",
            End::ThresholdLost => "threshold_lost",
            End::Drained => "drained",
            End::Aborted => "aborted",
            End::Stopped(_) | End::Refused { .. } => "stopped",
            End::Ledger(_) => "ledger_failed",
            End::Bug(_) => "bug",
        }
    }

    /// Why, in words; empty if the name says it all.
    pub fn detail(&self) -> String {
        match self {
            End::Complete | End::Drained | End::Aborted => String::new(),
            End::OutOfDevices => String::from("there were fewer devices than arrivals"),
            End::ThresholdLost => String::from("a threshold was surely missed"),
            End::Stopped(failure) => failure.to_string(),
            End::Refused { failure, times } => format!("{failure} ({times} times, and nothing else)"),
            End::Ledger(error) => error.to_string(),
            End::Bug(detail) => detail.clone(),
        }
    }
}
