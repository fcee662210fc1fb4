//! The client's connection against a server that breaks the rules, one way at a time: each ends with its own stage and
//! cause, in words that a person can use.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod barred;
mod rogue;
mod rude;
mod survival;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use fleetmint::call::Call;
use fleetmint::certificate::Secret;
use fleetmint::failure::{Cause, Failure, Stage};
use fleetmint::provisioning::Topics;
use fleetmint::sigv4::{CredentialSource, Credentials, NoCredentials};
use fleetmint::transport::wss::{
    Authentication, KEEP_ALIVE, TlsResumption, WssConnection, WssConnector, WssSettings,
};
use fleetmint::transport::{Connection, Connector, Dial, Lost, Reply, Verdict};
use futures::future::BoxFuture;
use tokio_rustls::TlsAcceptor;

use self::rogue::{CREATED, NOT_CREATED, Peer, REGISTERED, Rogue, puback, publish};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// For waits that are meant to run out, and long enough for what has to happen before.
const SHORT: Duration = Duration::from_secs(1);

fn settings<T>(server: &Rogue<T>) -> WssSettings {
    WssSettings {
        endpoint: server.endpoint.clone(),
        region: String::from("eu-west-1"),
        topics: Topics::new("TEMP_DEVICE"),
        client_id_prefix: String::from("it"),
        authentication: Authentication::Signature(Arc::new(Credentials {
            access_key_id: String::from("AKIDEXAMPLE"),
            secret_access_key: Secret::new(String::from("hunter2")),
            session_token: Some(Secret::new(String::from("to/ken"))),
        })),
        extra_roots: server.ca_pem.clone().into_bytes(),
        proxies: Default::default(),
        connect_timeout: PATIENCE,
        keep_alive: KEEP_ALIVE,
        tls_resumption: TlsResumption::Shared,
    }
}

fn connector<T>(server: &Rogue<T>, connect_timeout: Duration) -> WssConnector {
    WssConnector::new(WssSettings { connect_timeout, ..settings(server) }).unwrap()
}

async fn connect<T>(server: &Rogue<T>) -> WssConnection {
    connector(server, PATIENCE).dial().await.outcome.unwrap()
}

