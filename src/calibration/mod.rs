//! Finds out how an account behaves where no documentation says it.
//!
//! Owns the questions ([`facts`]), how they are asked (`probes`), and what the answers become: a report and a scenario.
//! Knows nothing of the emulator but the keys of its scenarios, which it writes as text: an emulator of ours and this must
//! not agree on a mistake.

pub mod facts;
mod findings;
mod law;
mod prober;
mod probes;
mod report;
mod subject;
mod throttle;

use std::time::Duration;

pub use facts::{Fact, Probe};
pub use findings::{Findings, Observation, Rejection, Settled, Timed};
pub use law::Law;
pub use prober::{MOST_CERTIFICATES, MOST_THINGS};
pub use report::{About, json, scenario, text};
pub use subject::{Subject, roles};
pub use throttle::{Counting, Flood, Throttle};

use crate::failure::Failure;
use crate::ledger::{Ledger, LedgerError};
use crate::transport::wss::WssConnector;

/// How to calibrate.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// A topic that a policy denies to these credentials; `None` if none is known.
    pub denied_topic: Option<String>,
    /// Whether requests are flooded to find their throttles.
    pub limits: bool,
    /// The age at which a token must have expired; `None` leaves that out.
    pub expired_after: Option<Duration>,
}

/// How many messages are sent, of two bytes each.
pub const MESSAGES: usize = 5;

/// How many requests per second a flood has: several times AWS's own quotas, which are 10 and 20 per second.
pub const FLOOD_PER_S: u32 = 60;

/// How long a flood lasts.
pub const FLOOD_TIME: Duration = Duration::from_secs(5);

/// The topic of the messages.
pub fn topic_of_messages(subject: &Subject) -> String {
    let key = subject.devices.first().map_or("", |(_, device)| device.key.as_str());
    format!("fleetmint/calibrate/{key}")
}

/// Why a calibration ended before its end.
#[derive(Debug)]
pub enum Stopped {
    /// The service cannot be reached.
    Unreachable(Failure),
    /// The topics of answers cannot be subscribed to.
    NoSubscription,
    /// The ledger cannot be written.
    Ledger(LedgerError),
}

/// Makes all probes. What was found until it stopped is returned, too.
pub async fn run(
    connector: &WssConnector,
    subject: &Subject,
    settings: &Settings,
    ledger: &mut Ledger,
    mut tell: impl FnMut(Probe),
) -> (Findings, Option<Stopped>) {
    let mut prober = prober::Prober::new(connector, subject, settings, ledger);
    for probe in Probe::ALL {
        tell(probe);
        if let Err(stopped) = prober.make(probe).await {
            return (prober.findings, Some(stopped));
        }
    }
    (prober.findings, None)
}
