//! Whoever's policy forbids one topic, or whose template refuses every device, spends a certificate on each try: the run
//! stops after the first few, and says what was seen. The server is ours, byte by byte, and counts for itself.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::rogue::{self, Peer, puback, publish};
use crate::harness::{Scratch, column, fleetmint};

const CREATE: &str = "$aws/certificates/create/json";
const REGISTER: &str = "$aws/provisioning-templates/TEMP_DEVICE/provision/json";

/// What the server does about a registration, given how many it has seen before.
type Answer = fn(u64) -> Option<serde_json::Value>;

struct Server {
    endpoint: String,
    ca_pem: String,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Requests to the control plane, which is not there.
    asked: AtomicU64,
    dials: AtomicU64,
    issued: AtomicU64,
    registrations: AtomicU64,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Issues what is asked for, unless publishing to `barred` ends the connection; `answer` decides about registrations: none
/// ends the connection too.
async fn serve(barred: &'static str, answer: Answer) -> Server {
    serve_with(barred, certificate, answer).await
}

/// As [`serve`], with another answer to requests for a certificate.
async fn serve_with(barred: &'static str, issue: fn() -> serde_json::Value, answer: Answer) -> Server {
    let (config, ca_pem) = rogue::identity("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("wss://localhost:{}/mqtt", listener.local_addr().unwrap().port());
    let seen = Arc::new(Seen::default());
    let ours = seen.clone();
    let serving = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, seen) = (TlsAcceptor::from(config.clone()), ours.clone());
            tokio::spawn(async move {
                let peer = Peer::accept(tls, tcp).await;
                connection(peer, &seen, barred, issue, answer).await;
            });
        }
    });
    Server { endpoint, ca_pem, seen, serving }
}

async fn connection(
    mut peer: Peer,
    seen: &Seen,
    barred: &str,
    issue: fn() -> serde_json::Value,
    answer: Answer,
) {
    let request = peer.request().await;
    if !request[0].contains(" /mqtt?") {
        // The control plane is asked for the template; there is none.
        seen.asked.fetch_add(1, Ordering::Relaxed);
        peer.raw("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        return;
    }
    seen.dials.fetch_add(1, Ordering::Relaxed);
    peer.raw(Peer::switching(&request)).await;
    let mut id = 0_u16;
    loop {
        let packet = peer.packet().await;
        match packet[0] {
            0x10 => peer.mqtt(b"\x20\x02\x00\x00").await,
            0x82 => {
                let body = &packet[2 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count()..];
                peer.mqtt([0x90, 6, body[0], body[1], 1, 1, 1, 1]).await;
            }
            0x32 => {
                let body = &packet[2 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count()..];
                let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                let asked = u16::from_be_bytes([body[end], body[end + 1]]);
                if topic == barred {
                    return peer.hang_up();
                }
                id += 1;
                let (end, reply) = if topic == CREATE {
                    seen.issued.fetch_add(1, Ordering::Relaxed);
                    ("accepted", issue())
                } else {
                    match answer(seen.registrations.fetch_add(1, Ordering::Relaxed)) {
                        None => return peer.hang_up(),
                        Some(reply) if reply.get("statusCode").is_some() => ("rejected", reply),
                        Some(reply) => ("accepted", reply),
                    }
                };
                let reply = publish(&format!("{topic}/{end}"), &reply.to_string(), id);
                peer.mqtt([puback(asked), reply].concat()).await;
            }
            0xc0 => peer.mqtt(b"\xd0\x00").await,
            0xe0 => return,
            _ => {}
        }
    }
}

/// A certificate, its key and its id, with a token.
fn certificate() -> serde_json::Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let id: String =
        digest(&SHA256, certificate.der()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "certificateId": id,
        "certificatePem": certificate.pem(),
        "privateKey": key.serialize_pem(),
        "certificateOwnershipToken": format!("token-{id}"),
    })
}

fn rejection(message: &str) -> serde_json::Value {
    json!({"statusCode": 400, "errorCode": "InvalidParameters", "errorMessage": message})
}