/// How a dial to a server with this script fails.
async fn failed_dial<F>(script: impl FnOnce(Peer) -> F + Send + 'static) -> Failure
where
    F: Future<Output = ()> + Send,
{
    let server = rogue::start(script).await;
    connector(&server, PATIENCE).dial().await.outcome.unwrap_err()
}

/// How a dial fails if the upgrade is answered with these bytes.
async fn failed_upgrade(answer: impl Into<Vec<u8>>) -> Failure {
    let answer = answer.into();
    let failure = failed_dial(|mut peer| async move {
        peer.request().await;
        peer.raw(answer).await;
        peer.until_gone().await;
    });
    failure.await
}

async fn create(connection: WssConnection) -> Result<(Reply, WssConnection), Lost> {
    connection.exchange(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"), PATIENCE).await
}

async fn register(connection: WssConnection) -> Result<(Reply, WssConnection), Lost> {
    connection.exchange(Call::RegisterThing, Bytes::from_static(b"{}"), PATIENCE).await
}

/// How a first exchange ends if the server, once open and asked, goes on with this script.
async fn exchange_with<F>(script: impl FnOnce(Peer, u16) -> F + Send + 'static) -> Result<Reply, Lost>
where
    F: Future<Output = ()> + Send,
{
    let server = rogue::start(|peer| async move {
        let mut peer = peer.open().await;
        let (id, payload) = peer.publish().await;
        assert_eq!(payload, b"{}");
        script(peer, id).await;
    })
    .await;
    create(connect(&server).await).await.map(|(reply, _)| reply)
}

/// The same for a script that makes it fail.
async fn failed_exchange<F>(script: impl FnOnce(Peer, u16) -> F + Send + 'static) -> Failure
where
    F: Future<Output = ()> + Send,
{
    let failure = exchange_with(script).await.unwrap_err().failure;
    assert_eq!(failure.stage, Stage::Call(Call::CreateKeysAndCertificate), "{failure}");
    failure
}

/// How idling ends if the server, once open, goes on with this script.
async fn failed_idle<F>(script: impl FnOnce(Peer) -> F + Send + 'static) -> Failure
where
    F: Future<Output = ()> + Send,
{
    let server = rogue::start(|peer| async move { script(peer.open().await).await }).await;
    let keep_alive = Duration::from_secs(1);
    let connector = WssConnector::new(WssSettings { keep_alive, ..settings(&server) }).unwrap();
    let mut connection = connector.dial().await.outcome.unwrap();
    let failure = tokio::time::timeout(PATIENCE, connection.idle()).await.expect("idling ends");
    assert_eq!(failure.stage, Stage::Idle, "{failure}");
    failure
}

fn assert_says(failure: &Failure, stage: Stage, cause: &str, words: &str) {
    let said = failure.to_string();
    assert_eq!((failure.stage, failure.cause.name()), (stage, cause), "{said}");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
    for secret in ["hunter2", "to/ken", "to%2Fken", "PRIVATE KEY"] {
        assert!(!format!("{said}{failure:?}").contains(secret), "{failure:?}");
    }
}

#[tokio::test]
async fn a_well_behaved_server_is_dialled_and_every_phase_timed() {
    let server = rogue::start(|mut peer| async move {
        let request = peer.request().await;
        peer.raw(Peer::switching(&request)).await;
        let connect = peer.packet().await;
        peer.mqtt(b"\x20\x02\x00\x00").await;
        let subscribe = peer.packet().await;
        peer.mqtt(b"\x90\x06\x00\x01\x01\x01\x01\x01").await;
        (request, connect, subscribe)
    })
    .await;
    let host = server.endpoint.host_header();
    let Dial { phases, outcome } = connector(&server, PATIENCE).dial().await;
    outcome.unwrap();
    for phase in [phases.tcp, phases.tls, phases.upgrade, phases.connack, phases.suback] {
        assert!(phase.is_some_and(|phase| phase > Duration::ZERO && phase < PATIENCE));
    }
    let (request, connect, subscribe) = server.script.await.unwrap();
    assert!(
        request[0].starts_with("GET /mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F")
    );
    assert!(request[0].ends_with("&X-Amz-Security-Token=to%2Fken HTTP/1.1"));
    assert!(!request[0].contains("X-Amz-Expires"));
    for header in [
        format!("Host: {host}").as_str(),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ] {
        assert_eq!(request.iter().filter(|line| line.as_str() == header).count(), 1, "{header}: {request:?}");
    }
    assert_eq!(
        &connect[2..14],
        b"\x00\x04MQTT\x04\x02\x00\x1e\x00\x15",
        "clean session, keep-alive, 21 bytes of id"
    );
    assert!(connect[14..].starts_with(b"it-"));
    assert_eq!(subscribe.iter().filter(|byte| **byte == b'$').count(), 4, "four filters in one SUBSCRIBE");
}

/// Credentials with a number in them, one higher each time.
#[derive(Default)]
struct Rotating(AtomicU32);

impl CredentialSource for Rotating {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Credentials {
            access_key_id: format!("AKID{number}"),
            secret_access_key: Secret::new(String::from("hunter2")),
            session_token: None,
        })))
    }
}

#[tokio::test]
async fn each_dial_signs_anew_as_a_new_client_and_resumes_tls_unless_told_not_to() {
    for resumption in [TlsResumption::Shared, TlsResumption::Off] {
        let (config, ca_pem) = rogue::identity("localhost");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let script = tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut peer = Peer::accept(TlsAcceptor::from(config.clone()), tcp).await;
                let was_resumed = peer.was_resumed();
                let request = peer.request().await;
                peer.raw(Peer::switching(&request)).await;
                let connect = peer.packet().await;
                peer.mqtt(b"\x20\x02\x00\x00").await;
                peer.packet().await;
                peer.mqtt(b"\x90\x06\x00\x01\x01\x01\x01\x01").await;
                assert_eq!(peer.packet().await, b"\xe0\x00", "DISCONNECT");
                peer.hang_up();
                let credential = request[0].split("X-Amz-Credential=").nth(1).unwrap();
                let key = credential.split('%').next().unwrap().to_owned();
                seen.push((was_resumed, key, connect));
            }
            seen
        });
        let server = Rogue { endpoint, ca_pem, script };
        let authentication = Authentication::Signature(Arc::new(Rotating::default()));
        let settings = WssSettings { tls_resumption: resumption, authentication, ..settings(&server) };
        let connector = WssConnector::new(settings).unwrap();
        for _ in 0..3 {
            connector.dial().await.outcome.unwrap().close().await;
        }
        let seen = server.script.await.unwrap();
        let resumed: Vec<_> = seen.iter().map(|(was_resumed, ..)| *was_resumed).collect();
        let is_shared = resumption == TlsResumption::Shared;
        assert_eq!(resumed, [false, is_shared, is_shared]);
        let keys: Vec<_> = seen.iter().map(|(_, key, _)| key.as_str()).collect();
        assert_eq!(keys, ["AKID0", "AKID1", "AKID2"]);
        assert!(seen[0].2 != seen[1].2 && seen[1].2 != seen[2].2, "client ids differ");
    }
}

