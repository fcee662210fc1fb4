//! The next commands to run for a ledger.

use std::path::Path;

use super::run_settings::RunSettings;
use crate::identity::{KEY_COLUMNS, is_made_up};
use crate::ledger::{Account, LotInfo, MERGED_OUTCOME, MERGING_OUTCOME, RunStatus, Status};
use crate::report::NextStep;
use crate::wording::{number, shell_word};

/// What to do next with the ledger at `path`, the most urgent first.
pub(super) fn steps(path: &Path, lot: &LotInfo, status: &Status) -> Vec<NextStep> {
    if let Some(step) = after_merge(status) {
        return vec![step];
    }
    let counts = &status.counts;
    let quoted = quote_path(&path.display().to_string());
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
        // There is no file to provision made-up devices from, and no reason to.
        open > 0 && !is_busy && !is_made_up(&lot.source),
        "resume",
        format!("{} still open. {}", number(open, "device is", "devices are"), resume_needs(lot, status)),
        Some(resume),
    );
    let why = format!(
        "{} rejected: mend what is named under causes, return them, and provision again",
        number(counts.rejected, "device was", "devices were")
    );
    add(
        counts.rejected > 0 && !is_busy,
        "retry",
        why,
        Some(format!("fleetmint retry {quoted} --state rejected")),
    );
    let why = format!(
        "{} may be registered already: look in the account for their certificates. Reissued, a device may own two",
        number(counts.unknown, "device", "devices")
    );
    let command = format!("fleetmint retry {quoted} --state unknown --reissue-unknown");
    add(counts.unknown > 0 && !is_busy, "reissue", why, Some(command));
    let why = format!(
        "{} removed from the account: return them if they are to be provisioned anew",
        number(counts.removed, "device was", "devices were")
    );
    let command = format!("fleetmint retry {quoted} --state removed");
    add(counts.removed > 0 && !is_busy, "retry", why, Some(command));
    let why = format!(
        "{} registered: hand over their certificates and keys",
        number(counts.registered, "device is", "devices are")
    );
    add(counts.registered > 0, "export", why, Some(format!("fleetmint export {quoted} --out DIR")));
    steps
}

/// The only step once a merge has begun, if one has.
fn after_merge(status: &Status) -> Option<NextStep> {
    let of = |outcome| {
        let deed = status.runs.iter().rfind(|run| run.run.outcome.as_deref() == Some(outcome))?;
        RunSettings::of(&deed.run).merged_into
    };
    if let Some(into) = of(MERGED_OUTCOME) {
        let why = format!("the ledger was merged into {into}, which goes on in its place");
        let command = Some(format!("fleetmint status {}", quote_path(&into)));
        return Some(NextStep { step: "merged", why, command });
    }
    let into = of(MERGING_OUTCOME)?;
    let why = format!(
        "a merge into {into} was interrupted: unless that one is there, repeat it with the ledgers of all shards"
    );
    let command = Some(format!("fleetmint merge LEDGER... --out {}", quote_path(&into)));
    Some(NextStep { step: "merge", why, command })
}

/// What a resume needs that the ledger does not know.
fn resume_needs(lot: &LotInfo, status: &Status) -> &'static str {
    if typed(status).is_some() {
        return "Run the same command again, with the same AWS credentials";
    }
    match &lot.binding.account {
        Account::Emulator => "Run the same command again; a scenario file it had is not in the ledger",
        Account::Loopback => "Run the same command again; the ledger knows neither the port nor the CA file",
        Account::Endpoint(_) => {
            "Run the same command again, with the same AWS credentials; limits and --ca-file are not in the ledger"
        }
    }
}

/// The provision command, reconstructed from the ledger where possible.
fn resume_command(ledger: &str, lot: &LotInfo, status: &Status) -> String {
    let shard = lot.binding.shard.map_or_else(String::new, |shard| format!(" --shard {shard}"));
    if let Some(mut typed) = typed(status) {
        if lot.binding.shard.is_none() {
            // A ledger that was merged has what its shards' runs were told.
            let is_own = |word: &&str| !word.starts_with("--total-");
            typed = typed.split(' ').filter(is_own).collect::<Vec<_>>().join(" ");
        }
        return format!("{typed}{shard} --ledger {ledger}");
    }
    let binding = &lot.binding;
    let mut command = format!("fleetmint provision {} --ledger {ledger}", quote_path(&lot.source));
    match &binding.account {
        Account::Emulator => command += " --emulator",
        Account::Loopback => command += " --endpoint localhost:PORT --ca-file PEM",
        Account::Endpoint(host) => command += &format!(" --endpoint {}", shell_word(host)),
    }
    command +=
        &format!(" --region {} --template {}", shell_word(&binding.region), shell_word(&binding.template));
    let columns = &lot.shape.columns;
    let key_column = columns.get(lot.shape.key_column).map_or("", String::as_str);
    let default = KEY_COLUMNS.into_iter().find(|name| columns.iter().any(|column| column == name));
    if default != Some(key_column) {
        command += &format!(" --key-column {}", shell_word(key_column));
    }
    command += &shard;
    for (name, value) in constants(status) {
        command += &format!(" --param {}", shell_word(&format!("{name}={value}")));
    }
    command
}

