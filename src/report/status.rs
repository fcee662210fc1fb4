//! What `fleetmint status` shows: a ledger's lot, devices, causes and runs, and what to do next.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::event::DeviceState;
use crate::ledger::{Counts, LotInfo, RunStanding, RunStatus, Status, Trouble};
use crate::wording::number;

/// The version of the status's schema: raised when a field changes its meaning or is removed, not when one is added.
pub const STATUS_SCHEMA: u32 = 1;

/// The state of a ledger, as `status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusReport {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    /// The ledger's file, as given.
    pub ledger: String,
    /// The lot that it was made from.
    pub lot: LotReport,
    /// The process that has the ledger open for writing; `None` if there is none.
    pub writer: Option<WriterReport>,
    /// Whether it holds private keys in plain text.
    pub plain_keys: bool,
    /// Devices by the ledger's states.
    pub devices: StateReport,
    /// Why devices were left, rejected or given up, the most frequent cause first.
    pub causes: Vec<CauseReport>,
    /// All runs, the first one first.
    pub runs: Vec<RunReport>,
    /// What to do next, the most urgent first.
    pub next: Vec<NextStep>,
}

/// A ledger's lot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReport {
    /// Its file, as given.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// The column with the devices' keys.
    pub key_column: String,
    /// The provisioning template.
    pub template: String,
    /// The region.
    pub region: String,
    /// What identifies the account: the endpoint's host, `emulator`, or `localhost`.
    pub account: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// The process that is writing the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriterReport {
    /// Its process id, if known.
    pub pid: Option<u32>,
}

/// Devices by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StateReport {
    /// All devices except the withdrawn ones.
    pub total: u64,
    /// Confirmed by the service.
    pub registered: u64,
    /// Refused by the service for good.
    pub rejected: u64,
    /// Possibly registered, and nothing can settle the outcome.
    pub unknown: u64,
    /// With a certificate, and certainly not registered.
    pub issued_not_sent: u64,
    /// With a certificate and possibly registered; the next run may settle it. `unsettled` in the summary.
    pub issued_may_sent: u64,
    /// Nothing has been made for them yet.
    pub pending: u64,
    /// Removed from the account again.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Withdrawn from the lot; not included in the total.
    #[serde(skip_serializing_if = "is_zero")]
    pub withdrawn: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl From<Counts> for StateReport {
    fn from(counts: Counts) -> Self {
        Self {
            total: counts.total(),
            registered: counts.registered,
            rejected: counts.rejected,
            unknown: counts.unknown,
            issued_not_sent: counts.issued_not_sent,
            issued_may_sent: counts.issued_may_sent,
            pending: counts.pending,
            removed: counts.removed,
            withdrawn: counts.withdrawn,
        }
    }
}

/// Devices with the same state and reason for failure; for a kind with very many reasons, one entry covers the
/// remaining ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseReport {
    /// Their state.
    pub state: &'static str,
    /// The stage of the failure.
    pub stage: String,
    /// Its cause, as `retry --cause` takes it.
    pub cause: String,
    /// How many devices.
    pub devices: u64,
    /// How many reasons; more than 1 only if they are not all told apart.
    pub reasons: u64,
    /// The key of the first device.
    pub example_key: String,
    /// The first device's failure, in full.
    pub example: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Its number, as `export --since-run` takes it.
    pub run: i64,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339; `None` if no end is recorded.
    pub ended_at: Option<String>,
    /// How it ended; `running` or `crashed` if no end is recorded; `retry` or `rework` if it only returned devices to
    /// pending.
    pub outcome: String,
    /// Its process id.
    pub pid: u32,
}

/// A next step for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// `wait`, `resume`, `retry`, `reissue` or `export`.
    pub step: &'static str,
    /// Why, and what to watch for.
    pub why: String,
    /// The shell command, with placeholders in capitals; `None` if there is nothing to run.
    pub command: Option<String>,
}

impl StatusReport {
    /// Reports on the ledger at `path`, made from `lot`, with `next` as the steps to take.
    pub fn new(path: &Path, lot: &LotInfo, status: &Status, next: Vec<NextStep>) -> Self {
        Self {
            schema: STATUS_SCHEMA,
            ledger: path.display().to_string(),
            lot: lot_report(lot),
            writer: status.writer.map(|writer| WriterReport { pid: writer.pid }),
            plain_keys: status.holds_plain_keys,
            devices: status.counts.into(),
            causes: status.troubles.iter().map(cause_report).collect(),
            runs: status.runs.iter().map(run_report).collect(),
            next,
        }
    }
}

fn lot_report(lot: &LotInfo) -> LotReport {
    LotReport {
        source: lot.source.clone(),
        digest: lot.digest.clone(),
        rows: lot.devices,
        key_column: key_column(lot).to_owned(),
        template: lot.binding.template.clone(),
        region: lot.binding.region.clone(),
        account: lot.binding.account.to_string(),
        imported_at: lot.created_at.clone(),
    }
}

fn key_column(lot: &LotInfo) -> &str {
    lot.shape.columns.get(lot.shape.key_column).map_or("", String::as_str)
}

fn cause_report(trouble: &Trouble) -> CauseReport {
    CauseReport {
        state: trouble.state.name(),
        stage: trouble.stage.clone(),
        cause: trouble.cause.clone(),
        devices: trouble.devices,
        reasons: trouble.reasons,
        example_key: trouble.example_key.clone(),
        example: trouble.example.clone(),
    }
}

