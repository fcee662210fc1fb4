//! What changed in the account, as records that came, changed or went: what a journal needs to keep. A change holds the
//! whole record, so that taking one twice is taking it once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::random::Random;
use super::state::{
    BillingGroup, Certificate, Claim, Counters, Detachment, Policy, ProvisioningTemplate, State, Thing,
    ThingGroup, ThingType, Token,
};

/// Changes that belong together, and what stands beside the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    records: Vec<Record>,
    random: Random,
    counters: Counters,
}

/// A kind of record, each of which has a map in the state.
pub(in crate::emulator) trait Kind: Clone {
    /// What names one.
    type Name: Clone + Ord;
    /// What people call it.
    const NOUN: &'static str;

    fn map(state: &State) -> &BTreeMap<Self::Name, Self>;
    fn map_mut(state: &mut State) -> &mut BTreeMap<Self::Name, Self>;
    fn key(name: Self::Name) -> Key;
}

macro_rules! kinds {
    ($($kind:ident: $name:ty => $map:ident, $noun:literal;)*) => {
        /// A record by its name; `None` once it is gone.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Record {
            $($kind($name, Option<$kind>),)*
        }

        /// Which record was touched.
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

/// The records that were touched since somebody last asked; nothing is noted until somebody wants to know.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// For a journal, if there is one.
    keys: Option<Vec<Key>>,
    /// Ids of certificates, if somebody wants to know of them.
    certificates: Option<Vec<Fingerprint>>,
}

impl Touched {
    /// From now on, touched records are noted.
    pub(super) fn watch(&mut self) {
        self.keys.get_or_insert_default();
    }

    /// From now on, touched certificates are noted by themselves too.
    pub(super) fn watch_certificates(&mut self) {
        self.certificates.get_or_insert_default();
    }

    /// The certificates that were touched since the last call.
    pub(super) fn take_certificates(&mut self) -> Vec<Fingerprint> {
        self.certificates.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// This record was touched.
    pub(super) fn add(&mut self, key: Key) {
        if let (Some(certificates), Key::Certificate(id)) = (&mut self.certificates, &key) {
            certificates.push(*id);
        }
        if let Some(keys) = &mut self.keys {
            keys.push(key);
        }
    }

    /// What was touched since the last call, as it is now.
    pub(super) fn take(&mut self, state: &State) -> Option<Changes> {
        let keys = self.keys.as_mut().filter(|keys| !keys.is_empty())?;
        let records = keys.drain(..).map(|key| state.record(key)).collect();
        Some(Changes { records, random: state.random.clone(), counters: state.counters.clone() })
    }
}

impl Changes {
    /// Puts `later` behind these.
    pub fn append(&mut self, later: Changes) {
        self.records.extend(later.records);
        self.random = later.random;
        self.counters = later.counters;
    }
}

impl State {
    /// Takes changes that were made to a state like this one.
    pub fn apply(&mut self, changes: Changes) {
        for record in changes.records {
            // When a token lapses belongs to it.
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
