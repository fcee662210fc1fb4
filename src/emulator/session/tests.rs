//! What the service allows, packet by packet, with `now` as an argument.

use std::collections::BTreeSet;

use super::super::mqtt::{Subscribe, Unsubscribe};
use super::delivery::MAX_BACKLOG;
use super::*;
use crate::emulator::scenario::{Denials, Scenario};

const UNACKED: usize = 100;
const CREATE: &str = "$aws/certificates/create/json";

struct Bench {
    session: Session,
    start: Instant,
    permits: fn(Action, &str) -> bool,
}

impl Bench {
    fn new() -> Self {
        Self::of(&Scenario::default())
    }

    fn of(scenario: &Scenario) -> Self {
        let start = Instant::now();
        let session = Session::new(Arc::new(Rules::of(scenario)), start, start);
        Self { session, start, permits: |_, _| true }
    }

    fn connected(keep_alive: u16) -> Self {
        let mut bench = Self::new();
        bench.send(connect("device", keep_alive)).unwrap();
        bench
    }

    fn at(&mut self, seconds: u64, packet: Incoming) -> Result<Vec<Effect>, Ending> {
        let mut effects = Vec::new();
        let now = self.start + Duration::from_secs(seconds);
        self.session.receive(now, packet, &self.permits, &mut effects).map(|()| effects)
    }

    fn send(&mut self, packet: Incoming) -> Result<Vec<Effect>, Ending> {
        self.at(0, packet)
    }

    fn overdue(&self, seconds: u64) -> Option<Ending> {
        self.session.overdue(self.start + Duration::from_secs(seconds))
    }

    fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Result<Vec<Effect>, Ending> {
        let filters = filters.iter().map(|path| filter(path, qos)).collect();
        self.send(Incoming::Subscribe(Subscribe { id: 5, filters, has_subscription_id: false }))
    }

    fn publish(&mut self, topic: &str, qos: QoS, payload: Vec<u8>) -> Result<Vec<Effect>, Ending> {
        self.send(Incoming::Publish(Publish { payload: payload.into(), ..message(topic, qos) }))
    }
}

fn connect(client_id: &str, keep_alive: u16) -> Incoming {
    Incoming::Connect(Connect { client_id: client_id.to_owned(), keep_alive, ..Connect::default() })
}

/// A CONNECT in MQTT 5, from a client that accepts one unacknowledged message at a time.
fn connect_5(client_id: &str) -> Incoming {
    Incoming::Connect(Connect {
        version: Version::V5,
        client_id: client_id.to_owned(),
        keep_alive: 60,
        receive_maximum: 1,
        maximum_packet_size: 1_000,
        ..Connect::default()
    })
}

fn filter(path: &str, qos: QoS) -> Filter {
    Filter { path: path.to_owned(), qos, is_no_local: false }
}

fn message(topic: &str, qos: QoS) -> Publish {
    Publish {
        topic: topic.to_owned(),
        payload: Bytes::new(),
        qos,
        id: 6,
        is_duplicate: false,
        alias: None,
        properties: Bytes::new(),
    }
}

fn accepted(effects: &[Effect]) -> Terms {
    match effects {
        [
            Effect::Enter(_),
            Effect::Send(Packet::ConnAck(ConnAck { reason: Reason::SUCCESS, terms: Some(terms) })),
        ] => terms.clone(),
        other => panic!("not accepted: {other:?}"),
    }
}

fn refusal(reason: Reason) -> Effect {
    Effect::Send(Packet::ConnAck(ConnAck { reason, terms: None }))
}

fn id_of(delivery: Delivery) -> u16 {
    let Delivery::Send(Packet::Publish(publish)) = delivery else { panic!("not a PUBLISH: {delivery:?}") };
    assert!(!publish.is_duplicate);
    publish.id
}

