//! Where a run's private keys come from, and how they are kept.
//!
//! Owns the only way of a plain-text key into the ledger: [`KeyPolicy::keep`], which seals the key if the policy says
//! so.

use std::fmt;
use std::sync::Arc;

use crate::certificate::{PreparedKey, Secret, StoredKey};
use crate::keys::{self, KeyType};
use crate::sealing::Sealer;
use crate::service::Quota;

/// What a run does about private keys.
#[derive(Debug, Clone, Default)]
pub struct KeyPolicy {
    /// Who makes the keys.
    pub source: KeySource,
    /// How to make keys that the service does not make.
    pub maker: KeyMaker,
    /// Whom keys are sealed to before they reach the ledger; `None` keeps them in plain text.
    pub seal_to: Option<Sealer>,
}

/// Who makes a device's key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySource {
    /// The service, with CreateKeysAndCertificate.
    #[default]
    Service,
    /// This program; the service certifies the key, with CreateCertificateFromCsr.
    Local(KeyType),
    /// The device, which keeps the key to itself. The service certifies it with the request in the device's row,
    /// which the parameter plan finds. In load tests the service makes keys instead.
    Device,
}

impl KeySource {
    /// The quota that certificates for these keys count against.
    pub fn create_quota(self) -> Quota {
        match self {
            KeySource::Service => Quota::CreateKeysAndCertificate,
            KeySource::Local(_) | KeySource::Device => Quota::CreateCertificateFromCsr,
        }
    }
}

/// How to make keys that the service does not make.
#[derive(Clone, Default)]
pub enum KeyMaker {
    /// From the machine's randomness, of the type that [`KeySource::Local`] names.
    #[default]
    Random,
    /// Taken from a stock of ready-made keys: for simulations, whose keys must depend on a seed.
    Stock(Arc<dyn Fn() -> PreparedKey<Secret<String>> + Send + Sync>),
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyMaker::Random => "Random",
            KeyMaker::Stock(_) => "Stock",
        })
    }
}

impl KeyPolicy {
    /// A key in the form that the ledger stores.
    pub(super) fn keep(&self, key: Secret<String>) -> StoredKey {
        match &self.seal_to {
            None => StoredKey::Plain(key),
            Some(sealer) => StoredKey::Sealed(sealer.seal(&key)),
        }
    }

    /// A new key pair, in the form that the ledger stores. Keeps a core busy for up to seconds.
    pub(super) fn prepare(&self, key_type: KeyType) -> PreparedKey {
        let PreparedKey { private_key, request } = match &self.maker {
            KeyMaker::Random => keys::prepare(key_type)
                .expect("the library makes keys as long as there are randomness and memory"),
            KeyMaker::Stock(take) => take(),
        };
        PreparedKey { private_key: self.keep(private_key), request }
    }
}

#[cfg(test)]
mod tests;
