//! Claim certificates, the way most fleets provision: no credentials on the machine, and mutual TLS to either port.

use crate::harness::{Emulate, Scratch, column, fleetmint, run};

/// A factory has the claim that its devices are shipped with, and nobody gives it AWS credentials.
#[test]
fn a_lot_is_provisioned_with_a_claim_and_no_credentials() {
    let scratch = Scratch::new();
    let claims = scratch.path("claims");
    let emulator = Emulate::start(&["--claim-dir", claims.to_str().unwrap()]);
    let port = |key: &str| {
        let digits: String = emulator.text(key).chars().filter(char::is_ascii_digit).collect();
        format!("localhost:{digits}")
    };
    for (name, endpoint) in [("mqtt", port("mqtt_endpoint")), ("web", port("endpoint"))] {
        let lot = scratch.lot(&format!("{name}.csv"), 20);
        let ledger = scratch.path(&format!("{name}.db"));
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg("--ledger").arg(&ledger).args(["--endpoint", &endpoint]);
        command.args(["--region", "us-east-1", "--template", emulator.text("template")]);
        command.args(["--ca-file", emulator.text("ca_file")]);
        command.arg("--claim-cert").arg(claims.join("claim.pem"));
        command.arg("--claim-key").arg(claims.join("claim-key.pem"));
        run(&mut command).expect_code(0).expect_err(&["no AWS credentials", "nobody can be asked"]);
        let states = column(&ledger, "SELECT DISTINCT state FROM device");
        assert_eq!(states, ["registered"], "{name}");
    }
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
