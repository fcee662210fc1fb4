//! One client's MQTT session as the service keeps it, without IO: packets and `now` in, effects out.
//!
//! Owns what the service allows on a connection, packet ids, the keep-alive and the window of unacknowledged messages.
//! Knows neither sockets nor the account; it asks the caller what a principal may do. Sources: MQTT 3.1.1 and 5; AWS
//! IoT Developer Guide, "MQTT" (where the service differs) and "Reserved topics"; AWS IoT Core quotas.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

mod delivery;
mod ending;
mod rules;
mod subscriptions;

pub(super) use delivery::Delivery;
pub(super) use ending::Ending;
pub(super) use rules::{ReplyPolicy, Rules, Usage};

use super::account::{Action, Route, route};
use super::mqtt::{
    self, ConnAck, Connect, Filter, Incoming, MAX_REMAINING, Malformed, Packet, Publish, QoS, Reason,
    TOPIC_ALIASES, Terms, Version,
};
use super::scenario::{DenialAnswer, Limits};
use super::uuid::random_uuid;
use delivery::Unacked;

/// How long a client may take from the start of the connection to its CONNECT.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An effect of a packet. Effects are carried out in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Send this packet.
    Send(Packet),
    /// Give the client this id; another connection that has it ends.
    Enter(String),
    /// Send a request to the account.
    Request {
        /// The request topic.
        topic: String,
        /// The payload as received.
        payload: Bytes,
        /// The packet id to acknowledge first, if it was published at QoS 1.
        acknowledge: Option<u16>,
    },
    /// Relay a plain message to all subscribers of its topic.
    Relay {
        /// The message.
        message: Message,
        /// The packet id to acknowledge, if it was published at QoS 1.
        acknowledge: Option<u16>,
    },
    /// Subscribe the connection to plain messages that this filter selects.
    Watch(Filter),
    /// Unsubscribe the connection from this filter.
    Unwatch(String),
    /// A message exceeded the connection's quota. As on the service, nothing is sent.
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
    /// Its properties, for clients of MQTT 5.
    pub(super) properties: Bytes,
}

/// Whether the client's principal may perform an action: connect with a client id, publish to a topic, subscribe to a
/// filter.
pub(super) type Permits<'a> = &'a dyn Fn(Action, &str) -> bool;

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    rules: Arc<Rules>,
    usage: Usage,
    opened: Instant,
    heard: Instant,
    /// The keep-alive; `None` until the client has connected.
    keep_alive: Option<Duration>,
    version: Version,
    /// The most QoS 1 messages that may be unacknowledged.
    window: usize,
    /// The largest packet that the client accepts, bytes.
    largest_packet: usize,
    subscriptions: Vec<(String, QoS)>,
    /// Topics by the aliases that the client assigned (MQTT 5).
    aliases: HashMap<u16, String>,
    last_id: u16,
    unacked: BTreeMap<u16, Unacked>,
    backlog: VecDeque<Message>,
}

impl Session {
    /// A session that waits for a CONNECT from `now` on, in an emulator that started at `epoch`.
    pub(super) fn new(rules: Arc<Rules>, epoch: Instant, now: Instant) -> Self {
        Self {
            window: rules.limits.unacked_outbound as usize,
            rules,
            usage: Usage::new(epoch, now),
            opened: now,
            heard: now,
            keep_alive: None,
            version: Version::default(),
            largest_packet: usize::MAX,
            subscriptions: Vec::new(),
            aliases: HashMap::new(),
            last_id: 0,
            unacked: BTreeMap::new(),
            backlog: VecDeque::new(),
        }
    }

    /// The client's protocol version; 3.1.1 until it has connected.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The largest packet that the client accepts, bytes. A larger one is not sent (MQTT 5 section 3.1.2.11.4).
    pub(super) fn largest_packet(&self) -> usize {
        self.largest_packet
    }

