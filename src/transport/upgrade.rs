//! The HTTP/1.1 upgrade to a WebSocket (RFC 6455 section 4.1), by hand.
//!
//! The request's `Host` must be the one that was signed. The whole answer is read: a refusal's headers and body give
//! the reason, and its `date` shows whether this machine's clock is wrong.

use std::time::{Duration, SystemTime};

use httparse::{EMPTY_HEADER, Response, Status};
use time::PrimitiveDateTime;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use zeroize::Zeroizing;

use super::link::broken;
use super::packet::garbled;
use crate::certificate::Secret;
use crate::failure::Cause;
use crate::wording::clean;

/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// How much of a refusal's body is read, in bytes.
const MAX_BODY: usize = 16 * 1024;

/// How many header fields an answer may have.
const MAX_FIELDS: usize = 64;

/// How long reading a refusal's body may take: its status, known by then, matters more.
const BODY_TIME: Duration = Duration::from_secs(2);

/// The MQTT subprotocol (MQTT 3.1.1 section 6).
const SUBPROTOCOL: &str = "mqtt";

/// Upgrades `stream`. Returns the bytes that the server sent after its answer: the first of the WebSocket.
///
/// # Errors
/// [`Cause::UpgradeRefused`] for any status but 101, [`Cause::Garbled`] for an answer that is not HTTP or a 101 that
/// does not match this request, [`Cause::Closed`] if the connection ended.
pub(super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host_header: &str,
    target: &Secret<String>,
) -> Result<Vec<u8>, Cause> {
    let key = generate_key();
    let request = request(host_header, target, &key);
    stream.write_all(&request).await.map_err(|error| broken(&error))?;
    stream.flush().await.map_err(|error| broken(&error))?;
    let mut bytes = Vec::with_capacity(1024);
    let head = read_head(stream, &mut bytes).await?;
    if head.status == 101 {
        head.check(&key)?;
        return Ok(bytes);
    }
    // The status is worth reporting even if the body comes late or not at all.
    let _ = timeout(BODY_TIME, read_body(stream, &head, &mut bytes)).await;
    Err(head.refusal(&bytes, SystemTime::now()))
}

fn request(host_header: &str, target: &Secret<String>, key: &str) -> Zeroizing<Vec<u8>> {
    let mut request = Zeroizing::new(Vec::with_capacity(target.expose().len() + host_header.len() + 320));
    for part in [
        "GET ",
        target.expose(),
        " HTTP/1.1\r\nHost: ",
        host_header,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        key,
        "\r\nSec-WebSocket-Protocol: ",
        SUBPROTOCOL,
        concat!("\r\nUser-Agent: fleetmint/", env!("CARGO_PKG_VERSION"), "\r\n\r\n"),
    ] {
        request.extend_from_slice(part.as_bytes());
    }
    request
}

/// The relevant parts of an answer's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
}

/// Reads up to the end of the head and removes it from `bytes`.
pub(super) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> Result<Head, Cause> {
    loop {
        if let Some((head, length)) = parse_head(bytes)? {
            bytes.drain(..length);
            // Interim answers, such as 103 Early Hints, precede the final one (RFC 9110 section 15.2).
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
            continue;
        }
        if bytes.len() >= MAX_HEAD {
            return Err(garbled(format!(
                "the answer to the upgrade has no end of its head in {MAX_HEAD} bytes"
            )));
        }
        if stream.read_buf(bytes).await.map_err(|error| broken(&error))? == 0 {
            return Err(Cause::Closed { detail: String::from("the server hung up instead of answering") });
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Cause> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut response = Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete(length)) => {
            let field = |field: &httparse::Header<'_>| {
                (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).trim().to_owned())
            };
            let status = response.code.expect("a complete response has a status");
            Ok(Some((Head { status, fields: response.headers.iter().map(field).collect() }, length)))
        }
        Err(error) => Err(garbled(format!("the answer to the upgrade is not HTTP/1.1: {error}"))),
    }
}

