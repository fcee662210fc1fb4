//! How many full flows a second the emulator sustains: CreateKeysAndCertificate, then RegisterThing of a new device with the token
//! that came, over TLS and signed WebSockets; and what CPU time each takes, the emulator's and this client's.
//!
//! The client is the barest that can do it, so that the emulator is what bounds it: it reads no more of an answer than the token,
//! and each connection has several devices under way. Both ends share the machine.
//!
//! `cargo bench --bench emulator [-- FLOWS [CONNECTIONS [AT_A_TIME]]]`. Linux only: it reads /proc.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use fleetmint::certificate::Secret;
use fleetmint::endpoint::Endpoint;
use fleetmint::provisioning::{self, Topics};
use fleetmint::sigv4::{Credentials, Signer};
use futures::{SinkExt, StreamExt};
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, Publish, Subscribe, SubscribeFilter};
use rumqttc::mqttbytes::{Protocol, QoS};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// No packet of the emulator is longer.
const LONGEST: usize = 128 * 1024;
/// What comes before the token in an answer.
const TOKEN: &[u8] = b"\"certificateOwnershipToken\":\"";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number =
        |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (flows, connections, at_a_time) = (number(0, 40_000), number(1, 30), number(2, 4));
    let emulator = Emulator::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    println!("{flows} flows, {connections} connections with {at_a_time} devices under way on each");
    println!("{:>8}  {:>14}  {:>12}", "flows/s", "emulator's CPU", "client's CPU");
    for round in 0..3 {
        let (began, ours, theirs) = (Instant::now(), cpu_time("self"), emulator.cpu_time());
        runtime.block_on(all(&emulator, Flows { round, flows, connections, at_a_time }));
        let each = |time: Duration| time.as_secs_f64() * 1e6 / flows as f64;
        let wall = began.elapsed();
        println!(
            "{:>8.0}  {:>11.0} us  {:>9.0} us",
            flows as f64 / wall.as_secs_f64(),
            each(emulator.cpu_time() - theirs),
            each(cpu_time("self") - ours)
        );
    }
}

/// What a round does.
#[derive(Clone, Copy)]
struct Flows {
    round: u64,
    flows: u64,
    connections: u64,
    at_a_time: u64,
}

async fn all(emulator: &Emulator, plan: Flows) {
    let taken = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        let (socket, topics) = (emulator.open().await, emulator.topics());
        connections.spawn(Flow { socket, topics, taken: taken.clone(), plan, out: BytesMut::new() }.run());
    }
    let done: u64 = connections.join_all().await.into_iter().sum();
    assert_eq!(done, plan.flows, "every device is registered");
}

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

/// One connection, and its share of the devices.
struct Flow {
    socket: Socket,
    topics: Topics,
    taken: Arc<AtomicU64>,
    plan: Flows,
    /// What goes out with the next write.
    out: BytesMut,
}

impl Flow {
    /// Takes devices until none is left; returns how many were registered.
    async fn run(mut self) -> u64 {
        let (mut under_way, mut registered) = (0, 0);
        while under_way < self.plan.at_a_time && self.create() {
            under_way += 1;
        }
        let mut received = BytesMut::new();
        while under_way > 0 {
            let out = self.out.split().freeze();
            self.socket.send(Message::Binary(out)).await.expect("the emulator takes it");
            // What has come besides is answered in the same write.
            let mut message = self.socket.next().await;
            while let Some(came) = message {
                received.extend_from_slice(&came.expect("an answer").into_data());
                message = futures::FutureExt::now_or_never(self.socket.next()).flatten();
            }
            while let Ok(packet) = Packet::read(&mut received, LONGEST) {
                let Packet::Publish(publish) = packet else { continue };
                PubAck::new(publish.pkid).write(&mut self.out).expect("it is short");
                if publish.topic == self.topics.create.accepted {
                    self.register(&publish.payload);
                } else {
                    assert_eq!(publish.topic, self.topics.register.accepted, "{:?}", publish.payload);
                    registered += 1;
                    under_way -= u64::from(!self.create());
                }
            }
        }
        self.socket.close(None).await.expect("it is open");
        registered
    }

    /// Requests a certificate for the next device, if there is one.
    fn create(&mut self) -> bool {
        let is_left = self.taken.fetch_add(1, Ordering::Relaxed) < self.plan.flows;
        if is_left {
            let payload = provisioning::create_request().payload;
            publish(&mut self.out, &self.topics.create.request, payload);
        }
        is_left
    }

