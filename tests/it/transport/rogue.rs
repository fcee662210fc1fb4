//! A server that does what it is told, right or wrong: TLS, HTTP, WebSocket and MQTT written by hand, byte by byte. Shares
//! no code with the crate, so that a misunderstanding cannot hide on both sides.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use fleetmint::endpoint::Endpoint;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::server::TlsStream;

pub(super) const CREATED: &str = "$aws/certificates/create/json/accepted";
pub(super) const NOT_CREATED: &str = "$aws/certificates/create/json/rejected";
pub(super) const REGISTERED: &str = "$aws/provisioning-templates/TEMP_DEVICE/provision/json/accepted";

/// A server for one connection, and what it takes to reach it.
pub(super) struct Rogue<T> {
    pub(super) endpoint: Endpoint,
    pub(super) ca_pem: String,
    /// What its script returned.
    pub(super) script: JoinHandle<T>,
}

/// Starts a server whose one connection, after TLS, is handled by `script`.
pub(super) async fn start<T, F>(script: impl FnOnce(Peer) -> F + Send + 'static) -> Rogue<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    start_for("localhost", script).await
}

/// The same, with a certificate for `name`.
pub(super) async fn start_for<T, F>(name: &str, script: impl FnOnce(Peer) -> F + Send + 'static) -> Rogue<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let (config, ca_pem) = identity(name);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let script = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        script(Peer::accept(TlsAcceptor::from(config), tcp).await).await
    });
    Rogue { endpoint, ca_pem, script }
}

/// A TLS identity for `name`, and the authority that vouches for it, PEM.
pub(super) fn identity(name: &str) -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let private_key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private_key)
        .unwrap();
    (Arc::new(config), ca.pem())
}

/// The server's end of the connection.
pub(super) struct Peer {
    stream: TlsStream<TcpStream>,
    /// Received and not yet unpacked from WebSocket frames.
    frames: Vec<u8>,
    /// Unpacked and not yet cut into MQTT packets.
    packets: Vec<u8>,
}

impl Peer {
    /// The server's end, once the client has shaken hands.
    pub(super) async fn accept(tls: TlsAcceptor, tcp: TcpStream) -> Self {
        let stream = tls.accept(tcp).await.expect("the client shakes hands");
        Self { stream, frames: Vec::new(), packets: Vec::new() }
    }

