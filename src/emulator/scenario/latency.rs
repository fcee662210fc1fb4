//! How long each operation takes, and when nothing is taken up.
//!
//! Owns the scenario's `[latency]` table. Draws nothing: [`super::super::account`] does.

use std::time::Duration;

use serde::Deserialize;

use super::law::LatencyLaw;
use super::units;

/// How long each operation takes, and when nothing is taken up. `Default` is as fast as the emulator can be.
///
/// A latency counts from when the operation is taken up, and includes the emulator's own work; if that takes longer, so
/// does the answer. Latencies are drawn with the scenario's seed, separately for each operation.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// CONNECT to CONNACK.
    pub connect: LatencyLaw,
    /// SUBSCRIBE to SUBACK.
    pub subscribe: LatencyLaw,
    /// PUBLISH of a plain message to its PUBACK and its delivery.
    pub publish: LatencyLaw,
    /// CreateKeysAndCertificate, request to reply.
    pub create_keys_and_certificate: LatencyLaw,
    /// CreateCertificateFromCsr, request to reply.
    pub create_certificate_from_csr: LatencyLaw,
    /// RegisterThing, request to reply.
    pub register_thing: LatencyLaw,
    /// The periods in which nothing is taken up.
    pub stalls: Vec<Stall>,
}

/// A period in which no packet is taken up. Packets that arrive in it are taken up together at its end; those taken up
/// earlier are answered as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// When it starts, counted from the emulator's start.
    #[serde(deserialize_with = "units::duration")]
    pub from: Duration,
    /// How long it lasts.
    #[serde(deserialize_with = "units::duration")]
    pub lasts: Duration,
}

impl Latency {
    /// When a packet that arrives at `age` is taken up: at once, or at the end of a stall. Both count from the
    /// emulator's start.
    pub fn taken_up(&self, age: Duration) -> Duration {
        let mut at = age;
        // Each iteration leaves one stall for good, so there are at most as many iterations as stalls.
        while let Some(stall) = self.stalls.iter().find(|stall| stall.covers(at)) {
            at = stall.end();
        }
        at
    }
}

impl Stall {
    fn end(&self) -> Duration {
        self.from.saturating_add(self.lasts)
    }

    fn covers(&self, at: Duration) -> bool {
        (self.from..self.end()).contains(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;
    use super::*;

    #[test]
    fn what_arrives_in_a_stall_is_taken_up_at_its_end() {
        let latency = Scenario::from_toml(
            "[latency]\nregister_thing = \"5ms\"\n\
             [[latency.stalls]]\nfrom = \"10s\"\nlasts = \"2s\"\n\
             [[latency.stalls]]\nfrom = \"11s\"\nlasts = \"3s\"\n",
        )
        .unwrap()
        .latency;
        assert_eq!(latency.register_thing, Duration::from_millis(5).into());
        for (arrives, taken_up) in
            [(0, 0), (9_999, 9_999), (10_000, 14_000), (12_500, 14_000), (14_000, 14_000)]
        {
            let taken_up = Duration::from_millis(taken_up);
            assert_eq!(latency.taken_up(Duration::from_millis(arrives)), taken_up, "{arrives}");
        }
    }
}
