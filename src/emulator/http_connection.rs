//! The HTTP side of a connection: one request after another, and the upgrade to MQTT.
//!
//! Owns the WebSocket handshake (RFC 6455 section 4.2), the response to a refused one, and the dispatch to the control
//! plane. Knows nothing of MQTT.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::account::Principal;
use super::control;
use super::fault::Fate;
use super::http::{Head, NoBody, NoHead, Response, http_date, read_body, read_head, wait_for_request};
use super::mqtt_connection::{self, CLOSE_WITHIN, WRITE_WITHIN};
use super::mqtt_stream::MqttStream;
use super::scenario::{Fault, FaultTarget, reason};
use super::service::Service;
use super::socket::Socket;
use super::uuid::random_uuid;
use super::verify::{Refusal, SignedRequest, claimed_access_key, verify};

/// The path of MQTT over WebSockets.
const MQTT_PATH: &str = "/mqtt";
/// The subprotocols that the service answers with; MQTT 3.1.1 clients offer either.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// The longest handshake key. RFC 6455 asks for 16 bytes, but version 1 of AWS's SDK for Python sends 128, which the
/// service accepts.
const MAX_NONCE: usize = 128;
/// The largest WebSocket message, bytes. A message may hold several packets, each at most a little over 128 KiB.
const MAX_MESSAGE: usize = 512 * 1024;
/// The size of each of a WebSocket's two buffers, bytes. The library's default of 128 KiB would take most of a
/// connection's memory.
const SOCKET_BUFFER: usize = 4096;

/// The outcome of a request on this port.
enum Answered {
    /// Send this response and keep the connection open for the next request.
    KeepOpen(Response),
    /// Send this response and close the connection.
    Close(Response),
    /// Close the connection without a response, because nothing may be disclosed.
    Hang,
    /// Send 101, and continue with MQTT for the owner of this access key.
    Upgrade(Response, String),
}

/// Serves one TLS connection from its first byte to its end.
pub(super) async fn serve<S>(service: Arc<Service>, mut stream: S)
where
    S: Socket,
{
    let mut buffer = BytesMut::new();
    // Every way out of `converse` other than an upgrade ends the connection, and so does the emulator's stop.
    let stop = service.stop.clone();
    let upgraded = stop.run_until_cancelled(converse(&service, &mut stream, &mut buffer)).await;
    let Some(Some(access_key_id)) = upgraded else {
        let _ = tokio::time::timeout(CLOSE_WITHIN, stream.shutdown()).await;
        return;
    };
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = SOCKET_BUFFER;
    config.write_buffer_size = SOCKET_BUFFER;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let early = buffer.to_vec();
    drop(buffer);
    let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await;
    mqtt_connection::serve(service, MqttStream::WebSocket(socket), Principal::Signer(access_key_id)).await;
}

/// Answers requests until the connection ends or is upgraded. Returns the access key that signed the upgrade.
async fn converse<S: Socket>(service: &Service, stream: &mut S, buffer: &mut BytesMut) -> Option<String> {
    loop {
        let answered = match read_head(stream, buffer).await {
            Ok(head) => answer(service, &head, stream, buffer).await,
            Err(NoHead::Ended) => return None,
            Err(wrong) => {
                service.counts.not_upgrades.add();
                Answered::Close(explain(wrong))
            }
        };
        let response = match &answered {
            Answered::KeepOpen(response) | Answered::Close(response) | Answered::Upgrade(response, _) => {
                response
            }
            Answered::Hang => return None,
        };
        let sent = async {
            stream.write_all(&response.to_bytes()).await?;
            stream.flush().await
        };
        let Ok(Ok(())) = tokio::time::timeout(WRITE_WITHIN, sent).await else { return None };
        match answered {
            Answered::KeepOpen(_) if wait_for_request(stream, buffer).await => {}
            Answered::Upgrade(_, access_key_id) => return Some(access_key_id),
            _ => return None,
        }
    }
}

fn explain(wrong: NoHead) -> Response {
    let status = match wrong {
        NoHead::TooSlow => "408 Request Timeout",
        NoHead::TooLarge => "431 Request Header Fields Too Large",
        NoHead::Ended | NoHead::Malformed => "400 Bad Request",
    };
    Response::closing(status, &wrong.to_string())
}

