//! Devices and claims on mutual TLS: MQTT without WebSockets, and a certificate of the account in place of a signature.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use fleetmint::emulator::account::Minted;
use fleetmint::emulator::{Emulator, EmulatorPlan};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, SubscribeReasonCode};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::control::perform;

/// How a device dials.
#[derive(Clone, Copy)]
struct Dial<'a> {
    address: SocketAddr,
    alpn: Option<&'a str>,
    /// The host that it names in SNI, which an address cannot be.
    host: &'a str,
}

struct Device {
    stream: TlsStream<TcpStream>,
    packets: BytesMut,
}

impl Device {
    /// Shakes hands; `None` if the server does not want it, which with TLS 1.3 shows only at the first read.
    async fn dial(emulator: &Emulator, dial: Dial<'_>, certificate: &str, key: &str) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = dial.alpn.map(|alpn| alpn.as_bytes().to_vec()).into_iter().collect();
        let tcp = TcpStream::connect(dial.address).await.unwrap();
        let name = ServerName::try_from(dial.host.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
        Some(Self { stream, packets: BytesMut::new() })
    }

    /// What the server says to a CONNECT; `None` if it hangs up.
    async fn connect(&mut self, client_id: &str) -> Option<Packet> {
        self.send(&connect(client_id)).await;
        self.next().await
    }

    async fn send(&mut self, packet: &Packet) {
        let _ = self.stream.write_all(&encode(packet)).await;
        let _ = self.stream.flush().await;
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.packets, 1 << 20) {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.packets)).await.expect("no hang");
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    async fn request(&mut self, topic: &str, payload: &Value) -> (String, Value) {
        self.send(&publish(topic, QoS::AtLeastOnce, payload.to_string().into_bytes())).await;
        assert_eq!(self.next().await, Some(Packet::PubAck(PubAck::new(9))));
        let Some(Packet::Publish(reply)) = self.next().await else { panic!("no reply") };
        self.send(&Packet::PubAck(PubAck::new(reply.pkid))).await;
        (reply.topic, serde_json::from_slice(&reply.payload).unwrap())
    }
}

fn accepted() -> Packet {
    Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))
}

/// The two ways in: a port of its own, and the port of WebSockets with ALPN.
fn ways(emulator: &Emulator) -> [Dial<'static>; 2] {
    [
        Dial { address: emulator.mqtt_addr(), alpn: None, host: "localhost" },
        Dial { address: emulator.local_addr(), alpn: Some("x-amzn-mqtt-ca"), host: "localhost" },
    ]
}

#[tokio::test]
async fn a_claim_provisions_a_device_and_the_device_connects_until_it_is_deactivated() {
    let emulator = start(scenario()).await;
    let claim: Minted = emulator.issue_claim().await;
    for (way, name) in ways(&emulator).into_iter().zip(["DEV_1", "DEV_2"]) {
        let (certificate, key) = (&claim.certificate_pem, claim.private_key_pem.expose());
        let mut device = Device::dial(&emulator, way, certificate, key).await.unwrap();
        assert_eq!(device.connect(name).await, Some(accepted()));
        let (topic, issued) = device.request(CREATE, &json!({})).await;
        assert_eq!(topic, format!("{CREATE}/accepted"));
        let token = &issued["certificateOwnershipToken"];
        let (topic, registered) = device.request(REGISTER, &registration(token, name)).await;
        assert_eq!((topic, &registered["thingName"]), (format!("{REGISTER}/accepted"), &json!(name)));

        let pem = |field: &str| issued[field].as_str().unwrap().to_owned();
        let (certificate, key) = (pem("certificatePem"), pem("privateKey"));
        let mut own = Device::dial(&emulator, way, &certificate, &key).await.unwrap();
        assert_eq!(own.connect(&format!("{name}-own")).await, Some(accepted()));
        own.send(&subscribe(&["dt/x"], QoS::AtMostOnce)).await;
        assert!(matches!(own.next().await, Some(Packet::SubAck(_))));
        own.send(&publish("dt/x", QoS::AtMostOnce, b"hello".to_vec())).await;
        assert!(matches!(own.next().await, Some(Packet::Publish(_))));
        // The control plane deactivates it, and the connection ends; nor does it come in again.
        let id = issued["certificateId"].as_str().unwrap();
        let target = format!("/certificates/{id}?newStatus=INACTIVE");
        assert_eq!(perform(&emulator, "PUT", &target).await.0, "200");
        assert_eq!(own.next().await, None);
        let again = Device::dial(&emulator, way, &certificate, &key).await;
        let connected = match again {
            Some(mut again) => again.connect("again").await,
            None => None,
        };
        assert_eq!(connected, None);
    }
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_claim_may_provision_and_nothing_else() {
    let emulator = start(scenario()).await;
    let claim = emulator.issue_claim().await;
    for topic in ["dt/x", "$aws/certificates/create/json/accepted"] {
        let [way, _] = ways(&emulator);
        let mut device = Device::dial(&emulator, way, &claim.certificate_pem, claim.private_key_pem.expose())
            .await
            .unwrap();
        assert_eq!(device.connect("claim").await, Some(accepted()));
        device.send(&subscribe(&[topic], QoS::AtMostOnce)).await;
        match device.next().await {
            Some(Packet::SubAck(ack)) => {
                assert!(topic.starts_with('$'));
                assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(QoS::AtMostOnce)]);
            }
            other => assert_eq!((other, topic), (None, "dt/x"), "a denied SUBSCRIBE ends the connection"),
        }
    }
    assert_eq!(emulator.counters().violations, 1);
    emulator.shutdown().await;
}

#[tokio::test]
async fn strangers_and_devices_that_name_no_host_are_turned_away() {
    let emulator = start(scenario()).await;
    let other = start(scenario()).await;
    let stranger = other.issue_claim().await;
    let claim = emulator.issue_claim().await;
    for way in ways(&emulator) {
        let nameless = Dial { host: "127.0.0.1", ..way };
        for (dial, minted) in [(way, &stranger), (nameless, &claim)] {
            let key = minted.private_key_pem.expose();
            let connected = match Device::dial(&emulator, dial, &minted.certificate_pem, key).await {
                Some(mut device) => device.connect("x").await,
                None => None,
            };
            assert_eq!(connected, None);
        }
    }
    assert_eq!(emulator.counters().tls_failed, 4);
    // Whoever signs may dial an address, as before.
    Client::connected(&emulator, "signer").await;
    emulator.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn the_certificate_is_for_the_hosts_of_the_service_and_for_more_names() {
    let plan = EmulatorPlan {
        scenario: scenario(),
        names: vec![String::from("broker.example")],
        advertise: Some(String::from("emulator")),
        ..EmulatorPlan::default()
    };
    let emulator = Emulator::launch(plan).await.unwrap();
    let claim = emulator.issue_claim().await;
    let way = Dial { address: emulator.mqtt_addr(), alpn: Some("mqtt"), host: "" };
    for host in [
        "a1-ats.iot.us-east-1.amazonaws.com",
        "a.iot.us-east-1.amazonaws.com.cn",
        "broker.example",
        "emulator",
    ] {
        let dial = Dial { host, ..way };
        let key = claim.private_key_pem.expose();
        let mut device = Device::dial(&emulator, dial, &claim.certificate_pem, key).await.expect(host);
        assert_eq!(device.connect("x").await, Some(accepted()), "{host}");
    }
    assert!(emulator.endpoint().starts_with("wss://emulator:"), "{}", emulator.endpoint());
    emulator.shutdown().await;
}
