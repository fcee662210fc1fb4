//! The command line in an operator's day: help, environment, terminals and pipes, shells.

use std::process::Command;

use crate::harness::{Emulate, Scratch, Transcript, expect_text, fleetmint, run, signal};

/// Whoever meets the tool for the first time.
#[test]
fn help_is_grouped_shows_examples_and_loses_no_word() {
    let provision = run(fleetmint().args(["provision", "--help"])).expect_code(0);
    provision.expect_out(&[
        "Examples:",
        "Service:",
        "Lot:",
        "Keys:",
        "Speed:",
        "Results:",
        "[env: FLEETMINT_CONNECT_RATE",
    ]);
    let load = run(fleetmint().args(["load", "create", "--help"])).expect_code(0);
    let load =
        load.expect_out(&["{n:06}", "--aws-profile", "FLEETMINT_AWS_PROFILE", "FLEETMINT_LOAD_PROFILE"]);
    assert!(
        load.out.lines().filter(|line| !line.starts_with("Usage:")).all(|line| line.chars().count() <= 100),
        "{}",
        load.out
    );
    for verb in ["export", "status", "retry", "purge-keys", "report", "emulate"] {
        run(fleetmint().args([verb, "--help"])).expect_code(0).expect_out(&["Example"]);
    }
}

/// Whoever forgets half of a command.
#[test]
fn what_is_missing_is_named_with_its_alternatives() {
    let load = run(fleetmint().args(["load", "create", "--emulator", "--rate", "5/s", "--for", "1s"]));
    let mut refused = Transcript::default();
    refused.add("load create", &load.expect_code(64));
    let load = run(fleetmint().args(["load", "connect", "--emulator"]));
    refused.add("load connect", &load.expect_code(64));
    let find = run(fleetmint().args(["find-limit", "register", "--emulator"]));
    refused.add("find-limit register", &find.expect_code(64));
    expect_text("operator-half-commands", &Scratch::new(), &refused, &[]);
}

/// Whoever types a blank for an equals sign, or a letter too few.
#[test]
fn near_misses_are_answered_with_what_was_meant() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let provision = |args: &[&str]| run(fleetmint().arg("provision").arg(&lot).args(args)).expect_code(64);
    let mut refused = Transcript::default();
    refused.add("a blank for an equals sign", &provision(&["--emulator", "throttled"]));
    refused.add("a letter too few", &provision(&["--emulator", "--conections", "4"]));
    refused.add("another tool's name", &provision(&["--emulator", "--workers", "4"]));
    refused.add("a verb without a letter", &run(fleetmint().arg("provison")).expect_code(64));
    expect_text("operator-near-misses", &scratch, &refused, &[]);
    assert_eq!(scratch.files(), ["lot.csv"]);
}

/// A container's settings are its environment.
#[test]
fn options_come_from_the_environment_too_and_what_is_typed_counts_more() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let emulate = Emulate::start(&[]);
    let mut command = fleetmint();
    command
        .arg("provision")
        .arg(&lot)
        .env("FLEETMINT_ENDPOINT", emulate.text("endpoint"))
        .env("FLEETMINT_REGION", emulate.text("region"))
        .env("FLEETMINT_CA_FILE", emulate.text("ca_file"))
        .env("FLEETMINT_TEMPLATE", emulate.text("template"))
        .env("FLEETMINT_CONNECTIONS", "1")
        .env("FLEETMINT_KEY_COLUMN", "")
        .env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key"));
    run(&mut command).expect_code(0).expect_err(&["connections 1,", emulate.text("endpoint")]);
    // Typed: another service, and another ledger. The endpoint of the environment is left alone.
    command.arg("--emulator").args(["--connections", "2", "--ledger"]).arg(scratch.path("trial.ledger"));
    run(&mut command).expect_code(0).expect_err(&["connections 2,", "the built-in emulator"]);
    let wrong =
        run(fleetmint().arg("provision").arg(&lot).env("FLEETMINT_TIMEOUT", "soon").arg("--emulator"));
    expect_text("operator-wrong-variable", &scratch, &wrong, &[]);
}