/// The answer to a request, by its path.
async fn answer<S: Socket>(
    service: &Service,
    head: &Head,
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Answered {
    let is_upgrade = head.path() == MQTT_PATH;
    let fate = service.fate(if is_upgrade { FaultTarget::Upgrade } else { FaultTarget::ControlPlane });
    let now = match befall(&fate).await {
        Ok(now) => now,
        Err(answered) => return answered,
    };
    if is_upgrade {
        return upgrade(service, head, now);
    }
    let body = match receive_body(head, stream, buffer).await {
        Ok(body) => body,
        Err(NoBody::Ended) => return Answered::Hang,
        Err(wrong) => return Answered::Close(explain_no_body(wrong)),
    };
    let Some(mut response) = control::respond(service, head, &body, now).await else {
        return Answered::Hang;
    };
    if head.lists("connection", "close") {
        response.headers.push(("connection", String::from("close")));
        return Answered::Close(response);
    }
    Answered::KeepOpen(response)
}

/// Applies a scenario's fault to a request. Returns the service's time if the request goes on.
async fn befall(fate: &Fate) -> Result<SystemTime, Answered> {
    if !fate.delay.is_zero() {
        sleep(fate.delay).await;
    }
    match fate.fault {
        Some(Fault::HangUp(_)) => Err(Answered::Hang),
        Some(Fault::HttpStatus(status)) => {
            Err(Answered::Close(Response::closing(reason(status), "A fault of the scenario.")))
        }
        Some(Fault::ClockSkew(seconds)) => {
            let skew = Duration::from_secs(seconds.unsigned_abs());
            let now = SystemTime::now();
            Ok(if seconds < 0 { now.checked_sub(skew) } else { now.checked_add(skew) }.unwrap_or(now))
        }
        _ => Ok(SystemTime::now()),
    }
}

async fn receive_body<S: Socket>(
    head: &Head,
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<BytesMut, NoBody> {
    let length = head.body_length()?;
    if length > 0 && head.lists("expect", "100-continue") {
        let sent = async {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await
        };
        match tokio::time::timeout(WRITE_WITHIN, sent).await {
            Ok(Ok(())) => {}
            _ => return Err(NoBody::Ended),
        }
    }
    read_body(stream, buffer, length).await
}

fn explain_no_body(wrong: NoBody) -> Response {
    let status = match wrong {
        NoBody::TooSlow => "408 Request Timeout",
        NoBody::TooLarge => "413 Content Too Large",
        NoBody::NoLength => "411 Length Required",
        NoBody::Ended | NoBody::Malformed => "400 Bad Request",
    };
    Response::closing(status, &wrong.to_string())
}

fn upgrade(service: &Service, head: &Head, now: SystemTime) -> Answered {
    let key = match check_upgrade(head) {
        Ok(key) => key,
        Err(response) => {
            service.counts.not_upgrades.add();
            return Answered::Close(response);
        }
    };
    let request = SignedRequest { method: &head.method, target: &head.target, headers: &head.headers };
    if let Err(refusal) = verify(&request, &service.realm(&request), now) {
        tracing::debug!(%refusal, "upgrade refused");
        service.counts.forbidden.add();
        return Answered::KeepOpen(forbidden(&refusal, now));
    }
    service.counts.upgraded.add();
    let mut headers = vec![
        ("upgrade", String::from("websocket")),
        ("connection", String::from("upgrade")),
        ("sec-websocket-accept", derive_accept_key(key.as_bytes())),
        ("date", http_date(now)),
    ];
    let offered = head.tokens("sec-websocket-protocol").find(|offered| SUBPROTOCOLS.contains(offered));
    headers.extend(offered.map(|subprotocol| ("sec-websocket-protocol", subprotocol.to_owned())));
    let response = Response { status: "101 Switching Protocols", headers, body: String::new() };
    Answered::Upgrade(response, claimed_access_key(&request).unwrap_or_default())
}

/// The handshake's key, if the request is a valid WebSocket handshake.
fn check_upgrade(head: &Head) -> Result<&str, Response> {
    if head.method != "GET" || head.has_body() {
        return Err(Response::closing("400 Bad Request", "A WebSocket upgrade is a GET without a body."));
    }
    if !head.lists("upgrade", "websocket") || !head.lists("connection", "upgrade") {
        return Err(upgrade_required("This path speaks WebSockets only."));
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(upgrade_required("Only version 13 of the WebSocket protocol is spoken here."));
    }
    let key = head.header("sec-websocket-key").unwrap_or_default();
    match BASE64_STANDARD.decode(key) {
        Ok(nonce) if (16..=MAX_NONCE).contains(&nonce.len()) => Ok(key),
        _ => Err(Response::closing("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64.")),
    }
}

fn upgrade_required(message: &str) -> Response {
    let mut response = Response::closing("426 Upgrade Required", message);
    response.headers.push(("upgrade", String::from("websocket")));
    response.headers.push(("sec-websocket-version", String::from("13")));
    response
}

/// The service's response to a signature that it refuses: headers in the order in which they were captured, the body
/// reconstructed from three captured lengths.
fn forbidden(refusal: &Refusal, now: SystemTime) -> Response {
    let body = format!(r#"{{"message":{},"traceId":"{}"}}"#, json_text(&refusal.message()), random_uuid());
    let expose = |name: &str| ("access-control-expose-headers", name.to_owned());
    let headers = vec![
        ("content-type", String::from("application/json")),
        ("content-length", body.len().to_string()),
        ("date", http_date(now)),
        ("x-amzn-RequestId", random_uuid()),
        ("connection", String::from("keep-alive")),
        ("x-amzn-ErrorType", String::from("ForbiddenException:")),
        ("access-control-allow-origin", String::from("*")),
        expose("x-amzn-ErrorMessage"),
        expose("x-amzn-RequestId"),
        expose("x-amzn-ErrorType"),
        expose("Date"),
    ];
    Response { status: "403 Forbidden", headers, body }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, headers: &[(&str, &str)]) -> Head {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Head { method: method.to_owned(), target: String::from("/mqtt"), headers }
    }

    const HANDSHAKE: [(&str, &str); 4] = [
        ("Upgrade", "WebSocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn a_handshake_is_told_from_other_requests() {
        assert_eq!(check_upgrade(&head("GET", &HANDSHAKE)), Ok("dGhlIHNhbXBsZSBub25jZQ=="));
        let status = |method: &str, without: &str, with: &[(&str, &str)]| {
            let kept = HANDSHAKE.into_iter().filter(|(name, _)| *name != without).chain(with.iter().copied());
            check_upgrade(&head(method, &kept.collect::<Vec<_>>())).unwrap_err().status
        };
        assert_eq!(status("POST", "", &[]), "400 Bad Request");
        assert_eq!(status("GET", "", &[("Content-Length", "3")]), "400 Bad Request");
        assert_eq!(status("GET", "Upgrade", &[]), "426 Upgrade Required");
        assert_eq!(status("GET", "Connection", &[]), "426 Upgrade Required");
        assert_eq!(
            status("GET", "Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "8")]),
            "426 Upgrade Required"
        );
        assert_eq!(status("GET", "Sec-WebSocket-Key", &[]), "400 Bad Request");
        assert_eq!(
            status("GET", "Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "c2hvcnQ=")]),
            "400 Bad Request"
        );
    }

    #[test]
    fn a_403_has_the_captured_headers_and_lengths() {
        let date = || String::from("20251123T234432Z");
        let mismatch = Refusal::SignatureMismatch(super::super::verify::Suspicion::Nothing);
        let early = Refusal::NotYetCurrent { signed: date(), latest: date(), now: date() };
        let late = Refusal::Expired { signed: date(), earliest: date(), now: date() };
        for (refusal, length) in [(mismatch, 241), (early, 171), (late, 163)] {
            let response = forbidden(&refusal, SystemTime::UNIX_EPOCH);
            assert_eq!(response.body.len(), length, "{}", response.body);
            let names: Vec<_> = response.headers.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                names[..7],
                [
                    "content-type",
                    "content-length",
                    "date",
                    "x-amzn-RequestId",
                    "connection",
                    "x-amzn-ErrorType",
                    "access-control-allow-origin"
                ]
            );
            assert_eq!(response.headers[1].1, length.to_string());
            assert_eq!(response.headers[5].1, "ForbiddenException:");
            let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
            assert_eq!(body["message"], refusal.message());
            assert_eq!(body["traceId"].as_str().unwrap().len(), 36);
        }
    }
}