#[tokio::test]
async fn a_refused_tcp_connection() {
    let server = rogue::start(|_| async {}).await;
    server.script.abort();
    let _ = (&mut { server.script }).await;
    let server = Rogue { endpoint: server.endpoint, ca_pem: server.ca_pem, script: tokio::spawn(async {}) };
    let Dial { phases, outcome } = connector(&server, PATIENCE).dial().await;
    assert_says(&outcome.unwrap_err(), Stage::Tcp, "unreachable", "refused");
    assert_eq!(phases, Default::default());
}

#[tokio::test]
async fn a_name_without_address() {
    let mut server = rogue::start(|_| async {}).await;
    // No resolver takes a name of more than 253 characters, so none asks the network.
    server.endpoint =
        format!("{}a", "a123456789012345678901234567890123456789012345678901234567890.".repeat(4))
            .parse()
            .unwrap();
    let failure = connector(&server, PATIENCE).dial().await.outcome.unwrap_err();
    assert_says(&failure, Stage::Resolve, "unresolvable", "no address");
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted() {
    for (name, trusts_its_ca, words) in [
        ("localhost", false, "not signed by a trusted authority"),
        ("elsewhere.example", true, "for another name"),
    ] {
        let (config, ca_pem) = rogue::identity(name);
        let other_ca = rogue::identity(name).1;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let script = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio_rustls::TlsAcceptor::from(config).accept(tcp).await.map(drop).unwrap_err();
        });
        let server = Rogue { endpoint, ca_pem: if trusts_its_ca { ca_pem } else { other_ca }, script };
        let Dial { phases, outcome } = connector(&server, PATIENCE).dial().await;
        assert_says(&outcome.unwrap_err(), Stage::Tls, "tls", words);
        assert!(phases.tcp.is_some() && phases.tls.is_none());
    }
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls_or_says_nothing() {
    for (answer, cause, words) in [
        (&b"220 mail.example ESMTP\r\n"[..], "tls", "does not speak TLS on this port"),
        (b"", "closed", "hung up"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let script = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::io::AsyncReadExt::read(&mut tcp, &mut [0; 4096]).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut tcp, answer).await.unwrap();
        });
        let server = Rogue { endpoint, ca_pem: rogue::identity("x").1, script };
        let failure = connector(&server, PATIENCE).dial().await.outcome.unwrap_err();
        assert_says(&failure, Stage::Tls, cause, words);
    }
}

