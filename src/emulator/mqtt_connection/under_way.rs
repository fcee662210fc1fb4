//! Requests and messages that take time while the connection goes on, and what is sent when they are done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::time::sleep;

use super::super::account::{Operation, Route, route};
use super::super::fault::Fate;
use super::super::mqtt::{Packet, Reason};
use super::super::scenario::{Acts, Fault, FaultTarget};
use super::super::service::{Reply, Requester, Service};
use super::super::session::{Delivery, Ending, Message};
use super::super::socket::Socket;
use super::Connection;

/// How long a reply that is to be sent after the next one waits for it.
const REORDERED_WITHIN: Duration = Duration::from_secs(2);

/// A result that takes time while the connection goes on.
pub(super) enum Done {
    Answered(Reply),
    /// The answer is sent twice.
    AnsweredTwice(Reply),
    /// The answer is sent after the next one.
    Reordered(Reply),
    /// The reordered reply has waited long enough for another one.
    ReorderedLongEnough,
    /// The request gets no answer.
    Unanswered,
    /// The request gets no answer, and the connection ends.
    Ended(Ending),
    /// Packets whose delay is over.
    Due(Vec<Packet>),
}

impl<S: Socket> Connection<S> {
    /// Sends packets after a latency, which may be zero.
    pub(super) fn send_after(&mut self, latency: Duration, packets: Vec<Packet>) {
        if latency.is_zero() {
            self.outbox.extend(packets);
            return;
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            Done::Due(packets)
        }));
    }

    pub(super) fn request(&mut self, topic: String, payload: Bytes, acknowledge: Option<u16>) {
        let route = route(&topic);
        match route {
            Route::Register { .. } => self.service.counts.register_requests.add(),
            _ => self.service.counts.create_requests.add(),
        }
        let fate = self.service.fate(FaultTarget::of(&route));
        match fate.fault {
            Some(Fault::HangUp(Acts::Undone)) => return self.client.hangup.trigger(Ending::Lost),
            Some(Fault::Reset) => return self.client.hangup.trigger(Ending::Reset),
            Some(Fault::Silence) => return,
            Some(Fault::Unacknowledged | Fault::NoPuback) => {}
            _ => self.outbox.extend(puback(acknowledge)),
        }
        let service = Arc::clone(&self.service);
        let requester = Requester {
            number: self.client.number,
            client_id: self.client_id.clone().unwrap_or_default(),
            certificate_id: self.client.certificate.clone(),
            turn: Arc::clone(&self.turn),
        };
        self.in_flight
            .push(Box::pin(async move { answer(&service, &requester, &topic, &payload, fate).await }));
    }

    pub(super) fn relay(&mut self, message: Message, acknowledge: Option<u16>) {
        self.service.counts.messages.add();
        let fate = self.service.fate(FaultTarget::Publish);
        let copies = match fate.fault {
            Some(Fault::HangUp(_)) => return self.client.hangup.trigger(Ending::Lost),
            Some(Fault::Reset) => return self.client.hangup.trigger(Ending::Reset),
            Some(Fault::Silence) => return,
            Some(Fault::Duplicate) => 2,
            _ => 1,
        };
        let acknowledge = if fate.fault == Some(Fault::NoPuback) { None } else { acknowledge };
        let latency = self.service.draw_latency(Operation::Publish) + fate.delay;
        let from = self.client.number;
        if latency.is_zero() {
            self.outbox.extend(puback(acknowledge));
            (0..copies).for_each(|_| self.service.clients.relay(from, &message));
            return;
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            (0..copies).for_each(|_| service.clients.relay(from, &message));
            Done::Due(puback(acknowledge).into_iter().collect())
        }));
    }

    /// Takes the answers that are ready without waiting, so that they are sent in the same write as the PUBACKs of
    /// their requests.
    pub(super) fn take_ready(&mut self) -> Result<(), Ending> {
        while let Some(Some(done)) = self.in_flight.next().now_or_never() {
            self.take_done(done)?;
        }
        Ok(())
    }

    pub(super) fn take_done(&mut self, done: Done) -> Result<(), Ending> {
        if self.in_flight.len() + 1 == self.most_in_flight() {
            self.session.excuse(Instant::now());
        }
        match done {
            Done::Answered(reply) => {
                self.reply(reply)?;
                self.release_reordered()?;
            }
            Done::AnsweredTwice(reply) => {
                self.reply(reply.clone())?;
                self.reply(reply)?;
            }
            Done::Reordered(reply) => {
                self.release_reordered()?;
                self.reordered = Some(reply);
                self.in_flight.push(Box::pin(sleep(REORDERED_WITHIN).map(|()| Done::ReorderedLongEnough)));
            }
            Done::ReorderedLongEnough => self.release_reordered()?,
            Done::Due(packets) => self.outbox.extend(packets),
            Done::Unanswered => {}
            Done::Ended(ending) => return Err(ending),
        }
        Ok(())
    }

    fn release_reordered(&mut self) -> Result<(), Ending> {
        self.reordered.take().map_or(Ok(()), |reply| self.reply(reply))
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Ending> {
        self.check_receive(&reply.topic)?;
        let delivery = if self.service.admit_delivery() {
            self.session.reply(Instant::now(), reply.topic, reply.payload)?
        } else {
            Delivery::Dropped
        };
        self.send(delivery);
        Ok(())
    }
}

fn puback(acknowledge: Option<u16>) -> Option<Packet> {
    acknowledge.map(|id| Packet::PubAck { id, reason: Reason::SUCCESS })
}

/// Answers a request as its fate says.
async fn answer(service: &Service, requester: &Requester, topic: &str, payload: &[u8], fate: Fate) -> Done {
    let Fate { fault, delay } = fate;
    let acts = fault.as_ref().is_none_or(Fault::acts);
    let answered = if acts { service.answer(requester, topic, payload).await.map(Some) } else { Ok(None) };
    let Ok(answered) = answered else { return Done::Ended(Ending::Lost) };
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let answered = match &fault {
        Some(Fault::Reject { status, code, .. }) => Some(service.reject(*status, code.as_deref())),
        _ => answered,
    };
    let Some(answered) = answered else { return Done::Unanswered };
    let reply = service.reply(topic, answered, fault.as_ref());
    match fault {
        Some(Fault::HangUp(_)) => Done::Ended(Ending::Lost),
        Some(Fault::NoReply(_) | Fault::Unacknowledged) => Done::Unanswered,
        Some(Fault::Duplicate) => Done::AnsweredTwice(reply),
        Some(Fault::Reorder) => Done::Reordered(reply),
        _ => Done::Answered(reply),
    }
}
