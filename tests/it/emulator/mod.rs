//! The emulator's wire door from outside: TLS, HTTP and WebSocket frames written by hand, so that every fault can be made;
//! MQTT packets from rumqttc; signatures computed here, with neither the crate's signer nor its verifier.

mod client;
mod devices;
mod faults;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use fleetmint::emulator::scenario::{Keys, Latency, Quotas, Scenario, Stall};
use fleetmint::emulator::{Emulator, EmulatorError};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, SubscribeReasonCode, Unsubscribe};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use client::*;

#[tokio::test]
async fn an_upgrade_is_answered_with_the_key_and_the_subprotocol_that_was_offered() {
    let emulator = start(scenario()).await;
    for (offered, echoed) in
        [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("chat, mqttv3.1, mqtt", "mqttv3.1")]
    {
        let mut client = Client::dial(&emulator).await;
        let (head, _) = client.ask(&Signer::of(&emulator).request(offered)).await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        // RFC 6455 section 1.3 gives the answer to this key.
        assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(header(&head, "sec-websocket-protocol"), Some(echoed));
    }
    assert_eq!(emulator.counters().upgraded, 3);
    emulator.shutdown().await;
}

#[tokio::test]
async fn the_aws_sdks_way_of_signing_gets_in() {
    let emulator = start(scenario()).await;
    let signer =
        Signer { headers: "connection;host", host: String::from("localhost"), ..Signer::of(&emulator) };
    let (head, _) = Client::dial(&emulator).await.ask(&signer.request("mqtt")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_refused_signature_gets_the_services_403_and_may_try_again() {
    let emulator = start(scenario()).await;
    let good = Signer::of(&emulator);
    let ten_minutes = Duration::from_secs(600);
    let mut client = Client::dial(&emulator).await;
    for (signer, length, says) in [
        (
            Signer { secret: String::from("wrong"), ..good.clone() },
            241,
            "does not match the signature you provided",
        ),
        (Signer { at: good.at - ten_minutes, ..good.clone() }, 163, "Signature expired: "),
        (Signer { at: good.at + ten_minutes, ..good.clone() }, 171, "Signature not yet current: "),
    ] {
        let (head, body) = client.ask(&signer.request("mqtt")).await;
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert_eq!(body.len(), length, "{body}");
        assert!(body.contains(says), "{body}");
        assert_eq!(header(&head, "content-type"), Some("application/json"));
        assert_eq!(header(&head, "x-amzn-ErrorType"), Some("ForbiddenException:"));
        assert_eq!(header(&head, "connection"), Some("keep-alive"));
        assert!(header(&head, "date").is_some_and(|date| date.ends_with(" GMT")));
        assert_eq!(head.matches("access-control-expose-headers: ").count(), 4);
    }
    let elsewhere = Signer { region: String::from("eu-west-1"), ..good.clone() };
    assert!(client.ask(&elsewhere.request("mqtt")).await.0.starts_with("HTTP/1.1 403 "));

    let (head, _) = client.ask(&good.request("mqtt")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let counters = emulator.counters();
    assert_eq!((counters.accepted, counters.forbidden, counters.upgraded), (1, 4, 1));
    emulator.shutdown().await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so_and_closed() {
    let emulator = start(scenario()).await;
    let upgrade = Signer::of(&emulator).request("mqtt");
    let long = format!("GET /mqtt HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(17 * 1024));
    for (request, status) in [
        ("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", "426 Upgrade Required"),
        (upgrade.replace("Version: 13", "Version: 8").as_str(), "426 Upgrade Required"),
        (upgrade.replace("GET ", "POST ").as_str(), "400 Bad Request"),
        (upgrade.replace("dGhl", "!").as_str(), "400 Bad Request"),
        (long.as_str(), "431 Request Header Fields Too Large"),
        ("not http\r\n\r\n", "400 Bad Request"),
    ] {
        let mut client = Client::dial(&emulator).await;
        let (head, body) = client.ask(request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {head}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["message"].is_string());
        assert!(!client.fill().await, "{status}: closed");
    }
    assert_eq!(emulator.counters().not_upgrades, 6);
    emulator.shutdown().await;
}

#[tokio::test]
async fn one_device_is_provisioned() {
    let emulator = start(scenario()).await;
    let mut client = Client::connected(&emulator, "device").await;
    let topics = [CREATE, REGISTER].map(|topic| [format!("{topic}/accepted"), format!("{topic}/rejected")]);
    let filters: Vec<&str> = topics.iter().flatten().map(String::as_str).collect();
    assert_eq!(client.subscribe(&filters).await, [SubscribeReasonCode::Success(QoS::AtLeastOnce); 4]);

    let (issued, registered) = client.provision("TWOK_9999999999").await;
    assert_eq!(registered["thingName"], "TWOK_9999999999");
    let pem = issued["certificatePem"].as_str().unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(issued["certificateId"], hex(digest::digest(&digest::SHA256, &der).as_ref()));
    assert!(issued["privateKey"].as_str().unwrap().contains("PRIVATE KEY"));

    client.send(&Packet::Disconnect).await;
    assert_eq!(client.next().await, None);
    let things: Vec<String> = emulator.inspect(|account| account.state().things.keys().cloned().collect());
    assert_eq!(things, ["TWOK_9999999999"]);
    let counters = emulator.counters();
    assert_eq!((counters.create_requests, counters.register_requests, counters.requests_accepted), (1, 1, 2));
    assert_eq!(counters.violations, 0);
    emulator.shutdown().await;
}

#[tokio::test]
async fn refusals_come_on_the_rejected_topic() {
    let quotas = Quotas { create_keys_and_certificate: Some("1/h".parse().unwrap()), ..Quotas::default() };
    let emulator = start(Scenario { quotas, ..scenario() }).await;
    let mut client = Client::connected(&emulator, "device").await;
    let token = client.request(CREATE, &json!({})).await.1["certificateOwnershipToken"].clone();
    let nowhere = "$aws/provisioning-templates/NOWHERE/provision/json";
    let from_csr = "$aws/certificates/create-from-csr/json";
    for (topic, payload, status) in [
        (REGISTER, registration(&json!("not a token"), "d"), 400),
        (nowhere, registration(&token, "d"), 404),
        (from_csr, json!({"certificateSigningRequest": "csr"}), 400),
    ] {
        let (reply, error) = client.request(topic, &payload).await;
        assert_eq!(reply, format!("{topic}/rejected"));
        assert_eq!(error["statusCode"], status, "{error}");
        assert!(error["errorCode"].is_string() && error["errorMessage"].is_string());
    }
    let mut throttled = None;
    for _ in 0..10 {
        let (reply, answer) = client.request(CREATE, &json!({})).await;
        if reply.ends_with("/rejected") {
            throttled = Some(answer);
            break;
        }
    }
    assert_eq!(throttled.unwrap()["statusCode"], 429);
    assert_eq!(emulator.counters().requests_throttled, 1);
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_reply_goes_to_the_requester_and_to_nobody_else() {
    let emulator = start(scenario()).await;
    let mut other = Client::connected(&emulator, "other").await;
    other.subscribe(&[&format!("{CREATE}/accepted"), "$aws/#", "#"]).await;
    let mut requester = Client::connected(&emulator, "requester").await;
    requester.request(CREATE, &json!({})).await;
    other.is_quiet().await;
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_scenario_may_send_replies_to_subscribers_only() {
    let emulator = start(Scenario { require_subscription: true, ..scenario() }).await;
    let mut client = Client::connected(&emulator, "device").await;
    client.send(&publish(CREATE, QoS::AtLeastOnce, b"{}".to_vec())).await;
    assert_eq!(client.packet().await, Packet::PubAck(PubAck::new(9)));
    while emulator.counters().requests_accepted == 0 {
        client.is_quiet().await;
    }
    client.is_quiet().await;
    client.subscribe(&[&format!("{CREATE}/+")]).await;
    assert_eq!(client.request(CREATE, &json!({})).await.0, format!("{CREATE}/accepted"));
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_request_that_takes_long_holds_nothing_up_and_is_finished_without_its_requester() {
    let latency =
        Latency { create_keys_and_certificate: Duration::from_millis(200).into(), ..Latency::default() };
    let emulator = start(Scenario { latency, ..scenario() }).await;
    let mut client = Client::connected(&emulator, "device").await;
    let request = publish(CREATE, QoS::AtMostOnce, Vec::new());
    let (create, ping) = (request.clone(), Packet::PingReq);
    client.bytes(&stream_of(&[create.clone(), create.clone(), create, ping.clone()])).await;
    assert_eq!(client.packet().await, Packet::PingResp);
    for _ in 0..3 {
        assert_eq!(client.publication().await.topic, format!("{CREATE}/accepted"));
    }

    client.bytes(&stream_of(&[request, ping])).await;
    assert_eq!(client.packet().await, Packet::PingResp);
    drop(client);
    let finished = async {
        while emulator.counters().requests_accepted < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, finished).await.expect("the account acts on what it acknowledged");
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_stalled_service_answers_everything_at_the_end_of_the_stall() {
    let from = Duration::from_secs(1);
    let stall = Stall { from, lasts: Duration::from_millis(1500) };
    let latency = Latency {
        create_keys_and_certificate: "20ms".parse().unwrap(),
        publish: "10ms".parse().unwrap(),
        stalls: vec![stall],
        ..Latency::default()
    };
    let emulator = start(Scenario { latency, ..scenario() }).await;
    let mut client = Client::connected(&emulator, "device").await;
    client.subscribe(&["plain"]).await;
    let published = emulator.age();
    client.send(&publish("plain", QoS::AtLeastOnce, Vec::new())).await;
    assert_eq!(client.packet().await, Packet::PubAck(PubAck::new(9)));
    assert!(emulator.age() - published >= Duration::from_millis(10));
    assert_eq!(client.publication().await.topic, "plain");

    tokio::time::sleep(from.saturating_sub(emulator.age())).await;
    client.send(&publish(CREATE, QoS::AtLeastOnce, Vec::new())).await;
    client.send(&Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PubAck(PubAck::new(9)));
    assert!(emulator.age() >= from + stall.lasts, "{:?}", emulator.age());
    assert_eq!(client.packet().await, Packet::PingResp);
    assert_eq!(client.publication().await.topic, format!("{CREATE}/accepted"));
    assert!(emulator.age() >= from + stall.lasts + Duration::from_millis(20));
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_client_id_belongs_to_whoever_came_last() {
    let emulator = start(scenario()).await;
    let mut first = Client::connected(&emulator, "same").await;
    let mut second = Client::connected(&emulator, "same").await;
    assert_eq!(first.next().await, None);
    second.is_quiet().await;
    assert_eq!((emulator.counters().takeovers, emulator.connected()), (1, 1));

    // Clients without an id are given different ones.
    let mut nameless = Client::connected(&emulator, "").await;
    let _another = Client::connected(&emulator, "").await;
    nameless.is_quiet().await;
    assert_eq!(emulator.counters().takeovers, 1);
    emulator.shutdown().await;
}

#[tokio::test]
async fn packets_may_span_frames_and_share_them() {
    let emulator = start(scenario()).await;
    let mut client = Client::upgraded(&emulator).await;
    let packets = [connect("device"), subscribe(&["a"], QoS::AtLeastOnce), Packet::PingReq];
    let stream: Vec<u8> = packets.iter().flat_map(encode).collect();
    for piece in stream.chunks(3) {
        client.bytes(piece).await;
    }
    client.bytes(&[]).await;
    client.bytes(&[stream_of(&[Packet::PingReq, Packet::PingReq]), vec![0xc0]].concat()).await;
    client.bytes(&[0]).await;
    assert!(matches!(client.packet().await, Packet::ConnAck(_)));
    assert!(matches!(client.packet().await, Packet::SubAck(_)));
    for _ in 0..4 {
        assert_eq!(client.packet().await, Packet::PingResp);
    }
    emulator.shutdown().await;
}

fn stream_of(packets: &[Packet]) -> Vec<u8> {
    packets.iter().flat_map(encode).collect()
}

#[tokio::test]
async fn whoever_breaks_a_rule_loses_the_connection() {
    let emulator = start(scenario()).await;
    let nine: Vec<String> = (0..9).map(|n| format!("a/{n}")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    let accepted = format!("{CREATE}/accepted");
    let unsubscribe =
        Unsubscribe { pkid: 1, topics: nine.iter().map(|filter| (*filter).to_owned()).collect() };
    let offences: Vec<(&str, Vec<u8>)> = vec![
        ("nine filters", encode(&subscribe(&nine, QoS::AtLeastOnce))),
        ("nine filters again", encode(&Packet::Unsubscribe(unsubscribe))),
        ("a second CONNECT", encode(&connect("device"))),
        ("a request topic subscribed to", encode(&subscribe(&[CREATE], QoS::AtLeastOnce))),
        ("a response topic published to", encode(&publish(&accepted, QoS::AtLeastOnce, vec![]))),
        ("a reserved topic", encode(&publish("$aws/things/a/shadow/get", QoS::AtMostOnce, vec![]))),
        ("a wildcard published to", encode(&publish("a/+", QoS::AtMostOnce, vec![]))),
        ("a payload over 128 KB", encode(&publish("a", QoS::AtLeastOnce, vec![0; 128 * 1024 + 1]))),
        ("a header that promises 256 MB", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("garbage", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a packet only servers send", encode(&Packet::PingResp)),
        ("a bad filter", encode(&subscribe(&["a/#/b"], QoS::AtLeastOnce))),
    ];
    let count = u64::try_from(offences.len()).unwrap();
    for (offence, bytes) in offences {
        let mut client = Client::connected(&emulator, offence).await;
        client.bytes(&bytes).await;
        assert_eq!(client.next().await, None, "{offence}");
    }
    let mut text = Client::connected(&emulator, "text").await;
    text.frame(1, b"hello").await;
    assert_eq!(text.next().await, None);
    let mut early = Client::upgraded(&emulator).await;
    early.send(&Packet::PingReq).await;
    assert_eq!(early.next().await, None);
    assert_eq!(emulator.counters().violations, count + 2);

    // All of that left the emulator unharmed.
    Client::connected(&emulator, "honest").await.provision("honest").await;
    emulator.shutdown().await;
}

#[tokio::test]
async fn qos_2_meets_silence() {
    let emulator = start(scenario()).await;
    let mut client = Client::connected(&emulator, "device").await;
    client.send(&publish("a", QoS::ExactlyOnce, vec![])).await;
    client.send(&subscribe(&["a"], QoS::ExactlyOnce)).await;
    client.is_quiet().await;
    emulator.shutdown().await;
}

#[tokio::test]
async fn another_protocol_level_is_refused_by_name() {
    let emulator = start(scenario()).await;
    for connect in
        [&b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x1e\0\x01a"[..], b"\x10\x0e\0\x04MQTT\x06\x02\0\x1e\0\0\x01a"]
    {
        let mut client = Client::upgraded(&emulator).await;
        client.bytes(connect).await;
        let refused = ConnAck::new(ConnectReturnCode::RefusedProtocolVersion, false);
        assert_eq!(client.packet().await, Packet::ConnAck(refused));
        assert_eq!(client.next().await, None);
    }
    emulator.shutdown().await;
}

#[tokio::test]
async fn plain_messages_go_to_all_who_subscribed() {
    let emulator = start(scenario()).await;
    let mut exact = Client::connected(&emulator, "exact").await;
    exact.subscribe(&["room/1/light"]).await;
    let mut wild = Client::connected(&emulator, "wild").await;
    wild.send(&subscribe(&["room/+/light", "room/#"], QoS::AtMostOnce)).await;
    assert!(matches!(wild.packet().await, Packet::SubAck(_)));
    let mut elsewhere = Client::connected(&emulator, "elsewhere").await;
    elsewhere.subscribe(&["room/2/light"]).await;

    exact.send(&publish("room/1/light", QoS::AtLeastOnce, b"on".to_vec())).await;
    assert_eq!(exact.packet().await, Packet::PubAck(PubAck::new(9)));
    let own = exact.publication().await;
    assert_eq!((own.qos, &own.payload[..]), (QoS::AtLeastOnce, &b"on"[..]));
    let copy = wild.publication().await;
    assert_eq!(
        (copy.qos, copy.topic.as_str(), &copy.payload[..]),
        (QoS::AtMostOnce, "room/1/light", &b"on"[..])
    );
    wild.is_quiet().await;
    elsewhere.is_quiet().await;

    let topics = vec![String::from("room/1/light")];
    exact.send(&Packet::Unsubscribe(Unsubscribe { pkid: 3, topics })).await;
    assert!(matches!(exact.packet().await, Packet::UnsubAck(ack) if ack.pkid == 3));
    wild.send(&publish("room/1/light", QoS::AtMostOnce, b"off".to_vec())).await;
    assert_eq!(&wild.publication().await.payload[..], b"off");
    exact.is_quiet().await;
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_are_not() {
    let emulator = start(scenario()).await;
    let mut deaf = Client::connected(&emulator, "deaf").await;
    deaf.subscribe(&["flood"]).await;
    let mut source = Client::connected(&emulator, "source").await;
    let flood = publish("flood", QoS::AtMostOnce, vec![0; 128 * 1024]);
    // Sockets buffer a few MB, the mailbox holds 16 MB: 100 MB are more than enough.
    for _ in 0..800 {
        source.send(&flood).await;
        if emulator.counters().slow_consumers == 1 {
            break;
        }
    }
    let closed = async {
        while emulator.counters().slow_consumers == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("the deaf one is closed");
    source.is_quiet().await;
    assert_eq!(emulator.connected(), 1);
    emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_provision_at_once() {
    let emulator = Arc::new(start(Scenario { keys: Keys::Recycled, ..scenario() }).await);
    let mut devices = tokio::task::JoinSet::new();
    for n in 0..50 {
        let emulator = Arc::clone(&emulator);
        devices.spawn(async move {
            let mut client = Client::connected(&emulator, &format!("device-{n}")).await;
            let (issued, registered) = client.provision(&format!("device-{n}")).await;
            assert_eq!(registered["thingName"], format!("device-{n}"));
            issued["certificateId"].as_str().unwrap().to_owned()
        });
    }
    let ids: std::collections::BTreeSet<String> = devices.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 50);
    assert_eq!(emulator.inspect(|account| account.state().things.len()), 50);
    Arc::into_inner(emulator).unwrap().shutdown().await;
}

#[tokio::test]
async fn a_shutdown_closes_everything() {
    let emulator = start(scenario()).await;
    let address = emulator.local_addr();
    let mut client = Client::connected(&emulator, "device").await;
    let mut silent = Client::dial(&emulator).await;
    let bare = TcpStream::connect(address).await.unwrap();
    timeout(PATIENCE, emulator.shutdown()).await.expect("bounded");
    assert_eq!(client.next().await, None);
    assert_eq!(client.frame_ends, 1, "a WebSocket close frame, not just the end");
    assert!(!silent.fill().await);
    assert!(TcpStream::connect(address).await.is_err());
    drop(bare);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let emulator = start(scenario()).await;
    let error = Emulator::start(scenario(), emulator.local_addr()).await.unwrap_err();
    assert!(
        matches!(&error, EmulatorError::Bind { address, .. } if *address == emulator.local_addr()),
        "{error}"
    );
    assert!(error.to_string().contains("port 0"), "{error}");
    emulator.shutdown().await;
}
