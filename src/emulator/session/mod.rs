//! One client's MQTT session as the service keeps it, without any IO: packets and `now` in, effects out.
//!
//! Owns what the service allows on a connection, packet ids, the keep-alive and the window of unacknowledged messages. Knows
//! neither sockets nor the account. Sources: MQTT 3.1.1; AWS IoT Developer Guide, "MQTT" (where the service differs) and
//! "Reserved topics"; AWS IoT Core quotas.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck,
    Unsubscribe,
};

mod ending;
mod rules;

pub(super) use ending::Ending;
pub(super) use rules::{ReplyPolicy, Rules, Usage};

use super::account::{Route, route};
use super::mqtt::{self, Connect, Incoming, Malformed};
use super::scenario::Limits;

/// How long a client may take from the upgrade to its CONNECT.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// QoS 1 messages that wait for a place among those; the next one ends the connection.
const MAX_BACKLOG: usize = 128;

/// What a packet leads to, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Send this.
    Send(Packet),
    /// The client has this id from now on; whoever had it loses its connection.
    Enter(String),
    /// Ask the account.
    Request {
        /// The request topic.
        topic: String,
        /// As it came.
        payload: Bytes,
        /// The packet id to acknowledge first, if it was published at QoS 1.
        acknowledge: Option<u16>,
    },
    /// Hand a plain message to all who subscribed to its topic.
    Relay {
        /// The message.
        message: Message,
        /// The packet id to acknowledge, if it was published at QoS 1.
        acknowledge: Option<u16>,
    },
    /// Plain messages that `filter` selects are wanted.
    Watch {
        /// The filter.
        filter: String,
        /// At most at this QoS.
        qos: QoS,
    },
    /// They no longer are.
    Unwatch(String),
    /// Nothing: a message was above the connection's quota. The service says nothing either.
    Dropped,
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// Its topic.
    pub(super) topic: String,
    /// Its payload.
    pub(super) payload: Bytes,
    /// Its QoS, 0 or 1.
    pub(super) qos: QoS,
}

/// What becomes of a message to a client.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Delivery {
    /// Send this now.
    Send(Packet),
    /// Nothing now: it waits, or the client did not subscribe.
    Nothing,
    /// Nothing ever: it is above the connection's quota.
    Dropped,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    rules: Arc<Rules>,
    usage: Usage,
    opened: Instant,
    heard: Instant,
    /// Once connected.
    keep_alive: Option<Duration>,
    subscriptions: Vec<(String, QoS)>,
    last_id: u16,
    unacked: BTreeSet<u16>,
    backlog: VecDeque<Message>,
}

impl Session {
    /// A session that waits for CONNECT from `now` on, of an emulator that started at `epoch`.
    pub(super) fn new(rules: Arc<Rules>, epoch: Instant, now: Instant) -> Self {
        Self {
            rules,
            usage: Usage::new(epoch, now),
            opened: now,
            heard: now,
            keep_alive: None,
            subscriptions: Vec::new(),
            last_id: 0,
            unacked: BTreeSet::new(),
            backlog: VecDeque::new(),
        }
    }

