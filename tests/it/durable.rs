//! The emulator's account over restarts and crashes, and a service that fails: the binary against `emulate`, and a look
//! into the account afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fleetmint::emulator::Emulator;
use fleetmint::emulator::account::{CertificateStatus, State};
use fleetmint::emulator::scenario::Scenario;

use crate::harness::{Emulate, Said, Scratch, Transcript, column, expect_text, fleetmint, run, summary};

const P256: &str = "keys = \"p256\"\n";

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// What is in the account that `directory` keeps, once nobody uses it.
fn kept_account(directory: &Path) -> State {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let emulator = Emulator::start_in(directory, Scenario::default(), any_port()).await.unwrap();
        let state = emulator.inspect(|account| account.state().clone());
        emulator.shutdown().await;
        state
    })
}

/// The state of each device of a ledger by its thing's name, which the lots here give it, with its certificate.
fn devices(ledger: &Path) -> BTreeMap<String, (String, String)> {
    let sql =
        "SELECT json_extract(parameter_values, '$[0]') || ' ' || state || ' ' || coalesce(certificate_id, '')
               FROM device LEFT JOIN certificate ON certificate.device = device.id AND retired_at IS NULL";
    let rows = column(ledger, sql);
    rows.iter()
        .map(|row| {
            let [name, state, certificate] = row.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            (name.to_owned(), (state.to_owned(), certificate.to_owned()))
        })
        .collect()
}

/// Asserts that what the ledger says of its devices is so in the account; how many are registered.
fn check_agreement(ledger: &Path, account: &State) -> usize {
    let devices = devices(ledger);
    let mut registered = 0;
    for (name, (state, certificate)) in &devices {
        let active = account.certificates.iter().filter(|(_, certificate)| {
            certificate.status == CertificateStatus::Active && certificate.things.contains(name)
        });
        let active: Vec<String> = active.map(|(id, _)| id.to_string()).collect();
        match state.as_str() {
            "registered" => {
                registered += 1;
                assert_eq!(active, [certificate.as_str()], "{name}");
                let principals = account.things[name].certificate_ids().map(|id| id.to_string());
                assert!(principals.eq([certificate.clone()]), "{name}");
            }
            // Whether the account has it is what the client cannot know; if so, it is the certificate that the client has.
            "unknown" | "issued" => {
                assert!(active.is_empty() || active == [certificate.as_str()], "{name}: {active:?}")
            }
            other => panic!("{name} is {other}"),
        }
    }
    let strangers: Vec<_> = account.things.keys().filter(|name| !devices.contains_key(*name)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    registered
}

fn emulate_on(address: &str, directory: &Path, scenario: &Path) -> Emulate {
    let (directory, scenario) = (directory.to_str().unwrap(), scenario.to_str().unwrap());
    Emulate::start_on(address, &["--state-dir", directory, "--scenario", scenario])
}

fn address_of(emulate: &Emulate) -> String {
    let port = emulate.text("endpoint").rsplit(':').next().unwrap().trim_end_matches("/mqtt").to_owned();
    format!("127.0.0.1:{port}")
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited a minute in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_was_answered_survives_kills_of_the_emulator() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 300);
    let (ledger, directory) = (scratch.path("lot.ledger"), scratch.path("state"));
    let scenario = scratch.write("s.toml", P256);
    let registered = || {
        if ledger.exists() {
            column(&ledger, "SELECT key FROM device WHERE state = 'registered'").len()
        } else {
            0
        }
    };
    let mut emulate = emulate_on("127.0.0.1:0", &directory, &scenario);
    let address = address_of(&emulate);
    for kill in 1..=4 {
        let mut client =
            spawn(emulate.provision(&lot).args(["--connections", "8", "--create-rate", "100/s"]));
        wait_for("devices", || registered() >= kill * 25 || client.try_wait().unwrap().is_some());
        // SIGKILL: nothing is flushed, nobody says goodbye.
        drop(emulate);
        emulate = emulate_on(&address, &directory, &scenario);
        let output = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| [0, 3, 4, 75].contains(&code)), "{said}");
    }
    let last = run(emulate.provision(&lot).args(["--connections", "8"]));
    assert!(matches!(last.code, Some(0 | 3)), "{}", last.err);
    drop(emulate);
    let agreed = check_agreement(&ledger, &kept_account(&directory));
    // Each kill leaves at most one device a connection in doubt.
    assert!(agreed >= 300 - 4 * 8, "{agreed}");
}

