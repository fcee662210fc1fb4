//! The emulator's counters.
//!
//! Owns their names. Decides nothing based on them.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened at the emulator's server since it started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct ServerCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The live counters.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Count,)*
        }

        impl Counts {
            /// Sets all counters to zero.
            pub(super) fn reset(&self) {
                $(self.$name.0.store(0, Ordering::Relaxed);)*
            }


            /// The present counts. Counters that rise meanwhile may be read at slightly different instants.
            pub(super) fn counters(&self) -> ServerCounters {
                ServerCounters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// TCP connections accepted.
    accepted,
    /// TCP connections whose TLS handshake failed or took too long.
    tls_failed,
    /// WebSocket upgrades answered with 101.
    upgraded,
    /// Upgrades and control plane requests answered with 403 because of the signature or its time.
    forbidden,
    /// Control plane requests with a valid signature.
    control_requests,
    /// Requests that were neither an upgrade on `/mqtt` nor for the control plane, or were not HTTP.
    not_upgrades,
    /// CONNECTs accepted.
    connected,
    /// Accepted CONNECTs that took their client id from another connection.
    takeovers,
    /// CONNECTs above their quota or the limit on connections.
    connects_throttled,
    /// SUBSCRIBEs above their quota, which got no SUBACK.
    subscribes_dropped,
    /// Messages from clients above a quota, which got no PUBACK.
    publishes_dropped,
    /// Messages to clients above a quota.
    deliveries_dropped,
    /// Connections closed by the emulator because the client broke a rule.
    violations,
    /// Connections closed by the emulator because the client did not read.
    slow_consumers,
    /// CreateKeysAndCertificate and CreateCertificateFromCsr requests.
    create_requests,
    /// RegisterThing requests.
    register_requests,
    /// Requests answered on an accepted topic.
    requests_accepted,
    /// Requests answered on a rejected topic.
    requests_rejected,
    /// Requests answered on a rejected topic because they were over a limit.
    requests_throttled,
    /// Requests that met a fault of the scenario.
    faults,
    /// Plain messages published.
    messages,
}

/// A counter that only rises.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
