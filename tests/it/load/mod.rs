//! Load tests against the emulator in virtual time: what is offered, what is measured, and how a run ends.

mod accuracy;
mod command;
pub mod lab;
mod memory;
mod scenarios;