    fn register(&mut self, issued: &[u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let at =
            issued.windows(TOKEN.len()).position(|window| window == TOKEN).expect("a token") + TOKEN.len();
        let length = issued[at..].iter().position(|byte| *byte == b'"').expect("the token ends");
        let token = str::from_utf8(&issued[at..at + length]).expect("it is text").to_owned();
        let key = format!("B{}-{:08}", self.plan.round, NEXT.fetch_add(1, Ordering::Relaxed));
        let parameters =
            [("DeviceId", key.as_str()), ("SerialNumber", &key), ("MacAddress", "02:00:00:00:00:01")];
        let payload = provisioning::register_request(&Secret::new(token), parameters).payload;
        publish(&mut self.out, &self.topics.register.request, payload);
    }
}

fn publish(out: &mut BytesMut, topic: &str, payload: Bytes) {
    let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload);
    publish.pkid = 1;
    publish.write(out).expect("a packet of this size can be written");
}

/// The other side, a process of its own that ends with this.
struct Emulator {
    process: Child,
    ready: serde_json::Value,
}

impl Emulator {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fleetmint"))
            .args(["emulate", "--listen", "127.0.0.1:0", "--scenario", "load"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator can be started");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut line).expect("the emulator says where it is");
        Self { process, ready: serde_json::from_str(&line).expect("a line of JSON") }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    fn topics(&self) -> Topics {
        Topics::new(self.text("template"))
    }

    /// A connection that is subscribed to all answers.
    async fn open(&self) -> Socket {
        let endpoint: Endpoint = self.text("endpoint").parse().expect("an endpoint");
        let credentials = Credentials {
            access_key_id: self.text("access_key_id").to_owned(),
            secret_access_key: Secret::new(self.text("secret_access_key").to_owned()),
            session_token: None,
        };
        let host = endpoint.host_header();
        let target = Signer::new(self.text("region"))
            .presign(&credentials, &host, endpoint.path(), SystemTime::now(), None)
            .expect("these credentials sign");
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.text("ca_file")).expect("the emulator's CA");
        roots.add(ca).expect("the emulator's CA");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let address = SocketAddr::from(([127, 0, 0, 1], endpoint.port()));
        let tcp = TcpStream::connect(address).await.expect("the emulator listens");
        tcp.set_nodelay(true).expect("a TCP option");
        let name = ServerName::try_from(endpoint.host().to_owned()).expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
        let url = format!("wss://{host}{}", target.expose());
        let mut request = url.into_client_request().expect("a valid URL");
        request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().expect("a valid header"));
        let (socket, _) = tokio_tungstenite::client_async(request, tls).await.expect("the emulator upgrades");
        self.subscribed(socket).await
    }

    async fn subscribed(&self, mut socket: Socket) -> Socket {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let topics = self.topics();
        let connect = Connect {
            protocol: Protocol::V4,
            keep_alive: 60,
            client_id: format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            clean_session: true,
            last_will: None,
            login: None,
        };
        let paths = [
            topics.create.accepted,
            topics.create.rejected,
            topics.register.accepted,
            topics.register.rejected,
        ];
        let filter = |path| SubscribeFilter { path, qos: QoS::AtLeastOnce };
        let subscribe = Subscribe { pkid: 1, filters: paths.into_iter().map(filter).collect() };
        let mut out = BytesMut::new();
        connect.write(&mut out).expect("it is short");
        subscribe.write(&mut out).expect("it is short");
        socket.send(Message::Binary(out.freeze())).await.expect("the emulator takes it");
        let mut received = BytesMut::new();
        loop {
            match Packet::read(&mut received, LONGEST) {
                Ok(Packet::SubAck(_)) => return socket,
                Ok(_) => {}
                Err(_) => {
                    let message = socket.next().await.expect("an answer").expect("an answer");
                    received.extend_from_slice(&message.into_data());
                }
            }
        }
    }

    fn cpu_time(&self) -> Duration {
        cpu_time(&self.process.id().to_string())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a process has used of the processors so far, user and system, all its threads.
fn cpu_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in brackets");
    let ticks =
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    // USER_HZ, which is 100 on every architecture that Rust's Linux has.
    Duration::from_millis(10 * ticks.sum::<u64>())
}
