//! Quotas on the simulated network: the same as the server's, in virtual time.

use super::*;
use crate::call::Call;

fn scenario(toml: &str) -> Scenario {
    Scenario::from_toml(toml).unwrap()
}

async fn exchange(connection: MemoryConnection) -> Result<MemoryConnection, Cause> {
    let answered = connection
        .exchange(Call::CreateKeysAndCertificate, provisioning::create_request().payload, WITHIN)
        .await;
    match answered {
        Ok((reply, connection)) => {
            assert_eq!(reply.verdict, Verdict::Accepted);
            Ok(connection)
        }
        Err(lost) => Err(lost.failure.cause),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_above_its_quota_is_refused_closed_or_delayed() {
    for excess in ["refuse", "close", "delay"] {
        let toml = format!("[quotas]\nconnect = \"2/s\"\nconnect_excess = \"{excess}\"");
        let mut serving = JoinSet::new();
        let (network, _) = network_of(&scenario(&toml), at_the_service(), &mut serving);
        let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
        let _kept = [connector.dial().await.outcome.unwrap(), connector.dial().await.outcome.unwrap()];
        let third = connector.dial().await;
        let cause = third.outcome.map_err(|failure| (failure.stage, failure.cause));
        match (excess, cause) {
            ("refuse", Err((Stage::Connack, Cause::ConnectRefused { code: 3 }))) => {}
            ("close", Err((Stage::Connack, Cause::Closed { .. }))) => {}
            ("delay", Ok(_)) => assert_eq!(third.phases.connack, Some(Duration::from_millis(500))),
            (_, cause) => panic!("{excess}: {cause:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_above_a_quota_are_silence() {
    for (quota, exchanges) in [
        ("publish = \"3/h\"", 3),
        // Four exchanges are four messages each way.
        ("publish_per_connection = \"8/h\"", 4),
    ] {
        let toml = format!("[quotas]\nburst = \"1h\"\n{quota}");
        let mut serving = JoinSet::new();
        let (network, _) = network_of(&scenario(&toml), at_the_service(), &mut serving);
        let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
        let mut connection = connector.dial().await.outcome.unwrap();
        for _ in 0..exchanges {
            connection = exchange(connection).await.unwrap();
        }
        let cause = exchange(connection).await.unwrap_err();
        assert!(matches!(cause, Cause::NoPuback { .. }), "{quota}: {cause:?}");
        network.with_account(|account| assert_eq!(account.state().certificates.len(), exchanges));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_above_a_quota_never_comes() {
    let mut serving = JoinSet::new();
    let scenario = scenario("[quotas]\nburst = \"1h\"\ndeliver = \"1/h\"");
    let (network, _) = network_of(&scenario, at_the_service(), &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let connection = exchange(connector.dial().await.outcome.unwrap()).await.unwrap();
    let cause = exchange(connection).await.unwrap_err();
    assert!(matches!(cause, Cause::NoReply { .. }), "{cause:?}");
    network.with_account(|account| assert_eq!(account.state().certificates.len(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_above_the_quota_gets_no_suback() {
    let mut serving = JoinSet::new();
    // A dial subscribes to four topics.
    let scenario = scenario("[quotas]\nburst = \"1h\"\nsubscribe = \"7/h\"");
    let (network, _) = network_of(&scenario, at_the_service(), &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    connector.dial().await.outcome.unwrap();
    let failure = connector.dial().await.outcome.unwrap_err();
    assert!(matches!(failure.cause, Cause::TimedOut { .. }) && failure.stage == Stage::Suback, "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_at_its_age_and_one_too_many_is_refused() {
    let mut serving = JoinSet::new();
    let scenario = scenario("[limits]\nconnection_lifetime = \"24h\"\nconnections = 1");
    let (network, _) = network_of(&scenario, at_the_service(), &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let mut connection = connector.dial().await.outcome.unwrap();
    assert!(connector.dial().await.outcome.is_err());
    let failure = connection.idle().await;
    assert!(matches!(failure.cause, Cause::Closed { .. }));
    assert_eq!(network.age(), Duration::from_secs(24 * 60 * 60));
    connector.dial().await.outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quota_changes_when_its_schedule_says() {
    let mut serving = JoinSet::new();
    let toml = "[quotas]\nburst = \"1ms\"\ncreate_keys_and_certificate = \"10/s until 10s, then 40/s\"";
    let (network, _) = network_of(&scenario(toml), at_the_service(), &mut serving);
    let connector = network.connector(Topics::new(BUILT_IN_TEMPLATE), Power::default());
    let mut connection = connector.dial().await.outcome.unwrap();
    let mut accepted = [0_u32; 2];
    for _ in 0..4_000 {
        let reply;
        let request = provisioning::create_request().payload;
        (reply, connection) =
            connection.exchange(Call::CreateKeysAndCertificate, request, WITHIN).await.unwrap();
        let half = usize::from(network.age() >= Duration::from_secs(10));
        accepted[half] += u32::from(reply.verdict == Verdict::Accepted);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(accepted[0].abs_diff(100) <= 1 && accepted[1].abs_diff(400) <= 1, "{accepted:?}");
}
