//! A minimal HTTP/1.1: reads bounded request heads and writes whole responses.
//!
//! Owns the syntax and its limits. Knows neither paths nor signatures.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// The largest request head, bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// The largest request body, bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a connection may idle between two requests.
pub(super) const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// How long a head may take to arrive, and how long a body may take.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
/// The date format of RFC 9110 section 5.6.7.
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// A request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The method.
    pub(super) method: String,
    /// The target as in the request line.
    pub(super) target: String,
    /// The headers in order, with names in the case they were received in.
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The target's path, without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first header of that name, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(str::trim)
    }

    /// Whether a header with this name lists `token`, in any case.
    pub(super) fn lists(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|listed| listed.eq_ignore_ascii_case(token))
    }

    /// The tokens of all headers with this name.
    pub(super) fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
        let texts = named.filter_map(|(_, value)| std::str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    /// Whether a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.header("transfer-encoding").is_some()
            || self.header("content-length").is_some_and(|length| length != "0")
    }
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoBody {
    /// The peer closed the connection, or it broke.
    #[error("the connection ended")]
    Ended,
    /// The body took too long.
    #[error("no whole request body within 10 s")]
    TooSlow,
    /// The body is larger than [`MAX_BODY`].
    #[error("a request body of more than 64 KiB")]
    TooLarge,
    /// The body is chunked, which no client of the control plane sends.
    #[error("a request body without Content-Length")]
    NoLength,
    /// `Content-Length` is not a number, or is given several times.
    #[error("a Content-Length that is not a number")]
    Malformed,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoHead {
    /// The peer closed the connection, or it broke.
    #[error("the connection ended")]
    Ended,
    /// The head took too long.
    #[error("no whole request head within 10 s")]
    TooSlow,
    /// The head is larger than [`MAX_HEAD`], or has more headers than any client sends.
    #[error("a request head of more than 16 KiB or 64 headers")]
    TooLarge,
    /// The head is not HTTP/1.1.
    #[error("not an HTTP/1.1 request")]
    Malformed,
}

/// Reads the next head through `buffer`, which keeps any bytes that came after it.
pub(super) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Head, NoHead> {
    match timeout(HEAD_WITHIN, read_until_blank_line(stream, buffer)).await {
        Ok(head) => parse(&head?),
        Err(_) => Err(NoHead::TooSlow),
    }
}

async fn read_until_blank_line(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<BytesMut, NoHead> {
    let mut searched = 0_usize;
    loop {
        if let Some(end) = head_end(&buffer[searched..]) {
            return Ok(buffer.split_to(searched + end));
        }
        // Garbage is rejected at its first byte, not after the time for a head.
        if buffer.first().is_some_and(|first| !first.is_ascii_uppercase()) {
            return Err(NoHead::Malformed);
        }
        searched = buffer.len().saturating_sub(2);
        let room = MAX_HEAD.saturating_sub(buffer.len());
        if room == 0 {
            return Err(NoHead::TooLarge);
        }
        buffer.reserve(room.min(2048));
        match stream.read_buf(&mut (&mut *buffer).limit(room)).await {
            Ok(0) | Err(_) => return Err(NoHead::Ended),
            Ok(_) => {}
        }
    }
}

/// Where the head ends: after the first empty line. Lines may end in a bare LF (RFC 9112 section 2.2). This must agree
/// with the parser; otherwise what follows could be read as part of the head.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line_feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    line_feeds.find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

fn parse(bytes: &[u8]) -> Result<Head, NoHead> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::TooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(NoHead::Malformed),
    }
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version) else {
        return Err(NoHead::Malformed);
    };
    Ok(Head {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: request
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.to_vec()))
            .collect(),
    })
}

impl Head {
    /// The length of the body, bytes.
    pub(super) fn body_length(&self) -> Result<usize, NoBody> {
        if self.header("transfer-encoding").is_some() {
            return Err(NoBody::NoLength);
        }
        let mut lengths = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let Some((_, length)) = lengths.next() else { return Ok(0) };
        // Several lengths, or a sign, would allow request smuggling (RFC 9112 section 6.3).
        let digits = length.trim_ascii();
        if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(NoBody::Malformed);
        }
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        length.filter(|length| *length <= MAX_BODY).ok_or(NoBody::TooLarge)
    }
}

/// Reads a body of `length` bytes through `buffer`, which keeps any bytes that came after it.
pub(super) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    length: usize,
) -> Result<BytesMut, NoBody> {
    let read = async {
        while buffer.len() < length {
            let room = length - buffer.len();
            buffer.reserve(room.min(8192));
            match stream.read_buf(&mut (&mut *buffer).limit(room)).await {
                Ok(0) | Err(_) => return Err(NoBody::Ended),
                Ok(_) => {}
            }
        }
        Ok(buffer.split_to(length))
    };
    timeout(HEAD_WITHIN, read).await.unwrap_or(Err(NoBody::TooSlow))
}

/// Waits for the next request to begin. Returns false if none does in time.
pub(super) async fn wait_for_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> bool {
    if !buffer.is_empty() {
        return true;
    }
    buffer.reserve(2048);
    matches!(timeout(IDLE_WITHIN, stream.read_buf(buffer)).await, Ok(Ok(1..)))
}

/// A complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    /// Status code and reason, as in `403 Forbidden`.
    pub(super) status: &'static str,
    /// The headers in order.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body. Its length must be among the headers.
    pub(super) body: String,
}

