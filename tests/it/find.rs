//! `find-limit`: the search carried out against the emulator's account in virtual time, and by the binary in real time.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fleetmint::emulator::account::Account;
use fleetmint::emulator::memory::{Network, NetworkSettings, Observer, Power, Sighting};
use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario as Emulated};
use fleetmint::engine::find::{FindOutcome, FindPlan, run};
use fleetmint::engine::load::{LoadPlan, Scenario};
use fleetmint::engine::{Clock, CommitMode, End, Stop};
use fleetmint::event::Operation;
use fleetmint::limit_search::{Breach, Finding, SearchSettings, Stopped};
use fleetmint::provisioning::Topics;
use fleetmint::rate::{Rate, RateLimit};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::harness::{Scratch, Transcript, expect_text, fleetmint, run as run_command};
use super::load::lab::{ledger, lot, prompt};

struct Blind;

impl Observer for Blind {
    fn see(&self, _: Duration, _: &Sighting<'_>) {}
}

/// Churn: connections that are closed as soon as they are open.
const CONNECT: Scenario = Scenario::Connect { hold: Duration::ZERO };

fn plan(scenario: Scenario) -> FindPlan {
    let default = FindPlan::new(scenario);
    FindPlan {
        search: SearchSettings { max: 5_000.0, ..default.search },
        issue_rate: Rate::per_second(100.0).unwrap(),
        load: LoadPlan {
            max_connections: 5_000,
            connect_rate: RateLimit::Unlimited,
            parameters: lot(1).1,
            commit_mode: CommitMode::Inline,
            ..default.load
        },
    }
}

/// Carries a search out, in a thread of its own time.
fn find(plan: FindPlan, emulated: &str, devices: usize) -> FindOutcome {
    let emulated = Emulated::from_toml(emulated).unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let base = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let network = Network::new(NetworkSettings {
            account: Account::new(&emulated).unwrap(),
            faults: prompt(),
            seed: 1,
            base,
            observer: Arc::new(Blind),
        });
        let mut beside = JoinSet::new();
        beside.spawn(network.clone().serve());
        let ledger = plan.load.scenario.takes_devices().then(|| ledger(devices, base));
        let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
        let mut plan = plan;
        plan.load.clock = Clock::new(move || network.now());
        let outcome = run(plan, connector, ledger, Stop::never(), watch::Sender::default()).await;
        beside.shutdown().await;
        outcome
    })
}

#[track_caller]
fn expect_limit(outcome: &FindOutcome, limit: f64, wanted: Breach) {
    let steps: String = outcome
        .steps
        .iter()
        .map(|step| format!("  {:?} {:?} {:?}\n", step.probe, step.verdict, step.observation))
        .collect();
    let told =
        format!("{limit}/s: {:?} after {:?}, {:?}\n{steps}", outcome.finding, outcome.elapsed, outcome.end);
    let Finding::Limit { sustainable, breaks_at, breach, confirmed: true } = outcome.finding else {
        panic!("{told}")
    };
    assert!((0.95..=1.05).contains(&(sustainable / limit)), "{told}");
    assert!(breaks_at > limit * 0.99 && breaks_at <= limit * 1.1 && breach == wanted, "{told}");
    assert!(matches!(outcome.end, End::Complete), "{told}");
}

#[test]
fn the_limit_of_creates_is_found_however_the_service_counts() {
    for (limit, window) in [(10, "bucket"), (47, "sliding")] {
        let emulated = format!(
            "[latency]\ncreate_keys_and_certificate = \"30ms\"\n\
             [quotas]\nwindow = \"{window}\"\ncreate_keys_and_certificate = \"{limit}/s\"\n"
        );
        let outcome = find(plan(Scenario::Create), &emulated, 3_000);
        expect_limit(&outcome, f64::from(limit), Breach::Throttled);
        // Whatever was accepted is in the ledger, with its key.
        let counts = outcome.ledger.unwrap().view().counts().unwrap();
        assert!(counts.issued_not_sent > 0 && counts.registered + counts.issued_may_sent == 0, "{counts:?}");
    }
}

