//! What `fleetmint status` shows: a ledger's lot, devices, causes and runs, and what to do next.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::event::DeviceState;
use crate::identity::{KEY_COLUMNS, MADE_UP};
use crate::ledger::{Counts, LotInfo, RETRY_OUTCOME, RunStanding, RunStatus, Status, Trouble};
use crate::wording::shell_word;

/// The version of the status's schema: raised when a field changes its meaning or goes away, not when one is added.
pub const STATUS_SCHEMA: u32 = 1;

/// How a ledger stands, as `status --json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusReport {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    /// The ledger's file, as it was named.
    pub ledger: String,
    /// The lot that it was made from.
    pub lot: LotReport,
    /// The process that has the ledger to write; none if no process has.
    pub writer: Option<WriterReport>,
    /// Whether private keys stand in it in plain text.
    pub plain_keys: bool,
    /// Devices by the ledger's states.
    pub devices: StateReport,
    /// What devices were left, rejected or given up for, the most frequent first.
    pub causes: Vec<CauseReport>,
    /// All runs, the first one first.
    pub runs: Vec<RunReport>,
    /// What to do next, the most urgent first.
    pub next: Vec<NextStep>,
}

/// The lot of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReport {
    /// The name of its file, as it was named.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// The column of the keys.
    pub key_column: String,
    /// The provisioning template.
    pub template: String,
    /// The region.
    pub region: String,
    /// What tells the account: the endpoint's host, `emulator`, or `localhost`.
    pub account: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// Who writes the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriterReport {
    /// The process, as far as it is known.
    pub pid: Option<u32>,
}

/// How many devices are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StateReport {
    /// All.
    pub total: u64,
    /// Confirmed by the service.
    pub registered: u64,
    /// Refused by the service for good.
    pub rejected: u64,
    /// Possibly registered, and nothing can settle it.
    pub unknown: u64,
    /// With a certificate, surely not registered.
    pub issued_not_sent: u64,
    /// With a certificate, possibly registered; the next run may settle it.
    pub issued_may_sent: u64,
    /// With nothing yet.
    pub pending: u64,
    /// Taken out of the account again.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Withdrawn from the lot, and not among all.
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

/// Devices that share a state and a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseReport {
    /// Their state.
    pub state: &'static str,
    /// The stage of the failure.
    pub stage: String,
    /// Its cause, as `retry --cause` takes it.
    pub cause: String,
    /// How many they are.
    pub devices: u64,
    /// The key of the first of them.
    pub example_key: String,
    /// Its failure, in full.
    pub example: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Its number, as `export --since-run` takes it.
    pub run: i64,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// How it ended; `running` or `crashed` if it never did; `retry` if it only returned devices to pending.
    pub outcome: String,
    /// Its process.
    pub pid: u32,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// `wait`, `resume`, `retry`, `reissue` or `export`.
    pub step: &'static str,
    /// Why, and what to see to.
    pub why: String,
    /// The command, for a shell; words in capitals are to be filled in. None if there is nothing to run.
    pub command: Option<String>,
}

