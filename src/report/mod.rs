//! Reports: what a run's results look like to people and to programs.
//!
//! Owns the summary of a run and the status of a ledger, their JSON schemas (version 1) and their texts. Computes no number: it only arranges those of the ledger
//! and the metrics.

mod status;
mod summary;
mod terminal;

pub use status::{NextStep, STATUS_SCHEMA, StatusReport, render_status};
pub use summary::{
    DeviceSummary, FailureSummary, OperationSummaries, OperationSummary, PhaseSummaries, SCHEMA, Summary,
};
pub use terminal::{human_latency, render};
