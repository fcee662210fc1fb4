//! What the emulator counts.
//!
//! Owns the names. Decides nothing by them.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened at the emulator's server since it started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct ServerCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters while they rise.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Count,)*
        }

        impl Counts {
            /// Everything at zero.
            pub(super) fn reset(&self) {
                $(self.$name.0.store(0, Ordering::Relaxed);)*
            }


            /// As of now; counts taken while others rise need not be of one instant.
            pub(super) fn counters(&self) -> ServerCounters {
                ServerCounters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// TCP connections taken.
    accepted,
    /// Of those, the ones whose TLS handshake failed or took too long.
    tls_failed,
    /// WebSocket upgrades answered with 101.
    upgraded,
    /// Upgrades and control plane requests answered with 403: the signature or its time.
    forbidden,
    /// Requests to the control plane that were signed well.
    control_requests,
    /// Requests that were neither an upgrade on `/mqtt` nor the control plane's, or no HTTP.
    not_upgrades,
    /// CONNECTs accepted.
    connected,
    /// Of those, the ones that took their client id from another connection.
    takeovers,
    /// CONNECTs above their quota, or above the number of connections.
    connects_throttled,
    /// SUBSCRIBEs above their quota, which got no SUBACK.
    subscribes_dropped,
    /// Messages from clients above a quota, which got no PUBACK.
    publishes_dropped,
    /// Messages to clients above a quota.
    deliveries_dropped,
    /// Connections that the emulator closed because the client broke a rule.
    violations,
    /// Connections that the emulator closed because the client did not read.
    slow_consumers,
    /// CreateKeysAndCertificate and CreateCertificateFromCsr requests.
    create_requests,
    /// RegisterThing requests.
    register_requests,
    /// Requests answered on an accepted topic.
    requests_accepted,
    /// Requests answered on a rejected topic.
    requests_rejected,
    /// Of those, the ones that were over a limit.
    requests_throttled,
    /// Requests that met a fault of the scenario.
    faults,
    /// Plain messages published.
    messages,
}

/// One number that only rises.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
