//! Servers that flood, stall, trickle or stop half-way: each ends in time, with a cause of its own, in bounded memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetmint::call::Call;
use fleetmint::failure::{Failure, Stage};
use fleetmint::transport::{Connection, Connector};

use super::rogue::{self, CREATED, Peer, puback, publish};
use super::{
    PATIENCE, SHORT, assert_says, connect, connector, create, exchange_with, failed_dial, failed_exchange,
    failed_idle,
};

/// Sends `bytes` until the client has gone.
async fn flood(mut peer: Peer, bytes: Vec<u8>) {
    let many = bytes.repeat(64 * 1024 / bytes.len() + 1);
    while peer.try_raw(&many).await.is_ok() {}
}

/// What a server can send without end, each piece being right in itself.
fn floods() -> [(&'static str, Vec<u8>); 5] {
    [
        ("PINGRESP", rogue::frame(2, b"\xd0\x00")),
        ("PUBACK", rogue::frame(2, &puback(99))),
        ("pings", rogue::frame(9, b"are you there")),
        ("pongs", rogue::frame(10, b"")),
        ("empty frames", rogue::frame(2, b"")),
    ]
}

const FLOOD: &str = "a flood: more than 1000 packets or frames that nothing asked for";

#[tokio::test]
async fn floods_end_the_connection() {
    for (what, bytes) in floods() {
        let while_idle = failed_idle({
            let bytes = bytes.clone();
            move |peer| flood(peer, bytes)
        });
        println!("{what}");
        assert_says(&while_idle.await, Stage::Idle, "garbled", FLOOD);
        let exchanging = failed_exchange(move |peer, _| flood(peer, bytes));
        assert_says(&exchanging.await, Stage::Call(Call::CreateKeysAndCertificate), "garbled", FLOOD);
    }
    for (what, bytes) in floods() {
        println!("{what} before CONNACK");
        let failure = failed_dial(move |peer| async move {
            let mut peer = peer.upgraded().await;
            peer.packet().await;
            flood(peer, bytes).await;
        });
        let failure = failure.await;
        assert_eq!((failure.stage, failure.cause.name()), (Stage::Connack, "garbled"), "{failure}");
    }
}

#[tokio::test]
async fn a_reply_that_comes_thousands_of_times_is_a_flood() {
    let server = rogue::start(|peer| async move {
        let mut peer = peer.open().await;
        peer.publish().await;
        flood(peer, rogue::frame(2, &publish(CREATED, "{}", 7))).await;
    })
    .await;
    let (_, mut connection) = create(connect(&server).await).await.unwrap();
    let failure = tokio::time::timeout(PATIENCE, connection.idle()).await.unwrap();
    assert_says(&failure, Stage::Idle, "garbled", "a flood: more than 1000 replies delivered again");
}

/// Frames without an end in them: nothing is ever complete, and the WebSocket keeps none of it.
#[tokio::test]
async fn a_message_without_end() {
    let [mut first, mut middle] = [rogue::frame(2, b""), rogue::frame(0, b"")];
    first[0] &= 0x7f;
    middle[0] &= 0x7f;
    let idle = failed_idle({
        let (first, middle) = (first.clone(), middle.clone());
        |mut peer: Peer| async move {
            peer.raw(first).await;
            flood(peer, middle).await;
        }
    });
    assert_says(&idle.await, Stage::Idle, "closed", "no PINGRESP within 1s");

    let mut filled = rogue::frame(0, &[b'x'; 60_000]);
    filled[0] &= 0x7f;
    let grown = failed_exchange(|mut peer, _| async move {
        peer.raw(first).await;
        flood(peer, filled).await;
    });
    assert_says(
        &grown.await,
        Stage::Call(Call::CreateKeysAndCertificate),
        "garbled",
        "a WebSocket message of ",
    );
}

#[tokio::test]
async fn packets_that_no_server_sends() {
    for (bytes, words) in [
        (&b"\x10\x00"[..], "a CONNECT, which only a client may send"),
        (b"\x20\x02\x00\x00", "a second CONNACK"),
        (b"\x30\x01\x00", "a malformed PUBLISH"),
        (b"\x34\x05\x00\x01t\x00\x01", "a PUBLISH at QoS 2, which was not asked for"),
        (b"\x62\x02\x00\x01", "a PUBREL that answers nothing"),
        (b"\x82\x02\x00\x01", "a SUBSCRIBE, which only a client may send"),
        (b"\x90\x03\x00\x01\x01", "a SUBACK that answers no SUBSCRIBE"),
        (b"\xb0\x02\x00\x01", "an UNSUBACK that answers nothing"),
        (b"\xc0\x00", "a PINGREQ, which only a client may send"),
        (b"\xe0\x00", "a DISCONNECT, which only a client may send"),
        (b"\xf0\x00", "byte 0xf0 where an MQTT packet should start"),
    ] {
        let words = words.trim_start_matches("an ").trim_start_matches("a ");
        let idle = failed_idle(move |mut peer| async move {
            peer.mqtt(bytes).await;
            peer.until_gone().await;
        });
        assert_says(&idle.await, Stage::Idle, "garbled", words);
        let exchanging = failed_exchange(move |mut peer, _| async move {
            peer.mqtt(bytes).await;
            peer.until_gone().await;
        });
        assert_says(&exchanging.await, Stage::Call(Call::CreateKeysAndCertificate), "garbled", words);
    }
}

/// Half of a TLS record, of a frame and of a packet, and then nothing, or the end.
#[tokio::test]
async fn halves() {
    // A record that says that it is 256 bytes long, and a whole one that nobody has encrypted.
    const HALF_A_RECORD: &[u8] = b"\x17\x03\x03\x01\x00half of it";
    const FORGED_RECORD: &[u8] = b"\x17\x03\x03\x00\x14abcdefghijklmnopqrst";
    let gone = failed_exchange(|mut peer, _| async move {
        peer.beneath_tls(HALF_A_RECORD).await;
        peer.hang_up();
    });
    assert_says(&gone.await, Stage::Call(Call::CreateKeysAndCertificate), "closed", "hung up without a word");
    let stalled = failed_idle(|mut peer| async move {
        peer.beneath_tls(HALF_A_RECORD).await;
        peer.until_gone().await;
    });
    assert_says(&stalled.await, Stage::Idle, "closed", "no PINGRESP within 1s");
    let forged = failed_exchange(|mut peer, _| async move {
        peer.beneath_tls(FORGED_RECORD).await;
        peer.until_gone().await;
    });
    assert_says(&forged.await, Stage::Call(Call::CreateKeysAndCertificate), "garbled", "not TLS: ");
    let half_a_frame = failed_exchange(|mut peer, _| async move {
        peer.raw(b"\x82\x7e\x01").await;
        peer.hang_up();
    });
    assert_says(
        &half_a_frame.await,
        Stage::Call(Call::CreateKeysAndCertificate),
        "closed",
        "hung up without a word",
    );
    let notified = failed_exchange(|mut peer, _| async move {
        peer.mqtt(&publish(CREATED, "{}", 1)[..9]).await;
        peer.close_notify().await;
        peer.until_gone().await;
    });
    assert_says(
        &notified.await,
        Stage::Call(Call::CreateKeysAndCertificate),
        "closed",
        "hung up without a word",
    );
}

/// The other side is still there for TCP, and for nothing else.
#[tokio::test]
async fn a_half_open_connection_is_left_when_its_ping_is_not_answered() {
    let start = Instant::now();
    let failure = failed_idle(Peer::ignore).await;
    assert_says(&failure, Stage::Idle, "closed", "no PINGRESP within 1s: the server is gone");
    assert!(start.elapsed() < PATIENCE);
    // More than the sockets' buffers take: the request cannot even be written.
    let server = rogue::start(|peer| async move { peer.open().await.ignore().await }).await;
    let request = Bytes::from(vec![b'x'; 128 * 1024]);
    let lost =
        connect(&server).await.exchange(Call::CreateKeysAndCertificate, request, SHORT).await.unwrap_err();
    assert_says(
        &lost.failure,
        Stage::Call(Call::CreateKeysAndCertificate),
        "no_puback",
        "neither PUBACK nor reply within 1s",
    );
    server.script.abort();
}

/// One byte now and then, so that something is always coming.
async fn trickle(peer: &mut Peer, bytes: &[u8]) {
    for byte in bytes {
        if peer.try_raw(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn answers_that_trickle_do_not_outlast_their_limit() {
    async fn failure(
        script: impl FnOnce(Peer) -> futures::future::BoxFuture<'static, ()> + Send + 'static,
    ) -> Failure {
        let server = rogue::start(script).await;
        let start = Instant::now();
        let failure = connector(&server, SHORT).dial().await.outcome.unwrap_err();
        assert!(start.elapsed() < PATIENCE, "{failure}");
        failure
    }
    let upgrade = failure(|mut peer| {
        Box::pin(async move {
            let request = peer.request().await;
            trickle(&mut peer, Peer::switching(&request).as_bytes()).await;
        })
    });
    let interim = failure(|mut peer| {
        Box::pin(async move {
            peer.request().await;
            flood(peer, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec()).await;
        })
    });
    let connack = failure(|peer| {
        Box::pin(async move {
            let mut peer = peer.upgraded().await;
            let half_a_packet = rogue::frame(2, b"\x20");
            trickle(&mut peer, &half_a_packet).await;
            trickle(&mut peer, &rogue::frame(9, b"").repeat(400)).await;
        })
    });
    let (upgrade, interim, connack) = tokio::join!(upgrade, interim, connack);
    for (failure, stage) in [(upgrade, Stage::Upgrade), (interim, Stage::Upgrade), (connack, Stage::Connack)]
    {
        assert_says(&failure, stage, "timed_out", "no answer within 1s");
    }
}

#[tokio::test]
async fn oversized_answers_to_the_upgrade() {
    let endless_head = failed_dial(|mut peer| async move {
        peer.request().await;
        peer.raw("HTTP/1.1 101 Switching Protocols\r\nx: ").await;
        flood(peer, b"y".to_vec()).await;
    });
    assert_says(&endless_head.await, Stage::Upgrade, "garbled", "no end of its head in 16384 bytes");
    let many_fields = failed_dial(|mut peer| async move {
        peer.request().await;
        let fields = "x: y\r\n".repeat(100);
        peer.raw(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")).await;
        peer.until_gone().await;
    });
    assert_says(&many_fields.await, Stage::Upgrade, "garbled", "not HTTP/1.1: too many headers");
    for length in ["content-length: 99999999999", "transfer-encoding: chunked"] {
        let endless_body = failed_dial(move |mut peer| async move {
            peer.request().await;
            peer.raw(format!("HTTP/1.1 403 Forbidden\r\n{length}\r\n\r\nffffff\r\n")).await;
            flood(peer, b"no".to_vec()).await;
        });
        let failure = endless_body.await;
        assert_says(&failure, Stage::Upgrade, "upgrade_refused", "HTTP 403");
        assert!(failure.to_string().len() < 1_000, "{}", failure.to_string().len());
    }
}

/// A reply in as many frames as it has bytes is no flood.
#[tokio::test]
async fn a_reply_in_a_thousand_frames_is_a_reply() {
    let payload = "x".repeat(3_000);
    let wanted = payload.clone();
    let outcome = exchange_with(move |mut peer, _| async move {
        let frames: Vec<u8> =
            publish(CREATED, &payload, 7).iter().flat_map(|byte| rogue::frame(2, &[*byte])).collect();
        peer.raw(frames).await;
        peer.until_gone().await;
    });
    assert_eq!(outcome.await.unwrap().payload, wanted);
}