/// Provisions a lot of that many devices, and says how it ended, and what it said.
async fn provision(
    server: &Server,
    scratch: &Scratch,
    devices: usize,
    args: &[&str],
) -> (Option<i32>, String) {
    let lot = scratch.lot("lot.csv", devices);
    let ca_file = scratch.write("ca.pem", &server.ca_pem);
    let mut command: Command = fleetmint();
    command
        .arg("provision")
        .arg(lot)
        .args(["--endpoint", &server.endpoint, "--region", "us-east-1", "--template", "TEMP_DEVICE"])
        .arg("--ca-file")
        .arg(ca_file)
        .args(args)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let Output { status, stderr, .. } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn issued(server: &Server) -> u64 {
    server.seen.issued.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_forbids_a_topic_costs_a_few_certificates_whatever_the_lot_s_size() {
    for (devices, connections) in [(1, "1"), (12, "12"), (12, "3"), (300, "20")] {
        let (scratch, server) = (Scratch::new(), serve(REGISTER, |_| None).await);
        let (code, said) = provision(&server, &scratch, devices, &["--connections", connections]).await;
        assert_eq!(code, Some(4), "{devices} devices: {said}");
        for words in [REGISTER, "possible cause", "iot:Publish", "times the connection ended"] {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        let most: u64 = connections.parse::<u64>().unwrap() + 12;
        assert!(issued(&server) <= most, "{devices} devices: {} certificates", issued(&server));
        let dials = server.seen.dials.load(Ordering::Relaxed);
        assert!(dials <= 5 * most, "{devices} devices: {dials} dials");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_forbids_the_first_topic_is_told_by_that_topic() {
    let (scratch, server) = (Scratch::new(), serve(CREATE, |_| None).await);
    let (code, said) = provision(&server, &scratch, 40, &["--connections", "4"]).await;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("(topic {CREATE})")), "{said}");
    assert_eq!(issued(&server), 0);
}

/// A node that restarts at the wrong moment ends connections too, and is no reason to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_hang_ups_at_the_start_are_survived() {
    let answer: Answer = |seen| (seen >= 5).then(|| json!({"thingName": format!("T{seen}")}));
    let (scratch, server) = (Scratch::new(), serve("", answer).await);
    let (code, said) = provision(&server, &scratch, 20, &["--connections", "5"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(issued(&server), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rejection_for_every_device_ends_the_run() {
    for (devices, connections, most) in [(300, 2, 12), (300, 8, 24), (12, 4, 12), (13, 13, 13)] {
        let (scratch, server) =
            (Scratch::new(), serve("", |_| Some(rejection("no thing group FLEET"))).await);
        let (code, said) =
            provision(&server, &scratch, devices, &["--connections", &connections.to_string()]).await;
        assert_eq!(code, Some(4), "{devices} devices: {said}");
        assert!(said.contains("no thing group FLEET") && said.contains(REGISTER), "{said}");
        assert!(issued(&server) <= most + connections, "{devices}: {} certificates", issued(&server));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_of_a_few_devices_or_each_for_its_own_reason_are_results() {
    let (scratch, server) = (Scratch::new(), serve("", |_| Some(rejection("no thing group FLEET"))).await);
    let (code, said) = provision(&server, &scratch, 5, &["--connections", "2"]).await;
    assert_eq!(code, Some(3), "{said}");
    let each: Answer = |seen| Some(rejection(&format!("site {seen} is not one of ours")));
    let (scratch, server) = (Scratch::new(), serve("", each).await);
    let (code, said) = provision(&server, &scratch, 40, &["--connections", "2"]).await;
    assert_eq!(code, Some(3), "{said}");
    let rejected = column(&scratch.path("lot.ledger"), "SELECT id FROM device WHERE state = 'rejected'");
    assert_eq!(rejected.len(), 40);
}

/// Whoever's template has no thing: all answers are alike, and each is its own device's.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_all_alike_are_each_their_own_device_s() {
    let (scratch, server) = (Scratch::new(), serve("", |_| Some(json!({"deviceConfiguration": {}}))).await);
    let (code, said) = provision(&server, &scratch, 40, &["--connections", "2"]).await;
    assert_eq!(code, Some(0), "{said}");
    let registrations = server.seen.registrations.load(Ordering::Relaxed);
    assert_eq!((issued(&server), registrations), (40, 40), "{said}");
    let ledger = scratch.path("lot.ledger");
    assert_eq!(column(&ledger, "SELECT DISTINCT state FROM device"), ["registered"]);
    let asked = server.seen.asked.load(Ordering::Relaxed);
    assert!(asked <= 10, "an account that cannot tell the devices' things was asked {asked} times");
}

/// Whoever's endpoint is not what it seems: each senseless answer may stand for a certificate that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_cost_a_few_certificates_whatever_the_lot_s_size() {
    for connections in [1, 20] {
        let (scratch, server) = (Scratch::new(), serve_with("", || json!(["no", "object"]), |_| None).await);
        let (code, said) =
            provision(&server, &scratch, 300, &["--connections", &connections.to_string()]).await;
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("times the answer made no sense") && said.contains(CREATE), "{said}");
        assert!(issued(&server) <= connections + 12, "{} certificates", issued(&server));
        let (scratch, server) = (Scratch::new(), serve("", |_| Some(json!(["no", "object"]))).await);
        let (code, said) =
            provision(&server, &scratch, 300, &["--connections", &connections.to_string()]).await;
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("times the answer made no sense") && said.contains(REGISTER), "{said}");
        assert!(issued(&server) <= connections + 12, "{} certificates", issued(&server));
    }
}
