//! The emulated AWS account: certificates, ownership tokens, things, policies, templates and quotas.
//!
//! Owns what CreateKeysAndCertificate, CreateCertificateFromCsr and RegisterThing do and answer, and the records that
//! the control plane works on. Pure: `now` is an argument, randomness is seeded, and certificates are made elsewhere.
//! It has no sockets, sessions or keys: the server and the simulated network call it with certificates that
//! [`super::mint`] makes. Source: AWS IoT Developer Guide, "Device provisioning MQTT API".

mod admission;
mod answer;
mod change;
mod claim;
mod fingerprint;
mod latency;
pub(in crate::emulator) mod limits;
mod packed;
mod permissions;
pub(in crate::emulator) mod random;
mod rate_counter;
mod register;
mod registry;
mod request;
mod resources;
mod route;
mod state;
mod subject;
mod token;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::certificate::Secret;

use super::policy::Document;
use super::scenario::{
    CertificateIdMismatch, ClaimOfSigner, ErrorTexts, Limits, MissingParameter, OverrideDefault, Quotas,
    Refusal, Resources, Scenario, TokenReuse,
};
use crate::template::{Template, TemplateError};

pub use admission::OperationCounts;
pub use answer::{Answer, Verdict};
pub use change::Changes;
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use latency::Operation;
pub use packed::{Attributes, CertificatePem, Names};
pub use permissions::{Action, Principal};
pub use rate_counter::{Counting, RateCounter};
pub use register::{HookCall, ParameterOverrides, Registrant};
pub use registry::{Deletion, RegistryError};
pub use route::{Route, route};
pub use state::{
    Attachment, BillingGroup, Certificate, CertificateStatus, Claim, Counters, Detached, Detachment, Hook,
    Origin, Policy, ProvisioningTemplate, State, Thing, ThingGroup, ThingType, Token, Version, Versions,
};

pub(super) use answer::Refused;

pub(super) use random::Random;
pub(super) use register::evaluate;
pub(super) use registry::check_version;

use admission::Admission;
use change::Touched;
use latency::LatencyDraws;

/// A certificate and its private key, ready to be handed out.
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
    /// The parsed default versions of the templates.
    templates: BTreeMap<String, Template>,
    state: State,
    touched: Touched,
    latencies: LatencyDraws,
    admission: Admission,
}

/// What the scenario says about the account's behaviour.
#[derive(Debug)]
struct Rules {
    capitals: Capitals,
    token_lifetime: Duration,
    token_reuse: TokenReuse,
    certificate_id_mismatch: CertificateIdMismatch,
    override_default: OverrideDefault,
    claim_of_signer: ClaimOfSigner,
    missing_parameter: MissingParameter,
    resources: Resources,
    detach_lag: Duration,
    errors: ErrorTexts,
    limits: Limits,
    /// Actions that are denied to all signers.
    denied: Vec<String>,
    /// The policies of access keys that are not allowed everything.
    access_keys: BTreeMap<String, Document>,
    region: String,
    account_id: String,
}

/// How to treat a capitalised `Parameters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capitals {
    Taken,
    Ignored,
}

/// Why a scenario cannot be made into an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A template of the scenario is invalid.
    #[error("template {name}: {error}")]
    Template {
        /// The template's name.
        name: String,
        /// What is wrong with it.
        error: TemplateError,
    },
    /// Two templates of the scenario have the same name.
    #[error("template {name}: found it twice; wanted each name once")]
    TemplateTwice {
        /// The template's name.
        name: String,
    },
    /// A policy of the scenario is invalid.
    #[error("policy {name}: {detail}")]
    Policy {
        /// The policy's name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The scenario denies an action that the emulator never checks.
    #[error(
        "deny: found {action}, which the emulator enforces nowhere; wanted an action of an operation that it offers, or \
         iot:Connect, iot:Publish, iot:Subscribe or iot:Receive"
    )]
    NotEnforced {
        /// The denied action.
        action: String,
    },
    /// A quota is set for a control plane operation that the emulator does not offer.
    #[error(
        "quotas.control_plane: found {name}; wanted the name of an operation that the emulator offers, such as DescribeThing"
    )]
    NoSuchOperation {
        /// The name found in the scenario.
        name: String,
    },
    /// A template of the scenario was not read from its file.
    #[error(
        "template {name}: found the name of a file; wanted its text: read the scenario with Scenario::read"
    )]
    TemplateNotRead {
        /// The template's name.
        name: String,
    },
}

