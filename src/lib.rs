//! fleetmint mints device identities in AWS IoT Core: it takes the rows of a lot through fleet provisioning, many at
//! once, and loses no private key. This is the library behind the command of the same name.
//!
//! The parts, in the order in which a run meets them:
//!
//! - [`identity`] reads a lot, a CSV with a device per row, and turns rows into template parameters.
//! - [`ledger`] keeps the lot, its certificates and keys in SQLite. A certificate is durable before it is registered,
//!   so a run can be killed at any instant and resumed.
//! - [`transport`] opens connections: [`WssConnector`](transport::wss::WssConnector) dials AWS or an emulator of it.
//! - [`engine`] does the work: [`engine::run`] provisions, [`engine::load::run`] tests the account's quotas, and
//!   [`engine::find::run`] looks for a limit. Each takes a plan whose defaults suit an AWS account with default
//!   quotas.
//! - [`control_plane`] asks the account for what provisioning itself does not tell: credentials, endpoint, quotas,
//!   and whether a registration happened whose answer was lost.
//! - [`export`] writes certificates and keys to files, [`report`] makes summaries and pages from [`metrics`] and
//!   [`results`].
//! - `emulator`, with the feature of that name, emulates AWS IoT Core's endpoint for tests.
//!
//! Provisioning two devices against the emulator:
//!
#![cfg_attr(feature = "emulator", doc = "```")]
#![cfg_attr(not(feature = "emulator"), doc = "```ignore")]
//! use std::time::SystemTime;
//!
//! use fleetmint::emulator::scenario::BUILT_IN_TEMPLATE;
//! use fleetmint::emulator::{Emulator, EmulatorPlan};
//! use fleetmint::engine::{self, End, Plan, Rates, Stop};
//! use fleetmint::identity::{LotErrors, LotReader, ParameterPlan};
//! use fleetmint::ledger::{Binding, Ledger, LotRows};
//! use fleetmint::provisioning::Topics;
//! use fleetmint::transport::wss::WssConnector;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::launch(EmulatorPlan::default()).await?;
//! let connector = WssConnector::new(emulator.client_settings(Topics::new(BUILT_IN_TEMPLATE)))?;
//!
//! let lot = "DeviceId,SerialNumber,MacAddress\nD1,S1,02:00:00:00:00:01\nD2,S2,02:00:00:00:00:02\n";
//! let rows = LotReader::new(lot.as_bytes(), None).map_err(LotErrors::from)?;
//! let shape = rows.shape().clone();
//! let parameters = ParameterPlan::new(&shape, &[])?;
//! let binding = Binding { template: BUILT_IN_TEMPLATE.into(), ..Binding::default() };
//! let rows = LotRows { source: "lot.csv", shape, rows };
//! // On disk: `Ledger::open_or_import`, which also takes up again what was interrupted.
//! let ledger = Ledger::in_memory(&binding, rows, |row| parameters.check(row), SystemTime::now())?;
//!
//! let plan = Plan { parameters, rates: Rates::UNLIMITED, ..Plan::default() };
//! let outcome = engine::run(plan, connector, ledger, Stop::never(), ()).await;
//! assert!(matches!(outcome.end, End::Complete));
//! assert_eq!(outcome.ledger.view().counts()?.registered, 2);
//! # emulator.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `cli` (default) is the command; it enables `emulator`. To embed the library, disable default features.
//! - `emulator` is the emulator alone, for use as a dev-dependency as in `examples/emulator_in_tests.rs`.
//!
//! `ARCHITECTURE.md` is the map of the source.

// L0: vocabulary
pub mod call;
pub mod certificate;
pub mod endpoint;
pub mod event;
pub mod failure;
pub mod identity;
pub mod instant;
pub mod rate;
pub mod service;
pub mod shard;
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
pub mod aftercare;
pub mod calibration;
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
// For fuzzers
#[cfg(all(any(test, fuzzing), feature = "emulator"))]
pub mod fuzzing;
