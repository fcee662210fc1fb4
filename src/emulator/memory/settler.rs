//! The simulated network's control plane: reads from the account whether a certificate was registered.
//!
//! Owns nothing but the query. It takes as long as a packet there and back, and fails as often as the faults say.

use futures::future::BoxFuture;

use super::{Network, Power};
use crate::certificate::{CertificateId, RegisteredThing};
use crate::control_plane::{Settlement, Settler};
use crate::emulator::account::{Account, CertificateStatus};

/// A client's access to the control plane of a network. It works while `power` is on.
#[derive(Debug, Clone)]
pub struct MemorySettler {
    network: Network,
    power: Power,
}

impl Network {
    /// A client's access to the account's control plane. It works while `power` is on.
    pub fn settler(&self, power: Power) -> MemorySettler {
        MemorySettler { network: self.clone(), power }
    }
}

impl Settler for MemorySettler {
    fn settle<'a>(&'a self, certificate: &'a CertificateId) -> BoxFuture<'a, Settlement> {
        Box::pin(async move {
            let (took, fails) = self.network.question();
            tokio::time::sleep(took).await;
            self.power.go_on().await;
            if fails {
                Settlement::Unsettled { detail: String::from("the control plane is not there") }
            } else {
                self.network.with_account(|account| look(account, certificate))
            }
        })
    }
}

fn look(account: &Account, certificate: &CertificateId) -> Settlement {
    let Some(found) = account.state().certificate(certificate.as_str()) else {
        return Settlement::NotRegistered;
    };
    match found.status {
        CertificateStatus::PendingActivation => Settlement::NotRegistered,
        CertificateStatus::Active | CertificateStatus::Inactive => {
            let thing_name = found.things.iter().next().unwrap_or_default().to_owned();
            Settlement::Registered(RegisteredThing { thing_name, device_configuration: Default::default() })
        }
        status @ CertificateStatus::Revoked => {
            Settlement::Unsettled { detail: format!("the certificate is {status:?}") }
        }
    }
}