#[test]
fn a_restart_is_the_same_emulator_to_its_clients() {
    let scratch = Scratch::new();
    let (first_lot, second_lot) =
        (scratch.lot("a.csv", 3), scratch.write("b.csv", "DeviceId,SerialNumber,MacAddress\nX,1,A\n"));
    let directory = scratch.path("state");
    let scenario = scratch.write("s.toml", P256);
    let emulate = emulate_on("127.0.0.1:0", &directory, &scenario);
    let ca_file = emulate.text("ca_file").to_owned();
    assert_eq!(Path::new(emulate.text("state_dir")), directory);
    assert_eq!(Path::new(&ca_file), directory.join("ca.pem"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    run(&mut emulate.provision(&first_lot)).expect_code(0);
    let before = std::fs::read(&ca_file).unwrap();
    let (address, mut old_client) = (address_of(&emulate), emulate.provision(&second_lot));
    drop(emulate);
    let emulate = emulate_on(&address, &directory, &scenario);
    assert_eq!(std::fs::read(emulate.text("ca_file")).unwrap(), before);
    // Told of the first emulator, and gets in at the second.
    run(&mut old_client).expect_code(0);
    drop(emulate);
    let account = kept_account(&directory);
    assert_eq!(check_agreement(&scratch.path("a.ledger"), &only(&account, "DEVICE_")), 3);
    assert_eq!(check_agreement(&scratch.path("b.ledger"), &only(&account, "X")), 1);
    assert_eq!(account.counters.registered, 4);
}

/// The account with the things whose names begin so.
fn only(account: &State, prefix: &str) -> State {
    let mut account = account.clone();
    account.things.retain(|name, _| name.starts_with(prefix));
    account
}

fn start_refused(directory: &Path) -> Said {
    run(fleetmint().args(["emulate", "--listen", "127.0.0.1:0", "--state-dir"]).arg(directory))
}

#[test]
fn a_state_directory_that_cannot_be_used_is_refused_in_words() {
    let scratch = Scratch::new();
    let directory = scratch.path("state");
    let scenario = scratch.write("s.toml", P256);
    let emulate = emulate_on("127.0.0.1:0", &directory, &scenario);
    let pid = format!("process {}", emulate.child.id());
    let mut refused = Transcript::default();
    refused.add("in use", &start_refused(&directory));
    drop(emulate);
    let account = std::fs::read(directory.join("account.jsonl")).unwrap();
    std::fs::write(directory.join("account.jsonl"), &account[..account.len() / 2]).unwrap();
    refused.add("half an account", &start_refused(&directory));
    std::fs::write(directory.join("account.jsonl"), account).unwrap();
    std::fs::remove_file(directory.join("identity.json")).unwrap();
    refused.add("no identity", &start_refused(&directory));
    let full = scratch.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("notes.txt"), "").unwrap();
    refused.add("other files", &start_refused(&full));
    let column = (r"column \d+", "column COLUMN");
    expect_text("durable-refused", &scratch, &refused, &[(&pid, "process OF-THE-OTHER"), column]);
}

#[test]
fn every_device_of_a_faulty_service_ends_registered_or_unknown_and_the_account_agrees() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 150);
    let directory = scratch.path("state");
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios/faults.toml");
    let emulate = emulate_on("127.0.0.1:0", &directory, &scenario);
    let (ledger, json) = (scratch.path("lot.ledger"), scratch.path("s.json"));
    let mut failures = BTreeMap::<String, u64>::new();
    for _ in 0..10 {
        let mut command = emulate.provision(&lot);
        command.args(["--connections", "8", "--timeout", "1s"]).arg("--summary-json").arg(&json);
        let said = run(&mut command);
        assert!(matches!(said.code, Some(0 | 3 | 4)), "{:?} {}", said.code, said.err);
        let register = summary(&json)["operations"]["register_thing"].clone();
        for end in ["rejected", "timed_out", "dropped"] {
            *failures.entry(end.to_owned()).or_default() += register[end].as_u64().unwrap();
        }
        if column(&ledger, "SELECT key FROM device WHERE state = 'pending'").is_empty() {
            break;
        }
    }
    drop(emulate);
    // The seed decides that each kind came up.
    assert!(failures.values().all(|count| *count > 0), "{failures:?}");
    let registered = check_agreement(&ledger, &kept_account(&directory));
    assert!(registered >= 120, "{registered} of 150, after {failures:?}");
}
