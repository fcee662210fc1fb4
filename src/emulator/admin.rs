//! The admin API: what a test asks of the emulator itself rather than of the account. Plain HTTP and JSON, without a
//! signature.
//!
//! Owns its paths, and its protection against web pages, which can post to loopback from any browser: a request with an
//! `Origin` is refused; a request with a body must declare it as JSON, which an HTML form cannot do; and the host must
//! be an address or a known name, which rules out pages on other names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::account::CertificateStatus;
use super::http::{Head, Response, read_body, read_head, wait_for_request};
use super::mqtt_connection::WRITE_WITHIN;
use super::scenario::Faults;
use super::service::Service;

/// How many connections may be open at once; more have to wait.
const CONNECTIONS: usize = 64;

/// Serves the admin API on `listener` until the emulator stops.
pub(super) async fn serve(service: Arc<Service>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = service.stop.cancelled() => return,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(Arc::clone(&service), stream));
                }
                Err(_) => sleep(std::time::Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(service: Arc<Service>, mut stream: TcpStream) {
    let mut buffer = BytesMut::new();
    loop {
        let Ok(head) = read_head(&mut stream, &mut buffer).await else { return };
        let response = match head.body_length() {
            Ok(length) => match read_body(&mut stream, &mut buffer, length).await {
                Ok(body) => answer(&service, &head, &body).await,
                Err(_) => return,
            },
            Err(error) => Response::closing("400 Bad Request", &error.to_string()),
        };
        let closes = response.headers.iter().any(|(name, _)| *name == "connection");
        let sent = timeout(WRITE_WITHIN, stream.write_all(&response.to_bytes())).await;
        if closes || !matches!(sent, Ok(Ok(()))) || !wait_for_request(&mut stream, &mut buffer).await {
            return;
        }
    }
}

async fn answer(service: &Service, head: &Head, body: &[u8]) -> Response {
    if let Err(refusal) = check(service, head) {
        return Response::closing("403 Forbidden", refusal);
    }
    let is_json = head.header("content-type").is_some_and(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if head.method != "GET" && !is_json {
        return Response::closing("415 Unsupported Media Type", "Wanted Content-Type: application/json.");
    }
    match (head.method.as_str(), head.path()) {
        ("GET", "/health") => reply(&json!({"status": "ok", "uptimeSeconds": service.age().as_secs_f64()})),
        ("GET", "/account") => reply(&account(service)),
        ("GET", "/counts") => reply(&counts(service)),
        ("GET", "/faults") => {
            reply(&json!({"struck": service.dice.struck(), "rules": service.dice.describe()}))
        }
        ("PUT", "/faults") => match serde_json::from_slice::<Faults>(body) {
            Ok(faults) => {
                service.dice.load(faults);
                reply(&json!({"rules": service.dice.describe()}))
            }
            Err(error) => Response::closing("400 Bad Request", &error.to_string()),
        },
        ("POST", "/reset") => match service.reset() {
            Ok(()) => reply(&json!({})),
            Err(error) => Response::closing("409 Conflict", &error.to_string()),
        },
        ("POST", "/claims") => {
            let claim = service.issue_claim().await;
            reply(&json!({
                "certificateId": claim.certificate_id,
                "certificatePem": claim.certificate_pem,
                "privateKey": claim.private_key_pem.expose(),
            }))
        }
        (_, "/health" | "/account" | "/counts" | "/faults" | "/reset" | "/claims") => {
            Response::closing("405 Method Not Allowed", "This path has other methods.")
        }
        _ => Response::closing(
            "404 Not Found",
            "There are GET /health, /account, /counts and /faults, PUT /faults, POST /reset and POST /claims.",
        ),
    }
}

/// Checks that the request does not come from a web page.
fn check(service: &Service, head: &Head) -> Result<(), &'static str> {
    if head.header("origin").is_some() {
        return Err("Requests of web pages are refused: this one has an Origin header.");
    }
    let host = head.header("host").unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let is_address =
        host.parse::<SocketAddr>().is_ok() || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address || name == "localhost" || name == service.host {
        Ok(())
    } else {
        Err("The Host header names neither an address, nor localhost, nor the advertised host.")
    }
}

fn account(service: &Service) -> Value {
    let connected = service.clients.connected();
    service.account(|account| {
        let state = account.state();
        let of =
            |status| state.certificates.values().filter(|certificate| certificate.status == status).count();
        json!({
            "connections": connected,
            "certificates": {
                "pendingActivation": of(CertificateStatus::PendingActivation),
                "active": of(CertificateStatus::Active),
                "inactive": of(CertificateStatus::Inactive),
                "revoked": of(CertificateStatus::Revoked),
            },
            "tokens": state.tokens.len(),
            "things": state.things.len(),
            "policies": state.policies.len(),
        })
    })
}

fn counts(service: &Service) -> Value {
    service.account(|account| {
        let operations = account.operation_counts().map(|(name, counts)| (name.to_owned(), json!(counts)));
        json!({
            "server": service.counts.counters(),
            "account": account.state().counters,
            "controlPlane": serde_json::Map::from_iter(operations),
        })
    })
}

fn reply(body: &Value) -> Response {
    let body = body.to_string();
    let headers = vec![
        ("content-type", String::from("application/json")),
        ("content-length", body.len().to_string()),
        ("cache-control", String::from("no-store")),
    ];
    Response { status: "200 OK", headers, body }
}
