//! A client of the emulator, with as little as possible of anybody's library: TLS from rustls, HTTP and WebSocket frames by
//! hand, MQTT packets from rumqttc, signatures computed here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use fleetmint::emulator::Emulator;
use fleetmint::emulator::scenario::{Keys, Scenario};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
    SubscribeReasonCode,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Far more than anything here takes; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CREATE: &str = "$aws/certificates/create/json";
pub const REGISTER: &str = "$aws/provisioning-templates/TEMP_DEVICE/provision/json";

pub fn scenario() -> Scenario {
    Scenario { keys: Keys::P256, ..Scenario::default() }
}

pub async fn start(scenario: Scenario) -> Emulator {
    Emulator::start(scenario, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

/// What a client signs with.
#[derive(Clone)]
pub struct Signer {
    pub access_key_id: String,
    pub secret: String,
    pub region: String,
    pub at: SystemTime,
    pub headers: &'static str,
    pub host: String,
}

impl Signer {
    pub fn of(emulator: &Emulator) -> Self {
        let scenario = Scenario::default();
        Self {
            access_key_id: scenario.access_key_id,
            secret: scenario.secret_access_key,
            region: scenario.region,
            at: SystemTime::now(),
            headers: "host",
            host: format!("localhost:{}", emulator.local_addr().port()),
        }
    }

    /// Path and query of a signed handshake; `Connection: Upgrade` is what it says where it is signed.
    pub fn target(&self) -> String {
        let date = OffsetDateTime::from(self.at)
            .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
            .unwrap();
        let scope = format!("{}/{}/iotdevicegateway/aws4_request", &date[..8], self.region);
        let credential = format!("{}/{scope}", self.access_key_id).replace('/', "%2F");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-SignedHeaders={}",
            self.headers.replace(';', "%3B")
        );
        let connection = if self.headers == "host" { "" } else { "connection:Upgrade\n" };
        let canonical = format!(
            "GET\n/mqtt\n{query}\n{connection}host:{}\n\n{}\n{}",
            self.host,
            self.headers,
            hex(digest::digest(&digest::SHA256, b"").as_ref())
        );
        let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
        let mac =
            |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part).as_ref().to_vec();
        }
        format!("/mqtt?{query}&X-Amz-Signature={}", hex(mac(&key, &to_sign).as_ref()))
    }

    pub fn request(&self, subprotocol: &str) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
            self.target(),
            self.host
        )
    }
}

/// RFC 7468, in one line of base64 where it wants 64 columns: readers take both.
pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A TLS connection to the emulator, and what has been read from it but not looked at.
pub struct Client {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    packets: BytesMut,
    pub frame_ends: usize,
}

impl Client {
    pub async fn dial(emulator: &Emulator) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpStream::connect(emulator.local_addr()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        Self { stream, buffer: BytesMut::new(), packets: BytesMut::new(), frame_ends: 0 }
    }

    pub async fn upgraded(emulator: &Emulator) -> Self {
        Self::upgraded_by(emulator, &Signer::of(emulator)).await
    }

    pub async fn upgraded_by(emulator: &Emulator, signer: &Signer) -> Self {
        let mut client = Self::dial(emulator).await;
        let (head, _) = client.ask(&signer.request("mqtt")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    pub async fn connected(emulator: &Emulator, client_id: &str) -> Self {
        let mut client = Self::upgraded(emulator).await;
        client.send(&connect(client_id)).await;
        assert_eq!(client.packet().await, Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)));
        client
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        // What the server has closed already cannot be written to; the test sees that at its next read.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Whether more came; `false` is the end of the connection.
    pub async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("no hang");
        matches!(read, Ok(1..))
    }

