//! What a device that was provisioned should have in the account, what it has, and what may be taken away again.
//!
//! Pure: what the account has is an argument, as is what the template makes of the row. Asking the account is done elsewhere.

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
    /// Its thing; `None` if there is none of that name, or the device has no thing.
    pub thing: Option<SeenThing>,
    /// Its certificates, in the order in which the ledger got them; those that the account does not have are left out.
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
    /// How often its type or attributes were changed, 1 for a thing as it was made.
    pub version: i64,
    /// The groups that it is in itself; `None` where nobody asked.
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
    /// Whether it is, byte by byte, the one that the ledger has under this id.
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
    /// The document of its default version, JSON; `None` where nobody asked.
    pub document: Option<String>,
}

/// Whether two documents are the same JSON, however they are written.
fn is_same_json(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || read(one).is_some_and(|one| read(other) == Some(one))
}