fn run_report(status: &RunStatus) -> RunReport {
    let outcome = match status.standing {
        RunStanding::Ended => status.run.outcome.clone().unwrap_or_default(),
        RunStanding::Running => String::from("running"),
        RunStanding::Crashed => String::from("crashed"),
    };
    RunReport {
        run: status.run.id,
        started_at: status.run.started_at.clone(),
        ended_at: status.run.ended_at.clone(),
        outcome,
        pid: status.run.pid,
    }
}

/// How many runs the text shows; the JSON has all of them.
const RUNS_SHOWN: usize = 12;

/// The report as text for a terminal, ending in a newline.
pub fn render_status(report: &StatusReport) -> String {
    let mut text = String::new();
    let lot = &report.lot;
    line!(
        text,
        "{}: {} of {}, imported {}",
        shown(&report.ledger),
        number(lot.rows, "device", "devices"),
        shown(&lot.source),
        shown(&lot.imported_at)
    );
    line!(
        text,
        "template {}, region {}, account {}, key column {}",
        shown(&lot.template),
        shown(&lot.region),
        shown(&lot.account),
        shown(&lot.key_column)
    );
    if report.plain_keys {
        line!(text, "it holds private keys in plain text: guard it as you would the keys");
    }
    render_devices(&mut text, &report.devices);
    render_causes(&mut text, &report.causes);
    render_runs(&mut text, &report.runs);
    render_next(&mut text, &report.next);
    text
}

fn render_devices(text: &mut String, devices: &StateReport) {
    line!(text, "\ndevices");
    let rows = [
        (devices.registered, DeviceState::Registered.name(), ""),
        (devices.rejected, DeviceState::Rejected.name(), ""),
        (devices.unknown, DeviceState::Unknown.name(), ": maybe registered, and nothing can settle it"),
        (devices.issued_not_sent, DeviceState::Issued.name(), ", surely not registered"),
        (
            devices.issued_may_sent,
            DeviceState::Issued.name(),
            ", unsettled: maybe registered, and the next run may settle it",
        ),
        (devices.pending, DeviceState::Pending.name(), ""),
    ];
    for (count, state, remark) in rows {
        line!(text, "{count:>9} {state}{remark}");
    }
    let rare = [
        (devices.removed, DeviceState::Removed.name(), ": taken out of the account again"),
        (devices.withdrawn, DeviceState::Withdrawn.name(), ": their rows are no longer in the lot"),
    ];
    for (count, state, remark) in rare.into_iter().filter(|(count, ..)| *count > 0) {
        line!(text, "{count:>9} {state}{remark}");
    }
}

fn render_causes(text: &mut String, causes: &[CauseReport]) {
    if causes.is_empty() {
        return;
    }
    line!(text, "\ncauses");
    for cause in causes {
        let CauseReport { state, stage, cause, devices, reasons, example_key, example } = cause;
        let key = shown(example_key);
        let which = match (*reasons, *devices) {
            (1, 1) => key,
            (1, _) => format!("{key} and others"),
            (reasons, _) => format!("for {reasons} further reasons (--rejected lists them); for one, {key}"),
        };
        let (cause, stage) = (shown(cause), shown(stage));
        line!(text, "{devices:>9} {state}, {cause} at {stage}, {which}: {}", shown(example));
    }
}

fn render_runs(text: &mut String, runs: &[RunReport]) {
    if runs.is_empty() {
        return;
    }
    line!(text, "\nruns");
    let earlier = runs.len().saturating_sub(RUNS_SHOWN);
    if earlier > 0 {
        line!(text, "          … and {earlier} before these");
    }
    for run in &runs[earlier..] {
        let ended = run.ended_at.as_deref().map_or(String::new(), |at| format!(" to {}", shown(at)));
        let pid = if ended.is_empty() { format!(" (pid {})", run.pid) } else { String::new() };
        line!(text, "{:>9} {}{ended}: {}{pid}", run.run, shown(&run.started_at), shown(&run.outcome));
    }
}

fn render_next(text: &mut String, next: &[NextStep]) {
    if next.is_empty() {
        return;
    }
    line!(text, "\nnext");
    for NextStep { step, why, command } in next {
        line!(text, "{step:>9}: {}", shown(why));
        if let Some(command) = command {
            line!(text, "           {}", shown(command));
        }
    }
}

/// Text from the ledger or the command line, with control characters replaced so that the terminal does not act on
/// them.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;
    use crate::ledger::Binding;

    fn lot(account: &str, columns: &[&str], key_column: usize) -> LotInfo {
        LotInfo {
            source: String::from("my lot.csv"),
            digest: String::new(),
            shape: LotShape { columns: columns.iter().map(ToString::to_string).collect(), key_column },
            devices: 9,
            binding: Binding {
                template: "T".into(),
                region: "eu-west-1".into(),
                account: account.into(),
                ..Binding::default()
            },
            created_at: String::new(),
        }
    }

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        let status = Status {
            counts: Counts::default(),
            troubles: Vec::new(),
            runs: Vec::new(),
            holds_plain_keys: false,
            writer: None,
        };
        let report = StatusReport::new(
            Path::new("a\u{1b}[2J"),
            &lot("e", &["M"], 0),
            &status,
            vec![NextStep {
                step: "export",
                why: String::from("\u{7}"),
                command: Some(String::from("\u{1b}c")),
            }],
        );
        let text = render_status(&report);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
    }
}
