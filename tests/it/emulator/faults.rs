//! Faults at every place where one can strike, over the admin API and in the scenario; and what an attacker tries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetmint::emulator::{Emulator, EmulatorPlan};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Packet, SubscribeReasonCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

async fn start_with_admin(scenario: Scenario) -> Emulator {
    let admin = Some(([127, 0, 0, 1], 0).into());
    Emulator::launch(EmulatorPlan { scenario, admin, ..EmulatorPlan::default() }).await.unwrap()
}

/// Status and body of an admin request with these headers.
async fn raw_admin(emulator: &Emulator, request: &str, headers: &str, body: &str) -> (u16, Value) {
    let address = emulator.admin_addr().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

async fn admin(emulator: &Emulator, request: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = raw_admin(emulator, request, "Content-Type: application/json\r\n", &body).await;
    assert_eq!(status, 200, "{request}: {answer}");
    answer
}

fn rule(on: &str, fault: &str, more: Value) -> Value {
    let mut rule = json!({"on": on, "fault": fault});
    rule.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"rules": [rule]})
}

#[tokio::test]
async fn the_admin_api_says_what_there_is_changes_faults_and_resets() {
    let emulator = start_with_admin(scenario()).await;
    assert_eq!(admin(&emulator, "GET /health", &Value::Null).await["status"], "ok");
    let mut client = Client::connected(&emulator, "device").await;
    client.provision("DEV").await;
    let account = admin(&emulator, "GET /account", &Value::Null).await;
    assert_eq!((&account["things"], &account["certificates"]["active"]), (&json!(1), &json!(1)));
    let counts = admin(&emulator, "GET /counts", &Value::Null).await;
    assert_eq!(counts["server"]["registerRequests"], 1);

    let faults =
        rule("create_keys_and_certificate", "reject", json!({"status": 418, "code": "Teapot", "max": 1}));
    admin(&emulator, "PUT /faults", &faults).await;
    let (topic, rejected) = client.request(CREATE, &json!({})).await;
    assert_eq!((topic, &rejected["errorCode"]), (format!("{CREATE}/rejected"), &json!("Teapot")));
    let (topic, _) = client.request(CREATE, &json!({})).await;
    assert_eq!(topic, format!("{CREATE}/accepted"), "once only");
    let faults = admin(&emulator, "GET /faults", &Value::Null).await;
    assert_eq!((&faults["struck"], &faults["rules"][0]["status"]), (&json!([1]), &json!(418)));

    let began = Instant::now();
    admin(&emulator, "POST /reset", &json!({})).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let account = admin(&emulator, "GET /account", &Value::Null).await;
    assert_eq!((&account["things"], &account["tokens"]), (&json!(0), &json!(0)));
    assert_eq!(admin(&emulator, "GET /faults", &Value::Null).await["rules"], json!([]));
    assert_eq!(client.next().await, None, "the connection ends");
    let claim = admin(&emulator, "POST /claims", &json!({})).await;
    assert!(claim["privateKey"].as_str().unwrap().contains("PRIVATE KEY"));
    emulator.shutdown().await;
}

#[tokio::test]
async fn the_admin_api_refuses_web_pages() {
    let emulator = start_with_admin(scenario()).await;
    let json = "Content-Type: application/json\r\n";
    for (headers, status) in [
        (format!("{json}Origin: http://evil.example\r\n"), 403),
        (format!("{json}Origin: null\r\n"), 403),
        (String::from("Content-Type: text/plain\r\n"), 415),
        (String::new(), 415),
    ] {
        assert_eq!(raw_admin(&emulator, "POST /reset", &headers, "{}").await.0, status, "{headers}");
    }
    let rebound = raw_admin(&emulator, "GET /account", "", "").await;
    assert_eq!(rebound.0, 200);
    assert_eq!(raw_admin(&emulator, "GET /nothing", "", "").await.0, 404);
    assert_eq!(raw_admin(&emulator, "DELETE /reset", json, "{}").await.0, 405);
    assert_eq!(raw_admin(&emulator, "PUT /faults", json, "{\"rules\": 1}").await.0, 400);
    emulator.shutdown().await;
}

