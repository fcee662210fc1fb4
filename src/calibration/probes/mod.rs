//! The probes: each asks about a few facts, and notes what it saw.

mod connections;
mod limits;
mod registrations;
mod requests;

use super::Stopped;
use super::facts::Probe;
use super::prober::Prober;

/// How often a question is asked that makes nothing.
const REPEATS: usize = 3;

impl Prober<'_> {
    /// Makes a probe.
    pub(super) async fn make(&mut self, probe: Probe) -> Result<(), Stopped> {
        match probe {
            Probe::Signatures => self.probe_signatures().await,
            Probe::Messages => self.probe_messages().await,
            Probe::Topics => self.probe_topics().await,
            Probe::Refusals => self.probe_refusals().await,
            Probe::Certificates => self.probe_certificates().await,
            Probe::SigningRequests => self.probe_signing_requests().await,
            Probe::Registrations => self.probe_registrations().await,
            Probe::Capitals => self.probe_capitals().await,
            Probe::Omission => self.probe_omission().await,
            Probe::Limits => self.probe_limits().await,
            Probe::Expiry => self.probe_expiry().await,
        }
    }
}