/// Nobody confirms by an environment that was set for something else.
#[test]
fn what_confirms_or_does_harm_is_typed() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    run(fleetmint().arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    run(fleetmint().arg("purge-keys").arg(&ledger).env("FLEETMINT_YES", "true")).expect_code(64);
    for verb in ["provision", "retry", "purge-keys"] {
        let help = run(fleetmint().args([verb, "--help"]));
        for variable in ["FLEETMINT_YES", "FLEETMINT_REISSUE_UNKNOWN", "FLEETMINT_CHANGE_SETTINGS"] {
            assert!(!help.out.contains(variable), "{verb}: {variable}");
        }
    }
}

/// A cron job mails what it hears.
#[test]
fn quiet_says_nothing_when_all_is_well_and_everything_when_not() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let said = run(fleetmint().arg("-q").arg("provision").arg(&lot).arg("--emulator")).expect_code(0);
    assert_eq!(said.err, "");
    assert!(said.out.contains("3 of 3 devices registered"), "{}", said.out);
    let wrong = run(fleetmint().args(["provision", "-q", "absent.csv", "--emulator"])).expect_code(65);
    wrong.expect_err(&["absent.csv"]);
}

/// A log collector that shows escape sequences as they are.
#[test]
fn nothing_has_colours_in_a_pipe_unless_they_are_asked_for() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).arg("--emulator").env("FLEETMINT_LOG", "debug");
    let said = run(&mut command).expect_code(0);
    assert!(!said.err.contains('\x1b') && !said.out.contains('\x1b'), "{}", said.err);
    let wrong = run(fleetmint().args(["provision", "--nonsense"])).expect_code(64);
    assert!(!wrong.err.contains('\x1b'), "{}", wrong.err);
    let wrong = run(fleetmint().args(["--color", "always", "provision", "--nonsense"])).expect_code(64);
    assert!(wrong.err.contains('\x1b'), "{}", wrong.err);
}

/// A pod that is killed 30 s after SIGTERM, while the service is silent.
#[test]
fn a_run_ends_in_its_drain_timeout_and_resumes() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let silent = scratch.write("silent.toml", "[faults.create_keys_and_certificate]\nsilent = 1.0\n");
    let emulate = Emulate::start(&["--scenario", silent.to_str().unwrap()]);
    let mut command = emulate.provision(&lot);
    command.args(["--timeout", "1h", "--drain-timeout", "50ms"]).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let ledger = scratch.path("lot.ledger");
    while !ledger.exists() || crate::harness::column(&ledger, "SELECT id FROM run").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{err}");
    assert!(err.contains("run the same command again"), "{err}");
}

/// Whoever presses the tab key.
#[test]
fn shells_complete_verbs_and_options() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = run(fleetmint().args(["completions", shell])).expect_code(0);
        script.expect_out(&["find-limit", "seal-to"]);
    }
    let script = run(fleetmint().args(["completions", "bash"])).out;
    let script = scratch.write("fleetmint.bash", script);
    let complete = "source \"$0\"; COMP_WORDS=(fleetmint prov); COMP_CWORD=1; _fleetmint fleetmint prov fleetmint; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", complete]).arg(&script).output() else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "provision");
}

/// Whoever reads manuals.
#[test]
fn there_is_a_manual_page_for_each_verb() {
    let scratch = Scratch::new();
    let folder = scratch.path("man/man1");
    run(fleetmint().arg("man").arg(&folder)).expect_code(0);
    for page in ["fleetmint", "fleetmint-provision", "fleetmint-load-create", "fleetmint-status"] {
        let text = std::fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let file = scratch.write("file", "");
    run(fleetmint().arg("man").arg(&file)).expect_code(74).expect_err(&["file"]);
}
