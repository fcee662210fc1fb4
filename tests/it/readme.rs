//! Every command after a `$` in README and docs runs as it stands there. EMULATOR.md's programs are run by
//! `scripts/conformance`, with the clients that they are for.

use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;

use crate::harness::{Emulate, Scratch, fleetmint};

macro_rules! page {
    ($file:literal) => {
        include_str!(concat!("../../", $file))
    };
}

/// A page, how many commands it has at least, and a file that they make.
type Page = (&'static str, usize, Option<&'static str>);

#[test]
fn every_command_of_the_readme_runs_as_it_stands_there() {
    // Its transcript, and what a rehearsal of one's own begins with.
    run_pages(&[(page!("README.md"), 1, Some("fixtures"))]);
}

#[test]
fn every_command_about_provisioning_runs_as_it_stands_there() {
    run_pages(&[(page!("docs/PROVISION.md"), 7, Some("identities/manifest.csv"))]);
}

#[test]
fn every_command_about_load_and_limits_runs_as_it_stands_there() {
    run_pages(&[(page!("docs/LOAD.md"), 2, None), (page!("docs/FIND_A_LIMIT.md"), 1, Some("scenario.toml"))]);
}

#[test]
fn every_command_before_and_after_and_on_many_machines_runs_as_it_stands_there() {
    run_pages(&[
        (page!("docs/BEFORE_AND_AFTER.md"), 5, Some("lot.html")),
        (page!("docs/MANY_MACHINES.md"), 4, Some("report.html")),
    ]);
}

#[test]
fn every_command_about_keys_and_verbs_runs_as_it_stands_there() {
    run_pages(&[(page!("docs/KEYS.md"), 4, None), (page!("docs/REFERENCE.md"), 3, None)]);
}

#[test]
fn every_command_about_reports_runs_as_it_stands_there() {
    let scratch = run_all(page!("docs/REPORTS.md"), 4);
    let comment = std::fs::read_to_string(scratch.path("comment.md")).unwrap();
    assert!(comment.contains("publish.response.p99"), "{comment}");
}

fn run_pages(pages: &[Page]) {
    for (page, at_least, made) in pages {
        let scratch = run_all(page, *at_least);
        if let Some(made) = made {
            assert!(scratch.path(made).exists(), "{made}");
        }
    }
}

/// The questions to a ledger, asked of one with registered and open devices.
#[test]
fn every_question_to_a_ledger_has_an_answer() {
    let scratch = run_all("    $ fleetmint provision lot.csv --emulator --ledger lot.ledger --limit 5\n", 1);
    let ledger = Connection::open(scratch.path("lot.ledger")).unwrap();
    let questions: Vec<&str> = page!("docs/LEDGER.md")
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .collect();
    assert!(questions.len() >= 7, "{questions:#?}");
    let answers = questions.iter().map(|question| {
        let mut asked = ledger.prepare(question).unwrap_or_else(|error| panic!("{question}: {error}"));
        let mut rows = asked.query([]).unwrap();
        let mut count = 0;
        while rows.next().unwrap_or_else(|error| panic!("{question}: {error}")).is_some() {
            count += 1;
        }
        count
    });
    // The lot, its five exportable keys, its run, and a device's parameters: the others have nothing to tell of this ledger.
    let answers: Vec<i32> = answers.collect();
    assert_eq!((answers[0], answers[4], answers[5]), (1, 5, 1), "{answers:?}");
    assert!(answers[6] > 1, "{answers:?}");
}

/// The lines that start with a prompt, but for the tests themselves.
fn commands(page: &str) -> Vec<String> {
    let typed = page.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    let ours = typed.filter(|command| *command != "cargo test");
    ours.map(|command| command.replace("cargo run --release -- ", "fleetmint ")).collect()
}

/// A command for a shell, in a directory with a lot and a scenario, with an account, and with `fleetmint` where it is looked for.
fn typed(command: &str, scratch: &Scratch, emulate: &Emulate) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_fleetmint")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    // What the harness takes out of the environment.
    for (name, value) in fleetmint().get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
        .args(["-c", command])
        .current_dir(scratch.path(""))
        .env("PATH", format!("{}:{path}", binary.display()))
        .env("FLEETMINT_ENDPOINT", emulate.text("endpoint"))
        .env("FLEETMINT_CA_FILE", emulate.text("ca_file"))
        // A search of this one rate takes seconds, not minutes: as many requests as it wants are sent soon.
        .env("FLEETMINT_START_RATE", "30/s")
        .env("FLEETMINT_MAX_RATE", "30/s")
        .env("AWS_CONFIG_FILE", scratch.path("config"));
    shell
}

/// Runs the commands of a page, at least so many, one after the other in one directory.
fn run_all(page: &str, at_least: usize) -> Scratch {
    let scratch = Scratch::new();
    let emulate = Emulate::start(&[]);
    scratch.lot("lot.csv", 8);
    let scenario = page.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```"));
    scratch.write("scenario.toml", scenario.map_or("keys = \"p256\"\n", |(scenario, _)| scenario));
    std::fs::create_dir_all(scratch.path("fixtures/lots")).unwrap();
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lots/seed-flow.csv");
    std::fs::copy(seed, scratch.path("fixtures/lots/seed-flow.csv")).unwrap();
    let config = format!(
        "[profile factory]\nregion = {}\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        emulate.text("region"),
        emulate.text("access_key_id"),
        emulate.text("secret_access_key")
    );
    scratch.write("config", config);

    let commands = commands(page);
    assert!(commands.len() >= at_least, "{commands:#?}");
    for command in commands {
        if command.starts_with("fleetmint emulate") {
            serves(&mut typed(&format!("exec {command}"), &scratch, &emulate), &command);
            continue;
        }
        let output = typed(&command, &scratch, &emulate).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // On a busy machine, what is sought may not be found, and what is demanded not be held.
        let allowed: &[i32] = match () {
            () if command.contains("find-limit") => &[0, 4],
            () if command.contains("--threshold") => &[0, 2],
            () => &[0],
        };
        let code = output.status.code();
        assert!(code.is_some_and(|code| allowed.contains(&code)), "{command}: {code:?}\n{said}");
        let is_run = command.contains("fleetmint provision ") && !command.contains("--dry-run");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(!is_run || told.contains("devices registered"), "{command}: {told}{said}");
    }
    scratch
}

/// Starts, says where it is, and is there until it is asked to end.
fn serves(shell: &mut Command, command: &str) {
    use std::io::{BufRead, BufReader};
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    crate::harness::signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Somebody else may have the port.
    let is_taken = said.contains("in use");
    assert!(is_taken || line.contains("\"endpoint\":"), "{command}: {line}{said}");
}
