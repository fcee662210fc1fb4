//! AWS's own clients: requests to the account besides provisioning.
//!
//! Owns the pace of control plane requests, the settling of registrations whose answer was lost, the discovery of the
//! data endpoint, the reading of quotas, and AWS's credential chain. An operation is a row in `operation` and a
//! method of [`ControlPlane`].

mod asking;
mod caller;
mod client;
mod clock;
mod credentials;
mod discovery;
mod operation;
mod pace;
mod places;
mod principals;
mod quotas;
mod registry;
mod settle;
mod template;

pub use asking::ControlPlane;
pub use caller::{Caller, caller};
pub use client::{AskError, AwsSettings};
pub use credentials::{Loaded, Loader, NoClient, RefreshedCredentials, aws_chain, profile_region};
pub use places::{ConfiguredEndpoints, configured_endpoints};
pub use principals::DescribedCertificate;
pub use quotas::{AccountQuota, QuotaSource, account_quotas};
pub use registry::DescribedThing;
pub use settle::{Settlement, Settler};
pub use template::{DescribedTemplate, NewTemplate};
