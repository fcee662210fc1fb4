//! Workers against a service that ends connections, for hours of virtual time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::call::Call;
use crate::certificate::samples;
use crate::engine::{
    CONNECTION_LIFETIME, Clock, CommitMode, Connections, End, Outcome, Plan, Rates, Stop, run,
};
use crate::event::{Counter, DialPhases, Operation};
use crate::failure::{Cause, Failure, RetryPolicy, Stage};
use crate::identity::{Identity, LotShape, ParameterPlan, RowError};
use crate::ledger::{Binding, Ledger, LotRows};
use crate::metrics::OperationCounts;
use crate::rate::Rate;
use crate::transport::{Connection, Connector, Dial, Lost, Patience, Reply, Verdict};

/// What the service does to connections.
#[derive(Debug, Clone, Copy, Default)]
struct Manners {
    /// Ends each connection this long after it was opened.
    life: Option<Duration>,
    /// Ends each connection at once that is opened later than this.
    sours_at: Option<Duration>,
    /// Is down from the first to the second time, and ends the connections that it had.
    outage: Option<(Duration, Duration)>,
}

/// A connection pings after this much silence.
const PING_AFTER: Duration = Duration::from_secs(27);
/// The service drops a connection after this much silence.
const SILENCE: Duration = Duration::from_secs(45);

struct Service {
    manners: Manners,
    began: Instant,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    dials: AtomicU64,
    issued: AtomicU64,
    goodbyes: AtomicU64,
    /// The age of a connection at each of its exchanges.
    ages: Mutex<Vec<Duration>>,
}

struct ServiceConnection {
    opened: Instant,
    ends: Option<Instant>,
    /// When the service last heard of it.
    heard: Instant,
    seen: Arc<Seen>,
}

impl Connector for Service {
    type Connection = ServiceConnection;

    async fn dial(&self) -> Dial<ServiceConnection> {
        self.seen.dials.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(30)).await;
        let now = Instant::now();
        let Manners { life, sours_at, outage } = self.manners;
        let phases = DialPhases::default();
        if outage.is_some_and(|(from, to)| (from..to).contains(&(now - self.began))) {
            let cause = Cause::Unreachable { detail: String::from("connection refused") };
            return Dial { phases, outcome: Err(Failure::new(Stage::Tcp, cause)) };
        }
        let soured = sours_at.filter(|at| now - self.began >= *at).map(|_| now);
        let outage = outage.map(|(from, _)| self.began + from).filter(|from| *from > now);
        let ends = [soured, outage, life.map(|life| now + life)].into_iter().flatten().min();
        let connection = ServiceConnection { opened: now, ends, heard: now, seen: self.seen.clone() };
        Dial { phases, outcome: Ok(connection) }
    }
}

impl ServiceConnection {
    /// What ended the connection; `None` while it is open.
    fn end(&self) -> Option<Failure> {
        let now = Instant::now();
        let detail = if self.ends.is_some_and(|at| now >= at) {
            "ended by the service"
        } else if now - self.heard > SILENCE {
            "kept nobody alive"
        } else {
            return None;
        };
        Some(Failure::new(Stage::Idle, Cause::Closed { detail: detail.to_owned() }))
    }
}

impl Connection for ServiceConnection {
    async fn exchange(mut self, call: Call, payload: Bytes, _: impl Patience) -> Result<(Reply, Self), Lost> {
        if let Some(failure) = self.end() {
            return Err(Lost { failure, service: Duration::ZERO, redelivered: 0 });
        }
        self.seen.ages.lock().unwrap().push(self.opened.elapsed());
        sleep(Duration::from_millis(20)).await;
        self.heard = Instant::now();
        let reply = match call {
            Call::RegisterThing => {
                let request: Value = serde_json::from_slice(&payload).unwrap();
                json!({ "thingName": request["parameters"]["Key"] })
            }
            _ => {
                let number = self.seen.issued.fetch_add(1, Ordering::Relaxed);
                samples::reply(number)
            }
        };
        let payload = Bytes::from(reply.to_string());
        let service = Duration::from_millis(20);
        Ok((Reply { verdict: Verdict::Accepted, payload, service, redelivered: 0 }, self))
    }

    async fn idle(&mut self) -> Failure {
        loop {
            let ping = self.heard + PING_AFTER;
            sleep_until(self.ends.map_or(ping, |ends| ends.min(ping))).await;
            if let Some(failure) = self.end() {
                return failure;
            }
            self.heard = Instant::now();
        }
    }

    async fn close(self) {
        self.seen.goodbyes.fetch_add(1, Ordering::Relaxed);
    }
}

/// What differs between tests.
struct Setup {
    manners: Manners,
    devices: u64,
    connections: Connections,
    connect: Option<f64>,
    create: Option<f64>,
    register: Option<f64>,
    lifetime: Duration,
}