impl StatusReport {
    /// The report of `status`, of the ledger at `path`, made from `lot`.
    pub fn new(path: &Path, lot: &LotInfo, status: &Status) -> Self {
        Self {
            schema: STATUS_SCHEMA,
            ledger: path.display().to_string(),
            lot: lot_report(lot),
            writer: status.writer.map(|writer| WriterReport { pid: writer.pid }),
            plain_keys: status.holds_plain_keys,
            devices: status.counts.into(),
            causes: status.troubles.iter().map(cause_report).collect(),
            runs: status.runs.iter().map(run_report).collect(),
            next: next_steps(&path.display().to_string(), lot, status),
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
        account: lot.binding.account.clone(),
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

fn next_steps(ledger: &str, lot: &LotInfo, status: &Status) -> Vec<NextStep> {
    let counts = &status.counts;
    let quoted = quote_path(ledger);
    let mut steps = Vec::new();
    let mut add = |is_due: bool, step, why: String, command| {
        if is_due {
            steps.push(NextStep { step, why, command });
        }
    };
    let pid =
        status.writer.and_then(|writer| writer.pid).map_or(String::new(), |pid| format!(" (pid {pid})"));
    let is_busy = status.writer.is_some();
    add(
        is_busy,
        "wait",
        format!("a fleetmint process{pid} has the ledger: wait until it has ended, or stop it"),
        None,
    );
    let resume = resume_command(&quoted, lot, status);
    let open = counts.open();
    add(
        // There is no file to provision made-up devices from, nor a reason to.
        open > 0 && !is_busy && lot.source != MADE_UP,
        "resume",
        format!("{open} devices are still open. {}", resume_needs(lot)),
        Some(resume),
    );
    let why = format!(
        "{} devices were rejected: mend what is named under causes, return them, and provision again",
        counts.rejected
    );
    add(
        counts.rejected > 0 && !is_busy,
        "retry",
        why,
        Some(format!("fleetmint retry {quoted} --state rejected")),
    );
    let why = format!(
        "{} devices may be registered already: look in the account for their certificates. Reissued, a device may own two",
        counts.unknown
    );
    let command = format!("fleetmint retry {quoted} --state unknown --reissue-unknown");
    add(counts.unknown > 0 && !is_busy, "reissue", why, Some(command));
    let why = format!(
        "{} devices were removed from the account: return them if they are to be provisioned anew",
        counts.removed
    );
    let command = format!("fleetmint retry {quoted} --state removed");
    add(counts.removed > 0 && !is_busy, "retry", why, Some(command));
    let why = format!("{} devices are registered: hand over their certificates and keys", counts.registered);
    add(counts.registered > 0, "export", why, Some(format!("fleetmint export {quoted} --out DIR")));
    steps
}

/// What the ledger does not know of the command that made it.
fn resume_needs(lot: &LotInfo) -> &'static str {
    match lot.binding.account.as_str() {
        "emulator" => "Run the same command again; a scenario file it had is not in the ledger",
        "localhost" => "Run the same command again; the ledger knows neither the port nor the CA file",
        _ => {
            "Run the same command again, with the same AWS credentials; limits and --ca-file are not in the ledger"
        }
    }
}

/// The provision command, as far as the ledger knows it.
fn resume_command(ledger: &str, lot: &LotInfo, status: &Status) -> String {
    if let Some(typed) = typed(status) {
        return format!("{typed} --ledger {ledger}");
    }
    let binding = &lot.binding;
    let mut command = format!("fleetmint provision {} --ledger {ledger}", quote_path(&lot.source));
    match binding.account.as_str() {
        "emulator" => command += " --emulator",
        "localhost" => command += " --endpoint localhost:PORT --ca-file PEM",
        host => command += &format!(" --endpoint {}", shell_word(host)),
    }
    command +=
        &format!(" --region {} --template {}", shell_word(&binding.region), shell_word(&binding.template));
    let columns = &lot.shape.columns;
    let default = KEY_COLUMNS.into_iter().find(|name| columns.iter().any(|column| column == name));
    if default != Some(key_column(lot)) {
        command += &format!(" --key-column {}", shell_word(key_column(lot)));
    }
    for (name, value) in constants(status) {
        command += &format!(" --param {}", shell_word(&format!("{name}={value}")));
    }
    command
}

/// The command of the last provisioning run, as that run wrote it down: all of it but the ledger.
fn typed(status: &Status) -> Option<String> {
    let command = |run: &RunStatus| {
        let settings: serde_json::Value = serde_json::from_str(&run.run.settings).ok()?;
        let command = settings["command"].as_str()?;
        command.starts_with("fleetmint provision ").then(|| command.to_owned())
    };
    status.runs.iter().rev().find_map(command)
}

/// The `--param`s of the last run.
fn constants(status: &Status) -> Vec<(String, String)> {
    let is_run = |run: &&RunStatus| run.run.outcome.as_deref() != Some(RETRY_OUTCOME);
    let Some(last) = status.runs.iter().rev().find(is_run) else { return Vec::new() };
    let settings: serde_json::Value = serde_json::from_str(&last.run.settings).unwrap_or_default();
    serde_json::from_value(settings["parameters"].clone()).unwrap_or_default()
}

/// A path for a POSIX shell: never to be taken for an option.
fn quote_path(path: &str) -> String {
    if path.starts_with('-') { shell_word(&format!("./{path}")) } else { shell_word(path) }
}

/// How many runs the text shows; the JSON has all.
const RUNS_SHOWN: usize = 12;

/// The report as text for a terminal, ending in a newline.
pub fn render_status(report: &StatusReport) -> String {
    let mut text = String::new();
    let lot = &report.lot;
    line!(
        text,
        "{}: {} devices of {}, imported {}",
        shown(&report.ledger),
        lot.rows,
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
            ", maybe registered: the next run may settle it",
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
        let CauseReport { state, stage, cause, devices, example_key, example } = cause;
        line!(
            text,
            "{devices:>9} {state}, {} at {}; for one, {}: {}",
            shown(cause),
            shown(stage),
            shown(example_key),
            shown(example)
        );
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
        line!(text, "{step:>9}: {why}");
        if let Some(command) = command {
            line!(text, "           {}", shown(command));
        }
    }
}

/// A text of the ledger or the command line, without what a terminal would act on.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;
    use crate::ledger::{Binding, RunInfo};

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

    fn run(settings: &str, outcome: &str) -> RunStatus {
        let run = RunInfo {
            id: 1,
            started_at: String::new(),
            ended_at: Some(String::new()),
            pid: 1,
            settings: settings.into(),
            outcome: Some(outcome.into()),
            summary: None,
        };
        RunStatus { run, standing: RunStanding::Ended }
    }

    fn status(counts: Counts, runs: Vec<RunStatus>) -> Status {
        Status { counts, troubles: Vec::new(), runs, holds_plain_keys: false, writer: None }
    }

    #[test]
    fn the_resume_command_is_as_exact_as_the_ledger_allows() {
        let runs = vec![
            run(r#"{"parameters": [["Site", "old"]]}"#, "drained"),
            run(r#"{"parameters": [["Site", "it's {DeviceId}"]]}"#, "drained"),
            run(r#"{"retry": {}}"#, "retry"),
        ];
        let status = status(Counts { pending: 9, ..Counts::default() }, runs);
        let host = "x-ats.iot.eu-west-1.amazonaws.com";
        let report = StatusReport::new(Path::new("-x.ledger"), &lot(host, &["Mac", "DeviceId"], 1), &status);
        assert_eq!(
            report.next[0].command.as_deref(),
            Some(
                "fleetmint provision 'my lot.csv' --ledger ./-x.ledger --endpoint x-ats.iot.eu-west-1.amazonaws.com \
                 --region eu-west-1 --template T --param 'Site=it'\\''s {DeviceId}'"
            )
        );
        let other_key = StatusReport::new(Path::new("l"), &lot("emulator", &["Mac", "DeviceId"], 0), &status);
        let command = other_key.next[0].command.as_deref().unwrap();
        assert!(command.contains(" --emulator ") && command.contains(" --key-column Mac"), "{command}");
    }

    #[test]
    fn every_state_has_its_step_and_a_busy_ledger_only_waits() {
        let counts = Counts { pending: 1, rejected: 2, unknown: 3, registered: 4, ..Counts::default() };
        let mut status = status(counts, Vec::new());
        let steps = |status: &Status| -> Vec<&str> {
            let report = StatusReport::new(Path::new("l"), &lot("emulator", &["Mac"], 0), status);
            report.next.iter().map(|next| next.step).collect()
        };
        assert_eq!(steps(&status), ["resume", "retry", "reissue", "export"]);
        let made_up = LotInfo { source: String::from(MADE_UP), ..lot("emulator", &["Mac"], 0) };
        let report = StatusReport::new(Path::new("l"), &made_up, &status);
        assert!(report.next.iter().all(|next| next.step != "resume"), "there is no lot to resume from");
        status.writer = Some(crate::ledger::Writer { pid: Some(7) });
        assert_eq!(steps(&status), ["wait", "export"]);
        assert!(
            render_status(&StatusReport::new(Path::new("l"), &lot("e", &["M"], 0), &status))
                .contains("(pid 7)")
        );
    }

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        let report = StatusReport::new(
            Path::new("a\u{1b}[2J"),
            &lot("e", &["M"], 0),
            &status(Counts::default(), vec![]),
        );
        assert!(!render_status(&report).contains('\u{1b}'));
    }
}
