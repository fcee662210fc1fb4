//! The simulated network as its clients see it.

mod quotas;

use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;
use crate::call::Call;
use crate::emulator::account::Account;
use crate::emulator::scenario::{self, BUILT_IN_TEMPLATE, Scenario};
use crate::failure::{Cause, Stage};
use crate::provisioning;
use crate::transport::{Connection, Connector, Verdict};

#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Observer for Diary {
    fn see(&self, at: Duration, sighting: &Sighting<'_>) {
        self.0.lock().unwrap().push(format!("{at:?} {sighting:?}"));
    }
}

fn network(faults: Faults, serving: &mut JoinSet<()>) -> (Network, Arc<Diary>) {
    network_of(&Scenario::default(), faults, serving)
}

fn network_of(scenario: &Scenario, faults: Faults, serving: &mut JoinSet<()>) -> (Network, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    let network = Network::new(NetworkSettings {
        account: Account::new(scenario).unwrap(),
        faults,
        seed: 1,
        base: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        observer: diary.clone(),
    });
    serving.spawn(network.clone().serve());
    (network, diary)
}

fn always(fault: &Fault) -> Faults {
    Faults { requests: scenario::Faults::of_requests([(fault.clone(), 1.0)]), ..Faults::default() }
}

const WITHIN: Duration = Duration::from_secs(10);

async fn create(
    network: &Network,
) -> Result<(crate::transport::Reply, MemoryConnection), crate::transport::Lost> {
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let connection = connector.dial().await.outcome.unwrap();
    connection.exchange(Call::CreateKeysAndCertificate, provisioning::create_request().payload, WITHIN).await
}

