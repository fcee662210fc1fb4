//! The service at the network's end: what becomes of a request that has arrived, and what is sent back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::super::super::account::{Answer, Operation, Route, Verdict, route};
use super::super::super::fault::{Fate, spoil};
use super::super::super::mint::CertifyError;
use super::super::super::scenario::{Acts, BUILT_IN_TEMPLATE, Fault, Refusal};
use super::super::Request;
use super::super::weather::Throttles;
use super::{Event, Packet, State};
use crate::call::Call;
use crate::provisioning::Topics;

/// How many accepted replies of each call are kept, to be delivered to another connection.
const REMEMBERED: usize = 16;

/// The request exceeds a quota.
struct Throttled;

impl State {
    /// A request has arrived: processes it unless its fate says otherwise, and sends back the result.
    pub(super) fn arrive(
        &mut self,
        now: SystemTime,
        request: &Request,
        topics: &Arc<Topics>,
        fate: &Fate,
    ) -> Option<Answer> {
        let acts = fate.fault.as_ref().is_none_or(Fault::acts);
        let (answer, took) = match acts.then(|| self.act(now, request, topics)) {
            Some((answer, took)) => (Some(answer), took),
            None => (None, Ok(Duration::ZERO)),
        };
        let untold = match (&took, self.faults.weather.throttles) {
            (Ok(_), _) | (Err(Throttled), Throttles::Answered) => None,
            (Err(Throttled), Throttles::Silent) => Some(Fault::Silence),
            (Err(Throttled), Throttles::Acknowledged) => Some(Fault::NoReply(Acts::Undone)),
        };
        let fate = &Fate { fault: untold.or_else(|| fate.fault.clone()), ..*fate };
        let took = took.unwrap_or_default();
        let answered = match &fate.fault {
            Some(Fault::Reject { status: 429, .. }) => Some(self.account.refuse(Refusal::Throttled)),
            Some(Fault::Reject { status, .. }) => Some(rejection(*status, request)),
            _ => answer.clone(),
        };
        self.send_back(request, topics, fate, answered, took);
        answer
    }

    /// The account's answer and its latency, or that the request is throttled.
    fn act(
        &mut self,
        now: SystemTime,
        request: &Request,
        topics: &Topics,
    ) -> (Answer, Result<Duration, Throttled>) {
        self.account.expire(now);
        let asked = route(&topics.call(request.call).request);
        if let Err(throttled) = self.account.admit(self.age(), &asked) {
            return (throttled, Err(Throttled));
        }
        let took = self.account.draw_latency(Operation::of(&asked));
        let answer = match asked {
            Route::CreateKeys => {
                let minted = self.mint.mint(now);
                self.account.create_keys(now, &request.payload, minted)
            }
            Route::CreateFromCsr => self.create_from_csr(now, &request.payload),
            Route::Register { template } => self.account.register(now, template, &request.payload),
            // Only its sender subscribes to the topic.
            Route::Other => Answer { verdict: Verdict::Accepted, payload: request.payload.clone() },
            _ => self.account.refuse(Refusal::NotEmulated),
        };
        (answer, Ok(took))
    }

    fn create_from_csr(&mut self, now: SystemTime, payload: &[u8]) -> Answer {
        let csr = match self.account.signing_request(payload) {
            Ok(csr) => csr,
            Err(answer) => return answer,
        };
        match self.mint.certify_request(&csr, now) {
            Ok(certified) => self.account.create_from_csr(now, certified),
            Err(CertifyError::Csr(error)) => self.account.refuse_for(Refusal::InvalidCsr, &error.to_string()),
            Err(CertifyError::Mint(error)) => self.account.refuse_for(Refusal::Internal, &error.to_string()),
        }
    }

