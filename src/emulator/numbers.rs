//! Measures every number of `aws-defaults.toml`: how much the emulator admits with it, and with half of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::account::{Account, Detached, Route};
use super::mqtt::{Connect, Filter, Incoming, Packet, Publish, QoS, Subscribe};
use super::scenario::{Scenario, parse_duration};
use super::session::{Delivery, Effect, Ending, Message, Rules, Session};
use crate::rate::Rate;

const FIXTURE: &str = include_str!("../../fixtures/scenarios/aws-defaults.toml");

/// Measures a key. The result has the unit of the key: events or bytes per second, seconds, or a count.
type Probe = fn(&Scenario) -> f64;

const PROBES: [(&str, Probe); 22] = [
    (".detach_lag", |scenario| {
        let (mut account, start) = (account(scenario), SystemTime::UNIX_EPOCH);
        account.detach(start, Detached::GroupPolicy(String::new(), String::new()));
        let done = (0_u64..).find(|millis| {
            account.expire(start + Duration::from_millis(*millis));
            account.state().detaching.is_empty()
        });
        done.unwrap() as f64 / 1000.0
    }),
    ("quotas.burst", |scenario| {
        let route = Route::CreateFromCsr;
        let mut account = account(scenario);
        let through = (0..100_000).take_while(|_| account.admit(AGE, &route).is_ok()).count();
        through as f64
            / scenario.quotas.create_certificate_from_csr.as_ref().unwrap().at(AGE).unwrap().as_per_second()
    }),
    ("quotas.create_keys_and_certificate", |scenario| requests(scenario, Route::CreateKeys)),
    ("quotas.create_certificate_from_csr", |scenario| requests(scenario, Route::CreateFromCsr)),
    ("quotas.register_thing", |scenario| requests(scenario, Route::Register { template: "T" })),
    ("quotas.connect", |scenario| {
        let mut account = account(scenario);
        let mut clients = 0_u64;
        per_second(|age| {
            clients += 1;
            account.admit_connect(age, Some(&clients.to_string())).is_ok()
        })
    }),
    ("quotas.connect_per_client_id", |scenario| {
        let mut account = account(scenario);
        per_second(|age| account.admit_connect(age, Some("same")).is_ok())
    }),
    ("quotas.publish", |scenario| {
        let mut account = account(scenario);
        per_second(|age| account.admit_publish(age))
    }),
    ("quotas.deliver", |scenario| {
        let mut account = account(scenario);
        per_second(|age| account.admit_delivery(age))
    }),
    ("quotas.publish_per_connection", |scenario| {
        let mut bench = Bench::new(scenario);
        let mut is_inbound = false;
        per_second(|age| {
            is_inbound = !is_inbound;
            if is_inbound { bench.publishes(age) } else { bench.delivers(age) }
        })
    }),
    ("quotas.subscribe", |scenario| {
        let mut account = account(scenario);
        per_second(|age| account.admit_subscribe(age, 1))
    }),
    ("quotas.bytes_per_connection", |scenario| {
        let mut bench = Bench::new(scenario);
        const CHUNK: usize = 64;
        CHUNK as f64
            * per_second(|age| {
                let now = bench.start + age;
                let is_free = bench.session.held_until(now).is_none();
                if is_free {
                    bench.session.transferred(now, CHUNK);
                }
                is_free
            })
    }),
    ("limits.client_id_bytes", |scenario| {
        largest(|length| Bench::unconnected(scenario).connect(&"x".repeat(length), 30).is_ok())
    }),
    ("limits.keep_alive_least", |scenario| silence_allowed(scenario, 1) / 1.5),
    ("limits.keep_alive_most", |scenario| silence_allowed(scenario, 0) / 1.5),
    ("limits.connection_lifetime", |scenario| {
        let mut bench = Bench::new(scenario);
        loop {
            let deadline = bench.session.deadline();
            match bench.session.overdue(deadline) {
                Some(Ending::Lifetime) => return (deadline - bench.start).as_secs_f64(),
                _ => {
                    bench.receive(deadline - bench.start - Duration::from_secs(1), Incoming::PingReq).unwrap()
                }
            };
        }
    }),
    ("limits.payload_bytes", |scenario| {
        largest(|length| Bench::new(scenario).publish(AGE, "a", vec![0; length]).is_ok())
    }),
    ("limits.topic_bytes", |scenario| {
        largest(|length| Bench::new(scenario).publish(AGE, &"a".repeat(length), Vec::new()).is_ok())
    }),
    ("limits.topic_levels", |scenario| {
        largest(|levels| {
            let topic = vec!["a"; levels].join("/");
            let published = Bench::new(scenario).publish(AGE, &topic, Vec::new()).is_ok();
            assert_eq!(Bench::new(scenario).subscribe(&[topic]).is_ok(), published);
            published
        })
    }),
    ("limits.filters_per_subscribe", |scenario| {
        largest(|filters| Bench::new(scenario).subscribe(&names(filters)).is_ok())
    }),
    ("limits.subscriptions_per_connection", |scenario| {
        largest(|filters| {
            let mut bench = Bench::new(scenario);
            names(filters).into_iter().all(|filter| bench.subscribe(&[filter]).is_ok())
        })
    }),
    ("limits.unacked_outbound", |scenario| {
        let mut bench = Bench::new(scenario);
        // More slowly than the connection's quota of messages.
        let sent = (1..).map(|n| bench.deliver(AGE + n * Duration::from_millis(100)));
        sent.take_while(|delivery| matches!(delivery, Ok(Delivery::Send(_)))).count() as f64
    }),
];

