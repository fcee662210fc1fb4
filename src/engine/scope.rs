//! Which of a ledger's open devices a run takes up.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ledger::OpenDevice;

/// Which of a ledger's open devices a run takes up: all by default.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Takes only devices with these keys; `None` takes any key.
    pub keys: Option<Arc<HashSet<String>>>,
    /// Takes no device with one of these keys.
    pub except: Arc<HashSet<String>>,
    /// Takes at most this many, in the order of the lot; `None` is unlimited.
    pub most: Option<u64>,
}

impl Scope {
    /// Whether all open devices are taken.
    pub fn is_all(&self) -> bool {
        self.keys.is_none() && self.most.is_none() && self.except.is_empty()
    }

    /// Whether this device is taken, after `before` devices that were.
    pub fn takes(&self, device: &OpenDevice, before: u64) -> bool {
        let key = &device.identity.key;
        !self.is_full(before)
            && self.keys.as_ref().is_none_or(|keys| keys.contains(key))
            && !self.except.contains(key)
    }

    /// Whether no more than `taken` devices are wanted.
    pub fn is_full(&self, taken: u64) -> bool {
        self.most.is_some_and(|most| taken >= most)
    }
}
