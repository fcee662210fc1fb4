//! The connection over a stream in memory, in virtual time: half a minute on a network takes no time here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{DuplexStream, ReadBuf, duplex};

use super::*;
use crate::call::Call;
use crate::provisioning::Topics;
use crate::service::MAX_PAYLOAD;
use crate::transport::Verdict;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(20);
const CREATED: &str = "$aws/certificates/create/json/accepted";

/// A stream that counts its writes.
struct Counted {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if written.is_ready() {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The server's end.
struct Peer {
    ws: WebSocketStream<DuplexStream>,
    /// How often the client has written to its stream.
    writes: Arc<AtomicUsize>,
}

impl Peer {
    async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.ws.send(Message::Binary(bytes.into())).await.unwrap();
    }

    async fn receive(&mut self) -> Bytes {
        match self.ws.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

/// A connection that has subscribed, over a stream that holds `room` bytes each way.
async fn pair(room: usize) -> (WsConnection<Counted>, Peer) {
    let (inner, theirs) = duplex(room);
    let writes = Arc::new(AtomicUsize::new(0));
    let ours = Counted { inner, writes: Arc::clone(&writes) };
    let mut peer = Peer { ws: WebSocketStream::from_raw_socket(theirs, Role::Server, None).await, writes };
    let session = Session::new(String::from("me"), Arc::new(Topics::new("T")), KEEP_ALIVE, Instant::now());
    let mut connection = WsConnection::open(ours, Vec::new(), session).await;
    let opening = async {
        connection.connect().await.unwrap();
        connection.subscribe().await.unwrap();
        connection
    };
    let serving = async {
        peer.receive().await;
        peer.send(&b"\x20\x02\x00\x00"[..]).await;
        peer.receive().await;
        peer.send(&b"\x90\x06\x00\x01\x01\x01\x01\x01"[..]).await;
        peer
    };
    tokio::join!(opening, serving)
}

fn publish(topic: &str, payload: &[u8], id: u16) -> Vec<u8> {
    use rumqttc::mqttbytes::{QoS, v4::Publish};
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    publish.pkid = id;
    let mut bytes = bytes::BytesMut::new();
    publish.write(&mut bytes).unwrap();
    bytes.to_vec()
}

async fn create<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: WsConnection<S>,
) -> Result<(Reply, WsConnection<S>), Lost> {
    connection.exchange(Call::CreateKeysAndCertificate, Bytes::from_static(b"{}"), WITHIN).await
}

#[tokio::test(start_paused = true)]
async fn each_request_is_one_write_with_the_acknowledgement_before_it() {
    let (mut connection, mut peer) = pair(1 << 20).await;
    for turn in 0..3_u8 {
        let before = peer.writes.load(Ordering::Relaxed);
        let serving = async {
            let request = peer.receive().await;
            assert_eq!(request[0], if turn == 0 { 0x32 } else { 0x40 });
            peer.send(publish(CREATED, &[b'0' + turn], 7)).await;
        };
        let (outcome, ()) = tokio::join!(create(connection), serving);
        connection = outcome.unwrap().1;
        assert_eq!(peer.writes.load(Ordering::Relaxed) - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_takes_payloads_to_the_services_limit_both_ways() {
    let (connection, mut peer) = pair(1000).await;
    let payload = Bytes::from(vec![b'x'; MAX_PAYLOAD]);
    let serving = async {
        assert!(peer.receive().await.len() > MAX_PAYLOAD);
        peer.send(publish(CREATED, &payload, 7)).await;
    };
    let exchange = connection.exchange(Call::CreateKeysAndCertificate, payload.clone(), WITHIN);
    let (outcome, ()) = tokio::join!(exchange, serving);
    assert_eq!(outcome.unwrap().0.payload, payload);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_exchange_on_time() {
    for (answer, wanted) in [
        (&b""[..], Cause::NoPuback { after: WITHIN }),
        (b"\x40\x02\x00\x02", Cause::NoReply { after: WITHIN }),
        (b"\x40\x02\x00", Cause::NoPuback { after: WITHIN }),
        (b"\x32\x80", Cause::NoPuback { after: WITHIN }),
    ] {
        let (connection, mut peer) = pair(1000).await;
        let start = Instant::now();
        let serving = async {
            peer.receive().await;
            peer.send(answer).await;
        };
        let (outcome, ()) = tokio::join!(create(connection), serving);
        let lost = outcome.unwrap_err();
        assert_eq!(lost.failure, Failure::new(Stage::Call(Call::CreateKeysAndCertificate), wanted));
        assert!(start.elapsed() >= WITHIN && start.elapsed() < WITHIN + Duration::from_millis(5));
        assert_eq!(lost.service, start.elapsed());
    }
}

/// The timer is shared by all waits: neither an earlier nor a later limit may be missed.
#[tokio::test(start_paused = true)]
async fn limits_may_come_in_any_order() {
    let (mut connection, mut peer) = pair(1000).await;
    for (turn, within) in [20, 1, 25, 2].into_iter().enumerate() {
        let serving = async {
            peer.receive().await;
            peer.send(publish(CREATED, &[u8::try_from(turn).unwrap()], 7)).await;
        };
        let exchange =
            connection.exchange(Call::CreateKeysAndCertificate, Bytes::new(), Duration::from_secs(within));
        let (outcome, ()) = tokio::join!(exchange, serving);
        connection = outcome.unwrap().1;
    }
    let start = Instant::now();
    let lost = connection
        .exchange(Call::CreateKeysAndCertificate, Bytes::new(), Duration::from_secs(3))
        .await
        .unwrap_err();
    assert_eq!(lost.failure.cause, Cause::NoPuback { after: Duration::from_secs(3) });
    assert!(start.elapsed() < Duration::from_millis(3005));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_alive_however_often_it_is_interrupted() {
    let (mut connection, mut peer) = pair(1000).await;
    let start = Instant::now();
    let idling = async {
        for _ in 0..1000 {
            // Cancelled and resumed, as by a worker that waits for a limit.
            let idle = timeout(Duration::from_millis(170), connection.idle());
            assert_eq!(idle.await.map_err(|_| ()), Err(()));
        }
    };
    let serving = async {
        let mut pings = Vec::new();
        loop {
            assert_eq!(&peer.receive().await[..], b"\xc0\x00");
            pings.push(start.elapsed());
            peer.send(&b"\xd0\x00"[..]).await;
            if pings.len() == 6 {
                return pings;
            }
        }
    };
    let ((), pings) = tokio::join!(idling, serving);
    for pair in pings.windows(2) {
        let quiet = pair[1] - pair[0];
        assert!(quiet < KEEP_ALIVE && quiet > KEEP_ALIVE / 2, "{quiet:?}");
    }
}

/// Half a day at a limit, as a connection may wait.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_lasts_for_hours() {
    let (mut connection, mut peer) = pair(1000).await;
    let half_a_day = Duration::from_secs(12 * 3600);
    let serving = async {
        let mut heard = Instant::now();
        loop {
            assert_eq!(&peer.receive().await[..], b"\xc0\x00");
            assert!(heard.elapsed() < KEEP_ALIVE, "{:?}", heard.elapsed());
            heard = Instant::now();
            peer.send(&b"\xd0\x00"[..]).await;
        }
    };
    tokio::select! {
        failure = connection.idle() => panic!("{failure}"),
        () = serving => unreachable!("it goes on for ever"),
        () = tokio::time::sleep(half_a_day) => {}
    }
    assert!(peer.writes.load(Ordering::Relaxed) > 1_400);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_ping_is_left() {
    for last_words in [&b""[..], b"\xd0"] {
        let (mut connection, mut peer) = pair(1000).await;
        let start = Instant::now();
        peer.send(last_words).await;
        let failure = connection.idle().await;
        assert_eq!(failure.stage, Stage::Idle);
        assert!(failure.to_string().contains("no PINGRESP within 30s"), "{failure}");
        assert!(start.elapsed() <= 2 * KEEP_ALIVE);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_acknowledges_redeliveries_and_takes_nothing_else() {
    let (connection, mut peer) = pair(1000).await;
    let reply = publish(CREATED, b"1", 7);
    peer.send(reply.clone()).await;
    // It came before the request: it cannot be its reply.
    let lost = create(connection).await.unwrap_err();
    assert_eq!((lost.failure.stage, lost.failure.cause.name()), (Stage::Idle, "anomaly"));
    assert!(!lost.failure.may_have_acted(), "nothing was published");

    let (connection, mut peer) = pair(1000).await;
    let serving = async {
        peer.receive().await;
        peer.send(reply.clone()).await;
        peer
    };
    let (outcome, mut peer) = tokio::join!(create(connection), serving);
    let mut connection = outcome.unwrap().1;
    let serving = async {
        assert_eq!(&peer.receive().await[..], b"\x40\x02\x00\x07");
        peer.send(reply.clone()).await;
        assert_eq!(&peer.receive().await[..], b"\x40\x02\x00\x07");
        peer.send(publish(CREATED, b"2", 8)).await;
    };
    let (failure, ()) = tokio::join!(connection.idle(), serving);
    assert_eq!((failure.stage, failure.cause.name()), (Stage::Idle, "anomaly"));
}

/// A server that sends and never reads: acknowledgements to it cannot be written, so reading from it must stop.
#[tokio::test(start_paused = true)]
async fn a_server_that_only_sends_does_not_grow_our_memory() {
    let (connection, mut peer) = pair(2000).await;
    let reply = publish(CREATED, b"1", 7);
    let serving = async {
        peer.receive().await;
        peer.send(reply.clone()).await;
        peer
    };
    let (outcome, peer) = tokio::join!(create(connection), serving);
    let mut connection = outcome.unwrap().1;
    let (mut sink, _unread) = peer.ws.split();
    let flood = async {
        let many = Bytes::from(reply.repeat(300));
        while sink.send(Message::Binary(many.clone())).await.is_ok() {}
    };
    let failure = tokio::select! {
        failure = connection.idle() => failure,
        () = flood => panic!("the flood ended"),
    };
    assert!(matches!(failure.cause, Cause::Garbled { .. } | Cause::Closed { .. }), "{failure}");
    assert!(connection.0.session.pending_output() <= 3 * OUTPUT_HIGH);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_says_disconnect_and_close_and_does_not_wait_for_ever() {
    let (connection, mut peer) = pair(1000).await;
    let start = Instant::now();
    let before = peer.writes.load(Ordering::Relaxed);
    let serving = async {
        assert_eq!(&peer.receive().await[..], b"\xe0\x00");
        assert!(matches!(peer.ws.next().await, Some(Ok(Message::Close(_)))));
        peer
    };
    let ((), peer) = tokio::join!(connection.close(), serving);
    assert_eq!(peer.writes.load(Ordering::Relaxed) - before, 1);
    assert!(start.elapsed() <= GOODBYE);

    let (connection, _peer) = pair(1000).await;
    let start = Instant::now();
    connection.close().await;
    assert!(start.elapsed() <= GOODBYE + Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_reply_keeps_its_verdict_and_its_bytes() {
    let (connection, mut peer) = pair(1000).await;
    let serving = async {
        peer.receive().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        peer.send(publish("$aws/certificates/create/json/rejected", b"{\"statusCode\":429}", 7)).await;
    };
    let (outcome, ()) = tokio::join!(create(connection), serving);
    let reply = outcome.unwrap().0;
    assert_eq!((reply.verdict, &reply.payload[..]), (Verdict::Rejected, &b"{\"statusCode\":429}"[..]));
    assert_eq!((reply.service.as_secs(), reply.redelivered), (3, 0));
}
