//! Where a run's private keys come from, and how they are kept.
//!
//! Owns the one way of a key in plain text into the ledger: through [`KeyPolicy::keep`], which seals it if it is to be sealed.

use crate::certificate::{PreparedKey, Secret, StoredKey};
use crate::keys::{self, KeyType};
use crate::sealing::Sealer;

/// What a run does about private keys.
#[derive(Debug, Clone, Default)]
pub struct KeyPolicy {
    /// Who makes them.
    pub source: KeySource,
    /// Whom they are sealed to before the ledger gets them; `None` keeps them in plain text.
    pub seal_to: Option<Sealer>,
}

/// Who makes a device's key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySource {
    /// The service, with CreateKeysAndCertificate.
    #[default]
    Service,
    /// We; the service certifies it, with CreateCertificateFromCsr.
    Local(KeyType),
}

impl KeyPolicy {
    /// A key as the ledger is to get it.
    pub(super) fn keep(&self, key: Secret<String>) -> StoredKey {
        match &self.seal_to {
            None => StoredKey::Plain(key),
            Some(sealer) => StoredKey::Sealed(sealer.seal(&key)),
        }
    }

    /// A new key pair, as the ledger is to get it. Takes a core up to seconds.
    pub(super) fn prepare(&self, key_type: KeyType) -> PreparedKey {
        let PreparedKey { private_key, request } = keys::prepare(key_type)
            .expect("the library makes keys as long as there are randomness and memory");
        PreparedKey { private_key: self.keep(private_key), request }
    }
}

#[cfg(test)]
mod tests;
