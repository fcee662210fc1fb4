//! Reports: what a run's results look like to people and to programs.
//!
//! Owns the summary, its JSON schema (version 1) and its text. Computes no number: it only arranges those of the ledger
//! and the metrics.

mod summary;
mod terminal;

pub use summary::{
    DeviceSummary, FailureSummary, OperationSummaries, OperationSummary, PhaseSummaries, SCHEMA, Summary,
};
pub use terminal::{human_latency, render};
