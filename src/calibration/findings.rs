//! What was seen: answers counted, and what they amount to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::facts::{Fact, REFUSED};
use super::throttle::Throttle;

/// A refusal in the service's own words, without names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `statusCode`.
    pub status: u16,
    /// `errorCode`.
    pub code: String,
    /// `errorMessage`.
    pub message: String,
}

impl Rejection {
    /// Whether it may be about the moment rather than the request.
    pub(super) fn may_pass(&self) -> bool {
        self.status == 429 || self.status >= 500
    }

    pub(super) fn said(&self) -> String {
        let Self { status, code, message } = self;
        format!("{REFUSED}: {status} {code}: {message}")
    }
}

/// An answer to a question about a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The answer, in words that are equal if the answers are.
    pub said: String,
    /// The refusal, if it was one.
    pub rejection: Option<Rejection>,
}

impl From<&str> for Observation {
    fn from(said: &str) -> Self {
        Self { said: said.to_owned(), rejection: None }
    }
}

impl From<Rejection> for Observation {
    fn from(rejection: Rejection) -> Self {
        Self { said: rejection.said(), rejection: Some(rejection) }
    }
}

/// A step whose duration is measured: the names of the keys in a scenario's `[latency]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timed {
    /// CONNECT to CONNACK.
    Connect,
    /// SUBSCRIBE to SUBACK.
    Subscribe,
    /// PUBLISH of a plain message to its delivery.
    Publish,
    /// CreateKeysAndCertificate.
    CreateKeys,
    /// CreateCertificateFromCsr.
    CreateFromCsr,
    /// RegisterThing.
    Register,
}

impl Timed {
    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            Timed::Connect => "connect",
            Timed::Subscribe => "subscribe",
            Timed::Publish => "publish",
            Timed::CreateKeys => "create_keys_and_certificate",
            Timed::CreateFromCsr => "create_certificate_from_csr",
            Timed::Register => "register_thing",
        }
    }
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    seen: BTreeMap<Fact, Vec<Observation>>,
    /// How long each step took, where it was accepted.
    pub took: BTreeMap<Timed, Vec<Duration>>,
    /// How long it took until a request was refused for what it is.
    pub refused: BTreeMap<Timed, Vec<Duration>>,
    /// The throttles of what was flooded; `None` if a flood met none that could be told.
    pub throttles: BTreeMap<Timed, Option<Throttle>>,
}

/// What the answers about a fact amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The answer that was seen most often.
    pub answer: Observation,
    /// How often it was seen.
    pub seen: usize,
    /// How many answers there were.
    pub of: usize,
}

impl Settled {
    /// Whether one answer stands for all: it is most of them.
    pub fn is_clear(&self) -> bool {
        2 * self.seen > self.of
    }
}

impl Findings {
    pub(super) fn note(&mut self, fact: Fact, observation: impl Into<Observation>) {
        self.seen.entry(fact).or_default().push(observation.into());
    }

    pub(super) fn time(&mut self, timed: Timed, took: Duration) {
        self.took.entry(timed).or_default().push(took);
    }

    pub(super) fn time_refusal(&mut self, timed: Timed, took: Duration) {
        self.refused.entry(timed).or_default().push(took);
    }

    /// The longest duration of a step so far, refused or not.
    pub(super) fn longest(&self, timed: Timed) -> Duration {
        let all = [&self.took, &self.refused].into_iter().filter_map(|took| took.get(&timed));
        all.flatten().max().copied().unwrap_or_default()
    }

    /// What the answers about a fact amount to; `None` if there are none.
    pub fn settled(&self, fact: Fact) -> Option<Settled> {
        let answers = self.seen.get(&fact)?;
        let count = |wanted: &Observation| answers.iter().filter(|answer| *answer == wanted).count();
        let answer = answers.iter().rev().max_by_key(|answer| count(answer))?;
        Some(Settled { answer: answer.clone(), seen: count(answer), of: answers.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_was_seen_most_often_counts_if_it_is_most_of_them() {
        let mut findings = Findings::default();
        assert_eq!(findings.settled(Fact::Keys), None);
        for said in ["a", "b", "b"] {
            findings.note(Fact::Keys, said);
        }
        let settled = findings.settled(Fact::Keys).unwrap();
        assert_eq!((settled.answer.said.as_str(), settled.seen, settled.of), ("b", 2, 3));
        assert!(settled.is_clear());
        findings.note(Fact::Keys, "a");
        assert!(!findings.settled(Fact::Keys).unwrap().is_clear());
    }
}