    /// Processes a packet. If an [`Ending`] is returned, the effects already in `effects` are still valid.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        packet: Incoming,
        permits: Permits<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        self.heard = now;
        if self.keep_alive.is_none() && !matches!(packet, Incoming::Connect(_)) {
            return Err(Ending::NotConnected);
        }
        match packet {
            Incoming::Connect(connect) => self.connect(connect, permits, effects),
            Incoming::Publish(publish) => self.publish(now, publish, permits, effects),
            Incoming::PubAck(id) => {
                self.acknowledge(now, id, effects);
                Ok(())
            }
            Incoming::Subscribe(subscribe) => self.subscribe(subscribe, permits, effects),
            Incoming::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, effects),
            Incoming::PingReq => {
                effects.push(Effect::Send(Packet::PingResp));
                Ok(())
            }
            Incoming::Disconnect => Err(Ending::Disconnected),
        }
    }

    /// Handles bytes that are not a packet. A CONNECT with another protocol level is answered accordingly (MQTT 3.1.1
    /// section 3.1.2.2).
    pub(super) fn reject(&self, malformed: Malformed, effects: &mut Vec<Effect>) -> Ending {
        if malformed == Malformed::ProtocolLevel && self.keep_alive.is_none() {
            refuse(Reason::UNSUPPORTED_VERSION, effects);
        }
        malformed.into()
    }

    /// The packet that tells the client why the connection ends, which only MQTT 5 has.
    pub(super) fn farewell(&self, ending: &Ending) -> Option<Packet> {
        let is_told = self.version == Version::V5 && self.keep_alive.is_some();
        ending.reason().filter(|_| is_told).map(Packet::Disconnect)
    }

    /// Counts this many bytes, received or sent, towards the throughput.
    pub(super) fn transferred(&mut self, now: Instant, bytes: usize) {
        self.usage.bytes(&self.rules, now, bytes);
    }

    /// Until when the connection's throughput holds back what arrives; `None` if it does not.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.usage.held_until(&self.rules, now)
    }

    /// When to check [`Session::overdue`] and [`Session::redeliver`] next, if nothing arrives before.
    pub(super) fn deadline(&self) -> Instant {
        let ends = self.limits().map(|(instant, _)| instant);
        let redelivery = self.unacked.values().map(|unacked| unacked.due);
        ends.into_iter().chain(redelivery).min().unwrap_or(self.opened)
    }

    /// Why the session has ended by `now`; `None` if it has not.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ending> {
        self.limits().into_iter().find(|(instant, _)| now >= *instant).map(|(_, ending)| ending)
    }

    /// Restarts the keep-alive because the server did not read until `now`, which must not count against the client.
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

    fn connect(
        &mut self,
        connect: Connect,
        permits: Permits<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        if self.keep_alive.is_some() {
            return Err(Ending::ConnectedTwice);
        }
        self.version = connect.version;
        let limits = &self.rules.limits;
        let asked = connect.client_id;
        if asked.len() > limits.client_id_bytes as usize
            || asked.starts_with('$')
            || (asked.is_empty() && !connect.clean_session && connect.version == Version::V311)
        {
            refuse(Reason::CLIENT_ID_NOT_VALID, effects);
            return Err(Ending::ClientId);
        }
        // The service assigns ids of this form to clients without one; no client can ask for one.
        let assigned = asked.is_empty().then(|| format!("$GEN/{}", random_uuid()));
        let id = assigned.clone().unwrap_or(asked);
        if !permits(Action::Connect, &id) {
            if self.rules.denials.connect != Some(DenialAnswer::Close) {
                refuse(Reason::NOT_AUTHORIZED, effects);
            }
            return Err(Ending::Denied(Action::Connect, id));
        }
        let keep_alive = clamp_keep_alive(connect.keep_alive, limits);
        self.keep_alive = Some(keep_alive);
        self.window = self.window.min(connect.receive_maximum.into());
        self.largest_packet = connect.maximum_packet_size as usize;
        let held = u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX);
        let terms = Terms {
            receive_maximum: u16::try_from(limits.unacked_inbound).unwrap_or(u16::MAX),
            maximum_packet_size: MAX_REMAINING as u32,
            assigned_client_id: assigned,
            server_keep_alive: (held != connect.keep_alive).then_some(held),
        };
        effects.push(Effect::Enter(id));
        effects.push(Effect::Send(Packet::ConnAck(ConnAck { reason: Reason::SUCCESS, terms: Some(terms) })));
        Ok(())
    }

    fn publish(
        &mut self,
        now: Instant,
        mut publish: Publish,
        permits: Permits<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        // The service does not support QoS 2, and does not answer it (AWS IoT Developer Guide, "MQTT").
        if publish.qos == QoS::ExactlyOnce {
            return Ok(());
        }
        self.resolve_alias(&mut publish)?;
        let limits = &self.rules.limits;
        if publish.payload.len() > limits.payload_bytes as usize {
            return Err(Ending::Payload(publish.payload.len()));
        }
        if !mqtt::valid_topic(&publish.topic, limits) {
            return Err(Ending::Topic(publish.topic));
        }
        let Publish { topic, payload, qos, id, properties, .. } = publish;
        let acknowledge = (qos == QoS::AtLeastOnce).then_some(id);
        let route = route(&topic);
        match route {
            Route::ResponseTopic => return Err(Ending::PublishToResponse(topic)),
            Route::Reserved => return Err(Ending::ReservedTopic(topic)),
            _ => {}
        }
        if !permits(Action::Publish, &topic) {
            return self.deny_publish(topic, acknowledge, effects);
        }
        let effect = match route {
            Route::Other => {
                let message = Message { topic, payload, qos, properties };
                Effect::Relay { message, acknowledge }
            }
            _ => Effect::Request { topic, payload, acknowledge },
        };
        effects.push(if self.usage.message(&self.rules, now) { effect } else { Effect::Dropped });
        Ok(())
    }

    /// Replaces a topic alias by its topic (MQTT 5 section 3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Ending> {
        let Some(alias) = publish.alias else { return Ok(()) };
        if !(1..=TOPIC_ALIASES).contains(&alias) {
            return Err(Ending::Alias(alias));
        }
        if publish.topic.is_empty() {
            publish.topic = self.aliases.get(&alias).ok_or(Ending::Alias(alias))?.clone();
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// Handles a denied PUBLISH: ends the connection, or acknowledges with the reason, which only MQTT 5 can express.
    fn deny_publish(
        &self,
        topic: String,
        acknowledge: Option<u16>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        match (self.version, acknowledge) {
            (Version::V5, Some(id)) if self.rules.denials.publish != Some(DenialAnswer::Close) => {
                effects.push(Effect::Send(Packet::PubAck { id, reason: Reason::NOT_AUTHORIZED }));
                Ok(())
            }
            _ => Err(Ending::Denied(Action::Publish, topic)),
        }
    }
}

/// The keep-alive within the limits: 30 to 1200 s by default, with 0 meaning the longest (AWS IoT Core quotas,
/// "keep-alive interval").
fn clamp_keep_alive(asked: u16, limits: &Limits) -> Duration {
    match asked {
        0 => limits.keep_alive_most,
        seconds => {
            Duration::from_secs(seconds.into()).max(limits.keep_alive_least).min(limits.keep_alive_most)
        }
    }
}

fn refuse(reason: Reason, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send(Packet::ConnAck(ConnAck { reason, terms: None })));
}

#[cfg(test)]
mod tests;
