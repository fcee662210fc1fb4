//! Messages to a client: packet ids, the window of unacknowledged ones, and what waits for room in it.

use std::time::Instant;

use bytes::Bytes;

use super::super::mqtt::{self, Packet, Publish, QoS};
use super::{Effect, Ending, Message, ReplyPolicy, Session};

/// How many QoS 1 messages may wait for room in the window; one more ends the connection.
pub(super) const MAX_BACKLOG: usize = 128;

/// What happens to a message to a client.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::emulator) enum Delivery {
    /// Send this packet now.
    Send(Packet),
    /// Send nothing now: the message waits, or the client did not subscribe.
    Nothing,
    /// The message exceeds the connection's quota and is never sent.
    Dropped,
}

/// A QoS 1 message that the client has not acknowledged.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) message: Message,
    /// When it is sent again.
    pub(super) due: Instant,
}

impl Session {
    /// Delivers the answer to this client's request, if the client is to get it: at the QoS it subscribed with, at most
    /// 1.
    pub(in crate::emulator) fn reply(
        &mut self,
        now: Instant,
        topic: String,
        payload: Bytes,
    ) -> Result<Delivery, Ending> {
        let granted = self.subscriptions.iter().filter(|(filter, _)| mqtt::matches(filter, &topic));
        let granted = granted.map(|(_, qos)| *qos).max();
        match (granted, self.rules.replies) {
            (None, ReplyPolicy::ToSubscriber) => Ok(Delivery::Nothing),
            (granted, _) => {
                let qos = granted.unwrap_or(QoS::AtLeastOnce);
                self.deliver(now, Message { topic, payload, qos, properties: Bytes::new() })
            }
        }
    }

    /// Delivers a message to this client. The message may have to wait for acknowledgements, or exceed the connection's
    /// quota.
    pub(in crate::emulator) fn deliver(
        &mut self,
        now: Instant,
        message: Message,
    ) -> Result<Delivery, Ending> {
        if !self.usage.message(&self.rules, now) {
            return Ok(Delivery::Dropped);
        }
        if message.qos == QoS::AtMostOnce {
            return Ok(Delivery::Send(publish_packet(&message, 0, false)));
        }
        if self.unacked.len() < self.window {
            return Ok(Delivery::Send(self.number(now, message)));
        }
        if self.backlog.len() == MAX_BACKLOG {
            return Err(Ending::SlowConsumer);
        }
        self.backlog.push_back(message);
        Ok(Delivery::Nothing)
    }

    /// The messages to send again because their acknowledgement is overdue at `now`.
    pub(in crate::emulator) fn redeliver(&mut self, now: Instant) -> Vec<Packet> {
        let again = now + self.rules.limits.redeliver_after;
        let overdue = self.unacked.iter_mut().filter(|(_, unacked)| unacked.due <= now);
        overdue
            .map(|(id, unacked)| {
                unacked.due = again;
                publish_packet(&unacked.message, *id, true)
            })
            .collect()
    }

    pub(super) fn acknowledge(&mut self, now: Instant, id: u16, effects: &mut Vec<Effect>) {
        if self.unacked.remove(&id).is_none() {
            return;
        }
        if let Some(message) = self.backlog.pop_front() {
            effects.push(Effect::Send(self.number(now, message)));
        }
    }

    /// Assigns the message the next free packet id. There always is one, because far fewer than 65,535 are in use.
    fn number(&mut self, now: Instant, message: Message) -> Packet {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.unacked.contains_key(&self.last_id) {
                let packet = publish_packet(&message, self.last_id, false);
                let due = now + self.rules.limits.redeliver_after;
                self.unacked.insert(self.last_id, Unacked { message, due });
                return packet;
            }
        }
    }
}

fn publish_packet(message: &Message, id: u16, is_duplicate: bool) -> Packet {
    Packet::Publish(Publish {
        topic: message.topic.clone(),
        payload: message.payload.clone(),
        qos: message.qos,
        id,
        is_duplicate,
        alias: None,
        properties: message.properties.clone(),
    })
}
