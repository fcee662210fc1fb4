//! Probes of requests: wrong ones, which make nothing, and those for certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::super::Stopped;
use super::super::facts::Fact;
use super::super::findings::Timed;
use super::super::prober::{Answer, Hearing, Prober};
use super::REPEATS;
use crate::call::Call;
use crate::event::Change;
use crate::keys::{KeyType, prepare};
use crate::ledger::Receipt;
use crate::provisioning::{Topics, create_request, csr_request, parse_certified};
use crate::transport::RawEvent;

/// How many answers of each kind of certificate are wanted for its latency; they also serve other probes.
const CREATED: usize = 10;
const CERTIFIED: usize = 5;

/// How often it is tried whether an answer comes without a subscription.
const UNSUBSCRIBED: usize = 2;

impl Prober<'_> {
    pub(super) async fn probe_refusals(&mut self) -> Result<(), Stopped> {
        let register = self.topics.register.clone();
        let (create, csr) = (self.topics.create.clone(), self.topics.create_from_csr.clone());
        let nowhere = format!("no-such-{:08x}", rand::random::<u32>());
        let unknown = Topics::new(&nowhere).register;
        for _ in 0..REPEATS {
            let foreign = foreign_token();
            let token = |token: &str| bytes(&json!({"certificateOwnershipToken": token, "parameters": {}}));
            let not_pem = json!({"certificateSigningRequest": "this is not a certification request"});
            for (fact, call, topics, payload) in [
                (Fact::EmptyToken, Call::RegisterThing, &register, token("")),
                (Fact::ForeignToken, Call::RegisterThing, &register, token(&foreign)),
                (Fact::InvalidPayload, Call::CreateKeysAndCertificate, &create, bytes(&json!([]))),
                (Fact::InvalidCsr, Call::CreateCertificateFromCsr, &csr, bytes(&not_pem)),
            ] {
                if self.is_not_refused(fact) {
                    continue;
                }
                let answer = self.ask_until_clear(call, topics, payload).await?;
                self.keep_unwanted(&answer)?;
                self.note_refusal(fact, answer, "");
            }
        }
        // With a good token, so that there is nothing else to blame.
        let Some(held) = self.certificate().await? else { return Ok(()) };
        for _ in 0..REPEATS {
            if self.is_not_refused(Fact::UnknownTemplate) {
                break;
            }
            let payload = bytes(&json!({"certificateOwnershipToken": held.token.expose(), "parameters": {}}));
            let answer = self.ask_until_clear(Call::RegisterThing, &unknown, payload).await?;
            self.note_refusal(Fact::UnknownTemplate, answer, &nowhere);
        }
        self.aging = Some(held);
        Ok(())
    }

    /// Whether a request that should be refused was taken, or met with silence: it is not sent again, as it may make
    /// something, and takes long.
    fn is_not_refused(&self, fact: Fact) -> bool {
        self.findings.settled(fact).is_some_and(|settled| settled.answer.rejection.is_none())
    }

    /// Keeps the certificate of a request that should have been refused, and counts it.
    pub(super) fn keep_unwanted(&mut self, answer: &Answer) -> Result<(), Stopped> {
        if let Answer::Accepted(_) = answer
            && let Some(device) = self.spend_certificate()
        {
            self.keep(device, answer)?;
        }
        Ok(())
    }

    pub(super) async fn probe_certificates(&mut self) -> Result<(), Stopped> {
        for _ in 0..UNSUBSCRIBED {
            self.probe_without_subscription().await?;
        }
        self.probe_witness().await
    }

    /// Whether an answer comes without a subscription. A certificate whose answer does not come lapses.
    async fn probe_without_subscription(&mut self) -> Result<(), Stopped> {
        let Some(device) = self.spend_certificate() else { return Ok(()) };
        let payload = create_request().payload;
        let answer = self.ask(Call::CreateKeysAndCertificate, payload, Hearing::NotSubscribed).await?;
        match &answer {
            Answer::Accepted(_) | Answer::Rejected(_) => {
                self.findings.note(Fact::WithoutSubscription, "comes")
            }
            Answer::Silence => self.findings.note(Fact::WithoutSubscription, "does not come"),
            Answer::Lost => {}
        }
        self.keep(device, &answer)?;
        Ok(())
    }

    /// Whether another connection that subscribes to the same topics gets an answer too.
    async fn probe_witness(&mut self) -> Result<(), Stopped> {
        let topics = self.topics.register.clone();
        for _ in 0..REPEATS {
            let mut witness = self.open(&[&topics.accepted, &topics.rejected]).await?;
            let payload = bytes(&json!({"certificateOwnershipToken": "", "parameters": {}}));
            let answer = self.ask(Call::RegisterThing, payload, Hearing::Subscribed).await?;
            let until = Instant::now() + (self.findings.longest(Timed::Register) * 2).max(LISTENING);
            let heard = loop {
                match witness.next(until).await {
                    Some((_, RawEvent::Message { .. })) => break Some(true),
                    Some((_, RawEvent::Ended(_))) => break None,
                    Some(_) => {}
                    None => break Some(false),
                }
            };
            witness.close().await;
            match (answer, heard) {
                (Answer::Accepted(_) | Answer::Rejected(_), Some(false)) => {
                    self.findings.note(Fact::AnswerConnection, "the one that asked");
                }
                (Answer::Accepted(_) | Answer::Rejected(_), Some(true)) => {
                    self.findings.note(Fact::AnswerConnection, "all of them");
                }
                (Answer::Silence, Some(true)) => {
                    self.findings.note(Fact::AnswerConnection, "another than the one that asked");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Certificates for keys that are made here; and more with keys of the service, for the latencies of both.
    pub(super) async fn probe_signing_requests(&mut self) -> Result<(), Stopped> {
        for _ in 0..CERTIFIED {
            self.certified().await?;
        }
        // What the registrations need stays.
        while self.certificates_left() > FOR_REGISTRATIONS
            && self.findings.took.get(&Timed::CreateKeys).map_or(0, Vec::len) < CREATED
        {
            self.certificate().await?;
        }
        Ok(())
    }

    async fn certified(&mut self) -> Result<(), Stopped> {
        if !self.may_certify {
            return Ok(());
        }
        let Some(device) = self.spend_certificate() else { return Ok(()) };
        let Ok(key) = prepare(KeyType::P256) else { return Ok(()) };
        let key =
            crate::certificate::PreparedKey { private_key: key.private_key.into(), request: key.request };
        let number = self.device_id(device);
        let receipts = self.commit(Change::KeyPrepared { device: number, key })?;
        let Some(Receipt::KeyPrepared(request)) = receipts.into_iter().next() else { return Ok(()) };
        let payload = csr_request(&request).payload;
        let answer = self.ask(Call::CreateCertificateFromCsr, payload, Hearing::Subscribed).await?;
        let certified = match &answer {
            Answer::Accepted(payload) => parse_certified(payload).ok(),
            _ => None,
        };
        match certified {
            Some(certificate) => {
                self.record(device, |device| Change::Certified { device, certificate })?;
            }
            // A device keeps its key: the next certificate needs another device.
            None => self.pass_over(device),
        }
        Ok(())
    }
}

/// How long a witness listens at least.
const LISTENING: std::time::Duration = std::time::Duration::from_secs(1);

/// How many certificates the probes after these need, and some to spare.
const FOR_REGISTRATIONS: usize = 9;

fn bytes(value: &serde_json::Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// A token of the form that the service's own have, which it did not issue.
fn foreign_token() -> String {
    let cipher: Vec<u8> = (0..300).map(|_| rand::random()).collect();
    STANDARD.encode(json!({"version": "20191023", "cipher": STANDARD.encode(cipher)}).to_string())
}
