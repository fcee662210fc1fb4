//! An emulator of AWS IoT Core's fleet provisioning endpoint: one pure model of an account, with a wire door (TLS,
//! SigV4, and behind it MQTT 3.1.1 over WebSockets and the control plane over HTTPS) and a memory door ([`memory`]) for
//! simulation in virtual time.
//!
//! Knows nothing of the engine that talks to it, and shares no code with it where both would make the same mistake.

pub mod account;
pub mod memory;
pub mod mint;
pub mod scenario;
pub mod verify;
mod wire;

mod alarm;
mod broker;
mod connection;
mod control;
mod door;
mod fault;
mod gateway;
mod hex;
mod http;
mod mqtt;
mod session;
mod store;
mod tally;

#[cfg(test)]
mod numbers;

pub use store::{NotKept, StoreError};
pub use tally::WireCounters;
pub use wire::{Emulator, EmulatorError};