#[tokio::test]
async fn each_phase_that_hangs_is_named() {
    async fn stuck(
        script: impl FnOnce(Peer) -> futures::future::BoxFuture<'static, Peer> + Send + 'static,
    ) -> Failure {
        let server = rogue::start(|peer| async move { script(peer).await.until_gone().await }).await;
        let start = Instant::now();
        let failure = connector(&server, SHORT).dial().await.outcome.unwrap_err();
        assert!(start.elapsed() >= SHORT && start.elapsed() < PATIENCE);
        failure
    }
    let (upgrade, connack, suback) = tokio::join!(
        stuck(|peer| Box::pin(async { peer })),
        stuck(|peer| Box::pin(peer.upgraded())),
        stuck(|peer| Box::pin(peer.connected())),
    );
    for (failure, stage) in [(upgrade, Stage::Upgrade), (connack, Stage::Connack), (suback, Stage::Suback)] {
        assert_says(&failure, stage, "timed_out", "no answer within 1s");
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let silent = Rogue { endpoint, ca_pem: rogue::identity("x").1, script: tokio::spawn(async {}) };
    let failure = connector(&silent, SHORT).dial().await.outcome.unwrap_err();
    assert_says(&failure, Stage::Tls, "timed_out", "the TLS handshake: no answer within 1s");
}

/// Headers and body as captured from the service by its users.
#[tokio::test]
async fn a_403_tells_why_and_names_a_wrong_clock() {
    let body = "{\"message\":\"Signature not yet current: 20251123T234432Z is still later than 20251123T233932Z \
                (20251123T233432Z + 5 min.)\",\"traceId\":\"01234567-89ab-cdef-0123-456789abcdef\"}";
    let date = time::OffsetDateTime::from(SystemTime::now() - Duration::from_secs(600));
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: {}\r\n\
         x-amzn-RequestId: 01234567-89ab-cdef-0123-456789abcdef\r\nconnection: keep-alive\r\n\
         x-amzn-ErrorType: ForbiddenException:\r\naccess-control-allow-origin: *\r\n\
         access-control-expose-headers: x-amzn-ErrorMessage,x-amzn-RequestId,x-amzn-ErrorType,Date\r\n\r\n{body}",
        body.len(),
        date.format(format).unwrap(),
    );
    let failure = failed_upgrade(answer).await;
    assert_says(
        &failure,
        Stage::Upgrade,
        "upgrade_refused",
        "HTTP 403: ForbiddenException: Signature not yet current",
    );
    let said = failure.to_string();
    assert!(said.contains("clock skew: this machine's clock is 60"), "{said}");
    let Cause::UpgradeRefused { skew_s: Some(600..=620), .. } = failure.cause else { panic!("{failure:?}") };
}

