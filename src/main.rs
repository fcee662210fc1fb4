//! The fleetmint command.
fn main() {}
