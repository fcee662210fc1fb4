//! The arguments that several verbs share, as typed. `target`, `lot`, `rates` and `settings` resolve them; no other
//! module sees these types.

mod devices;
mod keys;
mod manner;
mod outputs;
mod rates;
mod shard;
mod target;
mod values;

pub(super) use devices::DeviceArgs;
pub(super) use keys::{KeyArgs, Keys, LocalKeyType, SinkArgs};
pub(super) use manner::{LogFormat, MannerArgs};
pub(super) use outputs::OutputArgs;
pub(super) use rates::{RateArgs, RateSource};
pub(super) use shard::{ShardArgs, TotalArgs, TotalConnectionsArgs, TypedShard};
pub(super) use target::TargetArgs;
pub(super) use values::{ScrapeAddress, connections, lifetime, time, timeout};