const SETUP: Setup = Setup {
    manners: Manners { life: None, sours_at: None, outage: None },
    devices: 100,
    connections: Connections::Fixed(5),
    connect: None,
    create: None,
    register: None,
    lifetime: CONNECTION_LIFETIME,
};

struct Run {
    outcome: Outcome,
    seen: Arc<Seen>,
    connects: OperationCounts,
    registered: u64,
}

async fn play(setup: Setup) -> Run {
    let Setup { manners, devices, connections, connect, create, register, lifetime } = setup;
    let limit = |rate: Option<f64>| rate.and_then(Rate::per_second).into();
    let seen = Arc::new(Seen::default());
    let service = Service { manners, began: Instant::now(), seen: seen.clone() };
    let shape = LotShape { columns: vec![String::from("Key")], key_column: 0 };
    let began = Instant::now();
    let plan = Plan {
        connections,
        rates: Rates { connect: limit(connect), create: limit(create), register: limit(register) },
        parameters: ParameterPlan::new(&shape, &[]).unwrap(),
        connection_lifetime: lifetime,
        publishes_per_connection: None,
        commit_mode: CommitMode::Inline,
        clock: Clock::new(move || UNIX_EPOCH + Duration::from_secs(1_700_000_000) + began.elapsed()),
        seed: 1,
        ..Plan::default()
    };
    let run = run(plan, service, ledger(shape, devices), Stop::never(), ());
    let outcome = timeout(Duration::from_secs(30 * 24 * 3600), run).await.expect("the run ends");
    let connects = outcome.metrics.operation(Operation::Connect).counts;
    let registered = outcome.ledger.view().counts().unwrap().registered;
    Run { outcome, seen, connects, registered }
}

fn ledger(shape: LotShape, devices: u64) -> Ledger {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("lasting-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let identity = |rank: u64| {
        let key = format!("SN{rank}");
        Ok::<_, Vec<RowError>>(Identity { line: rank + 1, values: vec![key.clone()], key })
    };
    let rows: Vec<_> = (1..=devices).map(identity).collect();
    let rows = LotRows { source: "lot.csv", shape, rows: rows.into_iter() };
    let binding =
        Binding { template: "t".into(), region: "r".into(), account: "a".into(), ..Binding::default() };
    Ledger::in_shared_memory(&name, &binding, rows, |_| Ok(()), UNIX_EPOCH).unwrap()
}

#[track_caller]
fn assert_complete(run: &Run, devices: u64) {
    assert!(matches!(run.outcome.end, End::Complete), "{:?}", run.outcome.end);
    assert_eq!(run.registered, devices);
}

