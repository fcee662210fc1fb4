//! Probes that register: each thing that they make is in the ledger before.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use tokio::time::sleep_until;

use super::super::Stopped;
use super::super::facts::{Fact, REFUSED, TAKEN};
use super::super::findings::{Observation, Rejection};
use super::super::prober::{Answer, Hearing, Held, Prober, TRIES, kept_for_expiry, pause_after};
use crate::call::Call;
use crate::certificate::RegisteredThing;
use crate::event::Change;
use crate::provisioning::parse_registered;

type Parameters = BTreeMap<String, String>;

impl Prober<'_> {
    /// Two things: the first's token is used again, the second gets another certificate.
    pub(super) async fn probe_registrations(&mut self) -> Result<(), Stopped> {
        for second in [false, true] {
            let Some(held) = self.certificate().await? else { return Ok(()) };
            let parameters = self.parameters_of(&held);
            let Some((answer, held)) = self.register(held, &body("parameters", &parameters)).await? else {
                continue;
            };
            let Some(thing) = registered(&answer) else { continue };
            self.can_register = true;
            self.names_tell |= self.subject.thing(&parameters, &held.id).as_ref() == Some(&thing.thing_name);
            if !second {
                let device = self.device_id(held.device);
                self.commit(Change::Registered { device, thing: thing.clone() })?;
            }
            self.use_again(&held, &parameters, &thing).await?;
            if second {
                self.add_certificate(held, &parameters, thing).await?;
            }
        }
        Ok(())
    }

    /// Registers with a token that has registered.
    async fn use_again(
        &mut self,
        held: &Held,
        parameters: &Parameters,
        thing: &RegisteredThing,
    ) -> Result<(), Stopped> {
        let topics = self.topics.register.clone();
        let payload = payload(held, &body("parameters", parameters));
        let answer = self.ask_until_clear(Call::RegisterThing, &topics, payload).await?;
        match registered(&answer) {
            Some(again) if again == *thing => {
                self.findings.note(Fact::UsedToken, "taken, with the same answer")
            }
            Some(_) => self.findings.note(Fact::UsedToken, "taken, with another answer"),
            None => self.note_refusal(Fact::UsedToken, answer, &thing.thing_name),
        }
        Ok(())
    }

    /// Registers another certificate with the parameters of one that is registered. In the ledger it takes the place of
    /// the first, which is retired there and so is removed with it.
    async fn add_certificate(
        &mut self,
        first: Held,
        parameters: &Parameters,
        thing: RegisteredThing,
    ) -> Result<(), Stopped> {
        let device = self.device_id(first.device);
        self.commit(Change::TokenLapsed { device })?;
        self.reuse(first.device);
        let Some(held) = self.certificate().await? else { return Ok(()) };
        let Some((answer, held)) = self.register(held, &body("parameters", parameters)).await? else {
            return Ok(());
        };
        match registered(&answer) {
            Some(again) if again.thing_name == thing.thing_name => {
                self.findings.note(Fact::SecondCertificate, "taken, for the same thing");
                // It made none.
                self.things_left += 1;
                let device = self.device_id(held.device);
                self.commit(Change::Registered { device, thing: again })?;
            }
            Some(_) => self.findings.note(Fact::SecondCertificate, "taken, for another thing"),
            None => self.note_refusal(Fact::SecondCertificate, answer, &thing.thing_name),
        }
        Ok(())
    }

    pub(super) async fn probe_capitals(&mut self) -> Result<(), Stopped> {
        if !self.can_register {
            return Ok(());
        }
        let Some(held) = self.certificate().await? else { return Ok(()) };
        let parameters = self.parameters_of(&held);
        let expected = self.subject.telling_thing(&parameters, &held.id).filter(|_| self.names_tell);
        let Some((answer, held)) = self.register(held, &body("Parameters", &parameters)).await? else {
            return Ok(());
        };
        if let Answer::Rejected(rejection) = answer {
            return self.compare_with_none(held, rejection).await;
        }
        let Some(thing) = registered(&answer) else { return Ok(()) };
        if let Some(expected) = expected {
            let said = if expected == thing.thing_name { TAKEN } else { "ignored" };
            self.findings.note(Fact::CapitalisedParameters, said);
        }
        self.commit(Change::Registered { device: self.device_id(held.device), thing })?;
        Ok(())
    }

    /// Whether `Parameters` were refused as no parameters are. Any other refusal does not tell whether they were read.
    async fn compare_with_none(&mut self, held: Held, refusal: Rejection) -> Result<(), Stopped> {
        let Some((answer, held)) = self.register(held, &body("parameters", &Parameters::new())).await? else {
            return Ok(());
        };
        if let Some(thing) = registered(&answer) {
            self.commit(Change::Registered { device: self.device_id(held.device), thing })?;
        }
        let refusal = self.anonymous(refusal, "");
        if let Answer::Rejected(none) = answer
            && self.anonymous(none, "") == refusal
        {
            let Rejection { status, code, .. } = refusal;
            let said = format!("{REFUSED}, as if there were none: {status} {code}");
            self.findings.note(Fact::CapitalisedParameters, Observation { said, rejection: None });
        }
        Ok(())
    }

    pub(super) async fn probe_omission(&mut self) -> Result<(), Stopped> {
        if !self.can_register {
            return Ok(());
        }
        let (name, device) = self.subject.left_out.clone();
        self.reuse(device);
        let Some(held) = self.certificate().await? else { return Ok(()) };
        let mut parameters = self.parameters_of(&held);
        parameters.remove(&name);
        let Some((answer, held)) = self.register(held, &body("parameters", &parameters)).await? else {
            return Ok(());
        };
        match registered(&answer) {
            Some(thing) => {
                self.findings.note(Fact::MissingParameter, "taken, as if it were empty");
                self.commit(Change::Registered { device: self.device_id(held.device), thing })?;
            }
            None => self.note_refusal(Fact::MissingParameter, answer, &name),
        }
        Ok(())
    }

    /// Waits until the token that was kept has expired.
    pub(super) async fn probe_expiry(&mut self) -> Result<(), Stopped> {
        let (Some(age), Some(held)) = (self.settings.expired_after, self.aging.take()) else { return Ok(()) };
        self.things_left += kept_for_expiry(self.settings);
        if self.things_left == 0 || !self.can_register {
            return Ok(());
        }
        sleep_until(held.since + age).await;
        let parameters = self.parameters_of(&held);
        if let Some((answer, held)) = self.register(held, &body("parameters", &parameters)).await? {
            if let Some(thing) = registered(&answer) {
                self.commit(Change::Registered { device: self.device_id(held.device), thing })?;
            }
            self.note_refusal(Fact::ExpiredToken, answer, "");
        }
        Ok(())
    }

    fn parameters_of(&self, held: &Held) -> Parameters {
        self.subject.parameters(self.identity(held.device), &held.id)
    }

    /// Registers a certificate, until it is not throttled; `None` if it is throttled each time, a thing may have been made
    /// and the answer is lost, or no more things may be made. The ledger has the certificate, and so whatever becomes of it.
    async fn register(
        &mut self,
        held: Held,
        body: &(&'static str, serde_json::Value),
    ) -> Result<Option<(Answer, Held)>, Stopped> {
        for attempt in 1..=TRIES {
            if self.things_left == 0 {
                return Ok(None);
            }
            let answer = self.ask(Call::RegisterThing, payload(&held, body), Hearing::Subscribed).await?;
            match &answer {
                Answer::Rejected(rejection) if rejection.status == 429 => pause_after(attempt).await,
                Answer::Rejected(rejection) if rejection.status < 500 => return Ok(Some((answer, held))),
                Answer::Accepted(_) => {
                    self.things_left -= 1;
                    return Ok(Some((answer, held)));
                }
                // It may have been done.
                Answer::Rejected(_) | Answer::Silence | Answer::Lost => {
                    self.things_left -= 1;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

fn body(name: &'static str, parameters: &Parameters) -> (&'static str, serde_json::Value) {
    (name, json!(parameters))
}

fn payload(held: &Held, (name, parameters): &(&'static str, serde_json::Value)) -> Bytes {
    Bytes::from(json!({"certificateOwnershipToken": held.token.expose(), *name: parameters}).to_string())
}

fn registered(answer: &Answer) -> Option<RegisteredThing> {
    match answer {
        Answer::Accepted(payload) => parse_registered(payload).ok(),
        _ => None,
    }
}
