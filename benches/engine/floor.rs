//! The barest client that does the exchanges: it sends prepared packets and waits for a PUBLISH, whatever is in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::{Load, packets};

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

/// Takes all devices of `load` through both exchanges.
pub(crate) async fn run(address: SocketAddr, ca: &[u8], load: Load) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).expect("the server's own certificate");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let left = Arc::new(AtomicI64::new(load.devices as i64));
    let mut workers = JoinSet::new();
    for _ in 0..load.connections {
        let (connector, left) = (connector.clone(), left.clone());
        workers.spawn(async move {
            let mut socket = open(address, connector).await;
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                exchange(&mut socket, &CREATE).await;
                exchange(&mut socket, &REGISTER).await;
            }
            socket.close(None).await.expect("it is open");
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no worker fails");
    }
}

/// The acknowledgement of the reply before goes with each request, in one write.
static CREATE: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| after_ack(packets::create_request()));
static REGISTER: std::sync::LazyLock<Bytes> =
    std::sync::LazyLock::new(|| after_ack(packets::register_request()));

fn after_ack(request: Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&packets::puback(1)[..]);
    bytes.extend_from_slice(&request);
    bytes.freeze()
}

async fn open(address: SocketAddr, connector: TlsConnector) -> Socket {
    let tcp = TcpStream::connect(address).await.expect("the server listens");
    tcp.set_nodelay(true).expect("a TCP option");
    let name = ServerName::from(address.ip());
    let tls = connector.connect(name, tcp).await.expect("the server's certificate is trusted");
    let mut request = format!("wss://{address}/mqtt").into_client_request().expect("a valid URL");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().expect("a valid header"));
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(1 << 18)
        .max_write_buffer_size(1 << 20);
    let upgraded = tokio_tungstenite::client_async_with_config(request, tls, Some(config)).await;
    let (mut socket, _) = upgraded.expect("the server upgrades");
    send(&mut socket, packets::connect()).await;
    receive(&mut socket, 2).await;
    send(&mut socket, packets::subscribe()).await;
    receive(&mut socket, 9).await;
    socket
}

async fn exchange(socket: &mut Socket, request: &Bytes) {
    send(socket, request.clone()).await;
    receive(socket, 3).await;
}

async fn send(socket: &mut Socket, packet: Bytes) {
    socket.send(Message::Binary(packet)).await.expect("the server takes it");
}

/// Waits for a packet of `kind`.
async fn receive(socket: &mut Socket, kind: u8) {
    loop {
        let message = socket.next().await.expect("an answer").expect("an answer");
        if message.into_data().first().is_some_and(|first| first >> 4 == kind) {
            return;
        }
    }
}