    /// Reads the upgrade request: request line and header lines.
    pub(super) async fn request(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.stream.read_u8().await.expect("a whole request"));
        }
        String::from_utf8(text).unwrap().trim_end().split("\r\n").map(str::to_owned).collect()
    }

    /// Whether the client resumed an earlier TLS session.
    pub(super) fn was_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends bytes as they are.
    pub(super) async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends bytes as they are, as long as the client is there.
    pub(super) async fn try_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The 101 that answers `request`.
    pub(super) fn switching(request: &[String]) -> String {
        const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let key = request.iter().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
        let accept = base64::engine::general_purpose::STANDARD.encode(hash);
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\nsec-websocket-protocol: mqtt\r\n\r\n"
        )
    }

    /// Up to and with the upgrade.
    pub(super) async fn upgraded(mut self) -> Self {
        let request = self.request().await;
        self.raw(Self::switching(&request)).await;
        self
    }

    /// Up to and with CONNACK.
    pub(super) async fn connected(self) -> Self {
        let mut peer = self.upgraded().await;
        assert_eq!(peer.packet().await[0], 0x10, "CONNECT");
        peer.mqtt(b"\x20\x02\x00\x00").await;
        peer
    }

    /// Up to and with SUBACK.
    pub(super) async fn open(self) -> Self {
        let mut peer = self.connected().await;
        let subscribe = peer.packet().await;
        assert_eq!(subscribe[0], 0x82, "SUBSCRIBE");
        let id = &subscribe[header_length(&subscribe)..][..2];
        peer.mqtt([0x90, 6, id[0], id[1], 1, 1, 1, 1]).await;
        peer
    }

    /// Sends one unmasked frame.
    pub(super) async fn frame(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.raw(frame(opcode, payload.as_ref())).await;
    }

    /// Sends MQTT bytes in one binary frame.
    pub(super) async fn mqtt(&mut self, bytes: impl AsRef<[u8]>) {
        self.frame(2, bytes).await;
    }

    /// Reads the next frame: opcode and payload, unmasked.
    pub(super) async fn next_frame(&mut self) -> (u8, Vec<u8>) {
        let [first, second] = self.take().await;
        assert_eq!(second & 0x80, 0x80, "clients mask");
        let length = match second & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.take().await)),
            127 => usize::try_from(u64::from_be_bytes(self.take().await)).unwrap(),
            short => usize::from(short),
        };
        let mask: [u8; 4] = self.take().await;
        self.fill(length).await;
        let payload =
            self.frames.drain(..length).zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
        (first & 0x0f, payload.collect())
    }

    /// Reads the next MQTT packet.
    pub(super) async fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = packet_length(&self.packets) {
                return self.packets.drain(..length).collect();
            }
            let (opcode, payload) = self.next_frame().await;
            assert_eq!(opcode, 2, "a binary frame");
            self.packets.extend(payload);
        }
    }

    /// Reads a request: its packet id and payload. Acknowledgements before it are skipped.
    pub(super) async fn publish(&mut self) -> (u16, Vec<u8>) {
        loop {
            let packet = self.packet().await;
            if packet[0] == 0x32 {
                let body = &packet[header_length(&packet)..];
                let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                return (u16::from_be_bytes([body[id], body[id + 1]]), body[id + 2..].to_vec());
            }
            assert_eq!(packet[0], 0x40, "PUBACK or PUBLISH");
        }
    }

    /// Stays, and reads, until the client has gone.
    pub(super) async fn until_gone(&mut self) {
        let mut scrap = [0; 1024];
        while matches!(self.stream.read(&mut scrap).await, Ok(1..)) {}
    }

    /// Sends bytes beneath TLS.
    pub(super) async fn beneath_tls(&mut self, bytes: &[u8]) {
        self.stream.get_mut().0.write_all(bytes).await.unwrap();
    }

    /// Stays and reads nothing more: what the client sends piles up until its system takes no more.
    pub(super) async fn ignore(self) {
        std::future::pending::<()>().await;
    }

    /// Says goodbye to TLS, and nothing to anyone above it.
    pub(super) async fn close_notify(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Closes with a TCP reset.
    pub(super) fn reset(self) {
        self.stream.get_ref().0.set_zero_linger().unwrap();
    }

    /// Closes the TCP connection without TLS's or anyone's goodbye.
    pub(super) fn hang_up(self) {
        drop(self);
    }

    async fn take<const N: usize>(&mut self) -> [u8; N] {
        self.fill(N).await;
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(self.frames.drain(..N)) {
            *to = from;
        }
        bytes
    }

    async fn fill(&mut self, length: usize) {
        while self.frames.len() < length {
            assert!(self.stream.read_buf(&mut self.frames).await.unwrap() > 0, "the client hung up");
        }
    }
}

/// One unmasked frame.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => bytes.push(u8::try_from(length).unwrap()),
        length @ 126..65536 => {
            bytes.push(126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// PUBLISH at QoS 1.
pub(super) fn publish(topic: &str, payload: &str, id: u16) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(payload.as_bytes());
    packet(0x32, &body)
}

/// PUBLISH at QoS 0.
pub(super) fn publish_qos_0(topic: &str, payload: &str) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(payload.as_bytes());
    packet(0x30, &body)
}

pub(super) fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let (digit, more) = (u8::try_from(rest % 128).unwrap(), rest / 128);
        bytes.push(if more > 0 { digit | 0x80 } else { digit });
        rest = more;
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Type, flags and remaining length.
fn header_length(packet: &[u8]) -> usize {
    2 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count()
}

/// The length of the packet at the start of `bytes`, if all of it is there.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (index, byte) in bytes.iter().skip(1).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let length = 2 + index + remaining;
            return (bytes.len() >= length).then_some(length);
        }
    }
    None
}