impl Account {
    /// A new account as `scenario` describes it.
    ///
    /// # Errors
    /// [`AccountError`] if a template of the scenario cannot be used.
    pub fn new(scenario: &Scenario) -> Result<Self, AccountError> {
        Self::resume(scenario, State::new(scenario.seed))
    }

    /// An account as `scenario` describes it, with the contents of `state`.
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
            claim_of_signer: scenario.claim_of_signer,
            missing_parameter: scenario.missing_parameter,
            resources: scenario.resources,
            detach_lag: scenario.detach_lag,
            errors: scenario.errors.clone(),
            limits: scenario.limits,
            denied: scenario.deny.clone(),
            access_keys: documents_of_keys(scenario)?,
            region: scenario.region.clone(),
            account_id: scenario.account_id.clone(),
        };
        let mut account = Self {
            rules,
            templates: BTreeMap::new(),
            state,
            touched: Touched::default(),
            latencies: LatencyDraws::new(scenario),
            admission: Admission::new(&scenario.quotas),
        };
        account.state.index();
        account.declare(scenario)?;
        for (name, record) in &account.state.templates {
            let template = Template::parse(record.bodies.current())
                .map_err(|error| AccountError::Template { name: name.clone(), error })?;
            account.templates.insert(name.clone(), template);
        }
        Ok(account)
    }

    /// Empties the account and resets its quota counters. `scenario` must be the one that the account was made from, or
    /// one whose templates are known to be valid; with any other, the account stays as it is.
    pub fn reset(&mut self, scenario: &Scenario) {
        if let Ok(mut fresh) = Self::new(scenario) {
            fresh.touched = std::mem::take(&mut self.touched);
            *self = fresh;
        }
    }

    /// The account's entire state, for inspection or storage.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The account's quotas.
    pub fn quotas(&self) -> &Quotas {
        self.admission.quotas()
    }

    /// The limits on its connections.
    pub fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// Starts recording changes for [`Account::take_changes`].
    pub fn watch_changes(&mut self) {
        self.touched.watch();
    }

    /// The changes since the last call; `None` if there were none. A rejection changes only counters, which alone do
    /// not count as a change.
    pub fn take_changes(&mut self) -> Option<Changes> {
        self.touched.take(&self.state)
    }

    /// When a request that arrives at `age` is taken up. Both count from the account's start: see
    /// [`Latency::taken_up`](super::scenario::Latency::taken_up).
    pub fn taken_up(&self, age: Duration) -> Duration {
        self.latencies.latency.taken_up(age)
    }

    /// Draws how long the next operation of this kind takes, from being taken up to its answer, by the scenario's law.
    /// Requests that the quotas refuse are refused at once.
    pub fn draw_latency(&mut self, operation: Operation) -> Duration {
        self.latencies.draw(operation)
    }

    /// CreateKeysAndCertificate: adds `minted` to the account, pending registration, and answers with it and an
    /// ownership token. The request has no content: an empty payload and any JSON object are accepted.
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
    /// The rejection to send, if the request has none.
    pub fn signing_request(&mut self, payload: &[u8]) -> Result<String, Answer> {
        request::parse_csr(payload).map_err(|refused| self.answer_refused(&refused))
    }

    /// CreateCertificateFromCsr: adds the certificate made from the signing request to the account, pending
    /// registration, and answers with it and an ownership token. The same request twice makes two certificates.
    pub fn create_from_csr(&mut self, now: SystemTime, certified: Certified) -> Answer {
        match self.take_in(now, certified.clone()) {
            Ok(token) => Answer::certified(&certified, &token),
            Err(refused) => self.answer_refused(&refused),
        }
    }

    /// Adds a new certificate to the account and issues its token.
    fn take_in(&mut self, now: SystemTime, certified: Certified) -> Result<String, Refused> {
        let id = certified.certificate_id.parse::<Fingerprint>();
        let id = id.map_err(|wrong| {
            Refused::new(Refusal::Internal, format!("the new certificate's id is {wrong}"))
        })?;
        if self.state.certificates.contains_key(&id) {
            let detail = "the new certificate is one that the account has already";
            return Err(Refused::new(Refusal::Internal, detail));
        }
        let token = token::issue(&mut self.state.random, &certified.certificate_id);
        let (lifetime, digest) = (self.rules.token_lifetime, Fingerprint::of(token.as_bytes()));
        let pem = &certified.certificate_pem;
        self.state.admit_certificate(now, lifetime, (digest, id), pem, &mut self.touched);
        Ok(token)
    }

    /// RegisterThing with the named template: makes the thing, and sets certificate status and policies as the template
    /// says, all or nothing. A rejection does not spend the token.
    pub fn register(&mut self, now: SystemTime, template: &str, payload: &[u8]) -> Answer {
        self.register_with(now, template, payload, &ParameterOverrides::new())
    }

    /// RegisterThing with the parameters that a pre-provisioning hook added: see [`Account::hook_call`].
    pub fn register_with(
        &mut self,
        now: SystemTime,
        template: &str,
        payload: &[u8],
        overrides: &ParameterOverrides,
    ) -> Answer {
        match self.try_register(now, template, payload, overrides) {
            Ok(answer) => {
                self.state.counters.registered += 1;
                answer
            }
            Err(refused) => self.answer_refused(&refused),
        }
    }

    /// The rejection for `refusal` in the scenario's words, for refusals that the caller decides on. It is counted like
    /// any other.
    pub fn refuse(&mut self, refusal: Refusal) -> Answer {
        self.refuse_for(refusal, "")
    }

    /// The rejection for `refusal` in the scenario's words, with `detail` saying what caused it. It is counted like any
    /// other.
    pub fn refuse_for(&mut self, refusal: Refusal, detail: &str) -> Answer {
        self.answer_refused(&Refused::new(refusal, detail))
    }

    /// Applies everything due by `now`: ownership tokens lapse, along with their certificates if these are neither
    /// activated nor attached to anything; provisioning claims end; detachments take effect.
    pub fn expire(&mut self, now: SystemTime) {
        self.state.expire(now, &mut self.touched);
    }

    /// Adds a provisioning template to the account. Devices may register with it from now on.
    ///
    /// # Errors
    /// [`TemplateError`] if its default version cannot be read.
    pub(super) fn put_template(
        &mut self,
        name: &str,
        record: ProvisioningTemplate,
    ) -> Result<(), TemplateError> {
        let template = Template::parse(record.bodies.current())?;
        self.templates.insert(name.to_owned(), template);
        self.put(name.to_owned(), record);
        Ok(())
    }

    fn answer_refused(&mut self, refused: &Refused) -> Answer {
        self.state.counters.rejected += 1;
        Answer::refused(refused, &self.rules.errors)
    }
}

/// The parsed policies of the scenario's access keys.
fn documents_of_keys(scenario: &Scenario) -> Result<BTreeMap<String, Document>, AccountError> {
    let limited =
        scenario.credentials.iter().filter_map(|key| Some((&key.access_key_id, key.document.as_ref()?)));
    let read = limited.map(|(key, document)| match Document::parse_any_length(document) {
        Ok(document) => Ok((key.clone(), document)),
        Err(error) => {
            let name = format!("of access key {key}");
            Err(AccountError::Policy { name, detail: error.to_string() })
        }
    });
    read.collect()
}

impl Rules {
    fn arn(&self, resource: &str, name: &str) -> String {
        format!("arn:aws:iot:{}:{}:{resource}/{name}", self.region, self.account_id)
    }
}

#[cfg(test)]
mod tests;
