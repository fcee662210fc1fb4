//! emulator

pub mod account;
mod hex;
pub mod mint;
pub mod scenario;
pub mod template;
