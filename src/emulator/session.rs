//! One client's MQTT session as the service keeps it, without any IO: packets and `now` in, effects out.
//!
//! Owns what the service allows on a connection, packet ids, the keep-alive and the window of unacknowledged messages. Knows
//! neither sockets nor the account. Sources: MQTT 3.1.1; AWS IoT Developer Guide, "MQTT" (where the service differs) and
//! "Reserved topics"; AWS IoT Core quotas.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck,
    Unsubscribe,
};

use super::account::{Route, route};
use super::mqtt::{self, Connect, Incoming, MAX_PAYLOAD, Malformed};

/// How long a client may take from the upgrade to its CONNECT.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The service ends every WebSocket connection at this age.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Filters in one SUBSCRIBE or UNSUBSCRIBE.
const MAX_FILTERS: usize = 8;
/// Subscriptions of one connection.
const MAX_SUBSCRIPTIONS: usize = 50;
/// Client id, bytes.
const MAX_CLIENT_ID: usize = 128;
/// QoS 1 messages on their way to a client, not yet acknowledged.
const MAX_UNACKED: usize = 100;
/// QoS 1 messages that wait for a place among those; the next one ends the connection.
const MAX_BACKLOG: usize = 128;

/// When replies go to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyPolicy {
    /// Always: the service was seen to answer requesters without a subscription.
    ToRequester,
    /// Only to a connection that subscribed, as the documentation wants it.
    ToSubscriber,
}

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
    },
    /// Hand a plain message to all who subscribed to its topic.
    Relay(Message),
    /// Plain messages that `filter` selects are wanted.
    Watch {
        /// The filter.
        filter: String,
        /// At most at this QoS.
        qos: QoS,
    },
    /// They no longer are.
    Unwatch(String),
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