    /// Takes a packet. Effects that are already in `effects` when an [`Ending`] is returned count.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        packet: Incoming,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        self.heard = now;
        if self.keep_alive.is_none() && !matches!(packet, Incoming::Connect(_)) {
            return Err(Ending::NotConnected);
        }
        match packet {
            Incoming::Connect(connect) => self.connect(connect, effects),
            Incoming::Publish(publish) => self.publish(now, publish, effects),
            Incoming::PubAck(ack) => {
                self.acknowledge(ack.pkid, effects);
                Ok(())
            }
            Incoming::Subscribe(subscribe) => self.subscribe(subscribe, effects),
            Incoming::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, effects),
            Incoming::PingReq => {
                effects.push(Effect::Send(Packet::PingResp));
                Ok(())
            }
            Incoming::Disconnect => Err(Ending::Disconnected),
        }
    }

    /// Bytes came that are no packet. A CONNECT for another protocol level is told so (MQTT 3.1.1 section 3.1.2.2).
    pub(super) fn reject(&self, malformed: Malformed, effects: &mut Vec<Effect>) -> Ending {
        if malformed == Malformed::ProtocolLevel && self.keep_alive.is_none() {
            refuse(ConnectReturnCode::RefusedProtocolVersion, effects);
        }
        malformed.into()
    }

    /// The answer to a request of this client, if it is to have it. Never more than QoS 1, never more than it subscribed to.
    pub(super) fn reply(&mut self, now: Instant, topic: String, payload: Bytes) -> Result<Delivery, Ending> {
        let granted = self.subscriptions.iter().filter(|(filter, _)| mqtt::matches(filter, &topic));
        let granted = granted.map(|(_, qos)| *qos).reduce(|one, other| if one > other { one } else { other });
        match (granted, self.rules.replies) {
            (None, ReplyPolicy::ToSubscriber) => Ok(Delivery::Nothing),
            (granted, _) => {
                self.deliver(now, Message { topic, payload, qos: granted.unwrap_or(QoS::AtLeastOnce) })
            }
        }
    }

    /// A message for this client. It may have to wait for acknowledgements, or be too much for the connection's quota.
    pub(super) fn deliver(&mut self, now: Instant, message: Message) -> Result<Delivery, Ending> {
        if !self.usage.message(&self.rules, now) {
            return Ok(Delivery::Dropped);
        }
        if message.qos == QoS::AtMostOnce {
            return Ok(Delivery::Send(packet(message, 0)));
        }
        if self.unacked.len() < self.rules.limits.unacked_outbound as usize {
            return Ok(Delivery::Send(self.number(message)));
        }
        if self.backlog.len() == MAX_BACKLOG {
            return Err(Ending::SlowConsumer);
        }
        self.backlog.push_back(message);
        Ok(Delivery::Nothing)
    }

    /// So many bytes came or went.
    pub(super) fn transferred(&mut self, now: Instant, bytes: usize) {
        self.usage.bytes(&self.rules, now, bytes);
    }

    /// Until when the connection's throughput holds back what comes, if it does.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.usage.held_until(&self.rules, now)
    }

    /// When to look at [`Session::overdue`] next, if nothing is heard before.
    pub(super) fn deadline(&self) -> Instant {
        self.limits().into_iter().map(|(instant, _)| instant).min().unwrap_or(self.opened)
    }

    /// Why the session is over at `now`, if it is.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ending> {
        self.limits().into_iter().find(|(instant, _)| now >= *instant).map(|(_, ending)| ending)
    }

    /// The server did not listen until `now`: the client must not pay for that.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.heard = now;
    }

    fn limits(&self) -> [(Instant, Ending); 2] {
        let silence = match self.keep_alive {
            None => (self.opened + CONNECT_WITHIN, Ending::ConnectTimeout),
            Some(keep_alive) => (self.heard + keep_alive * 3 / 2, Ending::KeepAlive),
        };
        [silence, (self.opened + self.rules.limits.connection_lifetime, Ending::Lifetime)]
    }

    fn connect(&mut self, connect: Connect, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        if self.keep_alive.is_some() {
            return Err(Ending::ConnectedTwice);
        }
        let id = connect.client_id;
        let limits = &self.rules.limits;
        if id.len() > limits.client_id_bytes as usize
            || id.starts_with('$')
            || (id.is_empty() && !connect.clean_session)
        {
            refuse(ConnectReturnCode::BadClientId, effects);
            return Err(Ending::ClientId);
        }
        self.keep_alive = Some(clamp_keep_alive(connect.keep_alive, limits));
        effects.push(Effect::Enter(id));
        // Sessions do not outlive their connections here, so there never is one to resume.
        effects.push(Effect::Send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))));
        Ok(())
    }

    fn publish(&mut self, now: Instant, publish: Publish, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        let limits = &self.rules.limits;
        if publish.qos == QoS::ExactlyOnce {
            return Err(Ending::QoS2);
        }
        if publish.payload.len() > limits.payload_bytes as usize {
            return Err(Ending::Payload(publish.payload.len()));
        }
        if !mqtt::valid_topic(&publish.topic, limits) {
            return Err(Ending::Topic(publish.topic));
        }
        let Publish { topic, payload, qos, pkid, .. } = publish;
        let acknowledge = (qos == QoS::AtLeastOnce).then_some(pkid);
        let effect = match route(&topic) {
            Route::CreateKeys | Route::CreateFromCsr | Route::Register { .. } => {
                Effect::Request { topic, payload, acknowledge }
            }
            Route::ResponseTopic => return Err(Ending::PublishToResponse(topic)),
            Route::Reserved => return Err(Ending::ReservedTopic(topic)),
            Route::Other if topic.starts_with('$') => return Err(Ending::ReservedTopic(topic)),
            Route::Other => Effect::Relay { message: Message { topic, payload, qos }, acknowledge },
        };
        effects.push(if self.usage.message(&self.rules, now) { effect } else { Effect::Dropped });
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        let limits = &self.rules.limits;
        check_count(subscribe.filters.len(), limits)?;
        for filter in &subscribe.filters {
            check_filter(&filter.path, limits)?;
        }
        // The service answers a request for QoS 2 with silence (AWS IoT Developer Guide, "MQTT").
        if subscribe.filters.iter().any(|filter| filter.qos == QoS::ExactlyOnce) {
            return Ok(());
        }
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            codes.push(self.grant(filter.path, filter.qos, effects)?);
        }
        effects.push(Effect::Send(Packet::SubAck(SubAck::new(subscribe.pkid, codes))));
        Ok(())
    }

    fn grant(
        &mut self,
        filter: String,
        qos: QoS,
        effects: &mut Vec<Effect>,
    ) -> Result<SubscribeReasonCode, Ending> {
        if filter.starts_with("$share/") {
            return Ok(SubscribeReasonCode::Failure);
        }
        let full = self.subscriptions.len() >= self.rules.limits.subscriptions_per_connection as usize;
        match self.subscriptions.iter_mut().find(|(known, _)| *known == filter) {
            Some((_, granted)) => *granted = qos,
            None if full => return Err(Ending::TooManySubscriptions),
            None => self.subscriptions.push((filter.clone(), qos)),
        }
        if !filter.starts_with('$') {
            effects.push(Effect::Watch { filter, qos });
        }
        Ok(SubscribeReasonCode::Success(qos))
    }

    fn unsubscribe(&mut self, unsubscribe: Unsubscribe, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        check_count(unsubscribe.topics.len(), &self.rules.limits)?;
        for filter in unsubscribe.topics {
            self.subscriptions.retain(|(known, _)| *known != filter);
            effects.push(Effect::Unwatch(filter));
        }
        effects.push(Effect::Send(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))));
        Ok(())
    }

    fn acknowledge(&mut self, id: u16, effects: &mut Vec<Effect>) {
        if !self.unacked.remove(&id) {
            return;
        }
        if let Some(message) = self.backlog.pop_front() {
            effects.push(Effect::Send(self.number(message)));
        }
    }

    /// Gives the message the next packet id that is free; there always is one, as far fewer than 65,535 are in use.
    fn number(&mut self, message: Message) -> Packet {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.unacked.insert(self.last_id) {
                return packet(message, self.last_id);
            }
        }
    }
}