    fn send_back(
        &mut self,
        request: &Request,
        topics: &Topics,
        fate: &Fate,
        answer: Option<Answer>,
        took: Duration,
    ) {
        let Request { connection, call, .. } = *request;
        let fault = fate.fault.as_ref();
        let mut delay = self.latency();
        match fault {
            Some(Fault::HangUp(_) | Fault::Reset) => {
                self.schedule(delay, Event::Close { connection });
                return;
            }
            Some(Fault::Silence | Fault::Unacknowledged) => return,
            _ => {}
        }
        let is_overtaken = self.dice.chance(self.faults.overtakings);
        let puback = if is_overtaken { delay + self.latency() } else { delay };
        if fault != Some(&Fault::NoPuback) {
            self.schedule(puback, Event::Deliver { connection, packet: Packet::PubAck });
        }
        delay += took + fate.delay;
        let Some(answer) = answer else { return };
        if matches!(fault, Some(Fault::NoReply(_))) {
            return;
        }
        let topics = topics.call(call);
        let topic = match answer.verdict {
            Verdict::Accepted => &topics.accepted,
            Verdict::Rejected => &topics.rejected,
        };
        // Short-circuited: odds of zero draw nothing, so that they leave other draws unchanged.
        if self.faults.delays > 0.0 && self.dice.chance(self.faults.delays) {
            delay = self.dice.duration(delay, self.faults.latest.max(delay));
        }
        if fault == Some(&Fault::Foreign) {
            if let Some(payload) = self.foreign(connection, call) {
                self.reply(connection, delay, &topics.accepted, payload, false);
            }
            delay += self.latency();
        }
        let payload = fault.map_or(answer.payload.clone(), |fault| spoil(fault, &answer.payload));
        if answer.verdict == Verdict::Accepted && fault.is_none() {
            self.remember(connection, call, payload.clone());
        }
        self.reply(connection, delay, topic, payload.clone(), false);
        if fault == Some(&Fault::Duplicate) {
            self.reply(connection, delay, topic, payload.clone(), false);
        }
        self.redeliver(connection, delay, topic, &payload);
    }

    /// Delivers the same reply again, soon or much later, with or without the duplicate flag.
    fn redeliver(&mut self, connection: u64, after: Duration, topic: &str, payload: &Bytes) {
        while self.dice.chance(self.faults.redeliveries) {
            let most = if self.dice.chance(0.7) { Duration::from_millis(500) } else { self.faults.latest };
            let delay = after + self.dice.duration(Duration::ZERO, most);
            let is_duplicate = self.dice.chance(0.5);
            self.reply(connection, delay, topic, payload.clone(), is_duplicate);
        }
    }

    fn reply(&mut self, connection: u64, after: Duration, topic: &str, payload: Bytes, is_duplicate: bool) {
        let packet = Packet::Publish { topic: topic.to_owned(), payload, is_duplicate };
        self.schedule(after, Event::Deliver { connection, packet });
    }

    fn remember(&mut self, connection: u64, call: Call, payload: Bytes) {
        let accepted = &mut self.accepted[call as usize];
        accepted.push_back((connection, payload));
        if accepted.len() > REMEMBERED {
            accepted.pop_front();
        }
    }

    /// A reply that was given to another connection.
    fn foreign(&mut self, connection: u64, call: Call) -> Option<Bytes> {
        let of_others =
            self.accepted[call as usize].iter().filter(|(whose, _)| *whose != connection).collect::<Vec<_>>();
        let chosen = self.dice.below(of_others.len().max(1) as u64) as usize;
        of_others.get(chosen).map(|(_, payload)| payload.clone())
    }

    /// Other clients use the quotas.
    pub(super) fn other(&mut self, age: Duration) {
        let Some(rate) = self.faults.weather.others else { return };
        for asked in [Route::CreateKeys, Route::Register { template: BUILT_IN_TEMPLATE }] {
            // The outcome does not matter.
            let _ = self.account.admit(age, &asked);
        }
        self.schedule(rate.period(), Event::Other);
    }
}

/// A rejection drawn by a fault. Its message repeats the request, secrets included.
fn rejection(status: u16, request: &Request) -> Answer {
    let words = format!("cannot process {}", String::from_utf8_lossy(&request.payload));
    let reply = serde_json::json!({"statusCode": status, "errorCode": "Mishap", "errorMessage": words});
    Answer { verdict: Verdict::Rejected, payload: Bytes::from(reply.to_string()) }
}