/// Why the server ends a connection. The client sees only the end, as on the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ending {
    #[error("the client said goodbye")]
    Disconnected,
    #[error("the client is gone")]
    Gone,
    #[error("another connection took the client id")]
    TakenOver,
    #[error("the emulator stops")]
    Stopped,
    #[error("no CONNECT within 10 s")]
    ConnectTimeout,
    #[error("silent for one and a half keep-alives")]
    KeepAlive,
    #[error("24 hours old")]
    Lifetime,
    #[error("the client does not read what it is sent")]
    SlowConsumer,
    #[error("a WebSocket message that is not binary")]
    NotBinary,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the first packet is not CONNECT")]
    NotConnected,
    #[error("a second CONNECT")]
    ConnectedTwice,
    #[error("a client id that is longer than 128 bytes, starts with $, or is empty without a clean session")]
    ClientId,
    #[error("{0} filters in one packet; the service takes 8")]
    TooManyFilters(usize),
    #[error("more than 50 subscriptions")]
    TooManySubscriptions,
    #[error("not a filter that the service takes: {0:?}")]
    Filter(String),
    #[error("not a topic that the service takes: {0:?}")]
    Topic(String),
    #[error("a PUBLISH at QoS 2")]
    QoS2,
    #[error("a payload of {0} bytes; the service takes 128 KB")]
    Payload(usize),
    #[error("a PUBLISH to {0}, which only the service publishes to")]
    PublishToResponse(String),
    #[error("a SUBSCRIBE to {0}, which only clients publish to")]
    SubscribeToRequest(String),
    #[error("a PUBLISH to the reserved topic {0}, which the emulator does not have")]
    ReservedTopic(String),
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    replies: ReplyPolicy,
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
    /// A session that waits for CONNECT from `now` on.
    pub(super) fn new(replies: ReplyPolicy, now: Instant) -> Self {
        Self {
            replies,
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
            Incoming::Publish(publish) => accept_publish(publish, effects),
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
    pub(super) fn reply(&mut self, topic: String, payload: Bytes) -> Result<Option<Packet>, Ending> {
        let granted = self.subscriptions.iter().filter(|(filter, _)| mqtt::matches(filter, &topic));
        let granted = granted.map(|(_, qos)| *qos).reduce(|one, other| if one > other { one } else { other });
        match (granted, self.replies) {
            (None, ReplyPolicy::ToSubscriber) => Ok(None),
            (granted, _) => {
                self.deliver(Message { topic, payload, qos: granted.unwrap_or(QoS::AtLeastOnce) })
            }
        }
    }

    /// A message for this client: the packet to send now, or nothing if it must wait for acknowledgements.
    pub(super) fn deliver(&mut self, message: Message) -> Result<Option<Packet>, Ending> {
        if message.qos == QoS::AtMostOnce {
            return Ok(Some(packet(message, 0)));
        }
        if self.unacked.len() < MAX_UNACKED {
            return Ok(Some(self.number(message)));
        }
        if self.backlog.len() == MAX_BACKLOG {
            return Err(Ending::SlowConsumer);
        }
        self.backlog.push_back(message);
        Ok(None)
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
        [silence, (self.opened + LIFETIME, Ending::Lifetime)]
    }

    fn connect(&mut self, connect: Connect, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        if self.keep_alive.is_some() {
            return Err(Ending::ConnectedTwice);
        }
        let id = connect.client_id;
        if id.len() > MAX_CLIENT_ID || id.starts_with('$') || (id.is_empty() && !connect.clean_session) {
            refuse(ConnectReturnCode::BadClientId, effects);
            return Err(Ending::ClientId);
        }
        self.keep_alive = Some(clamp_keep_alive(connect.keep_alive));
        effects.push(Effect::Enter(id));
        // Sessions do not outlive their connections here, so there never is one to resume.
        effects.push(Effect::Send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))));
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        check_count(subscribe.filters.len())?;
        for filter in &subscribe.filters {
            check_filter(&filter.path)?;
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
        let full = self.subscriptions.len() == MAX_SUBSCRIPTIONS;
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
        check_count(unsubscribe.topics.len())?;
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

fn accept_publish(publish: Publish, effects: &mut Vec<Effect>) -> Result<(), Ending> {
    if publish.qos == QoS::ExactlyOnce {
        return Err(Ending::QoS2);
    }
    if publish.payload.len() > MAX_PAYLOAD {
        return Err(Ending::Payload(publish.payload.len()));
    }
    if !mqtt::valid_topic(&publish.topic) {
        return Err(Ending::Topic(publish.topic));
    }
    let Publish { topic, payload, qos, pkid, .. } = publish;
    let effect = match route(&topic) {
        Route::CreateKeys | Route::CreateFromCsr | Route::Register { .. } => {
            Effect::Request { topic, payload }
        }
        Route::ResponseTopic => return Err(Ending::PublishToResponse(topic)),
        Route::Reserved => return Err(Ending::ReservedTopic(topic)),
        Route::Other if topic.starts_with('$') => return Err(Ending::ReservedTopic(topic)),
        Route::Other => Effect::Relay(Message { topic, payload, qos }),
    };
    if qos == QoS::AtLeastOnce {
        effects.push(Effect::Send(Packet::PubAck(PubAck::new(pkid))));
    }
    effects.push(effect);
    Ok(())
}

fn check_count(filters: usize) -> Result<(), Ending> {
    if filters > MAX_FILTERS { Err(Ending::TooManyFilters(filters)) } else { Ok(()) }
}

fn check_filter(filter: &str) -> Result<(), Ending> {
    if !mqtt::valid_filter(filter) {
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
fn clamp_keep_alive(asked: u16) -> Duration {
    Duration::from_secs(match asked {
        0 | 1201.. => 1200,
        1..=29 => 30,
        seconds => seconds.into(),
    })
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
mod tests {
    use rumqttc::mqttbytes::v4::SubscribeFilter;

    use super::*;

    const CREATE: &str = "$aws/certificates/create/json";

    struct Bench {
        session: Session,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { session: Session::new(ReplyPolicy::ToRequester, start), start }
        }

        fn connected(keep_alive: u16) -> Self {
            let mut bench = Self::new();
            bench.send(connect("device", keep_alive)).unwrap();
            bench
        }

        fn at(&mut self, seconds: u64, packet: Incoming) -> Result<Vec<Effect>, Ending> {
            let mut effects = Vec::new();
            let now = self.start + Duration::from_secs(seconds);
            self.session.receive(now, packet, &mut effects).map(|()| effects)
        }

        fn send(&mut self, packet: Incoming) -> Result<Vec<Effect>, Ending> {
            self.at(0, packet)
        }

        fn overdue(&self, seconds: u64) -> Option<Ending> {
            self.session.overdue(self.start + Duration::from_secs(seconds))
        }

        fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Result<Vec<Effect>, Ending> {
            let filters = filters.iter().map(|path| SubscribeFilter::new((*path).to_owned(), qos)).collect();
            self.send(Incoming::Subscribe(Subscribe { pkid: 5, filters }))
        }

        fn publish(&mut self, topic: &str, qos: QoS, payload: Vec<u8>) -> Result<Vec<Effect>, Ending> {
            let mut publish = Publish::new(topic, qos, payload);
            publish.pkid = 6;
            self.send(Incoming::Publish(publish))
        }
    }

    fn connect(client_id: &str, keep_alive: u16) -> Incoming {
        Incoming::Connect(Connect { client_id: client_id.to_owned(), clean_session: true, keep_alive })
    }

    fn id_of(packet: Option<Packet>) -> u16 {
        let Some(Packet::Publish(publish)) = packet else { panic!("not a PUBLISH: {packet:?}") };
        assert!(!publish.dup && !publish.retain);
        publish.pkid
    }

    #[test]
    fn connect_comes_first_and_once() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(Incoming::PingReq), Err(Ending::NotConnected));

        let mut bench = Bench::new();
        let greeted = bench.send(connect("device", 30)).unwrap();
        assert_eq!(greeted[0], Effect::Enter(String::from("device")));
        let accepted = ConnAck::new(ConnectReturnCode::Success, false);
        assert_eq!(greeted[1], Effect::Send(Packet::ConnAck(accepted)));
        assert_eq!(bench.send(connect("device", 30)), Err(Ending::ConnectedTwice));
    }

    #[test]
    fn a_connect_within_ten_seconds() {
        let bench = Bench::new();
        assert_eq!(bench.session.deadline(), bench.start + CONNECT_WITHIN);
        assert_eq!(bench.overdue(9), None);
        assert_eq!(bench.overdue(10), Some(Ending::ConnectTimeout));
    }

    #[test]
    fn keep_alive_is_clamped_and_enforced_at_one_and_a_half() {
        for (asked, seconds) in
            [(0, 1800), (1, 45), (29, 45), (30, 45), (31, 46), (1200, 1800), (1201, 1800), (u16::MAX, 1800)]
        {
            let bench = Bench::connected(asked);
            assert_eq!(bench.overdue(seconds - 1), None, "{asked}");
            assert_eq!(bench.overdue(seconds + 1), Some(Ending::KeepAlive), "{asked}");
        }
    }

    #[test]
    fn anything_heard_starts_the_keep_alive_again() {
        let mut bench = Bench::connected(30);
        bench.at(40, Incoming::PingReq).unwrap();
        assert_eq!(bench.overdue(84), None);
        assert_eq!(bench.overdue(85), Some(Ending::KeepAlive));
    }

    #[test]
    fn a_connection_lives_for_a_day() {
        let mut bench = Bench::connected(1200);
        bench.at(86_399, Incoming::PingReq).unwrap();
        assert_eq!(bench.overdue(86_399), None);
        assert_eq!(bench.overdue(86_400), Some(Ending::Lifetime));
    }

    #[test]
    fn client_ids_that_the_service_does_not_take_are_refused_in_the_connack() {
        let dirty =
            Incoming::Connect(Connect { client_id: String::new(), clean_session: false, keep_alive: 30 });
        for packet in [connect(&"x".repeat(129), 30), connect("$GEN/1", 30), dirty] {
            let mut effects = Vec::new();
            let start = Instant::now();
            let mut session = Session::new(ReplyPolicy::ToRequester, start);
            assert_eq!(session.receive(start, packet, &mut effects), Err(Ending::ClientId));
            let refused = ConnAck::new(ConnectReturnCode::BadClientId, false);
            assert_eq!(effects, [Effect::Send(Packet::ConnAck(refused))]);
        }
        assert!(Bench::new().send(connect(&"x".repeat(128), 30)).is_ok());
        assert!(Bench::new().send(connect("", 30)).is_ok());
    }

    #[test]
    fn another_protocol_level_is_refused_in_the_connack() {
        let mut effects = Vec::new();
        let ending = Bench::new().session.reject(Malformed::ProtocolLevel, &mut effects);
        assert_eq!(ending, Ending::Malformed(Malformed::ProtocolLevel));
        let refused = ConnAck::new(ConnectReturnCode::RefusedProtocolVersion, false);
        assert_eq!(effects, [Effect::Send(Packet::ConnAck(refused))]);
    }

    #[test]
    fn eight_filters_are_granted_and_nine_end_the_connection() {
        let filters: Vec<String> = (0..9).map(|n| format!("a/{n}")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let mut bench = Bench::connected(30);
        let granted = bench.subscribe(&filters[..8], QoS::AtLeastOnce).unwrap();
        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); 8];
        assert_eq!(granted.last(), Some(&Effect::Send(Packet::SubAck(SubAck::new(5, codes)))));
        assert_eq!(granted.len(), 9);
        assert_eq!(bench.subscribe(&filters, QoS::AtLeastOnce), Err(Ending::TooManyFilters(9)));
        let topics = filters.iter().map(|filter| (*filter).to_owned()).collect();
        assert_eq!(
            bench.send(Incoming::Unsubscribe(Unsubscribe { pkid: 5, topics })),
            Err(Ending::TooManyFilters(9))
        );
    }

    #[test]
    fn fifty_subscriptions_and_a_repeated_one_counts_once() {
        let mut bench = Bench::connected(30);
        for n in 0..50 {
            bench.subscribe(&[&format!("a/{n}")], QoS::AtLeastOnce).unwrap();
        }
        bench.subscribe(&["a/7"], QoS::AtMostOnce).unwrap();
        assert_eq!(bench.subscribe(&["a/50"], QoS::AtLeastOnce), Err(Ending::TooManySubscriptions));
        let topics = vec![String::from("a/7")];
        bench.send(Incoming::Unsubscribe(Unsubscribe { pkid: 5, topics })).unwrap();
        bench.subscribe(&["a/50"], QoS::AtLeastOnce).unwrap();
    }

    #[test]
    fn qos_2_gets_no_suback_and_ends_a_publisher() {
        let mut bench = Bench::connected(30);
        assert_eq!(bench.subscribe(&["a"], QoS::ExactlyOnce), Ok(vec![]));
        assert_eq!(bench.publish("a", QoS::ExactlyOnce, vec![]), Err(Ending::QoS2));
    }

    #[test]
    fn request_topics_are_for_publishing_and_response_topics_for_subscribing() {
        let mut bench = Bench::connected(30);
        assert_eq!(
            bench.subscribe(&[CREATE], QoS::AtLeastOnce),
            Err(Ending::SubscribeToRequest(CREATE.to_owned()))
        );
        let accepted = format!("{CREATE}/accepted");
        assert!(bench.subscribe(&[&accepted], QoS::AtLeastOnce).is_ok());
        assert!(bench.subscribe(&[&format!("{CREATE}/#")], QoS::AtLeastOnce).is_ok());
        assert_eq!(
            bench.publish(&accepted, QoS::AtLeastOnce, vec![]),
            Err(Ending::PublishToResponse(accepted))
        );
        for reserved in ["$aws/things/a/shadow/update", "$SYS/x"] {
            assert_eq!(
                bench.publish(reserved, QoS::AtMostOnce, vec![]),
                Err(Ending::ReservedTopic(reserved.to_owned()))
            );
        }
    }

    #[test]
    fn a_request_is_acknowledged_before_it_is_asked() {
        let mut bench = Bench::connected(30);
        let request = Effect::Request { topic: CREATE.to_owned(), payload: Bytes::from_static(b"{}") };
        let acknowledged = Effect::Send(Packet::PubAck(PubAck::new(6)));
        let effects = bench.publish(CREATE, QoS::AtLeastOnce, b"{}".to_vec()).unwrap();
        assert_eq!(effects, [acknowledged, request.clone()]);
        assert_eq!(bench.publish(CREATE, QoS::AtMostOnce, b"{}".to_vec()).unwrap(), [request]);
    }

    #[test]
    fn topics_and_payloads_keep_to_the_limits() {
        let mut bench = Bench::connected(30);
        assert!(bench.publish("a", QoS::AtMostOnce, vec![0; MAX_PAYLOAD]).is_ok());
        let over = MAX_PAYLOAD + 1;
        assert_eq!(bench.publish("a", QoS::AtMostOnce, vec![0; over]), Err(Ending::Payload(over)));
        for topic in ["", "a/+", "a/#", "1/2/3/4/5/6/7/8/9"] {
            assert_eq!(bench.publish(topic, QoS::AtMostOnce, vec![]), Err(Ending::Topic(topic.to_owned())));
        }
    }

    #[test]
    fn replies_need_a_subscription_only_where_the_policy_says_so() {
        let topic = || format!("{CREATE}/accepted");
        let mut bench = Bench::connected(30);
        assert_eq!(id_of(bench.session.reply(topic(), Bytes::new()).unwrap()), 1);

        bench.session.replies = ReplyPolicy::ToSubscriber;
        assert_eq!(bench.session.reply(topic(), Bytes::new()), Ok(None));
        bench.subscribe(&[&format!("{CREATE}/+")], QoS::AtMostOnce).unwrap();
        assert_eq!(id_of(bench.session.reply(topic(), Bytes::new()).unwrap()), 0);
        bench.subscribe(&[&topic()], QoS::AtLeastOnce).unwrap();
        assert_eq!(id_of(bench.session.reply(topic(), Bytes::new()).unwrap()), 2);
    }

    #[test]
    fn packet_ids_in_flight_are_distinct_and_the_window_holds_the_rest_back() {
        let mut bench = Bench::connected(30);
        let message = || Message { topic: String::from("a"), payload: Bytes::new(), qos: QoS::AtLeastOnce };
        bench.session.last_id = u16::MAX - 10;
        let ids: BTreeSet<u16> =
            (0..MAX_UNACKED).map(|_| id_of(bench.session.deliver(message()).unwrap())).collect();
        assert_eq!(ids.len(), MAX_UNACKED);
        assert!(!ids.contains(&0));

        for _ in 0..MAX_BACKLOG {
            assert_eq!(bench.session.deliver(message()), Ok(None));
        }
        assert_eq!(bench.session.deliver(message()), Err(Ending::SlowConsumer));

        let unknown = Incoming::PubAck(PubAck::new(30_000));
        assert_eq!(bench.send(unknown), Ok(vec![]));
        let first = *ids.first().unwrap();
        let released = bench.send(Incoming::PubAck(PubAck::new(first))).unwrap();
        assert!(matches!(&released[..], [Effect::Send(Packet::Publish(_))]));
    }

    #[test]
    fn plain_filters_are_watched_and_shared_ones_refused() {
        let mut bench = Bench::connected(30);
        let effects =
            bench.subscribe(&["a/+", "$share/g/a", "$aws/things/x/jobs/notify"], QoS::AtMostOnce).unwrap();
        let granted = SubscribeReasonCode::Success(QoS::AtMostOnce);
        let codes = vec![granted, SubscribeReasonCode::Failure, granted];
        assert_eq!(
            effects,
            [
                Effect::Watch { filter: String::from("a/+"), qos: QoS::AtMostOnce },
                Effect::Send(Packet::SubAck(SubAck::new(5, codes))),
            ]
        );
    }
}