/// Keys that are not numbers, and limits that only the server can enforce; other tests cover them.
const NOT_MEASURED: [&str; 5] = [
    ".template_versions",
    "quotas.window",
    "quotas.connect_excess",
    "limits.connections",
    "limits.unacked_inbound",
];

const AGE: Duration = Duration::from_secs(100);

#[test]
fn every_number_of_the_fixture_is_enforced() {
    let scenario = Scenario::from_toml(FIXTURE).unwrap();
    let probes = BTreeMap::from(PROBES);
    let keys = keys();
    for key in probes.keys().chain(&NOT_MEASURED) {
        assert!(keys.contains_key(*key), "{key} is not in the fixture");
    }
    for (key, text) in &keys {
        if let Some(operation) = key.strip_prefix("quotas.control_plane.") {
            let halved = format!("[quotas]\ncontrol_plane = {{ {operation} = {} }}", half(text));
            assert_close(key, operations(&scenario, operation), number(text));
            let halved = Scenario::from_toml(&halved).unwrap();
            assert_close(key, operations(&halved, operation), number(text) / 2.0);
            continue;
        }
        let Some(probe) = probes.get(key.as_str()) else {
            assert!(NOT_MEASURED.contains(&key.as_str()), "{key} is not measured");
            continue;
        };
        assert_close(key, probe(&scenario), number(text));

        let halved = half(text);
        let name = key.split('.').next_back().unwrap();
        let changed = FIXTURE.replace(&format!("\n{name} = {text}\n"), &format!("\n{name} = {halved}\n"));
        assert_ne!(changed, FIXTURE);
        assert_close(key, probe(&Scenario::from_toml(&changed).unwrap()), number(&halved));
    }
}

fn assert_close(key: &str, measured: f64, said: f64) {
    assert!((measured - said).abs() <= 0.002 * said, "{key}: measured {measured}, the scenario says {said}");
}

/// The fixture's keys, with their tables, and the text of each value.
fn keys() -> BTreeMap<String, String> {
    let mut table = "";
    let mut keys = BTreeMap::new();
    for line in FIXTURE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ") {
            keys.insert(format!("{table}.{key}"), value.to_owned());
        }
    }
    keys
}

/// A value in its base unit.
fn number(text: &str) -> f64 {
    let bare = text.trim_matches('"');
    if let Ok(rate) = bare.parse::<Rate>() {
        return rate.as_per_second();
    }
    match parse_duration(bare) {
        Ok(time) if bare != text => time.as_secs_f64(),
        _ => text.parse().unwrap(),
    }
}

/// Half of a value, in the same notation.
fn half(text: &str) -> String {
    let half = number(text) / 2.0;
    let bare = text.trim_matches('"');
    if bare == text {
        return (half as u32).to_string();
    }
    if bare.contains('/') { format!("\"{half}/s\"") } else { format!("\"{}ms\"", half * 1000.0) }
}