impl Response {
    /// A response with `message` in a JSON body, after which the connection closes.
    pub(super) fn closing(status: &'static str, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        let headers = vec![
            ("content-type", String::from("application/json")),
            ("content-length", body.len().to_string()),
            ("connection", String::from("close")),
        ];
        Self { status, headers, body }
    }

    /// The response as it goes on the wire.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.headers {
            out.extend([name, ": ", value.as_str(), "\r\n"]);
        }
        out.push_str("\r\n");
        out.push_str(&self.body);
        out.into_bytes()
    }
}

/// `now` in the format of a `date` header.
pub(super) fn http_date(now: SystemTime) -> String {
    OffsetDateTime::from(now).format(HTTP_DATE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Result<Head, NoHead>, BytesMut) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut buffer = BytesMut::new();
        let head = runtime.block_on(read_head(&mut &bytes[..], &mut buffer));
        (head, buffer)
    }

    #[test]
    fn a_head_is_read_as_it_came_and_what_follows_stays() {
        let (head, rest) =
            read(b"GET /mqtt?a=%2f HTTP/1.1\r\nHoSt:  x:1 \r\nConnection: keep-alive, Upgrade\r\n\r\nnext");
        let head = head.unwrap();
        assert_eq!(
            (head.method.as_str(), head.path(), head.target.as_str()),
            ("GET", "/mqtt", "/mqtt?a=%2f")
        );
        assert_eq!(head.headers[0].0, "HoSt");
        assert_eq!(head.header("host"), Some("x:1"));
        assert!(head.lists("connection", "upgrade") && !head.lists("connection", "close"));
        assert!(!head.has_body());
        assert_eq!(&rest[..], b"next");
    }

    #[test]
    fn a_head_over_16_kib_is_refused_and_one_of_16_kib_is_not() {
        let head = |size: usize| {
            let frame = b"GET / HTTP/1.1\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(size - frame)).into_bytes()
        };
        assert!(read(&head(MAX_HEAD)).0.is_ok());
        assert_eq!(read(&head(MAX_HEAD + 1)).0, Err(NoHead::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(65));
        assert_eq!(read(many.as_bytes()).0, Err(NoHead::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_as_long_as_it_says_and_no_longer_than_allowed() {
        let length = |headers: &str| {
            let (head, _) = read(format!("PUT / HTTP/1.1\r\n{headers}\r\n").as_bytes());
            head.unwrap().body_length()
        };
        tokio::task::spawn_blocking(move || {
            assert_eq!(length(""), Ok(0));
            assert_eq!(length("content-length: 5\r\n"), Ok(5));
            assert_eq!(length("Content-Length: 65536\r\n"), Ok(65536));
            assert_eq!(length("Content-Length: 65537\r\n"), Err(NoBody::TooLarge));
            assert_eq!(length("Content-Length: 99999999999999999999999\r\n"), Err(NoBody::TooLarge));
            assert_eq!(length("Content-Length: +5\r\n"), Err(NoBody::Malformed));
            assert_eq!(length("Content-Length: 5\r\nContent-Length: 6\r\n"), Err(NoBody::Malformed));
            assert_eq!(length("Transfer-Encoding: chunked\r\n"), Err(NoBody::NoLength));
        })
        .await
        .unwrap();
        let mut buffer = BytesMut::from("ab");
        let mut rest = &b"cdeGET"[..];
        assert_eq!(read_body(&mut rest, &mut buffer, 5).await.unwrap(), "abcde");
        assert_eq!((&buffer[..], rest), (&b""[..], &b"GET"[..]), "not a byte too many is taken");
        assert_eq!(read_body(&mut &b"ab"[..], &mut BytesMut::new(), 3).await, Err(NoBody::Ended));
        let (_client, mut server) = tokio::io::duplex(64);
        assert_eq!(read_body(&mut server, &mut BytesMut::new(), 1).await, Err(NoBody::TooSlow));
    }

    #[test]
    fn a_head_of_lines_that_end_in_lf_alone_swallows_nothing() {
        for ends in ["\n\n", "\r\n\n", "\n\r\n"] {
            let (head, rest) =
                read(format!("GET / HTTP/1.1\r\nHost: x{ends}GET /next HTTP/1.1\r\n\r\n").as_bytes());
            assert_eq!(head.unwrap().headers.len(), 1, "{ends:?}");
            assert!(rest.starts_with(b"GET /next"), "{ends:?}: {rest:?}");
        }
    }

    #[test]
    fn garbage_is_told_at_once_and_half_a_head_when_it_ends() {
        assert_eq!(read(b"\x16\x03\x01").0, Err(NoHead::Malformed));
        assert_eq!(read(b"GET nonsense\r\n\r\n").0, Err(NoHead::Malformed));
        assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n").0, Err(NoHead::Malformed));
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost").0, Err(NoHead::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_given_up() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HT").await.unwrap();
        let started = tokio::time::Instant::now();
        assert_eq!(read_head(&mut server, &mut BytesMut::new()).await, Err(NoHead::TooSlow));
        assert_eq!(started.elapsed(), HEAD_WITHIN);
    }

    #[test]
    fn a_date_is_one_that_http_knows() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(http_date(now), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn random_heads_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header in "[ -~\r\n]{0,100}") {
            let _ = read(&bytes);
            let _ = read(format!("GET / HTTP/1.1\r\n{header}\r\n\r\n").as_bytes());
        }
    }
}
