//! Changes to the account, as a journal needs them. A change holds the whole record, so applying it twice has the same
//! effect as applying it once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::random::Random;
use super::state::{
    BillingGroup, Certificate, Claim, Counters, Detachment, Policy, ProvisioningTemplate, State, Thing,
    ThingGroup, ThingType, Token,
};

/// Changes that belong together, with the state that is kept beside the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    records: Vec<Record>,
    random: Random,
    counters: Counters,
}

/// A kind of record. The state has a map for each kind.
pub(in crate::emulator) trait Kind: Clone {
    /// What identifies a record of this kind.
    type Name: Clone + Ord;
    /// The kind's name in messages.
    const NOUN: &'static str;

    fn map(state: &State) -> &BTreeMap<Self::Name, Self>;
    fn map_mut(state: &mut State) -> &mut BTreeMap<Self::Name, Self>;
    fn key(name: Self::Name) -> Key;
}

macro_rules! kinds {
    ($($kind:ident: $name:ty => $map:ident, $noun:literal;)*) => {
        /// A record with its name; `None` if it was removed.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Record {
            $($kind($name, Option<$kind>),)*
        }

        /// Identifies a record that was touched.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(in crate::emulator) enum Key {
            $($kind($name),)*
        }

        $(impl Kind for $kind {
            type Name = $name;
            const NOUN: &'static str = $noun;

            fn map(state: &State) -> &BTreeMap<$name, Self> {
                &state.$map
            }

            fn map_mut(state: &mut State) -> &mut BTreeMap<$name, Self> {
                &mut state.$map
            }

            fn key(name: $name) -> Key {
                Key::$kind(name)
            }
        })*

        impl State {
            fn record(&self, key: Key) -> Record {
                match key {
                    $(Key::$kind(name) => {
                        let record = self.$map.get(&name).cloned();
                        Record::$kind(name, record)
                    })*
                }
            }

            fn take(&mut self, record: Record) {
                match record {
                    $(Record::$kind(name, Some(record)) => {
                        self.$map.insert(name, record);
                    }
                    Record::$kind(name, None) => {
                        self.$map.remove(&name);
                    })*
                }
            }
        }
    };
}

kinds! {
    Certificate: Fingerprint => certificates, "Certificate";
    Token: Fingerprint => tokens, "Token";
    Thing: String => things, "Thing";
    Policy: String => policies, "Policy";
    ThingType: String => thing_types, "Thing type";
    ThingGroup: String => thing_groups, "Thing group";
    BillingGroup: String => billing_groups, "Billing group";
    ProvisioningTemplate: String => templates, "Provisioning template";
    Claim: Fingerprint => claims, "Claim";
    Detachment: u64 => detaching, "Detachment";
}

/// The records touched since the last time they were taken. Nothing is recorded until a watcher asks for it.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Keys of touched records, if a journal is watching.
    keys: Option<Vec<Key>>,
    /// Ids of touched certificates, if they are being watched.
    certificates: Option<Vec<Fingerprint>>,
}

impl Touched {
    /// Starts recording touched records.
    pub(super) fn watch(&mut self) {
        self.keys.get_or_insert_default();
    }

    /// Starts recording touched certificates separately.
    pub(super) fn watch_certificates(&mut self) {
        self.certificates.get_or_insert_default();
    }

    /// Takes the certificates touched since the last call.
    pub(super) fn take_certificates(&mut self) -> Vec<Fingerprint> {
        self.certificates.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records that this record was touched.
    pub(super) fn add(&mut self, key: Key) {
        if let (Some(certificates), Key::Certificate(id)) = (&mut self.certificates, &key) {
            certificates.push(*id);
        }
        if let Some(keys) = &mut self.keys {
            keys.push(key);
        }
    }

    /// Takes the records touched since the last call, in their present state.
    pub(super) fn take(&mut self, state: &State) -> Option<Changes> {
        let keys = self.keys.as_mut().filter(|keys| !keys.is_empty())?;
        let records = keys.drain(..).map(|key| state.record(key)).collect();
        Some(Changes { records, random: state.random.clone(), counters: state.counters.clone() })
    }
}

impl Changes {
    /// Appends `later` to these changes.
    pub fn append(&mut self, later: Changes) {
        self.records.extend(later.records);
        self.random = later.random;
        self.counters = later.counters;
    }
}

impl State {
    /// Applies changes that were made to an equal state.
    pub fn apply(&mut self, changes: Changes) {
        for record in changes.records {
            // The token's expiry index entry goes with it.
            if let Record::Token(digest, token) = &record {
                if let Some(old) = self.tokens.get(digest) {
                    self.lapses.remove(&(old.expires, *digest));
                }
                self.lapses.extend(token.iter().map(|token| (token.expires, *digest)));
            }
            self.take(record);
        }
        self.random = changes.random;
        self.counters = changes.counters;
    }
}
