//! The integration tests, one binary: compile time is paid once.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#![expect(unreachable_pub, reason = "nothing outside this binary can reach anything in it")]

mod calibrate;
mod check;
mod cleanup;
mod control;
mod crash;
mod credentials;
mod durable;
mod emulator;
mod factory;
mod field;
mod find;
mod harness;
mod keys;
mod layers;
mod load;
mod log;
mod open_files;
mod prometheus;
mod provision;
mod readme;
mod report;
mod services;
mod shards;
mod simulation;
mod texts;
mod transport;
mod verify;