/// Reads a body to its end or to [`MAX_BODY`]. If this is dropped midway, what was read stays in `bytes`.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, head: &Head, bytes: &mut Vec<u8>) {
    let length = head.field("content-length").and_then(|length| length.parse().ok());
    let wanted = length.unwrap_or(MAX_BODY).min(MAX_BODY);
    while bytes.len() < wanted && !(head.is_chunked() && bytes.ends_with(b"\r\n0\r\n\r\n")) {
        match stream.read_buf(bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    bytes.truncate(wanted);
}

impl Head {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a list field contains `token`, ignoring case.
    fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.fields.iter().filter(|(known, _)| known == name);
        values.flat_map(|(_, value)| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    fn is_chunked(&self) -> bool {
        self.lists("transfer-encoding", "chunked")
    }

    /// Checks that a 101 answers the request that carried `key` (RFC 6455 section 4.1, the numbered checks).
    ///
    /// A server that names no subprotocol is assumed to speak MQTT, which its CONNACK will show; naming another is an
    /// error.
    fn check(&self, key: &str) -> Result<(), Cause> {
        let wrong = |what: &str| Err(garbled(format!("the answer is 101, but {what}")));
        if !self.lists("upgrade", "websocket") {
            return wrong("its Upgrade header is not websocket");
        }
        if !self.lists("connection", "upgrade") {
            return wrong("its Connection header is not Upgrade");
        }
        if self.field("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
            return wrong("its Sec-WebSocket-Accept is missing or not the one for our key");
        }
        if self.field("sec-websocket-extensions").is_some_and(|extensions| !extensions.is_empty()) {
            return wrong("it uses a WebSocket extension that was not offered");
        }
        match self.field("sec-websocket-protocol") {
            None | Some(SUBPROTOCOL) => Ok(()),
            Some(other) => {
                let other: String = clean(other).chars().take(40).collect();
                wrong(&format!("its subprotocol is {other:?}, not mqtt"))
            }
        }
    }

    fn refusal(&self, body: &[u8], now: SystemTime) -> Cause {
        let body = if self.is_chunked() { unchunked(body) } else { body.to_vec() };
        // AWS ends the type with a colon, which a URL may follow.
        let kind = self.field("x-amzn-errortype").and_then(|kind| kind.split(':').next()).unwrap_or_default();
        let words = match message_of(&body) {
            words if words.is_empty() => self.field("x-amzn-errormessage").unwrap_or_default().to_owned(),
            words => words,
        };
        let message = match (kind.is_empty(), words.is_empty()) {
            (false, false) => format!("{kind}: {words}"),
            _ => format!("{kind}{words}"),
        };
        let skew_s = self.field("date").and_then(|date| skew(date, now));
        Cause::UpgradeRefused { status: self.status, message: clean(&message), skew_s }
    }
}

/// The `message` of a JSON body, or else the body itself.
fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        #[serde(alias = "Message")]
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { message }) => message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

/// The data of a chunked body, which may be incomplete (RFC 9112 section 7.1).
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Ok(Status::Complete((start, length))) = httparse::parse_chunk_size(bytes) {
        let rest = &bytes[start..];
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        if length == 0 {
            break;
        }
        data.extend_from_slice(&rest[..length]);
        let after = &rest[length..];
        bytes = after.strip_prefix(b"\r\n").unwrap_or(after);
    }
    data
}

/// Our clock minus the server's, in seconds; `None` if `date` is not in the one format that servers must send
/// (IMF-fixdate, RFC 9110 section 5.6.7).
fn skew(date: &str, now: SystemTime) -> Option<i64> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let server = PrimitiveDateTime::parse(date, format).ok()?.assume_utc().unix_timestamp();
    let ours = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    i64::try_from(ours).ok()?.checked_sub(server)
}