#[tokio::test]
async fn other_answers_to_the_upgrade() {
    let refused =
        |status, message: &str| Cause::UpgradeRefused { status, message: message.to_owned(), skew_s: None };
    for (answer, cause) in [
        ("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n", refused(426, "")),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\nwrong, and more", refused(500, "wrong")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhi!\r\n0\r\n\r\n", refused(200, "hi!")),
        ("HTTP/1.1 429 Slow down\r\ncontent-length: 0\r\n\r\n", refused(429, "")),
    ] {
        assert_eq!(failed_upgrade(answer).await, Failure::new(Stage::Upgrade, cause));
    }
    let echoed = failed_dial(|mut peer| async move {
        let request = peer.request().await;
        let body = format!("Cannot {}", request[0]);
        peer.raw(format!("HTTP/1.1 404 x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    });
    let echoed = echoed.await;
    assert_says(&echoed, Stage::Upgrade, "upgrade_refused", "HTTP 404: Cannot GET /mqtt?X-Amz-Algorithm");
    assert_says(
        &echoed,
        Stage::Upgrade,
        "upgrade_refused",
        "&X-Amz-Signature=[redacted]&X-Amz-Security-Token=[redacted]",
    );
}

#[tokio::test]
async fn a_refusal_whose_body_never_comes_is_still_told() {
    let failure = failed_upgrade("HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\n{\"mess").await;
    assert_says(&failure, Stage::Upgrade, "upgrade_refused", "HTTP 403: {\"mess");
}

#[tokio::test]
async fn answers_that_are_no_upgrade() {
    for (from, to, words) in [
        ("sec-websocket-accept: ", "sec-websocket-accept: x", "Sec-WebSocket-Accept"),
        ("mqtt\r\n", "amqp\r\n", "subprotocol is \"amqp\", not mqtt"),
        ("connection: upgrade", "connection: close", "Connection"),
        ("HTTP/1.1", "SSH-2.0", "not HTTP/1.1"),
    ] {
        let failure = failed_dial(move |mut peer| async move {
            let request = peer.request().await;
            peer.raw(Peer::switching(&request).replace(from, to)).await;
            peer.until_gone().await;
        });
        assert_says(&failure.await, Stage::Upgrade, "garbled", words);
    }
    let hung_up = failed_dial(|mut peer| async move {
        peer.request().await;
        peer.hang_up();
    });
    assert_says(&hung_up.await, Stage::Upgrade, "closed", "hung up");
}

#[tokio::test]
async fn connack_refusals() {
    for (code, words) in [
        (1, "return code 1 (unacceptable protocol version)"),
        (2, "return code 2 (client identifier rejected)"),
        (3, "return code 3 (server unavailable)"),
        (4, "return code 4 (bad user name or password)"),
        (5, "return code 5 (not authorized)"),
        (7, "return code 7 (not authorized)"),
    ] {
        let failure = failed_dial(move |peer| async move {
            let mut peer = peer.upgraded().await;
            peer.packet().await;
            peer.mqtt([0x20, 2, 0, code]).await;
            peer.hang_up();
        });
        assert_says(&failure.await, Stage::Connack, "connect_refused", words);
    }
}

#[tokio::test]
async fn subscriptions_refused_one_by_one() {
    let topics = Topics::new("TEMP_DEVICE");
    let filters = [
        &topics.create.accepted,
        &topics.create.rejected,
        &topics.register.accepted,
        &topics.register.rejected,
    ];
    for (index, filter) in filters.into_iter().enumerate() {
        let failure = failed_dial(move |peer| async move {
            let mut peer = peer.connected().await;
            peer.packet().await;
            let mut codes = [1; 4];
            codes[index] = 0x80;
            peer.mqtt([&[0x90, 6, 0, 1][..], &codes].concat()).await;
            peer.until_gone().await;
        });
        assert_says(
            &failure.await,
            Stage::Suback,
            "subscription_refused",
            &format!("SUBACK 0x80 for {filter}"),
        );
    }
    let few = failed_dial(|peer| async move {
        let mut peer = peer.connected().await;
        peer.packet().await;
        peer.mqtt(b"\x90\x05\x00\x01\x01\x01\x01").await;
        peer.until_gone().await;
    });
    assert_says(&few.await, Stage::Suback, "garbled", "3 return codes for 4 filters");
    let closed = failed_dial(|peer| async move {
        let mut peer = peer.connected().await;
        peer.packet().await;
        peer.hang_up();
    });
    let closed = closed.await;
    assert_says(&closed, Stage::Suback, "closed", "hung up");
    assert!(closed.hint().contains("iot:Subscribe"), "{}", closed.hint());
}

#[tokio::test]
async fn replies_in_every_order_and_division_are_taken() {
    let reply = |id| (puback(id), publish(CREATED, "{\"certificateId\":1}", 7));
    // Before, after and without the PUBACK; in one frame; byte by byte; at QoS 0; split over the fragments of one message.
    for way in 0..6 {
        let outcome = exchange_with(move |mut peer, id| async move {
            let (ack, reply) = reply(id);
            match way {
                0 => {
                    peer.mqtt(reply).await;
                    peer.mqtt(ack).await;
                }
                1 => peer.mqtt(reply).await,
                2 => peer.mqtt([ack, reply].concat()).await,
                3 => {
                    for byte in [ack, reply].concat() {
                        peer.mqtt([byte]).await;
                    }
                }
                4 => peer.mqtt(rogue::publish_qos_0(CREATED, "{\"certificateId\":1}")).await,
                _ => {
                    let (start, end) = reply.split_at(20);
                    let mut first = rogue::frame(2, start);
                    first[0] &= 0x7f;
                    peer.raw([first, rogue::frame(9, b"between"), rogue::frame(0, end)].concat()).await;
                }
            }
            peer.until_gone().await;
        });
        let reply = outcome.await.unwrap();
        assert_eq!(
            (reply.verdict, &reply.payload[..]),
            (Verdict::Accepted, &b"{\"certificateId\":1}"[..]),
            "{way}"
        );
        assert_eq!(reply.redelivered, 0);
    }
}

#[tokio::test]
async fn a_rejection_is_a_reply() {
    let outcome = exchange_with(|mut peer, id| async move {
        peer.mqtt([puback(id), publish(NOT_CREATED, "{}", 1)].concat()).await;
        peer.until_gone().await;
    });
    assert_eq!(outcome.await.unwrap().verdict, Verdict::Rejected);
}

#[tokio::test]
async fn two_devices_and_redeliveries_between_them() {
    let server = rogue::start(|peer| async move {
        let mut peer = peer.open().await;
        let mut acknowledged = Vec::new();
        for device in ["one", "two"] {
            for topic in [CREATED, REGISTERED] {
                peer.publish().await;
                // Twice, in one frame: the second waits in the client's buffers for its next exchange.
                peer.mqtt([publish(topic, device, 7), publish(topic, device, 8)].concat()).await;
            }
        }
        while acknowledged.len() < 2 {
            let packet = peer.packet().await;
            if packet[0] == 0x40 {
                acknowledged.push(packet[3]);
            }
        }
        (peer, acknowledged)
    })
    .await;
    let mut connection = connect(&server).await;
    let mut redelivered = 0;
    for device in ["one", "two"] {
        let (reply, after) = create(connection).await.unwrap();
        assert_eq!(reply.payload, device);
        redelivered += reply.redelivered;
        let (reply, after) = register(after).await.unwrap();
        assert_eq!(reply.payload, device);
        redelivered += reply.redelivered;
        connection = after;
    }
    assert_eq!(redelivered, 3, "the last one is still to be seen");
    let idle = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            failure = connection.idle() => panic!("{failure}"),
            served = server.script => served.unwrap(),
        }
    });
    assert_eq!(idle.await.unwrap().1, [7, 8], "every delivery is acknowledged");
}

