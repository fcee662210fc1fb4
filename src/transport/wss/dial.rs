//! From a name to a TCP connection: looks up addresses and tries them.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;

use crate::failure::Cause;
use crate::wording::clean;

/// The head start of an address before the next is tried as well (RFC 8305 section 5), so that one dead route does
/// not use up the dial's time.
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses of `host`, which may be an address itself.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Cause> {
    let unresolvable = |detail: String| Cause::Unresolvable { detail: format!("{host}: {detail}") };
    let found = lookup_host((host, port)).await.map_err(|error| unresolvable(clean(&error.to_string())))?;
    let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        Err(unresolvable(String::from("the name has no address")))
    } else {
        Ok(addresses)
    }
}

/// Connects to the first of `addresses` that answers, trying them in order. Without Nagle's algorithm: an exchange is
/// a few small packets back and forth, and waiting for acknowledgements costs 40 ms each time.
pub(super) async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, Cause> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut refusals = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let ended = tokio::select! {
            ended = attempts.next() => ended,
            () = sleep(HEAD_START), if waiting.len() > 0 => continue,
        };
        match ended {
            Some((address, outcome)) => match outcome.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)) {
                Ok(tcp) => return Ok(tcp),
                Err(error) => refusals.push(format!("{address}: {error}")),
            },
            None => return Err(Cause::Unreachable { detail: clean(&refusals.join("; ")) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn closed_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let tcp = connect(vec![closed_port().await, open]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        assert!(tcp.nodelay().unwrap());
    }

    #[tokio::test]
    async fn all_refusals_are_told() {
        let (first, second) = (closed_port().await, closed_port().await);
        let Err(Cause::Unreachable { detail }) = connect(vec![first, second]).await else { panic!() };
        assert!(detail.contains(&first.to_string()) && detail.contains(&second.to_string()), "{detail}");
        assert!(detail.contains("refused"), "{detail}");
    }

    #[tokio::test]
    async fn addresses_resolve_to_themselves_and_names_without_address_are_told() {
        assert_eq!(resolve("::1", 7).await.unwrap(), ["[::1]:7".parse().unwrap()]);
        // An empty label: resolvers refuse it without sending a query.
        let Err(Cause::Unresolvable { detail }) = resolve("no..host", 7).await else { panic!() };
        assert!(detail.starts_with("no..host: "), "{detail}");
    }
}
