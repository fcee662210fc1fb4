//! The emulated AWS account: certificates, ownership tokens, things, policies, templates and quotas.
//!
//! Owns what CreateKeysAndCertificate, CreateCertificateFromCsr and RegisterThing do and answer. Pure: `now` is an argument, the randomness is its
//! own and seeded, certificates come ready made. Has no socket, no session and no key: the server and the simulated network call it, and
//! [`super::mint`] makes what they hand in. Source: AWS IoT Developer Guide, "Device provisioning MQTT API".
//!
//! Thing types, groups, billing groups and named policies are taken to exist: they come into being when first named.

mod admission;
mod answer;
mod change;
mod claim;
mod latency;
mod limits;
mod permissions;
pub(in crate::emulator) mod random;
mod rate_counter;
mod register;
mod registry;
mod request;
mod route;
mod state;
mod token;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::certificate::Secret;

use super::scenario::{
    CertificateIdMismatch, ErrorTexts, Limits, OverrideDefault, Quotas, Refusal, Scenario, TemplateSource,
    TokenReuse,
};
use crate::template::{Template, TemplateError};

pub use answer::{Answer, Verdict};
pub use change::Changes;
pub use latency::Operation;
pub use permissions::{Action, Principal};
pub use rate_counter::{Counting, RateCounter};
pub use registry::{Deletion, RegistryError};
pub use route::{Route, route};
pub use state::{Certificate, CertificateStatus, Counters, Policy, State, Thing, Token};

pub(super) use random::Random;
pub(super) use registry::{no_certificate, no_thing};

use admission::Admission;
use answer::Refused;
use change::Touched;
use latency::LatencyDraws;

/// A certificate and key, ready to be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Lower-case hexadecimal SHA-256 of the certificate's DER.
    pub certificate_id: String,
    /// Its private key, PEM.
    pub private_key_pem: Secret<String>,
}

/// A certificate for a client's own key, ready to be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Lower-case hexadecimal SHA-256 of the certificate's DER.
    pub certificate_id: String,
}

/// The account: its rules, from the scenario, and its state.
#[derive(Debug)]
pub struct Account {
    rules: Rules,
    templates: BTreeMap<String, Template>,
    state: State,
    touched: Touched,
    latencies: LatencyDraws,
    admission: Admission,
}

/// What the scenario says of the account's behaviour.
#[derive(Debug)]
struct Rules {
    capitals: Capitals,
    token_lifetime: Duration,
    token_reuse: TokenReuse,
    certificate_id_mismatch: CertificateIdMismatch,
    override_default: OverrideDefault,
    errors: ErrorTexts,
    limits: Limits,
    /// Actions that no signer may do.
    denied: Vec<String>,
    region: String,
    account_id: String,
}

/// What to do with `Parameters` in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capitals {
    Taken,
    Ignored,
}

/// Why a scenario does not make an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A template of the scenario is not one.
    #[error("template {name}: {error}")]
    Template {
        /// Which.
        name: String,
        /// What is wrong with it.
        error: TemplateError,
    },
    /// Two templates of the scenario have the same name.
    #[error("template {name}: found it twice; wanted each name once")]
    TemplateTwice {
        /// Which.
        name: String,
    },
    /// A template of the scenario was never read from its file.
    #[error(
        "template {name}: found the name of a file; wanted its text: read the scenario with Scenario::read"
    )]
    TemplateNotRead {
        /// Which.
        name: String,
    },
}

impl Account {
    /// A new account as `scenario` describes it, with nothing in it.
    ///
    /// # Errors
    /// [`AccountError`] if a template of the scenario cannot be used.
    pub fn new(scenario: &Scenario) -> Result<Self, AccountError> {
        Self::resume(scenario, State::new(scenario.seed))
    }

    /// An account as `scenario` describes it, with what `state` says is in it.
    ///
    /// # Errors
    /// [`AccountError`] if a template of the scenario cannot be used.
    pub fn resume(scenario: &Scenario, state: State) -> Result<Self, AccountError> {
        let rules = Rules {
            capitals: if scenario.strict { Capitals::Ignored } else { Capitals::Taken },
            token_lifetime: scenario.token_lifetime,
            token_reuse: scenario.token_reuse,
            certificate_id_mismatch: scenario.certificate_id_mismatch,
            override_default: scenario.override_default,
            errors: scenario.errors.clone(),
            limits: scenario.limits,
            denied: scenario.deny.clone(),
            region: scenario.region.clone(),
            account_id: scenario.account_id.clone(),
        };
        Ok(Self {
            rules,
            templates: read_templates(scenario)?,
            state,
            touched: Touched::default(),
            latencies: LatencyDraws::new(scenario),
            admission: Admission::new(&scenario.quotas),
        })
    }

    /// Empties the account, and counts its quotas anew. `scenario` is the one that it was made of, or one whose templates are
    /// known to be good; with any other the account stays as it is.
    pub fn reset(&mut self, scenario: &Scenario) {
        if let Ok(mut fresh) = Self::new(scenario) {
            fresh.touched = std::mem::take(&mut self.touched);
            *self = fresh;
        }
    }

