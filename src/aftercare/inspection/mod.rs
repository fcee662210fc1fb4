//! What a provisioned device should have in the account, what it has, and what may be removed.
//!
//! Pure: what the account has, and what the template makes of the row, are arguments.

mod differences;
mod publishing;
mod undoing;
mod wanted;

use std::collections::BTreeMap;

pub use differences::{Difference, differences};
pub use publishing::{Client, Publishable, topic_to_publish};
pub use undoing::{Begun, Keep, Made, Step, Undoing, Untouched, undo};
pub use wanted::{Expected, Wanted, WantedPolicy, WantedThing, Wanting, wanted};

/// What the account has of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its thing; `None` if the account has none of that name, or the device has no thing.
    pub thing: Option<SeenThing>,
    /// Its certificates in the order of the ledger, without those that the account does not have.
    pub certificates: Vec<SeenCertificate>,
}

impl Seen {
    /// The certificate of this id, if the account has it.
    pub fn certificate(&self, id: &str) -> Option<&SeenCertificate> {
        self.certificates.iter().find(|certificate| certificate.id == id)
    }
}

/// A thing of the account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenThing {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its billing group.
    pub billing_group: Option<String>,
    /// Its version: 1 when created, higher after each change of its type or attributes.
    pub version: i64,
    /// The groups that it is a direct member of; `None` if they were not read.
    pub groups: Option<Vec<String>>,
    /// The ARNs of its principals.
    pub principals: Vec<String>,
}

/// A certificate of the account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenCertificate {
    /// Its id.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// Its status, as the API writes it: `ACTIVE`.
    pub status: String,
    /// Whether it is the certificate that the ledger has under this id, byte by byte.
    pub is_as_recorded: bool,
    /// The policies attached to it.
    pub policies: Vec<SeenPolicy>,
    /// The names of the things that it is attached to.
    pub things: Vec<String>,
}

/// A policy that is attached to a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenPolicy {
    /// Its name.
    pub name: String,
    /// The document of its default version, JSON; `None` if it was not read.
    pub document: Option<String>,
}

/// Whether two documents are the same JSON, regardless of formatting.
fn is_same_json(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || read(one).is_some_and(|one| read(other) == Some(one))
}
