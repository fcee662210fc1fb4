//! A load test of the built-in emulator: messages at a rate, with a threshold: `cargo run --example load`.

use std::error::Error;

use fleetmint::emulator::{Emulator, EmulatorPlan};
use fleetmint::engine::load::{self, LoadPlan, Scenario};
use fleetmint::event::Operation;
use fleetmint::provisioning::{Delivery, Topics};
use fleetmint::transport::wss::WssConnector;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::launch(EmulatorPlan::default()).await?;
    let topics = Topics::of_messages("example", Delivery::AtLeastOnce);
    let connector = WssConnector::new(emulator.client_settings(topics))?;

    let plan = LoadPlan {
        thresholds: vec!["rejected=0".parse()?],
        ..LoadPlan::new(Scenario::Publish { size: 64 }, "ramp 1..50/s 1s; hold 50/s 1s".parse()?)
    };
    let outcome = load::run(plan, connector, None, tokio::signal::ctrl_c(), ()).await;
    let publish = outcome.metrics.operation(Operation::Publish);
    println!(
        "{}: {} of {} messages came back, p99 {} us from the send",
        outcome.end.name(),
        publish.counts.accepted,
        outcome.metrics.arrivals.scheduled,
        publish.service.figures().p99,
    );
    emulator.shutdown().await;
    let passed = outcome.judgements.iter().all(|judgement| judgement.passed);
    if passed { Ok(()) } else { Err(format!("{:?}", outcome.judgements).into()) }
}
