//! Quotas and limits at the wire door: what an excess looks like to a client.

use std::time::Duration;

use fleetmint::emulator::Emulator;
use fleetmint::emulator::scenario::{Keys, Scenario};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, SubscribeReasonCode};
use tokio::time::timeout;

use super::client::{Client, PATIENCE, Signer, connect, publish, start, subscribe};

async fn emulator(toml: &str) -> Emulator {
    start(Scenario { keys: Keys::P256, ..Scenario::from_toml(toml).unwrap() }).await
}

/// The answer to a CONNECT; `None` if the connection ends without one.
async fn answer(emulator: &Emulator, client_id: &str) -> (Client, Option<ConnectReturnCode>) {
    let mut client = Client::upgraded(emulator).await;
    client.send(&connect(client_id)).await;
    match client.next().await {
        Some(Packet::ConnAck(ack)) => (client, Some(ack.code)),
        None => (client, None),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connect_above_its_quota_is_refused_closed_or_delayed() {
    for (excess, expected) in [("refuse", Some(ConnectReturnCode::ServiceUnavailable)), ("close", None)] {
        let toml = format!("[quotas]\nconnect = \"2/h\"\nburst = \"1h\"\nconnect_excess = \"{excess}\"");
        let emulator = emulator(&toml).await;
        let _first = Client::connected(&emulator, "a").await;
        let _second = Client::connected(&emulator, "b").await;
        let (mut third, code) = answer(&emulator, "c").await;
        assert_eq!(code, expected);
        assert_eq!(third.next().await, None);
        let counters = emulator.counters();
        assert_eq!((counters.connected, counters.connects_throttled, counters.violations), (2, 1, 0));
        emulator.shutdown().await;
    }

    let emulator = emulator("[quotas]\nconnect = \"2/s\"\nconnect_excess = \"delay\"").await;
    let began = emulator.age();
    for client_id in ["a", "b", "c", "d"] {
        assert_eq!(answer(&emulator, client_id).await.1, Some(ConnectReturnCode::Success));
    }
    // Two at once, the others half a second apart.
    assert!(emulator.age() - began >= Duration::from_millis(990), "{:?}", emulator.age() - began);
    emulator.shutdown().await;
}

#[tokio::test]
async fn each_client_id_and_the_number_of_connections_have_their_limit() {
    let emulator = emulator("[quotas]\nconnect_per_client_id = \"1/h\"\n[limits]\nconnections = 2").await;
    let first = Client::connected(&emulator, "same").await;
    let unavailable = Some(ConnectReturnCode::ServiceUnavailable);
    assert_eq!(answer(&emulator, "same").await.1, unavailable);
    let _other = Client::connected(&emulator, "other").await;
    assert_eq!(answer(&emulator, "third").await.1, unavailable);
    drop(first);
    let free = async {
        while emulator.connected() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("a connection that is gone makes room");
    assert_eq!(answer(&emulator, "third").await.1, Some(ConnectReturnCode::Success));
    emulator.shutdown().await;
}

#[tokio::test]
async fn messages_above_a_quota_are_dropped_without_a_word() {
    // How many are acknowledged and how many come back, of seven; a connection's quota counts both together.
    for (quota, expected) in [
        ("publish_per_connection = \"6/h\"", None),
        ("publish = \"3/h\"", Some((3, 3))),
        ("deliver = \"3/h\"", Some((7, 3))),
    ] {
        let emulator = emulator(&format!("[quotas]\nburst = \"1h\"\n{quota}")).await;
        let mut client = Client::connected(&emulator, "device").await;
        client.send(&subscribe(&["room"], QoS::AtMostOnce)).await;
        assert!(matches!(client.packet().await, Packet::SubAck(_)));
        let (mut acknowledged, mut copies) = (0, 0);
        // The last ping is for what was relayed after its message's own.
        for n in 0..8 {
            if n < 7 {
                client.send(&publish("room", QoS::AtLeastOnce, b"on".to_vec())).await;
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            client.send(&Packet::PingReq).await;
            loop {
                match client.packet().await {
                    Packet::PingResp => break,
                    Packet::PubAck(_) => acknowledged += 1,
                    Packet::Publish(_) => copies += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        let counters = emulator.counters();
        assert_eq!(acknowledged, 7 - counters.publishes_dropped, "{quota}");
        assert_eq!(copies, acknowledged - counters.deliveries_dropped, "{quota}");
        match expected {
            Some(expected) => assert_eq!((acknowledged, copies), expected, "{quota}"),
            None => assert_eq!(acknowledged + copies, 6, "{quota}"),
        }
        assert_eq!(counters.violations, 0);
        emulator.shutdown().await;
    }
}

#[tokio::test]
async fn a_subscribe_above_the_quota_gets_no_suback_and_no_subscription() {
    let emulator = emulator("[quotas]\nburst = \"1h\"\nsubscribe = \"9/h\"").await;
    let mut client = Client::connected(&emulator, "device").await;
    assert_eq!(client.subscribe(&["a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "a/7", "a/8"]).await.len(), 8);
    client.send(&subscribe(&["b/1", "b/2"], QoS::AtMostOnce)).await;
    client.is_quiet().await;
    client.send(&publish("b/1", QoS::AtMostOnce, Vec::new())).await;
    client.is_quiet().await;
    assert_eq!(client.subscribe(&["b/3"]).await.len(), 1);
    assert_eq!(emulator.counters().subscribes_dropped, 1);
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_connection_ends_at_its_age() {
    let emulator = emulator("[limits]\nconnection_lifetime = \"300ms\"").await;
    let began = emulator.age();
    let mut client = Client::connected(&emulator, "device").await;
    assert_eq!(client.next().await, None);
    assert!(emulator.age() - began >= Duration::from_millis(300));
    assert_eq!(emulator.counters().violations, 0);
    emulator.shutdown().await;
}

#[tokio::test]
async fn bytes_above_the_throughput_wait() {
    let emulator = emulator("[quotas]\nburst = \"100ms\"\nbytes_per_connection = 100000").await;
    let mut client = Client::connected(&emulator, "device").await;
    let began = emulator.age();
    for _ in 0..6 {
        client.send(&publish("room", QoS::AtLeastOnce, vec![0; 10_000])).await;
        assert_eq!(client.packet().await, Packet::PubAck(PubAck::new(9)));
    }
    // 60,000 bytes at 100,000 a second, less the burst's 10,000 and the last message, which is taken before it counts.
    let took = emulator.age() - began;
    assert!(took >= Duration::from_millis(390), "{took:?}");
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_client_with_too_many_unanswered_messages_is_not_listened_to() {
    let emulator = emulator("[latency]\npublish = \"700ms\"\n[limits]\nunacked_inbound = 5").await;
    let mut client = Client::connected(&emulator, "device").await;
    for _ in 0..4 {
        client.send(&publish("room", QoS::AtLeastOnce, Vec::new())).await;
    }
    client.is_quiet().await;
    client.send(&publish("room", QoS::AtLeastOnce, Vec::new())).await;
    client.send(&Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PubAck(PubAck::new(9)), "an answer makes room");
    let mut rest = Vec::new();
    for _ in 0..5 {
        rest.push(client.packet().await);
    }
    assert_eq!(rest.iter().filter(|packet| **packet == Packet::PingResp).count(), 1);
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_keep_alive_of_the_scenario_ends_the_silent() {
    let emulator = emulator("[limits]\nkeep_alive_least = \"200ms\"\nkeep_alive_most = \"200ms\"").await;
    let began = emulator.age();
    let mut client = Client::connected(&emulator, "device").await;
    assert_eq!(client.next().await, None);
    assert!(emulator.age() - began >= Duration::from_millis(300));
    emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_key_may_do_what_its_policy_says() {
    let emulator = emulator(
        r#"
        keys = "p256"
        [permissions]
        subscribe = "answer"
        [[credentials]]
        access_key_id = "AKIAI44QH8DHBEXAMPLE"
        secret_access_key = "other"
        document = '''{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:*:*:client/dev-${iot:ClientId}"},
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:*:*:client/one"},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:*:*:topicfilter/mine"}]}'''
        "#,
    )
    .await;
    let signer = Signer {
        access_key_id: String::from("AKIAI44QH8DHBEXAMPLE"),
        secret: String::from("other"),
        ..Signer::of(&emulator)
    };
    let mut refused = Client::upgraded_by(&emulator, &signer).await;
    refused.send(&connect("two")).await;
    // Its CONNACK has code 7, which is none of MQTT 3.1.1.
    assert_eq!(refused.next().await, None);
    let mut client = Client::upgraded_by(&emulator, &signer).await;
    client.send(&connect("one")).await;
    assert_eq!(client.packet().await, Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)));
    let mine = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert_eq!(client.subscribe(&["mine", "other"]).await, [mine, SubscribeReasonCode::Failure]);
    client.send(&publish("mine", QoS::AtLeastOnce, Vec::new())).await;
    assert_eq!(client.next().await, None, "it may not publish");
    // The first key may still do all.
    Client::connected(&emulator, "two").await.provision("a").await;
}