#[tokio::test]
async fn the_same_reply_for_two_devices_is_an_anomaly() {
    let server = rogue::start(|peer| async move {
        let mut peer = peer.open().await;
        for _ in 0..2 {
            let (id, _) = peer.publish().await;
            peer.mqtt([puback(id), publish(REGISTERED, "{\"thingName\":\"same\"}", 7)].concat()).await;
        }
        peer.until_gone().await;
    })
    .await;
    let (_, connection) = register(connect(&server).await).await.unwrap();
    let start = Instant::now();
    let lost = register(connection).await.unwrap_err();
    assert_says(
        &lost.failure,
        Stage::Call(Call::RegisterThing),
        "anomaly",
        "the same reply as for the device before",
    );
    assert_eq!(lost.redelivered, 1);
    assert!(start.elapsed() >= fleetmint::transport::GRACE && start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn silence_is_told_with_and_without_puback() {
    for (acknowledges, cause, words) in [
        (false, "no_puback", "neither PUBACK nor reply within 1s"),
        (true, "no_reply", "PUBACK but no reply within 1s"),
    ] {
        let server = rogue::start(move |peer| async move {
            let mut peer = peer.open().await;
            let (id, _) = peer.publish().await;
            if acknowledges {
                peer.mqtt(puback(id)).await;
            }
            peer.until_gone().await;
        })
        .await;
        let exchange = connect(&server).await.exchange(Call::RegisterThing, Bytes::new(), SHORT);
        let lost = exchange.await.unwrap_err();
        assert_says(&lost.failure, Stage::Call(Call::RegisterThing), cause, words);
        server.script.await.unwrap();
    }
}

#[tokio::test]
async fn broken_servers_during_an_exchange() {
    const GARBAGE: [(&[u8], &str); 5] = [
        (b"\x82\x05hello", "byte 0x68 where an MQTT packet should start"),
        (b"\x81\x02hi", "text frame"),
        (b"\x82\x05\x30\xff\xff\xff\x7f", "a packet of 268435455 bytes"),
        (b"\x82\x7f\x00\x00\x00\x00\x10\x00\x00\x00", "a WebSocket message of 268435456 bytes"),
        (b"\xc2\x01\x00", "not WebSocket: "),
    ];
    for (bytes, words) in GARBAGE {
        let failure = failed_exchange(move |mut peer, _| async move {
            peer.raw(bytes).await;
            peer.until_gone().await;
        });
        assert_says(&failure.await, Stage::Call(Call::CreateKeysAndCertificate), "garbled", words);
    }
    let unknown = failed_exchange(|mut peer, _| async move {
        peer.mqtt(publish("$aws/things/x/shadow", "-----BEGIN RSA PRIVATE KEY-----", 1)).await;
        peer.until_gone().await;
    });
    assert_says(
        &unknown.await,
        Stage::Call(Call::CreateKeysAndCertificate),
        "garbled",
        "unknown topic \"$aws/things/x/shadow\"",
    );
    let other_lane = failed_exchange(|mut peer, _| async move {
        peer.mqtt(publish(REGISTERED, "{}", 1)).await;
        peer.until_gone().await;
    });
    assert_says(
        &other_lane.await,
        Stage::Call(Call::CreateKeysAndCertificate),
        "anomaly",
        "no request waits for",
    );
}

#[tokio::test]
async fn servers_that_leave_during_an_exchange() {
    let closed = failed_exchange(|mut peer, _| async move {
        peer.frame(8, b"\x03\xf0no such policy\x1b[2J").await;
        assert_eq!(
            peer.next_frame().await,
            (8, b"\x03\xf0no such policy\x1b[2J".to_vec()),
            "a close is answered"
        );
    });
    let words = "the server closed the WebSocket with code 1008 (policy violation): no such policy [2J";
    assert_says(&closed.await, Stage::Call(Call::CreateKeysAndCertificate), "closed", words);
    let wordless = failed_exchange(|mut peer, _| async move { peer.frame(8, b"").await });
    assert_says(&wordless.await, Stage::Call(Call::CreateKeysAndCertificate), "closed", "without a code");
    let reset = failed_exchange(|peer, _| async move { peer.reset() });
    assert_says(&reset.await, Stage::Call(Call::CreateKeysAndCertificate), "closed", "reset by the server");
    let gone = failed_exchange(|peer, _| async move { peer.hang_up() }).await;
    assert_says(&gone, Stage::Call(Call::CreateKeysAndCertificate), "closed", "hung up without a word");
    assert!(gone.hint().contains("iot:Publish") && gone.may_have_acted());
}

#[tokio::test]
async fn idle_connections_answer_pings_and_keep_themselves_alive() {
    let failure = failed_idle(|mut peer| async move {
        peer.frame(9, b"are you there").await;
        assert_eq!(peer.next_frame().await, (10, b"are you there".to_vec()));
        for _ in 0..2 {
            assert_eq!(peer.packet().await, b"\xc0\x00", "PINGREQ");
            peer.mqtt(b"\xd0\x00").await;
        }
        peer.frame(8, b"\x03\xe9").await;
    });
    assert_says(&failure.await, Stage::Idle, "closed", "code 1001 (going away)");
}

#[tokio::test]
async fn surprises_while_idle() {
    let late = failed_idle(|mut peer| async move {
        peer.mqtt(publish(CREATED, "{}", 1)).await;
        peer.until_gone().await;
    });
    assert_says(&late.await, Stage::Idle, "anomaly", "no request waits for");
    let half_a_packet = failed_idle(|mut peer| async move {
        peer.mqtt(&publish(CREATED, "{}", 1)[..9]).await;
        peer.until_gone().await;
    });
    assert_says(&half_a_packet.await, Stage::Idle, "closed", "no PINGRESP within 1s");
}

#[tokio::test]
async fn a_goodbye_is_disconnect_then_close() {
    let server = rogue::start(|peer| async move {
        let mut peer = peer.open().await;
        assert_eq!(peer.packet().await, b"\xe0\x00", "DISCONNECT");
        assert_eq!(peer.next_frame().await.0, 8, "close");
        peer.hang_up();
    })
    .await;
    connect(&server).await.close().await;
    server.script.await.unwrap();
}
