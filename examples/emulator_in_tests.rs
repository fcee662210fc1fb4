//! How the tests of another Rust project use the emulator. In its `Cargo.toml`:
//!
//! ```toml
//! [dev-dependencies]
//! fleetmint = { version = "0.1", default-features = false, features = ["emulator"] }
//! ```
//!
//! Each test starts an account of its own on free ports, points the code at it, and looks into it afterwards. Here they run with
//! `cargo test --example emulator_in_tests`.

use std::time::Duration;

use fleetmint::failure::{Failure, Stage};
use fleetmint::provisioning::{self, Request};
use fleetmint::transport::wss::{WssConnection, WssConnector};
use fleetmint::transport::{Connection, Connector, Verdict};

fn main() {}

/// The code under test: a device that enrols itself, and learns its thing's name. A project has its own, with the client that it
/// has; it takes `emulator.endpoint()`, `emulator.ca_pem()` and the scenario's access key.
pub async fn enrol(service: &WssConnector, serial: &str) -> Result<String, Failure> {
    let connection = service.dial().await.outcome?;
    let (issued, connection) = ask(connection, provisioning::create_request()).await?;
    let parameters = [("DeviceId", serial), ("SerialNumber", serial), ("MacAddress", "02:00:00:00:00:01")];
    let register = provisioning::register_request(&issued.ownership_token, parameters);
    let (registered, connection) = ask(connection, register).await?;
    connection.close().await;
    Ok(registered.thing_name)
}

async fn ask<T>(connection: WssConnection, request: Request<T>) -> Result<(T, WssConnection), Failure> {
    let reply = connection.exchange(request.call, request.payload, Duration::from_secs(10)).await;
    let (reply, connection) = reply.map_err(|lost| lost.failure)?;
    let answer = match reply.verdict {
        Verdict::Accepted => (request.parse)(&reply.payload),
        Verdict::Rejected => Err(provisioning::parse_rejected(&reply.payload)),
    };
    let answer = answer.map_err(|cause| Failure::new(Stage::Call(request.call), cause))?;
    Ok((answer, connection))
}

#[cfg(test)]
mod tests {
    use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Scenario};
    use fleetmint::emulator::{Emulator, EmulatorPlan};
    use fleetmint::provisioning::Topics;

    use super::*;

    async fn emulate(scenario: &str) -> (Emulator, WssConnector) {
        let scenario = Scenario::from_toml(scenario).unwrap();
        let emulator = Emulator::launch(EmulatorPlan { scenario, ..EmulatorPlan::default() }).await.unwrap();
        let service = WssConnector::new(emulator.client_settings(Topics::new(BUILT_IN_TEMPLATE))).unwrap();
        (emulator, service)
    }

    #[tokio::test]
    async fn a_device_gets_its_thing() {
        let (emulator, service) = emulate("").await;
        assert_eq!(enrol(&service, "D1").await.unwrap(), "D1");
        let things: Vec<_> = emulator.inspect(|account| account.state().things.keys().cloned().collect());
        assert_eq!(things, ["D1"]);
        emulator.shutdown().await;
    }

    #[tokio::test]
    async fn a_throttled_device_is_told_so_and_has_nothing() {
        let throttled = "[[faults.rules]]\non = \"register_thing\"\nfault = \"reject\"\nstatus = 429";
        let (emulator, service) = emulate(throttled).await;
        assert!(enrol(&service, "D1").await.unwrap_err().is_throttle());
        assert!(emulator.inspect(|account| account.state().things.is_empty()));
        emulator.shutdown().await;
    }
}
