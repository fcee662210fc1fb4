//! AWS's own clients: what is asked of the account besides provisioning.
//!
//! Owns the settling of registrations whose answer was lost, the discovery of the data endpoint, the reading of quotas, and
//! AWS's credential chain. Registers, changes and deletes nothing in the account.

mod client;
mod credentials;
mod discovery;
mod quotas;
mod settle;
mod template;

pub use client::{AskError, AwsSettings};
pub use credentials::{Loaded, Loader, RefreshedCredentials, aws_chain, profile_region};
pub use discovery::data_endpoint;
pub use quotas::{AccountQuota, Quota, QuotaSource, account_quotas};
pub use settle::{ControlPlane, Settlement, Settler};
pub use template::{DescribedTemplate, describe_template};
