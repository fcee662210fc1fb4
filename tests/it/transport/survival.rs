//! The engine over real sockets, against a service of which the first connections go wrong, each in its own way: every device
//! is registered on those that come after, and every failure is told by its own name.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetmint::emulator::mint::Authority;
use fleetmint::emulator::scenario::Keys;
use fleetmint::engine::{self, Connections, End, Outcome, Plan, Rates, Stop};
use fleetmint::failure::RetryPolicy;
use fleetmint::identity::{Identity, LotReader, ParameterPlan};
use fleetmint::ledger::{Binding, Ledger, LotRows};
use fleetmint::transport::wss::{WssConnector, WssSettings};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::rogue::{self, CREATED, Peer, REGISTERED, Rogue, puback, publish};
use super::{SHORT, settings};

const DEVICES: u64 = 60;

/// What happens to one connection.
enum Script {
    BeforeTls(Box<dyn FnOnce(TcpStream) -> BoxFuture<'static, ()> + Send>),
    AfterTls(Box<dyn FnOnce(Peer) -> BoxFuture<'static, ()> + Send>),
}

/// A way to go wrong, and the stage and cause that it is told as.
struct Mishap {
    stage: &'static str,
    cause: &'static str,
    script: Script,
}

/// On a connection that is open: it may be asked for anything, or not yet.
const OPEN: &str = "open";

fn mishaps() -> Vec<Mishap> {
    vec![
        // First of all, so that the run knows that the service can be reached.
        dialled(OPEN, "garbled", |peer| async {
            say(&mut peer.open().await, b"\x82\x04\x20\x02\x00\x00").await
        }),
        asked("closed", |peer| async { peer.hang_up() }),
        asked("closed", |peer| async { peer.reset() }),
        asked("garbled", |mut peer| async move { say(&mut peer, b"\x82\x05hello").await }),
        asked("garbled", |mut peer| async move { say(&mut peer, b"\x81\x02hi").await }),
        asked("garbled", |mut peer| async move {
            say(&mut peer, &rogue::frame(2, b"\xd0\x00").repeat(2_000)).await
        }),
        asked("garbled", |mut peer| async move {
            say(&mut peer, b"\x82\x7f\x00\x00\x00\x00\x10\x00\x00\x00").await
        }),
        asked("garbled", |mut peer| async move {
            peer.beneath_tls(b"\x17\x03\x03\x00\x14abcdefghijklmnopqrst").await;
            peer.until_gone().await;
        }),
        asked("no_puback", |mut peer| async move { peer.until_gone().await }),
        asked("no_puback", |mut peer| async move { say(&mut peer, b"\x82\x7e\x01").await }),
        registering("closed", |peer, _| async { peer.hang_up() }),
        registering("no_reply", |mut peer, id| async move {
            peer.mqtt(puback(id)).await;
            peer.until_gone().await;
        }),
        registering("garbled", |mut peer, id| async move {
            peer.mqtt([puback(id), publish(REGISTERED, "[]", 9)].concat()).await;
            peer.until_gone().await;
        }),
        dialled("suback", "closed", |peer| async { peer.connected().await.hang_up() }),
        dialled("connack", "timed_out", |peer| async { peer.upgraded().await.until_gone().await }),
        dialled("connack", "connect_refused", |peer| async {
            let mut peer = peer.upgraded().await;
            peer.packet().await;
            say(&mut peer, b"\x82\x04\x20\x02\x00\x03").await;
        }),
        dialled("upgrade", "upgrade_refused", |mut peer| async move {
            peer.request().await;
            say(&mut peer, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        }),
        dialled("upgrade", "garbled", |mut peer| async move {
            peer.request().await;
            say(&mut peer, b"220 mail.example\r\n").await;
        }),
        dialled("upgrade", "closed", |mut peer| async move {
            peer.request().await;
            peer.hang_up();
        }),
        accepted("closed", |mut tcp| async move {
            let _ = tcp.read(&mut [0; 4096]).await;
        }),
        accepted("tls", |mut tcp| async move {
            let _ = tcp.read(&mut [0; 4096]).await;
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }),
        accepted(
            "timed_out",
            |mut tcp| async move { while matches!(tcp.read(&mut [0; 4096]).await, Ok(1..)) {} },
        ),
    ]
}

/// Instead of TLS.
fn accepted<F>(cause: &'static str, script: impl FnOnce(TcpStream) -> F + Send + 'static) -> Mishap
where
    F: Future<Output = ()> + Send + 'static,
{
    let script = Script::BeforeTls(Box::new(move |tcp| Box::pin(script(tcp))));
    Mishap { stage: "tls", cause, script }
}

/// After TLS.
fn dialled<F>(
    stage: &'static str,
    cause: &'static str,
    script: impl FnOnce(Peer) -> F + Send + 'static,
) -> Mishap
where
    F: Future<Output = ()> + Send + 'static,
{
    Mishap { stage, cause, script: Script::AfterTls(Box::new(move |peer| Box::pin(script(peer)))) }
}

/// After the first request.
fn asked<F>(cause: &'static str, script: impl FnOnce(Peer) -> F + Send + 'static) -> Mishap
where
    F: Future<Output = ()> + Send + 'static,
{
    dialled(OPEN, cause, |peer| async {
        let mut peer = peer.open().await;
        peer.publish().await;
        script(peer).await;
    })
}

/// After the first registration.
fn registering<F>(cause: &'static str, script: impl FnOnce(Peer, u16) -> F + Send + 'static) -> Mishap
where
    F: Future<Output = ()> + Send + 'static,
{
    dialled(OPEN, cause, |peer| async {
        let mut peer = peer.open().await;
        let (id, _) = next_registration(&mut peer).await;
        script(peer, id).await;
    })
}

/// Has its say, and waits for the client to go.
async fn say(peer: &mut Peer, bytes: &[u8]) {
    let _ = peer.try_raw(bytes).await;
    peer.until_gone().await;
}

/// Answers requests as the service does, up to the next registration; its packet id and device.
async fn next_registration(peer: &mut Peer) -> (u16, String) {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::generate().unwrap());
    loop {
        let (id, payload) = peer.publish().await;
        let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        if let Some(device) = request["parameters"]["DeviceId"].as_str() {
            return (id, device.to_owned());
        }
        let minted = AUTHORITY.mint(Keys::Recycled, SystemTime::now()).unwrap();
        let reply = serde_json::json!({
            "certificateId": minted.certificate_id,
            "certificateOwnershipToken": format!("token of {}", minted.certificate_id),
            "certificatePem": minted.certificate_pem,
            "privateKey": minted.private_key_pem.expose(),
        });
        peer.mqtt([puback(id), publish(CREATED, &reply.to_string(), 7)].concat()).await;
    }
}

/// And the registrations too, for ever.
async fn answer(peer: &mut Peer) {
    loop {
        let (id, device) = next_registration(peer).await;
        let reply = serde_json::json!({ "thingName": device });
        peer.mqtt([puback(id), publish(REGISTERED, &reply.to_string(), 7)].concat()).await;
    }
}

/// Takes connections for ever: the first go wrong as they are told, the others are served.
async fn serve(listener: TcpListener, tls: TlsAcceptor, scripts: Arc<Mutex<VecDeque<Script>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let script = scripts.lock().unwrap().pop_front();
        let tls = tls.clone();
        connections.spawn(async move {
            if let Some(Script::BeforeTls(script)) = script {
                return script(tcp).await;
            }
            let peer = Peer::accept(tls, tcp).await;
            match script {
                Some(Script::AfterTls(script)) => script(peer).await,
                _ => {
                    answer(&mut peer.open().await).await;
                }
            }
        });
    }
}

#[tokio::test]
async fn the_engine_survives_whatever_a_connection_does_and_goes_on_with_the_others() {
    let (wanted, scripts): (Vec<_>, VecDeque<_>) =
        mishaps().into_iter().map(|mishap| ((mishap.stage, mishap.cause), mishap.script)).unzip();
    let scripts = Arc::new(Mutex::new(scripts));
    let (config, ca_pem) = rogue::identity("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let script = tokio::spawn(serve(listener, TlsAcceptor::from(config), scripts.clone()));
    let server = Rogue { endpoint, ca_pem, script };
    let connector = WssConnector::new(WssSettings { connect_timeout: SHORT, ..settings(&server) }).unwrap();

    let outcome = run(connector).await;
    server.script.abort();
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    assert_eq!(outcome.ledger.view().counts().unwrap().registered, DEVICES);
    assert!(scripts.lock().unwrap().is_empty(), "every mishap had its turn");
    let told: Vec<_> = outcome.metrics.failures.keys().copied().collect();
    for (stage, cause) in wanted {
        let is_it = |(told_stage, told_cause): &(&str, &str)| {
            let was_open = ["idle", "create_certificate", "register_thing"].contains(told_stage);
            *told_cause == cause && (*told_stage == stage || stage == OPEN && was_open)
        };
        assert!(told.iter().any(is_it), "{stage} {cause} is not in {told:?}");
    }
}

async fn run(connector: WssConnector) -> Outcome {
    let (ledger, parameters) = lot();
    let plan = Plan {
        connections: Connections::Fixed(4),
        rates: Rates::UNLIMITED,
        parameters,
        exchange_timeout: SHORT,
        // Every mishap may meet the same device.
        retry: RetryPolicy {
            base: Duration::from_millis(10),
            attempts: 40,
            dials: 40,
            ..RetryPolicy::default()
        },
        publishes_per_connection: None,
        seed: 1,
        ..Plan::default()
    };
    engine::run(plan, connector, ledger, Stop::never(), ()).await
}

fn lot() -> (Ledger, ParameterPlan) {
    let csv: String = (1..=DEVICES).map(|n| format!("D{n:03}\n")).collect();
    let csv = format!("DeviceId\n{csv}");
    let reader = LotReader::new(csv.as_bytes(), None).unwrap();
    let shape = reader.shape().clone();
    let parameters = ParameterPlan::new(&shape, &[]).unwrap();
    let binding = Binding {
        template: "TEMP_DEVICE".into(),
        region: "r".into(),
        account: "a".into(),
        ..Binding::default()
    };
    let rows = LotRows { source: "lot.csv", shape, rows: reader };
    let check = |_: &Identity| Ok(());
    let ledger = Ledger::in_shared_memory("survival", &binding, rows, check, UNIX_EPOCH).unwrap();
    (ledger, parameters)
}