#[test]
fn connect_comes_first_and_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(Incoming::PingReq), Err(Ending::NotConnected));

    let mut bench = Bench::new();
    let greeted = bench.send(connect("device", 30)).unwrap();
    assert_eq!(greeted[0], Effect::Enter(String::from("device")));
    accepted(&greeted);
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
    let dirty = Incoming::Connect(Connect { clean_session: false, ..Connect::default() });
    for packet in [connect(&"x".repeat(129), 30), connect("$GEN/1", 30), dirty] {
        let mut effects = Vec::new();
        let start = Instant::now();
        let mut session = Session::new(Arc::new(Rules::of(&Scenario::default())), start, start);
        assert_eq!(session.receive(start, packet, &|_, _| true, &mut effects), Err(Ending::ClientId));
        assert_eq!(effects, [refusal(Reason::CLIENT_ID_NOT_VALID)]);
    }
    assert!(Bench::new().send(connect(&"x".repeat(128), 30)).is_ok());
    assert!(Bench::new().send(connect("", 30)).is_ok());
}

#[test]
fn another_protocol_level_is_refused_in_the_connack() {
    let mut effects = Vec::new();
    let ending = Bench::new().session.reject(Malformed::ProtocolLevel, &mut effects);
    assert_eq!(ending, Ending::Malformed(Malformed::ProtocolLevel));
    assert_eq!(effects, [refusal(Reason::UNSUPPORTED_VERSION)]);
}

