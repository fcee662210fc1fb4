//! fleetmint mints device identities in AWS IoT Core. `ARCHITECTURE.md` is the map.

// L0: vocabulary
pub mod call;
pub mod certificate;
pub mod endpoint;
pub mod event;
pub mod failure;
pub mod identity;
pub mod instant;
pub mod rate;
pub mod wording;
// L1: pure crafts
pub mod keys;
pub mod limit_search;
pub mod metrics;
pub mod provisioning;
pub mod proxy;
pub mod schedule;
pub mod sealing;
pub mod sigv4;
pub mod template;
pub mod usage;
// L2: doors
pub mod control_plane;
pub mod csr;
pub mod exposition;
pub mod ledger;
pub mod results;
pub mod transport;
// L3: work
pub mod engine;
pub mod export;
pub mod preflight;
pub mod report;
// L4: the other side
#[cfg(feature = "emulator")]
pub mod emulator;
// L5: the binary
#[cfg(feature = "cli")]
pub mod cli;
