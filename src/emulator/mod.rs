//! emulator

pub mod account;
pub mod mint;
pub mod scenario;
pub mod template;