/// Runs everything that handles an answer.
#[cfg(all(any(test, fuzzing), feature = "emulator"))]
pub(super) fn fuzz(head: &Head, body: &[u8], now: SystemTime) {
    let _ = head.check("dGhlIHNhbXBsZSBub25jZQ==");
    let Cause::UpgradeRefused { message, .. } = head.refusal(body, now) else {
        unreachable!("a refusal is one")
    };
    assert_eq!(message, clean(&message), "it is shown as it is");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Headers captured from the service; the body matches its content-length of 241.
    const REFUSAL: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 241\r\n\
        date: Sun, 23 Nov 2025 23:44:32 GMT\r\nx-amzn-RequestId: 1\r\nconnection: keep-alive\r\n\
        x-amzn-ErrorType: ForbiddenException:\r\naccess-control-allow-origin: *\r\n\r\n";

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes()).unwrap().unwrap().0
    }

    fn at(unix: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix)
    }

    #[test]
    fn a_refusal_tells_its_type_its_message_and_the_skew() {
        let body = br#"{"message":"Signature expired: a is now earlier than b","traceId":"x"}"#;
        assert_eq!(
            head(REFUSAL).refusal(body, at(1_763_941_472 + 600)),
            Cause::UpgradeRefused {
                status: 403,
                message: String::from("ForbiddenException: Signature expired: a is now earlier than b"),
                skew_s: Some(600),
            }
        );
    }

    #[test]
    fn refusals_of_other_servers_are_told_as_well() {
        let chunked = "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\nDate: yesterday\r\n\r\n";
        for (text, body, message) in [
            (chunked, &b"5\r\nwent \r\n5;x\r\nwrong\r\n0\r\n\r\n"[..], "went wrong"),
            (chunked, b"ff\r\ncut sho", "cut sho"),
            ("HTTP/1.1 426 Upgrade Required\r\n\r\n", b"", ""),
            ("HTTP/1.1 404 x\r\nx-amzn-ErrorMessage: no such thing\r\n\r\n", b"", "no such thing"),
            ("HTTP/1.0 503 Busy\r\n\r\n", b"<h1>\xff\r\n</h1>", "<h1>\u{fffd}  </h1>"),
        ] {
            let head = head(text);
            let Cause::UpgradeRefused { message: told, skew_s, .. } = head.refusal(body, at(0)) else {
                panic!()
            };
            assert_eq!((told.as_str(), skew_s), (message, None));
        }
    }

    #[test]
    fn a_body_that_repeats_the_url_gives_nothing_away() {
        let body = b"Cannot GET /mqtt?X-Amz-Signature=0123abcd&X-Amz-Security-Token=IQoJb3";
        let told = format!("{:?}", head("HTTP/1.1 404 x\r\n\r\n").refusal(body, at(0)));
        assert!(
            told.contains("Cannot GET") && !told.contains("0123abcd") && !told.contains("IQoJ"),
            "{told}"
        );
    }

    #[test]
    fn a_101_is_checked() {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
        assert_eq!(head(GOOD).check(KEY), Ok(()), "the key and accept of RFC 6455 section 1.3");
        assert_eq!(head(&GOOD.replace("Sec-WebSocket-Protocol: mqtt\r\n", "")).check(KEY), Ok(()));
        let wrong = |(from, to)| match head(&GOOD.replace(from, to)).check(KEY) {
            Err(Cause::Garbled { detail }) => detail,
            other => panic!("{to}: {other:?}"),
        };
        let said = [
            ("Upgrade: WebSocket", "Upgrade: h2c"),
            ("keep-alive, upgrade", "close"),
            ("s3pP", "S3PP"),
            ("Sec-WebSocket-Accept", "Accept"),
            ("l: mqtt", "l: wamp"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ]
        .map(wrong);
        assert_eq!(
            said,
            [
                "the answer is 101, but its Upgrade header is not websocket",
                "the answer is 101, but its Connection header is not Upgrade",
                "the answer is 101, but its Sec-WebSocket-Accept is missing or not the one for our key",
                "the answer is 101, but its Sec-WebSocket-Accept is missing or not the one for our key",
                "the answer is 101, but its subprotocol is \"wamp\", not mqtt",
                "the answer is 101, but it uses a WebSocket extension that was not offered"
            ]
        );
    }

    #[tokio::test]
    async fn heads_are_bounded_and_interim_answers_skipped() {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs
            .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 x\r\n\r\nearly")
            .await
            .unwrap();
        let mut bytes = Vec::new();
        assert_eq!(read_head(&mut ours, &mut bytes).await.unwrap().status, 101);
        assert_eq!(bytes, b"early");

        theirs.write_all(format!("HTTP/1.1 200 x\r\nA: {}", "x".repeat(MAX_HEAD)).as_bytes()).await.unwrap();
        let Err(Cause::Garbled { detail }) = read_head(&mut ours, &mut Vec::new()).await else { panic!() };
        assert_eq!(detail, "the answer to the upgrade has no end of its head in 16384 bytes");
    }

    #[test]
    fn the_request_names_the_host_that_was_signed() {
        let target = Secret::new(String::from("/mqtt?X-Amz-Signature=1"));
        let request = request("localhost:8443", &target, "a2V5");
        let text = std::str::from_utf8(&request).unwrap();
        assert!(text.starts_with(
            "GET /mqtt?X-Amz-Signature=1 HTTP/1.1\r\nHost: localhost:8443\r\nUpgrade: websocket\r\n"
        ));
        assert!(text.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n") && text.ends_with("\r\n\r\n"));
        assert_eq!(
            request.capacity(),
            target.expose().len() + "localhost:8443".len() + 320,
            "it did not grow"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_answer_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), like_http in any::<bool>()) {
            if like_http { bytes.splice(0..0, *b"HTTP/1.1 403 x\r\n\r\n"); }
            if let Ok(Some((head, length))) = parse_head(&bytes) {
                let _ = head.refusal(&bytes[length..], at(0));
            }
            let _ = unchunked(&bytes);
        }
    }
}
