//! What changed in the account, as records that came, changed or went: what a journal needs to keep.
//!
//! Owns the form of a change and how a state takes it again. Writes no file. A change holds the whole record, so that taking
//! one twice is taking it once.

use serde::{Deserialize, Serialize};

use super::random::Random;
use super::state::{Certificate, Counters, Policy, State, Thing, Token};

/// Changes that belong together, and what stands beside the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    records: Vec<Record>,
    random: Random,
    counters: Counters,
}

/// A record by its key; none if it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Certificate(String, Option<Certificate>),
    Token(String, Option<Token>),
    Thing(String, Option<Thing>),
    Policy(String, Option<Policy>),
}

/// Which record was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Certificate(String),
    Token(String),
    Thing(String),
    Policy(String),
}

/// The records that were touched since somebody last asked; nothing is noted until somebody wants to know.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// For a journal, if there is one.
    keys: Option<Vec<Key>>,
    /// Ids of certificates, if somebody wants to know of them.
    certificates: Option<Vec<String>>,
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
    pub(super) fn take_certificates(&mut self) -> Vec<String> {
        self.certificates.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The record that `kind` makes of this name was touched.
    pub(super) fn add(&mut self, kind: fn(String) -> Key, name: &str) {
        if self.keys.is_none() && self.certificates.is_none() {
            return;
        }
        let key = kind(name.to_owned());
        if let (Some(certificates), Key::Certificate(id)) = (&mut self.certificates, &key) {
            certificates.push(id.clone());
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
    fn record(&self, key: Key) -> Record {
        match key {
            Key::Certificate(id) => {
                let certificate = self.certificates.get(&id).cloned();
                Record::Certificate(id, certificate)
            }
            Key::Token(digest) => {
                let token = self.tokens.get(&digest).cloned();
                Record::Token(digest, token)
            }
            Key::Thing(name) => {
                let thing = self.things.get(&name).cloned();
                Record::Thing(name, thing)
            }
            Key::Policy(name) => {
                let policy = self.policies.get(&name).cloned();
                Record::Policy(name, policy)
            }
        }
    }

    /// Takes changes that were made to a state like this one.
    pub fn apply(&mut self, changes: Changes) {
        for record in changes.records {
            match record {
                Record::Certificate(id, certificate) => put(&mut self.certificates, id, certificate),
                Record::Token(digest, token) => self.put_token(digest, token),
                Record::Thing(name, thing) => put(&mut self.things, name, thing),
                Record::Policy(name, policy) => put(&mut self.policies, name, policy),
            }
        }
        self.random = changes.random;
        self.counters = changes.counters;
    }

    /// A token and the instant at which it lapses belong together.
    fn put_token(&mut self, digest: String, token: Option<Token>) {
        if let Some(old) = self.tokens.remove(&digest) {
            self.lapses.remove(&(old.expires, digest.clone()));
        }
        if let Some(token) = token {
            self.lapses.insert((token.expires, digest.clone()));
            self.tokens.insert(digest, token);
        }
    }
}

fn put<V>(map: &mut std::collections::BTreeMap<String, V>, key: String, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
