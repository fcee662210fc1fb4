//! The engine: takes devices through the service with many connections under global limits, and reports the result.
//!
//! [`run`] provisions the open devices of a ledger; [`load::run`] offers arrivals on a schedule; [`find::run`]
//! searches for a limit. They share their parts: a `line` to the service, a device's `journey`, the frame that
//! supervises their tasks. Does not know what a socket is, where settings come from, or how results are shown.

mod audience;
mod clock;
mod coalescing;
mod context;
mod crew;
mod end;
pub mod find;
mod frame;
mod health;
mod intervals;
mod journey;
mod keys;
mod line;
pub mod load;
mod plan;
mod provision;
mod queue;
mod rate;
mod recorder;
mod refusals;
mod scope;
mod stop;
mod store;
mod worker;

pub use audience::{Audience, Snapshot};
pub use clock::Clock;
pub use coalescing::Coalescing;
pub use end::End;
pub use keys::{KeyMaker, KeyPolicy, KeySource};
pub use plan::{CONNECTION_LIFETIME, Connections, EXCHANGE_TIMEOUT, Plan, Rates};
pub use provision::{Outcome, run};
pub use scope::Scope;
pub use stop::Stop;
pub use store::{CommitMode, Disk};

use context::Limits;