#[tokio::test]
async fn faults_strike_where_they_should_before_mqtt() {
    let emulator = start_with_admin(scenario()).await;
    let ask = async |emulator: &Emulator| {
        let mut client = Client::dial(emulator).await;
        let (head, _) = client.ask(&Signer::of(emulator).request("mqtt")).await;
        head.split(' ').nth(1).unwrap().to_owned()
    };
    admin(&emulator, "PUT /faults", &rule("upgrade", "http_status", json!({"status": 503, "first": 1})))
        .await;
    assert_eq!(ask(&emulator).await, "503");
    assert_eq!(ask(&emulator).await, "101");
    admin(&emulator, "PUT /faults", &rule("upgrade", "clock_skew", json!({"time": "-10m"}))).await;
    assert_eq!(ask(&emulator).await, "403");
    for fault in ["reset", "corrupt_tls"] {
        admin(&emulator, "PUT /faults", &rule("tcp", fault, json!({}))).await;
        let mut stream = TcpStream::connect(emulator.local_addr()).await.unwrap();
        let _ = stream.write_all(b"\x16\x03\x01").await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(read.is_err(), fault == "reset", "{fault}: {answer:x?}");
    }
    emulator.shutdown().await;
}

#[tokio::test]
async fn faults_strike_where_they_should_in_mqtt() {
    let emulator = start_with_admin(scenario()).await;
    let put = async |faults: Value| admin(&emulator, "PUT /faults", &faults).await;
    put(rule("connect", "connack", json!({"status": 5}))).await;
    let mut client = Client::upgraded(&emulator).await;
    client.send(&connect("a")).await;
    assert!(matches!(client.packet().await, Packet::ConnAck(ConnAck { .. })));
    assert_eq!(client.next().await, None);

    put(rule("connect", "split_frames", json!({}))).await;
    let mut client = Client::connected(&emulator, "a").await;
    put(rule("subscribe", "suback_failure", json!({"max": 1}))).await;
    assert_eq!(client.subscribe(&["x"]).await, [SubscribeReasonCode::Failure]);
    client.subscribe(&["x"]).await;
    put(rule("create_keys_and_certificate", "duplicate", json!({"max": 1}))).await;
    client.request(CREATE, &json!({})).await;
    assert_eq!(client.publication().await.topic, format!("{CREATE}/accepted"), "again");
    put(rule("create_keys_and_certificate", "no_puback", json!({"max": 1}))).await;
    client.send(&publish(CREATE, QoS::AtLeastOnce, b"{}".to_vec())).await;
    assert_eq!(client.publication().await.topic, format!("{CREATE}/accepted"), "without a PUBACK before");
    put(rule("create_keys_and_certificate", "extra_field", json!({"max": 1}))).await;
    assert!(client.request(CREATE, &json!({})).await.1["extra"].is_object());
    put(rule("create_keys_and_certificate", "reorder", json!({"max": 1}))).await;
    client.send(&publish(CREATE, QoS::AtLeastOnce, b"{}".to_vec())).await;
    client.send(&publish("nothing", QoS::AtMostOnce, vec![])).await;
    assert!(matches!(client.packet().await, Packet::PubAck(_)));
    client.send(&publish(CREATE, QoS::AtLeastOnce, b"[]".to_vec())).await;
    assert!(matches!(client.packet().await, Packet::PubAck(_)));
    assert_eq!(client.publication().await.topic, format!("{CREATE}/rejected"), "the second first");
    assert_eq!(client.publication().await.topic, format!("{CREATE}/accepted"));
    put(rule("publish", "hang_up", json!({}))).await;
    client.send(&publish("x", QoS::AtMostOnce, vec![])).await;
    assert_eq!(client.next().await, None);
    emulator.shutdown().await;
}

