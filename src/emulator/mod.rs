//! An emulator of AWS IoT Core's fleet provisioning endpoint: one pure model of an account, behind either a server
//! (TLS, SigV4, MQTT 3.1.1 over WebSockets, and the control plane over HTTPS) or a simulated network ([`memory`]) in
//! virtual time.
//!
//! The path of a request: `server` accepts a TCP connection; `http_connection` reads the request head and checks its
//! signature; then `control` performs a control plane operation, or `mqtt_connection` speaks MQTT, where `mqtt` decodes
//! packets, `session` says what is allowed, `service` asks the [`account`], and `clients` knows the other connections.
//!
//! It knows nothing of the engine that talks to it, and shares no code with it where both would make the same mistake.

pub mod account;
pub mod memory;
pub mod mint;
pub mod policy;
pub mod scenario;
pub mod verify;

mod admin;
mod clients;
mod control;
mod counts;
mod fault;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hook;
mod http;
mod http_connection;
mod mqtt;
mod mqtt_connection;
mod mqtt_stream;
mod pem;
mod reach;
mod server;
mod service;
mod session;
mod socket;
mod store;
mod timer;
mod tls;
mod uuid;

#[cfg(test)]
mod numbers;

pub use counts::ServerCounters;
pub use server::{CannotReset, Emulator, EmulatorError, EmulatorPlan};
pub use store::{NotKept, StoreError};