/// The command of the last provisioning run as recorded, without the ledger.
fn typed(status: &Status) -> Option<String> {
    let command = |run: &RunStatus| {
        let command = RunSettings::of(&run.run).command?;
        command.starts_with("fleetmint provision ").then_some(command)
    };
    status.runs.iter().rev().find_map(command)
}

/// The `--param`s of the last run. Other entries of the history have no settings of that kind.
fn constants(status: &Status) -> Vec<(String, String)> {
    status.runs.iter().rev().find_map(|run| RunSettings::of(&run.run).parameters).unwrap_or_default()
}

/// A path quoted for a POSIX shell, never mistaken for an option.
fn quote_path(path: &str) -> String {
    if path.starts_with('-') { shell_word(&format!("./{path}")) } else { shell_word(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;
    use crate::ledger::{Binding, Counts, RunInfo, RunStanding};
    use crate::shard::Shard;

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
        let report = steps(Path::new("-x.ledger"), &lot(host, &["Mac", "DeviceId"], 1), &status);
        assert_eq!(
            report[0].command.as_deref(),
            Some(
                "fleetmint provision 'my lot.csv' --ledger ./-x.ledger --endpoint x-ats.iot.eu-west-1.amazonaws.com \
                 --region eu-west-1 --template T --param 'Site=it'\\''s {DeviceId}'"
            )
        );
        let other_key = steps(Path::new("l"), &lot("emulator", &["Mac", "DeviceId"], 0), &status);
        let command = other_key[0].command.as_deref().unwrap();
        assert!(command.contains(" --emulator ") && command.contains(" --key-column Mac"), "{command}");
    }

    #[test]
    fn a_shard_is_resumed_as_that_shard_and_a_merged_ledger_as_the_whole() {
        let typed = r#"{"command": "fleetmint provision lot.csv --total-rate=9/s --total-connections=4 --template=T"}"#;
        let status = status(Counts { pending: 9, ..Counts::default() }, vec![run(typed, "drained")]);
        let command = |shard| {
            let mut lot = lot("emulator", &["Mac"], 0);
            lot.binding.shard = shard;
            steps(Path::new("l"), &lot, &status)[0].command.clone().unwrap()
        };
        assert_eq!(
            command(Shard::new(3, 4)),
            "fleetmint provision lot.csv --total-rate=9/s --total-connections=4 --template=T --shard 3/4 --ledger l"
        );
        assert_eq!(command(None), "fleetmint provision lot.csv --template=T --ledger l");
    }

    #[test]
    fn a_ledger_that_was_merged_points_to_the_one_that_goes_on() {
        let merged = vec![run(r#"{"merged_into": "whole lot.ledger"}"#, MERGED_OUTCOME)];
        let status = status(Counts { pending: 9, ..Counts::default() }, merged);
        let next = steps(Path::new("l"), &lot("emulator", &["Mac"], 0), &status);
        let [only] = &next[..] else { panic!("one step: {next:?}") };
        assert_eq!(only.command.as_deref(), Some("fleetmint status 'whole lot.ledger'"));
    }

    #[test]
    fn every_state_has_its_step_and_a_busy_ledger_only_waits() {
        let counts = Counts { pending: 1, rejected: 2, unknown: 3, registered: 4, ..Counts::default() };
        let mut status = status(counts, Vec::new());
        let named = |status: &Status| -> Vec<&str> {
            let next = steps(Path::new("l"), &lot("emulator", &["Mac"], 0), status);
            next.iter().map(|next| next.step).collect()
        };
        assert_eq!(named(&status), ["resume", "retry", "reissue", "export"]);
        let made_up =
            LotInfo { source: String::from(crate::identity::MADE_UP), ..lot("emulator", &["Mac"], 0) };
        let report = steps(Path::new("l"), &made_up, &status);
        assert!(report.iter().all(|next| next.step != "resume"), "there is no lot to resume from");
        status.writer = Some(crate::ledger::Writer { pid: Some(7) });
        assert_eq!(named(&status), ["wait", "export"]);
        let next = steps(Path::new("l"), &lot("e", &["M"], 0), &status);
        assert!(next[0].why.contains("(pid 7)"), "{}", next[0].why);
    }
}