fn check_count(filters: usize, limits: &Limits) -> Result<(), Ending> {
    if filters > limits.filters_per_subscribe as usize {
        Err(Ending::TooManyFilters(filters))
    } else {
        Ok(())
    }
}

fn check_filter(filter: &str, limits: &Limits) -> Result<(), Ending> {
    if !mqtt::valid_filter(filter, limits) {
        return Err(Ending::Filter(filter.to_owned()));
    }
    match route(filter) {
        // `$aws/certificates/create/+` looks like a request, but selects its answers' parent at most.
        _ if filter.contains(['+', '#']) => Ok(()),
        Route::CreateKeys | Route::CreateFromCsr | Route::Register { .. } => {
            Err(Ending::SubscribeToRequest(filter.to_owned()))
        }
        Route::ResponseTopic | Route::Reserved | Route::Other => Ok(()),
    }
}

/// The service's keep-alive: 30 to 1200 s, and 0 means the longest (AWS IoT Core quotas, "keep-alive interval").
fn clamp_keep_alive(asked: u16, limits: &Limits) -> Duration {
    match asked {
        0 => limits.keep_alive_most,
        seconds => {
            Duration::from_secs(seconds.into()).max(limits.keep_alive_least).min(limits.keep_alive_most)
        }
    }
}

fn refuse(code: ConnectReturnCode, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send(Packet::ConnAck(ConnAck::new(code, false))));
}

fn packet(message: Message, id: u16) -> Packet {
    let mut publish = Publish::from_bytes(message.topic, message.qos, message.payload);
    publish.pkid = id;
    Packet::Publish(publish)
}

#[cfg(test)]
mod tests;
