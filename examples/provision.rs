//! Provisions two devices against the built-in emulator, until done or Ctrl-C: `cargo run --example provision`.

use std::error::Error;
use std::time::SystemTime;

use fleetmint::emulator::scenario::BUILT_IN_TEMPLATE;
use fleetmint::emulator::{Emulator, EmulatorPlan};
use fleetmint::engine::{self, End, Plan, Rates};
use fleetmint::identity::{LotErrors, LotReader, ParameterPlan};
use fleetmint::ledger::{Binding, Ledger, LotRows};
use fleetmint::provisioning::Topics;
use fleetmint::transport::wss::WssConnector;

const LOT: &str = "DeviceId,SerialNumber,MacAddress\nD1,S1,02:00:00:00:00:01\nD2,S2,02:00:00:00:00:02\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::launch(EmulatorPlan::default()).await?;
    let connector = WssConnector::new(emulator.client_settings(Topics::new(BUILT_IN_TEMPLATE)))?;

    let rows = LotReader::new(LOT.as_bytes(), None).map_err(LotErrors::from)?;
    let shape = rows.shape().clone();
    let parameters = ParameterPlan::new(&shape, &[])?;
    let binding = Binding { template: BUILT_IN_TEMPLATE.into(), ..Binding::default() };
    let rows = LotRows { source: "lot.csv", shape, rows };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lot.ledger");
    let ledger =
        Ledger::open_or_import(&file, &binding, rows, |row| parameters.check(row), SystemTime::now())?;

    let plan = Plan { parameters, rates: Rates::UNLIMITED, ..Plan::default() };
    let outcome = engine::run(plan, connector, ledger, tokio::signal::ctrl_c(), ()).await;
    let registered = outcome.ledger.view().counts()?.registered;
    println!("{}: {registered} registered in {:?}", outcome.end.name(), outcome.elapsed);
    outcome.ledger.close()?;
    emulator.shutdown().await;
    if matches!(outcome.end, End::Complete) { Ok(()) } else { Err(outcome.end.detail().into()) }
}
