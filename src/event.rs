//! What happens during a run, as plain values.
//!
//! Owns the two things a worker tells the recorder: a [`Change`], which the ledger must make durable, and a [`Note`],
//! which only the metrics hear of. Knows neither the ledger nor the metrics.

use std::time::Duration;

use crate::call::Call;
use crate::certificate::{CertificateId, IssuedCertificate, PreparedKey, RegisteredThing};
use crate::failure::Failure;

/// A device's number in its ledger: its row's rank in the lot, from 1.
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
    /// A message published to a topic that its own connection subscribes to, until it comes back. Load tests only.
    Publish,
    /// A whole device, from the instant it was due to its registration, which is durable. Load tests only.
    Provision,
}

impl Operation {
    /// All of them, in a device's order.
    pub const ALL: [Operation; 5] = [
        Operation::Connect,
        Operation::CreateCertificate,
        Operation::RegisterThing,
        Operation::Publish,
        Operation::Provision,
    ];

    /// What counts as the same operation as `call`.
    pub fn of(call: Call) -> Self {
        match call {
            Call::CreateKeysAndCertificate | Call::CreateCertificateFromCsr => Operation::CreateCertificate,
            Call::RegisterThing => Operation::RegisterThing,
            Call::Publish => Operation::Publish,
        }
    }

    /// The name in reports: stable, lower case.
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

/// Where a device stands. `Issued` means: it has a certificate, and a registration *may* have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceState {
    /// Nothing was sent, or nothing that counts came of it.
    Pending,
    /// A certificate and its key are durable.
    Issued,
    /// The service confirmed the registration.
    Registered,
    /// The service refused for good.
    Rejected,
    /// A registration was published, its answer never came, and nothing could settle it.
    Unknown,
    /// Its row is no longer in the lot; nothing was made for it that counts.
    Withdrawn,
    /// What was made for it was taken out of the account again.
    Removed,
}

impl DeviceState {
    /// The name in the ledger and in reports: stable, lower case.
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

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        use DeviceState::{Issued, Pending, Registered, Rejected, Removed, Unknown, Withdrawn};
        [Pending, Issued, Registered, Rejected, Unknown, Withdrawn, Removed]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// How sure we are that no registration of an issued certificate has reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// None was published.
    NotSent,
    /// One may have been.
    MaySent,
}

/// A step of a device that the ledger must make durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Pending stays Pending, and has from here on a key of its own, made here. It keeps it: no other is ever made for it.
    KeyPrepared {
        /// Whose.
        device: DeviceId,
        /// With the only copy of the private key.
        key: PreparedKey,
    },
    /// Pending → Issued, with a key that the service made.
    Issued {
        /// Whose.
        device: DeviceId,
        /// With the only copy of its key.
        certificate: IssuedCertificate,
    },
    /// Pending → Issued, for the key that was prepared.
    Certified {
        /// Whose.
        device: DeviceId,
        /// Without its key, which the ledger has.
        certificate: IssuedCertificate<()>,
    },
    /// Issued → Registered.
    Registered {
        /// Which.
        device: DeviceId,
        /// As the service said.
        thing: RegisteredThing,
    },
    /// Pending or Issued → Rejected, for good.
    Rejected {
        /// Which.
        device: DeviceId,
        /// Why.
        failure: Failure,
    },
    /// Issued → Unknown.
    Unknown {
        /// Which.
        device: DeviceId,
        /// What was last seen.
        failure: Failure,
    },
    /// Issued → Pending: the token went stale and surely nothing was registered with it.
    TokenLapsed {
        /// Which.
        device: DeviceId,
    },
    /// The run leaves the device in its state, to be taken up again: what is known of it, and why.
    Left {
        /// Which.
        device: DeviceId,
        /// Whether a registration may have happened; only looked at while the device is Issued.
        registration: Registration,
        /// The failure it was left for; none if the run was stopped.
        failure: Option<Failure>,
    },
}

impl Change {
    /// What it is called in the log.
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

    /// The certificate that it brings.
    pub(crate) fn certificate_id(&self) -> Option<&CertificateId> {
        match self {
            Change::Issued { certificate, .. } => Some(&certificate.certificate_id),
            Change::Certified { certificate, .. } => Some(&certificate.certificate_id),
            _ => None,
        }
    }

    /// The thing that it brings.
    pub(crate) fn thing_name(&self) -> Option<&str> {
        match self {
            Change::Registered { thing, .. } => Some(&thing.thing_name),
            _ => None,
        }
    }

    /// The failure that it was made for.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Change::Rejected { failure, .. } | Change::Unknown { failure, .. } => Some(failure),
            Change::Left { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }

    /// The device it is about.
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

/// How long one attempt of an operation took, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// From the instant the attempt was due to the instant it was sent: waiting for a limit, or for a connection.
    pub wait: Duration,
    /// From sending the request to its reply: the service time.
    pub service: Duration,
}

impl Timing {
    /// The wait and the service time in microseconds, for the log.
    pub(crate) fn micros(self) -> (u64, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        (micros(self.wait), micros(self.service))
    }

    /// From the due instant to the reply: the response time.
    pub fn response(self) -> Duration {
        self.wait + self.service
    }
}

/// The steps of opening a connection, each from the end of the one before; `None` where it did not get that far.
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

/// Something that happened, for the metrics only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A dial ended.
    Dialled {
        /// How long it took.
        timing: Timing,
        /// Its parts.
        phases: DialPhases,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// An exchange ended.
    Exchanged {
        /// Which request.
        operation: Operation,
        /// How long it took.
        timing: Timing,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// The instant of a load test's arrival has come: it was handed to a connection, or waits for one.
    Scheduled {
        /// From the instant it was due to the instant the generator got to it: how late the generator itself is.
        lateness: Duration,
    },
    /// A connection took an arrival up.
    Started,
    /// No connection was free for an arrival in time: it was given up, and nothing was sent for it.
    Missed,
    /// An arrival that takes more than one exchange ended. The failures in it have been told one by one.
    Finished {
        /// Which kind of arrival.
        operation: Operation,
        /// How long it took.
        timing: Timing,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// A connection ended by itself while it waited.
    ConnectionLost {
        /// How.
        failure: Failure,
    },
    /// Something that is only counted.
    Counted(Counter, u64),
}

/// What is counted beside attempts and their ends. All of them are in every report: metrics, results files, summaries and
/// scrapes go by [`Counter::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Connections that ended by themselves.
    ConnectionsLost,
    /// Connections that were closed for their age.
    ConnectionsRenewed,
    /// Registrations that the control plane confirmed.
    Settled,
    /// Replies that were delivered again.
    Redelivered,
}

impl Counter {
    /// All of them, in the order of the declaration.
    pub const ALL: [Counter; 4] =
        [Counter::ConnectionsLost, Counter::ConnectionsRenewed, Counter::Settled, Counter::Redelivered];

    /// The name in reports and files: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Counter::ConnectionsLost => "connections_lost",
            Counter::ConnectionsRenewed => "connections_renewed",
            Counter::Settled => "settled",
            Counter::Redelivered => "redelivered",
        }
    }

    /// What is counted, as a sentence that begins with it.
    pub fn meaning(self) -> &'static str {
        match self {
            Counter::ConnectionsLost => "Connections that ended by themselves while they waited.",
            Counter::ConnectionsRenewed => {
                "Connections that were replaced for their age, before the service would end them."
            }
            Counter::Settled => "Registrations whose answer was lost and which the control plane confirmed.",
            Counter::Redelivered => "Replies that came again and were ignored.",
        }
    }
}