#[track_caller]
fn assert_stopped_for_hang_ups(run: &Run) {
    let End::Stopped(failure) = &run.outcome.end else { panic!("{:?}", run.outcome.end) };
    assert_eq!((failure.stage, failure.cause.name()), (Stage::Idle, "closed"), "{failure}");
    assert!(failure.hint().contains("iot:Receive"), "{}", failure.hint());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_always_hangs_up_at_once_is_given_up_soon() {
    for create in [None, Some(1.0), Some(0.01)] {
        let manners = Manners { life: Some(Duration::ZERO), ..Manners::default() };
        let run = play(Setup { manners, create, ..SETUP }).await;
        assert_stopped_for_hang_ups(&run);
        assert_eq!(run.registered, 0);
        let dials = run.seen.dials.load(Ordering::Relaxed);
        assert!(dials <= 5 * u64::from(RetryPolicy::default().dials), "{dials} dials");
        assert!(run.outcome.elapsed < Duration::from_secs(300), "{:?}", run.outcome.elapsed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_begins_to_hang_up_is_given_up_when_patience_ends() {
    for create in [Some(1.0), Some(0.05)] {
        let sours_at = Some(Duration::from_secs(40));
        let manners = Manners { sours_at, life: Some(Duration::from_secs(55)), ..Manners::default() };
        let run = play(Setup { manners, create, ..SETUP }).await;
        assert_stopped_for_hang_ups(&run);
        assert!(run.registered > 0);
        let took = run.outcome.elapsed.as_secs();
        assert!((300..700).contains(&took), "{took} s");
        let dials = run.seen.dials.load(Ordering::Relaxed);
        assert!(dials < 5 * 100, "{dials} dials: they come later each time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_restarts_for_minutes_is_waited_for() {
    for minutes in [1, 4] {
        let away = (Duration::from_secs(30), Duration::from_secs(30 + 60 * minutes));
        let manners = Manners { outage: Some(away), ..Manners::default() };
        let run = play(Setup { manners, create: Some(2.0), devices: 200, ..SETUP }).await;
        assert_complete(&run, 200);
        assert!(run.connects.dropped >= 5, "dials were refused: {:?}", run.connects);
        assert!(run.connects.attempts < 5 * 100, "{:?}", run.connects);
    }
}

/// 100 connections at one device per second: each waits 100 s in the queue, and none lives that long.
#[tokio::test(start_paused = true)]
async fn connections_that_live_shorter_than_the_queue_is_long_still_get_their_turn() {
    let manners = Manners { life: Some(Duration::from_secs(30)), ..Manners::default() };
    let run = play(Setup {
        manners,
        create: Some(1.0),
        devices: 300,
        connections: Connections::Fixed(100),
        ..SETUP
    })
    .await;
    assert_complete(&run, 300);
    assert!(run.outcome.metrics.counters.of(Counter::ConnectionsLost) > 300);
    assert!(run.outcome.elapsed < Duration::from_secs(400), "{:?}", run.outcome.elapsed);
}

/// Connections that live for a second or two, and two dials a second, for many workers: a permit that comes during a dial
/// is passed on to a connected worker, or used after the dial. If it were let go, the run could take hours.
#[tokio::test(start_paused = true)]
async fn permits_are_not_lost_to_the_dials_of_a_queue() {
    // Connections that live shorter than a round of dials, or than a turn in the queue takes.
    for workers in [6, 12, 40] {
        let run = play(Setup {
            connect: Some(2.0),
            register: Some(2.0),
            lifetime: Duration::from_secs(1),
            connections: Connections::Fixed(workers),
            ..SETUP
        })
        .await;
        assert_complete(&run, 100);
        assert!(run.outcome.elapsed < Duration::from_secs(100), "{workers}: {:?}", run.outcome.elapsed);
        let slow = Setup {
            connect: Some(2.0),
            register: Some(1.0),
            lifetime: Duration::from_secs(2),
            connections: Connections::Fixed(workers),
            ..SETUP
        };
        let run = play(slow).await;
        assert_complete(&run, 100);
        assert!(run.outcome.elapsed < Duration::from_secs(150), "{workers}: {:?}", run.outcome.elapsed);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_alive_for_hours_of_waiting() {
    let run = play(Setup { create: Some(1.0 / 1_800.0), devices: 20, ..SETUP }).await;
    assert_complete(&run, 20);
    assert!(run.outcome.elapsed > Duration::from_secs(8 * 3600), "{:?}", run.outcome.elapsed);
    let metrics = &run.outcome.metrics;
    assert_eq!(
        (
            run.connects.attempts,
            metrics.counters.of(Counter::ConnectionsLost),
            metrics.counters.of(Counter::ConnectionsRenewed)
        ),
        (5, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn connections_are_renewed_between_exchanges_before_the_service_ends_them() {
    let lifetime = Duration::from_secs(600);
    let manners = Manners { life: Some(Duration::from_secs(630)), ..Manners::default() };
    let run = play(Setup { manners, create: Some(0.1), devices: 720, lifetime, ..SETUP }).await;
    assert_complete(&run, 720);
    let metrics = &run.outcome.metrics;
    // Two hours, five connections, each renewed every ten minutes or a little earlier.
    assert!(
        (50..=65).contains(&metrics.counters.of(Counter::ConnectionsRenewed)),
        "{}",
        metrics.counters.of(Counter::ConnectionsRenewed)
    );
    assert_eq!(
        (metrics.counters.of(Counter::ConnectionsLost), metrics.failures.len()),
        (0, 0),
        "{:?}",
        metrics.failures
    );
    let goodbyes = run.seen.goodbyes.load(Ordering::Relaxed);
    assert_eq!(run.connects.accepted, goodbyes, "each is closed with a goodbye, for its age or in the end");
    let oldest = run.seen.ages.lock().unwrap().iter().copied().max().unwrap();
    assert!(oldest <= lifetime, "{oldest:?}");
}

/// The time is the ideal, N / R, plus one round trip: no quota is wasted, and no surplus connection is open.
#[tokio::test(start_paused = true)]
async fn a_quota_is_used_up_with_as_many_connections_as_it_takes() {
    for (rate, most) in [(10.0, 10), (400.0, 60)] {
        let (create, register) = (Some(rate), Some(rate));
        let devices = (60.0 * rate) as u64;
        let connections = Connections::Auto { max: 1_000 };
        let run = play(Setup { devices, connections, create, register, ..SETUP }).await;
        assert_complete(&run, devices);
        let took = run.outcome.elapsed.as_secs_f64();
        assert!(took <= 60.0 * 1.01 + 0.1, "{rate}/s: {took} s");
        assert_eq!(run.outcome.usage.bound().name(), "quota", "{rate}/s: {:?}", run.outcome.usage);
        let dials = run.seen.dials.load(Ordering::Relaxed);
        assert!(dials <= most, "{rate}/s: {dials} dials");
    }
}