#[test]
fn silence_is_told_from_a_throttle() {
    let emulated = "[latency]\ncreate_keys_and_certificate = \"30ms\"\n[quotas]\npublish = \"47/s\"\n";
    let outcome = find(plan(Scenario::Create), emulated, 5_000);
    expect_limit(&outcome, 47.0, Breach::Silent);
    let counts = outcome.metrics.operation(Operation::CreateCertificate).counts;
    assert!(counts.throttled == 0 && counts.timed_out > 0, "{counts:?}");
}

#[test]
fn the_limit_of_registrations_is_found_with_certificates_that_were_issued_slowly() {
    let emulated = "[latency]\nregister_thing = \"50ms\"\n\
                    [quotas]\ncreate_keys_and_certificate = \"120/s\"\nregister_thing = \"47/s\"\n";
    let outcome = find(plan(Scenario::Register), emulated, 4_000);
    expect_limit(&outcome, 47.0, Breach::Throttled);
    assert_eq!(outcome.issuing.operation(Operation::CreateCertificate).counts.throttled, 0);
    let counts = outcome.ledger.unwrap().view().counts().unwrap();
    assert!(counts.registered > 500 && counts.issued_may_sent + counts.rejected == 0, "{counts:?}");
}

#[test]
fn the_limit_of_connects_is_found_however_the_service_refuses() {
    for (limit, excess, breach) in
        [(400, "refuse", Breach::Refused), (47, "close", Breach::HungUp), (10, "delay", Breach::Slow)]
    {
        let emulated = format!(
            "[latency]\nconnect = \"20ms\"\n[quotas]\nconnect = \"{limit}/s\"\nconnect_excess = \"{excess}\"\n"
        );
        expect_limit(&find(plan(CONNECT), &emulated, 0), f64::from(limit), breach);
    }
}

#[test]
fn a_search_that_runs_out_of_devices_says_what_it_knows() {
    let emulated = "[quotas]\ncreate_keys_and_certificate = \"47/s\"\n";
    let outcome = find(plan(Scenario::Create), emulated, 300);
    let Finding::NoLimit { held, because: Stopped::Devices } = outcome.finding else {
        panic!("{:?}", outcome.finding)
    };
    assert!(held < 47.0, "{held}");
}

#[test]
fn the_command_says_what_it_needs_and_what_it_knows() {
    let scratch = Scratch::new();
    let find = |args: &[&str]| {
        let mut command = fleetmint();
        command.arg("find-limit").args(args).arg("--emulator").current_dir(scratch.path("."));
        run_command(&mut command)
    };
    // Two devices are no step: nothing is tried.
    let said = find(&["create", "--devices", "2", "--ledger", "two.ledger", "--json", "-"]).expect_code(4);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        report["finding"],
        json!({
            "kind": "nothing", "broke_at_per_s": null, "breach": null, "because": "devices"
        })
    );
    assert_eq!((&report["operation"], &report["steps"]), (&json!("create_certificate"), &json!([])));
    let mut refused = Transcript::default();
    for args in [&["create"][..], &["connect", "--max-rate", "fast"]] {
        refused.add(&args.join(" "), &find(args));
    }
    expect_text("find-limit-wrong-arguments", &scratch, &refused, &[]);
}

#[test]
fn the_command_holds_the_highest_rate_that_it_may_try() {
    let scratch = Scratch::new();
    let json = scratch.path("found.json");
    let mut command = fleetmint();
    command.args(["find-limit", "connect", "--emulator", "--start-rate", "40/s", "--max-rate", "40/s"]);
    let said = run_command(command.arg("--json").arg(&json).current_dir(scratch.path(".")));
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    // On a machine that is busy otherwise, it may be this side that does not keep up: then it says that.
    match said.code {
        Some(0) => {
            said.expect_out(&["connect: no limit up to 40/s", "held"]).expect_err(&["--max-rate"]);
            assert_eq!(
                report["finding"],
                json!({
                    "kind": "no_limit", "held_per_s": 40.0, "because": "max_rate"
                })
            );
        }
        _ => {
            said.expect_code(4).expect_out(&["40/s"]);
        }
    }
    assert_eq!(report["steps"][0]["due"], 120);
}
