//! Reports: what a run's results look like to people and to programs.
//!
//! Owns the summary of a run, the status of a ledger and the report of results files, their JSON schemas (version 1), texts
//! and pages. Measures nothing: it only arranges the numbers of the ledger and the metrics, and divides one by another.

/// A line of a text. Writing to a `String` cannot fail; this says so once.
macro_rules! line {
    ($text:expr, $($format:tt)*) => {
        writeln!($text, $($format)*).expect("a String takes any text")
    };
}

mod compare;
mod compile;
mod heat;
mod hints;
mod hlog;
mod html;
mod limit;
mod load;
mod lot;
mod markdown;
mod model;
mod questions;
mod seconds;
mod shards;
mod status;
mod summary;
mod terminal;
mod text;
mod under_way;
mod verdict;
mod wording;

pub use compare::{Change, Comparison, Unit, Verdict as ChangeVerdict};
pub use compile::{CompileError, MAX_POINTS, Request, SameVerb, by_verb, compile};
pub use heat::HeatMap;
pub use hlog::{HlogError, write_hlogs};
pub use html::{render_html, render_limit_html, render_lot_html};
pub use limit::{
    FindingReport, IssuedAhead, LimitContext, LimitReport, QuotaReport, StepReport, per_second, step_line,
};
pub use load::{LOAD_SCHEMA, LoadFacts, LoadSummary, NamedOperation, render_load};
pub use lot::{
    LOT_REPORT_SCHEMA, LotCounts, LotDevice, LotFacts, LotReport, LotReportDraft, LotReportHead, LotResult,
    LotScope, MOST_EXCEPTIONS, MOST_LISTED, render_lot_report,
};
pub use markdown::render_markdown;
pub use model::{
    ArrivalReport, CurvePoint, Curves, Headline, Hint, OperationReport, PhaseReport, Point, PointLatency,
    PointOperation, REPORT_SCHEMA, Report, Run, SlowReport, Timeline, Weight,
};
pub use seconds::LONGEST_PAUSE_S;
pub use shards::{EarlyShard, ShardReport};
pub use status::{NextStep, STATUS_SCHEMA, StatusReport, render_status};
pub use summary::{
    DeviceSummary, FailureSummary, OperationSummaries, OperationSummary, PhaseSummaries, SCHEMA, Summary,
};
pub use terminal::{Detail, human_latency, render};
pub use text::render_report;
pub use verdict::{Outcome, Verdict};