    /// Sends an HTTP request; head and body of the response.
    pub async fn ask(&mut self, request: &str) -> (String, String) {
        self.write(request.as_bytes()).await;
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break String::from_utf8(self.buffer.split_to(at + 4).to_vec()).unwrap();
            }
            assert!(self.fill().await, "no response");
        };
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.fill().await, "no body");
        }
        (head, String::from_utf8(self.buffer.split_to(length).to_vec()).unwrap())
    }

    /// Sends `payload` as one masked frame of that opcode.
    pub async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.write(&frame).await;
    }

    pub async fn bytes(&mut self, payload: &[u8]) {
        self.frame(2, payload).await;
    }

    pub async fn send(&mut self, packet: &Packet) {
        self.bytes(&encode(packet)).await;
    }

    /// The next packet; `None` once the server has ended the connection.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.packets, 1 << 20) {
                return Some(packet);
            }
            let (opcode, payload) = self.read_frame().await?;
            match opcode {
                2 => self.packets.extend_from_slice(&payload),
                8 => {
                    self.frame_ends += 1;
                    return None;
                }
                other => panic!("opcode {other}"),
            }
        }
    }

    pub async fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer) {
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn packet(&mut self) -> Packet {
        self.next().await.expect("the connection goes on")
    }

    pub async fn publication(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    /// Asserts that nothing came before the answer to a ping.
    pub async fn is_quiet(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.packet().await, Packet::PingResp);
    }

    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<SubscribeReasonCode> {
        self.send(&subscribe(filters, QoS::AtLeastOnce)).await;
        match self.packet().await {
            Packet::SubAck(ack) => ack.return_codes,
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    /// Publishes a request at QoS 1: the topic and the JSON of the reply, after its PUBACK.
    pub async fn request(&mut self, topic: &str, payload: &Value) -> (String, Value) {
        self.send(&publish(topic, QoS::AtLeastOnce, payload.to_string().into_bytes())).await;
        assert_eq!(self.packet().await, Packet::PubAck(PubAck::new(9)));
        let reply = self.publication().await;
        assert_eq!((reply.qos, reply.dup, reply.retain), (QoS::AtLeastOnce, false, false));
        self.send(&Packet::PubAck(PubAck::new(reply.pkid))).await;
        (reply.topic, serde_json::from_slice(&reply.payload).unwrap())
    }

    /// Registers `device` with this token.
    pub async fn register(&mut self, token: &Value, device: &str) -> Value {
        let (topic, registered) = self.request(REGISTER, &registration(token, device)).await;
        assert_eq!(topic, format!("{REGISTER}/accepted"), "{registered}");
        registered
    }

    pub async fn provision(&mut self, device: &str) -> (Value, Value) {
        let (topic, issued) = self.request(CREATE, &json!({})).await;
        assert_eq!(topic, format!("{CREATE}/accepted"));
        let registered = self.register(&issued["certificateOwnershipToken"], device).await;
        (issued, registered)
    }
}

/// A whole frame from the server, which does not mask.
pub fn split_frame(buffer: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "final and not masked");
    let (start, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap()))),
        127 => (10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap())).unwrap()),
        length => (2, usize::from(length)),
    };
    if buffer.len() < start + length {
        return None;
    }
    let frame = buffer.split_to(start + length);
    Some((first & 0x0f, frame[start..].to_vec()))
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(other, _)| *other == name)
        .map(|(_, value)| value)
}

pub fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.to_vec()
}

pub fn connect(client_id: &str) -> Packet {
    let mut connect = Connect::new(client_id);
    connect.set_login("?SDK=Test&Version=0", "");
    Packet::Connect(connect)
}

pub fn subscribe(filters: &[&str], qos: QoS) -> Packet {
    let filters = filters.iter().map(|filter| SubscribeFilter::new((*filter).to_owned(), qos)).collect();
    Packet::Subscribe(Subscribe { pkid: 7, filters })
}

pub fn publish(topic: &str, qos: QoS, payload: Vec<u8>) -> Packet {
    let mut publish = Publish::new(topic, qos, payload);
    publish.pkid = if qos == QoS::AtMostOnce { 0 } else { 9 };
    Packet::Publish(publish)
}

pub fn registration(token: &Value, device: &str) -> Value {
    json!({
        "certificateOwnershipToken": token,
        "parameters": {
            "MacAddress": "AA:BB:CC:DD:EE:01", "DeviceId": device, "DeviceKey": "ABCDEFG", "DeviceType": "H",
            "Environment": "DEV", "SerialNumber": "123456789012", "Version": "1.0.1",
        },
    })
}
