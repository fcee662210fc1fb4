//! What is read from a ledger, as plain values.

use std::time::SystemTime;

use super::Recorded;
use super::binding::Binding;
use crate::certificate::{IssuedCertificate, SigningRequest};
use crate::csr::{self, RequestFault};
use crate::event::{DeviceId, Registration};
use crate::identity::{Identity, LotShape, ParameterPlan};

/// The lot that a ledger was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotInfo {
    /// The name of its file.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// Its columns.
    pub shape: LotShape,
    /// How many devices it has.
    pub devices: u64,
    /// What the ledger is bound to.
    pub binding: Binding,
    /// When it was imported, RFC 3339.
    pub created_at: String,
}

/// A device that still needs work.
#[derive(Debug)]
pub struct OpenDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its row.
    pub identity: Identity,
    /// The next step.
    pub work: Work,
}

impl OpenDevice {
    /// The device's own certification request. It is part of the row, and so as durable as that.
    ///
    /// # Errors
    /// If the row has no readable request.
    pub fn own_request(&self, parameters: &ParameterPlan) -> Result<Recorded<SigningRequest>, RequestFault> {
        let text = parameters.request(&self.identity).unwrap_or_default();
        csr::read(text.as_bytes()).map(Recorded::new)
    }
}

/// The next step for an open device.
#[derive(Debug)]
pub enum Work {
    /// It is Pending: get it a certificate.
    Create,
    /// It is Pending, and has a key made here: get that certified. No other key is ever made for it.
    Certify {
        /// The request for its key.
        request: Recorded<SigningRequest>,
    },
    /// It is Issued: register its certificate.
    Register {
        /// The certificate, with its key and token.
        certificate: Recorded<IssuedCertificate>,
        /// When the ledger received it, which is no earlier than when it was issued; the token's age counts from then.
        issued_at: SystemTime,
        /// Whether a registration may have happened already.
        registration: Registration,
    },
}

/// How many devices are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Pending.
    pub pending: u64,
    /// Issued, and certainly not registered.
    pub issued_not_sent: u64,
    /// Issued, and possibly registered.
    pub issued_may_sent: u64,
    /// Registered.
    pub registered: u64,
    /// Rejected.
    pub rejected: u64,
    /// Unknown.
    pub unknown: u64,
    /// Removed from the account again.
    pub removed: u64,
    /// Withdrawn: their rows are no longer in the lot.
    pub withdrawn: u64,
}

impl Counts {
    /// Issued devices, whether possibly registered or not.
    pub fn issued(&self) -> u64 {
        self.issued_not_sent + self.issued_may_sent
    }

    /// Devices that still need work.
    pub fn open(&self) -> u64 {
        self.pending + self.issued()
    }

    /// All devices of the lot, which excludes withdrawn ones.
    pub fn total(&self) -> u64 {
        self.open() + self.registered + self.rejected + self.unknown + self.removed
    }
}

/// A process that has a ledger open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// Its process id, if known.
    pub pid: Option<u32>,
}
