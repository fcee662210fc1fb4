//! A tunnel through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6).

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::failure::Cause;
use crate::proxy::Proxy;
use crate::transport::upgrade::read_head;
use crate::wording::clean;

/// Asks the proxy at the other end of `stream` for a tunnel to `authority`, a host and a port. On success the stream
/// leads there.
pub(super) async fn open<S>(stream: &mut S, proxy: &Proxy, authority: &str) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |why: String| Cause::Unreachable { detail: format!("the proxy {proxy} {why}") };
    let broken = |error: std::io::Error| failed(format!("does not answer: {}", clean(&error.to_string())));
    stream.write_all(&request(proxy, authority)).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut bytes = Vec::with_capacity(512);
    let head = match read_head(stream, &mut bytes).await {
        Ok(head) => head,
        Err(Cause::Closed { .. }) => return Err(failed(String::from("hung up instead of answering"))),
        Err(Cause::Garbled { detail }) => return Err(failed(format!("did not answer in HTTP: {detail}"))),
        Err(other) => return Err(other),
    };
    match head.status {
        200..=299 if bytes.is_empty() => Ok(()),
        200..=299 => Err(failed(String::from("sent something before it was sent anything"))),
        407 if proxy.authorization.is_some() => {
            Err(failed(String::from("refuses its user and password (407 to CONNECT)")))
        }
        407 => Err(failed(String::from("wants a user and a password (407 to CONNECT)"))),
        status => Err(failed(format!("answered {status} to CONNECT {authority}"))),
    }
}

fn request(proxy: &Proxy, authority: &str) -> Zeroizing<Vec<u8>> {
    let mut request = Zeroizing::new(Vec::with_capacity(512));
    for part in ["CONNECT ", authority, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        request.extend_from_slice(part.as_bytes());
    }
    if let Some(authorization) = &proxy.authorization {
        for part in ["Proxy-Authorization: ", authorization.expose(), "\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
    }
    request.extend_from_slice(b"\r\n");
    request
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::certificate::Secret;

    fn proxy(authorization: Option<&str>) -> Proxy {
        let authorization = authorization.map(|value| Secret::new(value.to_owned()));
        Proxy { host: String::from("proxy.corp"), port: 3128, authorization }
    }

    /// The request that the proxy got, and the result of its answer.
    async fn ask(proxy: &Proxy, answer: &str) -> (String, Result<(), Cause>) {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(answer.as_bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let outcome = open(&mut ours, proxy, "iot.example:443").await;
        drop(ours);
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).await.unwrap();
        (asked, outcome)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_host_and_a_port() {
        let (asked, outcome) = ask(&proxy(None), "HTTP/1.1 200 Connection established\r\n\r\n").await;
        assert_eq!(asked, "CONNECT iot.example:443 HTTP/1.1\r\nHost: iot.example:443\r\n\r\n");
        assert_eq!(outcome, Ok(()));
        let (asked, outcome) = ask(&proxy(Some("Basic eDp5")), "HTTP/1.0 200 OK\r\nVia: squid\r\n\r\n").await;
        assert!(asked.ends_with("\r\nProxy-Authorization: Basic eDp5\r\n\r\n"), "{asked}");
        assert_eq!(outcome, Ok(()));
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_named_with_the_proxy_and_without_the_password() {
        for (authorization, answer, said) in [
            (None, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants a user and a password"),
            (Some("Basic eDp5"), "HTTP/1.1 407 No\r\n\r\n", "refuses its user and password"),
            (None, "HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403 to CONNECT iot.example:443"),
            (None, "HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502"),
            (None, "", "hung up instead of answering"),
            (None, "SSH-2.0-OpenSSH\r\n", "did not answer in HTTP"),
            (None, "HTTP/1.1 200 OK\r\n\r\nhello", "before it was sent anything"),
        ] {
            let (_, outcome) = ask(&proxy(authorization), answer).await;
            let Err(Cause::Unreachable { detail }) = outcome else { panic!("{answer:?}: {outcome:?}") };
            assert!(
                detail.starts_with("the proxy http://proxy.corp:3128 ") && detail.contains(said),
                "{detail}"
            );
            assert!(!detail.contains("eDp5"));
        }
    }
}