#[tokio::test(start_paused = true)]
async fn a_device_is_provisioned() {
    let mut serving = JoinSet::new();
    let (network, _) = network(Faults::default(), &mut serving);
    let (reply, connection) = create(&network).await.unwrap();
    assert_eq!(reply.verdict, Verdict::Accepted);
    let issued = provisioning::parse_issued(&reply.payload).unwrap();
    let parameters = [("DeviceId", "one"), ("SerialNumber", "1"), ("MacAddress", "AA")];
    let request = provisioning::register_request(&issued.ownership_token, parameters).payload;
    let (reply, _) = connection.exchange(Call::RegisterThing, request, WITHIN).await.unwrap();
    assert_eq!(provisioning::parse_registered(&reply.payload).unwrap().thing_name, "one");
    network.with_account(|account| assert_eq!(account.state().things.len(), 1));
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_says() {
    for fault in Fault::OF_REQUESTS {
        let mut serving = JoinSet::new();
        let (network, _) = network(always(&fault), &mut serving);
        let outcome = create(&network).await;
        let created = network.with_account(|account| account.state().certificates.len());
        assert_eq!(created == 1, fault.acts(), "{fault:?}");
        let status = |payload: &Bytes| match provisioning::parse_rejected(payload) {
            Cause::Rejected { status_code, .. } => status_code,
            other => panic!("{fault:?}: {other:?}"),
        };
        match (&fault, outcome) {
            (Fault::Silence | Fault::Unacknowledged, Err(lost)) => {
                assert!(matches!(lost.failure.cause, Cause::NoPuback { .. }), "{fault:?}: {lost:?}");
            }
            (Fault::NoReply(_) | Fault::Delay(_), Err(lost)) => {
                assert!(matches!(lost.failure.cause, Cause::NoReply { .. }), "{fault:?}: {lost:?}");
            }
            (Fault::HangUp(_), Err(lost)) => {
                assert!(matches!(lost.failure.cause, Cause::Closed { .. }), "{fault:?}: {lost:?}");
                assert_eq!(lost.failure.stage, Stage::Call(Call::CreateKeysAndCertificate));
            }
            (Fault::Reject { status: wanted, .. }, Ok((reply, _))) => {
                assert_eq!(status(&reply.payload), *wanted);
            }
            (Fault::Garble, Ok((reply, _))) => {
                assert!(provisioning::parse_issued(&reply.payload).is_err());
            }
            // No other connection has been given a reply yet.
            (Fault::Foreign, Ok((reply, _))) => assert_eq!(reply.verdict, Verdict::Accepted),
            (fault, outcome) => panic!("{fault:?}: {outcome:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_published_goes_its_way_without_its_client() {
    let mut serving = JoinSet::new();
    let (network, diary) = network(Faults::default(), &mut serving);
    let power = Power::default();
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), power.clone());
    let connection = connector.dial().await.outcome.unwrap();
    let request = provisioning::create_request().payload;
    let cut = tokio::time::timeout(
        Duration::from_millis(1),
        connection.exchange(Call::CreateKeysAndCertificate, request.clone(), WITHIN),
    );
    assert!(cut.await.is_err());
    tokio::time::sleep(WITHIN).await;
    network.with_account(|account| assert_eq!(account.state().certificates.len(), 1));
    assert!(diary.0.lock().unwrap().iter().any(|line| line.contains("Answered")));

    let connection = connector.dial().await.outcome.unwrap();
    power.off();
    let cut =
        tokio::time::timeout(WITHIN, connection.exchange(Call::CreateKeysAndCertificate, request, WITHIN));
    assert!(cut.await.is_err());
    network.with_account(|account| assert_eq!(account.state().certificates.len(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_ended_says_so_while_idle() {
    let mut serving = JoinSet::new();
    let (network, _) = network(Faults { closings: 1.0, ..Faults::default() }, &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let mut connection = connector.dial().await.outcome.unwrap();
    let failure = connection.idle().await;
    assert_eq!(failure.stage, Stage::Idle);
    let lost = connection
        .exchange(Call::CreateKeysAndCertificate, provisioning::create_request().payload, WITHIN)
        .await
        .unwrap_err();
    assert_eq!(lost.failure.stage, Stage::Idle, "nothing was published");
}

/// Without time on the way: all the time is the service's.
fn at_the_service() -> Faults {
    Faults { latency: (Duration::ZERO, Duration::ZERO), ..Faults::default() }
}

#[tokio::test(start_paused = true)]
async fn latencies_are_drawn_from_their_laws_to_the_millisecond() {
    for law in ["7ms", "10ms..50ms", "5ms 90%, 400ms 10%"] {
        let scenario =
            Scenario::from_toml(&format!("[latency]\ncreate_keys_and_certificate = \"{law}\"")).unwrap();
        let law = scenario.latency.create_keys_and_certificate.clone();
        let mut serving = JoinSet::new();
        let (network, _) = network_of(&scenario, at_the_service(), &mut serving);
        let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
        let mut connection = connector.dial().await.outcome.unwrap();
        let mut drawn = Vec::new();
        for _ in 0..2_000 {
            let request = provisioning::create_request().payload;
            let reply;
            (reply, connection) =
                connection.exchange(Call::CreateKeysAndCertificate, request, WITHIN).await.unwrap();
            drawn.push(reply.service);
        }
        drawn.sort();
        // Tokio's timers count whole milliseconds, and round up.
        let rounded = |q: f64| Duration::from_millis(law.quantile(q).as_micros().div_ceil(1000) as u64);
        assert_eq!(drawn[0].max(rounded(0.0)), drawn[0], "{law:?}");
        assert_eq!(drawn[1999].min(rounded(1.0)), drawn[1999], "{law:?}");
        for q in [0.25, 0.5, 0.75, 0.85, 0.95, 0.99] {
            // Three standard deviations of a share of 2,000.
            let off = 3.0 * (q * (1.0 - q) / 2_000.0_f64).sqrt();
            let found = drawn[(q * 2_000.0) as usize];
            let true_range = rounded(q - off)..=rounded(q + off);
            assert!(true_range.contains(&found), "{law:?} at {q}: {found:?} is not in {true_range:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_stall_everything_waits_for_its_end() {
    let scenario = Scenario::from_toml(
        "[latency]\nconnect = \"3ms\"\ncreate_keys_and_certificate = \"5ms\"\n\
         [[latency.stalls]]\nfrom = \"10s\"\nlasts = \"2s\"",
    )
    .unwrap();
    let mut serving = JoinSet::new();
    let (network, _) = network_of(&scenario, at_the_service(), &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let at = |millis| tokio::time::sleep(Duration::from_millis(millis));
    let dial = connector.dial().await;
    assert_eq!(dial.phases.connack, Some(Duration::from_millis(3)));
    let mut answered = Vec::new();
    let mut exchanges = JoinSet::new();
    for start in [9_993, 9_999, 10_000, 11_999, 12_000] {
        let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
        let network = network.clone();
        exchanges.spawn(async move {
            let connection = connector.dial().await.outcome.unwrap();
            tokio::time::sleep_until(
                tokio::time::Instant::now() + Duration::from_millis(start) - network.age(),
            )
            .await;
            connection
                .exchange(Call::CreateKeysAndCertificate, provisioning::create_request().payload, WITHIN)
                .await
                .unwrap();
            (start, network.age().as_millis())
        });
    }
    at(11_000 - network.age().as_millis() as u64).await;
    let dial = connector.dial().await;
    assert_eq!(dial.phases.connack, Some(Duration::from_millis(1_003)));
    while let Some(done) = exchanges.join_next().await {
        answered.push(done.unwrap());
    }
    answered.sort();
    assert_eq!(
        answered,
        [(9_993, 9_998), (9_999, 10_004), (10_000, 12_005), (11_999, 12_005), (12_000, 12_005)]
    );
}
