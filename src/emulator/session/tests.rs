//! What the service allows, packet by packet, with `now` as an argument.

use rumqttc::mqttbytes::v4::{PubAck, SubscribeFilter};

use super::*;
use crate::emulator::scenario::Scenario;

const UNACKED: usize = 100;
const CREATE: &str = "$aws/certificates/create/json";

struct Bench {
    session: Session,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::of(&Scenario::default())
    }

    fn of(scenario: &Scenario) -> Self {
        let start = Instant::now();
        Self { session: Session::new(Arc::new(Rules::of(scenario)), start, start), start }
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

fn id_of(delivery: Delivery) -> u16 {
    let Delivery::Send(Packet::Publish(publish)) = delivery else { panic!("not a PUBLISH: {delivery:?}") };
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
    let dirty = Incoming::Connect(Connect { client_id: String::new(), clean_session: false, keep_alive: 30 });
    for packet in [connect(&"x".repeat(129), 30), connect("$GEN/1", 30), dirty] {
        let mut effects = Vec::new();
        let start = Instant::now();
        let mut session = Session::new(Arc::new(Rules::of(&Scenario::default())), start, start);
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
    let message = || Message { topic: String::from("a"), payload: Bytes::new(), qos: QoS::AtLeastOnce };
    bench.session.last_id = u16::MAX - 10;
    let ids: BTreeSet<u16> =
        (0..UNACKED).map(|_| id_of(bench.session.deliver(bench.start, message()).unwrap())).collect();
    assert_eq!(ids.len(), UNACKED);
    assert!(!ids.contains(&0));

    for _ in 0..MAX_BACKLOG {
        assert_eq!(bench.session.deliver(bench.start, message()), Ok(Delivery::Nothing));
    }
    assert_eq!(bench.session.deliver(bench.start, message()), Err(Ending::SlowConsumer));

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
