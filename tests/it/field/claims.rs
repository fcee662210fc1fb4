//! Claim certificates, the way most fleets provision: no credentials on the machine, and mutual TLS to either port.

use crate::harness::{Emulate, Scratch, column, fleetmint, run};

/// A factory has the claim that its devices are shipped with, and nobody gives it AWS credentials.
#[test]
fn a_lot_is_provisioned_with_a_claim_and_no_credentials() {
    let scratch = Scratch::new();
    let claims = scratch.path("claims");
    let emulator = Emulate::start(&["--claim-dir", claims.to_str().unwrap()]);
    // As the emulator prints them, each in the other's form too.
    let mqtt = emulator.text("mqtt_endpoint").to_owned();
    let port: String = emulator.text("endpoint").chars().filter(char::is_ascii_digit).collect();
    let bare = mqtt.replace("mqtts://", "");
    for (name, endpoint) in [("mqtt", mqtt), ("bare", bare), ("web", format!("localhost:{port}"))] {
        let lot = scratch.lot(&format!("{name}.csv"), 20);
        let ledger = scratch.path(&format!("{name}.db"));
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg("--ledger").arg(&ledger).args(["--endpoint", &endpoint]);
        command.args(["--region", "us-east-1", "--template", emulator.text("template")]);
        command.args(["--ca-file", emulator.text("ca_file")]);
        command.arg("--claim-cert").arg(claims.join("claim.pem"));
        command.arg("--claim-key").arg(claims.join("claim-key.pem"));
        let on = format!("on mqtts://{}", endpoint.replace("mqtts://", ""));
        run(&mut command).expect_code(0).expect_err(&["no AWS credentials", "nobody can be asked", &on]);
        let states = column(&ledger, "SELECT DISTINCT state FROM device");
        assert_eq!(states, ["registered"], "{name}");
    }
}

/// The emulator's endpoint for mutual TLS is given without a claim certificate.
#[test]
fn an_endpoint_without_a_web_socket_wants_a_claim() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let mut command = fleetmint();
    command.arg("provision").arg(&lot).args(["--endpoint", "mqtts://localhost:8883", "--template", "T"]);
    run(command.args(["--region", "us-east-1"])).expect_code(64).expect_err(&["--claim-cert", "wss://"]);
}

/// A claim that was revoked, or the certificate and the key of two claims.
#[test]
fn a_claim_that_cannot_work_is_told() {
    let scratch = Scratch::new();
    let [one, other] = ["one", "other"].map(|name| scratch.path(name));
    let emulator = Emulate::start(&["--claim-dir", one.to_str().unwrap()]);
    let _stranger = Emulate::start(&["--claim-dir", other.to_str().unwrap()]);
    let lot = scratch.lot("lot.csv", 1);
    let attempt = |certificate: &std::path::Path, key: &std::path::Path| {
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg("--ledger").arg(scratch.path("ledger.db"));
        command.args(["--endpoint", emulator.text("mqtt_endpoint").trim_start_matches("mqtts://")]);
        command.args(["--region", "us-east-1", "--template", emulator.text("template")]);
        command.args(["--ca-file", emulator.text("ca_file")]);
        command.arg("--claim-cert").arg(certificate).arg("--claim-key").arg(key);
        run(&mut command)
    };
    attempt(&one.join("claim.pem"), &other.join("claim-key.pem")).expect_err(&["--claim-cert"]);
    attempt(&one.join("claim-key.pem"), &one.join("claim.pem"))
        .expect_err(&["--claim-cert", "no certificate found"]);
}