    /// Everything the account knows, to look at or to store.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The quotas that it keeps to.
    pub fn quotas(&self) -> &Quotas {
        self.admission.quotas()
    }

    /// What its connections may be and hold.
    pub fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// Notes from now on what changes, for [`Account::take_changes`].
    pub fn watch_changes(&mut self) {
        self.touched.watch();
    }

    /// What has changed since the last call, if anything has: a rejection changes only counters, which alone are no change.
    pub fn take_changes(&mut self) -> Option<Changes> {
        self.touched.take(&self.state)
    }

    /// When what arrives at `age` is taken up, both from the account's start: see [`Latency::taken_up`](super::scenario::Latency::taken_up).
    pub fn taken_up(&self, age: Duration) -> Duration {
        self.latencies.latency.taken_up(age)
    }

    /// How long the next operation of this kind takes, from being taken up to its answer, by the scenario's law. What the
    /// quotas refuse is refused at once.
    pub fn draw_latency(&mut self, operation: Operation) -> Duration {
        self.latencies.draw(operation)
    }

    /// CreateKeysAndCertificate: takes `minted` into the account, waiting for its registration, and hands it out with an
    /// ownership token. The request has no content: empty and any JSON object will do.
    pub fn create_keys(&mut self, now: SystemTime, payload: &[u8], minted: Minted) -> Answer {
        if let Err(refused) = request::check_create(payload) {
            return self.answer_refused(&refused);
        }
        let Minted { certificate_pem, certificate_id, .. } = minted.clone();
        match self.take_in(now, Certified { certificate_pem, certificate_id }) {
            Ok(token) => Answer::created(&minted, &token),
            Err(refused) => self.answer_refused(&refused),
        }
    }

    /// The signing request, PEM, in a CreateCertificateFromCsr request.
    ///
    /// # Errors
    /// The rejection to send, if there is none.
    pub fn signing_request(&mut self, payload: &[u8]) -> Result<String, Answer> {
        request::parse_csr(payload).map_err(|refused| self.answer_refused(&refused))
    }

    /// CreateCertificateFromCsr: takes the certificate that was made of the signing request into the account, waiting for its
    /// registration, and hands it out with an ownership token. The same request twice makes two certificates.
    pub fn create_from_csr(&mut self, now: SystemTime, certified: Certified) -> Answer {
        match self.take_in(now, certified.clone()) {
            Ok(token) => Answer::certified(&certified, &token),
            Err(refused) => self.answer_refused(&refused),
        }
    }

    /// A token for the new certificate.
    fn take_in(&mut self, now: SystemTime, certified: Certified) -> Result<String, Refused> {
        if self.state.certificates.contains_key(&certified.certificate_id) {
            let detail = "the new certificate is one that the account has already";
            return Err(Refused::new(Refusal::Internal, detail));
        }
        let token = token::issue(&mut self.state.random, &certified.certificate_id);
        let (lifetime, digest) = (self.rules.token_lifetime, token::digest(&token));
        self.state.admit_certificate(now, lifetime, digest, certified, &mut self.touched);
        Ok(token)
    }

    /// RegisterThing with the template of that name: thing, certificate status and policies as the template says, all or
    /// nothing. A rejection spends no token.
    pub fn register(&mut self, now: SystemTime, template: &str, payload: &[u8]) -> Answer {
        match self.try_register(now, template, payload) {
            Ok(answer) => {
                self.state.counters.registered += 1;
                answer
            }
            Err(refused) => self.answer_refused(&refused),
        }
    }

    /// The rejection for `refusal` in the scenario's words, for refusals that the caller decides on. Counted as any other.
    pub fn refuse(&mut self, refusal: Refusal) -> Answer {
        self.refuse_for(refusal, "")
    }

    /// The same, with what is to blame.
    pub fn refuse_for(&mut self, refusal: Refusal, detail: &str) -> Answer {
        self.answer_refused(&Refused::new(refusal, detail))
    }

    /// Forgets what has lapsed by `now`: ownership tokens past their lifetime, and their certificates where they were not
    /// activated and are attached to nothing.
    pub fn expire(&mut self, now: SystemTime) {
        self.state.expire(now, &mut self.touched);
    }

    fn answer_refused(&mut self, refused: &Refused) -> Answer {
        self.state.counters.rejected += 1;
        Answer::refused(refused, &self.rules.errors)
    }
}

fn read_templates(scenario: &Scenario) -> Result<BTreeMap<String, Template>, AccountError> {
    let mut templates = BTreeMap::new();
    for named in &scenario.templates {
        let name = named.name.clone();
        let TemplateSource::Body(body) = &named.source else {
            return Err(AccountError::TemplateNotRead { name });
        };
        let template = match Template::parse(body) {
            Ok(template) => template,
            Err(error) => return Err(AccountError::Template { name, error }),
        };
        if templates.insert(name.clone(), template).is_some() {
            return Err(AccountError::TemplateTwice { name });
        }
    }
    Ok(templates)
}

#[cfg(test)]
mod tests;
