//! Every command that the README shows runs as it stands there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Emulate, Scratch, fleetmint};

const README: &str = include_str!("../../README.md");

/// The lines that start with a prompt, but for the tests themselves.
fn commands() -> Vec<String> {
    let typed = README.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
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
        .env("FLEETMINT_START_RATE", "100/s")
        .env("FLEETMINT_MAX_RATE", "100/s")
        .env("AWS_CONFIG_FILE", scratch.path("config"));
    shell
}

#[test]
fn every_command_of_the_readme_runs_as_it_stands_there() {
    let scratch = Scratch::new();
    let emulate = Emulate::start(&[]);
    scratch.lot("lot.csv", 8);
    scratch.write("scenario.toml", "keys = \"p256\"\n");
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

    let commands = commands();
    assert!(commands.len() >= 8, "{commands:#?}");
    for command in commands {
        if command.starts_with("fleetmint emulate") {
            serves(&mut typed(&format!("exec {command}"), &scratch, &emulate), &command);
            continue;
        }
        let output = typed(&command, &scratch, &emulate).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What is sought may not be found on a busy machine.
        let allowed: &[i32] = if command.contains("find-limit") { &[0, 4] } else { &[0] };
        let code = output.status.code();
        assert!(code.is_some_and(|code| allowed.contains(&code)), "{command}: {code:?}\n{said}");
    }
    assert!(scratch.path("identities/manifest.csv").exists());
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