#[test]
fn eight_filters_are_granted_and_nine_end_the_connection() {
    let filters: Vec<String> = (0..9).map(|n| format!("a/{n}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let mut bench = Bench::connected(30);
    let granted = bench.subscribe(&filters[..8], QoS::AtLeastOnce).unwrap();
    let reasons = vec![Reason::granted(QoS::AtLeastOnce); 8];
    assert_eq!(granted.last(), Some(&Effect::Send(Packet::SubAck { id: 5, reasons })));
    assert_eq!(granted.len(), 9);
    assert_eq!(bench.subscribe(&filters, QoS::AtLeastOnce), Err(Ending::TooManyFilters(9)));
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    assert_eq!(
        bench.send(Incoming::Unsubscribe(Unsubscribe { id: 5, filters })),
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
    let filters = vec![String::from("a/7")];
    bench.send(Incoming::Unsubscribe(Unsubscribe { id: 5, filters })).unwrap();
    bench.subscribe(&["a/50"], QoS::AtLeastOnce).unwrap();
}

#[test]
fn qos_2_meets_silence() {
    let mut bench = Bench::connected(30);
    assert_eq!(bench.subscribe(&["a"], QoS::ExactlyOnce), Ok(vec![]));
    assert_eq!(bench.publish("a", QoS::ExactlyOnce, vec![]), Ok(vec![]));
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
    assert_eq!(bench.publish(&accepted, QoS::AtLeastOnce, vec![]), Err(Ending::PublishToResponse(accepted)));
    for reserved in ["$aws/things/a/shadow/update", "$SYS/x"] {
        assert_eq!(
            bench.publish(reserved, QoS::AtMostOnce, vec![]),
            Err(Ending::ReservedTopic(reserved.to_owned()))
        );
    }
}

#[test]
fn a_request_says_which_packet_is_acknowledged_before_it_is_asked() {
    let mut bench = Bench::connected(30);
    let request = |acknowledge| Effect::Request {
        topic: CREATE.to_owned(),
        payload: Bytes::from_static(b"{}"),
        acknowledge,
    };
    let effects = bench.publish(CREATE, QoS::AtLeastOnce, b"{}".to_vec()).unwrap();
    assert_eq!(effects, [request(Some(6))]);
    assert_eq!(bench.publish(CREATE, QoS::AtMostOnce, b"{}".to_vec()).unwrap(), [request(None)]);
}

#[test]
fn topics_and_payloads_keep_to_the_limits() {
    let mut bench = Bench::connected(30);
    assert!(bench.publish("a", QoS::AtMostOnce, vec![0; 128 * 1024]).is_ok());
    let over = 128 * 1024 + 1;
    assert_eq!(bench.publish("a", QoS::AtMostOnce, vec![0; over]), Err(Ending::Payload(over)));
    for topic in ["", "a/+", "a/#", "1/2/3/4/5/6/7/8/9"] {
        assert_eq!(bench.publish(topic, QoS::AtMostOnce, vec![]), Err(Ending::Topic(topic.to_owned())));
    }
}

#[test]
fn replies_need_a_subscription_only_where_the_policy_says_so() {
    let topic = || format!("{CREATE}/accepted");
    let mut bench = Bench::connected(30);
    assert_eq!(id_of(bench.session.reply(bench.start, topic(), Bytes::new()).unwrap()), 1);

    bench = Bench::of(&Scenario { require_subscription: true, ..Scenario::default() });
    bench.send(connect("device", 30)).unwrap();
    assert_eq!(bench.session.reply(bench.start, topic(), Bytes::new()), Ok(Delivery::Nothing));
    bench.subscribe(&[&format!("{CREATE}/+")], QoS::AtMostOnce).unwrap();
    assert_eq!(id_of(bench.session.reply(bench.start, topic(), Bytes::new()).unwrap()), 0);
    bench.subscribe(&[&topic()], QoS::AtLeastOnce).unwrap();
    assert_eq!(id_of(bench.session.reply(bench.start, topic(), Bytes::new()).unwrap()), 1);
}

#[test]
fn packet_ids_in_flight_are_distinct_and_the_window_holds_the_rest_back() {
    let mut bench = Bench::connected(30);
    let message = || at_least_once("a");
    bench.session.last_id = u16::MAX - 10;
    let ids: BTreeSet<u16> =
        (0..UNACKED).map(|_| id_of(bench.session.deliver(bench.start, message()).unwrap())).collect();
    assert_eq!(ids.len(), UNACKED);
    assert!(!ids.contains(&0));

    for _ in 0..MAX_BACKLOG {
        assert_eq!(bench.session.deliver(bench.start, message()), Ok(Delivery::Nothing));
    }
    assert_eq!(bench.session.deliver(bench.start, message()), Err(Ending::SlowConsumer));

    let unknown = Incoming::PubAck(30_000);
    assert_eq!(bench.send(unknown), Ok(vec![]));
    let first = *ids.first().unwrap();
    let released = bench.send(Incoming::PubAck(first)).unwrap();
    assert!(matches!(&released[..], [Effect::Send(Packet::Publish(_))]));
}

#[test]
fn plain_filters_are_watched_and_shared_ones_refused() {
    let mut bench = Bench::connected(30);
    let effects =
        bench.subscribe(&["a/+", "$share/g/a", "$aws/things/x/jobs/notify"], QoS::AtMostOnce).unwrap();
    let granted = Reason::granted(QoS::AtMostOnce);
    let reasons = vec![granted, Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, granted];
    assert_eq!(
        effects,
        [Effect::Watch(filter("a/+", QoS::AtMostOnce)), Effect::Send(Packet::SubAck { id: 5, reasons }),]
    );
}

fn at_least_once(topic: &str) -> Message {
    let (topic, payload, properties) = (topic.to_owned(), Bytes::new(), Bytes::new());
    Message { topic, payload, qos: QoS::AtLeastOnce, properties }
}

#[test]
fn a_message_that_is_not_acknowledged_comes_again() {
    let mut bench = Bench::connected(30);
    let id = id_of(bench.session.deliver(bench.start, at_least_once("a")).unwrap());
    let at = |seconds| bench.start + Duration::from_secs(seconds);
    assert_eq!(bench.session.deadline(), at(10));
    assert_eq!(bench.session.redeliver(at(9)), []);
    for seconds in [10, 20] {
        let [Packet::Publish(again)] = &bench.session.redeliver(at(seconds))[..] else { panic!("once") };
        assert_eq!((again.id, again.is_duplicate), (id, true));
    }
    bench.send(Incoming::PubAck(id)).unwrap();
    let later = bench.start + Duration::from_secs(30);
    assert_eq!(bench.session.redeliver(later), []);
}

#[test]
fn a_client_of_mqtt_5_is_told_its_terms_and_keeps_its_own() {
    let mut bench = Bench::new();
    let terms = accepted(&bench.send(connect_5("a")).unwrap());
    assert_eq!((terms.receive_maximum, terms.server_keep_alive, terms.assigned_client_id), (100, None, None));
    assert_eq!((bench.session.version(), bench.session.largest_packet()), (Version::V5, 1_000));
    id_of(bench.session.deliver(bench.start, at_least_once("a")).unwrap());
    assert_eq!(
        bench.session.deliver(bench.start, at_least_once("a")),
        Ok(Delivery::Nothing),
        "one at a time"
    );

    let terms = accepted(&Bench::new().send(connect_5("")).unwrap());
    assert!(terms.assigned_client_id.unwrap().starts_with("$GEN/"));
    let terms = accepted(&Bench::new().send(connect("a", 5)).unwrap());
    assert_eq!(terms.server_keep_alive, Some(30));
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let mut bench = Bench::new();
    bench.send(connect_5("a")).unwrap();
    let publish = |topic: &str, alias| {
        Incoming::Publish(Publish { alias: Some(alias), ..message(topic, QoS::AtMostOnce) })
    };
    assert_eq!(bench.send(publish("", 1)), Err(Ending::Alias(1)), "nothing was called 1 before");
    bench.send(publish("a/b", 1)).unwrap();
    let [Effect::Relay { message, .. }] = &bench.send(publish("", 1)).unwrap()[..] else {
        panic!("no message")
    };
    assert_eq!(message.topic, "a/b");
    assert_eq!(bench.send(publish("a", 9)), Err(Ending::Alias(9)), "eight aliases");
    assert_eq!(bench.send(publish("a", 0)), Err(Ending::Alias(0)));
}

#[test]
fn a_subscription_identifier_ends_the_connection_and_mqtt_5_is_told_why() {
    let mut bench = Bench::new();
    bench.send(connect_5("a")).unwrap();
    let filters = vec![filter("a", QoS::AtMostOnce)];
    let subscribe = Incoming::Subscribe(Subscribe { id: 5, filters, has_subscription_id: true });
    let ending = bench.send(subscribe).unwrap_err();
    let farewell = Some(Packet::Disconnect(Reason::SUBSCRIPTION_IDS_NOT_SUPPORTED));
    assert_eq!(bench.session.farewell(&ending), farewell);
    assert_eq!(bench.session.farewell(&Ending::Disconnected), None);
    assert_eq!(
        Bench::connected(30).session.farewell(&ending),
        None,
        "3.1.1 has no DISCONNECT from the server"
    );
}

#[test]
fn what_is_not_permitted_is_answered_as_the_scenario_says() {
    let denied = |version: Version, denials: Denials| {
        let mut bench = Bench::of(&Scenario { permissions: denials, ..Scenario::default() });
        let hello = if version == Version::V5 { connect_5("a") } else { connect("a", 30) };
        bench.permits = |_, _| false;
        let connect = bench.send(hello.clone()).map(|_| ());
        bench.permits = |action, _| action == Action::Connect;
        bench.session = Session::new(bench.session.rules.clone(), bench.start, bench.start);
        bench.send(hello).unwrap();
        let publish = bench.publish("t", QoS::AtLeastOnce, vec![]);
        (connect, bench.subscribe(&["t"], QoS::AtMostOnce), publish)
    };
    let (connect, subscribe, publish) = denied(Version::V311, Denials::default());
    assert_eq!(connect, Err(Ending::Denied(Action::Connect, String::from("a"))));
    assert_eq!(subscribe, Err(Ending::Denied(Action::Subscribe, String::from("t"))));
    assert_eq!(publish, Err(Ending::Denied(Action::Publish, String::from("t"))));
    let suback = Effect::Send(Packet::SubAck { id: 5, reasons: vec![Reason::NOT_AUTHORIZED] });
    let answering = Denials { subscribe: Some(DenialAnswer::Answer), ..Denials::default() };
    assert_eq!(denied(Version::V311, answering).1, Ok(vec![suback.clone()]));
    let (_, subscribe, publish) = denied(Version::V5, Denials::default());
    assert_eq!(subscribe, Ok(vec![suback]));
    assert_eq!(publish, Ok(vec![Effect::Send(Packet::PubAck { id: 6, reason: Reason::NOT_AUTHORIZED })]));
    let close = Some(DenialAnswer::Close);
    let closing = Denials { connect: close, subscribe: close, publish: close };
    let (_, subscribe, publish) = denied(Version::V5, closing);
    assert!(subscribe.is_err() && publish.is_err());
}
