//! What happens during a run, as plain values.
//!
//! Owns the two things that a worker tells the recorder: a [`Change`], which the ledger must make durable, and a
//! [`Note`], which only the metrics receive. Knows neither the ledger nor the metrics.

use std::time::Duration;

use crate::call::Call;
use crate::certificate::{CertificateId, IssuedCertificate, PreparedKey, RegisteredThing};
use crate::failure::Failure;

/// A device's number in its ledger: the position of its row in the lot, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub i64);

/// The operations that are timed and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a connection: TCP, TLS, upgrade, CONNACK and SUBACK.
    Connect,
    /// CreateKeysAndCertificate, or CreateCertificateFromCsr.
    CreateCertificate,
    /// RegisterThing.
    RegisterThing,
    /// A message published to a topic that the same connection subscribes to, until it comes back. Load tests only.
    Publish,
    /// A whole device, from the instant it was due until its registration is durable. Load tests only.
    Provision,
}

impl Operation {
    /// All operations, in the order in which a device goes through them.
    pub const ALL: [Operation; 5] = [
        Operation::Connect,
        Operation::CreateCertificate,
        Operation::RegisterThing,
        Operation::Publish,
        Operation::Provision,
    ];

    /// The operation that `call` is counted as.
    pub fn of(call: Call) -> Self {
        match call {
            Call::CreateKeysAndCertificate | Call::CreateCertificateFromCsr => Operation::CreateCertificate,
            Call::RegisterThing => Operation::RegisterThing,
            Call::Publish => Operation::Publish,
        }
    }

    /// The operation's name in reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Connect => "connect",
            Operation::CreateCertificate => "create_certificate",
            Operation::RegisterThing => "register_thing",
            Operation::Publish => "publish",
            Operation::Provision => "provision",
        }
    }
}

/// The state of a device. `Issued` means that it has a certificate, and that a registration *may* have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceState {
    /// Nothing was sent, or nothing with a lasting result.
    Pending,
    /// A certificate and its key are durable.
    Issued,
    /// The service confirmed the registration.
    Registered,
    /// The service refused the device for good.
    Rejected,
    /// A registration was published, its answer never came, and nothing could settle the outcome.
    Unknown,
    /// Its row is no longer in the lot, and nothing lasting was made for it.
    Withdrawn,
    /// What was made for it was removed from the account again.
    Removed,
}

impl DeviceState {
    /// The state's name in the ledger and in reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            DeviceState::Pending => "pending",
            DeviceState::Issued => "issued",
            DeviceState::Registered => "registered",
            DeviceState::Rejected => "rejected",
            DeviceState::Unknown => "unknown",
            DeviceState::Withdrawn => "withdrawn",
            DeviceState::Removed => "removed",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        use DeviceState::{Issued, Pending, Registered, Rejected, Removed, Unknown, Withdrawn};
        [Pending, Issued, Registered, Rejected, Unknown, Withdrawn, Removed]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Whether a registration of an issued certificate may have reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// No registration was published.
    NotSent,
    /// A registration may have been published.
    MaySent,
}

/// A change to a device that the ledger must make durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Pending stays Pending, but now has a key that was made here. The device keeps this key; no other is ever made
    /// for it.
    KeyPrepared {
        /// The device.
        device: DeviceId,
        /// The only copy of the private key.
        key: PreparedKey,
    },
    /// Pending → Issued, with a key that the service made.
    Issued {
        /// The device.
        device: DeviceId,
        /// The certificate, with the only copy of its key.
        certificate: IssuedCertificate,
    },
    /// Pending → Issued, for the key that was prepared here.
    Certified {
        /// The device.
        device: DeviceId,
        /// The certificate without its key, which the ledger already has.
        certificate: IssuedCertificate<()>,
    },
    /// Issued → Registered.
    Registered {
        /// The device.
        device: DeviceId,
        /// The thing in the service's reply.
        thing: RegisteredThing,
    },
    /// Pending or Issued → Rejected, for good.
    Rejected {
        /// The device.
        device: DeviceId,
        /// Why.
        failure: Failure,
    },
    /// Issued → Unknown.
    Unknown {
        /// The device.
        device: DeviceId,
        /// The last failure.
        failure: Failure,
    },
    /// Issued → Pending: the token expired, and certainly nothing was registered with it.
    TokenLapsed {
        /// The device.
        device: DeviceId,
    },
    /// The run leaves the device in its state, to be resumed by a later run.
    Left {
        /// The device.
        device: DeviceId,
        /// Whether a registration may have happened; only used while the device is Issued.
        registration: Registration,
        /// Why it was left; `None` if the run was stopped.
        failure: Option<Failure>,
    },
}

