//! What a run looks at before it begins, on an endpoint that is not this machine's by its name.

use super::*;
use crate::harness::column;

/// An address that is this machine's and that no rule takes for it: a real endpoint, as far as the command knows.
const ELSEWHERE: &str = "[::ffff:127.0.0.1]:0";

fn elsewhere(template: &str, more: &str, resources: &[&str]) -> Setup {
    let scratch = Scratch::new();
    let scenario = scenario(&scratch, template, more, resources);
    let emulate = Emulate::start_on(ELSEWHERE, &["--scenario", &scenario]);
    Setup { scratch, emulate }
}

impl Setup {
    /// A run whose control plane and quotas are where its endpoint is.
    fn run_elsewhere(&self, words: &[&str]) -> Command {
        let port =
            self.emulate.text("endpoint").trim_end_matches("/mqtt").rsplit(':').next().unwrap().to_owned();
        let host = format!("[::ffff:127.0.0.1]:{port}");
        let mut command = fleetmint();
        command.args(words).args(["--endpoint", &host, "--region", "us-east-1", "--template", "KETTLE"]);
        command.args(["--ca-file", self.emulate.text("ca_file")]);
        // Where every AWS tool looks for it.
        command.env("AWS_ENDPOINT_URL", format!("https://{host}"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        self.sign(&mut command);
        command
    }

    fn provision_elsewhere(&self, lot: &str) -> Command {
        let lot = self.scratch.write("lot.csv", lot);
        self.run_elsewhere(&["provision", lot.to_str().unwrap()])
    }
}

#[test]
fn a_run_that_cannot_succeed_sends_nothing_and_makes_no_ledger() {
    let setup = elsewhere(WHOLE, "", &RESOURCES[..3]);
    let said = run(&mut setup.provision_elsewhere(LOT)).expect_code(69).expect_err(&[
        "policy: KettlePolicy is not in the account",
        "Nothing was sent",
        "--no-check",
    ]);
    assert!(!said.err.contains("thing type"), "only what is wrong is said: {}", said.err);
    assert_eq!(setup.scratch.files(), ["lot.csv", "scenario.toml", "template.json"]);
    // Who knows better goes on: each device is refused, and each costs a certificate.
    run(setup.provision_elsewhere(LOT).arg("--no-check")).expect_code(3);
}

#[test]
fn rows_that_the_service_would_refuse_cost_no_certificate() {
    let setup = elsewhere(WHOLE, "", &RESOURCES);
    run(&mut setup.provision_elsewhere("SerialNumber,Site\n1,Berlin\n2,Köln\n")).expect_code(65).expect_err(
        &["values: 1 row would be refused, the first on line 3", "AttributePayload.site", "Nothing was sent"],
    );
    assert_eq!(setup.scratch.files(), ["lot.csv", "scenario.toml", "template.json"]);
    // Mended, it runs, and nothing is said of what is right.
    let said = run(&mut setup.provision_elsewhere("SerialNumber,Site\n1,Berlin\n2,Koeln\n")).expect_code(0);
    assert!(!said.err.contains("connection:") && !said.err.contains("names:"), "{}", said.err);
    let states = column(&setup.scratch.path("lot.ledger"), "SELECT DISTINCT state FROM device");
    assert_eq!(states, ["registered"]);
}

/// A lot whose half is in the account already, by another hand.
#[test]
fn devices_whose_things_exist_are_left_out_where_that_is_wanted() {
    let setup = elsewhere(WHOLE, "", &RESOURCES);
    run(setup
        .provision_elsewhere(LOT)
        .args(["--limit", "2", "--ledger"])
        .arg(setup.scratch.path("first.ledger")))
    .expect_code(0);
    let said =
        run(setup.provision_elsewhere(LOT).args(["--if-exists", "refuse"])).expect_code(3).expect_err(&[
            "warning: things: 2 exist already",
            "left out, because their things exist already: 2 devices, \"SN1\", \"SN2\"",
        ]);
    assert!(said.err.contains("--if-exists refuse"), "{}", said.err);
    let ledger = setup.scratch.path("lot.ledger");
    assert_eq!(column(&ledger, "SELECT key FROM device WHERE state = 'registered'"), ["SN3"]);
    assert_eq!(
        column(&ledger, "SELECT key FROM device WHERE state = 'pending' ORDER BY key"),
        ["SN1", "SN2"]
    );
    // Without it they get another certificate, as the template says.
    run(&mut setup.provision_elsewhere(LOT)).expect_code(0);
}

/// A device that is to get another certificate has its thing already: its own.
#[test]
fn a_reworked_devices_thing_is_not_another_hands() {
    let setup = Setup::new();
    let lot = setup.scratch.write("lot.csv", LOT);
    run(&mut setup.verb("provision", &lot)).expect_code(0);
    let mut retry = fleetmint();
    retry.arg("retry").arg(setup.scratch.path("lot.ledger"));
    retry.args(["--state", "registered", "--key", "SN1", "--reissue", "--yes"]);
    retry.args(["--endpoint", setup.emulate.text("endpoint"), "--ca-file", setup.emulate.text("ca_file")]);
    setup.sign(&mut retry);
    run(&mut retry).expect_code(0);
    run(&mut setup.verb("check", &lot))
        .expect_code(0)
        .expect_out(&["3 rows, 1 still to be registered", "none is there yet (all 1 looked for)"]);
    run(setup.verb("provision", &lot).args(["--if-exists", "refuse"]))
        .expect_code(0)
        .expect_out(&["3 of 3 devices registered"]);
}

/// A hook may change parameters, and so names: what is promised goes no further than the template.
#[test]
fn with_a_hook_names_are_not_promised() {
    let setup = hooked();
    let said = run(setup.verb("provision", &setup.scratch.write("lot.csv", LOT)).args([
        "--if-exists",
        "refuse",
        "--dry-run",
    ]));
    said.expect_code(0)
        .expect_err(&["warning: --if-exists refuse goes by the names", "its hook arn:aws:lambda"]);
    run(&mut setup.check(LOT)).expect_code(0).expect_out(&["which its hook may change"]);
}

/// A service that takes a connection and says nothing is waited for, but not for long, and not in silence.
#[test]
fn a_control_plane_that_never_answers_is_named_and_given_up() {
    let setup = Setup::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("https://{}", silent.local_addr().unwrap());
    let lot = setup.scratch.write("lot.csv", LOT);
    run(setup.verb("provision", &lot).args(["--control-endpoint", &silent])).expect_code(0).expect_err(&[
        "waiting for an answer to DescribeProvisioningTemplate",
        "could not be compared with template KETTLE: DescribeProvisioningTemplate: no answer within 5s",
    ]);
}

/// A permission that a check alone needs does not stop a run.
#[test]
fn what_cannot_be_looked_at_does_not_stop_a_run() {
    let denied = "deny = [\"iot:DescribeProvisioningTemplate\", \"iot:DescribeEndpoint\"]";
    let setup = elsewhere(WHOLE, denied, &RESOURCES);
    run(&mut setup.provision_elsewhere(LOT))
        .expect_code(0)
        .expect_err(&["template was not checked: iot:DescribeProvisioningTemplate is not permitted"]);
    run(setup
        .provision_elsewhere(LOT)
        .args(["--if-exists", "refuse", "--ledger"])
        .arg(setup.scratch.path("x.ledger")))
    .expect_code(77)
    .expect_err(&["--if-exists refuse needs iot:DescribeProvisioningTemplate"]);
}

#[test]
fn a_load_test_is_checked_too() {
    let setup = elsewhere(WHOLE, "", &RESOURCES[..3]);
    let ledger = setup.scratch.path("load.ledger");
    let words = [
        "load",
        "provision",
        "--rate",
        "5/s",
        "--for",
        "1s",
        "--devices",
        "10",
        "--column",
        "Site=x",
        "--ledger",
    ];
    let words: Vec<&str> = words.into_iter().chain([ledger.to_str().unwrap()]).collect();
    run(&mut setup.run_elsewhere(&words))
        .expect_code(69)
        .expect_err(&["policy: KettlePolicy is not in the account"]);
}