/// How many are admitted per second in the long run if clients try all the time.
fn per_second(mut admit: impl FnMut(Duration) -> bool) -> f64 {
    const STEP: Duration = Duration::from_millis(5);
    let mut through = |steps: std::ops::Range<u32>| -> usize {
        steps.map(|step| (0..).take_while(|_| admit(AGE + step * STEP)).count()).sum()
    };
    // The initial burst is over after four seconds. The period of every slow quota here divides the next eight seconds.
    through(0..800);
    through(800..2400) as f64 / 8.0
}

/// The largest number that is accepted, found by bisection from 0.
fn largest(accepts: impl Fn(usize) -> bool) -> f64 {
    let mut over = 1;
    while accepts(over) {
        over *= 2;
    }
    let mut within = over / 2;
    while over - within > 1 {
        let middle = (over + within) / 2;
        if accepts(middle) { within = middle } else { over = middle }
    }
    within as f64
}

fn account(scenario: &Scenario) -> Account {
    Account::new(scenario).unwrap()
}

fn requests(scenario: &Scenario, route: Route<'_>) -> f64 {
    let mut account = account(scenario);
    per_second(|age| account.admit(age, &route).is_ok())
}

/// How many requests for a control plane operation are admitted per second.
fn operations(scenario: &Scenario, name: &str) -> f64 {
    let name: &'static str = String::from(name).leak();
    super::control::check_quotas(scenario).unwrap();
    let mut account = account(scenario);
    per_second(|age| account.admit_operation(age, name))
}

/// How long a client that requested this keep-alive may be silent, seconds.
fn silence_allowed(scenario: &Scenario, keep_alive: u16) -> f64 {
    let mut bench = Bench::unconnected(scenario);
    bench.connect("device", keep_alive).unwrap();
    let deadline = bench.session.deadline();
    assert_eq!(bench.session.overdue(deadline), Some(Ending::KeepAlive));
    (deadline - bench.start).as_secs_f64()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("a/{n}")).collect()
}

struct Bench {
    session: Session,
    start: Instant,
}

impl Bench {
    fn unconnected(scenario: &Scenario) -> Self {
        let start = Instant::now();
        Self { session: Session::new(Arc::new(Rules::of(scenario)), start, start), start }
    }

    fn new(scenario: &Scenario) -> Self {
        let mut bench = Self::unconnected(scenario);
        bench.connect("device", 1200).unwrap();
        bench
    }

    fn receive(&mut self, age: Duration, packet: Incoming) -> Result<Vec<Effect>, Ending> {
        let mut effects = Vec::new();
        self.session.receive(self.start + age, packet, &|_, _| true, &mut effects).map(|()| effects)
    }

    fn connect(&mut self, client_id: &str, keep_alive: u16) -> Result<Vec<Effect>, Ending> {
        let connect = Connect { client_id: client_id.to_owned(), keep_alive, ..Connect::default() };
        self.receive(Duration::ZERO, Incoming::Connect(connect))
    }

    fn publish(&mut self, age: Duration, topic: &str, payload: Vec<u8>) -> Result<Vec<Effect>, Ending> {
        let publish = Publish {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            id: 0,
            is_duplicate: false,
            alias: None,
            properties: Bytes::new(),
        };
        self.receive(age, Incoming::Publish(publish))
    }

    fn publishes(&mut self, age: Duration) -> bool {
        self.publish(age, "a", Vec::new()).unwrap() != [Effect::Dropped]
    }

    fn subscribe(&mut self, filters: &[String]) -> Result<Vec<Effect>, Ending> {
        let filters = filters.iter().map(|path| Filter {
            path: path.clone(),
            qos: QoS::AtMostOnce,
            is_no_local: false,
        });
        let subscribe = Subscribe { id: 1, filters: filters.collect(), has_subscription_id: false };
        self.receive(AGE, Incoming::Subscribe(subscribe))
    }

    fn deliver(&mut self, age: Duration) -> Result<Delivery, Ending> {
        let message = Message {
            topic: String::from("a"),
            payload: Bytes::new(),
            qos: QoS::AtLeastOnce,
            properties: Bytes::new(),
        };
        self.session.deliver(self.start + age, message)
    }

    fn delivers(&mut self, age: Duration) -> bool {
        let message = Message {
            topic: String::from("a"),
            payload: Bytes::new(),
            qos: QoS::AtMostOnce,
            properties: Bytes::new(),
        };
        let delivery = self.session.deliver(self.start + age, message).unwrap();
        matches!(delivery, Delivery::Send(Packet::Publish(_)))
    }
}