impl Change {
    /// The change's name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Change::KeyPrepared { .. } => "key_prepared",
            Change::Issued { .. } => "issued",
            Change::Certified { .. } => "certified",
            Change::Registered { .. } => "registered",
            Change::Rejected { .. } => "rejected",
            Change::Unknown { .. } => "unknown",
            Change::TokenLapsed { .. } => "token_lapsed",
            Change::Left { .. } => "left",
        }
    }

    /// The certificate in this change.
    pub(crate) fn certificate_id(&self) -> Option<&CertificateId> {
        match self {
            Change::Issued { certificate, .. } => Some(&certificate.certificate_id),
            Change::Certified { certificate, .. } => Some(&certificate.certificate_id),
            _ => None,
        }
    }

    /// The thing in this change.
    pub(crate) fn thing_name(&self) -> Option<&str> {
        match self {
            Change::Registered { thing, .. } => Some(&thing.thing_name),
            _ => None,
        }
    }

    /// The failure that caused this change.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Change::Rejected { failure, .. } | Change::Unknown { failure, .. } => Some(failure),
            Change::Left { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }

    /// The device that this change is about.
    pub fn device(&self) -> DeviceId {
        match self {
            Change::KeyPrepared { device, .. }
            | Change::Issued { device, .. }
            | Change::Certified { device, .. }
            | Change::Registered { device, .. }
            | Change::Rejected { device, .. }
            | Change::Unknown { device, .. }
            | Change::TokenLapsed { device }
            | Change::Left { device, .. } => *device,
        }
    }
}

/// How long one attempt of an operation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// From the instant the attempt was due until it was sent: waiting for a limit or a connection.
    pub wait: Duration,
    /// From sending the request to its reply.
    pub service: Duration,
}

impl Timing {
    /// The wait and the service time in microseconds, for the log.
    pub(crate) fn micros(self) -> (u64, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        (micros(self.wait), micros(self.service))
    }

    /// The response time: from the due instant to the reply.
    pub fn response(self) -> Duration {
        self.wait + self.service
    }
}

/// The steps of opening a connection, each from the end of the one before; `None` if the dial did not complete the
/// step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DialPhases {
    /// Name lookup and TCP connection.
    pub tcp: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// HTTP upgrade.
    pub upgrade: Option<Duration>,
    /// CONNECT to CONNACK.
    pub connack: Option<Duration>,
    /// SUBSCRIBE to SUBACK.
    pub suback: Option<Duration>,
}

/// An event for the metrics only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A dial ended.
    Dialled {
        /// How long it took.
        timing: Timing,
        /// How long each step took.
        phases: DialPhases,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// An exchange ended.
    Exchanged {
        /// The operation.
        operation: Operation,
        /// How long it took.
        timing: Timing,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// A load test's arrival is due: it was handed to a connection, or waits for one.
    Scheduled {
        /// From the due instant until the generator handled it: the generator's own lateness.
        lateness: Duration,
    },
    /// A connection began an arrival.
    Started,
    /// No connection was free for an arrival in time: it was dropped, and nothing was sent for it.
    Missed,
    /// An arrival of several exchanges ended. Its failures were reported one by one.
    Finished {
        /// The operation that the arrival stands for.
        operation: Operation,
        /// How long it took.
        timing: Timing,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// A waiting connection ended without our doing.
    ConnectionLost {
        /// Why it ended.
        failure: Failure,
    },
    /// An event that is only counted.
    Counted(Counter, u64),
}

/// What is counted besides attempts and their outcomes. Metrics, results files, summaries and scrapes iterate over
/// [`Counter::ALL`], so every counter is in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Connections that ended without our doing.
    ConnectionsLost,
    /// Connections that were closed because of their age, or because an answer named no thing.
    ConnectionsRenewed,
    /// Registrations that the control plane confirmed.
    Settled,
    /// Replies that were delivered more than once.
    Redelivered,
}

impl Counter {
    /// All counters, in the order of declaration.
    pub const ALL: [Counter; 4] =
        [Counter::ConnectionsLost, Counter::ConnectionsRenewed, Counter::Settled, Counter::Redelivered];

    /// The counter's name in reports and files: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Counter::ConnectionsLost => "connections_lost",
            Counter::ConnectionsRenewed => "connections_renewed",
            Counter::Settled => "settled",
            Counter::Redelivered => "redelivered",
        }
    }

    /// What is counted, as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Counter::ConnectionsLost => "Connections that ended by themselves while they waited.",
            Counter::ConnectionsRenewed => {
                "Connections that were replaced for their age, or after an answer that names no thing."
            }
            Counter::Settled => "Registrations whose answer was lost and which the control plane confirmed.",
            Counter::Redelivered => "Replies that came again and were ignored.",
        }
    }
}