#[tokio::test]
async fn cbor_topics_say_the_same_in_cbor() {
    let emulator = start(scenario()).await;
    let mut client = Client::connected(&emulator, "device").await;
    let mut ask = async |topic: &str, payload: Vec<u8>| {
        client.send(&publish(topic, QoS::AtMostOnce, payload)).await;
        let reply = client.publication().await;
        client.send(&Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(reply.pkid))).await;
        let value: Value = ciborium::from_reader(&reply.payload[..]).unwrap();
        (reply.topic, value)
    };
    let cbor = |value: &Value| {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    };
    let (topic, issued) = ask("$aws/certificates/create/cbor", cbor(&json!({}))).await;
    assert_eq!(topic, "$aws/certificates/create/cbor/accepted");
    let register = "$aws/provisioning-templates/TEMP_DEVICE/provision/cbor";
    let request = registration(&issued["certificateOwnershipToken"], "DEV");
    let (topic, registered) = ask(register, cbor(&request)).await;
    assert_eq!((topic, &registered["thingName"]), (format!("{register}/accepted"), &json!("DEV")));
    let (topic, rejected) = ask(register, b"{}".to_vec()).await;
    assert_eq!((topic, &rejected["statusCode"]), (format!("{register}/rejected"), &json!(400)));
    let (topic, rejected) = ask("$aws/certificates/create-from-csr/cbor", cbor(&json!({}))).await;
    assert_eq!(topic, "$aws/certificates/create-from-csr/cbor/rejected");
    assert_eq!(rejected["statusCode"], 400);
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_flood_that_has_left_keeps_nobody_waiting() {
    // RSA keys: a flood of them would take minutes.
    let emulator = start(Scenario::default()).await;
    for number in 0..20 {
        let mut greedy = Client::connected(&emulator, &format!("greedy-{number}")).await;
        for _ in 0..100 {
            greedy.send(&publish(CREATE, QoS::AtMostOnce, b"{}".to_vec())).await;
        }
    }
    let mut modest = Client::connected(&emulator, "modest").await;
    let (topic, _) = modest.request(CREATE, &json!({})).await;
    assert_eq!(topic, format!("{CREATE}/accepted"));
    let made = emulator.inspect(|account| account.state().counters.certificates_created);
    assert!(made < 1_000, "{made} of 2,001 were made");
    emulator.shutdown().await;
}

#[tokio::test]
async fn an_answer_is_never_larger_than_a_message_may_be() {
    let emulator = start(scenario()).await;
    let mut client = Client::connected(&emulator, "device").await;
    let (_, issued) = client.request(CREATE, &json!({})).await;
    let mut request = registration(&issued["certificateOwnershipToken"], "DEV");
    request["parameters"]["Environment"] = "x".repeat(100 * 1024).into();
    client.send(&publish(REGISTER, QoS::AtLeastOnce, request.to_string().into_bytes())).await;
    assert!(matches!(client.packet().await, Packet::PubAck(_)));
    let reply = client.publication().await;
    assert!(reply.payload.len() <= 128 * 1024, "{}", reply.payload.len());
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_head_with_bare_line_feeds_swallows_no_other_request() {
    let emulator = start(scenario()).await;
    let mut client = Client::dial(&emulator).await;
    let first = "GET /nothing HTTP/1.1\r\nHost: localhost\n\n";
    let (head, _) = client.ask(&format!("{first}GET /other HTTP/1.1\r\n\r\n")).await;
    // Nothing is signed; what matters is that both requests were one, and that the connection is closed after it.
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    emulator.shutdown().await;
}

#[tokio::test]
async fn what_a_client_of_mqtt_5_is_told() {
    let emulator = start(scenario()).await;
    let mut client = Client::upgraded(&emulator).await;
    // CONNECT of MQTT 5 without a client id; PUBLISH of a create request.
    client.bytes(b"\x10\x0d\0\x04MQTT\x05\x02\0\x1e\0\0\0").await;
    let (_, connack) = client.read_frame().await.unwrap();
    let mut connack = bytes::BytesMut::from(&connack[..]);
    let packet = rumqttc::v5::mqttbytes::v5::Packet::read(&mut connack, None).unwrap();
    let rumqttc::v5::mqttbytes::v5::Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
    let properties = connack.properties.unwrap();
    assert!(properties.assigned_client_identifier.unwrap().starts_with("$GEN/"));
    assert_eq!((properties.receive_max, properties.max_qos), (Some(100), Some(1)));
    let body = [&[0, 29][..], CREATE.as_bytes(), &[0, 9, 0], b"{}"].concat();
    client.bytes(&[&[0x32, u8::try_from(body.len()).unwrap()], &body[..]].concat()).await;
    let (_, puback) = client.read_frame().await.unwrap();
    assert_eq!(puback, [0x40, 2, 0, 9]);
    let (_, reply) = client.read_frame().await.unwrap();
    let mut reply = bytes::BytesMut::from(&reply[..]);
    let packet = rumqttc::v5::mqttbytes::v5::Packet::read(&mut reply, None).unwrap();
    let rumqttc::v5::mqttbytes::v5::Packet::Publish(reply) = packet else { panic!("{packet:?}") };
    assert_eq!(reply.topic, Bytes::from(format!("{CREATE}/accepted")));
    // A subscription identifier: DISCONNECT with 161, and the end.
    client.bytes(b"\x82\x09\0\x01\x02\x0b\x01\0\x01a\0").await;
    let (_, farewell) = client.read_frame().await.unwrap();
    assert_eq!(farewell, [0xe0, 2, 0xa1, 0]);
    emulator.shutdown().await;
}
